use super::super::model::{Call, Pairing};
use super::super::table::script::{A, B, Dialog, Lab};

fn inbound(n: u32, caller: &str, callee: &str) -> Dialog {
    Dialog::new(&format!("in{n}"), A, false, caller, callee)
}

fn outbound(n: u32, caller: &str, callee: &str) -> Dialog {
    Dialog::new(&format!("out{n}"), B, true, caller, callee)
}

/// `in3+out3` for each call, sorted.
fn pairs(calls: &[Call]) -> Vec<String> {
    let mut all: Vec<_> = calls.iter().map(|c| c.legs.iter().map(|l| l.call_id.lossy()).collect::<Vec<_>>().join("+")).collect();
    all.sort();
    all
}

#[test]
fn many_calls_at_the_same_moment_are_told_apart_by_their_parties() {
    let mut lab = Lab::new();
    let calls: Vec<_> = (0..10)
        .map(|n| (inbound(n, &format!("{}", 1000 + n), &format!("{}", 2000 + n)), outbound(n, &format!("{}", 1000 + n), "s")))
        .collect();
    calls.iter().for_each(|(i, _)| {
        lab.invited(i);
    });
    calls.iter().rev().for_each(|(_, o)| {
        lab.invited(o);
    });
    calls.iter().for_each(|(_, o)| {
        lab.picked_up(o);
    });
    calls.iter().rev().for_each(|(i, _)| {
        lab.picked_up(i);
    });
    assert_eq!(pairs(&lab.calls()), (0..10).map(|n| format!("in{n}+out{n}")).collect::<Vec<_>>());
    assert!(lab.calls().iter().all(|c| c.pairing == Some(Pairing::Evidence)));
}

#[test]
fn two_calls_at_once_between_the_same_numbers_are_never_guessed() {
    let mut lab = Lab::new();
    let (i0, i1, o0, o1) = (inbound(0, "1", "2"), inbound(1, "1", "2"), outbound(0, "1", "2"), outbound(1, "1", "2"));
    lab.invited(&i0).invited(&i1).invited(&o0).invited(&o1);
    lab.wait_ms(1000).picked_up(&o0).picked_up(&o1).wait_ms(5).picked_up(&i0).picked_up(&i1).wait_ms(1001);
    assert_eq!(pairs(&lab.calls()), ["in0", "in1", "out0", "out1"]);
    assert!(lab.calls().iter().all(|c| c.pairing.is_none()));
}

#[test]
fn the_order_of_answers_separates_calls_between_the_same_numbers() {
    let mut lab = Lab::new();
    let (i0, i1, o0, o1) = (inbound(0, "1", "2"), inbound(1, "1", "2"), outbound(0, "1", "2"), outbound(1, "1", "2"));
    lab.invited(&i0).invited(&i1).invited(&o0).invited(&o1);
    // The second caller's call is answered first. Whose answer it was is seen when nobody else was answered then.
    lab.wait_ms(1000).picked_up(&o1).wait_ms(5).picked_up(&i1);
    assert_eq!(lab.calls().len(), 0);
    lab.wait_ms(250).picked_up(&o0).wait_ms(5).picked_up(&i0);
    assert_eq!(pairs(&lab.calls()), ["in0+out0", "in1+out1"]);
    let confidence: Vec<_> = lab.calls().iter().map(|c| c.confidence).collect();
    // Order decided the first; of the second there was no doubt any more.
    assert_eq!(confidence, [Some(85), Some(75)]);
}

#[test]
fn a_series_of_calls_between_the_same_numbers_is_paired_one_by_one() {
    let mut lab = Lab::new();
    for n in 0..30 {
        lab.b2bua(&inbound(n, "1", "2"), &outbound(n, "1", "2")).wait_ms(20);
    }
    let calls = lab.calls();
    assert_eq!(calls.len(), 30);
    for call in &calls {
        let ids: Vec<_> = call.legs.iter().map(|l| l.call_id.lossy()).collect();
        assert_eq!(ids[0].strip_prefix("in"), ids[1].strip_prefix("out"));
    }
}

#[test]
fn a_leg_that_still_rings_is_a_rival() {
    let mut lab = Lab::new();
    let (i0, i1, o) = (inbound(0, "1", "2"), inbound(1, "1", "2"), outbound(0, "1", "2"));
    // The first caller was answered by an announcement; whose call the callee has answered is open while both wait.
    lab.invited(&i0).picked_up(&i0).wait_ms(600).invited(&i1).invited(&o).picked_up(&o).wait_ms(100);
    assert!(lab.calls().iter().all(|c| c.legs.len() == 1));
    // The rival gives up: now there is no doubt.
    lab.see(i1.response(super::super::table::script::Server, 486, "INVITE", 1, "", "")).wait_ms(1);
    assert_eq!(pairs(&lab.calls()), ["in0+out0"]);
}

#[test]
fn stronger_evidence_comes_first() {
    for (line, pairing) in [
        ("X-Pair: k{}\r\n", Pairing::Header),
        ("Session-ID: ab30317f1a784dc48ff824d0d3715d8{};remote=00000000000000000000000000000000\r\n", Pairing::SessionId),
    ] {
        let mut lab = Lab::new();
        let with = |d: Dialog, n: u32| Dialog { extra: line.replace("{}", &n.to_string()), ..d };
        let calls: Vec<_> = (0..2).map(|n| (with(inbound(n, "1", "2"), n), with(outbound(n, "1", "2"), n))).collect();
        calls.iter().for_each(|(i, _)| {
            lab.invited(i);
        });
        calls.iter().for_each(|(_, o)| {
            lab.invited(o);
        });
        calls.iter().for_each(|(_, o)| {
            lab.picked_up(o);
        });
        calls.iter().for_each(|(i, _)| {
            lab.picked_up(i);
        });
        assert_eq!(pairs(&lab.calls()), ["in0+out0", "in1+out1"]);
        assert!(lab.calls().iter().all(|c| c.pairing == Some(pairing)));
    }
}

#[test]
fn strangers_and_the_anonymous_are_not_paired() {
    for (caller, other, callee, called) in [("1", "7", "2", "8"), ("anonymous", "anonymous", "2", "8"), ("1", "2", "2", "1")] {
        let mut lab = Lab::new();
        lab.b2bua(&inbound(0, caller, callee), &outbound(0, other, called)).wait_ms(1001);
        assert_eq!(pairs(&lab.calls()), ["in0", "out0"], "{caller} {other}");
    }
    // The callee's leg began before the caller's call, or far too late.
    let mut lab = Lab::new();
    lab.invited(&outbound(0, "1", "2")).wait_ms(1).b2bua(&inbound(0, "1", "2"), &outbound(0, "1", "2")).wait_ms(1001);
    assert_eq!(pairs(&lab.calls()), ["in0", "out0"]);
    let mut lab = Lab::new();
    lab.answered(&inbound(0, "1", "2")).wait_ms(181_000).answered(&outbound(0, "1", "2")).wait_ms(1001);
    assert_eq!(pairs(&lab.calls()), ["in0", "out0"]);
}

#[test]
fn legs_that_were_told_alone_are_joined_when_the_doubt_ends() {
    let mut lab = Lab::new();
    // Answered by an announcement first, bridged later.
    lab.answered(&inbound(0, "1", "2")).wait_ms(1001);
    let alone = lab.calls()[0].id.clone();
    lab.events();
    lab.answered(&outbound(0, "1", "2"));
    let events = lab.events();
    assert_eq!(pairs(&lab.calls()), ["in0+out0"]);
    assert!(events.iter().any(|e| matches!(e, super::super::model::CallEvent::Delete { id, .. } if *id == alone)));
    assert_eq!(events.len(), 2);
}

#[test]
fn an_announcement_that_ends_in_that_moment_does_not_catch_a_callee() {
    let mut lab = Lab::new();
    let (i0, i1, o1) = (inbound(0, "1", "2"), inbound(1, "1", "2"), outbound(1, "1", "2"));
    lab.invited(&i0).invited(&i1).invited(&o1).wait_ms(1000);
    // The callee answers; an announcement answers the other caller just before the server answers the right one.
    lab.picked_up(&o1).wait_ms(5).picked_up(&i0).wait_ms(5).picked_up(&i1).wait_ms(3000);
    assert_eq!(pairs(&lab.calls()), ["in0", "in1", "out1"]);
}

#[test]
fn numbers_that_are_written_otherwise_count_less_and_do_not_decide() {
    let mut lab = Lab::new();
    lab.b2bua(&inbound(0, "+4930123456", "+49409876543"), &outbound(0, "030123456", "0409876543"));
    assert_eq!(pairs(&lab.calls()), ["in0+out0"]);
    assert_eq!(lab.calls()[0].confidence, Some(65));
    // Only one number, and that written otherwise: with the order of the answers it is enough.
    let mut lab = Lab::new();
    lab.b2bua(&inbound(0, "anonymous", "+49409876543"), &outbound(0, "anonymous", "0409876543"));
    assert_eq!(lab.calls()[0].confidence, Some(40));
    let mut lab = Lab::new();
    lab.answered(&inbound(0, "anonymous", "+49409876543")).wait_ms(500);
    lab.answered(&outbound(0, "anonymous", "0409876543")).wait_ms(3000);
    assert_eq!(pairs(&lab.calls()), ["in0", "out0"]);
    // Of two callees, the one that is written the same is not the likelier one.
    let mut lab = Lab::new();
    let (i, o0, o1) = (inbound(0, "+4930123456", "2"), outbound(0, "+4930123456", "2"), outbound(1, "030123456", "2"));
    lab.invited(&i).invited(&o0).invited(&o1).picked_up(&o0).picked_up(&o1).picked_up(&i).wait_ms(3000);
    assert_eq!(pairs(&lab.calls()), ["in0", "out0", "out1"]);
}

/// A description with a phone's own address.
fn sdp(ip: &str, port: u16) -> String {
    format!("v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n")
}

/// Puts a description of its own into each message of a script.
fn with_sdp(
    (by, phone, text): (super::super::table::script::By, String, String),
    sdp: &str,
) -> (super::super::table::script::By, String, String) {
    let head = text.split("Content-Type").next().unwrap().to_owned();
    (by, phone, format!("{head}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len()))
}

#[test]
fn phones_that_were_told_each_others_address_are_one_call() {
    use super::super::table::script::{Phone, Server};
    let vip = sdp("10.0.0.100", 9000);
    // Equal calls, answered at once; then the server sends one pair's addresses to each other.
    let mut lab = Lab::new();
    let legs: Vec<_> = (0..2).flat_map(|n| [inbound(n, "1", "2"), outbound(n, "1", "2")]).collect();
    let own = |n: usize| sdp(&format!("10.0.0.{}", n + 1), 4000);
    for (n, leg) in legs.iter().enumerate() {
        let (asker, offer) = if leg.out { (Server, vip.clone()) } else { (Phone, own(n)) };
        lab.see(with_sdp(leg.request(asker, "INVITE", 1, "", "x"), &offer));
    }
    for n in [1, 3, 0, 2] {
        let (by, answer) = if legs[n].out { (Phone, own(n)) } else { (Server, vip.clone()) };
        lab.see(with_sdp(legs[n].response(by, 200, "INVITE", 1, "", "x"), &answer));
    }
    lab.wait_ms(2000);
    assert_eq!(lab.calls().len(), 4);
    let reinvite = |lab: &mut Lab, n: usize, to: usize| {
        let offer = own(to);
        lab.see(with_sdp(legs[n].request(Server, "INVITE", 10, "X-In-Dialog: 1\r\n", "x"), &offer));
        lab.see(with_sdp(legs[n].response(Phone, 200, "INVITE", 10, "", "x"), &own(n)));
    };
    reinvite(&mut lab, 1, 2);
    // And with these two, there is no doubt about the others any more.
    assert_eq!(pairs(&lab.calls()), ["in0+out1", "in1+out0"]);
    assert_eq!(lab.calls().iter().map(|c| c.confidence).collect::<Vec<_>>(), [Some(85), Some(90)]);
    // The same private address on both sides says nothing.
    let mut lab = Lab::new();
    let (i, o) = (inbound(0, "1", "2"), outbound(0, "7", "8"));
    for leg in [&i, &o] {
        let (asker, answerer) = if leg.out { (Server, Phone) } else { (Phone, Server) };
        lab.see(with_sdp(leg.request(asker, "INVITE", 1, "", "x"), &own(0)));
        lab.see(with_sdp(leg.response(answerer, 200, "INVITE", 1, "", "x"), &own(0)));
    }
    lab.wait_ms(2000);
    assert_eq!(pairs(&lab.calls()), ["in0", "out0"]);
}

#[test]
fn one_charging_vector_is_one_call() {
    let mut lab = Lab::new();
    let with = |d: Dialog, line: &str| Dialog { extra: format!("{line}\r\n"), ..d };
    let i = [0, 1]
        .map(|n| with(inbound(n, "1", "2"), &format!("P-Charging-Vector: icid-value=\"a;b{n}\";icid-generated-at=192.0.2.1")));
    let i = i.map(|d| Dialog { extra: d.extra.replace("a;b", "ab"), ..d });
    let o = [0, 1].map(|n| with(outbound(n, "1", "2"), &format!("p-charging-vector: orig-ioi=x ; ICID-value=ab{n}")));
    lab.invited(&i[0]).invited(&i[1]).invited(&o[0]).invited(&o[1]);
    lab.picked_up(&o[0]).picked_up(&o[1]).picked_up(&i[1]).picked_up(&i[0]);
    assert_eq!(pairs(&lab.calls()), ["in0+out0", "in1+out1"]);
    assert!(lab.calls().iter().all(|c| c.confidence == Some(95)));
}

#[test]
fn who_was_transferred_late_may_still_find_the_new_party() {
    let mut lab = Lab::new();
    lab.b2bua(&inbound(0, "1", "2"), &outbound(0, "1", "2")).wait_ms(3_600_000);
    // The callee transfers the caller: a new leg, and the old one ends.
    lab.answered(&outbound(1, "1", "3")).hung_up(&outbound(0, "1", "2"), super::super::table::script::Server, 2).wait_ms(2000);
    assert_eq!(pairs(&lab.calls()), ["in0+out1"]);
    assert_eq!(lab.calls()[0].confidence, Some(35));
}

mod truth {
    //! Calls whose truth is known, in any order that a server could make of them.

    use super::super::super::table::script::{By, Dialog, Lab};
    use super::{inbound, outbound, pairs};
    use crate::calls::model::CallEvent;
    use proptest::prelude::*;
    use std::time::Duration;

    /// One call through the server; times are in milliseconds.
    #[derive(Clone, Debug)]
    struct Story {
        caller: u8,
        callee: u8,
        begins: u64,
        /// From the caller's INVITE to the callee's.
        routed: u64,
        /// From the callee's INVITE to its answer; `None`: it is refused.
        rings: Option<u64>,
        /// From the callee's answer to the caller's: below the window that the order of answers rests on.
        answers: u64,
        /// An announcement answers the caller before the callee is called.
        announced: bool,
        talks: u64,
    }

    /// How the server writes the parties of the second leg; it does so for all calls alike.
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

    /// Plays all stories; every pair that was ever told, as `in3+out3`.
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
        prop_oneof![Just(Rewrites::Nothing), Just(Rewrites::National), Just(Rewrites::HidesCaller), Just(Rewrites::NamesDevice),]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        /// Few parties, many calls at once: whatever is paired at any moment is right.
        #[test]
        fn what_is_paired_is_right(stories in proptest::collection::vec(story(2, 2000), 2..16), how in rewrites()) {
            let wrong: Vec<String> = play(&stories, how).into_iter().filter(|p| !is_right(p)).collect();
            prop_assert_eq!(wrong, Vec::<String>::new(), "{:?} {:?}", how, stories);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

        /// Everybody calls somebody else, and nothing is hidden: all calls that are answered are paired, and right.
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
}
