//! What is done with a call at a takeover, by the mode and the call's fate. Pure: the engine acts by it, and `history` has it counted.

#[cfg(test)]
mod tests;

use super::permitted::Ground;
use super::recoverability::{self, Fate};
use crate::calls::model::Call;
use crate::config::Mode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is done with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// Both parties get a re-INVITE, and the agent carries the call on.
    Reinvite,
    /// The audio is relayed; no SIP is sent.
    Relay,
    /// Nothing.
    Leave,
    /// The parties get BYE.
    End,
}

impl Deed {
    /// What this mode does with a call of this fate; `audio`: there are paths that the relay can forward.
    #[must_use]
    pub const fn of(mode: Mode, fate: Fate, audio: bool) -> Self {
        match (mode, fate) {
            (Mode::Audio, _) if audio => Self::Relay,
            (Mode::Observe | Mode::Audio, _) | (Mode::Full, Fate::PartialDialog | Fate::NotUdp) => Self::Leave,
            (Mode::Full, Fate::Reinvited) => Self::Reinvite,
            (Mode::Full, Fate::SingleLeg | Fate::Silent(_)) => Self::End,
        }
    }
}

/// How many calls of a takeover meet which deed in one mode, and why the others are not kept with a re-INVITE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Forecast {
    /// The mode that is spoken of.
    pub mode: String,
    /// All calls.
    pub total: usize,
    /// Kept with a re-INVITE to both parties.
    pub reinvited: usize,
    /// Of which the audio is relayed, and nothing else is done.
    pub relayed: usize,
    /// Left alone.
    pub left: usize,
    /// Ended with BYE.
    pub ended: usize,
    /// Calls by the reason why they are relayed, left alone or ended, and not kept with a re-INVITE.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<String, usize>,
}

impl Forecast {
    /// Nothing is counted yet.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self { mode: mode.name().to_owned(), ..Self::default() }
    }

    fn add(&mut self, mode: Mode, fate: Fate, audio: bool) {
        self.total += 1;
        let deed = Deed::of(mode, fate, audio);
        *match deed {
            Deed::Reinvite => &mut self.reinvited,
            Deed::Relay => &mut self.relayed,
            Deed::Leave => &mut self.left,
            Deed::End => &mut self.ended,
        } += 1;
        if deed != Deed::Reinvite {
            *self.reasons.entry(reason(mode, fate, deed)).or_default() += 1;
        }
    }
}

/// Why a call is not kept with a re-INVITE. There are a handful of reasons, so that counting by them is bounded.
fn reason(mode: Mode, fate: Fate, deed: Deed) -> String {
    match (mode, deed, fate) {
        (Mode::Observe, ..) => "the mode is observe".to_owned(),
        (_, Deed::Relay, _) => "the mode is audio".to_owned(),
        (_, _, Fate::PartialDialog) => "a leg is incompletely known".to_owned(),
        (_, _, Fate::NotUdp) => "a leg is not over UDP".to_owned(),
        (_, _, Fate::SingleLeg) => "only one party is known".to_owned(),
        (_, _, Fate::Silent(why)) => why.to_string(),
        (_, _, Fate::Reinvited) => "its audio does not pass the server".to_owned(),
    }
}

/// What `mode` does with calls at these addresses, and each mode above it would do: one forecast for each.
#[derive(Clone, Debug)]
pub struct Forecasts {
    all: Vec<(Mode, Forecast)>,
}

impl Forecasts {
    /// Nothing is counted yet.
    #[must_use]
    pub fn from(mode: Mode) -> Self {
        Self { all: Mode::ALL.into_iter().filter(|m| *m >= mode).map(|m| (m, Forecast::new(m))).collect() }
    }

    /// Counts one more call.
    pub fn add(&mut self, call: &Call, ground: &Ground) {
        let (fate, paths) = recoverability::of(call, ground);
        self.all.iter_mut().for_each(|(mode, forecast)| forecast.add(*mode, fate, !paths.flows.is_empty()));
    }

    /// The mode itself first.
    #[must_use]
    pub fn list(&self) -> Vec<Forecast> {
        self.all.iter().map(|(_, forecast)| forecast.clone()).collect()
    }
}
