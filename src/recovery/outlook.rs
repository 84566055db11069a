//! What the parties of a call would hear after a takeover now. `calls` says it before. Pure: the same decisions as the
//! engine's, in an operator's terms.

use super::deed::{Deed, reason};
use super::permitted::Ground;
use super::recoverability::{self, AudioRoute, Fate};
use crate::calls::model::Call;
use crate::config::Mode;

/// What a takeover would leave of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// The parties hear each other, and hold, resume and hang up as before.
    Kept,
    /// The parties hear each other, and nothing else works. With the reason.
    Audio(String),
    /// The parties hear nothing. With the reason.
    Lost(String),
}

impl Outlook {
    /// The outlook of a call on this host in this mode.
    #[must_use]
    pub fn of(call: &Call, ground: &Ground, mode: Mode) -> Self {
        let (fate, paths) = recoverability::of(call, ground);
        let restored = fate == Fate::Proxied && ground.external;
        let heard = match recoverability::way(call, &ground.vips) {
            AudioRoute::Direct | AudioRoute::Elsewhere(_) => true,
            AudioRoute::Server | AudioRoute::Unknown => restored || (mode.relays() && !paths.flows.is_empty()),
        };
        let deed = Deed::of(mode, fate, !paths.flows.is_empty());
        let carried = matches!(deed, Deed::Reinvite | Deed::HandOn);
        match (heard, carried) {
            (true, true) => Self::Kept,
            (true, false) => Self::Audio(reason(mode, fate, deed)),
            (false, true) if mode.relays() => Self::Lost(
                recoverability::refusal(&paths).unwrap_or_else(|| "the relay cannot forward the audio".into()),
            ),
            (false, _) => Self::Lost(reason(mode, fate, deed)),
        }
    }

    /// One word for a table and for JSON.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Audio(_) => "audio",
            Self::Lost(_) => "lost",
        }
    }

    /// Why the call is not kept.
    #[must_use]
    pub fn why(self) -> Option<String> {
        match self {
            Self::Kept => None,
            Self::Audio(why) | Self::Lost(why) => Some(why),
        }
    }
}

#[cfg(test)]
mod tests;
