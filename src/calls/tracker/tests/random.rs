//! Many calls at once, in any order, with losses and copies.

use super::scene::{Scene, Sent, inbound, message, outbound};
use crate::calls::model::Leg;
use proptest::prelude::*;

/// A call from its INVITE on: whether the server starts it, its messages, and whether it is hung up at the end.
const CALLS: [(bool, &str, bool); 10] = [
    (
        false,
        "P> INVITE 1 sdp=o
         S> 180 INVITE 1
         S> 200 INVITE 1 sdp=a se=1800;refresher=uac
         P> ACK 1
         P> INFO 2
         S> 200 INFO 2
         P> BYE 3
         S> 200 BYE 3",
        true,
    ),
    (
        true,
        "S> INVITE 1 sdp=o
         P> 180 INVITE 1 rr=sip:p;lr
         P> 200 INVITE 1 sdp=a rr=sip:p;lr
         S> ACK 1 route=sip:p;lr
         S> OPTIONS 2 route=sip:p;lr
         P> 200 OPTIONS 2",
        false,
    ),
    (
        true,
        "S> INVITE 1
         P> 180 INVITE 1
         P> 200 INVITE 1 sdp=o
         S> ACK 1 sdp=a
         P> reINVITE 1 sdp=hold~sendonly
         S> 100 INVITE 1
         S> 200 INVITE 1 sdp=held~recvonly
         P> ACK 1
         S> BYE 2
         P> 200 BYE 2",
        true,
    ),
    (
        false,
        "P> INVITE 1 sdp=o
         S> 183 INVITE 1 rseq=1 sdp=a
         P> PRACK 2 rack=1
         S> 200 PRACK 2
         P> UPDATE 3 sdp=o3
         S> 200 UPDATE 3 sdp=a3
         S> 200 INVITE 1
         P> ACK 1",
        false,
    ),
    (
        false,
        "P> INVITE 1 sdp=o
         S> 407 INVITE 1
         P> nACK 1
         P> INVITE 2 sdp=o
         S> 180 INVITE 2
         S> 200 INVITE 2 sdp=a
         P> ACK 2
         S> reINVITE 1 sdp=o2
         P> 200 INVITE 1 sdp=a2
         S> ACK 1",
        false,
    ),
    (
        true,
        "S> INVITE 1 sdp=o
         P> 180 INVITE 1
         S> CANCEL 1
         P> 200 CANCEL 1
         P> 487 INVITE 1
         S> nACK 1",
        false,
    ),
    (
        true,
        "S> INVITE 1 sdp=o
         P> 180 INVITE 1 tag=one
         P> 180 INVITE 1 tag=two
         P> 200 INVITE 1 tag=two sdp=a2
         S> ACK 1 tag=two
         P> UPDATE 8 tag=two contact=sip:new@h
         S> 200 UPDATE 8 tag=two",
        false,
    ),
    (
        false,
        "P> INVITE 1 sdp=o
         S> 180 INVITE 1
         S> 200 INVITE 1 sdp=a
         P> ACK 1
         P> reINVITE 2 sdp=theirs
         S> 491 INVITE 2
         P> nACK 2
         S> reINVITE 1 sdp=ours
         P> 491 INVITE 1
         S> nACK 1",
        false,
    ),
    (
        true,
        "S> INVITE 1 sdp=o
         P> 180 INVITE 1
         P> 200 INVITE 1 sdp=a
         S> ACK 1
         P> REFER 1 h=Refer-To:<sip:x@h>
         S> 202 REFER 1
         S> NOTIFY 2 h=Event:refer
         P> 200 NOTIFY 2
         P> BYE 2
         S> 200 BYE 2",
        true,
    ),
    (
        false,
        "P> INVITE 1 sdp=o
         S> 180 INVITE 1
         P> UPDATE 2
         S> 200 UPDATE 2
         S> 200 INVITE 1 sdp=a
         P> ACK 1
         S> UPDATE 5 sdp=o5
         P> 200 UPDATE 5 sdp=a5",
        false,
    ),
];

fn calls() -> Vec<Vec<Sent>> {
    let call = |(n, (out, script, _)): (usize, &(bool, &str, bool))| {
        script.lines().map(|l| message(l.trim(), *out, &format!("call-{n}"))).collect()
    };
    CALLS.iter().enumerate().map(call).collect()
}

fn scene() -> Scene {
    if CALLS[0].0 { outbound() } else { inbound() }
}

fn legs(s: &Scene) -> Vec<Leg> {
    s.all_up().iter().map(|t| (*t.leg).clone()).collect()
}

/// Each call in order, one after the other.
fn in_order() -> Vec<Leg> {
    let mut s = scene();
    calls().iter().flatten().for_each(|m| s.hear(m));
    legs(&s)
}

/// Plays all calls, each in the order of its `delays`: a message is seen that many places later, and again after as
/// many more if the second number is not 0. `turns` picks the call of the next message.
fn mixed(delays: &[Vec<(usize, usize)>], turns: &[usize]) -> Vec<(usize, usize, Sent)> {
    let mut queues: Vec<Vec<(usize, Sent)>> = Vec::new();
    for (call, delays) in calls().into_iter().zip(delays) {
        let mut timed = Vec::new();
        for (n, m) in call.into_iter().enumerate() {
            let (late, copy) = delays[n % delays.len()];
            timed.push((n + late, n, m.clone()));
            if copy > 0 {
                timed.push((n + late + copy, n, m));
            }
        }
        timed.sort_by_key(|(at, _, _)| *at);
        queues.push(timed.into_iter().map(|(_, n, m)| (n, m)).rev().collect());
    }
    let mut all = Vec::new();
    let mut turn = turns.iter().cycle();
    while queues.iter().any(|q| !q.is_empty()) {
        let mut n = turn.next().unwrap() % queues.len();
        while queues[n].is_empty() {
            n = (n + 1) % queues.len();
        }
        if let Some((at, m)) = queues[n].pop() {
            all.push((n, at, m));
        }
    }
    all
}

fn delays(late: usize, copy: usize) -> impl Strategy<Value = Vec<Vec<(usize, usize)>>> {
    proptest::collection::vec(proptest::collection::vec((0..=late, 0..=copy), 10), CALLS.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Interleaved calls, with copies at any later time, end like calls one after the other.
    #[test]
    fn interleaved_and_repeated_messages_end_in_the_same_state(delays in delays(0, 8), turns in proptest::collection::vec(any::<usize>(), 40)) {
        let mut s = scene();
        for (_, _, m) in mixed(&delays, &turns) {
            s.hear(&m);
        }
        s.wait(33_000);
        prop_assert_eq!(legs(&s), in_order());
    }

    /// Messages may also overtake others of their call.
    #[test]
    fn overtaken_messages_end_in_the_same_state(delays in delays(2, 4), turns in proptest::collection::vec(any::<usize>(), 40)) {
        let mut s = scene();
        let mut seen_of = vec![String::new(); CALLS.len()];
        for (call, at, m) in mixed(&delays, &turns) {
            s.hear(&m);
            seen_of[call] += CALLS[call].1.lines().nth(at).unwrap_or_default().trim();
            seen_of[call].push('\n');
        }
        s.wait(33_000);
        let (is, should) = (legs(&s), in_order());
        let ids = |all: &[Leg]| all.iter().map(|l| l.call_id.lossy()).collect::<Vec<_>>();
        prop_assert_eq!(ids(&is), ids(&should), "{:#?}", seen_of);
        for (a, b) in is.iter().zip(&should) {
            let call: usize = a.call_id.lossy()[5..].parse().unwrap();
            prop_assert_eq!(a, b, "{}", seen_of[call]);
        }
    }

    /// Any order and any losses: no panic, no ghost after a BYE and its answer were seen, and no leg for ever.
    #[test]
    fn lost_and_shuffled_messages_leave_no_ghost(delays in delays(12, 9), turns in proptest::collection::vec(any::<usize>(), 40), lost in proptest::collection::vec(0u8..4, 60)) {
        let mut s = scene();
        let mut over = vec![0; CALLS.len()];
        let mut seen_of = vec![String::new(); CALLS.len()];
        for (n, (call, at, m)) in mixed(&delays, &turns).into_iter().enumerate() {
            if lost[n % lost.len()] == 0 {
                continue;
            }
            s.hear(&m);
            s.now += std::time::Duration::from_millis(3);
            seen_of[call] += CALLS[call].1.lines().nth(at).unwrap_or_default().trim();
            seen_of[call].push('\n');
            let length = CALLS[call].1.lines().count();
            if CALLS[call].2 && at + 2 >= length {
                over[call] |= 1 << (length - 1 - at);
            }
        }
        for (call, seen) in over.iter().enumerate() {
            let name = format!("call-{call}");
            let up = s.all_up().iter().any(|t| *t.leg.call_id.0 == *name.as_bytes());
            prop_assert!(*seen != 3 || !up, "{} is up:\n{}", name, seen_of[call]);
        }
        prop_assert!(s.tracker.legs().count() <= CALLS.len() * 4);
        for t in s.all_up() {
            prop_assert_eq!(t.leg.partial, !t.leg.gaps.is_empty());
            prop_assert!(t.offers.pending.len() <= 8);
        }
        s.wait(25 * 3_600_000);
        s.wait(33_000);
        s.wait(301_000);
        prop_assert_eq!((s.tracker.legs().count(), s.tracker.next_deadline()), (0, None));
    }
}
