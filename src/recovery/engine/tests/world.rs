//! Virtual time and a bad network between an engine and its phones.

use super::super::*;
use super::phone::Phone;
use crate::calls::model::{CallEvent, Flow};
use crate::calls::model::{Direction, Pairing, SCHEMA};
use crate::recovery::heard::Hearing;
use crate::recovery::permitted::Ground;
use crate::sip::Transport;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

pub(super) const VIP: &str = "10.9.0.100";
pub(super) const PORT: u16 = 5070;

pub(super) fn settings(window: usize) -> Settings {
    let vips = vec![VIP.parse().unwrap()];
    let ground = Ground::of(&vips);
    let rtp_timeout = Duration::from_secs(60);
    let (instance, node) = ("sip".into(), "b".into());
    Settings { instance, node, vips, ground, recovery_port: PORT, window, rtp_timeout, max_carried: None, fault: None }
}

pub(super) fn server() -> SocketAddr {
    format!("{VIP}:5060").parse().unwrap()
}

pub(super) fn agent() -> SocketAddr {
    format!("{VIP}:{PORT}").parse().unwrap()
}

pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) phones: Vec<Phone>,
    pub(super) now: Time,
    pub(super) stored: BTreeMap<String, Call>,
    pub(super) flows: BTreeMap<String, Vec<Flow>>,
    pub(super) outcomes: BTreeMap<String, Outcome>,
    /// What the parties hear, as each outcome says.
    pub(super) hearings: BTreeMap<String, Option<Hearing>>,
    /// Calls that the new server carries.
    pub(super) handed_on: Vec<String>,
    /// Which party of each call sends audio: the first, the second.
    pub(super) talks: [bool; 2],
    /// RTCP passes, of both parties.
    pub(super) rtcp: bool,
    /// Packets so far: audio of each party, then RTCP.
    packets: [u64; 3],
    /// The relay's counters cannot be read.
    pub(super) uncounted: bool,
    pub(super) counts: usize,
    /// A host that has no part in any call. What is sent to it is lost.
    pub(super) stranger: Option<SocketAddr>,
    /// What the relay has counted of each recovered call.
    pub(super) listened: BTreeMap<String, Counted>,
    pub(super) rng: Rng,
    pub(super) loss: u64,
    pub(super) chaos: bool,
    pub(super) most_busy: usize,
    pub(super) sent: Vec<(Time, SocketAddr, Vec<u8>)>,
    cseqs: BTreeMap<SocketAddr, (u32, Vec<u8>)>,
    net: BTreeMap<(Time, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    serial: u64,
}

impl World {
    pub(super) fn new(seed: u64, window: usize) -> Self {
        Self {
            engine: Engine::new(settings(window), seed),
            phones: Vec::new(),
            now: Time::from_millis(1_000),
            stored: BTreeMap::new(),
            flows: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            hearings: BTreeMap::new(),
            handed_on: Vec::new(),
            talks: [false; 2],
            rtcp: false,
            packets: [0; 3],
            uncounted: false,
            counts: 0,
            stranger: None,
            listened: BTreeMap::new(),
            rng: Rng::new(seed ^ 0x5555),
            loss: 0,
            chaos: false,
            most_busy: 0,
            sent: Vec::new(),
            cseqs: BTreeMap::new(),
            net: BTreeMap::new(),
            serial: 0,
        }
    }

    /// Two phones and their call through a proxy, with this audio between them.
    pub(super) fn proxied(&mut self, n: u16, through_server: bool) -> Call {
        let id = format!("p{n}@x");
        let mut a = Phone::new(2 * n, &id, "<sip:alice@p>;tag=a", "<sip:bob@p>;tag=b", server());
        let mut b = Phone::new(2 * n + 1, &id, "<sip:bob@p>;tag=b", "<sip:alice@p>;tag=a", server());
        if !through_server {
            (a.sdp_seen, b.sdp_seen) = (b.sdp.clone(), a.sdp.clone());
        }
        (a.peer_cseq, b.peer_cseq) = (None, Some(1));
        let legs = vec![a.leg(Direction::Inbound), b.leg(Direction::Outbound)];
        let call = self.call(n, legs, Some(Pairing::SameDialog));
        self.phones.extend([a, b]);
        call
    }

    /// Two phones and their call through a B2BUA.
    pub(super) fn b2bua(&mut self, n: u16) -> Call {
        let mut a =
            Phone::new(2 * n, &format!("a{n}@x"), "<sip:alice@p>;tag=a", "\"S, 1\" <sip:bob@p>;tag=s1", server());
        let mut b =
            Phone::new(2 * n + 1, &format!("b{n}@x"), "Bob <sip:bob@p>;tag=b", "<sip:alice@p>;tag=s2", server());
        a.routes = vec!["<sip:10.7.0.1;lr>".into(), "<sip:10.7.0.2:5080;lr;ftag=x>".into()];
        b.peer_cseq = Some(102);
        let call = self.call(n, vec![a.leg(Direction::Inbound), b.leg(Direction::Outbound)], Some(Pairing::Evidence));
        self.phones.extend([a, b]);
        call
    }

    pub(super) fn call(&self, n: u16, legs: Vec<crate::calls::model::Leg>, pairing: Option<Pairing>) -> Call {
        Call {
            schema: SCHEMA,
            id: format!("call-{n:05}"),
            instance: "sip".into(),
            node: "a".into(),
            epoch: 1,
            confirmed_ms: 5,
            pairing,
            confidence: None,
            other_end: None,
            legs: legs.into_iter().map(Into::into).collect(),
            emergency: false,
        }
    }

    pub(super) fn start(&mut self, calls: Vec<Call>) {
        self.stored.extend(calls.iter().map(|c| (c.id.clone(), c.clone())));
        self.engine.start(calls, 2, self.now);
        self.engine.set_complete();
        self.drain();
    }

    fn post(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.serial += 1;
        let mut copies = 1;
        if self.chaos {
            if self.rng.next() % 100 < self.loss {
                return;
            }
            copies += u64::from(self.rng.next().is_multiple_of(20));
        }
        for c in 0..copies {
            let delay = if self.chaos { self.rng.next() % 200 } else { 5 };
            let at = self.now + Duration::from_millis(1 + delay);
            self.net.insert((at, self.serial * 2 + c), (from, to, bytes.clone()));
        }
    }

    pub(super) fn drain(&mut self) {
        self.most_busy = self.most_busy.max(self.engine.busy.len());
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Send { to, .. } if Some(to) == self.stranger => {}
                Action::Send { from, to, payload } => {
                    // The capture sees our own packets as well. They must not change anything.
                    let p = Packet { src: from, dst: to, transport: Transport::Udp, payload: &payload };
                    let before = self.engine.actions.len();
                    let _ = self.engine.handle_packet(&p, Origin::Overheard, self.now);
                    assert_eq!(self.engine.actions.len(), before);
                    self.check_cseq(to, &payload);
                    self.sent.push((self.now, to, payload.clone()));
                    self.post(from, to, payload);
                }
                Action::Store(CallEvent::Put(call)) => {
                    assert_eq!((call.node.as_str(), call.epoch), ("b", 2));
                    self.stored.insert(call.id.clone(), *call);
                }
                Action::Store(CallEvent::Delete { id, .. }) => {
                    self.stored.remove(&id);
                }
                Action::Flows { call, flows } => {
                    self.flows.insert(call, flows);
                }
                Action::HandOn { call, flows } => {
                    assert_eq!(self.flows.get(&call.id).cloned().unwrap_or_default(), flows);
                    self.handed_on.push(call.id);
                }
                Action::Count { call } => {
                    let [a, b] = self.talks;
                    for (packets, sent) in self.packets.iter_mut().zip([a, b, self.rtcp]) {
                        *packets += u64::from(sent);
                    }
                    self.counts += 1;
                    if self.uncounted {
                        continue;
                    }
                    let flows = self.flows.get(&call).cloned().unwrap_or_default();
                    let [a, b, rtcp] = self.packets;
                    let counts: Vec<_> = flows.into_iter().zip([a, b, a + rtcp, b + rtcp]).collect();
                    self.engine.handle_counts(&call, &counts, self.now);
                }
                Action::Listened { call, counted } => {
                    assert_eq!(self.outcomes.get(&call), Some(&Outcome::Recovered));
                    assert_eq!(self.listened.insert(call, counted), None, "told once");
                }
                Action::Outcome { call, outcome, hearing, .. } => {
                    self.hearings.insert(call.clone(), hearing);
                    assert_eq!(self.outcomes.insert(call, outcome), None, "one outcome for each call");
                }
            }
        }
        for i in 0..self.phones.len() {
            for (to, bytes) in std::mem::take(&mut self.phones[i].out) {
                // A resent 2xx is addressed to the phone itself. It goes to the agent like the first one.
                let to = if to == self.phones[i].addr { agent() } else { to };
                self.post(self.phones[i].addr, to, bytes);
            }
        }
    }

    /// RFC 3261 section 12.2.1.1: each new request's number is one above the last, or a hundred above after a
    /// complaint.
    fn check_cseq(&mut self, to: SocketAddr, payload: &[u8]) {
        let m = Message::parse(payload).unwrap();
        if !m.is_request() || matches!(m.method(), Method::Ack | Method::Cancel) {
            return;
        }
        let (number, branch) = (m.cseq().0, m.branch().unwrap().to_vec());
        if let Some((last, known)) = self.cseqs.insert(to, (number, branch.clone())) {
            if known == branch {
                assert_eq!(last, number, "a retransmission is the same");
            } else if last > number {
                // A retransmission of an older request, after a newer one was started.
                self.cseqs.insert(to, (last, known));
            } else {
                assert!(matches!(number - last, 1 | 100), "{last} -> {number}");
            }
        }
    }

    pub(super) fn run(&mut self, for_: Duration) {
        let end = self.now + for_;
        loop {
            let phones = self.phones.iter().map(Phone::deadline).min().unwrap_or(Time::FAR);
            let net = self.net.first_key_value().map_or(Time::FAR, |((at, _), _)| *at);
            let next = self.engine.next_deadline().unwrap_or(Time::FAR).min(phones).min(net);
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            while let Some(entry) = self.net.first_entry().filter(|e| e.key().0 <= self.now) {
                let (from, to, bytes) = entry.remove();
                self.deliver(from, to, &bytes);
                self.drain();
            }
            self.engine.handle_timeout(self.now);
            let now = self.now;
            self.phones.iter_mut().for_each(|p| p.tick(now));
            self.drain();
        }
        self.now = end;
    }

    fn deliver(&mut self, src: SocketAddr, dst: SocketAddr, payload: &[u8]) {
        if let Some(phone) = self.phones.iter_mut().find(|p| p.addr == dst) {
            phone.hear(src, payload, self.now);
            return;
        }
        assert_eq!(dst.ip(), VIP.parse::<IpAddr>().unwrap());
        let heard = if dst.port() == PORT { Origin::RecoveryPort } else { Origin::Overheard };
        self.engine.handle_packet(&Packet { src, dst, transport: Transport::Udp, payload }, heard, self.now);
    }

    pub(super) fn secs(&mut self, s: u64) {
        self.run(Duration::from_secs(s));
    }

    /// Sends a request from phone `i` now.
    pub(super) fn ask(&mut self, i: usize, method: &str, body: &str) {
        let now = self.now;
        self.phones[i].ask(method, "", body, now);
        self.drain();
    }

    /// The status code of phone `i`'s last request.
    pub(super) fn result(&self, i: usize) -> (String, u16) {
        self.phones[i].results.last().map(|(m, c, _)| (m.clone(), *c)).unwrap()
    }
}
