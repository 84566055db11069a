//! Legs to calls: finds the two legs that a B2BUA or a proxy joined, from what the legs themselves show. Pure.
//!
//! Evidence is used strongest first: one dialog seen twice, a header that the operator named, Session-ID, the phone's media
//! address in the other leg's description, then identities with time. Two legs are paired only if each is the other's only
//! fit, counting also legs that still ring; where several fit, only the order of the answers may decide: a B2BUA answers the
//! caller right after the callee has answered. What remains in doubt stays unpaired: a wrong pair would join strangers.
//!
//! What the server itself says of its bridges ranks above all of this, and is not found here: see [`super::facts`].
//!
//! How certain a pair is, from 0 to 100:
//!
//! | found by | confidence |
//! |---|---|
//! | the server's own word, or one dialog seen twice | 100 |
//! | the operator's header, or Session-ID | 95 |
//! | media: each leg was sent the other phone's address (direct media) | 95 |
//! | media: one of them was | 90 |
//! | caller agrees exactly / as a number written otherwise | +35 / +25 |
//! | callee agrees exactly / as a number written otherwise | +35 / +25 |
//! | the caller was answered within 500 ms after the callee | +15 |
//! | there were other fits, and only the order of the answers told them apart | -10 |
//!
//! The last four rows add up for a pair by identities; below 35 there is no pair.

mod number;

use super::model::{Direction, Pairing};
use super::tracker::{LegId, Tracked};
use crate::sip::sdp::Sdp;
use crate::time::Time;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::time::Duration;

/// How long after the caller's INVITE the callee's may come: longer than most announcements before a transfer, and short enough that a
/// forgotten leg is no rival for the calls of the next minutes.
const SETUP_WINDOW: Duration = Duration::from_secs(180);
/// How long after the callee's answer the caller's may come for their order to tell equal candidates apart: a busy server needs
/// milliseconds, people who answer two such calls need longer.
const ANSWER_WINDOW: Duration = Duration::from_millis(500);
/// Most legs with one identity that are looked at. Beyond it the case counts as ambiguous, which is safe and bounds the work.
const MAX_RIVALS: usize = 64;

/// Confidence of what is certain by construction; the table above has the reasons.
pub const CERTAIN: u8 = 100;
const NAMED: u8 = 95;
const MEDIA: [u8; 2] = [90, 95];
const EXACT: u8 = 35;
const OTHERWISE_WRITTEN: u8 = 25;
const IN_ORDER: u8 = 15;
const ORDER_DECIDED: u8 = 10;
/// One party that agrees exactly. A number written otherwise is not enough by itself.
const LEAST: u8 = 35;

type Ids = SmallVec<[LegId; 4]>;

/// Kinds of evidence, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Dialog,
    Header,
    SessionId,
    Media,
    Parties,
}

impl Level {
    const ALL: [Self; 5] = [Self::Dialog, Self::Header, Self::SessionId, Self::Media, Self::Parties];

    const fn pairing(self) -> Pairing {
        match self {
            Self::Dialog => Pairing::SameDialog,
            Self::Header => Pairing::Header,
            Self::SessionId => Pairing::SessionId,
            Self::Media | Self::Parties => Pairing::Evidence,
        }
    }
}

/// A leg's partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partner {
    /// The other leg.
    pub leg: LegId,
    /// How it was found.
    pub pairing: Pairing,
    /// How certain it is, from 0 to 100.
    pub confidence: u8,
}

struct Entry {
    /// Kept, since what they are made of changes with the leg.
    keys: SmallVec<[u64; 10]>,
    /// From when on the other leg may come: the start of the leg, or the end of the partner that it had.
    open: Time,
}

/// The unpaired legs, found by what they have in common.
#[derive(Default)]
pub struct Pairer {
    index: HashMap<u64, Ids>,
    entries: HashMap<LegId, Entry>,
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
    /// Makes a leg a candidate (and a rival); `open` is when it began to seek.
    pub fn add(&mut self, id: LegId, t: &Tracked, open: Time) {
        self.remove(id);
        let keys: SmallVec<[u64; 10]> = Level::ALL.into_iter().flat_map(|level| self.level_keys(t, level)).collect();
        for key in &keys {
            let ids = self.index.entry(*key).or_default();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        self.entries.insert(id, Entry { keys, open });
    }

    /// Takes what has changed in a leg into account, if it is a candidate.
    pub fn refresh(&mut self, id: LegId, t: &Tracked) {
        if let Some(open) = self.entries.get(&id).map(|e| e.open) {
            self.add(id, t, open);
        }
    }

    /// Takes a leg out: it is paired, or over.
    pub fn remove(&mut self, id: LegId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        for key in entry.keys {
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
        self.entries.clear();
    }

    /// The unpaired legs that have something in common with `t`: its fate may settle theirs.
    #[must_use]
    pub fn neighbours(&self, t: &Tracked) -> Vec<LegId> {
        let keys = Level::ALL.into_iter().flat_map(|level| self.level_keys(t, level));
        let mut all: Vec<_> = keys.filter_map(|k| self.index.get(&k)).flatten().copied().take(MAX_RIVALS).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The partner of the confirmed leg `id`, if it is certain now.
    #[must_use]
    pub fn partner(&self, id: LegId, legs: &impl Legs) -> Option<Partner> {
        let me = legs.leg(id)?;
        me.confirmed?;
        if !self.entries.contains_key(&id) {
            return None;
        }
        for level in Level::ALL {
            let candidates = self.best(id, me, level, legs)?;
            if candidates.is_empty() {
                continue;
            }
            let (leg, sole) = self.decide(id, me, &candidates, level, legs)?;
            let confidence = confidence(me, legs.leg(leg)?, level, sole);
            return (confidence >= LEAST).then_some(Partner { leg, pairing: level.pairing(), confidence });
        }
        None
    }

    /// The one of the candidates that it is, and whether there was no other.
    fn decide(&self, id: LegId, me: &Tracked, candidates: &[LegId], level: Level, legs: &impl Legs) -> Option<(LegId, bool)> {
        if let [only] = candidates {
            let other = legs.leg(*only)?;
            if other.confirmed.is_some() && *self.best(*only, other, level, legs)? == [id] {
                return Some((*only, true));
            }
        }
        let found = match me.leg.direction {
            Direction::Inbound => self.answered_by(id, me, level, legs),
            Direction::Outbound => candidates
                .iter()
                .copied()
                .find(|i| legs.leg(*i).is_some_and(|caller| self.answered_by(*i, caller, level, legs) == Some(id))),
        };
        found.map(|leg| (leg, false))
    }

    /// The only outbound leg whose answer came right before that of the caller's leg `id`, if no other caller was answered then.
    fn answered_by(&self, id: LegId, caller: &Tracked, level: Level, legs: &impl Legs) -> Option<LegId> {
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
    fn best(&self, id: LegId, me: &Tracked, level: Level, legs: &impl Legs) -> Option<Ids> {
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
                let fit = self.fits((id, me), (*other, t), level);
                if fit > 0 && !found.iter().any(|(_, o)| o == other) {
                    found.push((fit, *other));
                }
            }
        }
        let top = found.iter().map(|(fit, _)| *fit).max().unwrap_or(0);
        Some(found.into_iter().filter(|(fit, _)| *fit == top).map(|(_, o)| o).collect())
    }

    fn level_keys(&self, t: &Tracked, level: Level) -> SmallVec<[u64; 8]> {
        let c = &t.clues;
        // A number in front keeps a caller from meeting a callee of the same number.
        let key = |kind: u8, value: &[u8]| self.hasher.hash_one((kind, value));
        match level {
            Level::Dialog => [key(0, &t.leg.call_id.0)].into_iter().collect(),
            Level::Header => c.header.iter().map(|v| key(1, v)).collect(),
            Level::SessionId => c.session_id.iter().map(|v| key(2, v)).collect(),
            // Before the answer there is nothing to compare, and nothing to be parsed.
            Level::Media if t.confirmed.is_none() => SmallVec::new(),
            Level::Media => own_media(t).chain(told_media(t)).map(|a| self.hasher.hash_one((5_u8, a))).collect(),
            Level::Parties => {
                let of = |exact: u8, tail: u8, users: &[Option<Box<[u8]>>; 2]| -> SmallVec<[u64; 4]> {
                    let exactly = users.iter().flatten().map(|v| key(exact, v));
                    exactly.chain(users.iter().flatten().filter_map(|v| Some(key(tail, &number::tail(v)?)))).collect()
                };
                of(3, 6, &c.caller).into_iter().chain(of(4, 7, &c.callee)).collect()
            }
        }
    }

    /// How well two legs of opposite direction fit; 0 for not at all.
    fn fits(&self, a: (LegId, &Tracked), b: (LegId, &Tracked), level: Level) -> u8 {
        let ((caller_id, caller), (_, callee)) = if a.1.leg.direction == Direction::Inbound { (a, b) } else { (b, a) };
        let same_call_id = caller.leg.call_id == callee.leg.call_id;
        let (x, y) = (&caller.clues, &callee.clues);
        let fits = match level {
            // The server's side of the one is the phone's side of the other. Tags that are not known yet are those to come.
            Level::Dialog => {
                let tag = |x: &[u8], y: &[u8]| x.is_empty() || y.is_empty() || x == y;
                same_call_id
                    && caller.leg.remote_tag == callee.leg.local_tag
                    && tag(&caller.leg.local_tag.0, &callee.leg.remote_tag.0)
            }
            Level::Header => !same_call_id && x.header.is_some() && x.header == y.header,
            Level::SessionId => !same_call_id && x.session_id.is_some() && x.session_id == y.session_id,
            Level::Media => return if same_call_id { 0 } else { media(caller, callee) },
            Level::Parties => {
                let headers_differ = x.header.is_some() && y.header.is_some() && x.header != y.header;
                let open = self.entries.get(&caller_id).map_or(caller.started, |e| e.open);
                let in_order = callee.started >= caller.started && callee.started.since(open) <= SETUP_WINDOW;
                if same_call_id || headers_differ || !in_order {
                    return 0;
                }
                // How a number is written never decides between two: it only counts whether it can be the same party.
                return u8::from(agree(&x.caller, &y.caller) > 0) + u8::from(agree(&x.callee, &y.callee) > 0);
            }
        };
        u8::from(fits)
    }
}

fn confidence(a: &Tracked, b: &Tracked, level: Level, sole: bool) -> u8 {
    let (caller, callee) = if a.leg.direction == Direction::Inbound { (a, b) } else { (b, a) };
    let sum = match level {
        Level::Dialog => CERTAIN,
        Level::Header | Level::SessionId => NAMED,
        Level::Media => MEDIA[usize::from(media(caller, callee) > 1)],
        Level::Parties => {
            let parties = agree(&a.clues.caller, &b.clues.caller) + agree(&a.clues.callee, &b.clues.callee);
            let in_order = match (callee.confirmed, caller.confirmed) {
                (Some(first), Some(then)) => first <= then && then.since(first) <= ANSWER_WINDOW,
                _ => false,
            };
            parties + if in_order { IN_ORDER } else { 0 }
        }
    };
    sum.saturating_sub(if sole { 0 } else { ORDER_DECIDED })
}

/// What it is worth that a party of the one may be that party of the other.
fn agree(a: &[Option<Box<[u8]>>; 2], b: &[Option<Box<[u8]>>; 2]) -> u8 {
    let mut pairs = a.iter().flatten().flat_map(|x| b.iter().flatten().map(move |y| (x, y)));
    if pairs.clone().any(|(x, y)| x == y) {
        EXACT
    } else if pairs.any(|(x, y)| number::same(x, y)) {
        OTHERWISE_WRITTEN
    } else {
        0
    }
}

/// In how many directions the one phone was told the other phone's own address: 0, 1 or 2. Only a server that lets two phones talk
/// directly says that.
fn media(a: &Tracked, b: &Tracked) -> u8 {
    type Addresses = SmallVec<[SocketAddr; 2]>;
    let (a_own, b_own): (Addresses, Addresses) = (own_media(a).collect(), own_media(b).collect());
    // Behind two NATs both may have the same private address: that says nothing.
    if a_own.iter().any(|at| b_own.contains(at)) {
        return 0;
    }
    u8::from(told_media(b).any(|at| a_own.contains(&at))) + u8::from(told_media(a).any(|at| b_own.contains(&at)))
}

fn own_media(t: &Tracked) -> impl Iterator<Item = SocketAddr> {
    addresses(t.leg.sdp_received.as_ref())
}

fn told_media(t: &Tracked) -> impl Iterator<Item = SocketAddr> {
    addresses(t.leg.sdp_sent.as_ref())
}

/// Where a description wants its streams; the first two are enough to tell two phones apart.
fn addresses(sdp: Option<&super::model::Sdp>) -> impl Iterator<Item = SocketAddr> {
    let sdp = sdp.and_then(|s| Sdp::parse(&s.body.0).ok());
    let media: SmallVec<[SocketAddr; 2]> = sdp
        .iter()
        .flat_map(|s| s.media().iter())
        .filter(|m| m.port > 1)
        .filter_map(|m| Some(SocketAddr::new(m.connection?, m.port)))
        // A held stream (0.0.0.0) and a host's own name for itself are the same for many.
        .filter(|a| !a.ip().is_unspecified() && !a.ip().is_loopback())
        .take(2)
        .collect();
    media.into_iter()
}

#[cfg(test)]
mod tests;
