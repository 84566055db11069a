//! What an exploration got to, so that it is known not to be empty.

/// How often a node came to hold, by cause, on the way here. Not part of the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) first: u64,
    pub(super) fast: u64,
    pub(super) slow: u64,
    pub(super) handover: u64,
    pub(super) resumed: u64,
    pub(super) restarted: u64,
}

impl Reached {
    /// Adds what happened from `before` to `after`.
    pub(super) const fn add(&mut self, after: &Self, before: &Self) {
        self.first += after.first - before.first;
        self.fast += after.fast - before.fast;
        self.slow += after.slow - before.slow;
        self.handover += after.handover - before.handover;
        self.resumed += after.resumed - before.resumed;
        self.restarted += after.restarted - before.restarted;
    }
}
