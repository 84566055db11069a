use super::Waiting;
use crate::time::Time;
use std::time::Duration;

#[test]
fn pauses_grow_and_have_an_end() {
    let mut waiting = Waiting::default();
    assert_eq!((waiting.next(), waiting.why()), (Time::ZERO, None), "the first try is at once");
    let mut now = Time::from_millis(1_000);
    let mut pauses = Vec::new();
    for _ in 0..80 {
        waiting.failed("no interface eth9", now);
        pauses.push(waiting.next().since(now));
        now = waiting.next();
    }
    assert_eq!(pauses[0], Duration::from_millis(100));
    assert!(pauses.windows(2).all(|w| w[1] >= w[0]), "{pauses:?}");
    assert_eq!(pauses[79], Duration::from_secs(3));
    // A resource that appears two seconds later is found within four.
    assert!(
        pauses
            .iter()
            .scan(Duration::ZERO, |at, p| {
                *at += *p;
                Some(*at)
            })
            .any(|at| (2..4).contains(&at.as_secs()))
    );
}

#[test]
fn what_is_missing_is_news_once_and_again_when_it_is_something_else() {
    let mut waiting = Waiting::default();
    let told: Vec<bool> =
        ["port", "port", "interface", "interface", "port"].iter().map(|why| waiting.failed(why, Time::ZERO)).collect();
    assert_eq!(told, [true, false, true, false, true]);
    assert_eq!(waiting.why(), Some("port"));
}
