use super::Holds;
use crate::time::Time;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn what_was_set_last_is_held_and_an_unknown_instance_is_not() {
    let holds = Holds::new(["a", "b"].into_iter());
    assert_eq!(holds.get("a"), None);
    holds.set("a", Some((7, Time::from_millis(5))));
    holds.set("c", Some((7, Time::from_millis(5))));
    assert_eq!((holds.get("a"), holds.get("b"), holds.get("c")), (Some((7, Time::from_millis(5))), None, None));
    holds.set("a", None);
    assert_eq!(holds.get("a"), None);
}

#[test]
fn an_epoch_is_never_read_with_the_end_of_another() {
    let holds = Holds::new(["a"].into_iter());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=200_000 {
                holds.set("a", Some((n, Time::from_nanos(n))));
            }
            over.store(true, Ordering::SeqCst);
        });
        while !over.load(Ordering::SeqCst) {
            if let Some((epoch, until)) = holds.get("a") {
                assert_eq!(epoch, until.as_nanos());
            }
        }
    });
}
