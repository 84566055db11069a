//! Packets to legs: follows every INVITE dialog between the server and its phones. Pure.
//!
//! A leg is one dialog as seen from the server in one direction. A proxied call is therefore two legs with the same Call-ID: the
//! dialog once as received from the caller and once as sent to the callee. Tags tell the two apart, because the server's side of
//! the one is the phone's side of the other.

mod clues;
mod cseq;
mod dialog;
mod hear;
mod leg;
mod offers;
mod routes;
mod timer;

pub use clues::{Clues, Replaced};
pub use leg::{Referred, Tracked};

use super::model::{Leg, LegState, Packet, Shared, Transport};
use crate::sip::message::{Message, Method, ParseError};
use crate::sip::uri;
use crate::time::Time;
use dialog::Heard;
use leg::{At, Effect, Known};
use serde::Serialize;
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::hash_map::RandomState;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher};
use std::net::{IpAddr, SocketAddr};
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
/// Of the legs that may be followed, the part that may be dialogs of which only a phone has spoken: whoever invents dialogs must not take the
/// places of those that there are.
const CLAIMS: usize = 8;
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

/// What was seen and what was not learnt, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// All packets handed in.
    pub packets: u64,
    /// Neither to nor from the server's address and SIP port (or both: the server with itself).
    pub foreign: u64,
    /// Keep-alive datagrams.
    pub keep_alives: u64,
    /// Datagrams that are not SIP.
    pub not_sip: u64,
    /// SIP that could not be used: a mandatory header is missing, or it is beyond a limit.
    pub malformed: u64,
    /// Requests and 2xx to INVITE inside dialogs whose start was not seen.
    pub unknown_dialog: u64,
    /// Calls that were not learnt because the table, or one Call-ID, was full, or names were too long.
    pub not_learnt: u64,
    /// Legs that were learnt from the middle of their dialogs.
    pub joined: u64,
    /// Confirmed legs that were swept because nothing was heard of them for too long.
    pub swept: u64,
    /// Legs that were confirmed.
    pub confirmed: u64,
}

/// The server that is watched.
#[derive(Clone, Debug)]
pub struct TrackerSettings {
    /// Its floating addresses.
    pub vips: Vec<IpAddr>,
    /// Its SIP ports.
    pub sip_ports: Vec<u16>,
    /// Header that pairs legs, if the operator named one.
    pub pair_header: Option<String>,
    /// Called users that are emergency numbers.
    pub emergency: Vec<String>,
    /// Most legs that are followed at a time.
    pub max_legs: usize,
}

impl TrackerSettings {
    /// Whether one end of a message is the server. Messages over TLS and WebSocket are known from the server's own word alone, so
    /// their ports, which no capture has to be told, are not held against `sip_ports`. A TCP connection that the server opened has
    /// a port of the system's choice, and one of `sip_ports` at the other end, or no capture shows it.
    fn is_server(&self, transport: Transport, end: SocketAddr, other: SocketAddr) -> bool {
        self.vips.contains(&end.ip())
            && match transport {
                Transport::Udp => self.sip_ports.contains(&end.port()),
                Transport::Tcp => {
                    let theirs = self.sip_ports.contains(&other.port()) && !self.vips.contains(&other.ip());
                    theirs || self.sip_ports.contains(&end.port())
                }
                Transport::Tls | Transport::Ws => true,
            }
    }

    /// Whether a Record-Route URI is the server's own.
    fn is_own(&self, u: &[u8]) -> bool {
        let Some((host, port)) = uri::host_port(u) else { return false };
        let ip = std::str::from_utf8(host).ok().and_then(|h| h.parse().ok());
        // As in `is_server`: where the server takes TLS and WebSocket is not configured.
        let elsewhere = || {
            uri::scheme(u).is_some_and(|s| s.eq_ignore_ascii_case(b"sips"))
                || uri::uri_param(u, "transport")
                    .is_some_and(|t| [&b"tls"[..], b"ws", b"wss"].iter().any(|s| t.eq_ignore_ascii_case(s)))
        };
        ip.is_some_and(|ip| self.vips.contains(&ip)) && (port.is_none_or(|p| self.sip_ports.contains(&p)) || elsewhere())
    }
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
    /// Legs that have not ended, and legs that have.
    live: usize,
    ended: usize,
    /// Legs of [`Known::Claimed`].
    claims: usize,
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
            settings: Arc::new(settings),
            slots: Vec::new(),
            free: Vec::new(),
            live: 0,
            ended: 0,
            claims: 0,
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
    pub const fn remembered(&self) -> usize {
        self.live + self.ended
    }

    /// The next thing that happened to a leg. Poll after each call to a `handle_*` until `None`.
    pub fn poll_event(&mut self) -> Option<LegEvent> {
        self.events.pop_front()
    }

    /// Follows a leg whose past is known from elsewhere; `None` if the table is full.
    pub fn adopt(&mut self, leg: Shared<Leg>, confirmed_ms: u64, emergency: bool, now: Time) -> Option<LegId> {
        let hash = self.hash(&leg.call_id.0);
        if self.full(hash) {
            self.counters.not_learnt += 1;
            return None;
        }
        Some(self.insert(hash, Tracked::adopted(leg, confirmed_ms, emergency, now)))
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
                    ParseError::TooLarge | ParseError::TooManyHeaders | ParseError::Missing(_) => self.counters.malformed += 1,
                }
                return;
            }
        };
        let settings = Arc::clone(&self.settings);
        let own = |u: &[u8]| settings.is_own(u);
        // Only these are matched by it.
        let branch = match m.method() {
            Method::Invite | Method::Ack | Method::Cancel => self.hash(m.branch().unwrap_or_default()),
            _ => 0,
        };
        self.hear(&Heard { m: &m, p, out: by_server, branch, own: &own, at: At { now, unix_ms } });
    }

    /// Sweeps legs of which nothing was heard for too long.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(Reverse((at, slot, generation))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(s) = self.slots.get_mut(slot as usize).filter(|s| s.generation == generation && s.armed == at) else {
                continue;
            };
            let Some(t) = s.tracked.as_deref_mut() else { continue };
            let expiry = t.expiry(MAX_SILENT);
            if expiry > now {
                let expiry = expiry.min(now + RECHECK);
                s.armed = expiry;
                self.timers.push(Reverse((expiry, slot, generation)));
                if t.leg.state != LegState::Ended && !t.pending.is_empty() {
                    self.with(slot, |t| Effect::changed(t.tidy(now)));
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
                self.with(slot, |t| t.end(reason));
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
    }

    fn is_emergency(&self, m: &Message<'_>) -> bool {
        let u = m.request_uri().unwrap_or_default();
        // RFC 5031: urn:service:sos and its sub-services (sos.fire).
        const SOS: &[u8] = b"urn:service:sos";
        let urn =
            u.get(..SOS.len()).is_some_and(|h| h.eq_ignore_ascii_case(SOS)) && matches!(u.get(SOS.len()), None | Some(b'.'));
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

    fn full(&self, hash: u64) -> bool {
        // As many ended legs again may linger, so that a flood of short calls is bounded too.
        self.live >= self.settings.max_legs
            || self.live + self.ended >= self.settings.max_legs.saturating_mul(2)
            || self.by_call_id.get(&hash).is_some_and(|s| s.len() >= MAX_SAME_CALL_ID)
    }

    fn insert(&mut self, hash: u64, tracked: Tracked) -> LegId {
        let expiry = tracked.expiry(MAX_SILENT).min(tracked.last + RECHECK);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, hash, armed: expiry, tracked: None });
            // More than 2^32 legs do not fit the memory of any machine.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let s = &mut self.slots[slot as usize];
        s.hash = hash;
        s.armed = expiry;
        s.tracked = Some(Box::new(tracked));
        let generation = s.generation;
        self.live += 1;
        self.by_call_id.entry(hash).or_default().push(slot);
        self.timers.push(Reverse((expiry, slot, generation)));
        LegId { slot, generation }
    }

    fn forget(&mut self, slot: u32) {
        let Some(s) = self.slots.get_mut(slot as usize) else { return };
        let Some(old) = s.tracked.take() else { return };
        s.generation = s.generation.wrapping_add(1);
        let ended = old.leg.state == LegState::Ended;
        let count = if ended { &mut self.ended } else { &mut self.live };
        *count = count.saturating_sub(1);
        if !ended && old.known == Known::Claimed {
            self.claims = self.claims.saturating_sub(1);
        }
        if let Some(list) = self.by_call_id.get_mut(&s.hash) {
            list.retain(|x| *x != slot);
            if list.is_empty() {
                self.by_call_id.remove(&s.hash);
            }
        }
        self.free.push(slot);
    }

    fn touch(&mut self, slot: u32, now: Time) {
        if let Some(t) = self.slots.get_mut(slot as usize).and_then(|s| s.tracked.as_deref_mut()) {
            t.last = now;
        }
    }

    /// Notes where the phone's RTP of the leg's m-line `media` really comes from; told as a change if it is news.
    pub fn observe_rtp(&mut self, id: LegId, media: usize, source: Option<SocketAddr>) {
        if self.get(id).is_none() || media >= MAX_STREAMS {
            return;
        }
        self.with(id.slot, |t| {
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

    /// Changes a leg, tells what happened, and brings its timer forward where it is now due sooner.
    fn with(&mut self, slot: u32, change: impl FnOnce(&mut Tracked) -> Effect) {
        let Some(s) = self.slots.get_mut(slot as usize) else { return };
        let Some(t) = s.tracked.as_deref_mut() else { return };
        if t.leg.state == LegState::Ended {
            return;
        }
        let id = LegId { slot, generation: s.generation };
        let claimed = t.known == Known::Claimed;
        let effect = change(t);
        if claimed && (t.known != Known::Claimed || matches!(effect, Effect::Ended(_))) {
            self.claims = self.claims.saturating_sub(1);
        }
        match effect {
            Effect::None => {}
            Effect::Changed if t.leg.state == LegState::Confirmed => self.events.push_back(LegEvent::Changed(id)),
            Effect::Changed => {}
            Effect::Confirmed => {
                self.counters.confirmed += 1;
                if claimed && t.known == Known::Middle {
                    self.counters.joined += 1;
                    self.events.push_back(LegEvent::Started(id));
                }
                self.events.push_back(LegEvent::Confirmed(id));
            }
            Effect::Ended(reason) => {
                self.live = self.live.saturating_sub(1);
                self.ended += 1;
                if !claimed {
                    self.events.push_back(LegEvent::Ended(id, reason));
                }
            }
        }
        let expiry = t.expiry(MAX_SILENT);
        if expiry < s.armed {
            s.armed = expiry;
            self.timers.push(Reverse((expiry, slot, id.generation)));
        }
    }
}

#[cfg(test)]
mod tests;
