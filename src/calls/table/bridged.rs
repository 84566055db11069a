//! Applies the server's reports of its bridges to the calls. They rank above all evidence.

use super::{PARTED, SETTLE, Table};
use crate::calls::model::{LegState, Pairing};
use crate::calls::pairing::CERTAIN;
use crate::calls::tracker::LegId;
use crate::pbx::ConnectedKind;
use crate::pbx::ConnectedTo;
use crate::pbx::bridges::{Fact, Place};
use crate::time::Time;

/// The server's report on a leg.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// No report, or none that still counts.
    Nothing,
    /// The leg talks to this leg.
    With(LegId),
    /// The leg talks to no other leg.
    At(ConnectedTo),
}

impl Table {
    /// Handles a report of the server on its channels and bridges.
    pub fn handle_fact(&mut self, fact: &Fact, now: Time) {
        for call_id in self.told.handle(fact) {
            if let Some(id) = self.leg_of(&call_id) {
                self.place(id, now);
            }
        }
        self.drain(now);
    }

    /// Whether the server reports its bridges now.
    #[must_use]
    pub const fn is_told(&self) -> bool {
        self.told.is_live()
    }

    /// The only confirmed leg with this Call-ID.
    fn leg_of(&self, call_id: &[u8]) -> Option<LegId> {
        let mut all =
            self.tracker.with_call_id(call_id).filter(|(_, t)| t.leg.state == LegState::Confirmed).map(|(id, _)| id);
        let first = all.next()?;
        // Several match if a proxy shows one dialog twice or two forks were answered. The report does not say which one
        // it means.
        all.next().is_none().then_some(first)
    }

    fn word(&self, id: LegId) -> Word {
        let Some(t) = self.tracker.get(id) else { return Word::Nothing };
        if self.leg_of(&t.leg.call_id.0) != Some(id) {
            return Word::Nothing;
        }
        match self.told.place(&t.leg.call_id.0) {
            Place::Unknown => Word::Nothing,
            Place::At(end) => Word::At(end),
            Place::With(other) => match self.leg_of(other) {
                Some(other) => Word::With(other),
                // The other leg's answer was not seen (yet), or the leg has just ended and the server has not reported
                // it (yet).
                None if self.told.is_live() => {
                    Word::At(ConnectedTo { kind: ConnectedKind::Elsewhere, name: String::new() })
                }
                None => Word::Nothing,
            },
        }
    }

    /// What a single leg is connected to, if the server reports it.
    pub(super) fn other_end(&self, id: LegId) -> Option<ConnectedTo> {
        match self.word(id) {
            Word::At(end) => Some(end),
            Word::Nothing | Word::With(_) => None,
        }
    }

    /// Whether evidence may decide for the leg: only where the server reports nothing.
    pub(super) fn may_guess(&self, id: LegId, by: Pairing) -> bool {
        // One dialog seen twice is no guess.
        by == Pairing::SameDialog || self.word(id) == Word::Nothing
    }

    /// Whether the server has had the time to report the leg.
    pub(super) fn has_waited(&self, id: LegId, now: Time) -> bool {
        self.tracker.get(id).and_then(|t| t.confirmed).is_none_or(|at| now >= at + SETTLE)
    }

    /// Places a confirmed leg where the server reports it.
    pub(super) fn place(&mut self, id: LegId, now: Time) {
        let Some(call) = self.members.get(&id).map(|m| m.call) else { return };
        let slot = call.and_then(|key| Some((key, self.calls.get(&key)?)));
        match (self.word(id), slot) {
            (Word::With(other), Some((key, slot))) if slot.legs.len() == 2 && slot.legs.contains(&other) => {
                let certain = Some((Pairing::Bridge, CERTAIN));
                // One dialog seen twice is equally certain and says more.
                if slot.pairing != certain && slot.pairing.is_none_or(|(how, _)| how != Pairing::SameDialog) {
                    if let Some(slot) = self.calls.get_mut(&key) {
                        slot.pairing = certain;
                    }
                    self.queue_put(key);
                }
            }
            (Word::With(other), _) => {
                let open = self.join(id, other, Pairing::Bridge, CERTAIN, now);
                self.settle(open, now);
            }
            // The leg may be moving between bridges, or just hanging up. A third leg may share the bridge only until
            // one of the two has left, as in a transfer.
            (Word::At(_), Some((_, slot))) if slot.legs.len() == 2 => self.waiting.push_back((now + SETTLE, id)),
            (word, Some((key, slot))) => {
                let end = if let Word::At(end) = word { Some(end) } else { None };
                // A report stays valid until the server reports something else.
                if slot.legs.len() == 1 && slot.other_end != end && (end.is_some() || self.told.is_live()) {
                    if let Some(slot) = self.calls.get_mut(&key) {
                        slot.other_end = end;
                    }
                    self.queue_put(key);
                }
            }
            (_, None) => {}
        }
    }

    /// A leg has waited long enough for its partner or its next bridge.
    pub(super) fn waited(&mut self, id: LegId, now: Time) {
        let Some(call) = self.members.get(&id).map(|m| m.call) else { return };
        match call.and_then(|key| Some((key, self.calls.get(&key)?.legs.len()))) {
            Some((key, 2)) => {
                // Only the server's report separates two live legs.
                if matches!(self.word(id), Word::At(_)) {
                    let legs = self.part(key, PARTED, now);
                    self.settle(legs.to_vec(), now);
                    for leg in legs {
                        self.alone(leg, now);
                    }
                }
            }
            Some(_) => {}
            None => {
                self.place(id, now);
                self.settle(vec![id], now);
                self.alone(id, now);
            }
        }
    }

    /// Makes a leg a call of its own, if it is in none.
    fn alone(&mut self, id: LegId, now: Time) {
        if self.members.get(&id).is_some_and(|m| m.call.is_none()) {
            self.make_call(&[id], None, now);
        }
    }
}

#[cfg(test)]
mod tests;
