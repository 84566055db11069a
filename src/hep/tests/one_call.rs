//! One call seen on the wire and reported by HEP stays one call, however late and shuffled the reports are.

use super::encode;
use crate::calls::model::{Call, CallEvent, LegState};
use crate::calls::table::script::{A, B, By, Dialog, Phone, Server, settings};
use crate::calls::table::{Table, TableSettings};
use crate::hep::Reorder;
use crate::hep::intake::{Intake, IntakeResult, Rules};
use crate::sip::Transport;
use crate::time::Time;
use crate::wire::Packet;
use proptest::prelude::*;
use std::net::SocketAddr;

/// Source of the server's packets on the wire: its second floating address.
const WIRE: &str = "10.0.0.101:5060";
/// The server's reported address: it is bound to all, which stands for the first floating address.
const CLAIMED: &str = "0.0.0.0:5060";

type Message = (By, String, String);

/// A B2BUA call with a re-INVITE, each message with its time in ms after the start, hung up by the callee.
fn script() -> Vec<(u64, Message)> {
    let (i, o) = (Dialog::new("in", A, false, "1000", "2000"), Dialog::new("out", B, true, "1000", "2000"));
    let again = "X-In-Dialog: 1\r\n";
    vec![
        (0, i.request(Phone, "INVITE", 1, "", "offer")),
        (2, i.response(Server, 100, "INVITE", 1, "", "")),
        (5, o.request(Server, "INVITE", 1, "", "offer")),
        (30, o.response(Phone, 180, "INVITE", 1, "", "")),
        (32, i.response(Server, 180, "INVITE", 1, "", "")),
        (1500, o.response(Phone, 200, "INVITE", 1, "", "answer")),
        (1502, o.request(Server, "ACK", 1, "", "")),
        (1505, i.response(Server, 200, "INVITE", 1, "", "answer")),
        (1540, i.request(Phone, "ACK", 1, "", "")),
        (4000, i.request(Phone, "INVITE", 2, again, "new-offer")),
        (4003, i.response(Server, 200, "INVITE", 2, "", "new-answer")),
        (4030, i.request(Phone, "ACK", 2, "", "")),
        (9000, o.request(Phone, "BYE", 5, "", "")),
        (9002, o.response(Server, 200, "BYE", 5, "", "")),
        (9004, i.request(Server, "BYE", 7, "", "")),
        (9030, i.response(Phone, 200, "BYE", 7, "", "")),
    ]
}

fn ends(by: By, phone: &str, server: &str) -> (SocketAddr, SocketAddr) {
    let (phone, server): (SocketAddr, SocketAddr) = (phone.parse().unwrap(), server.parse().unwrap());
    if by == Phone { (phone, server) } else { (server, phone) }
}

/// The reported state of each call at each change, and its end.
#[derive(Debug, Default, PartialEq)]
struct Told {
    puts: Vec<Call>,
    deleted: Vec<String>,
    unknown: u64,
}

impl Told {
    /// The states as etcd would hold them: a repeated state counts once.
    fn states(&self) -> Vec<&Call> {
        let mut states: Vec<&Call> = self.puts.iter().collect();
        states.dedup();
        states
    }
}

/// Plays the script on the wire, except the messages in `missed`, and by HEP with a delay for each message.
fn play(wire: bool, missed: &[usize], delays: Option<&[u64]>, transport: Transport) -> Told {
    let vips = || vec!["10.0.0.100".parse().unwrap(), "10.0.0.101".parse().unwrap()];
    let mut table = Table::new(TableSettings { vips: vips(), ..settings() });
    let rules =
        Rules { key: None, from: None, vips: vips(), server: vec!["0.0.0.0".parse().unwrap()], sip_ports: vec![5060] };
    let (mut intake, mut patience, mut told) = (Intake::new(rules), Reorder::default(), Told::default());
    let script = script();
    for ms in 0..12_000 {
        let now = Time::from_millis(1_000 + ms);
        for (n, (at, (by, phone, text))) in script.iter().enumerate() {
            if wire && *at == ms && !missed.contains(&n) {
                let (src, dst) = ends(*by, phone, WIRE);
                table.handle_packet(
                    &Packet { src, dst, transport: Transport::Udp, payload: text.as_bytes() },
                    1_700_000_000_000,
                    now,
                );
            }
            if let Some(delays) = delays
                && at + delays[n % delays.len()] == ms
            {
                let (src, dst) = ends(*by, phone, CLAIMED);
                let (number, text) = match transport {
                    Transport::Tls => (22, text.replace("SIP/2.0/UDP", "SIP/2.0/TLS")),
                    _ => (17, text.clone()),
                };
                let taken = intake.take(
                    &encode::kamailio3(src, dst, number, None, text.as_bytes()),
                    [127, 0, 0, 1].into(),
                    now,
                );
                let IntakeResult::Report(report) = taken else { panic!("{taken:?}") };
                patience.push(report, now);
            }
        }
        while let Some(r) = patience.pop(now) {
            let packet = Packet { src: r.src, dst: r.dst, transport: r.transport, payload: &r.payload };
            table.handle_packet(&packet, 1_700_000_000_000, now);
        }
        table.handle_timeout(now);
        while let Some(event) = table.poll_event() {
            match event {
                CallEvent::Put(call) => told.puts.push(*call),
                CallEvent::Delete { id, .. } => told.deleted.push(id),
            }
        }
    }
    assert_eq!((table.legs().count(), table.calls().count()), (0, 0));
    told.unknown = table.counters().unknown_dialog;
    told
}

#[test]
fn by_the_wire_alone_it_is_one_call() {
    let told = play(true, &[], None, Transport::Udp);
    assert_eq!((told.deleted.len(), told.unknown), (1, 0));
    let last = told.puts.last().unwrap();
    assert_eq!((last.legs.len(), last.id == told.deleted[0]), (2, true));
    assert!(last.legs.iter().all(|l| l.local_addr == WIRE.parse().unwrap()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn reports_late_and_shuffled_change_nothing(delays in proptest::collection::vec(0_u64..=300, 16)) {
        let alone = play(true, &[], None, Transport::Udp);
        let both = play(true, &[], Some(&delays), Transport::Udp);
        // Every reported state has the addresses of the wire.
        prop_assert_eq!(both.states(), alone.states());
        prop_assert_eq!((both.deleted, both.unknown), (alone.deleted, alone.unknown));
    }
}

/// One message that the capture missed, whichever it is: the legs are as complete as without the loss. Without the very
/// first message the order of the INVITEs is no longer evidence for the pairing.
#[test]
fn a_report_fills_in_what_the_wire_lost() {
    let alone = play(true, &[], None, Transport::Udp);
    let leg = |told: &Told, call_id: &str| {
        let all = told.puts.iter().rev().flat_map(|c| c.legs.clone());
        let mut leg = all.into_iter().find(|l| l.call_id == call_id.as_bytes().into()).unwrap();
        leg.local_addr.set_ip("10.0.0.101".parse().unwrap());
        // A leg that is briefly a call of its own shows the BYE that ends it.
        leg.local_cseq = leg.local_cseq.filter(|n| *n < 7);
        // So does a leg of a call whose other party has not been told yet.
        if leg.state == LegState::Ended {
            leg.state = LegState::Confirmed;
            leg.remote_cseq = leg.remote_cseq.filter(|n| *n < 5);
        }
        leg
    };
    for missed in 0..script().len() {
        let both = play(true, &[missed], Some(&[20]), Transport::Udp);
        assert!(!both.deleted.is_empty(), "without message {missed}");
        if script()[missed].0 >= 9000 {
            // From the first BYE on the call only ends, which `play` checks.
            continue;
        }
        for call_id in ["in", "out"] {
            assert_eq!(leg(&both, call_id), leg(&alone, call_id), "without message {missed}");
        }
        let whole = both.puts.last().unwrap().legs.len();
        assert_eq!(whole, if missed == 0 { 1 } else { 2 }, "without message {missed}");
    }
}

#[test]
fn by_hep_alone_it_is_the_same_call_over_tls() {
    // In the second, all responses slightly overtake their requests.
    for delays in [vec![0; 16], vec![20, 0, 20, 5, 0, 0, 20, 0, 20, 20, 0, 20, 20, 0, 20, 0]] {
        let told = play(false, &[], Some(&delays), Transport::Tls);
        assert_eq!((told.deleted.len(), told.unknown), (1, 0));
        let last = told.puts.last().unwrap();
        assert_eq!((last.legs.len(), last.id == told.deleted[0]), (2, true));
        let bodies: Vec<String> =
            last.legs.iter().map(|l| l.sdp_sent.as_ref().unwrap().body.lossy().to_string()).collect();
        assert!(bodies[0].contains("new-answer") && bodies[1].contains("s=offer"), "{bodies:?}");
        assert!(
            last.legs
                .iter()
                .all(|l| l.transport == Transport::Tls && l.local_addr == "10.0.0.100:5060".parse().unwrap())
        );
    }
}
