//! What the operator's settings and a party's silence end.

use super::world::{World, settings};
use crate::recovery::engine::{CallState, Engine, Settings};
use crate::sip::Transport;
use std::time::Duration;

fn world(change: impl FnOnce(&mut Settings)) -> World {
    let mut w = World::new(50, 50);
    let mut s = settings(50);
    change(&mut s);
    w.engine = Engine::new(s, 50);
    w
}

fn byes(w: &World) -> Vec<u32> {
    w.phones.iter().map(|p| p.byes).collect()
}

#[test]
fn no_call_is_carried_for_longer_than_the_operator_allows() {
    let mut w = world(|s| s.max_carried = Some(Duration::from_secs(7200)));
    w.talks = [true; 2];
    let (carried, mut relayed, mut emergency) = (w.b2bua(0), w.b2bua(1), w.b2bua(2));
    relayed.legs[0].partial = true;
    emergency.emergency = true;
    w.start(vec![carried, relayed, emergency]);
    w.secs(7190);
    assert_eq!((byes(&w), w.stored.len()), (vec![0; 6], 3));
    w.secs(20);
    assert_eq!(byes(&w), [1, 1, 0, 1, 0, 0], "who can be reached is told, and an emergency call goes on");
    assert_eq!(w.stored.len(), 1);
    let bye = w.sent.iter().find(|(_, _, b)| b.starts_with(b"BYE")).unwrap();
    assert!(String::from_utf8_lossy(&bye.2).contains("longer than the operator allows"));
    w.secs(7200);
    assert_eq!(w.stored.len(), 1);
}

#[test]
fn a_call_has_no_limit_by_default() {
    let mut w = world(|_| {});
    w.talks = [true; 2];
    let call = w.b2bua(0);
    w.start(vec![call]);
    w.secs(48 * 3600);
    assert_eq!((byes(&w), w.stored.len()), (vec![0, 0], 1));
}

#[test]
fn silence_counts_after_rtp_timeout() {
    for seconds in [30, 60, 300] {
        let mut w = world(|s| s.rtp_timeout = Duration::from_secs(seconds));
        let mut call = w.b2bua(0);
        call.legs[0].partial = true;
        w.start(vec![call]);
        w.secs(seconds - 2);
        assert_eq!(w.stored.len(), 1, "{seconds}");
        w.secs(10);
        assert_eq!((w.stored.len(), w.phones[1].byes), (0, 1), "{seconds}");
    }
}

/// A relayed call whose second leg is over TLS. The first party says nothing, the second one talks.
fn half_silent(change: impl FnOnce(&mut World, &mut crate::calls::model::Call)) -> World {
    let mut w = world(|_| {});
    w.talks = [false, true];
    let mut call = w.b2bua(0);
    call.legs[1].transport = Transport::Tls;
    change(&mut w, &mut call);
    w.start(vec![call]);
    w
}

#[test]
fn a_silent_party_of_a_relayed_call_that_knows_no_dialog_is_gone() {
    let mut w = half_silent(|w, _| w.phones[0].ended = true);
    w.secs(69);
    assert_eq!((w.stored.len(), w.engine.status()[0].state), (1, CallState::Relayed), "one answer is a doubt");
    assert_eq!(w.phones[0].got, ["OPTIONS"]);
    w.secs(20);
    assert!(w.stored.is_empty() && w.flows["call-00000"].is_empty());
    assert_eq!(byes(&w), [0, 0], "the first party is gone, and the second one cannot be reached");
    // A party that does not answer at all.
    let mut w = half_silent(|w, _| w.phones[0].dead = true);
    w.secs(130);
    assert_eq!(w.stored.len(), 1);
    w.secs(40);
    assert!(w.stored.is_empty());
}

#[test]
fn a_silent_party_of_a_relayed_call_is_kept_without_evidence() {
    let mut w = half_silent(|_, _| {});
    w.secs(3600);
    assert_eq!((w.stored.len(), byes(&w)), (1, vec![0, 0]), "it knows its dialog");
    let mut w = half_silent(|w, call| {
        w.phones[0].ended = true;
        call.emergency = true;
    });
    w.secs(3600);
    assert_eq!((w.stored.len(), w.sent.len()), (1, 0), "an emergency call");
    let mut w = half_silent(|w, call| {
        w.phones[0].ended = true;
        let body = &mut call.legs[0].sdp_received.as_mut().unwrap().body;
        *body = body.lossy().replace("a=sendrecv", "a=recvonly").as_str().into();
    });
    w.secs(3600);
    assert_eq!((w.stored.len(), w.sent.len()), (1, 0), "a party that only listens");
    let mut w = half_silent(|w, call| {
        w.phones[0].ended = true;
        call.legs[0].partial = true;
    });
    w.secs(3600);
    assert_eq!((w.stored.len(), w.sent.len()), (1, 0), "no correct request can be sent to it");
    w.secs(12 * 3600);
    assert!(w.stored.is_empty(), "and that is bounded");
}
