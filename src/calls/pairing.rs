//! Legs to calls: finds the two legs that a B2BUA or a proxy joined. Pure.
//!
//! Evidence is used strongest first: one dialog seen twice, a header that the operator named, Session-ID, then identities with
//! time. Two legs are paired only if each is the other's only fit, counting also legs that still ring; where several fit, only the order of the
//! answers may decide: a B2BUA answers the caller right after the callee has answered. What remains in doubt stays unpaired:
//! a wrong pair would join strangers.

use super::model::{Direction, Pairing};
use super::tracker::{LegId, Tracked};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::Duration;

/// How long after the caller's INVITE the callee's may come: longer than most announcements before a transfer, and short enough that a
/// forgotten leg is no rival for the calls of the next minutes.
const SETUP_WINDOW: Duration = Duration::from_secs(180);
/// How long after the callee's answer the caller's may come for their order to tell equal candidates apart: a busy server needs
/// milliseconds, people who answer two such calls need longer.
const ANSWER_WINDOW: Duration = Duration::from_millis(500);
/// Most legs with one identity that are looked at. Beyond it the case counts as ambiguous, which is safe and bounds the work.
const MAX_RIVALS: usize = 64;

type Ids = SmallVec<[LegId; 4]>;

/// The unpaired legs, found by what they have in common.
#[derive(Default)]
pub struct Pairer {
    index: HashMap<u64, Ids>,
    hasher: RandomState,
}

/// Reads a leg.
pub trait Legs {
    /// The leg, if it is still known.
    fn leg(&self, id: LegId) -> Option<&Tracked>;
}

impl Legs for super::tracker::Tracker {
    fn leg(&self, id: LegId) -> Option<&Tracked> {
        self.get(id)
    }
}

impl Pairer {
    /// Makes a leg a candidate (and a rival).
    pub fn add(&mut self, id: LegId, t: &Tracked) {
        for key in self.keys(t) {
            let ids = self.index.entry(key).or_default();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }

    /// Takes a leg out: it is paired, or over.
    pub fn remove(&mut self, id: LegId, t: &Tracked) {
        for key in self.keys(t) {
            if let Some(ids) = self.index.get_mut(&key) {
                ids.retain(|x| *x != id);
                if ids.is_empty() {
                    self.index.remove(&key);
                }
            }
        }
    }

    /// Forgets all legs.
    pub fn clear(&mut self) {
        self.index.clear();
    }

    /// The unpaired legs that have something in common with `t`: its fate may settle theirs.
    #[must_use]
    pub fn neighbours(&self, t: &Tracked) -> Vec<LegId> {
        let mut all: Vec<_> = self.keys(t).iter().filter_map(|k| self.index.get(k)).flatten().copied().take(MAX_RIVALS).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The partner of the confirmed leg `id`, if it is certain now.
    #[must_use]
    pub fn partner(&self, id: LegId, legs: &impl Legs) -> Option<(LegId, Pairing)> {
        let me = legs.leg(id)?;
        me.confirmed?;
        [Pairing::SameDialog, Pairing::Header, Pairing::SessionId, Pairing::Evidence].into_iter().find_map(|level| {
            let candidates = self.best(id, me, level, legs)?;
            if candidates.is_empty() {
                None
            } else {
                Some(self.decide(id, me, &candidates, level, legs).map(|other| (other, level)))
            }
        })?
    }

    fn decide(&self, id: LegId, me: &Tracked, candidates: &[LegId], level: Pairing, legs: &impl Legs) -> Option<LegId> {
        if let [only] = candidates {
            let other = legs.leg(*only)?;
            if other.confirmed.is_some() && *self.best(*only, other, level, legs)? == [id] {
                return Some(*only);
            }
        }
        match me.leg.direction {
            Direction::Inbound => self.answered_by(id, me, level, legs),
            Direction::Outbound => candidates
                .iter()
                .copied()
                .find(|i| legs.leg(*i).is_some_and(|caller| self.answered_by(*i, caller, level, legs) == Some(id))),
        }
    }

    /// The only outbound leg whose answer came right before that of the caller's leg `id`, if no other caller was answered then.
    fn answered_by(&self, id: LegId, caller: &Tracked, level: Pairing, legs: &impl Legs) -> Option<LegId> {
        let answered = caller.confirmed?;
        let right_before = |o: &LegId| {
            legs.leg(*o).and_then(|t| t.confirmed).is_some_and(|at| at <= answered && answered.since(at) <= ANSWER_WINDOW)
        };
        let mut before = self.best(id, caller, level, legs)?;
        before.retain(|o| right_before(o));
        let [callee] = before.as_slice() else { return None };
        let other = legs.leg(*callee)?;
        let first = other.confirmed?;
        let mut callers = self.best(*callee, other, level, legs)?;
        callers
            .retain(|i| legs.leg(*i).and_then(|t| t.confirmed).is_some_and(|at| at >= first && at.since(first) <= ANSWER_WINDOW));
        (*callers == [id]).then_some(*callee)
    }

    /// The legs that fit `id` best; `None` if there are too many to look at.
    fn best(&self, id: LegId, me: &Tracked, level: Pairing, legs: &impl Legs) -> Option<Ids> {
        let mut found: SmallVec<[(u8, LegId); 4]> = SmallVec::new();
        for key in self.level_keys(me, level) {
            let Some(ids) = self.index.get(&key) else { continue };
            let mut looked = 0;
            for other in ids.iter().filter(|o| **o != id) {
                let Some(t) = legs.leg(*other) else { continue };
                if t.leg.direction == me.leg.direction {
                    continue;
                }
                looked += 1;
                if looked > MAX_RIVALS {
                    return None;
                }
                let fit = fits(me, t, level);
                if fit > 0 && !found.iter().any(|(_, o)| o == other) {
                    found.push((fit, *other));
                }
            }
        }
        let top = found.iter().map(|(fit, _)| *fit).max().unwrap_or(0);
        Some(found.into_iter().filter(|(fit, _)| *fit == top).map(|(_, o)| o).collect())
    }

    fn keys(&self, t: &Tracked) -> SmallVec<[u64; 8]> {
        [Pairing::SameDialog, Pairing::Header, Pairing::SessionId, Pairing::Evidence]
            .into_iter()
            .flat_map(|level| self.level_keys(t, level))
            .collect()
    }

    fn level_keys(&self, t: &Tracked, level: Pairing) -> SmallVec<[u64; 4]> {
        let c = &t.clues;
        // A number in front keeps a caller from meeting a callee of the same number.
        let key = |kind: u8, value: &[u8]| self.hasher.hash_one((kind, value));
        match level {
            Pairing::SameDialog => [key(0, &t.leg.call_id.0)].into_iter().collect(),
            Pairing::Header => c.header.iter().map(|v| key(1, v)).collect(),
            Pairing::SessionId => c.session_id.iter().map(|v| key(2, v)).collect(),
            Pairing::Evidence => {
                let callers = c.caller.iter().flatten().map(|v| key(3, v));
                callers.chain(c.callee.iter().flatten().map(|v| key(4, v))).collect()
            }
        }
    }
}

/// How well two legs of opposite direction fit; 0 for not at all.
fn fits(a: &Tracked, b: &Tracked, level: Pairing) -> u8 {
    let (caller, callee) = if a.leg.direction == Direction::Inbound { (a, b) } else { (b, a) };
    let same_call_id = a.leg.call_id == b.leg.call_id;
    let fits = match level {
        // The server's side of the one is the phone's side of the other. Tags that are not known yet are those to come.
        Pairing::SameDialog => {
            let tag = |x: &[u8], y: &[u8]| x.is_empty() || y.is_empty() || x == y;
            same_call_id
                && caller.leg.remote_tag == callee.leg.local_tag
                && tag(&caller.leg.local_tag.0, &callee.leg.remote_tag.0)
        }
        Pairing::Header => !same_call_id && a.clues.header.is_some() && a.clues.header == b.clues.header,
        Pairing::SessionId => !same_call_id && a.clues.session_id.is_some() && a.clues.session_id == b.clues.session_id,
        Pairing::Evidence => {
            let headers_differ = a.clues.header.is_some() && b.clues.header.is_some() && a.clues.header != b.clues.header;
            let in_order = callee.started >= caller.started && callee.started.since(caller.started) <= SETUP_WINDOW;
            return if same_call_id || headers_differ || !in_order { 0 } else { a.clues.agreement(&b.clues) };
        }
    };
    u8::from(fits)
}

#[cfg(test)]
mod tests;
