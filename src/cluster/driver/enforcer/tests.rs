#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Calls = Arc<Mutex<Vec<Option<(u64, Time)>>>>;

struct Kernel {
    calls: Calls,
    broken: Arc<Mutex<bool>>,
}

impl Enforcer for Kernel {
    fn enforce(&mut self, _: &str, hold: Option<(u64, Time)>) -> Result<(), String> {
        self.calls.lock().unwrap().push(hold);
        if *self.broken.lock().unwrap() { Err("no table".into()) } else { Ok(()) }
    }
}

#[test]
fn a_kernel_that_could_not_be_lowered_is_known_to_exceed_the_hold() {
    let (calls, broken) = (Calls::default(), Arc::new(Mutex::new(false)));
    let mut enforced = Enforced::new(Box::new(Kernel { calls: Arc::clone(&calls), broken: Arc::clone(&broken) }));
    let at = |ms| Time::from_nanos(0) + Duration::from_millis(ms);
    enforced.set("i", Some((1, at(400))), at(0));
    enforced.set("i", Some((1, at(400))), at(0));
    assert_eq!(calls.lock().unwrap().len(), 1, "what is in force is not set again");

    *broken.lock().unwrap() = true;
    enforced.set("i", Some((1, at(200))), at(0));
    assert!(enforced.exceeds("i", Some((1, at(200))), at(0)));
    assert!(enforced.exceeds("i", None, at(0)));
    assert_eq!(enforced.error("i"), Some("no table"));
    // Once the kernel's own deadline has passed, the hold no longer exceeds.
    assert!(!enforced.exceeds("i", None, at(400)));
    // A failure to prolong a hold is safe.
    enforced.set("i", Some((1, at(800))), at(60));
    assert!(!enforced.exceeds("i", Some((1, at(800))), at(0)));

    *broken.lock().unwrap() = false;
    enforced.set("i", None, at(120));
    assert_eq!(calls.lock().unwrap().last(), Some(&None));
    assert!(!enforced.exceeds("i", None, at(0)) && enforced.error("i").is_none());
}

#[test]
fn a_kernel_that_takes_nothing_for_seconds_makes_the_node_unfit_until_it_does() {
    let (calls, broken) = (Calls::default(), Arc::new(Mutex::new(true)));
    let mut enforced = Enforced::new(Box::new(Kernel { calls: Arc::clone(&calls), broken: Arc::clone(&broken) }));
    let at = |ms| Time::from_nanos(0) + Duration::from_millis(ms);
    for ms in (0..2_000).step_by(10) {
        enforced.set("i", Some((1, at(ms + 400))), at(ms));
        assert!(!enforced.is_unfit("i", at(ms)));
    }
    assert!(enforced.is_unfit("i", at(2_000)) && !enforced.is_unfit("other", at(2_000)));
    let tries = calls.lock().unwrap().len();
    assert!((30..=41).contains(&tries), "{tries} tries in 2 s");
    *broken.lock().unwrap() = false;
    enforced.set("i", Some((1, at(2_500))), at(2_100));
    assert!(!enforced.is_unfit("i", at(2_100)) && enforced.error("i").is_none());
    // Lowering a hold skips the pause.
    *broken.lock().unwrap() = true;
    let before = calls.lock().unwrap().len();
    for ms in [2_110, 2_111, 2_112] {
        enforced.set("i", None, at(ms));
    }
    assert_eq!(calls.lock().unwrap().len(), before + 3);
}
