use super::{Failure, MOST, MOST_ABANDONED, Policy, Reaction, WINDOW};
use crate::time::Time;
use std::time::Duration;

#[test]
fn a_part_comes_back_ever_more_slowly_and_then_stays_off() {
    let mut policy = Policy::default();
    let mut now = Time::from_millis(1_000);
    let mut last = Duration::ZERO;
    for _ in 1..MOST {
        let Reaction::After(pause) = policy.failed(Failure::Ended, now) else { panic!("it must come back") };
        assert!(pause > last && pause < Duration::from_secs(10));
        (last, now) = (pause, now + pause);
    }
    assert!(matches!(policy.failed(Failure::Ended, now), Reaction::Off(_)));
}

#[test]
fn what_happened_long_ago_is_forgotten() {
    let mut policy = Policy::default();
    for i in 0..50_u32 {
        let now = Time::from_millis(1_000) + WINDOW * i;
        assert_eq!(policy.failed(Failure::Ended, now), Reaction::After(Duration::from_millis(100)), "{i}");
    }
}

#[test]
fn threads_that_never_end_are_few_however_long_it_takes() {
    let mut policy = Policy::default();
    let at = |i: u32| Time::from_millis(1_000) + WINDOW * (2 * i);
    for i in 0..MOST_ABANDONED {
        assert!(matches!(policy.failed(Failure::Stuck, at(i)), Reaction::After(_)));
    }
    assert!(matches!(policy.failed(Failure::Stuck, at(MOST_ABANDONED)), Reaction::Off(_)));
}
