use super::watchdog::Stillness;
use super::{Beats, Licence, Parts, Turn, Work, listen_to_panics};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

async fn until(what: &str, good: impl Fn() -> bool) {
    let end = Instant::now() + SOON;
    while !good() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs a part with `work`, which decides by the run's number. Returns the parts and the runs that began.
async fn run(work: fn(Turn) -> Work, runs: usize) -> (Parts, Vec<Turn>) {
    listen_to_panics();
    let (parts, turns) = (Parts::default(), Arc::<Mutex<Vec<Turn>>>::default());
    let seen = Arc::clone(&turns);
    let task = parts.supervise(
        "test",
        Beats::default(),
        move |turn| {
            seen.lock().unwrap().push(turn.clone());
            work(turn)
        },
        || {},
    );
    until("the runs to begin", || turns.lock().unwrap().len() >= runs).await;
    // The last run waits for ever.
    task.abort();
    let turns = turns.lock().unwrap().clone();
    (parts, turns)
}

#[tokio::test]
async fn a_panic_anywhere_on_the_thread_starts_the_part_again_without_its_licence() {
    fn work(turn: Turn) -> Work {
        Box::pin(async move {
            match turn.number {
                0 => panic!("of the work itself"),
                // The runtime catches this panic.
                1 => drop(tokio::spawn(async { panic!("of a task") })),
                2 => return Err("an error".to_owned()),
                _ => {}
            }
            std::future::pending().await
        })
    }
    let (parts, turns) = run(work, 4).await;
    let after: Vec<_> = turns.iter().map(|t| t.after.clone().unwrap_or_default()).collect();
    assert!(after[1].contains("of the work itself") && after[1].contains("tests.rs"), "{after:?}");
    assert!(after[2].contains("of a task") && after[3] == "an error", "{after:?}");
    let licensed: Vec<bool> = turns.iter().map(|t| t.licence.act(|| ()).is_some()).collect();
    assert_eq!(licensed, [false, false, false, true]);
    let status = &parts.status()[0];
    assert_eq!((status.state.as_str(), status.restarts, status.name.as_str()), ("running", 3, "test"));
}

#[tokio::test]
async fn a_message_on_which_a_part_panicked_is_passed_over() {
    fn work(turn: Turn) -> Work {
        Box::pin(async move {
            for message in [7, 8] {
                if turn.begins(message) && message == 8 {
                    panic!("of 8");
                }
                turn.ends();
            }
            std::future::pending().await
        })
    }
    let (parts, turns) = run(work, 2).await;
    assert!(turns[1].begins(7) && !turns[1].begins(8));
    assert_eq!(parts.status()[0].passed_over, 1);
}

static FREE: AtomicBool = AtomicBool::new(false);
static ACTED: AtomicU32 = AtomicU32::new(0);

#[tokio::test]
async fn a_thread_that_never_ends_is_abandoned_and_can_do_nothing_when_it_comes_back() {
    fn work(turn: Turn) -> Work {
        Box::pin(async move {
            if turn.number == 0 {
                while !FREE.load(SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                turn.licence.act(|| ACTED.fetch_add(1, SeqCst));
                tokio::task::yield_now().await;
                ACTED.fetch_add(100, SeqCst);
            }
            std::future::pending().await
        })
    }
    listen_to_panics();
    let (parts, turns) = (Parts::default(), Arc::<Mutex<Vec<Turn>>>::default());
    let seen = Arc::clone(&turns);
    let begun = move |turn: Turn| {
        seen.lock().unwrap().push(turn.clone());
        work(turn)
    };
    let _task = parts.supervise("test", Beats::default(), begun, || {});
    until("the first run to begin", || turns.lock().unwrap().len() == 1).await;
    let first = turns.lock().unwrap()[0].clone();
    first.pulse.give_up(Duration::from_secs(10));
    until("the second run", || turns.lock().unwrap().len() == 2).await;
    assert!(turns.lock().unwrap()[1].after.as_ref().unwrap().contains("was stuck for 10s"));
    FREE.store(true, SeqCst);
    // The thread has ended when this test holds the last reference to its pulse.
    let pulse = Arc::downgrade(&first.pulse);
    turns.lock().unwrap().clear();
    drop(first);
    until("the abandoned thread to end", || pulse.strong_count() == 0).await;
    assert_eq!(ACTED.load(SeqCst), 0);
}

#[tokio::test]
async fn nothing_acts_and_no_future_goes_on_without_a_licence() {
    let licence = Licence::default();
    assert_eq!(licence.act(|| 5), Some(5));
    assert_eq!(licence.bind(async { 6 }).await, Some(6));
    let steps = AtomicU32::new(0);
    let own = licence.clone();
    let done = licence
        .bind(async {
            steps.fetch_add(1, SeqCst);
            own.revoke();
            tokio::task::yield_now().await;
            steps.fetch_add(1, SeqCst);
        })
        .await;
    assert_eq!((done, steps.load(SeqCst), licence.act(|| 5)), (None, 1, None));
}

#[test]
fn a_count_that_stands_still_is_counted_by_looks() {
    let mut stillness = Stillness::default();
    assert_eq!([1, 1, 1, 2, 2, 9].map(|count| stillness.look(count)), [0, 1, 2, 0, 1, 0]);
}
