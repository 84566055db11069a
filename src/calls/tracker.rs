//! Packets to legs: follows every INVITE dialog between the server and its phones. Pure.
//!
//! A leg is one dialog as seen from the server in one direction. A proxied call is therefore two legs with the same Call-ID: the
//! dialog once as received from the caller and once as sent to the callee. Tags tell the two apart, because the server's side of
//! the one is the phone's side of the other.

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
use dialog::Heard;
use leg::doubt::Silence;
use leg::{At, Effect};
use room::Room;
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::hash_map::RandomState;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long an unconfirmed leg lives after its last message: Timer C (more than 3 minutes, RFC 3261 section 16.6) and a reserve.
const UNCONFIRMED: Duration = Duration::from_secs(300);
/// How long an ended leg is remembered, so that retransmissions are not taken for unknown dialogs, and how long a BYE may stay without an
/// answer: 64 x T1 (RFC 3261 section 17.1.2.2).
const LINGER: Duration = Duration::from_secs(32);
/// How much longer than its session timer a leg lives: the refresh and its retransmissions (Timer B or F, 32 s) and a reserve.
const SESSION_GRACE: Duration = Duration::from_secs(60);
/// The least Session-Expires that RFC 4028 section 4 allows, in seconds; a smaller one is read as this.
const MIN_SESSION_S: u32 = 90;
/// How long a confirmed leg without a session timer lives with no signalling at all: longer than conversations are, so that only
/// calls whose BYE was lost are swept.
pub const MAX_SILENT: Duration = Duration::from_secs(24 * 3600);
/// The longest that a timer runs before the leg is looked at again. Timers of ended legs stay in the heap until they are due, so this bounds
/// how many there can be.
const RECHECK: Duration = UNCONFIRMED;
/// Most legs with one Call-ID: forks of one INVITE, or spirals. Beyond it they are not learnt (and counted).
const MAX_SAME_CALL_ID: usize = 32;
/// Longest Call-ID, From or To that is learnt, in bytes; a call with longer ones is not learnt (and counted).
const MAX_NAME: usize = 1024;

/// Most m-lines of a leg whose RTP source is noted. Calls have one or two.
const MAX_STREAMS: usize = 8;

/// A leg's place in the tracker; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LegId {
    slot: u32,
    generation: u32,
}

/// What happened to a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegEvent {
    /// A new leg, not confirmed yet.
    Started(LegId),
    /// The first 2xx.
    Confirmed(LegId),
    /// A confirmed leg changed in what is stored of it.
    Changed(LegId),
    /// The leg is over; it can still be read while this event is handled.
    Ended(LegId, &'static str),
}

/// Keys are hashes already; hashing them again would be waste.
#[derive(Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*b);
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
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
    /// Legs that may be over.
    doubted: usize,
    silence: Silence,
    /// When a leg was last not learnt, or not kept, for want of room.
    lost: Option<Time>,
    by_call_id: HashMap<u64, SmallVec<[u32; 2]>, BuildHasherDefault<Ready>>,
    hasher: RandomState,
    timers: BinaryHeap<Reverse<(Time, u32, u32)>>,
    events: VecDeque<LegEvent>,
    /// What was seen.
    pub counters: Counters,
}

impl Tracker {
    /// A tracker that knows no legs.
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
            by_call_id: HashMap::default(),
            hasher: RandomState::new(),
            timers: BinaryHeap::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// A leg by its place; `None` once it is forgotten.
    #[must_use]
    pub fn get(&self, id: LegId) -> Option<&Tracked> {
        self.slots.get(id.slot as usize).filter(|s| s.generation == id.generation)?.tracked.as_deref()
    }

    /// The legs with this Call-ID, ended ones included.
    pub fn with_call_id<'s>(&'s self, call_id: &'s [u8]) -> impl Iterator<Item = (LegId, &'s Tracked)> {
        self.same_call(self.hash(call_id), call_id)
            .filter_map(|(slot, t)| Some((LegId { slot, generation: self.slots.get(slot as usize)?.generation }, t)))
    }

    /// The leg whose place this one takes, as its INVITE says (RFC 3891), if it is known; it may have ended.
    #[must_use]
    pub fn replaced(&self, by: &Tracked) -> Option<LegId> {
        let r = by.clues.replaces.as_deref()?;
        let named = |t: &Tracked| *t.leg.local_tag.0 == *r.local_tag && *t.leg.remote_tag.0 == *r.remote_tag;
        self.with_call_id(&r.call_id).find(|(_, t)| named(t)).map(|(id, _)| id)
    }

    /// All legs that have not ended.
    pub fn legs(&self) -> impl Iterator<Item = &Tracked> {
        self.slots.iter().filter_map(|s| s.tracked.as_deref()).filter(|t| t.leg.state != LegState::Ended)
    }

    /// How many legs are kept, those that ended not long ago included.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.room.all()
    }

    /// What is kept now.
    #[must_use]
    pub fn load(&self) -> Load {
        let (answered, unanswered) = (self.room.answered(), self.room.unanswered());
        Load { answered, unanswered, doubted: self.doubted, bytes: self.room.bytes() }
    }

    /// When a leg was last not learnt, or not kept, for want of room: the partner of another may have been among them.
    #[must_use]
    pub const fn lost(&self) -> Option<Time> {
        self.lost
    }

    /// The leg that this one is connected to is over: if a BYE for this one was in doubt, it was true.
    pub fn confirm_doubt(&mut self, id: LegId, now: Time) {
        if self.get(id).is_some_and(|t| t.is_doubted() && t.ending.is_some_and(|(_, why)| why.is_bye())) {
            self.with(id.slot, now, |t| {
                // An ended leg is remembered from its end on: a copy of its last messages is no new leg.
                t.last = now;
                t.end("BYE")
            });
        }
    }

    /// Messages were lost on their way here: legs may have been among them.
    pub const fn lose(&mut self, now: Time) {
        self.lost = Some(now);
    }

    /// Whether so many legs of a call can be adopted.
    #[must_use]
    pub fn fits(&self, legs: usize, emergency: bool) -> bool {
        self.room.fits(legs, emergency)
    }

    /// Sets how long a phone that sends audio may go unheard at most: it depends on how many packets are sampled.
    pub const fn set_quiet(&mut self, quiet: Duration) {
        self.silence.quiet = quiet;
    }

    /// The audio of a leg's phone was heard.
    pub fn hear_audio(&mut self, id: LegId, now: Time) {
        if let Some(t) = self.slots.get_mut(id.slot as usize).filter(|s| s.generation == id.generation)
            && let Some(t) = t.tracked.as_deref_mut()
        {
            t.audio = Some(now);
        }
    }

    /// Notes whether the leg that this one is connected to may be one that is not known.
    pub fn miss_partner(&mut self, id: LegId, missed: bool, now: Time) {
        if self.get(id).is_some_and(|t| t.leg.gaps.contains(Gap::Partner) != missed) {
            self.with(id.slot, now, |t| {
                Effect::changed(if missed { t.lack(Gap::Partner) } else { t.know(Gap::Partner) })
            });
        }
    }

    /// The next thing that happened to a leg. Poll after each call to a `handle_*` until `None`.
    pub fn poll_event(&mut self) -> Option<LegEvent> {
        self.events.pop_front()
    }

    /// Follows a leg whose past is known from elsewhere; `None` if the table is full.
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

    /// Handles one datagram; `unix_ms` is the wall clock in milliseconds since 1970, for people.
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
        self.hear(&Heard { m: &m, p, out: by_server, branch, own: &own, at: At { now, unix_ms } });
    }

    /// Sweeps legs of which nothing was heard for too long.
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
                if t.leg.state != LegState::Ended && !t.pending.is_empty() {
                    self.with(slot, now, |t| Effect::changed(t.tidy(now)));
                }
            } else if t.leg.state == LegState::Ended {
                self.forget(slot);
            } else {
                let reason = match (t.leg.state, t.ending) {
                    (_, Some((_, why))) => why.reason(),
                    (LegState::Confirmed, None) => {
                        self.counters.swept += 1;
                        "nothing was heard of it for too long"
                    }
                    _ => "never answered",
                };
                t.last = now;
                // Its timer is spent: without another one the ended leg would stay for ever, and in the end there would be no room.
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

    /// Forgets every leg, without events.
    pub fn clear(&mut self) {
        // Generations go on, so that an old LegId never names a new leg.
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

    /// The leg with these tags; of several (a call that passes the server twice) the one with this peer.
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
            t.last = now;
        }
    }

    /// Notes where the phone's RTP of the leg's m-line `media` really comes from; told as a change if it is news.
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
