//! What the parties of a call would hear after a takeover now. `calls` says it before. Pure: the same decisions as the
//! engine's, in an operator's terms.

use super::deed::{Deed, reason};
use super::permitted::Ground;
use super::plan::{Paths, Unpassable};
use super::recoverability::{self, AudioRoute, Fate};
use crate::calls::model::Call;
use crate::config::Mode;

/// What a takeover would leave of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// The parties hear each other, and hold, resume and hang up as before. With what does not work, if anything.
    Kept(Option<String>),
    /// The parties hear each other, and nothing else works. With the reason.
    Audio(String),
    /// The parties hear nothing. With the reason.
    Lost(String),
    /// The legs may belong to strangers, so they are not connected. With the reason.
    Doubtful(String),
}

impl Outlook {
    /// The outlook of a call on this host in this mode.
    #[must_use]
    pub fn of(call: &Call, ground: &Ground, mode: Mode) -> Self {
        let (fate, paths) = recoverability::of(call, ground);
        let restored = fate == Fate::Proxied && ground.external;
        let route = recoverability::way(call, ground);
        let relayed = mode.relays() && !paths.flows.is_empty();
        let heard = match route {
            AudioRoute::Direct => true,
            // Of a B2BUA, the address is more likely the dead server's own than that of a host which lives on.
            AudioRoute::Elsewhere(_) => fate == Fate::Proxied || ground.external,
            AudioRoute::OneDirect { .. } => fate == Fate::Proxied,
            AudioRoute::Server | AudioRoute::Unknown => restored || relayed,
        };
        let deed = Deed::of(mode, fate, !paths.flows.is_empty());
        let carried = matches!(deed, Deed::Reinvite | Deed::HandOn);
        let why = || match (fate, mode) {
            (_, Mode::Observe) => reason(mode, fate, deed),
            (Fate::Doubtful(doubtful), _) => doubtful.to_string(),
            (Fate::Silent(why), _) => why.to_string(),
            _ => reason(mode, fate, deed),
        };
        let keys = paths.keys_lost.as_ref().filter(|_| relayed).map(ToString::to_string);
        match (heard, carried) {
            (true, true) => Self::Kept(keys),
            (true, false) => Self::Audio(keys.into_iter().fold(why(), |why, keys| format!("{why}; {keys}"))),
            (false, true) if mode.relays() => Self::Lost(unheard(&paths, route)),
            (false, _) if matches!((fate, mode), (Fate::Doubtful(_), Mode::Audio | Mode::Full)) => {
                Self::Doubtful(why())
            }
            (false, _) => Self::Lost(why()),
        }
    }

    /// One word for a table and for JSON.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Kept(_) => "kept",
            Self::Audio(_) => "audio",
            Self::Lost(_) => "lost",
            Self::Doubtful(_) => "doubtful",
        }
    }

    /// Why the call is not kept, or what of a kept call does not work.
    #[must_use]
    pub fn why(self) -> Option<String> {
        match self {
            Self::Kept(without) => without,
            Self::Audio(why) | Self::Lost(why) | Self::Doubtful(why) => Some(why),
        }
    }
}

/// Why nothing is heard of a call that is carried on.
fn unheard(paths: &Paths, route: AudioRoute) -> String {
    if let Some(why) = recoverability::refusal(paths) {
        return why;
    }
    match route {
        AudioRoute::Elsewhere(at) => Unpassable::NotOurs(at.ip()).to_string(),
        AudioRoute::OneDirect { from, to, .. } => format!(
            "one way only: {from} sends its audio straight to {to}, and the other party's audio needs the server"
        ),
        _ => "the relay cannot forward the audio".to_owned(),
    }
}

#[cfg(test)]
mod tests;
