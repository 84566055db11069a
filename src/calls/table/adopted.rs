//! Adopts calls stored before this process started.

use super::{Member, Slot, Table};
use crate::calls::model::{Call, LegState, Pairing};
use crate::calls::pairing::CERTAIN;
use crate::calls::tracker::LegId;
use crate::time::Time;
use smallvec::SmallVec;

impl Table {
    /// Follows a call stored before this process started, so that its changes and its end are noticed. It is not
    /// reported again until it changes. Ignores a known call, a call without legs, and a call beyond `max_calls`.
    pub fn adopt(&mut self, call: &Call, now: Time) {
        if call.legs.is_empty() || call.legs.len() > 2 || self.calls.values().any(|s| s.id == call.id) {
            return;
        }
        let live: SmallVec<[_; 2]> = call.legs.iter().filter(|l| l.state == LegState::Confirmed).collect();
        if !self.tracker.fits(live.len(), call.emergency) {
            // Half a call is worse than none: it would be stored as a party with an unknown partner.
            return;
        }
        let legs: SmallVec<[LegId; 2]> = live
            .into_iter()
            .filter_map(|l| self.tracker.adopt(l.clone(), call.confirmed_ms, call.emergency, now))
            .collect();
        if legs.is_empty() {
            return;
        }
        let key = self.next_call;
        self.next_call += 1;
        for id in &legs {
            self.members.insert(*id, Member { call: Some(key), told: true });
        }
        self.sources.forget();
        // A call stored before confidences existed gets the least that this version would assign.
        let pairing =
            call.pairing.map(|p| (p, call.confidence.unwrap_or(if p == Pairing::SameDialog { CERTAIN } else { 0 })));
        let other_end = call.other_end.clone();
        self.calls.insert(key, Slot { id: call.id.clone(), legs: legs.clone(), pairing, other_end, queued: false });
        // The server may have reported it before, with another partner.
        for id in legs {
            self.place(id, now);
        }
    }
}
