//! Evidence that a party is gone: an answer is a doubt, and audio beats it.

use super::Answer;
use super::world::World;
use crate::calls::model::{Call, SessionTimer};
use crate::recovery::engine::{CallState, Engine, Outcome};
use crate::recovery::types::Fault;
use std::time::Duration;

/// The phone has given the call up.
const UNKNOWN: Answer = Answer::Code(481, "");
/// Somebody on the way, or a confused phone, says so.
const STRAY: Answer = Answer::Stray(481);

fn state(w: &World) -> Option<CallState> {
    w.engine.status().first().map(|s| s.state)
}

fn takeover(talks: [bool; 2], to_first: &[Answer], change: impl FnOnce(&mut Call)) -> World {
    let mut w = World::new(11, 50);
    w.talks = talks;
    let mut call = w.b2bua(0);
    change(&mut call);
    w.phones[0].answers.extend(to_first.iter().cloned());
    w.start(vec![call]);
    w
}

fn byes(w: &World) -> [u32; 2] {
    [w.phones[0].byes, w.phones[1].byes]
}

#[test]
fn a_party_that_knows_no_dialog_twice_and_is_silent_is_gone() {
    let mut w = takeover([false, true], &[UNKNOWN, UNKNOWN], |_| {});
    w.secs(8);
    assert_eq!((w.outcomes.len(), byes(&w)), (0, [0, 0]), "one answer is a doubt");
    w.secs(7);
    assert_eq!((&w.outcomes["call-00000"], byes(&w)), (&Outcome::Gone, [0, 1]));
    assert!(w.stored.is_empty() && w.flows["call-00000"].is_empty());
}

#[test]
fn one_stray_answer_costs_no_call() {
    for answers in [vec![STRAY], vec![Answer::Stray(408)], vec![Answer::Nothing; 7]] {
        let mut w = takeover([false, false], &answers, |_| {});
        w.secs(60);
        assert_eq!(
            (&w.outcomes["call-00000"], state(&w)),
            (&Outcome::Recovered, Some(CallState::Carried)),
            "{answers:?}"
        );
        w.ask(0, "BYE", "");
        w.secs(5);
        assert_eq!(byes(&w), [0, 1], "{answers:?}");
    }
}

#[test]
fn a_party_with_audio_is_kept_whatever_its_phone_answers() {
    for answer in [STRAY, Answer::Stray(408), Answer::Nothing] {
        let mut w = takeover([true, true], &vec![answer.clone(); 60], |_| {});
        w.secs(600);
        assert_eq!((&w.outcomes["call-00000"], byes(&w)), (&Outcome::Unreachable, [0, 0]), "{answer:?}");
        assert_eq!((state(&w), w.flows["call-00000"].len()), (Some(CallState::Carried), 4), "{answer:?}");
        // The other party's dialog works, but nothing can be changed at the first one.
        let body = super::offers::changed(&w.phones[1], 9, "sendonly");
        w.ask(1, "INVITE", &body);
        w.secs(2);
        assert_eq!(w.result(1), ("INVITE".into(), 480), "{answer:?}");
        w.ask(1, "BYE", "");
        w.secs(5);
        assert_eq!((w.result(1), byes(&w)[0]), (("BYE".into(), 200), 1), "{answer:?}: the party is told");
    }
}

#[test]
fn a_party_that_stays_silent_for_a_minute_after_its_answers_is_gone() {
    let mut w = takeover([true, true], &[STRAY, STRAY], |_| {});
    w.secs(100);
    assert_eq!(byes(&w), [0, 0]);
    w.talks = [false, true];
    w.secs(55);
    assert_eq!(byes(&w), [0, 0]);
    w.secs(15);
    assert_eq!(byes(&w), [1, 1], "whoever still hears is told");
}

#[test]
fn nobody_is_taken_for_gone_by_the_silence_of_a_hold() {
    for (answer, ends) in [(Answer::Nothing, false), (STRAY, true)] {
        let mut w = takeover([false, false], &vec![answer.clone(); 60], |call| {
            for leg in &mut call.legs {
                let leg = &mut **leg;
                for d in [&mut leg.sdp_sent, &mut leg.sdp_received].into_iter().flatten() {
                    d.body = d.body.lossy().replace("a=sendrecv", "a=inactive").as_str().into();
                }
            }
        });
        let held = w.phones[0].sdp_seen.replace("a=sendrecv", "a=inactive");
        w.phones[0].sdp_seen = held;
        let held = w.phones[1].sdp_seen.replace("a=sendrecv", "a=inactive");
        w.phones[1].sdp_seen = held;
        w.secs(600);
        assert_eq!(byes(&w)[1] == 1, ends, "{answer:?}: only the party's own word counts");
    }
}

#[test]
fn an_emergency_call_is_never_ended_by_the_agent() {
    for answer in [STRAY, Answer::Nothing] {
        let mut w = takeover([false, false], &vec![answer.clone(); 60], |call| call.emergency = true);
        w.secs(3600);
        assert_eq!((byes(&w), state(&w)), ([0, 0], Some(CallState::Carried)), "{answer:?}");
        assert_eq!(w.flows["call-00000"].len(), 4);
        w.ask(1, "BYE", "");
        w.secs(5);
        assert_eq!(byes(&w), [1, 0], "{answer:?}: a party may end it");
    }
}

#[test]
fn a_party_that_speaks_again_is_no_longer_lost() {
    let mut w = takeover([true, true], &[STRAY, STRAY], |_| {});
    w.secs(30);
    assert_eq!(w.outcomes["call-00000"], Outcome::Unreachable);
    w.ask(0, "OPTIONS", "");
    w.secs(2);
    w.talks = [false, false];
    let body = super::offers::changed(&w.phones[1], 9, "sendonly");
    w.ask(1, "INVITE", &body);
    w.secs(120);
    assert_eq!((w.result(1), byes(&w)), (("INVITE".into(), 200), [0, 0]));
}

#[test]
fn a_carried_call_that_both_phones_forgot_ends_in_the_end() {
    let mut w = takeover([true, true], &[], |_| {});
    w.secs(3 * 3600);
    assert_eq!((state(&w), byes(&w)), (Some(CallState::Carried), [0, 0]), "audio is life");
    assert_eq!(w.phones[0].accepted, 1, "and nobody with audio is asked");
    w.talks = [false, false];
    w.secs(3600);
    assert_eq!((state(&w), byes(&w)), (Some(CallState::Carried), [0, 0]), "phones that answer are there");
    for phone in &mut w.phones {
        phone.answers.extend(vec![Answer::Nothing; 100]);
    }
    w.secs(3600);
    assert!(w.engine.status().is_empty() && w.stored.is_empty());
}

#[test]
fn a_second_takeover_begins_without_doubts() {
    let mut w = takeover([true, true], &[STRAY, STRAY], |_| {});
    w.secs(60);
    let stored: Vec<Call> = w.stored.values().cloned().collect();
    w.engine = Engine::new(super::world::settings(50), 99);
    w.outcomes.clear();
    w.start(stored);
    w.run(Duration::from_secs(2));
    assert_eq!(w.outcomes["call-00000"], Outcome::Recovered);
}

/// The first rule, over calls of every class and phones of every temper: who is heard is not hung up, and keeps the
/// audio; and an emergency call is not hung up at all. The oracle knows only what was sent and which paths were there.
fn rule_one(seed: u64, fault: Option<Fault>) -> Result<(), String> {
    let tempers = [
        Answer::Accept,
        Answer::Nothing,
        Answer::Ring,
        Answer::Bare,
        Answer::Late(40),
        STRAY,
        Answer::Stray(404),
        Answer::Stray(408),
        Answer::Stray(486),
        Answer::Stray(488),
        Answer::Stray(491),
        Answer::Stray(500),
        Answer::Stray(503),
        Answer::Stray(600),
    ];
    let mut w = World::new(seed, 5);
    let mut settings = super::world::settings(5);
    settings.fault = fault;
    w.engine = Engine::new(settings, seed);
    w.talks = [true; 2];
    let mut r = crate::recovery::rng::Rng::new(seed ^ 0x9e37);
    let mut below = |n: usize| usize::try_from(r.next()).unwrap() % n;
    let mut call = if below(4) == 0 { w.proxied(0, below(2) == 0) } else { w.b2bua(0) };
    match below(8) {
        0 => call.legs[below(2)].partial = true,
        1 => call.legs[below(2)].transport = crate::sip::Transport::Tls,
        2 => drop(call.legs.pop()),
        3 => {
            let timer = SessionTimer { interval_s: 120, local_refreshes: below(2) == 0 };
            w.phones[0].timer = Some(timer);
            call.legs[0].session_timer = Some(timer);
        }
        4 => {
            call.emergency = true;
            w.talks = [below(2) == 0, below(2) == 0];
        }
        _ => {}
    }
    for phone in &mut w.phones {
        let temper = tempers[below(tempers.len())].clone();
        phone.steady = false;
        phone.missed = 100;
        phone.answers.extend(vec![temper; below(60)]);
    }
    let armed = crate::recovery::recoverability::of(&call, &super::world::settings(5).ground).1.flows.len();
    w.start(vec![call]);
    w.secs(1800);
    if w.sent.iter().any(|(_, _, bytes)| bytes.starts_with(b"BYE")) {
        return Err(format!("seed {seed}: BYE into a living call"));
    }
    if w.flows.get("call-00000").map_or(0, Vec::len) != armed {
        return Err(format!("seed {seed}: the audio was taken away"));
    }
    if w.stored.len() != 1 {
        return Err(format!("seed {seed}: a living call is not shown"));
    }
    Ok(())
}

#[test]
fn no_call_whose_parties_are_heard_gets_a_bye() {
    (0..400).for_each(|seed| rule_one(seed, None).unwrap());
}

#[test]
fn an_engine_that_ends_living_calls_is_noticed() {
    for fault in [Fault::DoubtIsEvidence, Fault::AudioIgnored, Fault::EmergencyEnded, Fault::PathsDropped] {
        assert!((0..400).any(|seed| rule_one(seed, Some(fault)).is_err()), "{fault:?}");
    }
}
