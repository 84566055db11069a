//! One party of a call has hung up, and the server has not hung up the other one yet. If the server dies now, nobody
//! would tell that party. So the call stays in the store, with the leg of the first party ended, until the other leg is
//! over as well or goes on as another call.

use super::Table;
use crate::calls::model::{LegState, Pairing};
use crate::calls::tracker::LegId;

impl Table {
    /// A leg of the call has ended. `rest` are its other legs.
    pub(super) fn over(&mut self, key: u64, leg: LegId, rest: &[LegId], reason: &'static str) {
        match rest {
            [other] if !self.tell_short && self.is_left(key, leg, *other, reason) => {
                self.half_over.insert(*other, (key, reason));
                self.queue_put(key);
            }
            _ => self.drop_call(key, reason),
        }
    }

    /// Whether the party of `leg` has hung up for certain, so that the one of `other` is to hear of it.
    fn is_left(&self, key: u64, leg: LegId, other: LegId, reason: &'static str) -> bool {
        let (Some(gone), Some(stays)) = (self.tracker.get(leg), self.tracker.get(other)) else { return false };
        // Both legs of a proxied call are one dialog, and the BYE itself ends both. After a REFER the other party goes on
        // with somebody else.
        let proxied = self.calls.get(&key).is_none_or(|s| s.pairing.is_none_or(|(how, _)| how == Pairing::SameDialog));
        let transfer = gone.referred.is_some() || stays.referred.is_some();
        reason == "BYE" && gone.hung_up() && stays.leg.state == LegState::Confirmed && !proxied && !transfer
    }

    /// The leg that was left is over, or is part of another call now.
    pub(super) fn wholly_over(&mut self, leg: LegId) {
        if let Some((key, reason)) = self.half_over.remove(&leg) {
            self.drop_call(key, reason);
        }
    }
}

#[cfg(test)]
mod tests;
