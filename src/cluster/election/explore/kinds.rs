//! The faults that a search may use: a narrow space shows one thing quickly.

/// Kinds of faults that a run may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kinds {
    /// Messages late, lost, out of order or doubled, and links cut in one direction.
    pub(super) network: bool,
    /// Requests to etcd or its answers late, lost or refused, etcd unreachable or down, leases that end late.
    pub(super) store: bool,
    /// Commits that go to two members of etcd, with a late second copy.
    pub(super) copies: bool,
    /// Hosts that crash, agents that are killed or frozen, and their return.
    pub(super) process: bool,
    /// Switchovers and stops by an operator.
    pub(super) operator: bool,
    /// An operator deletes the record, within assumption 7 of `docs/election-proof.md`.
    pub(super) deletion: bool,
    /// An operator pauses the cluster.
    pub(super) pause: bool,
    /// A node's priority rises above the others'.
    pub(super) preempt: bool,
    /// An operator has a member forgotten.
    pub(super) forget: bool,
}

impl Kinds {
    pub(super) const ALL: Self = Self {
        network: true,
        store: true,
        copies: true,
        process: true,
        operator: true,
        deletion: true,
        pause: true,
        preempt: true,
        forget: true,
    };
    pub(super) const NONE: Self = Self {
        network: false,
        store: false,
        copies: false,
        process: false,
        operator: false,
        deletion: false,
        pause: false,
        preempt: false,
        forget: false,
    };
    pub(super) const NETWORK: Self = Self { network: true, ..Self::NONE };
    pub(super) const STORE: Self = Self { store: true, ..Self::NONE };
    pub(super) const PROCESS: Self = Self { process: true, ..Self::NONE };
    pub(super) const OPERATOR: Self = Self { operator: true, ..Self::NONE };
    pub(super) const DELETION: Self = Self { deletion: true, ..Self::NONE };
    pub(super) const PAUSE: Self = Self { pause: true, ..Self::NONE };
    pub(super) const PREEMPT: Self = Self { preempt: true, ..Self::NONE };
    pub(super) const FORGET: Self = Self { forget: true, ..Self::NONE };
}
