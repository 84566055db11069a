//! A call as `status` and `calls` show it.

use super::call::{CarriedCall, Phase};
use super::types::{CallState, CallStatus};

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
}
