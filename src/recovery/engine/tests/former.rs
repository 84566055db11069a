//! What the former server left open, and what phones say before the agent knows the calls.

use super::world::{World, agent, server, settings};
use crate::recovery::engine::{Action, Engine, Origin};
use crate::sip::Transport;
use crate::time::Time;
use crate::wire::Packet;
use std::net::SocketAddr;

fn accepted(addr: SocketAddr, to: SocketAddr, cseq: u32) -> String {
    format!(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {to};branch=z9hG4bKold{cseq}\r\nFrom: <sip:alice@p>;tag=s2\r\n\
         To: Bob <sip:bob@p>;tag=b\r\nCall-ID: b0@x\r\nCSeq: {cseq} INVITE\r\nContact: <sip:u@{addr};v=9>\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// Phone 1's 200 to an INVITE of the former server, with this number.
fn accepts(w: &mut World, cseq: u32, heard: Origin) -> Vec<String> {
    let addr = w.phones[1].addr;
    let to = if heard == Origin::Overheard { server() } else { agent() };
    let ok = accepted(addr, to, cseq);
    let p = Packet { src: addr, dst: to, transport: Transport::Udp, payload: ok.as_bytes() };
    assert!(w.engine.handle_packet(&p, heard, w.now));
    let mut sent = Vec::new();
    while let Some(action) = w.engine.poll_action() {
        if let Action::Send { to, payload, .. } = action {
            assert_eq!(to, addr);
            sent.push(String::from_utf8(payload).unwrap());
        }
    }
    sent
}

#[test]
fn a_2xx_to_an_invite_of_the_former_server_gets_its_ack() {
    for heard in [Origin::Overheard, Origin::RecoveryPort] {
        let mut w = World::new(2, 50);
        let call = w.b2bua(0);
        w.start(vec![call]);
        w.secs(1);
        let sent = accepts(&mut w, 102, heard);
        assert!(sent.len() == 1 && sent[0].starts_with("ACK ") && sent[0].contains("CSeq: 102 ACK\r\n"), "{sent:?}");
        assert!(!sent[0].contains("z9hG4bKold"), "the ACK of a 2xx is a transaction of its own");
        assert_eq!(accepts(&mut w, 102, heard), sent, "and the same for each retransmission");
        assert!(accepts(&mut w, 5_000, heard).is_empty(), "nobody of this dialog sent that");
    }
}

#[test]
fn the_number_of_an_invite_that_was_not_stored_in_time_is_not_used_again() {
    let mut w = World::new(3, 50);
    let call = w.b2bua(0);
    w.start(vec![call]);
    w.secs(1);
    // A hundred numbers above the last one: the next is the first that the phone has not seen.
    let last = w.stored["call-00000"].legs[1].local_cseq.unwrap();
    w.phones[1].peer_cseq = Some(last + 99);
    w.phones[1].steady = false;
    let addr = w.phones[1].addr;
    let ok = accepted(addr, server(), last + 99);
    let p = Packet { src: addr, dst: server(), transport: Transport::Udp, payload: ok.as_bytes() };
    // The phone itself does not know this INVITE.
    w.phones[1].dead = true;
    assert!(w.engine.handle_packet(&p, Origin::Overheard, w.now));
    w.drain();
    w.run(std::time::Duration::from_millis(100));
    assert!(w.sent.iter().any(|(_, to, b)| *to == addr && b.starts_with(b"ACK ")));
    w.phones[1].dead = false;
    w.secs(2);
    assert_eq!(w.phones[1].accepted, 2, "it is told what is stored, because nobody knows what it has accepted");
    w.ask(0, "BYE", "");
    w.secs(2);
    assert_eq!(w.phones[1].byes, 1);
}

#[test]
fn nothing_is_answered_before_the_stored_calls_are_read() {
    let mut e = Engine::new(settings(50), 1);
    let text = "UPDATE sip:srv@10.9.0.100:5070 SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.0.1:5060;branch=z9hG4bKu\r\n\
                From: <sip:alice@p>;tag=a\r\nTo: <sip:bob@p>;tag=s1\r\nCall-ID: a0@x\r\nCSeq: 50 UPDATE\r\n\r\n";
    let src = "10.1.0.1:5060".parse().unwrap();
    let p = Packet { src, dst: agent(), transport: Transport::Udp, payload: text.as_bytes() };
    e.handle_packet(&p, Origin::RecoveryPort, Time::from_millis(5));
    assert_eq!(e.poll_action(), None);
    e.set_complete();
    e.handle_packet(&p, Origin::RecoveryPort, Time::from_millis(505));
    let Some(Action::Send { payload, .. }) = e.poll_action() else { panic!("no answer") };
    assert!(payload.starts_with(b"SIP/2.0 481 "));
}
