//! Calls of which one party has hung up.

use super::scenarios::recovered;
use super::world::{World, settings};
use crate::calls::model::{Call, LegState};
use crate::config::Mode;
use crate::recovery::engine::{Engine, Outcome};

#[test]
fn the_party_that_was_left_gets_its_bye_at_the_takeover() {
    for (mode, gone, emergency) in [(Mode::Full, 0, false), (Mode::Full, 1, true), (Mode::Audio, 0, false)] {
        let mut w = World::new(40, 50);
        w.engine.set_mode(mode, w.now);
        w.talks = [true; 2];
        let mut call = w.b2bua(0);
        call.legs[gone].state = LegState::Ended;
        call.emergency = emergency;
        w.start(vec![call]);
        w.secs(1);
        let told = u32::from(mode == Mode::Full);
        assert_eq!((w.phones[1 - gone].byes, w.phones[gone].got.len()), (told, 0), "{mode} {gone}");
        assert_eq!(w.outcomes["call-00000"], Outcome::HungUp);
        assert!(w.stored.is_empty() && w.flows.values().all(Vec::is_empty), "{mode} {gone}");
        assert_eq!(w.sent.len(), usize::from(mode == Mode::Full));
    }
}

#[test]
fn a_party_that_cannot_be_reached_is_left() {
    let mut w = World::new(41, 50);
    let mut call = w.b2bua(0);
    call.legs[0].state = LegState::Ended;
    call.legs[1].partial = true;
    w.start(vec![call]);
    w.secs(1);
    assert!(w.sent.is_empty() && w.stored.is_empty());
}

#[test]
fn the_next_master_tells_the_party_that_this_one_could_not() {
    let (mut w, _) = recovered(42);
    w.phones[1].dead = true;
    w.ask(0, "BYE", "");
    w.secs(1);
    let stored: Vec<Call> =
        w.stored.values().map(|c| serde_json::from_str(&serde_json::to_string(c).unwrap()).unwrap()).collect();
    let states: Vec<LegState> = stored[0].legs.iter().map(|l| l.state).collect();
    assert_eq!(states, [LegState::Ended, LegState::Confirmed]);
    w.engine = Engine::new(settings(50), 99);
    w.outcomes.clear();
    w.phones[1].dead = false;
    w.start(stored);
    w.secs(1);
    assert_eq!(w.phones[1].byes, 1);
    assert!(w.stored.is_empty());
}

#[test]
fn a_party_that_never_answers_its_bye_is_forgotten_in_the_end() {
    let (mut w, _) = recovered(43);
    w.phones[1].dead = true;
    w.ask(0, "BYE", "");
    w.secs(31);
    assert_eq!(w.stored.len(), 1);
    w.secs(3);
    assert!(w.stored.is_empty());
    // A lower mode stops the BYE, and with it the wait.
    let (mut w, _) = recovered(44);
    w.phones[1].dead = true;
    w.ask(0, "BYE", "");
    w.secs(1);
    w.engine.set_mode(Mode::Audio, w.now);
    w.drain();
    assert!(w.stored.is_empty());
}
