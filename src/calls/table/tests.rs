use super::script::{A, B, By, Dialog, Lab, Phone, Server, VIP, sdp_text, settings};
use super::*;
use crate::calls::model::{LegState, SCHEMA};
use proptest::prelude::*;

fn pair() -> (Dialog, Dialog) {
    (Dialog::new("in", A, false, "1000", "2000"), Dialog::new("out", B, true, "1000", "2000"))
}

fn body(s: &Option<crate::calls::model::Sdp>) -> String {
    s.as_ref().map(|s| s.body.lossy()).unwrap_or_default()
}

#[test]
fn a_b2bua_call_is_one_call_with_two_legs() {
    let mut lab = Lab::new();
    let (i, o) = pair();
    lab.table.set_epoch(7);
    lab.b2bua(&i, &o);
    let events = lab.events();
    let [CallEvent::Put(call)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((call.pairing, call.legs.len(), call.epoch), (Some(Pairing::Evidence), 2, 7));
    assert_eq!((call.instance.as_str(), call.node.as_str(), call.schema), ("main", "n1", SCHEMA));
    assert!(call.id.len() >= 16 && call.id.bytes().all(|b| b.is_ascii_alphanumeric()));
    let [a, b] = call.legs.as_slice() else { panic!() };
    assert_eq!((a.direction, b.direction), (Direction::Inbound, Direction::Outbound));
    assert_eq!(a.remote.lossy(), "\"1000\" <sip:1000@example.org>;tag=f-in");
    assert_eq!(a.local.lossy(), "<sip:2000@example.org>;tag=t-in");
    assert_eq!(b.local.lossy(), "\"1000\" <sip:1000@example.org>;tag=f-out");
    assert_eq!(b.remote.lossy(), "<sip:2000@example.org>;tag=t-out");
    assert_eq!((a.local_tag.lossy(), a.remote_tag.lossy()), ("t-in".into(), "f-in".into()));
    assert_eq!((b.local_tag.lossy(), b.remote_tag.lossy()), ("f-out".into(), "t-out".into()));
    assert_eq!((a.local_cseq, a.remote_cseq, b.local_cseq, b.remote_cseq), (None, Some(1), Some(1), None));
    assert_eq!((a.remote_target.lossy(), a.local_target.lossy()), (format!("sip:c@{A}"), format!("sip:c@{VIP}")));
    assert_eq!((b.remote_target.lossy(), b.local_target.lossy()), (format!("sip:c@{B}"), format!("sip:c@{VIP}")));
    assert_eq!((a.remote_addr.to_string(), b.remote_addr.to_string()), (A.into(), B.into()));
    assert_eq!((a.local_addr.to_string(), b.local_addr.to_string()), (VIP.into(), VIP.into()));
    assert_eq!((body(&a.sdp_received), body(&a.sdp_sent)), (sdp_text("offer"), sdp_text("answer")));
    assert_eq!((body(&b.sdp_sent), body(&b.sdp_received)), (sdp_text("offer"), sdp_text("answer")));
    assert_eq!(a.allow.lossy(), "INVITE, BYE");
    assert!(!a.partial && !b.partial && a.route_set.is_empty() && b.route_set.is_empty());
}

#[test]
fn bye_from_either_side_of_either_leg_ends_the_call() {
    for by in [Phone, Server] {
        for second in [false, true] {
            let mut lab = Lab::new();
            let (i, o) = pair();
            lab.b2bua(&i, &o);
            let id = lab.calls()[0].id.clone();
            lab.events();
            let (first, other) = if second { (&o, &i) } else { (&i, &o) };
            lab.hung_up(first, by, 2);
            let events = lab.events();
            let over = |events: &[CallEvent]| matches!(events.last(), Some(CallEvent::Delete { id: gone, reason: "BYE" }) if *gone == id);
            // While the other party may not know, a phone's hang-up stays in the store.
            assert_eq!(over(&events), by == Server, "{events:?}");
            lab.hung_up(other, Server, 2);
            let events = lab.events();
            assert!(if by == Server { events.is_empty() } else { over(&events) }, "{events:?}");
            lab.wait_ms(60_000);
            assert_eq!(lab.events(), [], "the rest of the call is never told");
            assert_eq!(lab.table.legs().count(), 0);
            assert_eq!(lab.table.counters().unknown_dialog, 0);
        }
    }
}

#[test]
fn a_leg_whose_partner_left_becomes_a_call_of_its_own_until_it_ends() {
    let mut lab = Lab::new();
    let (i, o) = pair();
    lab.b2bua(&i, &o).hung_up(&o, Phone, 1);
    lab.events();
    lab.wait_ms(1001);
    let events = lab.events();
    let [CallEvent::Delete { reason: "BYE", .. }, CallEvent::Put(call)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!((call.pairing, call.legs.len()), (None, 1));
    lab.hung_up(&i, Phone, 2);
    assert!(matches!(lab.events().as_slice(), [.., CallEvent::Delete { .. }]));
}

#[test]
fn a_cancel_ends_only_the_copy_of_the_invite_that_it_names() {
    for rings in [false, true] {
        let mut lab = Lab::new();
        let (i, _) = pair();
        lab.invited(&i);
        if rings {
            lab.ringing(&i);
        }
        // A second copy came by another way, with a number of its own.
        lab.see(i.request(Phone, "INVITE", 2, "", "offer"))
            .see(i.request(Phone, "CANCEL", 2, "", ""))
            .see(i.response(Server, 487, "INVITE", 2, "", ""));
        if rings {
            // Its phone may ring for longer than an unanswered INVITE waits.
            lab.wait_ms(40_000);
        }
        lab.picked_up(&i).wait_ms(2000);
        assert_eq!(lab.calls().len(), 1, "{rings}");
    }
}

#[test]
fn who_takes_a_place_gets_the_partner_of_the_one_who_had_it() {
    let (i, o) = pair();
    let pickup = |names: &str| {
        let mut c = Dialog::new("new", "10.0.0.3:5060", false, "3000", "pickup");
        c.extra = format!("Replaces: {names}\r\n");
        c
    };
    let of = |calls: &[Call]| {
        calls.iter().map(|c| c.legs.iter().map(|l| l.call_id.lossy()).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let mut lab = Lab::new();
    lab.b2bua(&i, &o);
    lab.answered(&pickup("in;to-tag=t-in;from-tag=f-in")).hung_up(&i, Server, 1).wait_ms(2000);
    let calls = lab.calls();
    assert_eq!(of(&calls), [["new", "out"]]);
    assert_eq!((calls[0].pairing, calls[0].confidence), (Some(Pairing::Evidence), Some(95)));
    // The tags of somebody else's dialog match no leg.
    let mut lab = Lab::new();
    lab.b2bua(&i, &o);
    lab.answered(&pickup("in;to-tag=f-in;from-tag=t-in")).wait_ms(2000);
    assert_eq!(of(&lab.calls()), [vec!["in", "out"], vec!["new"]]);
}

#[test]
fn a_bye_without_an_answer_leaves_no_ghost_and_one_that_is_challenged_ends_nothing() {
    let mut lab = Lab::new();
    let (i, o) = pair();
    lab.b2bua(&i, &o).see(i.request(Phone, "BYE", 2, "", "")).see(i.response(Server, 401, "BYE", 2, "", ""));
    lab.wait_ms(40_000);
    assert_eq!(lab.calls().len(), 1);
    lab.see(i.request(Phone, "BYE", 3, "", "")).see(o.request(Server, "BYE", 2, "", "")).wait_ms(33_000);
    assert_eq!(lab.calls().len(), 0);
    assert_eq!(lab.table.legs().count(), 0);
    lab.wait_ms(301_000);
    assert_eq!(lab.table.next_deadline(), None, "nothing is kept");
}

#[test]
fn a_proxied_call_is_one_dialog_seen_twice_and_only_routes_beyond_the_proxy_count() {
    let mut lab = Lab::new();
    // The caller sits behind an edge proxy, the callee behind another, and the server record-routes between them.
    let mut i = Dialog::new("c", A, false, "1000", "2000");
    i.extra = "Record-Route: <sip:edge-a;lr>\r\n".into();
    let mut o = i.clone();
    (o.out, o.phone) = (true, B.into());
    o.extra = "Record-Route: <sip:10.0.0.100;lr>, <sip:edge-a;lr>\r\n".into();
    let all =
        "Record-Route: <sip:edge-b2;lr>, <sip:edge-b1;lr>\r\nRecord-Route: <sip:10.0.0.100;lr>, <sip:edge-a;lr>\r\n";
    lab.see(i.request(Phone, "INVITE", 1, "", "offer")).see(i.response(Server, 100, "INVITE", 1, "", ""));
    lab.see(o.request(Server, "INVITE", 1, "", "offer"));
    for code in [180, 200] {
        let sdp = if code == 200 { "answer" } else { "" };
        lab.see(o.response(Phone, code, "INVITE", 1, all, sdp)).see(i.response(Server, code, "INVITE", 1, all, sdp));
    }
    lab.see(i.request(Phone, "ACK", 1, "", "")).see(o.request(Server, "ACK", 1, "", ""));
    let calls = lab.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].pairing, Some(Pairing::SameDialog));
    let [a, b] = calls[0].legs.as_slice() else { panic!() };
    let routes = |l: &Leg| l.route_set.iter().map(crate::calls::model::Verbatim::lossy).collect::<Vec<_>>();
    assert_eq!(routes(a), ["<sip:edge-a;lr>"]);
    assert_eq!(routes(b), ["<sip:edge-b1;lr>", "<sip:edge-b2;lr>"]);
    assert_eq!((a.local_tag.lossy(), b.local_tag.lossy()), ("t-c".into(), "f-c".into()));
    // A BYE of the callee passes both legs.
    lab.see(o.request(Phone, "BYE", 9, "", "")).see(i.request(Server, "BYE", 9, "", ""));
    lab.see(i.response(Phone, 200, "BYE", 9, "", "")).see(o.response(Server, 200, "BYE", 9, "", ""));
    assert_eq!((lab.calls().len(), lab.table.legs().count()), (0, 0));
}

#[test]
fn only_the_fork_that_answered_is_a_call() {
    let mut lab = Lab::new();
    let o = Dialog::new("f", B, true, "1000", "2000");
    let fork = |tag: &str| Dialog { to_tag: tag.into(), ..o.clone() };
    lab.invited(&o);
    for tag in ["one", "two", "three"] {
        lab.see(fork(tag).response(Phone, 183, "INVITE", 1, &format!("Record-Route: <sip:{tag};lr>\r\n"), tag));
    }
    assert_eq!(lab.table.legs().count(), 3);
    lab.see(fork("two").response(Phone, 200, "INVITE", 1, "Record-Route: <sip:two;lr>\r\n", ""));
    lab.wait_ms(1001);
    let calls = lab.calls();
    assert_eq!(calls.len(), 1);
    let leg = &calls[0].legs[0];
    assert_eq!((leg.remote_tag.lossy(), body(&leg.sdp_received)), ("two".into(), sdp_text("two")));
    assert_eq!(leg.route_set, ["<sip:two;lr>".into()]);
    // A fork that answers late is a dialog as well: its 200 needs an ACK and a BYE.
    lab.see(fork("one").response(Phone, 200, "INVITE", 1, "", "late"));
    lab.wait_ms(33_000);
    assert_eq!((lab.calls().len(), lab.table.legs().count()), (2, 2), "the third fork is gone");
}

#[test]
fn a_late_offer_counts_with_the_answer_in_ack() {
    let mut lab = Lab::new();
    let o = Dialog::new("late", B, true, "1000", "2000");
    lab.see(o.request(Server, "INVITE", 1, "", "")).see(o.response(Phone, 200, "INVITE", 1, "", "offer2"));
    lab.wait_ms(1001);
    assert_eq!(body(&lab.calls()[0].legs[0].sdp_received), "");
    lab.events();
    lab.see(o.request(Server, "ACK", 1, "", "answer2"));
    let leg = &lab.calls()[0].legs[0];
    assert_eq!((body(&leg.sdp_received), body(&leg.sdp_sent)), (sdp_text("offer2"), sdp_text("answer2")));
    assert_eq!(lab.events().len(), 1, "the change is told");
}

#[test]
fn re_invites_count_only_when_they_are_accepted() {
    for (code, accepted) in [(200, true), (488, false), (491, false), (500, false)] {
        let mut lab = Lab::new();
        let (i, o) = pair();
        lab.b2bua(&i, &o);
        let hold = i.request(Phone, "INVITE", 2, "X-In-Dialog: 1\r\nContact: <sip:ignored@h>\r\n", "hold");
        let moved = (hold.0, hold.1, hold.2.replacen(&format!("<sip:c@{A}>"), "<sip:moved@10.0.0.9>", 1));
        lab.see(moved);
        let before = lab.calls()[0].legs[0].clone();
        assert_eq!((body(&before.sdp_received), before.remote_cseq), (sdp_text("offer"), Some(2)));
        lab.see(i.response(Server, code, "INVITE", 2, "", if accepted { "held" } else { "" }));
        lab.see(i.request(Phone, "ACK", 2, "", ""));
        let leg = &lab.calls()[0].legs[0];
        let (sent, received, target) = if accepted {
            ("held", "hold", "sip:moved@10.0.0.9".to_owned())
        } else {
            ("answer", "offer", format!("sip:c@{A}"))
        };
        assert_eq!((body(&leg.sdp_sent), body(&leg.sdp_received)), (sdp_text(sent), sdp_text(received)), "{code}");
        assert_eq!(leg.remote_target.lossy(), target);
        assert_eq!(leg.state, LegState::Confirmed);
    }
}

#[test]
fn retransmissions_change_nothing() {
    let mut once = Lab::new();
    let mut twice = Lab::new();
    let (i, o) = pair();
    let script = [
        i.request(Phone, "INVITE", 1, "", "offer"),
        o.request(Server, "INVITE", 1, "", "offer"),
        o.response(Phone, 183, "INVITE", 1, "", "early"),
        i.response(Server, 180, "INVITE", 1, "", ""),
        o.response(Phone, 200, "INVITE", 1, "", "answer"),
        i.response(Server, 200, "INVITE", 1, "", "answer"),
        i.request(Phone, "ACK", 1, "", ""),
        i.request(Phone, "INFO", 2, "", ""),
        i.response(Server, 200, "INFO", 2, "", ""),
        i.request(Phone, "INVITE", 3, "X-In-Dialog: 1\r\n", "hold"),
        i.response(Server, 200, "INVITE", 3, "", "held"),
    ];
    for step in script {
        once.see(step.clone());
        twice.see(step.clone()).see(step.clone()).wait_ms(1).see(step);
    }
    assert_eq!(once.calls(), twice.calls());
    assert_eq!(once.calls().len(), 1);
    twice.events();
    twice.see(i.response(Server, 200, "INVITE", 3, "", "held"));
    assert_eq!(twice.events(), []);
}

#[test]
fn update_and_prack_carry_offers_in_an_early_dialog() {
    let mut lab = Lab::new();
    let o = Dialog::new("p", B, true, "1000", "2000");
    lab.invited(&o).see(o.response(Phone, 183, "INVITE", 1, "RSeq: 1\r\nRequire: 100rel\r\n", "answer1"));
    lab.see(o.request(Server, "PRACK", 2, "", "offer2")).see(o.response(Phone, 200, "PRACK", 2, "", "answer2"));
    lab.see(o.request(Phone, "UPDATE", 1, "", "offer3")).see(o.response(Server, 200, "UPDATE", 1, "", "answer3"));
    // A description repeated in the 2xx is no longer an answer.
    lab.see(o.response(Phone, 200, "INVITE", 1, "", "answer1")).wait_ms(1001);
    let leg = &lab.calls()[0].legs[0];
    assert_eq!((body(&leg.sdp_received), body(&leg.sdp_sent)), (sdp_text("offer3"), sdp_text("answer3")));
    assert_eq!((leg.local_cseq, leg.remote_cseq), (Some(2), Some(1)));
}

#[test]
fn the_last_2xx_sets_the_session_timer() {
    let mut lab = Lab::new();
    let o = Dialog::new("t", B, true, "1000", "2000");
    lab.invited(&o)
        .see(o.response(Phone, 200, "INVITE", 1, "Session-Expires: 1800;refresher=uas\r\n", "a"))
        .wait_ms(1001);
    let timer = |lab: &Lab| lab.calls()[0].legs[0].session_timer.map(|t| (t.interval_s, t.local_refreshes));
    assert_eq!(timer(&lab), Some((1800, false)));
    lab.see(o.request(Phone, "UPDATE", 1, "", "")).see(o.response(
        Server,
        200,
        "UPDATE",
        1,
        "x: 90;refresher=uas\r\n",
        "",
    ));
    assert_eq!(timer(&lab), Some((90, true)));
    lab.wait_ms(149_000);
    assert_eq!(lab.calls().len(), 1);
    lab.wait_ms(2_000);
    assert_eq!((lab.calls().len(), lab.table.counters().swept), (0, 1), "nobody refreshed");
    assert!(matches!(lab.events().last(), Some(CallEvent::Delete { .. })));
}

#[test]
fn a_cancelled_or_refused_call_is_never_told() {
    let mut lab = Lab::new();
    let (i, o) = pair();
    lab.invited(&i).invited(&o).ringing(&o).ringing(&i);
    lab.see(i.request(Phone, "CANCEL", 1, "", "")).see(i.response(Server, 487, "INVITE", 1, "", ""));
    lab.see(o.request(Server, "CANCEL", 1, "", "")).see(o.response(Phone, 487, "INVITE", 1, "", ""));
    lab.see(i.request(Phone, "ACK", 1, "", ""));
    lab.wait_ms(2000);
    assert_eq!((lab.events(), lab.table.legs().count()), (vec![], 0));
    // A 2xx that crosses the CANCEL makes a call.
    let late = Dialog::new("cross", A, false, "1", "2");
    lab.invited(&late).see(late.request(Phone, "CANCEL", 1, "", "")).picked_up(&late).wait_ms(1001);
    assert_eq!(lab.calls().len(), 1);
}

#[test]
fn a_second_try_with_credentials_is_the_call() {
    let mut lab = Lab::new();
    let i = Dialog::new("auth", A, false, "1000", "2000");
    lab.invited(&i).see(i.response(Server, 401, "INVITE", 1, "", "")).see(i.request(Phone, "ACK", 1, "", ""));
    lab.see(i.request(Phone, "INVITE", 2, "", "offer"))
        .see(i.response(Server, 200, "INVITE", 2, "", "answer"))
        .wait_ms(1001);
    assert_eq!(lab.calls().len(), 1);
    assert_eq!(lab.calls()[0].legs[0].remote_cseq, Some(2));
}

#[test]
fn emergency_calls_are_marked() {
    for (uri, marked) in
        [("urn:service:sos.fire", true), ("sip:112@h", true), ("sip:1123@h", false), ("urn:service:sosx", false)]
    {
        let mut lab = Lab::new();
        let i = Dialog { uri: uri.into(), ..Dialog::new("e", A, false, "1", "2") };
        lab.answered(&i).wait_ms(1001);
        assert_eq!(lab.calls()[0].emergency, marked, "{uri}");
    }
}

#[test]
fn what_is_not_learnt_is_counted() {
    let mut lab = Lab::new();
    lab.table = Table::new(TableSettings { max_calls: 1, ..settings() });
    for n in 0..3 {
        lab.invited(&Dialog::new(&format!("d{n}"), A, false, "1", "2"));
    }
    assert_eq!(lab.table.counters().not_learnt, 0, "what is not answered takes no place of what is");
    for n in 0..3 {
        lab.picked_up(&Dialog::new(&format!("d{n}"), A, false, "1", "2"));
    }
    lab.hung_up(&Dialog::new("never-seen", A, false, "1", "2"), Phone, 5);
    for junk in [&b"\r\n\r\n"[..], b"hello, this is no SIP", b"INVITE sip:a SIP/2.0\r\nFrom: x\r\n\r\n"] {
        lab.see_bytes(Phone, A, junk);
    }
    let foreign = Packet {
        src: A.parse().unwrap(),
        dst: B.parse().unwrap(),
        transport: crate::sip::Transport::Udp,
        payload: b"x",
    };
    lab.table.handle_packet(&foreign, 0, lab.now);
    let c = lab.table.counters();
    assert_eq!((c.not_learnt, c.unknown_dialog, c.keep_alives, c.not_sip, c.malformed, c.foreign), (1, 1, 1, 1, 1, 1));
    assert_eq!((c.no_room, lab.table.legs().filter(|l| l.state == LegState::Confirmed).count()), (1, 2));
    lab.wait_ms(24 * 3_600_000 + 1).wait_ms(33_000).wait_ms(301_000);
    assert_eq!((lab.table.legs().count(), lab.table.next_deadline()), (0, None));
}

#[test]
fn an_adopted_call_goes_on_and_ends() {
    let mut lab = Lab::new();
    let (i, o) = pair();
    lab.b2bua(&i, &o);
    let call = lab.calls().remove(0);
    let mut next = Lab::new();
    next.table.adopt(&call, next.now);
    next.table.adopt(&call, next.now);
    assert_eq!((next.calls(), next.events()), (vec![call.clone()], vec![]));
    next.see(i.request(Phone, "INFO", 2, "", ""));
    let events = next.events();
    assert!(
        matches!(events.as_slice(), [CallEvent::Put(c)] if c.id == call.id && c.legs[0].remote_cseq == Some(2)),
        "{events:?}"
    );
    next.hung_up(&o, Phone, 1).hung_up(&i, Server, 1);
    assert!(matches!(next.events().last(), Some(CallEvent::Delete { id, .. }) if *id == call.id));
}

#[test]
fn clear_forgets_without_a_word() {
    let mut lab = Lab::new();
    let (i, o) = pair();
    lab.b2bua(&i, &o);
    lab.table.clear();
    assert_eq!(
        (lab.calls().len(), lab.events().len(), lab.table.legs().count(), lab.table.next_deadline()),
        (0, 0, 0, None)
    );
    lab.b2bua(&i, &o);
    assert_eq!(lab.calls().len(), 1);
}

fn any_step() -> impl Strategy<Value = (bool, bool, u8, u8, u8, bool)> {
    (any::<bool>(), any::<bool>(), 0u8..8, 0u8..12, 1u8..5, any::<bool>())
}

proptest! {
    /// No order of well-formed and damaged messages causes a panic or a ghost after silence.
    #[test]
    fn any_messages_leave_no_panic_and_no_ghost(steps in proptest::collection::vec((any_step(), any::<u16>(), any::<u8>(), 0u64..3000), 1..60)) {
        const METHODS: [&str; 8] = ["INVITE", "ACK", "BYE", "CANCEL", "UPDATE", "PRACK", "INFO", "INVITE"];
        const CODES: [u16; 12] = [100, 180, 183, 200, 200, 202, 302, 401, 481, 487, 491, 600];
        let mut lab = Lab::new();
        let (i, o) = pair();
        for ((inbound, by_phone, method, code, cseq, request), at, byte, ms) in steps {
            let d = if inbound { &i } else { &o };
            let by: By = if by_phone { Phone } else { Server };
            let name = METHODS[usize::from(method)];
            let sdp = if cseq % 2 == 0 { "x" } else { "" };
            let more = if method == 7 { "X-In-Dialog: 1\r\n" } else { "" };
            let (by, phone, text) = if request { d.request(by, name, u32::from(cseq), more, sdp) } else { d.response(by, CODES[usize::from(code)], name, u32::from(cseq), "", sdp) };
            let mut bytes = text.into_bytes();
            if at % 3 == 0 {
                let at = usize::from(at) % bytes.len();
                bytes[at] = byte;
            }
            lab.see_bytes(by, &phone, &bytes).wait_ms(ms);
            for event in lab.events() {
                if let CallEvent::Put(call) = event {
                    prop_assert!(!call.legs.is_empty() && call.legs.len() <= 2);
                    prop_assert_eq!(call.legs.len() == 2, call.pairing.is_some());
                }
            }
        }
        lab.wait_ms(25 * 3600 * 1000).wait_ms(33_000).wait_ms(301_000);
        prop_assert_eq!((lab.calls().len(), lab.table.legs().count(), lab.table.next_deadline()), (0, 0, None));
    }

    /// The polled events add up to the table's own view.
    #[test]
    fn events_add_up_to_the_calls(order in proptest::collection::vec((0usize..6, 0u8..6, 0u64..700), 1..60)) {
        let mut lab = Lab::new();
        let legs: Vec<_> = (0..3).flat_map(|n| [Dialog::new(&format!("i{n}"), A, false, "1", "2"), Dialog::new(&format!("o{n}"), B, true, "1", "2")]).collect();
        let mut stored = std::collections::BTreeMap::new();
        for (leg, what, ms) in order {
            let d = &legs[leg];
            match what {
                0 | 1 => lab.invited(d),
                2 => lab.ringing(d),
                3 | 4 => lab.picked_up(d),
                _ => lab.hung_up(d, Phone, 7),
            };
            lab.wait_ms(ms);
            for event in lab.events() {
                match event {
                    CallEvent::Put(call) => { stored.insert(call.id.clone(), *call); }
                    CallEvent::Delete { id, .. } => { stored.remove(&id); }
                }
            }
            let held: std::collections::BTreeMap<_, _> = lab.calls().into_iter().map(|c| (c.id.clone(), c)).collect();
            prop_assert_eq!(&held, &stored);
        }
    }
}
