//! Phones that move, hide behind a NAT, or do not raise a version.

use super::offers::changed;
use super::scenarios::recovered;
use super::world::{World, agent};
use crate::calls::model::Direction;
use crate::recovery::engine::{Action, Origin};
use crate::sip::Transport;
use crate::wire::Packet;
use std::net::SocketAddr;

/// What the engine sends after this message: destination and bytes.
fn say(w: &mut World, src: SocketAddr, text: &str) -> Vec<(SocketAddr, String)> {
    let p = Packet { src, dst: agent(), transport: Transport::Udp, payload: text.as_bytes() };
    assert!(w.engine.handle_packet(&p, Origin::RecoveryPort, w.now));
    let mut sent = Vec::new();
    while let Some(action) = w.engine.poll_action() {
        if let Action::Send { to, payload, .. } = action {
            sent.push((to, String::from_utf8(payload).unwrap()));
        }
    }
    sent
}

#[test]
fn a_phone_that_roams_is_reached_where_it_is() {
    let (mut w, _) = recovered(9);
    let new: SocketAddr = "10.99.0.7:5060".parse().unwrap();
    // Without a route set the phone itself is the next hop.
    let head = "From: Bob <sip:bob@p>;tag=b\r\nTo: <sip:alice@p>;tag=s2\r\nCall-ID: b0@x";
    let refresh = format!(
        "UPDATE sip:srv@10.9.0.100:5070 SIP/2.0\r\nVia: SIP/2.0/UDP {new};branch=z9hG4bKroam\r\n{head}\r\nCSeq: 50 UPDATE\r\n\
         Contact: <sip:u@{new}>\r\nContent-Length: 0\r\n\r\n"
    );
    let sent = say(&mut w, new, &refresh);
    assert!(sent.len() == 1 && sent[0].0 == new && sent[0].1.starts_with("SIP/2.0 200"), "{sent:?}");
    w.phones[0].ask("BYE", "", "", w.now);
    let (_, bye) = w.phones[0].out.pop().unwrap();
    let src = w.phones[0].addr;
    let sent = say(&mut w, src, &String::from_utf8(bye).unwrap());
    assert!(sent.iter().any(|(to, text)| *to == new && text.starts_with("BYE ")), "{sent:?}");
}

#[test]
fn a_hold_without_a_new_version_reaches_the_other_phone() {
    let (mut w, _) = recovered(8);
    let known = w.stored["call-00000"].legs[0].sdp_received.as_ref().unwrap().body.lossy();
    w.ask(0, "INVITE", &known);
    w.secs(2);
    assert_eq!((w.result(0).1, w.phones[1].got.len()), (200, 1), "an unchanged description is only a refresh");
    w.ask(0, "INVITE", &known.replace("a=sendrecv", "a=sendonly"));
    w.secs(2);
    assert_eq!(w.result(0).1, 200);
    assert!(w.phones[1].sdp_seen.contains("a=sendonly"), "{}", w.phones[1].sdp_seen);
}

#[test]
fn a_phone_behind_a_nat_keeps_its_audio_after_a_hold_in_the_old_style() {
    let mut w = World::new(7, 50);
    let mut call = w.b2bua(0);
    let seen: SocketAddr = "203.0.113.5:61000".parse().unwrap();
    w.phones[0].addr = SocketAddr::new(seen.ip(), 5060);
    w.phones[0].sdp = w.phones[0].sdp.replace("10.1.0.1", "203.0.113.5");
    call.legs[0] = w.phones[0].leg(Direction::Inbound).into();
    call.legs[0].rtp_sources = vec![Some(seen)];
    w.start(vec![call]);
    w.secs(2);
    let from_nat = |w: &World| w.flows["call-00000"].iter().any(|f| f.from == seen);
    assert!(from_nat(&w));
    for (version, address) in [(9, "0.0.0.0"), (10, "203.0.113.5")] {
        let body = changed(&w.phones[0], version, "sendrecv");
        let line = body.lines().find(|l| l.starts_with("c=")).unwrap().to_owned();
        let body = body.replace(&line, &format!("c=IN IP4 {address}"));
        w.ask(0, "INVITE", &body);
        w.secs(2);
        assert_eq!(w.result(0).1, 200);
    }
    assert!(from_nat(&w), "{:?}", w.flows);
}
