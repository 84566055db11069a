use super::{Hysteresis, Sample};
use crate::health::CheckState::{self, Failed, Good, Unknown};
use crate::time::Time;
use proptest::prelude::*;
use std::time::Duration;

fn run(h: &mut Hysteresis, samples: &str) -> CheckState {
    for c in samples.chars() {
        let sample = match c {
            '+' => Sample::Good,
            '-' => Sample::Bad,
            _ => Sample::Dead,
        };
        h.handle(sample, Time::from_millis(60_000));
    }
    h.state()
}

fn check() -> Hysteresis {
    Hysteresis::new(2, 3, Duration::from_secs(10), Time::ZERO)
}

#[test]
fn the_first_good_result_decides_and_then_runs_of_results_do() {
    for (samples, state) in [
        ("", Unknown),
        ("+", Good),
        ("+--", Good),
        ("+--+--", Good),
        ("+---", Failed),
        ("+---+", Failed),
        ("+---+-+", Failed),
        ("+---++", Good),
        ("--", Unknown),
        ("---", Failed),
        ("--+", Good),
        ("+x", Failed),
        ("x", Failed),
        ("x+", Failed),
        ("x++", Good),
    ] {
        assert_eq!(run(&mut check(), samples), state, "{samples}");
    }
}

#[test]
fn bad_results_are_excused_in_the_grace_after_start_and_not_after() {
    let mut h = check();
    for ms in 0..9 {
        assert!(!h.handle(if ms % 2 == 0 { Sample::Bad } else { Sample::Dead }, Time::from_millis(ms * 1000)));
    }
    assert_eq!(h.state(), Unknown);
    assert!(h.handle(Sample::Bad, Time::from_millis(10_000)));
    assert_eq!(h.state(), Failed);
}

#[test]
fn death_after_a_good_result_is_not_excused_by_the_grace() {
    let mut h = check();
    h.handle(Sample::Good, Time::from_millis(1));
    assert!(h.handle(Sample::Dead, Time::from_millis(2)));
    assert_eq!(h.state(), Failed);
}

proptest! {
    /// The expected state, computed from the whole sequence of results at every step.
    #[test]
    fn states_follow_from_runs(rise in 1u32..5, fall in 1u32..5, samples in prop::collection::vec(any::<bool>(), 1..60)) {
        let mut h = Hysteresis::new(rise, fall, Duration::ZERO, Time::ZERO);
        let mut expected = Unknown;
        for (i, good) in samples.iter().enumerate() {
            h.handle(if *good { Sample::Good } else { Sample::Bad }, Time::from_millis(1));
            let run = samples[..=i].iter().rev().take_while(|g| *g == good).count();
            match (expected, good) {
                (Unknown, true) => expected = Good,
                (Unknown | Good, false) if run >= fall as usize => expected = Failed,
                (Failed, true) if run >= rise as usize => expected = Good,
                _ => {}
            }
            prop_assert_eq!(h.state(), expected);
        }
    }
}
