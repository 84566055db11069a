//! Events that the demo can make happen to the master.

/// An event that hits the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Event {
    /// The master's link is cut. Everything on the host lives on and does not know of the cut.
    Power,
    /// The master's server is killed (SIGKILL).
    KillServer,
    /// The operator orders a switchover.
    Switchover,
    /// The agent on the master's host is killed (SIGKILL); the server lives on.
    KillAgent,
    /// The agent on the master's host is frozen (SIGSTOP), and continues when the calls have been recovered.
    FreezeAgent,
}

impl Event {
    /// The name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Power => "power",
            Self::KillServer => "kill-server",
            Self::Switchover => "switchover",
            Self::KillAgent => "kill-agent",
            Self::FreezeAgent => "freeze-agent",
        }
    }

    /// The event as a line of the timeline.
    pub(crate) const fn in_words(self) -> &'static str {
        match self {
            Self::Power => "the master's host is cut off",
            Self::KillServer => "the master's Asterisk is killed",
            Self::Switchover => "the operator orders a switchover",
            Self::KillAgent => "the master's agent is killed; its Asterisk lives on",
            Self::FreezeAgent => "the master's agent is frozen; its Asterisk lives on",
        }
    }
}
