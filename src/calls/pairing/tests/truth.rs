//! Calls with a known truth, in any order that a server could produce.

use super::{inbound, outbound, pairs};
use crate::calls::model::CallEvent;
use crate::calls::table::script::{By, Dialog, Lab};
use proptest::prelude::*;
use std::time::Duration;

/// One call through the server. Times are in milliseconds.
#[derive(Clone, Debug)]
struct Story {
    caller: u8,
    callee: u8,
    begins: u64,
    /// From the caller's INVITE to the callee's.
    routed: u64,
    /// From the callee's INVITE to its answer. `None`: it is refused.
    rings: Option<u64>,
    /// From the callee's answer to the caller's, below the window of the answer order.
    answers: u64,
    /// An announcement answers the caller before the callee is called.
    announced: bool,
    talks: u64,
}

/// Notation of the parties in the second leg, the same for all calls.
#[derive(Clone, Copy, Debug)]
enum Rewrites {
    Nothing,
    National,
    HidesCaller,
    NamesDevice,
}

fn story(parties: u8, span: u64) -> impl Strategy<Value = Story> {
    (
        (0..parties, 0..parties, 0..span),
        (0..80_u64, proptest::option::weighted(0.9, 0..1500_u64), 1..100_u64),
        (proptest::bool::weighted(0.3), 200..10_000_u64),
    )
        .prop_map(|((caller, callee, begins), (routed, rings, answers), (announced, talks))| Story {
            caller,
            callee,
            begins,
            routed,
            rings,
            answers,
            announced,
            talks,
        })
}

fn legs(n: u32, s: &Story, how: Rewrites) -> (Dialog, Dialog) {
    let (a, b) = (format!("+49301234{:03}", s.caller), format!("+49405678{:03}", s.callee));
    let (c, d) = match how {
        Rewrites::Nothing => (a.clone(), b.clone()),
        Rewrites::National => (a.replace("+49", "0"), b.replace("+49", "0")),
        Rewrites::HidesCaller => ("anonymous".to_owned(), b.clone()),
        Rewrites::NamesDevice => (a.clone(), format!("device{}", s.callee)),
    };
    (inbound(n, &a, &b), outbound(n, &c, &d))
}

#[derive(Clone, Copy)]
enum Step {
    InInvite,
    OutInvite,
    OutAnswer,
    OutRefusal,
    InAnswer,
    InRefusal,
    Over,
}

/// Plays all stories. Returns every pair that was ever reported, as `in3+out3`.
fn play(stories: &[Story], how: Rewrites) -> Vec<String> {
    let mut told = Vec::new();
    let mut note = |lab: &mut Lab| {
        for event in lab.events() {
            if let CallEvent::Put(call) = event
                && call.legs.len() == 2
            {
                told.extend(pairs(&[*call]));
            }
        }
    };
    let mut lab = Lab::new();
    let mut steps = Vec::new();
    for (n, s) in stories.iter().enumerate() {
        let mut at = |ms: u64, step: Step| steps.push((ms, n, step));
        let invited = s.begins + s.routed + if s.announced { 1000 } else { 0 };
        at(s.begins, Step::InInvite);
        if s.announced {
            at(s.begins + 20, Step::InAnswer);
        }
        at(invited, Step::OutInvite);
        match s.rings {
            Some(rings) => {
                at(invited + rings, Step::OutAnswer);
                if !s.announced {
                    at(invited + rings + s.answers, Step::InAnswer);
                }
                at(invited + rings + s.answers + s.talks, Step::Over);
            }
            None => {
                at(invited + 500, Step::OutRefusal);
                at(invited + 510, if s.announced { Step::Over } else { Step::InRefusal });
            }
        }
    }
    steps.sort_by_key(|(at, n, _)| (*at, *n));
    let start = lab.now;
    for (ms, n, step) in steps {
        let at = start + Duration::from_millis(ms);
        while let Some(due) = lab.table.next_deadline().filter(|d| *d <= at) {
            lab.now = due.max(lab.now);
            lab.table.handle_timeout(lab.now);
            note(&mut lab);
        }
        lab.now = at;
        let (i, o) = legs(u32::try_from(n).unwrap(), &stories[n], how);
        match step {
            Step::InInvite => lab.invited(&i),
            Step::OutInvite => lab.invited(&o),
            Step::OutAnswer => lab.picked_up(&o),
            Step::InAnswer => lab.picked_up(&i),
            Step::OutRefusal => lab.see(o.response(By::Phone, 486, "INVITE", 1, "", "")),
            Step::InRefusal => lab.see(i.response(By::Server, 486, "INVITE", 1, "", "")),
            Step::Over => {
                // Of a refused call only the announced caller is left.
                if stories[n].rings.is_some() {
                    lab.hung_up(&o, By::Phone, 1);
                }
                lab.hung_up(&i, By::Server, 1)
            }
        };
        note(&mut lab);
    }
    told.sort();
    told.dedup();
    told
}

fn is_right(pair: &str) -> bool {
    pair.split_once('+').is_some_and(|(i, o)| i.strip_prefix("in") == o.strip_prefix("out"))
}

fn rewrites() -> impl Strategy<Value = Rewrites> {
    prop_oneof![
        Just(Rewrites::Nothing),
        Just(Rewrites::National),
        Just(Rewrites::HidesCaller),
        Just(Rewrites::NamesDevice),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Few parties, many calls at once: every pair at any moment is right.
    #[test]
    fn what_is_paired_is_right(stories in proptest::collection::vec(story(2, 2000), 2..16), how in rewrites()) {
        let wrong: Vec<String> = play(&stories, how).into_iter().filter(|p| !is_right(p)).collect();
        prop_assert_eq!(wrong, Vec::<String>::new(), "{:?} {:?}", how, stories);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// All parties differ and nothing is hidden: every answered call is paired, and rightly.
    #[test]
    fn what_can_be_told_apart_is_paired(
        stories in proptest::collection::vec(story(1, 6000), 1..14),
        how in prop_oneof![Just(Rewrites::Nothing), Just(Rewrites::National), Just(Rewrites::NamesDevice)],
    ) {
        let stories: Vec<Story> = stories
            .into_iter()
            .enumerate()
            .map(|(n, s)| Story { caller: u8::try_from(n).unwrap(), callee: 100 - u8::try_from(n).unwrap(), ..s })
            .collect();
        let answered = stories.iter().enumerate().filter(|(_, s)| s.rings.is_some());
        let mut expected: Vec<String> = answered.map(|(n, _)| format!("in{n}+out{n}")).collect();
        expected.sort();
        prop_assert_eq!(play(&stories, how), expected);
    }
}
