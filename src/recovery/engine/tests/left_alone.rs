//! Calls that the agent sends nothing into: what is unknown about a call is no evidence against it.

use super::world::{World, server};
use crate::calls::model::{Call, Gap, Gaps};
use crate::config::Mode;
use crate::recovery::engine::{CallState, Origin, Outcome};
use crate::sip::Transport;
use crate::wire::Packet;

type Change = fn(&mut Call);

fn other_codecs(call: &mut Call) {
    for (leg, pt) in call.legs.iter_mut().zip(["0", "8"]) {
        let leg = &mut **leg;
        for d in [&mut leg.sdp_sent, &mut leg.sdp_received] {
            let body = &mut d.as_mut().unwrap().body;
            *body = body.lossy().replace("RTP/AVP 0 8 101", &format!("RTP/AVP {pt}")).as_str().into();
        }
    }
}

fn alone(call: &mut Call) {
    call.legs.pop();
    call.pairing = None;
}

/// Each kind of call that gets no re-INVITE, its outcome with this mode, and the number of its relay paths.
const KINDS: [(Change, &str, usize); 6] = [
    (alone, "unpaired", 0),
    (other_codecs, "refused", 0),
    (|call| call.legs[0].partial = true, "relayed", 4),
    (|call| call.legs[1].transport = Transport::Tcp, "relayed", 4),
    (|call| call.legs[1].transport = Transport::Tls, "relayed", 4),
    (
        |call| {
            alone(call);
            call.legs[0].gaps = Gaps::default().with(Gap::Partner);
            call.legs[0].partial = true;
        },
        "left",
        0,
    ),
];

fn kind(outcome: &Outcome) -> String {
    let json = serde_json::to_value(outcome).unwrap();
    json.as_str().map(str::to_owned).unwrap_or_else(|| json.as_object().unwrap().keys().next().unwrap().clone())
}

#[test]
fn nothing_is_sent_into_a_call_without_evidence_and_its_audio_stays() {
    for (n, (change, outcome, flows)) in KINDS.into_iter().enumerate() {
        let mut w = World::new(25, 50);
        w.talks = [true; 2];
        let mut call = w.b2bua(0);
        change(&mut call);
        w.start(vec![call]);
        w.secs(3600);
        assert_eq!(kind(&w.outcomes["call-00000"]), outcome, "{n}");
        assert_eq!(w.flows.get("call-00000").map_or(0, Vec::len), flows, "{n}");
        assert!(w.sent.is_empty(), "{n}: {:?}", w.sent);
        assert_eq!(w.stored.len(), 1, "{n}: a call that may live is shown");
        let expected = if flows == 0 { CallState::Left } else { CallState::Relayed };
        assert_eq!(w.engine.status()[0].state, expected, "{n}");
    }
}

#[test]
fn when_a_party_hangs_up_the_other_is_told_if_it_can_be() {
    // Over TLS, only the server's report shows the BYE.
    for (n, (change, _, flows)) in KINDS.into_iter().enumerate() {
        for heard in [Origin::Overheard, Origin::Reported] {
            one_party_hangs_up(n, change, flows, heard);
        }
    }
}

fn one_party_hangs_up(n: usize, change: Change, flows: usize, heard: Origin) {
    let mut w = World::new(26, 50);
    w.talks = [true; 2];
    let mut call = w.b2bua(0);
    change(&mut call);
    let told = call.legs.get(1).is_some_and(|l| l.transport == Transport::Udp && !l.partial);
    w.start(vec![call.clone()]);
    w.secs(10);
    let leg = &call.legs[0];
    let text = format!(
        "BYE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.0.1;branch=z9hG4bKb\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\n\
         CSeq: 700 BYE\r\nContent-Length: 0\r\n\r\n",
        leg.remote.lossy(),
        leg.local.lossy(),
        leg.call_id.lossy()
    );
    let (src, dst) = (leg.remote_addr, server());
    let p = Packet { src, dst, transport: Transport::Udp, payload: text.as_bytes() };
    assert!(w.engine.handle_packet(&p, heard, w.now));
    w.drain();
    w.secs(40);
    assert_eq!((w.phones[0].byes, w.phones[1].byes), (0, u32::from(told)), "{n}");
    assert!(w.stored.is_empty(), "{n}");
    assert!(flows == 0 || w.flows["call-00000"].is_empty(), "{n}");
}

#[test]
fn a_relayed_call_without_audio_for_a_minute_is_over() {
    for emergency in [false, true] {
        for held in [false, true] {
            let mut w = World::new(27, 50);
            let mut call = w.b2bua(0);
            call.legs[0].partial = true;
            call.emergency = emergency;
            if held {
                let leg = &mut *call.legs[0];
                let body = &mut leg.sdp_received.as_mut().unwrap().body;
                *body = body.lossy().replace("a=sendrecv", "a=sendonly").as_str().into();
            }
            w.start(vec![call]);
            w.secs(50);
            assert_eq!(w.stored.len(), 1);
            w.secs(20);
            let kept = emergency || held;
            assert_eq!((w.stored.len(), w.phones[1].byes), (usize::from(kept), u32::from(!kept)), "{emergency} {held}");
            assert_eq!(w.phones[0].byes, 0, "no correct request can be sent to it");
        }
    }
}

#[test]
fn a_proxied_call_belongs_to_the_new_server() {
    for (through_server, mode) in [false, true].into_iter().flat_map(|t| Mode::ALL.map(|mode| (t, mode))) {
        let mut w = World::new(5, 50);
        w.engine.set_mode(mode, w.now);
        let call = w.proxied(0, through_server);
        w.start(vec![call]);
        w.secs(600);
        assert!(w.sent.is_empty(), "{:?}", w.sent);
        assert_eq!(w.outcomes["call-00000"], Outcome::Proxied);
        assert_eq!(w.handed_on, ["call-00000"]);
        assert_eq!(w.flows.get("call-00000").map_or(0, Vec::len), if through_server && mode.relays() { 4 } else { 0 });
        assert!(!w.engine.carries("call-00000"), "its messages are the tracker's");
    }
}
