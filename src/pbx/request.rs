//! What the agent asks a server about one channel, and the server's answers.

/// Longest name of a channel. Asterisk's own limit is 80.
const LONGEST_NAME: usize = 256;

/// A question or an order about one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The local tag of the channel's dialog.
    Tag {
        /// The channel.
        channel: String,
    },
    /// End the channel, if it still has this name.
    HangUp {
        /// The channel.
        channel: String,
        /// The name that it had when it told its tag. The name stays with the dialog if channels exchange their insides.
        name: String,
    },
}

/// The server's answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The local tag; `None` if the server cannot tell it.
    Tag {
        /// The channel.
        channel: String,
        /// Its name at that moment.
        name: String,
        /// The tag.
        tag: Option<Vec<u8>>,
    },
    /// The server ends the channel.
    Ending {
        /// The channel.
        channel: String,
    },
    /// There is no such channel, or another one has the name now.
    Missing {
        /// The channel.
        channel: String,
    },
    /// The login may not hang up. What to do.
    Denied {
        /// The error for the operator.
        error: String,
    },
}

/// Whether a name may be sent. A control character could begin a header of its own, and Asterisk takes a name that
/// begins with a slash as a pattern that fits many channels.
pub(super) fn is_safe(name: &str) -> bool {
    let strange = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
    !name.is_empty() && name.len() <= LONGEST_NAME && !name.starts_with('/') && !name.contains(strange)
}
