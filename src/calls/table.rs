//! Joins tracker and pairing: packets in, changes to the set of confirmed calls out. Pure.

mod adopted;
mod audio;
mod bridged;
mod crowd;
mod given_up;
mod half_over;
mod record;
mod replaced;
mod settings;
mod transferred;

pub use settings::TableSettings;

use crate::calls::latching::Sources;
use crate::calls::model::{Call, CallEvent, Direction, Leg, Pairing};
use crate::calls::pairing::{ANSWER_WINDOW, Pairer};
use crate::calls::tracker::{Counters, Learning, LegEvent, LegId, Tracked, Tracker, TrackerSettings};
use crate::pbx::ConnectedTo;
use crate::pbx::bridges::ServerReports;
use crate::time::Time;
use crate::wire::Packet;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::time::Duration;
use transferred::Transfers;

/// Three waits: a confirmed leg for its partner before it is stored as a call of its own, the other leg of an ended
/// call for its own BYE, and evidence for the report of a server that reports its bridges. A B2BUA needs milliseconds
/// for each, and a shorter wait would store and delete for nothing.
const SETTLE: Duration = Duration::from_secs(1);

/// Reason of a [`CallEvent::Delete`]: the single leg became part of a two-leg call.
pub const PAIRED: &str = "paired with another leg";
/// Reason of a [`CallEvent::Delete`]: a leg of the two-leg call was joined to another leg.
pub const REJOINED: &str = "a leg of the call now has another partner";
/// Reason of a [`CallEvent::Delete`]: the server separated the legs of the two-leg call.
pub const PARTED: &str = "the server separated the legs";

struct Slot {
    id: String,
    legs: SmallVec<[LegId; 2]>,
    /// Evidence of the pairing, and its confidence.
    pairing: Option<(Pairing, u8)>,
    /// What a single leg is connected to.
    other_end: Option<ConnectedTo>,
    /// A Put for it waits to be polled. It will show the newest state.
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
    /// Whether the leg was ever part of a reported call.
    told: bool,
}

/// All calls of one instance's server.
pub struct Table {
    settings: TableSettings,
    tracker: Tracker,
    pairer: Pairer,
    /// Confirmed legs. The program makes the keys of this map and the next itself, so a hash without a secret will do.
    members: FxHashMap<LegId, Member>,
    calls: FxHashMap<u64, Slot>,
    next_call: u64,
    /// Single legs that wait for a partner. All wait equally long, so they are in the order of their deadlines.
    waiting: VecDeque<(Time, LegId)>,
    /// Answered legs, until it is clear who else was answered in the same window. In order of time.
    answered: VecDeque<(Time, LegId)>,
    events: VecDeque<Queued>,
    epoch: u64,
    tell_short: bool,
    /// Events of legs, for reports.
    leg_events: VecDeque<LegEvent>,
    sources: Sources,
    /// Reports of the server itself.
    told: ServerReports,
    /// Calls whose one party has hung up, by the leg of the other: their key, and why they are over.
    half_over: FxHashMap<LegId, (u64, &'static str)>,
    /// Until when a leg without a partner may be half of a call whose other half was not learnt.
    crowded: Option<Time>,
    /// Legs that have left their call, until no transfer of theirs is under way any more.
    transfers: Transfers,
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
            advertised: settings.advertised.clone(),
            sip_ports: settings.sip_ports.clone(),
            pair_header: settings.pair_header.clone(),
            emergency: settings.emergency.clone(),
            max_legs: settings.max_calls.saturating_mul(2),
        });
        let sources = Sources::new(&settings.vips, &settings.advertised);
        Self {
            settings,
            tracker,
            pairer: Pairer::default(),
            members: FxHashMap::default(),
            calls: FxHashMap::default(),
            next_call: 0,
            waiting: VecDeque::new(),
            answered: VecDeque::new(),
            events: VecDeque::new(),
            epoch: 0,
            tell_short: false,
            leg_events: VecDeque::new(),
            sources,
            told: ServerReports::default(),
            half_over: FxHashMap::default(),
            crowded: None,
            transfers: Transfers::default(),
        }
    }

    /// A table for reports, where nothing may be missing. It also reports single-leg calls that ended before they
    /// settled, and every leg.
    #[must_use]
    pub(crate) fn for_report(settings: TableSettings) -> Self {
        Self { tell_short: true, ..Self::with_tracker(settings, true) }
    }

    /// The next event of a leg, confirmed or not. Only a table for reports has these, and it must be polled.
    pub(crate) fn poll_leg(&mut self) -> Option<LegEvent> {
        self.leg_events.pop_front()
    }

    /// A leg, until it is forgotten some time after its end.
    pub(crate) fn tracked(&self, id: LegId) -> Option<&Tracked> {
        self.tracker.get(id)
    }

    /// Handles one datagram. `unix_ms` is the wall clock in milliseconds since 1970.
    pub fn handle_packet(&mut self, p: &Packet<'_>, unix_ms: u64, now: Time) {
        self.tracker.handle_packet(p, unix_ms, now);
        self.drain(now);
    }

    /// Handles what is due: legs to give up, and single legs that have waited long enough.
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
        // Leg events must not wait for the next message, because they would mix with its events.
        self.drain(now);
    }

    /// When `handle_timeout` is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let own = [&self.waiting, &self.answered].into_iter().filter_map(|queue| Some(queue.front()?.0));
        own.chain(self.tracker.next_deadline()).min()
    }

    /// The next change to store. Several changes of a call since the last poll are reported once, in the newest state.
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

    /// Sets the epoch for calls written from now on.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// All calls in their current state.
    pub fn calls(&self) -> impl Iterator<Item = Call> {
        self.calls.values().filter_map(|s| self.call(s))
    }

    /// The ids of all calls.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.calls.values().map(|s| s.id.as_str())
    }

    /// One call in its current state.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Call> {
        self.calls.values().find(|s| s.id == id).and_then(|s| self.call(s))
    }

    /// All legs that have not ended, confirmed or not.
    pub fn legs(&self) -> impl Iterator<Item = &Leg> {
        self.tracker.legs().map(|t| &*t.leg)
    }

    /// Number of legs in memory: those of [`Table::legs`], and those that ended recently.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.tracker.remembered()
    }

    /// Current load, and counters of what was not learnt.
    #[must_use]
    pub fn learning(&self) -> Learning {
        Learning { load: self.tracker.load(), counters: self.tracker.counters }
    }

    /// Counters of what was seen and what was not learnt.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.tracker.counters
    }

    /// Forgets everything, without events: the stored calls belong to the node that now holds the instance.
    pub fn clear(&mut self) {
        self.tracker.clear();
        self.pairer.clear();
        self.members.clear();
        self.calls.clear();
        self.waiting.clear();
        self.answered.clear();
        self.events.clear();
        self.sources.clear();
        self.told = ServerReports::default();
        self.half_over.clear();
        self.crowded = None;
        self.transfers = Transfers::default();
    }

    fn drain(&mut self, now: Time) {
        while let Some(event) = self.tracker.poll_event() {
            if self.tell_short {
                self.leg_events.push_back(event);
            }
            match event {
                LegEvent::Started(id) => {
                    // The tracker reports a leg again if its INVITE was overtaken. By then it may be part of a call.
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
                    open.extend(self.transferred(id, now));
                    open.push(id);
                    self.settle(open, now);
                    if self.members.get(&id).is_some_and(|m| m.call.is_none()) {
                        self.answered.push_back((now + ANSWER_WINDOW, id));
                    }
                }
                LegEvent::Changed(id) => {
                    self.sources.forget();
                    let call = self.members.get(&id).and_then(|m| m.call);
                    // A call that is half over shows its newest state, too.
                    if let Some(key) = call.or_else(|| self.half_over.get(&id).map(|(key, _)| *key)) {
                        self.queue_put(key);
                    }
                    // A new description may show the partner of a single leg.
                    if self.refresh(id) {
                        self.settle(vec![id], now);
                    }
                }
                LegEvent::Ended(id, reason) => self.ended(id, reason, now),
            }
        }
        self.look_around(now);
    }

    /// Pairs what is certain now, starting with `open`. Each pair may settle the case of others.
    fn settle(&mut self, mut open: Vec<LegId>, now: Time) {
        while let Some(id) = open.pop() {
            let Some(found) = self.pairer.partner(id, &self.tracker, now) else { continue };
            if !self.may_guess(id, found.pairing) || !self.may_guess(found.leg, found.pairing) {
                continue;
            }
            // The server's report may be on the way. The leg that has waited longer will pair both.
            if found.pairing == Pairing::Evidence && self.told.is_live() && !self.has_waited(id, now) {
                continue;
            }
            open.extend(self.join(id, found.leg, found.pairing, found.confidence, now));
        }
    }

    /// Makes two legs a call, whatever they were before. Returns the legs whose case this may settle.
    fn join(&mut self, a: LegId, b: LegId, pairing: Pairing, confidence: u8, now: Time) -> Vec<LegId> {
        let mut both = [a, b];
        // The caller first. Of two callers, or two callees, the one that started first.
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

    /// Splits a call. Its legs then wait for a new partner or their end.
    fn part(&mut self, key: u64, reason: &'static str, now: Time) -> SmallVec<[LegId; 2]> {
        let legs = self.calls.get(&key).map(|s| s.legs.clone()).unwrap_or_default();
        self.drop_call(key, reason);
        for leg in &legs {
            self.release(*leg, now);
        }
        legs
    }

    /// Lets a leg without a call wait like a new one, because a B2BUA may hang it up or join it to another.
    fn release(&mut self, leg: LegId, now: Time) {
        let Some(m) = self.members.get_mut(&leg) else { return };
        m.call = None;
        if let Some(t) = self.tracker.get(leg) {
            self.pairer.add(leg, t, now);
        }
        self.waiting.push_back((now + SETTLE, leg));
    }

    /// Updates a leg in the pairer. Returns whether the leg looks for a partner.
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
        self.wholly_over(id);
        let Some(t) = self.tracker.get(id) else { return };
        let neighbours = self.pairer.remove_from_neighbours(id, t);
        if let Some(member) = self.members.remove(&id) {
            match member.call {
                Some(key) => {
                    let pairing = self.calls.get(&key).and_then(|s| s.pairing);
                    let rest: SmallVec<[LegId; 2]> = self
                        .calls
                        .get(&key)
                        .map(|s| s.legs.iter().copied().filter(|l| *l != id).collect())
                        .unwrap_or_default();
                    // The event may not have been polled yet. It then shows the former call with this leg ended.
                    if self.tell_short
                        && let Some(slot) = self.calls.get(&key)
                        && slot.queued
                        && let Some(call) = self.call(slot)
                    {
                        self.events.push_back(Queued::Whole(Box::new(call)));
                    }
                    self.over(key, id, &rest, reason);
                    for other in &rest {
                        self.release(*other, now);
                        self.tracker.confirm_doubt(*other, now);
                    }
                    if let ([partner], Some((how, _))) = (rest.as_slice(), pairing)
                        && how != Pairing::SameDialog
                        && let Some(t) = self.tracker.get(id)
                    {
                        self.transfers.left(id, t, *partner, now);
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
        let open = self.transferred(id, now);
        self.settle(open, now);
        self.settle(neighbours, now);
    }

    fn make_call(&mut self, legs: &[LegId], pairing: Option<(Pairing, u8)>, now: Time) {
        legs.iter().for_each(|leg| self.wholly_over(*leg));
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
}

#[cfg(test)]
pub(crate) mod script;
#[cfg(test)]
mod tests;
