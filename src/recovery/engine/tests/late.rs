//! Phones that accept after the agent has given up.

use super::Answer;
use super::offers::changed;
use super::scenarios::{both_hung_up, recovered};
use super::world::{World, agent};
use crate::recovery::engine::{CallState, Origin, Outcome};
use crate::sip::Transport;
use crate::sip::message::{Message, Name};
use crate::wire::Packet;

fn stored_is_seen(w: &World, side: usize) {
    let (leg, phone) = (&w.stored["call-00000"].legs[side], &w.phones[side]);
    assert_eq!(leg.sdp_sent.as_ref().unwrap().body.lossy(), phone.sdp_seen, "the store shows what the phone has");
    assert_eq!(leg.sdp_received.as_ref().unwrap().body.lossy(), phone.sdp);
    assert_eq!((phone.acked, phone.all_acked()), (phone.accepted, true));
}

#[test]
fn a_phone_that_accepts_after_we_gave_up_is_recovered() {
    for (seconds, talks) in [(33, [false; 2]), (35, [true; 2]), (40, [false; 2])] {
        let mut w = World::new(14, 50);
        w.talks = talks;
        let call = w.b2bua(0);
        w.phones[1].answers.push_back(Answer::Late(seconds));
        w.start(vec![call]);
        w.run(std::time::Duration::from_millis(32_500));
        assert!(w.outcomes.is_empty(), "silence is a doubt");
        w.secs(20);
        assert_eq!(w.outcomes["call-00000"], Outcome::Recovered, "{seconds}");
        assert_eq!(w.phones[1].accepted, 1, "{seconds}: and nobody is asked again");
        stored_is_seen(&w, 0);
        stored_is_seen(&w, 1);
        w.ask(0, "BYE", "");
        w.secs(5);
        both_hung_up(&w);
    }
}

fn tail(description: &str) -> String {
    description.split_once("s=-").unwrap().1.to_owned()
}

#[test]
fn a_hold_that_was_accepted_too_late_is_undone() {
    for seconds in [33, 38, 42] {
        let (mut w, _) = recovered(15);
        w.talks = [true; 2];
        w.phones[1].answers.push_back(Answer::Late(seconds));
        let before = w.phones[1].sdp_seen.clone();
        let body = changed(&w.phones[0], 9, "sendonly");
        w.ask(0, "INVITE", &body);
        w.phones[1].steady = false;
        w.secs(seconds + 1);
        assert_eq!(w.engine.status()[0].state, CallState::Carried, "{seconds}");
        let b = &w.phones[1];
        assert_eq!((b.accepted, b.got.len()), (3, 3), "{seconds}: recovered, held too late, and undone at once");
        assert_eq!(tail(&b.sdp_seen), tail(&before), "{seconds}: its party still talks");
        stored_is_seen(&w, 1);
    }
}

#[test]
fn when_nobody_knows_which_exchange_came_last_the_session_is_stated_again() {
    let (mut w, _) = recovered(18);
    w.talks = [true; 2];
    w.phones[1].missed = 1;
    w.phones[1].answers.extend(vec![Answer::Nothing; 7]);
    let before = w.phones[1].sdp_seen.clone();
    let body = changed(&w.phones[0], 9, "sendonly");
    w.ask(0, "INVITE", &body);
    w.secs(33);
    w.phones[1].answers.clear();
    // The phone refreshes the session meanwhile.
    let same = w.phones[1].sdp.clone();
    w.ask(1, "INVITE", &same);
    w.secs(1);
    assert_eq!(w.result(1), ("INVITE".into(), 200));
    let addr = w.phones[1].addr;
    let invite = w.sent.iter().rev().find(|(_, to, b)| *to == addr && b.starts_with(b"INVITE")).unwrap().2.clone();
    let m = Message::parse(&invite).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let answer = changed(&w.phones[1], 5, "recvonly");
    let ok = format!(
        "SIP/2.0 200 OK\r\nVia: {}\r\nFrom: {}\r\nTo: {}\r\nCall-ID: b0@x\r\nCSeq: {} INVITE\r\nContact: <sip:u@{addr}>\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{answer}",
        text(m.header(Name::Via).unwrap()),
        text(m.from()),
        text(m.to()),
        m.cseq().0,
        answer.len()
    );
    // The phone itself does not know of its late answer.
    w.phones[1].dead = true;
    let p = Packet { src: addr, dst: agent(), transport: Transport::Udp, payload: ok.as_bytes() };
    let sent = w.sent.len();
    assert!(w.engine.handle_packet(&p, Origin::RecoveryPort, w.now));
    w.drain();
    w.run(std::time::Duration::from_millis(100));
    assert!(w.sent[sent].2.starts_with(b"ACK "));
    w.phones[1].dead = false;
    w.secs(2);
    assert_eq!(tail(&w.phones[1].sdp_seen), tail(&before));
    assert_eq!(w.phones[1].accepted, 2, "recovered, and asked again");
    stored_is_seen(&w, 1);
}

#[test]
fn a_phone_that_missed_its_bye_and_accepts_an_old_offer_gets_another_bye() {
    let (mut w, _) = recovered(16);
    w.phones[1].answers.push_back(Answer::Late(45));
    w.phones[1].steady = false;
    let body = changed(&w.phones[0], 9, "sendonly");
    w.ask(0, "INVITE", &body);
    w.secs(1);
    w.ask(0, "BYE", "");
    w.phones[1].dead = true;
    w.secs(40);
    w.phones[1].dead = false;
    assert_eq!(w.phones[1].byes, 0);
    w.secs(10);
    let b = &w.phones[1];
    assert_eq!((b.byes, b.all_acked(), b.ended), (1, true, true), "{:?}", b.got);
}

#[test]
fn the_memory_of_given_up_offers_is_bounded() {
    let (mut w, _) = recovered(17);
    w.talks = [true; 2];
    w.phones[1].answers.extend(vec![Answer::Nothing; 1000]);
    for version in 0..30 {
        w.phones[0].dead = true;
        let body = changed(&w.phones[0], 9 + version, ["sendonly", "sendrecv"][usize::from(version % 2 == 1)]);
        w.ask(0, "INVITE", &body);
        w.secs(200);
        for call in w.engine.calls.values() {
            assert!(call.sides.iter().all(|s| s.acked.len() <= crate::recovery::call::MAX_ACKED));
        }
    }
    w.secs(600);
    assert!(w.engine.calls.values().all(|c| c.sides.iter().all(|s| s.acked.is_empty())), "and ends");
}
