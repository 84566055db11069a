//! Offers after the recovery: a hold passes from phone to phone, collides, is cancelled.

use super::scenarios::{both_hung_up, recovered};
use super::*;
use crate::calls::model::Call;
use crate::recovery::engine::{CallState, Outcome};
use std::time::Duration;

pub(super) fn changed(p: &Phone, version: u64, tail: &str) -> String {
    super::phone::sdp("ph", version, &p.addr.ip().to_string(), 4000, tail)
}

#[test]
fn hold_and_resume_reach_the_other_phone() {
    let (mut w, _) = recovered(15);
    for (version, tail) in [(9, "sendonly"), (10, "sendrecv")] {
        let body = changed(&w.phones[0], version, tail);
        w.phones[0].sdp.clone_from(&body);
        w.ask(0, "INVITE", &body);
        w.secs(2);
        assert_eq!(w.result(0), ("INVITE".into(), 200));
        let b = &w.phones[1];
        assert!(b.sdp_seen.contains(&format!("a={tail}")), "{}", b.sdp_seen);
        assert!(b.sdp_seen.contains("m=audio 10002 ") && b.sdp_seen.contains("c=IN IP4 10.9.0.100"));
        assert!(w.phones[0].sdp_seen.contains("m=audio 10000 "));
        assert_eq!(b.acked, b.accepted);
    }
    assert_eq!(w.phones[1].accepted, 3);
    assert!(w.engine.calls.values().all(|c| c.sides.iter().all(|s| s.served.iter().all(|r| !r.unacknowledged()))));
    w.ask(1, "BYE", "");
    w.secs(2);
    both_hung_up(&w);
}

#[test]
fn what_needs_no_other_phone_is_answered_here() {
    let (mut w, _) = recovered(17);
    // A refresh with the same description.
    let same = w.phones[0].sdp.clone();
    w.ask(0, "INVITE", &same);
    w.secs(1);
    assert_eq!(w.result(0), ("INVITE".into(), 200));
    // A late offer, answered in ACK.
    w.phones[0].late_answer = Some(changed(&w.phones[0], 30, "sendrecv"));
    w.ask(0, "INVITE", "");
    w.secs(1);
    assert_eq!(w.result(0), ("INVITE".into(), 200));
    let stored = &w.stored["call-00000"].legs[0];
    assert!(stored.sdp_received.as_ref().unwrap().body.lossy().contains(" 30 IN"));
    for (method, code) in [("UPDATE", 200), ("OPTIONS", 200), ("REFER", 405), ("FROB", 501), ("PRACK", 481)] {
        w.ask(0, method, "");
        w.secs(1);
        assert_eq!(w.result(0), (method.into(), code));
    }
    assert_eq!(w.phones[1].got, ["INVITE"], "the other phone hears nothing of it");
    // INFO is relayed.
    w.ask(0, "INFO", "Signal=5\r\n");
    w.secs(1);
    assert_eq!(w.result(0), ("INFO".into(), 200));
    assert_eq!(w.phones[1].got, ["INVITE", "INFO"]);
    // A new m-line has no port of ours. It is refused, and the rest goes on.
    let more = format!("{}m=video 4002 RTP/AVP 96\r\n", changed(&w.phones[0], 40, "sendrecv"));
    w.phones[0].late_answer = None;
    w.ask(0, "INVITE", &more);
    w.secs(1);
    assert_eq!(w.result(0), ("INVITE".into(), 200));
    assert!(w.phones[0].sdp_seen.contains("m=video 0 RTP/AVP 96") && !w.phones[1].sdp_seen.contains("video"));
    // An offer with fewer m-lines than before is none (RFC 3264 section 8).
    let fewer = changed(&w.phones[0], 41, "sendonly");
    w.ask(0, "INVITE", &fewer);
    w.secs(1);
    assert_eq!(w.result(0), ("INVITE".into(), 488));
    // UPDATE with an offer is relayed as UPDATE.
    let body = format!("{}m=video 0 RTP/AVP 96\r\n", changed(&w.phones[0], 42, "sendonly"));
    w.ask(0, "UPDATE", &body);
    w.secs(1);
    assert_eq!(w.result(0), ("UPDATE".into(), 200));
    assert_eq!(w.phones[1].got.last().unwrap(), "UPDATE");
}

#[test]
fn a_cancelled_hold_is_cancelled_at_the_other_phone() {
    let (mut w, _) = recovered(19);
    w.phones[1].answers.push_back(Answer::Ring);
    let body = changed(&w.phones[0], 9, "sendonly");
    w.ask(0, "INVITE", &body);
    w.secs(1);
    w.phones[0].cancel();
    w.drain();
    w.secs(2);
    assert_eq!(w.result(0), ("INVITE".into(), 487));
    assert!(w.sent.iter().any(|(_, to, b)| *to == w.phones[1].addr && b.starts_with(b"CANCEL")));
    assert_eq!(w.engine.status()[0].state, CallState::Carried);
    // The other phone's refusal comes back.
    w.phones[1].answers.push_back(Answer::Code(488, ""));
    let body = changed(&w.phones[0], 10, "sendonly");
    w.ask(0, "INVITE", &body);
    w.secs(1);
    assert_eq!(w.result(0), ("INVITE".into(), 488));
    w.ask(0, "BYE", "");
    w.secs(1);
    both_hung_up(&w);
}

#[test]
fn a_cancel_that_comes_too_late_is_undone() {
    let (mut w, _) = recovered(20);
    let before = w.phones[1].sdp_seen.clone();
    let body = changed(&w.phones[0], 9, "sendonly");
    w.ask(0, "INVITE", &body);
    w.run(Duration::from_millis(8));
    w.phones[0].cancel();
    w.drain();
    w.secs(3);
    assert_eq!(w.result(0), ("INVITE".into(), 487));
    let b = &w.phones[1];
    assert_eq!((b.accepted, b.acked), (3, 3), "recovered, held, and back");
    let tail = |s: &str| s.split_once("s=-").unwrap().1.to_owned();
    assert_eq!(tail(&b.sdp_seen), tail(&before));
    w.ask(1, "BYE", "");
    w.secs(1);
    both_hung_up(&w);
}

#[test]
fn silent_parties_do_not_hold_up_the_others() {
    let mut w = World::new(33, 2);
    let calls: Vec<Call> = (0..6).map(|n| w.b2bua(n)).collect();
    for p in &mut w.phones[..8] {
        p.answers.extend(std::iter::repeat_n(Answer::Nothing, 40));
    }
    w.start(calls);
    w.secs(6);
    assert_eq!(w.outcomes.len(), 2, "the last two, after two windows of silence");
    w.secs(90);
    assert_eq!(w.outcomes.values().filter(|o| **o == Outcome::Gone).count(), 4, "asked twice, and silent");
}

#[test]
fn two_offers_at_once_collide() {
    let (mut w, _) = recovered(21);
    let (a, b) = (changed(&w.phones[0], 9, "sendonly"), changed(&w.phones[1], 9, "sendonly"));
    w.ask(0, "INVITE", &a);
    w.ask(1, "INVITE", &b);
    w.secs(3);
    assert_eq!((w.result(0).1, w.result(1).1), (491, 491));
    // Overlapping INVITEs from one phone.
    w.phones[1].answers.push_back(Answer::Ring);
    let a2 = changed(&w.phones[0], 10, "sendonly");
    w.ask(0, "INVITE", &a2);
    w.secs(1);
    w.ask(0, "INVITE", &a2);
    w.secs(1);
    assert_eq!(w.result(0), ("INVITE".into(), 500));
}

#[test]
fn an_open_update_keeps_other_offers_out() {
    let (mut w, _) = recovered(22);
    w.phones[1].answers.push_back(Answer::Nothing);
    let body = |w: &World, v| changed(&w.phones[0], v, "sendonly");
    let (first, second) = (body(&w, 9), body(&w, 10));
    w.ask(0, "UPDATE", &first);
    w.run(Duration::from_millis(50));
    w.ask(0, "UPDATE", &second);
    w.run(Duration::from_millis(100));
    assert_eq!(w.result(0), ("UPDATE".into(), 500));
    w.ask(0, "INVITE", &second);
    w.run(Duration::from_millis(100));
    assert_eq!(w.result(0), ("INVITE".into(), 500));
    let theirs = changed(&w.phones[1], 9, "sendonly");
    w.ask(1, "INVITE", &theirs);
    w.run(Duration::from_millis(100));
    assert_eq!(w.result(1), ("INVITE".into(), 491), "our UPDATE is open there");
    w.secs(2);
    assert_eq!(w.result(0), ("UPDATE".into(), 200), "the second sending was answered");
    assert!(w.phones[1].sdp_seen.contains("a=sendonly"));
}
