//! A phone that resumes by an INVITE without a description.

use super::Answer;
use super::offers::changed;
use super::scenarios::{both_hung_up, recovered};
use super::world::World;
use crate::recovery::engine::CallState;

/// A call whose first phone holds, or whose second does.
fn held(by: usize) -> World {
    let (mut w, _) = recovered(6);
    let body = changed(&w.phones[by], 9, "sendonly");
    w.phones[by].sdp.clone_from(&body);
    w.ask(by, "INVITE", &body);
    w.secs(2);
    assert!(w.phones[1 - by].sdp_seen.contains("a=sendonly"));
    w
}

/// Phone 0 asks for an offer, and answers it with this direction.
fn asks(w: &mut World, answer: Option<&str>) {
    let answer = answer.map(|tail| changed(&w.phones[0], 10, tail));
    if let Some(answer) = &answer {
        w.phones[0].sdp.clone_from(answer);
    }
    w.phones[0].late_answer = answer;
    w.ask(0, "INVITE", "");
    w.secs(3);
    w.phones[0].late_answer = None;
    assert_eq!(w.result(0), ("INVITE".into(), 200));
}

fn stored_is_seen(w: &World) {
    for (leg, phone) in w.stored["call-00000"].legs.iter().zip(&w.phones) {
        assert_eq!(leg.sdp_sent.as_ref().unwrap().body.lossy(), phone.sdp_seen);
        assert_eq!(leg.sdp_received.as_ref().unwrap().body.lossy(), phone.sdp);
        assert!(phone.all_acked());
    }
}

#[test]
fn the_other_phone_hears_of_a_resume_without_a_description() {
    let mut w = held(0);
    asks(&mut w, Some("sendrecv"));
    let (_, _, offer) = w.phones[0].results.last().unwrap();
    assert!(String::from_utf8_lossy(offer).contains("a=sendrecv"), "nobody can answer a hold with its end");
    for phone in &w.phones {
        assert!(phone.sdp_seen.contains("a=sendrecv"), "{}", phone.sdp_seen);
    }
    assert_eq!(w.phones[1].accepted, 3, "recovered, held and resumed");
    stored_is_seen(&w);
    w.ask(1, "BYE", "");
    w.secs(2);
    both_hung_up(&w);
}

#[test]
fn a_phone_that_only_refreshes_its_hold_changes_nothing() {
    let mut w = held(0);
    asks(&mut w, Some("sendonly"));
    assert_eq!(w.phones[1].accepted, 2);
    assert!(w.phones[1].sdp_seen.contains("a=sendonly"));
}

#[test]
fn the_hold_of_the_other_phone_is_not_ended() {
    let mut w = held(1);
    asks(&mut w, Some("recvonly"));
    assert!(w.phones[0].sdp_seen.contains("a=sendonly"), "{}", w.phones[0].sdp_seen);
    assert_eq!(w.phones[1].accepted, 1, "it hears nothing of that");
}

#[test]
fn a_refused_resume_is_told_to_the_phone_that_asked() {
    for refusal in [vec![Answer::Code(488, "")], vec![Answer::Nothing; 7]] {
        let mut w = held(0);
        w.talks = [true; 2];
        w.phones[1].missed = 1;
        w.phones[1].answers.extend(refusal.clone());
        asks(&mut w, Some("sendrecv"));
        w.secs(60);
        assert!(w.phones[1].sdp_seen.contains("a=sendonly"), "{refusal:?}");
        assert!(w.phones[0].sdp_seen.contains("a=recvonly"), "{refusal:?}: {}", w.phones[0].sdp_seen);
        assert_eq!(w.engine.status()[0].state, CallState::Carried);
    }
}

#[test]
fn a_resume_that_collides_is_tried_again() {
    let mut w = held(0);
    w.phones[1].answers.push_back(Answer::Code(491, ""));
    asks(&mut w, Some("sendrecv"));
    w.secs(5);
    assert!(w.phones[1].sdp_seen.contains("a=sendrecv"));
    stored_is_seen(&w);
}

#[test]
fn an_ack_without_the_answer_leaves_the_session_as_it_was() {
    let mut w = held(0);
    asks(&mut w, None);
    w.secs(3);
    assert!(w.phones[0].sdp_seen.contains("a=recvonly"), "{}", w.phones[0].sdp_seen);
    assert_eq!((w.phones[0].accepted, w.phones[1].accepted), (2, 2), "told again what was before");
    let stored = w.stored["call-00000"].legs[0].sdp_sent.as_ref().unwrap().body.lossy();
    assert_eq!(stored, w.phones[0].sdp_seen);
}

#[test]
fn an_answer_that_never_comes_blocks_nothing() {
    let mut w = held(0);
    w.phones[0].missed = 1;
    w.ask(0, "INVITE", "");
    w.phones[0].dead = true;
    w.secs(40);
    w.phones[0].dead = false;
    w.secs(10);
    let body = changed(&w.phones[0], 11, "sendrecv");
    w.ask(0, "INVITE", &body);
    w.secs(3);
    assert_eq!(w.result(0), ("INVITE".into(), 200));
    assert!(w.phones[1].sdp_seen.contains("a=sendrecv"));
}
