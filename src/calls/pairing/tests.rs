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
    // The second caller's call is answered first.
    lab.wait_ms(1000).picked_up(&o1).wait_ms(5).picked_up(&i1);
    lab.wait_ms(50).picked_up(&o0).wait_ms(5).picked_up(&i0);
    assert_eq!(pairs(&lab.calls()), ["in0+out0", "in1+out1"]);
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
