//! The least confidence of a pair.

/// Default of `min_confidence`. What a server reports, one dialog seen twice, and shared identifiers have 90 and more.
/// Both parties' identities together with the order of the answers have 80 and more. One party alone, which a stranger
/// may share, has less.
pub const MIN_CONFIDENCE: u8 = 80;

pub(super) const fn default() -> u8 {
    MIN_CONFIDENCE
}
