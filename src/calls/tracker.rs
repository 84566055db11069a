//! Turns packets into legs: follows every INVITE dialog between the server and its phones. Pure.
//!
//! A leg is one dialog as seen from the server in one direction. A proxied call is therefore two legs with the same
//! Call-ID: the dialog as received from the caller, and the dialog as sent to the callee. Tags tell the two apart,
//! because the server's side of one is the phone's side of the other.

mod answers;
mod branch;
mod cseq;
mod dialog;
mod evidence;
mod leg;
mod matching;
mod room;
mod settings;
mod slots;
mod timer;
mod weight;

pub use evidence::{Evidence, Replaced};
pub use leg::{Referred, Tracked};
pub use settings::{Counters, Learning, Load, TrackerSettings};

use crate::calls::model::{Gap, Leg, LegState, Shared};
use crate::sip::message::{Message, ParseError};
use crate::sip::uri;
use crate::time::Time;
use crate::wire::Packet;
use dialog::Input;
use leg::doubt::Silence;
use leg::{At, Effect};
use room::Room;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::hash_map::RandomState;
use std::collections::{BinaryHeap, VecDeque};
use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Lifetime of an unconfirmed leg after its last message: Timer C (more than 3 minutes, RFC 3261 section 16.6) and a
/// reserve.
const UNCONFIRMED: Duration = Duration::from_secs(300);
/// How long an ended leg is kept, so that retransmissions do not look like unknown dialogs, and how long a BYE may stay
/// unanswered: 64 x T1 (RFC 3261 section 17.1.2.2).
const LINGER: Duration = Duration::from_secs(32);
/// Lifetime of a leg beyond its session timer: the refresh with its retransmissions (Timer B or F, 32 s) and a reserve.
const SESSION_GRACE: Duration = Duration::from_secs(60);
/// Least Session-Expires that RFC 4028 section 4 allows, in seconds. A smaller value is raised to this.
const MIN_SESSION_S: u32 = 90;
/// Lifetime of a confirmed leg without a session timer and without signalling. Longer than conversations last, so that
/// the sweep takes only calls whose BYE was lost.
pub const MAX_SILENT: Duration = Duration::from_secs(24 * 3600);
/// Longest run of a timer before the leg is checked again. Timers of ended legs stay in the heap until they are due, so
/// this bounds their number.
const RECHECK: Duration = UNCONFIRMED;
/// Most legs with one Call-ID: forks of one INVITE, or spirals. Further ones are counted, but not learnt.
const MAX_SAME_CALL_ID: usize = 32;
/// Longest Call-ID, From or To that is learnt, in bytes. A call with a longer one is counted, but not learnt.
const MAX_NAME: usize = 1024;

/// Most m-lines of a leg with a recorded RTP source. Calls have one or two.
const MAX_STREAMS: usize = 8;

/// Identifies a leg in the tracker. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LegId {
    slot: u32,
    generation: u32,
}

/// An event of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegEvent {
    /// A new, unconfirmed leg.
    Started(LegId),
    /// The first 2xx.
    Confirmed(LegId),
    /// The stored data of a confirmed leg changed.
    Changed(LegId),
    /// The leg is over. It can still be read while this event is handled.
    Ended(LegId, &'static str),
}

struct Slot {
    generation: u32,
    hash: u64,
    /// The earliest entry in the timer heap.
    armed: Time,
    tracked: Option<Box<Tracked>>,
}

/// Follows all legs of one server.
pub struct Tracker {
    settings: Arc<TrackerSettings>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    room: Room,
    /// Number of legs that may be over.
    doubted: usize,
    silence: Silence,
    /// When a leg was last refused or dropped for lack of room.
    lost: Option<Time>,
    /// Slots by the hash of their Call-ID.
    by_call_id: FxHashMap<u64, SmallVec<[u32; 2]>>,
    /// Hashes Call-IDs, which strangers choose, with a secret seed. So nobody can choose keys of `by_call_id` that
    /// collide.
    hasher: RandomState,
    timers: BinaryHeap<Reverse<(Time, u32, u32)>>,
    events: VecDeque<LegEvent>,
    /// Counters of what was seen.
    pub counters: Counters,
}

impl Tracker {
    /// A tracker without legs.
    #[must_use]
    pub fn new(settings: TrackerSettings) -> Self {
        Self {
            room: Room::new(&settings),
            silence: Silence::new(settings.one_sided),
            settings: Arc::new(settings),
            slots: Vec::new(),
            free: Vec::new(),
            doubted: 0,
            lost: None,
            by_call_id: FxHashMap::default(),
            hasher: RandomState::new(),
            timers: BinaryHeap::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// A leg by its id. `None` once it is forgotten.
    #[must_use]
    pub fn get(&self, id: LegId) -> Option<&Tracked> {
        self.slots.get(id.slot as usize).filter(|s| s.generation == id.generation)?.tracked.as_deref()
    }

    /// The legs with this Call-ID, including ended ones.
    pub fn with_call_id<'s>(&'s self, call_id: &'s [u8]) -> impl Iterator<Item = (LegId, &'s Tracked)> {
        self.same_call(self.hash(call_id), call_id)
            .filter_map(|(slot, t)| Some((LegId { slot, generation: self.slots.get(slot as usize)?.generation }, t)))
    }

    /// The leg that this one replaces according to its INVITE (RFC 3891), if it is known. It may have ended.
    #[must_use]
    pub fn replaced(&self, by: &Tracked) -> Option<LegId> {
        let r = by.clues.replaces.as_deref()?;
        self.dialog(&r.call_id, &r.local_tag, &r.remote_tag)
    }

    /// The leg with this Call-ID and these tags of server and phone, if it is known. It may have ended.
    #[must_use]
    pub fn dialog(&self, call_id: &[u8], local_tag: &[u8], remote_tag: &[u8]) -> Option<LegId> {
        let named = |t: &Tracked| *t.leg.local_tag.0 == *local_tag && *t.leg.remote_tag.0 == *remote_tag;
        self.with_call_id(call_id).find(|(_, t)| named(t)).map(|(id, _)| id)
    }

    /// All legs that have not ended.
    pub fn legs(&self) -> impl Iterator<Item = &Tracked> {
        self.slots.iter().filter_map(|s| s.tracked.as_deref()).filter(|t| t.leg.state != LegState::Ended)
    }

    /// Number of legs in memory, including those that ended recently.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.room.all()
    }

    /// The current load.
    #[must_use]
    pub fn load(&self) -> Load {
        let (answered, unanswered) = (self.room.answered(), self.room.unanswered());
        Load { answered, unanswered, doubted: self.doubted, bytes: self.room.bytes() }
    }

    /// When a leg was last refused or dropped for lack of room. The partner of another leg may have been among them.
    #[must_use]
    pub const fn lost(&self) -> Option<Time> {
        self.lost
    }

    /// The partner of this leg is over. If a BYE of this leg was in doubt, it was genuine.
    pub fn confirm_doubt(&mut self, id: LegId, now: Time) {
        if self.get(id).is_some_and(|t| t.is_doubted() && t.life.ending.is_some_and(|(_, why)| why.is_bye())) {
            self.with(id.slot, now, |t| {
                // The ended leg is kept from its end on, so that a copy of its last messages starts no new leg.
                t.life.last = now;
                t.end("BYE")
            });
        }
    }

    /// Records that messages were lost on their way here. Legs may have been among them.
    pub const fn lose(&mut self, now: Time) {
        self.lost = Some(now);
    }

    /// Whether this many legs of a call can be adopted.
    #[must_use]
    pub fn fits(&self, legs: usize, emergency: bool) -> bool {
        self.room.fits(legs, emergency)
    }

    /// Sets how long the audio of a sending phone may go unsampled. It depends on the sampling rate.
    pub const fn set_quiet(&mut self, quiet: Duration) {
        self.silence.quiet = quiet;
    }

    /// Records audio of a leg's phone.
    pub fn hear_audio(&mut self, id: LegId, now: Time) {
        if let Some(t) = self.slots.get_mut(id.slot as usize).filter(|s| s.generation == id.generation)
            && let Some(t) = t.tracked.as_deref_mut()
        {
            t.life.audio = Some(now);
        }
    }

    /// Notes whether the partner of this leg may be unknown.
    pub fn miss_partner(&mut self, id: LegId, missed: bool, now: Time) {
        if self.get(id).is_some_and(|t| t.leg.gaps.contains(Gap::Partner) != missed) {
            self.with(id.slot, now, |t| {
                Effect::changed(if missed { t.lack(Gap::Partner) } else { t.know(Gap::Partner) })
            });
        }
    }

    /// The next event. Poll after each call to a `handle_*` until `None`.
    pub fn poll_event(&mut self) -> Option<LegEvent> {
        self.events.pop_front()
    }

    /// Follows a leg with a known past. `None` if the table is full.
    pub fn adopt(&mut self, leg: Shared<Leg>, confirmed_ms: u64, emergency: bool, now: Time) -> Option<LegId> {
        let hash = self.hash(&leg.call_id.0);
        if !self.fits(1, emergency) || !self.has_place(hash) {
            self.counters.not_learnt += 1;
            self.counters.no_room += 1;
            self.lost = Some(now);
            return None;
        }
        let id = self.insert(hash, Tracked::adopted(leg, confirmed_ms, emergency, now));
        self.settle_in(id.slot, now).then_some(id)
    }

    /// Handles one datagram. `unix_ms` is the wall clock in milliseconds since 1970, for people.
    pub fn handle_packet(&mut self, p: &Packet<'_>, unix_ms: u64, now: Time) {
        self.counters.packets += 1;
        let is_server = |end, other| self.settings.is_server(p.transport, end, other);
        let (to_server, by_server) = (is_server(p.dst, p.src), is_server(p.src, p.dst));
        if to_server == by_server {
            self.counters.foreign += 1;
            return;
        }
        let m = match Message::parse(p.payload) {
            Ok(m) => m,
            Err(e) => {
                match e {
                    ParseError::KeepAlive => self.counters.keep_alives += 1,
                    ParseError::NotSip => self.counters.not_sip += 1,
                    ParseError::TooLarge | ParseError::TooManyHeaders | ParseError::Missing(_) => {
                        self.counters.malformed += 1
                    }
                }
                return;
            }
        };
        let settings = Arc::clone(&self.settings);
        let own = |u: &[u8]| settings.is_own(u);
        let branch = m.branch().map_or(0, |b| self.hash(b));
        self.hear(&Input { m: &m, p, out: by_server, branch, own: &own, at: At { now, unix_ms } });
    }

    /// Sweeps legs that were silent for too long.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(Reverse((at, slot, generation))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(s) = self.slots.get_mut(slot as usize).filter(|s| s.generation == generation && s.armed == at)
            else {
                continue;
            };
            let Some(t) = s.tracked.as_deref_mut() else { continue };
            let expiry = t.expiry(self.silence);
            if expiry > now {
                let expiry = expiry.min(now + RECHECK);
                s.armed = expiry;
                self.timers.push(Reverse((expiry, slot, generation)));
                if t.leg.state != LegState::Ended && !t.offers.pending.is_empty() {
                    self.with(slot, now, |t| Effect::changed(t.tidy(now)));
                }
            } else if t.leg.state == LegState::Ended {
                self.forget(slot);
            } else {
                let reason = match (t.leg.state, t.life.ending) {
                    (_, Some((_, why))) => why.reason(),
                    (LegState::Confirmed, None) => {
                        self.counters.swept += 1;
                        "no sign of life for too long"
                    }
                    _ => "never answered",
                };
                t.life.last = now;
                // Its timer is spent. Without another one the ended leg would stay for ever, and in the end there would
                // be no room.
                s.armed = Time::FAR;
                self.with(slot, now, |t| t.end(reason));
            }
        }
    }

    /// When `handle_timeout` is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Forgets one leg, without an event.
    pub fn let_go(&mut self, id: LegId) {
        if self.get(id).is_some() {
            self.forget(id.slot);
        }
    }

    /// Forgets every leg, without events.
    pub fn clear(&mut self) {
        // Generations continue, so that an old LegId never names a new leg.
        for slot in 0..self.slots.len() {
            if self.slots[slot].tracked.is_some() {
                self.forget(u32::try_from(slot).unwrap_or(u32::MAX));
            }
        }
        self.timers.clear();
        self.events.clear();
        self.lost = None;
    }

    fn is_emergency(&self, m: &Message<'_>) -> bool {
        let u = m.request_uri().unwrap_or_default();
        // RFC 5031: urn:service:sos and its sub-services (sos.fire).
        const SOS: &[u8] = b"urn:service:sos";
        let urn = u.get(..SOS.len()).is_some_and(|h| h.eq_ignore_ascii_case(SOS))
            && matches!(u.get(SOS.len()), None | Some(b'.'));
        urn || uri::user(u).is_some_and(|user| self.settings.emergency.iter().any(|e| e.as_bytes() == user))
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        self.hasher.hash_one(bytes)
    }

    fn id(&self, slot: u32) -> Option<LegId> {
        Some(LegId { slot, generation: self.slots.get(slot as usize)?.generation })
    }

    fn tracked(&self, slot: u32) -> Option<&Tracked> {
        self.slots.get(slot as usize)?.tracked.as_deref()
    }

    /// The legs with this Call-ID.
    fn same_call<'s>(&'s self, hash: u64, call_id: &'s [u8]) -> impl Iterator<Item = (u32, &'s Tracked)> {
        let slots = self.by_call_id.get(&hash).cloned().unwrap_or_default();
        slots.into_iter().filter_map(|s| Some((s, self.tracked(s)?))).filter(move |(_, t)| *t.leg.call_id.0 == *call_id)
    }

    /// The leg with these tags. If there are several (a call that passes the server twice), the one with this peer.
    fn in_dialog(&self, hash: u64, call_id: &[u8], local: &[u8], remote: &[u8], peer: SocketAddr) -> Option<u32> {
        let mut found = None;
        for (slot, t) in self.same_call(hash, call_id) {
            if *t.leg.local_tag.0 == *local && *t.leg.remote_tag.0 == *remote {
                if t.leg.remote_addr == peer {
                    return Some(slot);
                }
                found.get_or_insert(slot);
            }
        }
        found
    }

    fn touch(&mut self, slot: u32, now: Time) {
        if let Some(t) = self.slots.get_mut(slot as usize).and_then(|s| s.tracked.as_deref_mut()) {
            t.life.last = now;
        }
    }

    /// Records the real source of the phone's RTP for m-line `media` of the leg. Reported as a change if it is new.
    pub fn observe_rtp(&mut self, id: LegId, media: usize, source: Option<SocketAddr>, now: Time) {
        if self.get(id).is_none() || media >= MAX_STREAMS {
            return;
        }
        self.with(id.slot, now, |t| {
            if t.leg.rtp_sources.get(media).copied().flatten() == source {
                return Effect::None;
            }
            let known = &mut t.leg.rtp_sources;
            if known.len() <= media {
                known.reserve_exact(media + 1 - known.len());
                known.resize(media + 1, None);
            }
            if let Some(place) = known.get_mut(media) {
                *place = source;
            }
            Effect::Changed
        });
    }
}

#[cfg(test)]
mod tests;
