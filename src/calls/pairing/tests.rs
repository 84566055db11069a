use crate::calls::model::{Call, Pairing};
use crate::calls::table::script::{A, B, Dialog, Lab};

fn inbound(n: u32, caller: &str, callee: &str) -> Dialog {
    Dialog::new(&format!("in{n}"), A, false, caller, callee)
}

fn outbound(n: u32, caller: &str, callee: &str) -> Dialog {
    Dialog::new(&format!("out{n}"), B, true, caller, callee)
}

/// `in3+out3` for each call, sorted.
fn pairs(calls: &[Call]) -> Vec<String> {
    let mut all: Vec<_> =
        calls.iter().map(|c| c.legs.iter().map(|l| l.call_id.lossy()).collect::<Vec<_>>().join("+")).collect();
    all.sort();
    all
}

#[test]
fn many_calls_at_the_same_moment_are_told_apart_by_their_parties() {
    let mut lab = Lab::new();
    let calls: Vec<_> = (0..10)
        .map(|n| {
            (inbound(n, &format!("{}", 1000 + n), &format!("{}", 2000 + n)), outbound(n, &format!("{}", 1000 + n), "s"))
        })
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
    // The second caller's call is answered first. The pair is clear once nobody else was answered in that window.
    lab.wait_ms(1000).picked_up(&o1).wait_ms(5).picked_up(&i1);
    assert_eq!(lab.calls().len(), 0);
    lab.wait_ms(250).picked_up(&o0).wait_ms(5).picked_up(&i0);
    assert_eq!(pairs(&lab.calls()), ["in0+out0", "in1+out1"]);
    let confidence: Vec<_> = lab.calls().iter().map(|c| c.confidence).collect();
    // The order of the answers decided the first pair. The second was then certain.
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
    // An announcement answered the first caller. The callee's caller stays open while both wait.
    lab.invited(&i0).picked_up(&i0).wait_ms(600).invited(&i1).invited(&o).picked_up(&o).wait_ms(100);
    assert!(lab.calls().iter().all(|c| c.legs.len() == 1));
    // The rival gives up, which removes the doubt.
    lab.see(i1.response(crate::calls::table::script::Server, 486, "INVITE", 1, "", "")).wait_ms(1);
    assert_eq!(pairs(&lab.calls()), ["in0+out0"]);
}

#[test]
fn stronger_evidence_comes_first() {
    for (line, pairing) in [
        ("X-Pair: k{}\r\n", Pairing::Header),
        (
            "Session-ID: ab30317f1a784dc48ff824d0d3715d8{};remote=00000000000000000000000000000000\r\n",
            Pairing::SessionId,
        ),
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
    for (caller, other, callee, called) in
        [("1", "7", "2", "8"), ("anonymous", "anonymous", "2", "8"), ("1", "2", "2", "1")]
    {
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
    assert!(events.iter().any(|e| matches!(e, crate::calls::model::CallEvent::Delete { id, .. } if *id == alone)));
    assert_eq!(events.len(), 2);
}

#[test]
fn an_announcement_that_ends_in_that_moment_does_not_catch_a_callee() {
    let mut lab = Lab::new();
    let (i0, i1, o1) = (inbound(0, "1", "2"), inbound(1, "1", "2"), outbound(1, "1", "2"));
    lab.invited(&i0).invited(&i1).invited(&o1).wait_ms(1000);
    // The callee answers. An announcement answers the other caller just before the server answers the right one.
    lab.picked_up(&o1).wait_ms(5).picked_up(&i0).wait_ms(5).picked_up(&i1).wait_ms(3000);
    assert_eq!(pairs(&lab.calls()), ["in0", "in1", "out1"]);
}

#[test]
fn everyday_calls_are_sure_enough_to_be_connected() {
    let with = |caller: [&str; 2], callee: [&str; 2], early: bool| {
        let mut lab = Lab::new();
        let (i, o) = (inbound(0, caller[0], callee[0]), outbound(0, caller[1], callee[1]));
        if early {
            lab.invited(&i).picked_up(&i).wait_ms(600).invited(&o).picked_up(&o).wait_ms(3000);
        } else {
            lab.b2bua(&i, &o).wait_ms(3000);
        }
        lab.calls()[0].confidence
    };
    let (exact, otherwise) = (["100", "100"], ["+49409876543", "0409876543"]);
    for (caller, callee, early, confidence) in [
        (exact, exact, false, 85),
        (exact, otherwise, false, 81),
        (otherwise, otherwise, false, 81),
        // The dial plan answers, and then dials on.
        (exact, exact, true, 80),
        (exact, otherwise, true, 66),
        // One party may be anybody's: a hidden caller, or a speed dial.
        (["anonymous", "anonymous"], exact, false, 50),
        (exact, ["*1", "0409876543"], false, 50),
        (exact, ["*1", "0409876543"], true, 35),
    ] {
        let found = with(caller, callee, early);
        assert_eq!(found, Some(confidence), "{caller:?} {callee:?} {early}");
        let everyday = !caller.contains(&"anonymous") && callee[0] != "*1" && !(early && callee == otherwise);
        assert_eq!(found >= Some(crate::config::MIN_CONFIDENCE), everyday, "{caller:?} {callee:?} {early}");
    }
}

#[test]
fn numbers_that_are_written_otherwise_count_less_and_do_not_decide() {
    let mut lab = Lab::new();
    lab.b2bua(&inbound(0, "+4930123456", "+49409876543"), &outbound(0, "030123456", "0409876543"));
    assert_eq!(pairs(&lab.calls()), ["in0+out0"]);
    assert_eq!(lab.calls()[0].confidence, Some(81));
    // Only one number, in another notation: with the order of the answers it is enough.
    let mut lab = Lab::new();
    lab.b2bua(&inbound(0, "anonymous", "+49409876543"), &outbound(0, "anonymous", "0409876543"));
    assert_eq!(lab.calls()[0].confidence, Some(40));
    let mut lab = Lab::new();
    lab.answered(&inbound(0, "anonymous", "+49409876543")).wait_ms(500);
    lab.answered(&outbound(0, "anonymous", "0409876543")).wait_ms(3000);
    assert_eq!(pairs(&lab.calls()), ["in0", "out0"]);
    // Of two callees, the one in the same notation is not the likelier one.
    let mut lab = Lab::new();
    let (i, o0, o1) = (inbound(0, "+4930123456", "2"), outbound(0, "+4930123456", "2"), outbound(1, "030123456", "2"));
    lab.invited(&i).invited(&o0).invited(&o1).picked_up(&o0).picked_up(&o1).picked_up(&i).wait_ms(3000);
    assert_eq!(pairs(&lab.calls()), ["in0", "out0", "out1"]);
}

/// A description with a phone's own address.
fn sdp(ip: &str, port: u16) -> String {
    format!("v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n")
}

/// Replaces the description in a message of a script.
fn with_sdp(
    (by, phone, text): (crate::calls::table::script::By, String, String),
    sdp: &str,
) -> (crate::calls::table::script::By, String, String) {
    let head = text.split("Content-Type").next().unwrap().to_owned();
    (by, phone, format!("{head}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len()))
}

#[test]
fn phones_that_were_told_each_others_address_are_one_call() {
    use crate::calls::table::script::{Phone, Server};
    let vip = sdp("10.0.0.100", 9000);
    // Equal calls, answered at once. Then the server sends one pair's addresses to each other.
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
    // That pair removes the doubt about the others.
    assert_eq!(pairs(&lab.calls()), ["in0+out1", "in1+out0"]);
    assert_eq!(lab.calls().iter().map(|c| c.confidence).collect::<Vec<_>>(), [Some(85), Some(90)]);
    // The same private address on both sides proves nothing.
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
    let i = [0, 1].map(|n| {
        with(inbound(n, "1", "2"), &format!("P-Charging-Vector: icid-value=\"a;b{n}\";icid-generated-at=192.0.2.1"))
    });
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
    // The callee transfers the caller: a new leg starts, and the old one ends.
    lab.answered(&outbound(1, "1", "3"))
        .hung_up(&outbound(0, "1", "2"), crate::calls::table::script::Server, 2)
        .wait_ms(2000);
    assert_eq!(pairs(&lab.calls()), ["in0+out1"]);
    assert_eq!(lab.calls()[0].confidence, Some(35));
}

mod truth;
