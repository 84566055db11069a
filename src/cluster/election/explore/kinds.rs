//! Which faults a search may use: a narrow space shows one thing quickly.

/// Kinds of faults that a run may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kinds {
    /// Messages late, lost, out of order or doubled, and links cut in one direction.
    pub(super) network: bool,
    /// Requests to etcd or its answers late, lost or refused, etcd unreachable or down, leases that end late.
    pub(super) store: bool,
    /// Hosts that crash, agents that are killed or frozen, and come back.
    pub(super) process: bool,
    /// Switchovers and stops that an operator asks for.
    pub(super) operator: bool,
}

impl Kinds {
    pub(super) const ALL: Self = Self { network: true, store: true, process: true, operator: true };
    pub(super) const NONE: Self = Self { network: false, store: false, process: false, operator: false };
    pub(super) const NETWORK: Self = Self { network: true, ..Self::NONE };
    pub(super) const STORE: Self = Self { store: true, ..Self::NONE };
    pub(super) const PROCESS: Self = Self { process: true, ..Self::NONE };
    pub(super) const OPERATOR: Self = Self { operator: true, ..Self::NONE };
}
