//! Pairs the two legs that a B2BUA or a proxy joined, from evidence in the legs themselves. Pure.
//!
//! The pairer tries the strongest evidence first: one dialog seen twice, a header that the operator named, Session-ID,
//! the charging vector, the phone's media address in the other leg's description, then identities with time. It pairs
//! two legs only if each is the other's only fit, and it counts legs that still ring as fits. Among several fits only
//! the order of the answers may decide: a B2BUA answers the caller right after the callee has answered, so a moment
//! later the rivals are known. What remains in doubt stays unpaired, because a wrong pair would join strangers.
//!
//! The server's own report of its bridges ranks above all of this; see [`crate::pbx::bridges`].
//!
//! Confidence of a pair, from 0 to 100:
//!
//! | found by | confidence |
//! |---|---|
//! | the server's own report, or one dialog seen twice | 100 |
//! | the operator's header, or Session-ID | 95 |
//! | the ICID of P-Charging-Vector (RFC 7315) | 95 |
//! | a transfer by REFER that the server carried out: attended / blind ([`crate::calls::table`]) | 95 / 90 |
//! | media: each leg was sent the other phone's address (direct media) | 95 |
//! | media: one of them was | 90 |
//! | caller and callee agree, both exactly / at least one as a number in another notation | 70 / 66 |
//! | only one of them agrees, exactly / as a number in another notation | 35 / 25 |
//! | the caller was answered within 200 ms after the callee | +15 |
//! | both agree exactly, and the caller had been answered before the callee was | +10 |
//! | there were other fits, and only the order of the answers told them apart | -10 |
//!
//! The last five rows add up for a pair by identities. Below 35 there is no pair, and below `min_confidence` (80) the
//! legs of a pair are never connected. So the everyday calls are connected: both parties agree, also where a trunk wants
//! its numbers written otherwise, and the server answers the caller with the callee, or first (an announcement) and then
//! dials on. One party alone, which any number of calls may share, never suffices.

mod number;

use crate::calls::model::{Direction, Pairing};
use crate::calls::tracker::{LegId, Tracked};
use crate::sip::sdp;
use crate::time::Time;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::collections::hash_map::{Entry as MapEntry, RandomState};
use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::time::Duration;

/// Longest time from the caller's INVITE to the callee's: longer than most announcements before a transfer, and short
/// enough that a forgotten leg does not rival the calls of the next minutes.
pub const SETUP_WINDOW: Duration = Duration::from_secs(180);
/// Longest time from the callee's answer to the caller's at which their order still tells equal candidates apart. A
/// server needs milliseconds. Equal calls answered closer together than this stay undecided.
pub const ANSWER_WINDOW: Duration = Duration::from_millis(200);
/// Most legs checked per identity. Beyond it the case counts as ambiguous, which is safe and bounds the work.
const MAX_RIVALS: usize = 64;

/// Confidence of what is certain by construction. The table above has the reasons.
pub const CERTAIN: u8 = 100;
const NAMED: u8 = 95;
const MEDIA: [u8; 2] = [90, 95];
const EXACT: u8 = 35;
const OTHERWISE_WRITTEN: u8 = 25;
/// Both parties, if one of them is a number in another notation. By itself that is weak, but hardly two calls agree in
/// two numbers of at least seven digits each.
const BOTH_OTHERWISE_WRITTEN: u8 = 66;
const IN_ORDER: u8 = 15;
/// A dial plan that answers and then dials on. Any announcement begins so, and only the identities say who is called.
const ANSWERED_EARLY: u8 = 10;
const ORDER_DECIDED: u8 = 10;
/// One party that agrees exactly. A number in another notation is not enough by itself.
const LEAST: u8 = 35;

/// Whether two users are the same party: written alike, or the same telephone number in two notations.
#[must_use]
pub fn same_party(a: &[u8], b: &[u8]) -> bool {
    a == b || number::same(a, b)
}

type Ids = SmallVec<[LegId; 4]>;

/// Kinds of evidence, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Dialog,
    Header,
    SessionId,
    Charging,
    Media,
    Parties,
}

impl Level {
    const ALL: [Self; 6] = [Self::Dialog, Self::Header, Self::SessionId, Self::Charging, Self::Media, Self::Parties];
    /// All levels except the one that reads descriptions.
    const SIGNALLED: [Self; 5] = [Self::Dialog, Self::Header, Self::SessionId, Self::Charging, Self::Parties];

    const fn pairing(self) -> Pairing {
        match self {
            Self::Dialog => Pairing::SameDialog,
            Self::Header => Pairing::Header,
            Self::SessionId => Pairing::SessionId,
            Self::Charging | Self::Media | Self::Parties => Pairing::Evidence,
        }
    }
}

/// A leg's partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partner {
    /// The other leg.
    pub leg: LegId,
    /// Evidence of the pairing.
    pub pairing: Pairing,
    /// Confidence, from 0 to 100.
    pub confidence: u8,
}

/// Hashes of what a leg may have in common with another, in the order of the levels, and the end of each level's keys.
/// Most legs have a Call-ID, a media address in each description, and a caller and a called party, each whole and by
/// its last digits.
#[derive(Default)]
struct Keys {
    all: SmallVec<[u64; 8]>,
    ends: [u8; Level::ALL.len()],
}

impl Keys {
    fn of(&self, level: Level) -> &[u64] {
        let at = level as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.all.get(usize::from(start)..usize::from(self.ends[at])).unwrap_or_default()
    }
}

struct Entry {
    /// Kept, because the fields behind the keys change with the leg, and computing keys costs more than all else here.
    keys: Keys,
    /// Earliest start of the other leg: the start of this leg, or the end of its former partner.
    open: Time,
}

/// The unpaired legs, indexed by their evidence.
#[derive(Default)]
pub struct Pairer {
    /// Legs by the hash of what they have in common.
    index: FxHashMap<u64, Ids>,
    entries: FxHashMap<LegId, Entry>,
    /// Hashes what strangers write, with a secret seed. So nobody can choose keys of `index` that collide.
    hasher: RandomState,
}

/// Read access to legs.
pub trait Legs {
    /// The leg, if it is still known.
    fn leg(&self, id: LegId) -> Option<&Tracked>;
}

impl Legs for crate::calls::tracker::Tracker {
    fn leg(&self, id: LegId) -> Option<&Tracked> {
        self.get(id)
    }
}

impl Pairer {
    /// Adds a leg as a candidate (and a rival). `open` is when it began to look for a partner.
    pub fn add(&mut self, id: LegId, t: &Tracked, open: Time) {
        self.remove(id);
        let keys = self.keys(t, &Level::ALL);
        for key in &keys.all {
            let ids = self.index.entry(*key).or_default();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        self.entries.insert(id, Entry { keys, open });
    }

    /// Updates the keys of a changed leg, if it is a candidate.
    pub fn refresh(&mut self, id: LegId, t: &Tracked) {
        if let Some(open) = self.entries.get(&id).map(|e| e.open) {
            self.add(id, t, open);
        }
    }

    /// Removes a leg that is paired or over.
    pub fn remove(&mut self, id: LegId) {
        self.take(id);
    }

    fn take(&mut self, id: LegId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        for key in &entry.keys.all {
            if let MapEntry::Occupied(mut ids) = self.index.entry(*key) {
                ids.get_mut().retain(|x| *x != id);
                if ids.get().is_empty() {
                    ids.remove();
                }
            }
        }
        Some(entry)
    }

    /// Forgets all legs.
    pub fn clear(&mut self) {
        self.index.clear();
        self.entries.clear();
    }

    /// Removes a leg, like [`Pairer::remove`]. Returns the unpaired legs with common keys, because this may settle
    /// their case.
    #[must_use]
    pub fn remove_from_neighbours(&mut self, id: LegId, t: &Tracked) -> Vec<LegId> {
        // A leg that was no candidate was no media rival either, and reading its descriptions costs the most.
        let keys = self.take(id).map_or_else(|| self.keys(t, &Level::SIGNALLED), |e| e.keys);
        let mut all: Vec<_> =
            keys.all.iter().filter_map(|k| self.index.get(k)).flatten().copied().take(MAX_RIVALS).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The partner of the confirmed leg `id`, if it is certain now.
    #[must_use]
    pub fn partner(&self, id: LegId, legs: &impl Legs, now: Time) -> Option<Partner> {
        let me = legs.leg(id)?;
        me.confirmed?;
        if !self.entries.contains_key(&id) {
            return None;
        }
        for level in Level::ALL {
            let candidates = self.best(id, me, level, legs, true)?;
            if candidates.is_empty() {
                continue;
            }
            let (leg, sole) = self.decide(id, me, &candidates, level, legs, now)?;
            let confidence = confidence(me, legs.leg(leg)?, level, sole);
            return (confidence >= LEAST).then_some(Partner { leg, pairing: level.pairing(), confidence });
        }
        None
    }

    /// The right one of the candidates, and whether it was the only one.
    fn decide(
        &self,
        id: LegId,
        me: &Tracked,
        candidates: &[LegId],
        level: Level,
        legs: &impl Legs,
        now: Time,
    ) -> Option<(LegId, bool)> {
        if let [only] = candidates {
            let other = legs.leg(*only)?;
            if other.confirmed.is_some() && *self.best(*only, other, level, legs, true)? == [id] {
                return Some((*only, true));
            }
        }
        match me.leg.direction {
            Direction::Outbound => self.caller_of(id, me, level, legs, now).map(|caller| (caller, false)),
            Direction::Inbound => {
                let mut its = candidates.iter().filter(|o| {
                    legs.leg(**o).is_some_and(|callee| self.caller_of(**o, callee, level, legs, now) == Some(id))
                });
                let (first, second) = (its.next(), its.next());
                first.filter(|_| second.is_none()).map(|callee| (*callee, false))
            }
        }
    }

    /// Of several callers that fit the callee's leg `id`, the one answered right after it, if the order of the answers
    /// excludes all others.
    ///
    /// The premise: a caller not answered before is answered within [`ANSWER_WINDOW`] after the callee. Once that
    /// window has passed, the caller is among those answered by then. A caller answered before the callee may have
    /// heard an announcement first, and leaves the case open.
    fn caller_of(&self, id: LegId, callee: &Tracked, level: Level, legs: &impl Legs, now: Time) -> Option<LegId> {
        let answered = callee.confirmed?;
        let until = answered + ANSWER_WINDOW;
        if now < until {
            return None;
        }
        // A caller still unanswered by now is not the callee's caller, however well it fits.
        let mut callers = self.best(id, callee, level, legs, false)?;
        callers.retain(|i| legs.leg(*i).and_then(|t| t.confirmed).is_some_and(|at| at <= until));
        let [only] = callers.as_slice() else { return None };
        let caller = legs.leg(*only)?;
        let then = caller.confirmed.filter(|at| *at >= answered)?;
        // The same must not be true of another callee.
        let callees = self.best(*only, caller, level, legs, true)?;
        let rival =
            |o: &LegId| *o != id && legs.leg(*o).and_then(|t| t.confirmed).is_some_and(|at| then <= at + ANSWER_WINDOW);
        (callees.contains(&id) && !callees.iter().any(rival)).then_some(*only)
    }

    /// Whether a leg has rivals that the server has not answered. Without them its partner might have been certain.
    #[must_use]
    pub fn is_crowded(&self, id: LegId, legs: &impl Legs) -> bool {
        let Some(me) = legs.leg(id) else { return false };
        let unanswered = |level| {
            let all = self.best(id, me, level, legs, true);
            all.is_none_or(|all| all.iter().any(|o| legs.leg(*o).is_some_and(Tracked::is_unanswered)))
        };
        Level::ALL.into_iter().any(unanswered)
    }

    /// The best fits for `id`, with or without legs that the server has not answered. `None` if there are too many to
    /// check.
    fn best(&self, id: LegId, me: &Tracked, level: Level, legs: &impl Legs, unanswered: bool) -> Option<Ids> {
        let mut found: SmallVec<[(u8, LegId); 4]> = SmallVec::new();
        // A leg without an entry is no candidate and fits nothing.
        for key in self.entries.get(&id).map_or(&[][..], |e| e.keys.of(level)) {
            let Some(ids) = self.index.get(key) else { continue };
            let (mut looked, mut idle) = (0, 0);
            for other in ids.iter().filter(|o| **o != id) {
                let Some(t) = legs.leg(*other) else { continue };
                if t.leg.direction == me.leg.direction {
                    continue;
                }
                // Legs that the server has not answered are rivals, but a stranger can create any number of them for
                // free.
                if t.is_unanswered() {
                    idle += 1;
                    if idle > MAX_RIVALS || !unanswered {
                        continue;
                    }
                } else {
                    looked += 1;
                    if looked > MAX_RIVALS {
                        return None;
                    }
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

    fn keys(&self, t: &Tracked, levels: &[Level]) -> Keys {
        let mut keys = Keys::default();
        for level in Level::ALL {
            let start = keys.all.len();
            if levels.contains(&level) {
                for key in self.level_keys(t, level) {
                    if !keys.all[start..].contains(&key) {
                        keys.all.push(key);
                    }
                }
            }
            // A leg has some ten keys.
            keys.ends[level as usize] = u8::try_from(keys.all.len()).unwrap_or(u8::MAX);
        }
        keys
    }

    fn level_keys(&self, t: &Tracked, level: Level) -> SmallVec<[u64; 8]> {
        let c = &t.clues;
        // The number in front keeps a caller from matching a callee of the same number.
        let key = |kind: u8, value: &[u8]| self.hasher.hash_one((kind, value));
        match level {
            Level::Dialog => [key(0, &t.leg.call_id.0)].into_iter().collect(),
            Level::Header => c.header.iter().map(|v| key(1, v)).collect(),
            Level::SessionId => c.session_id.iter().map(|v| key(2, v)).collect(),
            Level::Charging => c.charging.iter().map(|v| key(8, v)).collect(),
            // Before the answer there is nothing to compare and nothing to parse.
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

    /// How well two legs of opposite direction fit. 0 means not at all.
    fn fits(&self, a: (LegId, &Tracked), b: (LegId, &Tracked), level: Level) -> u8 {
        let ((caller_id, caller), (_, callee)) = if a.1.leg.direction == Direction::Inbound { (a, b) } else { (b, a) };
        let same_call_id = caller.leg.call_id == callee.leg.call_id;
        let (x, y) = (&caller.clues, &callee.clues);
        let fits = match level {
            // The server's side of one leg is the phone's side of the other. An unknown tag may still match.
            Level::Dialog => {
                let tag = |x: &[u8], y: &[u8]| x.is_empty() || y.is_empty() || x == y;
                same_call_id
                    && caller.leg.remote_tag == callee.leg.local_tag
                    && tag(&caller.leg.local_tag.0, &callee.leg.remote_tag.0)
            }
            Level::Header => !same_call_id && x.header.is_some() && x.header == y.header,
            Level::SessionId => !same_call_id && x.session_id.is_some() && x.session_id == y.session_id,
            Level::Charging => !same_call_id && x.charging.is_some() && x.charging == y.charging,
            Level::Media => return if same_call_id { 0 } else { media(caller, callee) },
            Level::Parties => {
                let headers_differ = x.header.is_some() && y.header.is_some() && x.header != y.header;
                let open = self.entries.get(&caller_id).map_or(caller.started, |e| e.open);
                let in_order = callee.started >= caller.started && callee.started.since(open) <= SETUP_WINDOW;
                if same_call_id || headers_differ || !in_order {
                    return 0;
                }
                // The notation of a number never decides between two candidates. It only counts whether both can be the
                // same party.
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
        Level::Header | Level::SessionId | Level::Charging => NAMED,
        Level::Media => MEDIA[usize::from(media(caller, callee) > 1)],
        Level::Parties => {
            let both = [agree(&a.clues.caller, &b.clues.caller), agree(&a.clues.callee, &b.clues.callee)];
            let sum = both[0] + both[1];
            let parties = if both.contains(&0) { sum } else { sum.max(BOTH_OTHERWISE_WRITTEN) };
            parties
                + match (callee.confirmed, caller.confirmed) {
                    (Some(callee), Some(caller)) if caller < callee && both == [EXACT; 2] => ANSWERED_EARLY,
                    (Some(callee), Some(caller)) if caller < callee => 0,
                    (Some(callee), Some(caller)) if caller.since(callee) <= ANSWER_WINDOW => IN_ORDER,
                    _ => 0,
                }
        }
    };
    sum.saturating_sub(if sole { 0 } else { ORDER_DECIDED })
}

/// Points for the match between a party of one leg and that party of the other.
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

/// Number of directions in which one phone was sent the other phone's own address: 0, 1 or 2. Only a server that lets
/// two phones exchange media directly does that.
fn media(a: &Tracked, b: &Tracked) -> u8 {
    type Addresses = SmallVec<[SocketAddr; 2]>;
    let (a_own, b_own): (Addresses, Addresses) = (own_media(a).collect(), own_media(b).collect());
    // Behind two NATs both may have the same private address, which proves nothing.
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

/// Media addresses of a description. The first two are enough to tell two phones apart.
fn addresses(sdp: Option<&crate::calls::model::Sdp>) -> impl Iterator<Item = SocketAddr> {
    let places = sdp.map(|s| sdp::places(&s.body)).unwrap_or_default();
    places
        .into_iter()
        .filter_map(|(ip, port)| (port > 1).then_some(SocketAddr::new(ip?, port)))
        // A held stream (0.0.0.0) and the loopback address are the same for many phones.
        .filter(|a| !a.ip().is_unspecified() && !a.ip().is_loopback())
        .take(2)
}

#[cfg(test)]
mod tests;
