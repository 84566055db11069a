//! Decides what a takeover does with a call, from the mode and the call's fate. Pure. The engine follows it, and
//! `history` counts it.

#[cfg(test)]
mod tests;

use super::hung_up::is_half_over;
use super::permitted::Ground;
use super::plan::Unpassable;
use super::recoverability::{self, Fate};
use crate::calls::model::Call;
use crate::config::Mode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why nothing is kept of a call that is half over.
pub(super) const HUNG_UP: &str = "a party has hung up already";

/// Treatment of one call in a takeover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// Both parties get a re-INVITE, and the agent carries the call on.
    Reinvite,
    /// The audio is relayed without any signalling.
    Relay,
    /// The new server carries the call, because it is a proxy. The relay forwards the audio until the proxy's media
    /// server does.
    HandOn,
    /// The call is left alone.
    Leave,
}

impl Deed {
    /// The treatment of a call in this mode. `audio`: the relay can forward some of its audio.
    #[must_use]
    pub const fn of(mode: Mode, fate: Fate, audio: bool) -> Self {
        match (mode, fate) {
            (_, Fate::Proxied) => Self::HandOn,
            (Mode::Full, Fate::Reinvited) => Self::Reinvite,
            (Mode::Audio | Mode::Full, _) if audio => Self::Relay,
            _ => Self::Leave,
        }
    }
}

impl Deed {
    /// Whether somebody follows what the parties ask for: the agent, or the new server.
    #[must_use]
    pub const fn carries(self) -> bool {
        matches!(self, Self::Reinvite | Self::HandOn)
    }
}

/// Counts of a takeover's calls by treatment in one mode, and the reasons why calls get no re-INVITE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Forecast {
    /// The mode of this forecast.
    pub mode: String,
    /// All calls.
    pub total: usize,
    /// Kept with a re-INVITE to both parties.
    pub reinvited: usize,
    /// Carried by the new server, which is a proxy.
    pub proxied: usize,
    /// Only their audio is relayed.
    pub relayed: usize,
    /// Left alone.
    pub left: usize,
    /// Number of calls without a re-INVITE (relayed or left alone), by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reasons: BTreeMap<String, usize>,
}

impl Forecast {
    /// An empty forecast.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self { mode: mode.name().to_owned(), ..Self::default() }
    }

    fn add(&mut self, mode: Mode, fate: Fate, audio: bool) {
        self.total += 1;
        let deed = Deed::of(mode, fate, audio);
        *match deed {
            Deed::Reinvite => &mut self.reinvited,
            Deed::HandOn => &mut self.proxied,
            Deed::Relay => &mut self.relayed,
            Deed::Leave => &mut self.left,
        } += 1;
        if matches!(deed, Deed::Relay | Deed::Leave) {
            *self.reasons.entry(reason(mode, fate, deed)).or_default() += 1;
        }
    }

    /// A call that is over, except that one party may not know it.
    fn add_half_over(&mut self) {
        self.total += 1;
        self.left += 1;
        *self.reasons.entry(HUNG_UP.to_owned()).or_default() += 1;
    }
}

/// The reason why a call gets no re-INVITE. There are only a handful, which bounds the number of counters.
pub(super) fn reason(mode: Mode, fate: Fate, deed: Deed) -> String {
    match (mode, deed, fate) {
        (Mode::Observe, ..) => "the mode is observe".to_owned(),
        (Mode::Audio, Deed::Relay, _) => "the mode is audio".to_owned(),
        (_, _, Fate::PartialDialog) => "a leg has gaps".to_owned(),
        (_, _, Fate::NotUdp) => "a leg does not use UDP".to_owned(),
        (_, _, Fate::SingleLeg) => "keepcall knows only one leg of the call".to_owned(),
        (_, _, Fate::Doubtful(_)) => "the pairing is less sure than min_confidence".to_owned(),
        // Each call may name another address.
        (_, _, Fate::Silent(Unpassable::NotOurs(_))) => "the server names an address that is not the VIP's".to_owned(),
        (_, _, Fate::Silent(why)) => why.to_string(),
        (_, _, Fate::Reinvited | Fate::Proxied) => "the audio does not pass the server".to_owned(),
    }
}

/// One forecast for `mode` and one for each mode above it.
#[derive(Clone, Debug)]
pub struct Forecasts {
    all: Vec<(Mode, Forecast)>,
}

impl Forecasts {
    /// Empty forecasts for `mode` and each mode above it.
    #[must_use]
    pub fn from(mode: Mode) -> Self {
        Self { all: Mode::ALL.into_iter().filter(|m| *m >= mode).map(|m| (m, Forecast::new(m))).collect() }
    }

    /// Adds one call to every forecast.
    pub fn add(&mut self, call: &Call, ground: &Ground) {
        let (fate, paths) = recoverability::of(call, ground);
        if is_half_over(call) && fate != Fate::Proxied {
            return self.all.iter_mut().for_each(|(_, forecast)| forecast.add_half_over());
        }
        self.all.iter_mut().for_each(|(mode, forecast)| forecast.add(*mode, fate, !paths.flows.is_empty()));
    }

    /// All forecasts, that of the current mode first.
    #[must_use]
    pub fn list(&self) -> Vec<Forecast> {
        self.all.iter().map(|(_, forecast)| forecast.clone()).collect()
    }
}
