//! What is told of a recovered call's audio: what the relay has counted, and no more.

use super::world::{World, settings};
use crate::calls::model::Call;
use crate::recovery::engine::{CallState, Counted, Engine, Outcome};
use crate::recovery::types::Fault;

fn takeover(talks: [bool; 2], fault: Option<Fault>, change: impl FnOnce(&mut World, &mut Call)) -> World {
    let mut w = World::new(61, 50);
    let mut s = settings(50);
    s.fault = fault;
    w.engine = Engine::new(s, 61);
    w.talks = talks;
    let mut call = w.b2bua(0);
    change(&mut w, &mut call);
    w.start(vec![call]);
    w
}

fn counted(w: &World) -> Option<Counted> {
    assert_eq!(w.outcomes["call-00000"], Outcome::Recovered, "whatever is counted");
    assert_eq!(w.engine.status()[0].counted, w.listened.get("call-00000").copied());
    w.engine.status()[0].counted
}

#[test]
fn whose_audio_was_counted_is_told_within_seconds() {
    for (talks, told) in [
        ([true, true], Counted::Both),
        ([true, false], Counted::Only(0)),
        ([false, true], Counted::Only(1)),
        ([false, false], Counted::Neither),
    ] {
        let mut w = takeover(talks, None, |_, _| {});
        w.secs(3);
        assert_eq!(counted(&w), None, "nobody knows yet");
        w.secs(if told == Counted::Both { 8 } else { 13 });
        assert_eq!(counted(&w), Some(told));
        // It is told and nothing else: the call goes on, and is no longer counted.
        let counts = w.counts;
        assert!(counts <= 3, "{counts}");
        w.talks = [true; 2];
        w.secs(600);
        assert_eq!((counted(&w), w.counts), (Some(told), counts));
        assert_eq!((w.engine.status()[0].state, w.phones[0].byes + w.phones[1].byes), (CallState::Carried, 0));
    }
}

/// RTCP passes and the audio does not: what is told of that.
fn without_audio(fault: Option<Fault>) -> Option<Counted> {
    let mut w = takeover([false; 2], fault, |w, _| w.rtcp = true);
    w.secs(20);
    counted(&w)
}

#[test]
fn rtcp_is_no_audio() {
    assert_eq!(without_audio(None), Some(Counted::Neither));
    assert_ne!(without_audio(Some(Fault::RtcpIsAudio)), Some(Counted::Neither), "and the test notices");
}

#[test]
fn a_hold_is_no_silence_and_unread_counters_are_none() {
    let mut w = takeover([false; 2], None, |w, call| {
        super::random_calls::edit(&mut call.legs[1], |s| s, |r| r.replace("a=sendrecv", "a=sendonly"));
        w.phones[1].sdp = call.legs[1].sdp_received.as_ref().unwrap().body.lossy();
        w.phones[1].steady_sdp = true;
    });
    w.secs(20);
    assert_eq!(counted(&w), Some(Counted::OnHold));
    let mut w = takeover([true; 2], None, |w, _| w.uncounted = true);
    w.secs(40);
    assert_eq!(counted(&w), Some(Counted::Unknown));
    assert!(w.counts <= 4, "{}", w.counts);
}

#[test]
fn audio_that_does_not_pass_the_relay_is_not_waited_for() {
    let mut w = takeover([true; 2], None, |w, call| {
        for side in 0..2 {
            let other = call.legs[1 - side].sdp_received.clone();
            call.legs[side].sdp_sent = other;
        }
        for (phone, leg) in w.phones.iter_mut().zip(&call.legs) {
            phone.sdp_seen = leg.sdp_sent.as_ref().unwrap().body.lossy();
        }
    });
    w.secs(1);
    assert_eq!((counted(&w), w.counts), (Some(Counted::NotOurs), 0));
}

#[test]
fn a_call_that_ends_meanwhile_is_told_too() {
    let mut w = takeover([false; 2], None, |_, _| {});
    w.secs(1);
    w.ask(0, "BYE", "");
    w.secs(1);
    assert_eq!(w.listened["call-00000"], Counted::Unknown);
}

#[test]
fn all_calls_are_counted_in_the_same_rounds() {
    let mut w = World::new(62, 3);
    w.talks = [true; 2];
    let calls: Vec<Call> = (0..40).map(|n| w.b2bua(n)).collect();
    w.start(calls);
    let mut rounds = Vec::new();
    for _ in 0..20_000 {
        let before = w.counts;
        w.run(std::time::Duration::from_millis(1));
        if w.counts > before {
            rounds.push(w.counts - before);
        }
    }
    assert!(rounds.len() <= 4 && w.listened.len() == 40, "one request reads a hundred calls: {rounds:?}");
    assert!(w.listened.values().all(|c| *c == Counted::Both));
}
