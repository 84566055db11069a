use super::{MAX_REASONS, OTHERS, Tally};
use crate::calls::model::{Call, LegState, Pairing};
use crate::config::Mode;
use crate::pbx::{ConnectedKind, ConnectedTo};
use crate::recovery::deed::Forecasts;
use crate::recovery::permitted::Ground;
use crate::recovery::plan::tests::simple;
use crate::sip::Transport;

fn ground() -> Ground {
    Ground::of(&["10.9.0.100".parse().unwrap()])
}

fn good() -> Call {
    Call { pairing: Some(Pairing::Evidence), ..simple("RTP/AVP 0", "RTP/AVP 0") }
}

fn alone(kind: Option<ConnectedKind>) -> Call {
    let mut call = good();
    call.legs.pop();
    call.other_end = kind.map(|kind| ConnectedTo { kind, name: "4711".to_owned() });
    call
}

fn over_tls() -> Call {
    let mut call = good();
    call.legs[0].transport = Transport::Tls;
    call
}

#[test]
fn the_operator_hears_how_many_calls_would_be_lost_and_why() {
    let emergency = Call { emergency: true, ..alone(None) };
    let conference = alone(Some(ConnectedKind::Conference));
    let calls = [good(), over_tls(), conference.clone(), emergency, conference];
    let tally = Tally::of(calls.iter(), &ground(), Mode::Full);
    assert_eq!((tally.total, tally.kept, tally.audio, tally.lost, tally.lost_emergency), (5, 1, 1, 3, 1));
    assert_eq!(
        tally.told().unwrap(),
        "3 of 5 calls would be lost, 1 of them an emergency call: 2 (in a conference of the server), 1 (keepcall knows \
         only one party)"
    );
    assert_eq!(tally.cures().len(), 1, "{tally:?}");
    assert!(tally.cures()[0].contains("ami"));
}

#[test]
fn nothing_is_said_when_nothing_would_be_lost() {
    for calls in [vec![], vec![good(), over_tls()]] {
        assert_eq!(Tally::of(calls.iter(), &ground(), Mode::Full).told(), None);
    }
}

#[test]
fn the_mode_counts() {
    let tally = Tally::of([good()].iter(), &ground(), Mode::Observe);
    assert_eq!((tally.kept, tally.lost), (0, 1));
    assert!(tally.told().unwrap().starts_with("1 of 1 call would be lost: 1 (the mode is observe)"), "{tally:?}");
    assert!(tally.cures()[0].contains("keepcall mode full"));
}

#[test]
fn the_reasons_are_bounded_and_the_counts_are_not() {
    let mut tally = Tally::default();
    for i in 0..1000 {
        tally.note(format!("phone {i}"), None);
    }
    assert_eq!(tally.reasons.len(), MAX_REASONS + 1);
    assert_eq!(tally.reasons.iter().map(|r| r.calls).sum::<usize>(), 1000);
    assert_eq!(tally.reasons.last().unwrap().why, OTHERS);
}

#[test]
fn a_call_that_is_half_over_is_neither_kept_nor_lost() {
    let mut over = good();
    over.legs[0].state = LegState::Ended;
    let calls = [good(), over];
    let tally = Tally::of(calls.iter(), &ground(), Mode::Full);
    assert_eq!((tally.total, tally.kept, tally.lost), (1, 1, 0));
    let mut forecasts = Forecasts::from(Mode::Full);
    calls.iter().for_each(|call| forecasts.add(call, &ground()));
    let forecast = &forecasts.list()[0];
    assert_eq!((forecast.total, forecast.reinvited, forecast.left), (2, 1, 1));
}
