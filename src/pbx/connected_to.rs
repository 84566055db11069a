//! What a server connects a leg without a partner to.

use serde::{Deserialize, Serialize};

/// What a single leg is connected to, as reported by the server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConnectedTo {
    /// Its kind.
    pub kind: ConnectedKind,
    /// The server's name for it (the conference, the queue, the application), if it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// Kinds of [`ConnectedTo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectedKind {
    /// A conference, or a bridge of more than two.
    Conference,
    /// A queue in which the caller waits.
    Queue,
    /// A parking lot, or another bridge that only holds its members.
    Parked,
    /// A mailbox.
    Voicemail,
    /// An application of the server: an announcement, a menu, an echo.
    Application,
    /// A party outside of this server's SIP address: another technology, another address.
    Elsewhere,
    /// Nobody, for the moment.
    Nobody,
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

impl ConnectedKind {
    /// Where the party is, in words that follow its name.
    #[must_use]
    pub const fn place(self) -> &'static str {
        match self {
            Self::Conference => "in a conference of the server",
            Self::Queue => "waiting in a queue of the server",
            Self::Parked => "parked at the server",
            Self::Voicemail => "in a mailbox of the server",
            Self::Application => "in an application of the server",
            Self::Elsewhere => "connected to a party that does not pass the virtual address",
            Self::Nobody => "connected to nobody",
            Self::Unknown => "connected to something that this version does not know",
        }
    }
}
