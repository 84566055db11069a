//! A small seeded generator (splitmix64). The same seed gives the same run, so simulations can be replayed.

use std::time::Duration;

/// The generator for branches and retry delays. Apart from the seed, nothing here is secret.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A Via branch with the magic cookie of RFC 3261 section 8.1.1.7.
    pub(super) fn branch(&mut self) -> String {
        format!("z9hG4bK{:016x}{:08x}", self.next(), self.next() >> 32)
    }

    /// A random duration from `low_ms` to `high_ms` in steps of 10 ms, as RFC 3261 section 14.1 requires.
    pub(super) const fn tens(&mut self, low_ms: u64, high_ms: u64) -> Duration {
        let steps = high_ms.saturating_sub(low_ms) / 10 + 1;
        Duration::from_millis(low_ms + self.next() % steps * 10)
    }
}
