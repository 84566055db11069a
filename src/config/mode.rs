//! What the agent may do with the calls of an instance.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What an agent may do with calls. Each mode includes the ones before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Learns and stores calls, and reports what it would have done with them. Sends nothing, relays nothing.
    Observe,
    /// Relays the audio of calls after a takeover; sends no SIP.
    Audio,
    /// Relays and signals: re-INVITE, BYE, and answers to phones.
    #[default]
    Full,
}

impl Mode {
    /// All modes, from the least to the most.
    pub const ALL: [Self; 3] = [Self::Observe, Self::Audio, Self::Full];

    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Audio => "audio",
            Self::Full => "full",
        }
    }

    /// Whether SIP may be sent.
    #[must_use]
    pub const fn signals(self) -> bool {
        matches!(self, Self::Full)
    }

    /// Whether the audio of calls may be relayed.
    #[must_use]
    pub const fn relays(self) -> bool {
        matches!(self, Self::Audio | Self::Full)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
