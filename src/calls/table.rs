//! Tracker and pairing joined: packets in, changes to the set of confirmed calls out. Pure.

mod adopted;
mod audio;
mod bridged;
mod crowd;
mod replaced;

use crate::calls::latching::Sources;
use crate::calls::model::{Call, CallEvent, Direction, Leg, Pairing, SCHEMA};
use crate::calls::pairing::{ANSWER_WINDOW, Pairer};
use crate::calls::quick::QuickMap;
use crate::calls::tracker::{Counters, Learning, LegEvent, LegId, Tracked, Tracker, TrackerSettings};
use crate::pbx::ConnectedTo;
use crate::pbx::bridges::Told;
use crate::time::Time;
use crate::wire::Packet;
use sha2::{Digest as _, Sha256};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

/// How long a confirmed leg waits for its partner before it is stored as a call of its own, how long the other leg of an ended
/// call waits for its own BYE, and how long evidence waits for the word of a server that tells of its bridges: a B2BUA needs
/// milliseconds for each; a shorter wait would store and delete for nothing.
const SETTLE: Duration = Duration::from_secs(1);
/// Hexadecimal digits of SHA-256 in a call's id: 96 bits do not collide among any number of calls that memory can hold.
const ID_DIGITS: usize = 24;

/// Reason of a [`CallEvent::Delete`] of a single leg that was found to be a part of a two-leg call.
pub const PAIRED: &str = "paired with another leg";
/// Reason of a [`CallEvent::Delete`] of a two-leg call of which a leg was joined to another.
pub const REJOINED: &str = "a leg was joined to another";
/// Reason of a [`CallEvent::Delete`] of a two-leg call whose legs the server has taken apart.
pub const PARTED: &str = "the server took the legs apart";

/// What a [`Table`] has to know of its instance.
#[derive(Clone, Debug)]
pub struct TableSettings {
    /// Name of the instance.
    pub instance: String,
    /// Name of this node.
    pub node: String,
    /// Floating addresses of the server.
    pub vips: Vec<IpAddr>,
    /// SIP ports of the server.
    pub sip_ports: Vec<u16>,
    /// A header whose value is the same in the first INVITE of both legs of a call, if the server writes one.
    pub pair_header: Option<String>,
    /// Called users that are emergency numbers, besides `urn:service:sos`.
    pub emergency: Vec<String>,
    /// Most calls that are followed at a time; beyond it new calls are not learnt, and counted.
    pub max_calls: usize,
}

struct Slot {
    id: String,
    legs: SmallVec<[LegId; 2]>,
    /// How the legs were paired, and how certain that is.
    pairing: Option<(Pairing, u8)>,
    /// What a single leg is connected to.
    other_end: Option<ConnectedTo>,
    /// A Put for it waits to be polled; it will show the newest state.
    queued: bool,
}

enum Queued {
    Put(u64),
    Whole(Box<Call>),
    Delete { id: String, reason: &'static str },
}

#[derive(Default)]
struct Member {
    call: Option<u64>,
    /// Whether the leg was ever part of a call that was told.
    told: bool,
}

/// All calls of one instance's server.
pub struct Table {
    settings: TableSettings,
    tracker: Tracker,
    pairer: Pairer,
    /// Confirmed legs.
    members: QuickMap<LegId, Member>,
    calls: QuickMap<u64, Slot>,
    next_call: u64,
    /// Single legs that wait for a partner. The wait is the same for all, so the order is that of the deadlines.
    waiting: VecDeque<(Time, LegId)>,
    /// Legs that were answered, until it is seen who else was answered then. In the order of time.
    answered: VecDeque<(Time, LegId)>,
    events: VecDeque<Queued>,
    epoch: u64,
    tell_short: bool,
    /// What happened to legs, for reports.
    leg_events: VecDeque<LegEvent>,
    sources: Sources,
    /// What the server itself says.
    told: Told,
    /// Until when a leg without a partner may be half of a call of which the other half was not learnt.
    crowded: Option<Time>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(settings: TableSettings) -> Self {
        Self::with_tracker(settings, false)
    }

    fn with_tracker(settings: TableSettings, one_sided: bool) -> Self {
        let tracker = Tracker::new(TrackerSettings {
            one_sided,
            vips: settings.vips.clone(),
            sip_ports: settings.sip_ports.clone(),
            pair_header: settings.pair_header.clone(),
            emergency: settings.emergency.clone(),
            max_legs: settings.max_calls.saturating_mul(2),
        });
        Self {
            settings,
            tracker,
            pairer: Pairer::default(),
            members: QuickMap::default(),
            calls: QuickMap::default(),
            next_call: 0,
            waiting: VecDeque::new(),
            answered: VecDeque::new(),
            events: VecDeque::new(),
            epoch: 0,
            tell_short: false,
            leg_events: VecDeque::new(),
            sources: Sources::default(),
            told: Told::default(),
            crowded: None,
        }
    }

    /// A table that also tells of single-leg calls that were over before they settled, and of every leg: for reports, where nothing
    /// may be left out.
    #[must_use]
    pub(crate) fn for_report(settings: TableSettings) -> Self {
        Self { tell_short: true, ..Self::with_tracker(settings, true) }
    }

    /// The next thing that happened to a leg, confirmed or not; only of a table for reports, where it must be polled.
    pub(crate) fn poll_leg(&mut self) -> Option<LegEvent> {
        self.leg_events.pop_front()
    }

    /// A leg, until it is forgotten some time after its end.
    pub(crate) fn tracked(&self, id: LegId) -> Option<&Tracked> {
        self.tracker.get(id)
    }

    /// Handles one datagram; `unix_ms` is the wall clock in milliseconds since 1970.
    pub fn handle_packet(&mut self, p: &Packet<'_>, unix_ms: u64, now: Time) {
        self.tracker.handle_packet(p, unix_ms, now);
        self.drain(now);
    }

    /// Handles what is due: legs that are given up, single legs that have waited long enough.
    pub fn handle_timeout(&mut self, now: Time) {
        self.tracker.handle_timeout(now);
        self.drain(now);
        while let Some((_, id)) = self.answered.front().copied().filter(|(at, _)| *at <= now) {
            self.answered.pop_front();
            if self.members.get(&id).is_some_and(|m| m.call.is_none()) {
                self.settle(vec![id], now);
            }
        }
        while let Some((at, id)) = self.waiting.front().copied() {
            if at > now {
                break;
            }
            self.waiting.pop_front();
            self.waited(id, now);
        }
        // What was noted of legs must not wait for the next message, which it would be mixed with.
        self.drain(now);
    }

    /// When `handle_timeout` is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let own = [&self.waiting, &self.answered].into_iter().filter_map(|queue| Some(queue.front()?.0));
        own.chain(self.tracker.next_deadline()).min()
    }

    /// The next change to store. A call that changed several times since the last poll is told once, as it is now.
    pub fn poll_event(&mut self) -> Option<CallEvent> {
        loop {
            match self.events.pop_front()? {
                Queued::Whole(call) => return Some(CallEvent::Put(call)),
                Queued::Delete { id, reason } => return Some(CallEvent::Delete { id, reason }),
                Queued::Put(key) => {
                    if let Some(slot) = self.calls.get_mut(&key) {
                        slot.queued = false;
                        if let Some(call) = self.calls.get(&key).and_then(|s| self.call(s)) {
                            return Some(CallEvent::Put(Box::new(call)));
                        }
                    }
                }
            }
        }
    }

    /// Sets the epoch that is written into calls from now on.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// All calls as they are now.
    pub fn calls(&self) -> impl Iterator<Item = Call> {
        self.calls.values().filter_map(|s| self.call(s))
    }

    /// The ids of all calls.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.calls.values().map(|s| s.id.as_str())
    }

    /// One call as it is now.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Call> {
        self.calls.values().find(|s| s.id == id).and_then(|s| self.call(s))
    }

    /// All legs that have not ended, also those that are not confirmed.
    pub fn legs(&self) -> impl Iterator<Item = &Leg> {
        self.tracker.legs().map(|t| &*t.leg)
    }

    /// How many legs there is memory for: those of [`Table::legs`], and those that ended not long ago.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.tracker.remembered()
    }

    /// What is kept now, and what was not learnt.
    #[must_use]
    pub fn learning(&self) -> Learning {
        Learning { load: self.tracker.load(), counters: self.tracker.counters }
    }

    /// What was seen, and what was not learnt.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.tracker.counters
    }

    /// Forgets everything, without events: what is stored is left to the one that holds the instance now.
    pub fn clear(&mut self) {
        self.tracker.clear();
        self.pairer.clear();
        self.members.clear();
        self.calls.clear();
        self.waiting.clear();
        self.answered.clear();
        self.events.clear();
        self.sources.clear();
        self.told = Told::default();
        self.crowded = None;
    }

    fn drain(&mut self, now: Time) {
        while let Some(event) = self.tracker.poll_event() {
            if self.tell_short {
                self.leg_events.push_back(event);
            }
            match event {
                LegEvent::Started(id) => {
                    // A leg whose INVITE was overtaken is told again; it may be part of a call by then.
                    let free = self.members.get(&id).is_none_or(|m| m.call.is_none());
                    if let Some(t) = self.tracker.get(id).filter(|_| free) {
                        self.pairer.add(id, t, t.started);
                        if self.members.contains_key(&id) {
                            self.settle(vec![id], now);
                        }
                    }
                }
                LegEvent::Confirmed(id) => {
                    self.sources.forget();
                    self.members.insert(id, Member::default());
                    self.waiting.push_back((now + SETTLE, id));
                    self.refresh(id);
                    self.place(id, now);
                    let mut open = self.succeed(id, now);
                    open.push(id);
                    self.settle(open, now);
                    if self.members.get(&id).is_some_and(|m| m.call.is_none()) {
                        self.answered.push_back((now + ANSWER_WINDOW, id));
                    }
                }
                LegEvent::Changed(id) => {
                    self.sources.forget();
                    let call = self.members.get(&id).and_then(|m| m.call);
                    if let Some(key) = call {
                        self.queue_put(key);
                    }
                    // A description may have come that shows whom a single leg talks to.
                    if self.refresh(id) {
                        self.settle(vec![id], now);
                    }
                }
                LegEvent::Ended(id, reason) => self.ended(id, reason, now),
            }
        }
        self.look_around(now);
    }

    /// Pairs what is certain now, beginning with `open`; each pair may settle the case of others.
    fn settle(&mut self, mut open: Vec<LegId>, now: Time) {
        while let Some(id) = open.pop() {
            let Some(found) = self.pairer.partner(id, &self.tracker, now) else { continue };
            if !self.may_guess(id, found.pairing) || !self.may_guess(found.leg, found.pairing) {
                continue;
            }
            // The server's word may be on the way; the one that has waited longer brings the other along.
            if found.pairing == Pairing::Evidence && self.told.is_live() && !self.has_waited(id, now) {
                continue;
            }
            open.extend(self.join(id, found.leg, found.pairing, found.confidence, now));
        }
    }

    /// Makes two legs a call, whatever they were before; the legs whose case this may settle.
    fn join(&mut self, a: LegId, b: LegId, pairing: Pairing, confidence: u8, now: Time) -> Vec<LegId> {
        let mut both = [a, b];
        // The caller first; of two callers, or two that were called, the one that came first.
        both.sort_by_key(|id| {
            self.tracker.get(*id).map(|t| (t.leg.direction == Direction::Outbound, t.started, t.leg.call_id.0.clone()))
        });
        let mut open = Vec::new();
        for leg in both {
            if let Some(key) = self.members.get(&leg).and_then(|m| m.call) {
                let reason = if self.calls.get(&key).is_some_and(|s| s.legs.len() > 1) { REJOINED } else { PAIRED };
                open.extend(self.part(key, reason, now).into_iter().filter(|l| !both.contains(l)));
            }
        }
        for leg in both {
            match self.tracker.get(leg) {
                Some(t) => open.extend(self.pairer.remove_from_neighbours(leg, t)),
                None => self.pairer.remove(leg),
            }
        }
        self.make_call(&both, Some((pairing, confidence)), now);
        open
    }

    /// Takes a call apart; its legs wait for what becomes of them.
    fn part(&mut self, key: u64, reason: &'static str, now: Time) -> SmallVec<[LegId; 2]> {
        let legs = self.calls.get(&key).map(|s| s.legs.clone()).unwrap_or_default();
        self.drop_call(key, reason);
        for leg in &legs {
            self.release(*leg, now);
        }
        legs
    }

    /// A leg without a call waits like a new one: a B2BUA may hang it up, or join it to another.
    fn release(&mut self, leg: LegId, now: Time) {
        let Some(m) = self.members.get_mut(&leg) else { return };
        m.call = None;
        if let Some(t) = self.tracker.get(leg) {
            self.pairer.add(leg, t, now);
        }
        self.waiting.push_back((now + SETTLE, leg));
    }

    /// Has the pairer look at a leg again; whether it is one that seeks.
    fn refresh(&mut self, id: LegId) -> bool {
        let single = self
            .members
            .get(&id)
            .is_some_and(|m| m.call.and_then(|k| self.calls.get(&k)).is_none_or(|s| s.legs.len() < 2));
        if let (true, Some(t)) = (single, self.tracker.get(id)) {
            self.pairer.refresh(id, t);
        }
        single
    }

    fn ended(&mut self, id: LegId, reason: &'static str, now: Time) {
        let Some(t) = self.tracker.get(id) else { return };
        let neighbours = self.pairer.remove_from_neighbours(id, t);
        if let Some(member) = self.members.remove(&id) {
            match member.call {
                Some(key) => {
                    let rest: SmallVec<[LegId; 2]> = self
                        .calls
                        .get(&key)
                        .map(|s| s.legs.iter().copied().filter(|l| *l != id).collect())
                        .unwrap_or_default();
                    // The event may not have been polled; then it shows what there was, with the leg ended.
                    if self.tell_short
                        && let Some(slot) = self.calls.get(&key)
                        && slot.queued
                        && let Some(call) = self.call(slot)
                    {
                        self.events.push_back(Queued::Whole(Box::new(call)));
                    }
                    self.drop_call(key, reason);
                    for other in rest {
                        self.release(other, now);
                        self.tracker.confirm_doubt(other, now);
                    }
                }
                None if self.tell_short && !member.told => {
                    let legs = [id].into_iter().collect();
                    let slot = Slot {
                        id: self.name(&[id]),
                        legs,
                        pairing: None,
                        other_end: self.other_end(id),
                        queued: false,
                    };
                    if let Some(call) = self.call(&slot) {
                        self.events.push_back(Queued::Whole(Box::new(call)));
                        self.events.push_back(Queued::Delete { id: slot.id, reason });
                    }
                }
                None => {}
            }
        }
        self.settle(neighbours, now);
    }

    fn make_call(&mut self, legs: &[LegId], pairing: Option<(Pairing, u8)>, now: Time) {
        self.note_partners(legs, now);
        let key = self.next_call;
        self.next_call += 1;
        for leg in legs {
            if let Some(m) = self.members.get_mut(leg) {
                *m = Member { call: Some(key), told: true };
            }
        }
        let id = self.name(legs);
        let other_end = if let [single] = legs { self.other_end(*single) } else { None };
        self.calls.insert(key, Slot { id, legs: legs.iter().copied().collect(), pairing, other_end, queued: false });
        self.queue_put(key);
    }

    fn queue_put(&mut self, key: u64) {
        if let Some(slot) = self.calls.get_mut(&key)
            && !slot.queued
        {
            slot.queued = true;
            self.events.push_back(Queued::Put(key));
        }
    }

    fn drop_call(&mut self, key: u64, reason: &'static str) {
        if let Some(slot) = self.calls.remove(&key) {
            self.events.push_back(Queued::Delete { id: slot.id, reason });
        }
    }

    fn call(&self, slot: &Slot) -> Option<Call> {
        let legs: SmallVec<[&Tracked; 2]> = slot.legs.iter().filter_map(|id| self.tracker.get(*id)).collect();
        if legs.is_empty() {
            return None;
        }
        Some(Call {
            schema: SCHEMA,
            id: slot.id.clone(),
            instance: self.settings.instance.clone(),
            node: self.settings.node.clone(),
            epoch: self.epoch,
            confirmed_ms: legs.iter().map(|t| t.confirmed_ms).max().unwrap_or(0),
            pairing: slot.pairing.map(|(how, _)| how),
            confidence: slot.pairing.map(|(_, confidence)| confidence),
            other_end: slot.other_end.clone(),
            legs: legs.iter().map(|t| t.leg.clone()).collect(),
            emergency: legs.iter().any(|t| t.emergency),
        })
    }

    /// A name that is the same for the same dialogs on every node and at every time.
    fn name(&self, legs: &[LegId]) -> String {
        let mut hash = Sha256::new();
        for t in legs.iter().filter_map(|id| self.tracker.get(*id)) {
            for part in [&t.leg.call_id, &t.leg.local_tag, &t.leg.remote_tag] {
                // The length in front keeps the parts apart.
                hash.update((part.0.len() as u64).to_be_bytes());
                hash.update(&part.0);
            }
        }
        let digit = |n: u8| char::from_digit(n.into(), 16).unwrap_or_default();
        hash.finalize().iter().take(ID_DIGITS / 2).flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
    }
}

#[cfg(test)]
pub(crate) mod script;
#[cfg(test)]
mod tests;
