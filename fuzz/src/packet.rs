//! Feeds datagrams into a call table: whatever arrives, its output is consistent, and in the end it forgets everything.

use super::show;
use keepcall::calls::model::{Call, CallEvent, LegState};
use keepcall::calls::table::{Table, TableSettings};
use keepcall::recovery::permitted::Ground;
use keepcall::recovery::plan;
use keepcall::sip::Transport;
use keepcall::sip::sdp::Sdp;
use keepcall::time::Time;
use keepcall::wire::Packet;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Separates two datagrams in the input: a byte that occurs in no message.
pub const SEPARATOR: u8 = 0x1e;
const MAX_CALLS: usize = 8;
/// Two legs for each call, plus an eighth (at least one) for emergency calls.
const ANSWERED: usize = 2 * MAX_CALLS + 3;
/// The least room for legs that the server has not answered, and for dialogs with a phone alone; plus an eighth for
/// emergency calls.
const UNANSWERED: usize = 2 * (64 + 8);

/// Reads `data` as datagrams between a server and two phones. Each begins with a byte for its direction: `<` server to
/// phone A, `>` phone A to server, `(` and `)` the same for phone B. `t` lets a minute pass instead.
pub fn packet(data: &[u8]) {
    let mut run = Run::new();
    for record in data.split(|b| *b == SEPARATOR) {
        let Some((kind, payload)) = record.split_first() else { continue };
        let (server, a, b) = (address("10.0.0.100:5060"), address("10.0.0.1:5060"), address("[2001:db8::2]:5070"));
        let (src, dst) = match kind {
            b'<' => (server, a),
            b'>' => (a, server),
            b'(' => (server, b),
            b')' => (b, server),
            b't' => {
                run.pass(Duration::from_secs(60));
                continue;
            }
            _ => continue,
        };
        run.hear(&Packet { src, dst, transport: Transport::Udp, payload });
    }
    run.finish();
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A table and its output so far.
pub struct Run {
    table: Table,
    vips: Vec<IpAddr>,
    stored: BTreeSet<String>,
    packets: u64,
    now: Time,
}

impl Run {
    /// A table for the server 10.0.0.100:5060.
    pub fn new() -> Self {
        let vips = vec!["10.0.0.100".parse().unwrap()];
        let settings = TableSettings {
            instance: "main".into(),
            node: "n1".into(),
            vips: vips.clone(),
            sip_ports: vec![5060],
            advertised: keepcall::sip::advertised::Advertised::default(),
            pair_header: Some("X-Pair".into()),
            emergency: vec!["112".into()],
            max_calls: MAX_CALLS,
        };
        Self { table: Table::new(settings), vips, stored: BTreeSet::new(), packets: 0, now: Time::ZERO }
    }

    /// Hands in a datagram twice: a retransmission, or the same datagram heard at another place, changes nothing.
    pub fn hear(&mut self, p: &Packet<'_>) {
        self.packets += 2;
        self.table.handle_packet(p, 1, self.now);
        self.drain();
        let before = snapshot(&self.table);
        self.table.handle_packet(p, 1, self.now);
        self.drain();
        assert_eq!(before, snapshot(&self.table), "heard twice, learnt twice: {}", show(p.payload));
        assert_eq!(self.table.counters().packets, self.packets);
        let up = self.table.legs().filter(|l| l.state == LegState::Confirmed).count();
        assert!(up <= ANSWERED && self.table.legs().count() <= ANSWERED + UNANSWERED);
        self.now += Duration::from_millis(20);
    }

    /// Lets time pass.
    pub fn pass(&mut self, by: Duration) {
        self.now += by;
        self.table.handle_timeout(self.now);
        self.drain();
        assert!(self.table.next_deadline().is_none_or(|at| at > self.now), "what is due is done");
    }

    /// Lets all timers run out. Nothing may be left then, neither in the table nor in its stored calls.
    pub fn finish(mut self) {
        let mut rounds = 0;
        while let Some(at) = self.table.next_deadline() {
            self.pass(at.since(self.now));
            rounds += 1;
            assert!(rounds < 100_000, "timers that never end");
        }
        let left: Vec<_> = self.table.calls().map(|c| c.id).collect();
        assert_eq!((self.table.legs().count(), left), (0, Vec::new()), "left for ever");
        assert_eq!(self.table.remembered(), 0, "an ended leg that is never forgotten");
        assert!(self.stored.is_empty(), "stored for ever: {:?}", self.stored);
    }

    fn drain(&mut self) {
        while let Some(event) = self.table.poll_event() {
            match event {
                CallEvent::Put(call) => {
                    self.consistent(&call);
                    self.stored.insert(call.id.clone());
                }
                CallEvent::Delete { id, reason } => {
                    assert!(!reason.is_empty());
                    self.stored.remove(&id);
                }
            }
        }
    }

    fn consistent(&self, call: &Call) {
        assert!((1..=2).contains(&call.legs.len()) && (call.legs.len() == 2) == call.pairing.is_some());
        assert!(call.id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        let json = serde_json::to_vec(call).unwrap();
        assert_eq!(serde_json::from_slice::<Call>(&json).unwrap(), *call, "a call is read as it was stored");
        for leg in &call.legs {
            // Of two parties, one may have hung up while the other does not know.
            assert!(leg.state == LegState::Confirmed || (leg.state == LegState::Ended && call.legs.len() == 2));
            assert!(!leg.call_id.0.is_empty() && self.vips.contains(&leg.local_addr.ip()));
            assert!(
                leg.partial
                    || !(leg.remote_tag.0.is_empty() || leg.local_tag.0.is_empty() || leg.remote_target.0.is_empty())
            );
            for d in [&leg.sdp_sent, &leg.sdp_received].into_iter().flatten() {
                let _ = Sdp::parse(&d.body.0);
            }
        }
        let ground = Ground { vips: self.vips.clone(), media_ports: (10_000, 20_000), ..Ground::default() };
        let _ = plan::paths_of(call, &ground);
        for side in 0..call.legs.len() {
            let offer = plan::offer_for(call, side, &ground);
            assert_eq!(offer.is_some(), call.legs[side].sdp_sent.is_some());
        }
    }
}

fn snapshot(table: &Table) -> Vec<String> {
    let mut all: Vec<String> = table.calls().map(|c| serde_json::to_string(&c).unwrap()).collect();
    all.extend(table.legs().map(|l| serde_json::to_string(l).unwrap()));
    all.sort();
    all
}
