//! All calls after a takeover: schedules their recovery and assigns each packet to its call.

#[cfg(test)]
mod tests;

use super::b2bua::phrase;
use super::call::CarriedCall;
use super::context::Context;
use super::heard::Hearing;
use super::hung_up::is_half_over;
use super::plan;
use super::recoverability::{self, Fate};
use super::request;
use super::rng::Rng;
#[cfg(test)]
use super::types::Fault;
pub use super::types::{Action, CallState, CallStatus, Counted, Origin, Outcome, Settings};
use crate::calls::model::{Call, Flow};
use crate::config::Mode;
use crate::fnv::fnv1a;
use crate::sip::build::{Builder, response_address};
use crate::sip::message::{Message, Method, Name};
use crate::time::Time;
use crate::wire::Packet;
use smallvec::SmallVec;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

/// Most calls carried at one time. Calls beyond the limit are reported as refused. Ten times the default limit of one
/// server's tracker.
pub const MAX_CALLS: usize = 100_000;

/// The recovery engine of one instance. Pure: packets and time go in, [`Action`]s come out.
pub struct Engine {
    settings: Settings,
    rng: Rng,
    epoch: u64,
    mode: Mode,
    /// All stored calls were read. Until then an unknown dialog may be one of them.
    complete: bool,
    // Boxed, because a map reserves up to twice its entries and a call takes kilobytes.
    calls: HashMap<u64, Box<CarriedCall>>,
    names: HashMap<String, u64>,
    by_call_id: HashMap<Vec<u8>, SmallVec<[u64; 2]>>,
    next_key: u64,
    queue: VecDeque<u64>,
    /// Calls in the window.
    busy: BTreeSet<u64>,
    deadlines: BTreeSet<(Time, u64)>,
    due: HashMap<u64, Time>,
    actions: VecDeque<Action>,
}

impl Engine {
    /// An engine without calls. The same seed and inputs give the same actions.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            rng: Rng::new(seed),
            epoch: 0,
            mode: Mode::default(),
            complete: false,
            calls: HashMap::new(),
            names: HashMap::new(),
            by_call_id: HashMap::new(),
            next_key: 0,
            queue: VecDeque::new(),
            busy: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            due: HashMap::new(),
            actions: VecDeque::new(),
        }
    }

    /// All stored calls were read and handed in. From now on a request in an unknown dialog is answered with 481.
    ///
    /// Before, it gets no answer, and the phone sends it again: a 481 would make the phone drop its call.
    pub const fn set_complete(&mut self) {
        self.complete = true;
    }

    /// Sets the mode from now on.
    ///
    /// A lower mode stops all signalling at once, even in mid-recovery. The relayed audio of calls already taken over
    /// stays until they end, because without it they are dead. A higher mode applies to calls taken over from now on.
    pub fn set_mode(&mut self, mode: Mode, now: Time) {
        let before = std::mem::replace(&mut self.mode, mode);
        if mode >= before {
            return;
        }
        let waiting: Vec<u64> = self.queue.drain(..).collect();
        let others: Vec<u64> = self.calls.keys().copied().filter(|key| !waiting.contains(key)).collect();
        for key in waiting.into_iter().chain(others) {
            self.with(key, now, CarriedCall::silence);
        }
    }

    /// Takes over these calls, as far as the mode allows: first all relay paths, then the re-INVITEs, as many at a time
    /// as the window allows. Calls already in the engine stay unchanged.
    pub fn start(&mut self, calls: Vec<Call>, epoch: u64, now: Time) {
        self.epoch = epoch;
        for call in plan::order(calls) {
            if self.names.contains_key(&call.id) {
                continue;
            }
            let (fate, paths) = recoverability::of(&call, &self.settings.ground);
            if fate == Fate::Proxied {
                self.hand_on(call, paths.flows);
                continue;
            }
            if !self.mode.relays() {
                self.untouched(call, Outcome::Left, &[]);
                continue;
            }
            if self.calls.len() >= MAX_CALLS || call.legs.is_empty() || call.legs.len() > 2 {
                let reason = "more calls or legs than keepcall can carry".to_owned();
                self.untouched(call, Outcome::Refused { code: None, reason }, &[]);
                continue;
            }
            self.insert(call, now);
        }
        self.advance(now);
    }

    fn insert(&mut self, call: Call, now: Time) {
        let key = self.next_key;
        self.next_key += 1;
        self.names.insert(call.id.clone(), key);
        for leg in &call.legs {
            let keys = self.by_call_id.entry(leg.call_id.0.to_vec()).or_default();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let id = call.id.clone();
        let Self { settings, rng, actions, epoch, mode, .. } = self;
        let mode = *mode;
        let carried = CarriedCall::new(call, &Context { settings, rng, actions, epoch: *epoch, mode, now });
        let half_over = is_half_over(&carried.call);
        let reinvited = !half_over && mode.signals() && carried.fate() == Fate::Reinvited;
        if reinvited {
            if !carried.flows.is_empty() {
                actions.push_back(Action::Flows { call: id, flows: carried.flows.clone() });
            }
            self.queue.push_back(key);
        }
        self.calls.insert(key, Box::new(carried));
        if half_over {
            self.with(key, now, CarriedCall::finish);
        } else if !reinvited {
            self.with(key, now, CarriedCall::keep);
        }
    }

    /// A proxied call: its requests are routed by their route set, to the new server as well. The relay forwards the
    /// audio that ran through the former server, for as long as the descriptions name its ports.
    fn hand_on(&mut self, call: Call, flows: Vec<Flow>) {
        let id = call.id.clone();
        let flows = if self.mode.relays() { flows } else { Vec::new() };
        if !flows.is_empty() {
            self.actions.push_back(Action::Flows { call: id.clone(), flows: flows.clone() });
        }
        self.actions.push_back(Action::HandOn { call: Box::new(call.clone()), flows: flows.clone() });
        self.untouched(call, Outcome::Proxied, &flows);
    }

    /// The outcome of a call that the engine does not take.
    fn untouched(&mut self, call: Call, outcome: Outcome, flows: &[Flow]) {
        let hearing = Some(Hearing::of(&call, flows, outcome == Outcome::Proxied, &self.settings.ground));
        let answered_after = Duration::ZERO;
        self.actions.push_back(Action::Outcome { call: call.id, outcome, reinvited: 0, answered_after, hearing });
    }

    /// The packets that each relay path of a call has forwarded, as [`Action::Count`] asked.
    pub fn handle_counts(&mut self, call: &str, counts: &[(Flow, u64)], now: Time) {
        if let Some(key) = self.names.get(call).copied() {
            self.with(key, now, |call, cx| call.counted(counts, cx));
        }
    }

    /// Handles one packet. True if it belongs to a call of the engine and must be hidden from the tracker.
    pub fn handle_packet(&mut self, p: &Packet<'_>, origin: Origin, now: Time) -> bool {
        let Ok(m) = Message::parse(p.payload) else { return false };
        let Some(keys) = self.by_call_id.get(m.call_id()).cloned() else {
            if origin == Origin::RecoveryPort {
                self.reject(&m, p);
            }
            return false;
        };
        if origin == Origin::Overheard && self.settings.vips.contains(&p.src.ip()) {
            // Our own packet, or one from a server that has never heard of the call. Neither comes from a phone.
            self.said_by_server(&m, p, &keys, now);
            return true;
        }
        let (from, to) = (m.from_tag(), m.to_tag());
        let (local, remote) = if m.is_request() { (to, from) } else { (from, to) };
        let found = keys.iter().find_map(|k| Some((*k, self.calls.get(k)?.side_of(local, remote)?)));
        #[cfg(test)]
        let found = found.or_else(|| keys.first().filter(|_| self.settings.lacks(Fault::TagsIgnored)).map(|k| (*k, 0)));
        let Some((key, side)) = found else {
            if origin == Origin::RecoveryPort {
                self.reject(&m, p);
            }
            return true;
        };
        let kept = self.calls.get(&key).is_some_and(|c| c.kept_until().is_some());
        if origin == Origin::Reported && !kept {
            // Carried calls use UDP. The capture shows all their traffic to the server as well, and it is more reliable
            // than a report. Of a call over TLS, only the server can tell.
            return true;
        }
        if !self.mode.signals() || kept {
            if m.is_request() && m.method() == Method::Bye {
                self.with(key, now, |call, cx| call.hung_up_kept(side, cx));
            } else if !m.is_request() && m.method() == Method::Options {
                self.with(key, now, |call, cx| call.handle_response(side, &m, cx));
            }
            return true;
        }
        self.with(key, now, |call, cx| match (m.is_request(), origin) {
            (true, Origin::RecoveryPort) => call.handle_request(side, &m, p, cx),
            (true, Origin::Overheard) if m.method() == Method::Bye => call.overheard_bye(side, cx),
            // The server answers the request, or a proxy forwards it to the recovery port.
            (true, Origin::Overheard | Origin::Reported) => call.is_there(side),
            // A phone that answers to the packet's source address instead of Via reaches the server's port.
            (false, _) => call.handle_response(side, &m, cx),
        });
        self.advance(now);
        true
    }

    /// A phone with an outbound proxy setting sends every request to the server's port. The server answers that the
    /// call does not exist.
    fn said_by_server(&mut self, m: &Message<'_>, p: &Packet<'_>, keys: &[u64], now: Time) {
        let ends_itself = matches!(m.method(), Method::Bye | Method::Cancel | Method::Ack);
        if m.code() != Some(481) || ends_itself || p.src.port() == self.settings.recovery_port {
            return;
        }
        // In the response to a phone's request, From is the phone.
        let found = keys.iter().find_map(|k| Some((*k, self.calls.get(k)?.side_of(m.to_tag(), m.from_tag())?)));
        if let Some((key, side)) = found {
            self.with(key, now, |call, cx| call.disowned(side, cx));
        }
    }

    /// RFC 3261 section 12.2.2: a request outside every known dialog. It leaves no state: the tag is computed, so a
    /// retransmission gets the same tag (section 8.2.7).
    fn reject(&mut self, m: &Message<'_>, p: &Packet<'_>) {
        if !m.is_request() || m.method() == Method::Ack || !self.mode.signals() || !self.complete {
            return;
        }
        let tag = format!("{:016x}", fnv1a(m.call_id()));
        // An OPTIONS probe outside a dialog learns that the port works. New calls belong on the server's port.
        let code = match (m.method(), m.to_tag()) {
            (Method::Options, None) => 200,
            _ => 481,
        };
        let via = m.values(Name::Via).next().unwrap_or_default();
        let b = Builder::response_to(m, code, phrase(code), Some(tag.as_bytes()), Some(p.src))
            .header("Allow", request::ALLOW);
        let payload = b.header("Server", request::USER_AGENT).build();
        self.actions.push_back(Action::Send { from: p.dst, to: response_address(via, p.src), payload });
    }

    fn with(&mut self, key: u64, now: Time, work: impl FnOnce(&mut CarriedCall, &mut Context<'_>)) {
        let Self { settings, rng, actions, epoch, mode, calls, .. } = self;
        let Some(call) = calls.get_mut(&key) else { return };
        let mut cx = Context { settings, rng, actions, epoch: *epoch, mode: *mode, now };
        work(call, &mut cx);
        let (deadline, busy, forgotten) = (call.deadline(now), call.busy(now), call.forgotten(now));
        if let Some(old) = self.due.remove(&key) {
            self.deadlines.remove(&(old, key));
        }
        if busy {
            self.busy.insert(key);
        } else {
            self.busy.remove(&key);
        }
        if forgotten {
            self.forget(key);
        } else if deadline < Time::FAR {
            self.due.insert(key, deadline);
            self.deadlines.insert((deadline, key));
        }
    }

    fn forget(&mut self, key: u64) {
        let Some(call) = self.calls.remove(&key) else { return };
        self.names.remove(&call.call.id);
        for leg in &call.call.legs {
            if let Some(keys) = self.by_call_id.get_mut(&*leg.call_id) {
                keys.retain(|k| *k != key);
                if keys.is_empty() {
                    self.by_call_id.remove(&*leg.call_id);
                }
            }
        }
    }

    /// Fills the window.
    fn advance(&mut self, now: Time) {
        let window = self.settings.window.max(1);
        while self.busy.len() < window {
            let Some(key) = self.queue.pop_front() else { break };
            self.with(key, now, CarriedCall::begin);
        }
    }

    /// Handles all deadlines due at `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        // Each call once: no call's work makes another call due.
        let due: Vec<u64> = self.deadlines.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| *key).collect();
        for key in due {
            self.with(key, now, CarriedCall::handle_timeout);
        }
        self.advance(now);
    }

    /// Whether this call was taken over and has not ended.
    #[must_use]
    pub fn carries(&self, id: &str) -> bool {
        let carried = self.names.get(id).and_then(|key| self.calls.get(key));
        carried.is_some_and(|c| c.status().state != CallState::Over)
    }

    /// When to call [`Self::handle_timeout`] next, unless another event comes first.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// The next action. Poll until `None` after each call of the other functions.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The VIP is lost. Forgets all calls and sends nothing more.
    pub fn stop(&mut self) {
        // Keep the generator's state, so that a later start does not repeat branches.
        let rng = self.rng.clone();
        *self = Self { rng, mode: self.mode, complete: self.complete, ..Self::new(self.settings.clone(), 0) };
    }

    /// All calls, sorted by name.
    #[must_use]
    pub fn status(&self) -> Vec<CallStatus> {
        let mut all: Vec<CallStatus> = self.calls.values().map(|c| c.status()).collect();
        all.sort_by(|a, b| a.call.cmp(&b.call));
        all
    }
}
