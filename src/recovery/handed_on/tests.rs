use super::HandedOn;
use crate::calls::model::{Call, CallEvent, Flow, Pairing};
use crate::recovery::permitted::Ground;
use crate::recovery::plan::tests::simple;
use crate::recovery::recoverability::of;

const CODEC: &str = "RTP/AVP 0";

fn ground() -> Ground {
    Ground::of(&["10.9.0.100".parse().unwrap()])
}

fn proxied() -> Call {
    Call { pairing: Some(Pairing::SameDialog), ..simple(CODEC, CODEC) }
}

/// The call with another body on one side of one leg.
fn with(leg: usize, sent: bool, from: &str, to: &str) -> Call {
    let mut call = proxied();
    let leg = &mut *call.legs[leg];
    let d = if sent { &mut leg.sdp_sent } else { &mut leg.sdp_received };
    let body = &mut d.as_mut().unwrap().body;
    assert!(body.lossy().contains(from), "{}", body.lossy());
    *body = body.lossy().replace(from, to).as_str().into();
    call
}

fn put(call: Call) -> CallEvent {
    CallEvent::Put(Box::new(call))
}

fn flows(ground: &Ground) -> Vec<Flow> {
    of(&proxied(), ground).1.flows
}

fn handed_on() -> HandedOn {
    let mut all = HandedOn::default();
    assert_eq!(all.add(&proxied(), flows(&ground()), true, &ground()), None, "the engine has set these paths");
    all
}

#[test]
fn the_paths_end_when_a_description_names_another_port_of_the_server() {
    for leg in [0, 1] {
        let mut all = handed_on();
        assert_eq!(all.handle(&put(proxied()), &ground()), None, "a refresh changes nothing");
        let port = ["m=audio 10000", "m=audio 10002"][leg];
        let moved = put(with(leg, true, port, "m=audio 12000"));
        assert_eq!(all.handle(&moved, &ground()), Some(("x".into(), Vec::new())), "{leg}");
        assert_eq!(all.handle(&put(proxied()), &ground()), None, "and do not come back");
    }
}

#[test]
fn the_paths_follow_a_phone_that_moves_and_end_with_the_call() {
    let mut all = handed_on();
    let (_, flows) = all.handle(&put(with(0, false, "m=audio 4000", "m=audio 4444")), &ground()).unwrap();
    assert!(flows.len() == 4 && flows.iter().any(|f| f.to.port() == 4444), "{flows:?}");
    let gone = CallEvent::Delete { id: "x".into(), reason: "BYE" };
    assert_eq!(all.handle(&gone, &ground()), Some(("x".into(), Vec::new())));
    assert_eq!(all.handle(&gone, &ground()), None);
}

#[test]
fn a_call_that_nobody_follows_is_not_relayed() {
    let mut all = HandedOn::default();
    assert_eq!(all.add(&proxied(), flows(&ground()), false, &ground()), Some(Vec::new()));
    assert_eq!(all.handle(&put(with(0, true, "m=audio 10000", "m=audio 12000")), &ground()), None);
}

#[test]
fn media_that_a_media_server_restores_itself_is_not_relayed() {
    let ground = Ground { external: true, ..ground() };
    assert!(flows(&ground).is_empty());
    let bridged = Call { pairing: Some(Pairing::Evidence), ..proxied() };
    assert_eq!(of(&bridged, &ground).1.flows.len(), 4, "only a proxy's");
}

#[test]
fn a_call_without_relayed_audio_gets_none_later() {
    // The mode relays nothing, for example.
    let mut all = HandedOn::default();
    assert_eq!(all.add(&proxied(), Vec::new(), true, &ground()), None);
    assert_eq!(all.handle(&put(with(0, false, "m=audio 4000", "m=audio 4444")), &ground()), None);
}
