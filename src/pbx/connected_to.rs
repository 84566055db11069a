//! What a server connects a leg to that has no partner.

use serde::{Deserialize, Serialize};

/// What a single leg is connected to, as the server itself says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConnectedTo {
    /// Of what kind it is.
    pub kind: ConnectedKind,
    /// Its name at the server (of the conference, the queue, the application), where it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// Kinds of [`ConnectedTo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectedKind {
    /// A conference, or a bridge of more than two.
    Conference,
    /// A queue, in which it waits.
    Queue,
    /// A parking lot, or another bridge that only holds who is in it.
    Parked,
    /// A mailbox.
    Voicemail,
    /// An application of the server: an announcement, a menu, an echo.
    Application,
    /// A party that is no SIP dialog of this server's address: another technology, another address.
    Elsewhere,
    /// Nobody, for the moment.
    Nobody,
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}
