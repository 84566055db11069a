//! Cases that an exploration reached, to prove that it is not empty.

/// Number of takeovers on this path, by cause. Not part of the state.
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
    /// Adds the takeovers between `before` and `after`.
    pub(super) const fn add(&mut self, after: &Self, before: &Self) {
        self.first += after.first - before.first;
        self.fast += after.fast - before.fast;
        self.slow += after.slow - before.slow;
        self.handover += after.handover - before.handover;
        self.resumed += after.resumed - before.resumed;
        self.restarted += after.restarted - before.restarted;
    }
}
