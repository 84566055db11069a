//! Messages that a stranger can send to the server in a phone's name. They end no call, and keep none that is over.

use super::scene::{Scene, inbound, message, outbound};
use crate::calls::tracker::LegId;
use proptest::prelude::*;
use std::time::Duration;

const HOUR: u64 = 3_600_000;

impl Scene {
    /// Audio from the phone.
    fn audio(&mut self) {
        let ids: Vec<LegId> = self.tracker.with_call_id(self.call_id.clone().as_bytes()).map(|(id, _)| id).collect();
        let now = self.now;
        ids.into_iter().for_each(|id| self.tracker.hear_audio(id, now));
    }

    /// Lets time pass with audio from the phone every ten seconds.
    fn talk(&mut self, seconds: u64) {
        for _ in 0..seconds / 10 {
            self.audio();
            self.wait(10_000);
        }
    }
}

/// Stray messages with the tags of the dialog.
const STRAYS: [&str; 27] = [
    "P> 200 BYE 2",
    "P> 481 BYE 2",
    "P> 200 BYE 2000000000",
    "P> 481 INFO 2",
    "P> 408 OPTIONS 4",
    "P> 481 INVITE 2",
    "P> 408 UPDATE 3",
    "P> 604 INVITE 2",
    "P> 486 INVITE 1",
    "P> 487 INVITE 1",
    "P> 603 INVITE 3000000000",
    "P> 200 INVITE 9 sdp=x",
    "P> BYE 2",
    "P> BYE 1",
    "P> BYE 4000000000",
    "P> BYE 2000000000",
    "P> BYE 2\nS> 403 BYE 2",
    "P> BYE 1\nS> 500 BYE 1",
    "P> CANCEL 1",
    "P> CANCEL 1\nS> 481 CANCEL 1",
    "P> nACK 1",
    "P> ACK 7 sdp=x",
    "P> PRACK 3\nS> 481 PRACK 3",
    "P> reINVITE 3 sdp=x\nS> 483 INVITE 3",
    "P> reINVITE 3000000000 sdp=x\nS> 500 INVITE 3000000000",
    "P> UPDATE 3\nS> 482 UPDATE 3",
    "P> 407 BYE 2",
];

/// What makes a message a stranger's: tags, or a branch.
const MARKS: [&str; 4] = ["", " tag=other", " ftag=other", " branch=other"];

#[test]
fn no_stray_message_ends_a_call_whose_phone_is_heard() {
    for stray in STRAYS {
        for mark in MARKS {
            for mut s in [inbound(), outbound()] {
                s.up().audio();
                for line in stray.lines() {
                    s.play(&format!("{line}{mark} at=10.0.0.66:5060"));
                }
                assert!(s.is_up(), "{stray}{mark} at once");
                s.talk(7200);
                assert_eq!(s.all_up().len(), 1, "{stray}{mark} in two hours");
                // The stray does not hide the true end.
                s.play("S> BYE 90\nP> 200 BYE 90");
                assert!(!s.is_up(), "{stray}{mark} keeps the call up");
            }
        }
    }
}

#[test]
fn a_doubt_ends_with_the_next_word_of_the_server_or_with_silence() {
    for stray in ["P> 200 BYE 2", "P> BYE 2", "P> 481 INFO 2", "P> 408 UPDATE 3"] {
        // The server continues.
        let mut s = outbound();
        s.up().play(stray).wait(10_000);
        assert_eq!(s.tracker.load().doubted, 1, "{stray}");
        s.play("S> OPTIONS 3\nP> 200 OPTIONS 3");
        assert_eq!(s.tracker.load().doubted, 0, "{stray}");
        s.wait(5 * HOUR);
        assert!(s.is_up(), "{stray}");
        // The phone was heard, and is silent since.
        let mut s = outbound();
        s.up().audio();
        s.play(stray).wait(31_000);
        assert!(s.is_up(), "{stray}");
        s.wait(2000);
        assert!(!s.is_up(), "{stray}");
        // With few samples certainty takes longer.
        let mut s = outbound();
        s.tracker.set_quiet(Duration::from_secs(300));
        s.up().audio();
        s.play(stray).wait(299_000);
        assert!(s.is_up(), "{stray}");
        s.wait(2000);
        assert!(!s.is_up(), "{stray}");
        // A party on hold is silent anyway, and so is one that was never heard.
        for held in [true, false] {
            let mut s = outbound();
            s.up();
            if held {
                s.audio();
                s.play("P> reINVITE 1 sdp=h~inactive\nS> 200 INVITE 1 sdp=h2~inactive\nP> ACK 1");
            }
            s.play(stray).wait(HOUR - 1000);
            assert!(s.is_up(), "{stray} {held}");
            s.wait(2000);
            assert!(!s.is_up(), "{stray} {held}");
        }
    }
}

#[test]
fn what_confirms_a_doubt_ends_the_call_at_once() {
    // A BYE overtaken by its answer, and an answer in the right order.
    for script in ["P> 200 BYE 2\nS> BYE 2", "P> BYE 2\nS> 200 BYE 2", "S> 200 BYE 2", "P> BYE 2\nS> 481 BYE 2"] {
        let mut s = outbound();
        s.up().audio();
        s.play(script);
        assert!(!s.is_up(), "{script}");
    }
    // A response to a real request, with the right branch.
    let mut s = outbound();
    s.up().play("S> reINVITE 2 sdp=x\nP> 481 INVITE 2 branch=guessed");
    assert!(s.is_up());
    s.play("P> 481 INVITE 2");
    assert!(!s.is_up());
}

#[test]
fn a_strangers_bye_does_not_hide_the_phones_own_when_the_phone_has_never_asked() {
    for number in ["4000000000", "2000000000", "11"] {
        let mut s = outbound();
        s.up().play(&format!("P> BYE {number} branch=other at=10.0.0.66:5060"));
        // Later than a BYE and a request could cross.
        s.wait(60_000);
        s.play("S> UPDATE 10\nP> 200 UPDATE 10").wait(HOUR + 33_000);
        assert!(s.is_up(), "{number}");
        s.play("P> BYE 10").wait(HOUR + 11_000);
        assert!(!s.is_up(), "{number} hides the true BYE");
    }
}

#[test]
fn a_stray_number_makes_nothing_that_comes_later_old() {
    let mut s = inbound();
    s.up().play("P> INFO 4000000000\nP> 200 OPTIONS 5\nP> 200 OPTIONS 4000000000");
    assert_eq!(s.cseqs(), (Some(5), Some(1)));
    s.play("P> reINVITE 2 sdp=o2\nS> 200 INVITE 2 sdp=a2\nP> ACK 2");
    assert_eq!((s.session(), s.cseqs()), (("a2".into(), "o2".into()), (Some(5), Some(2))));
    // If the server's number is unknown, the first guess stands until the server speaks.
    let mut t = inbound();
    t.up().play("P> 200 OPTIONS 2000000000\nS> INFO 4\nP> 200 INFO 4");
    assert_eq!(t.cseqs().0, Some(4));
    t.play("P> 200 OPTIONS 9\nS> INFO 4\nS> BYE 10\nP> 200 BYE 10");
    assert!(!t.is_up());
    // A number that the server accepts counts, however far ahead it is.
    s.play("P> INFO 1000\nS> 200 INFO 1000");
    assert_eq!(s.cseqs().1, Some(1000));
}

/// Certain ends of a call, and what is seen of them.
const ENDS: [(&str, u64); 7] = [
    ("S> BYE {s}\nP> 200 BYE {s}", 0),
    ("P> BYE {p}\nS> 200 BYE {p}", 0),
    ("S> 200 BYE {p}", 0),
    ("S> BYE {s}", 33_000),
    ("P> 200 BYE {s}", HOUR + 1000),
    ("P> BYE {p}", HOUR + 1000),
    // Nothing at all: a day without a message of the server.
    ("", 24 * HOUR + 1000),
];

/// The true state of a call: the oracle.
#[derive(Clone, Debug)]
struct Truth {
    out: bool,
    /// Its parties talk. Otherwise one holds, and the server refreshes the session.
    talks: bool,
    /// In units of ten seconds.
    ends_at: u64,
    end: usize,
}

fn truth() -> impl Strategy<Value = Truth> {
    (any::<bool>(), any::<bool>(), 1..1000_u64, 0..ENDS.len()).prop_map(|(out, talks, ends_at, end)| Truth {
        out,
        talks,
        ends_at,
        end,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Live calls stay up and ended calls go, whatever else comes in.
    #[test]
    fn strangers_neither_end_calls_nor_keep_them(
        calls in proptest::collection::vec(truth(), 1..5),
        strays in proptest::collection::vec((0..1200_u64, 0..5_usize, 0..STRAYS.len(), 0..MARKS.len(), 0..3_u8), 0..60),
    ) {
        let mut s = inbound();
        let name = |n: usize| format!("call-{n}");
        let mut numbers = vec![(10_u32, 10_u32); calls.len()];
        for (n, call) in calls.iter().enumerate() {
            (s.call_id, s.calls_out) = (name(n), call.out);
            s.up();
        }
        for tick in 0..1200_u64 {
            for (n, call) in calls.iter().enumerate() {
                (s.call_id, s.calls_out) = (name(n), call.out);
                if tick == call.ends_at {
                    let (by_server, by_phone) = numbers[n];
                    let end = ENDS[call.end].0.replace("{s}", &by_server.to_string()).replace("{p}", &by_phone.to_string());
                    s.play(&end);
                } else if tick < call.ends_at {
                    if call.talks {
                        s.audio();
                    } else if tick % 150 == 0 {
                        let (number, _) = &mut numbers[n];
                        s.play(&format!("S> UPDATE {number}\nP> 200 UPDATE {number}"));
                        *number += 1;
                    } else if tick % 100 == 50 {
                        let (_, number) = &mut numbers[n];
                        s.play(&format!("P> INFO {number}\nS> 200 INFO {number}"));
                        *number += 1;
                    }
                }
            }
            for (_, n, stray, mark, at) in strays.iter().filter(|(at, ..)| *at == tick) {
                let Some(call) = calls.get(*n) else { continue };
                for line in STRAYS[*stray].lines() {
                    // The server has dropped the dialog and reports only that it has none.
                    if line.starts_with('S') && tick >= call.ends_at {
                        continue;
                    }
                    let line = format!("{line}{} at=10.0.0.{}:5060", MARKS[*mark], 60 + at);
                    s.hear(&message(&line, call.out, &name(*n)));
                }
            }
            s.wait(10_000);
            let passed = |call: &Truth| (tick + 1).checked_sub(call.ends_at).map(|ticks| ticks * 10_000);
            for (n, call) in calls.iter().enumerate() {
                let up = s.all_up().iter().any(|t| *t.leg.call_id.0 == *name(n).as_bytes());
                match passed(call) {
                    None => prop_assert!(up, "call {n} was erased: {call:?}"),
                    // An earlier stray may have been the first doubt. A later one adds none.
                    Some(ms) => prop_assert!(!up || ms <= ENDS[call.end].1 + 10_000, "call {n} stays for {ms} ms: {call:?}"),
                }
            }
        }
        s.wait(25 * HOUR);
        s.wait(33_000);
        s.wait(301_000);
        prop_assert_eq!(s.tracker.legs().count(), 0);
    }
}
