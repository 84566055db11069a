//! What can happen to the master of the demo.

/// What happens to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Event {
    /// Its link is cut; all that runs on it lives on and knows nothing of it.
    Power,
    /// Its server is killed (SIGKILL).
    KillServer,
    /// The operator orders a switchover.
    Switchover,
    /// The agent beside it is killed (SIGKILL); its server lives on.
    KillAgent,
    /// The agent beside it is frozen (SIGSTOP), and goes on when the calls have been recovered.
    FreezeAgent,
}

impl Event {
    /// As on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Power => "power",
            Self::KillServer => "kill-server",
            Self::Switchover => "switchover",
            Self::KillAgent => "kill-agent",
            Self::FreezeAgent => "freeze-agent",
        }
    }

    /// As a line of the timeline.
    pub(crate) const fn in_words(self) -> &'static str {
        match self {
            Self::Power => "the master is cut off",
            Self::KillServer => "the master's Asterisk is killed",
            Self::Switchover => "a switchover is ordered",
            Self::KillAgent => "the master's agent is killed; its Asterisk lives on",
            Self::FreezeAgent => "the master's agent is frozen; its Asterisk lives on",
        }
    }
}
