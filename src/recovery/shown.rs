//! What is told of a call: its status, and what its parties hear.

use super::call::{CarriedCall, Phase};
use super::heard::Hearing;
#[cfg(test)]
use super::permitted::Ground;
#[cfg(test)]
use super::types::Fault;
use super::types::{CallState, CallStatus, Settings};

impl CarriedCall {
    pub(super) fn status(&self) -> CallStatus {
        CallStatus {
            call: self.call.id.clone(),
            state: match self.phase {
                Phase::Waiting => CallState::Waiting,
                Phase::Recovering => CallState::Recovering,
                Phase::Carrying => CallState::Carried,
                Phase::Kept(_) if self.flows.is_empty() => CallState::Left,
                Phase::Kept(_) => CallState::Relayed,
                Phase::Over(_) => CallState::Over,
            },
            emergency: self.call.emergency,
            flows: self.flows.len(),
            outcome: self.outcome.clone(),
            counted: self.counted,
        }
    }

    /// What the parties hear now, with the relay paths in force.
    pub(super) fn hearing(&self, carried: bool, settings: &Settings) -> Hearing {
        #[cfg(test)]
        if settings.lacks(Fault::DeafRecovered) {
            return Hearing::BothWays;
        }
        #[cfg(test)]
        if settings.lacks(Fault::ForeignHeard) {
            let ground = Ground { external: true, ..settings.ground.clone() };
            return Hearing::of(&self.call, &self.flows, carried, &ground);
        }
        Hearing::of(&self.call, &self.flows, carried, &settings.ground)
    }
}
