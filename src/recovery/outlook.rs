//! What the parties of a call would hear after a takeover now. `calls` says it before. Pure: the same decisions as the
//! engine's, in an operator's terms.

use super::deed::{Deed, HUNG_UP, reason};
use super::heard::Hearing;
use super::hung_up::is_half_over;
use super::permitted::Ground;
use super::recoverability::{self, Fate};
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
    /// One party has hung up, and the takeover tells the other one.
    Over,
}

impl Outlook {
    /// The outlook of a call on this host in this mode.
    #[must_use]
    pub fn of(call: &Call, ground: &Ground, mode: Mode) -> Self {
        let (fate, paths) = recoverability::of(call, ground);
        if is_half_over(call) && fate != Fate::Proxied {
            return Self::Over;
        }
        let deed = Deed::of(mode, fate, !paths.flows.is_empty());
        let flows = if mode.relays() { paths.flows.as_slice() } else { &[] };
        let hearing = Hearing::of(call, flows, deed.carries(), ground);
        let why = || match (fate, mode) {
            (_, Mode::Observe) => reason(mode, fate, deed),
            (Fate::Doubtful(doubtful), _) => doubtful.to_string(),
            (Fate::Silent(why), _) => why.to_string(),
            _ => reason(mode, fate, deed),
        };
        let keys = paths.keys_lost.as_ref().filter(|_| !flows.is_empty()).map(ToString::to_string);
        match (hearing.why_not(), deed.carries()) {
            (None, true) => Self::Kept(keys),
            (None, false) => Self::Audio(keys.into_iter().fold(why(), |why, keys| format!("{why}; {keys}"))),
            (Some(unheard), true) if mode.relays() => Self::Lost(unheard.to_owned()),
            (Some(_), _) if matches!((fate, mode), (Fate::Doubtful(_), Mode::Audio | Mode::Full)) => {
                Self::Doubtful(why())
            }
            (Some(_), _) => Self::Lost(why()),
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
            Self::Over => "over",
        }
    }

    /// Why the call is not kept, or what of a kept call does not work.
    #[must_use]
    pub fn why(self) -> Option<String> {
        match self {
            Self::Kept(without) => without,
            Self::Audio(why) | Self::Lost(why) | Self::Doubtful(why) => Some(why),
            Self::Over => Some(HUNG_UP.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
