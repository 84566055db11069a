//! Floods of strangers' messages, and the calls during them.

use super::scene::{PHONE, Scene, Sent, VIP, inbound, message, outbound, settings};
use crate::calls::model::{Gap, LegState};
use crate::calls::tracker::{Tracker, TrackerSettings};
use std::time::Duration;

/// Room for unanswered legs with `max_legs` 1000: a quarter.
const WAITING: usize = 250;

/// A first INVITE of a stranger, with a description of `bytes` bytes. `at` is its source.
fn stray_invite(n: usize, at: &str, bytes: usize) -> Sent {
    let mut sent =
        message(&format!("P> INVITE 1 sdp=o at={at} branch=flood{n} ftag=x{n}"), false, &format!("flood-{n}"));
    let line = format!("a=x:{}\r\n", "x".repeat(bytes));
    sent.text =
        sent.text.replace("Content-Length: ", "Content-Length: 1").replace("s=o\r\n", &format!("s=o\r\n{line}"));
    let body = sent.text.split("\r\n\r\n").nth(1).unwrap_or_default().len();
    let (head, rest) = sent.text.split_once("\r\n\r\n").unwrap();
    let head: Vec<&str> = head.lines().filter(|l| !l.starts_with("Content-Length")).collect();
    sent.text = format!("{}\r\nContent-Length: {body}\r\n\r\n{rest}", head.join("\r\n"));
    sent
}

fn flood(s: &mut Scene, count: std::ops::Range<usize>, at: impl Fn(usize) -> String, bytes: usize) {
    for n in count {
        s.hear(&stray_invite(n, &at(n), bytes));
        s.now += Duration::from_millis(1);
    }
}

fn spoofed(n: usize) -> String {
    format!("198.51.{}.{}:5060", n / 250 % 250, n % 250 + 1)
}

fn state_of(s: &Scene, call: &str) -> Option<LegState> {
    s.tracker.legs().find(|t| *t.leg.call_id.0 == *call.as_bytes()).map(|t| t.leg.state)
}

#[test]
fn unanswered_invites_cost_no_call_that_is_up_and_none_that_comes() {
    let mut s = inbound();
    for n in 0..400 {
        s.call_id = format!("up-{n}");
        s.up();
    }
    flood(&mut s, 0..5000, spoofed, 0);
    let load = s.tracker.load();
    assert_eq!((load.answered, load.unanswered, s.all_up().len()), (400, WAITING, 400));
    assert_eq!((s.tracker.counters.gave_way, s.tracker.counters.no_room), (5000 - WAITING as u64, 0));
    assert!(s.tracker.lost().is_some());
    // During the flood a call comes up in each direction.
    for (call, out) in [("in", false), ("out", true)] {
        s.calls_out = out;
        s.call_id = call.into();
        let (asks, other) = if out { ("S", "P") } else { ("P", "S") };
        s.play(&format!("{asks}> INVITE 1 sdp=offer"));
        flood(&mut s, 6000..6100, spoofed, 0);
        s.play(&format!("{other}> 180 INVITE 1"));
        flood(&mut s, 7000..9000, spoofed, 0);
        s.play(&format!("{other}> 200 INVITE 1 sdp=answer\n{asks}> ACK 1"));
        let leg = s.all_up().into_iter().find(|t| *t.leg.call_id.0 == *call.as_bytes()).map(|t| t.leg.clone());
        assert!(leg.is_some_and(|l| l.gaps.is_empty()), "{call}");
    }
    assert_eq!(s.all_up().len(), 402);
    s.wait(400_000);
    assert_eq!((s.tracker.load().unanswered, s.all_up().len()), (0, 402));
}

#[test]
fn who_floods_gives_way_to_who_does_not() {
    let mut s = inbound();
    s.call_id = "patient".into();
    s.play("P> INVITE 1 sdp=offer\nS> 100 INVITE 1");
    // One source, and one IPv6 network with many addresses.
    flood(&mut s, 0..2000, |_| "198.51.100.7:5060".into(), 0);
    flood(&mut s, 2000..4000, |n| format!("[2001:db8:7::{n:x}]:5060"), 0);
    assert_eq!(state_of(&s, "patient"), Some(LegState::Calling));
    s.play("S> 180 INVITE 1\nS> 200 INVITE 1 sdp=answer\nP> ACK 1");
    assert_eq!((s.gaps(), s.session()), (vec![], ("answer".into(), "offer".into())));
}

#[test]
fn an_invite_that_gave_way_is_half_known_when_it_is_answered_and_says_so() {
    let mut s = inbound();
    s.play("P> INVITE 1 sdp=offer at=198.51.100.9:5060");
    flood(&mut s, 0..1000, spoofed, 0);
    assert_eq!(state_of(&s, "call"), None);
    s.play("S> 200 INVITE 1 sdp=answer at=198.51.100.9:5060\nP> ACK 1 at=198.51.100.9:5060");
    assert_eq!(s.all_up().len(), 1);
    assert!(s.gaps().contains(&Gap::Description));
}

#[test]
fn emergency_calls_have_room_of_their_own() {
    let mut s = inbound();
    s.tracker = Tracker::new(TrackerSettings { emergency: vec!["112".into()], ..settings() });
    s.call_id = "sos".into();
    s.play("P> INVITE 1 sdp=offer uri=urn:service:sos at=198.51.100.9:5060");
    flood(&mut s, 0..3000, spoofed, 0);
    assert_eq!(state_of(&s, "sos"), Some(LegState::Calling));
    // A table full of calls that are up leaves room for them as well.
    for n in 0..1200 {
        s.call_id = format!("up-{n}");
        s.up();
    }
    assert_eq!((s.all_up().len(), s.tracker.counters.no_room), (1000, 200));
    s.call_id = "112".into();
    s.play("P> INVITE 1 sdp=offer uri=sip:112@example.org\nS> 200 INVITE 1 sdp=answer\nP> ACK 1");
    assert_eq!((state_of(&s, "112"), s.all_up().len()), (Some(LegState::Confirmed), 1001));
}

#[test]
fn a_call_that_rings_gives_way_to_one_that_is_answered_and_never_the_other_way() {
    let mut s = inbound();
    s.tracker = Tracker::new(TrackerSettings { max_legs: 100, ..settings() });
    for n in 0..100 {
        s.call_id = format!("rings-{n}");
        s.play("P> INVITE 1 sdp=o\nS> 180 INVITE 1");
    }
    for n in 0..100 {
        s.call_id = format!("up-{n}");
        s.up();
    }
    assert_eq!((s.all_up().len(), s.tracker.load().answered), (100, 100));
    for n in 100..200 {
        s.call_id = format!("late-{n}");
        s.play("P> INVITE 1 sdp=o\nS> 180 INVITE 1");
    }
    assert!(s.all_up().iter().all(|t| t.leg.call_id.0.starts_with(b"up-")) && s.all_up().len() == 100);
}

#[test]
fn whoever_sends_invite_and_ack_makes_no_call() {
    let mut s = inbound();
    for n in 0..2000 {
        s.call_id = format!("flood-{n}");
        s.play("P> INVITE 1 sdp=o\nP> ACK 1 sdp=x");
    }
    assert_eq!((s.all_up().len(), s.tracker.load().unanswered), (0, WAITING));
    // If the server has answered after all, its next message shows it.
    s.call_id = "real".into();
    s.play("P> INVITE 1 sdp=o\nP> ACK 1");
    assert!(!s.is_up());
    s.play("S> 180 INVITE 1");
    assert!(s.is_up());
    s.play("S> 200 INVITE 1 sdp=a");
    assert_eq!((s.gaps(), s.session()), (vec![], ("a".into(), "o".into())));
}

#[test]
fn memory_is_bounded_in_bytes_whatever_is_sent() {
    // The room's limits: waiting legs with their long descriptions, claims, and ended legs.
    const MOST: usize = 250 * (4096 + 1024) + 125 * 4096 + 1000 * 2048 + 200 * 8192;
    let mut s = inbound();
    flood(&mut s, 0..3000, spoofed, 15_000);
    assert!(s.tracker.load().bytes < MOST, "{:?}", s.tracker.load());
    assert!(s.tracker.counters.cut > 2000);
    // Refused requests, registrations, keep-alives, answers to nothing.
    for n in 3000..6000 {
        let sent = stray_invite(n, &spoofed(n), 15_000);
        s.hear(&sent);
        s.call_id = format!("flood-{n}");
        s.play(&format!("S> 401 INVITE 1 at={} branch=flood{n} ftag=x{n}", sent.phone));
        s.play("P> OPTIONS 1 tag=q\nP> SUBSCRIBE 1 tag=q\nP> NOTIFY 2 tag=q\nP> 200 INVITE 1 sdp=o\nP> 200 BYE 1\nP> 481 INFO 3");
    }
    assert!(s.tracker.load().bytes < MOST, "{:?}", s.tracker.load());
    // Endless forks of one INVITE.
    s.call_id = "forks".into();
    s.calls_out = true;
    s.play("S> INVITE 1 sdp=o");
    for n in 0..1000 {
        s.play(&format!("P> 183 INVITE 1 tag=fork{n} sdp=a"));
    }
    assert!(s.tracker.legs().filter(|t| *t.leg.call_id.0 == *b"forks").count() <= 32);
    assert!(s.tracker.load().bytes < MOST && s.tracker.timers.len() < 20_000);
    s.wait(700_000);
    s.wait(33_000);
    s.wait(301_000);
    assert_eq!((s.tracker.load().bytes, s.tracker.next_deadline()), (0, None));
}

#[test]
fn offers_without_end_inside_a_dialog_are_bounded() {
    let mut s = inbound();
    s.up();
    let before = s.tracker.load().bytes;
    for n in 2..400 {
        let mut sent = message(&format!("P> reINVITE {n} sdp=o{n}"), false, "call");
        let filler = format!("s=o{n}\r\na=x:{}\r\n", "x".repeat(15_000));
        sent.text = sent.text.replace(&format!("s=o{n}\r\n"), &filler);
        let body = sent.text.split_once("\r\n\r\n").unwrap().1.len();
        let head = sent.text.find("Content-Length: ").unwrap();
        let end = head + sent.text[head..].find("\r\n").unwrap();
        sent.text.replace_range(head..end, &format!("Content-Length: {body}"));
        s.hear(&sent);
    }
    let grown = s.tracker.load().bytes - before;
    assert!((15_000..100_000).contains(&grown), "{grown}");
    assert!(s.is_up());
}

#[test]
fn a_long_offer_is_kept_while_there_is_room_and_named_as_a_gap_when_it_was_not() {
    let long = |s: &mut Scene| {
        let mut sent = stray_invite(0, PHONE, 6000);
        sent.text = sent.text.replace("flood-0", "call").replace("flood0", "p-1").replace("tag=x0", "tag=c");
        s.hear(&sent);
        assert_eq!(s.tracker.legs().count(), 1, "{}", sent.text);
    };
    let answer = "S> 200 INVITE 1 sdp=answer branch=p-1\nP> ACK 1";
    let mut s = inbound();
    long(&mut s);
    s.play(answer);
    assert_eq!((s.gaps(), s.session()), (vec![], ("answer".into(), "o".into())));
    let mut s = inbound();
    long(&mut s);
    flood(&mut s, 1..100, spoofed, 6000);
    s.play(answer);
    assert_eq!((s.gaps(), s.session().0), (vec![Gap::Description], "answer".into()));
    s.play("P> reINVITE 2 sdp=o2\nS> 200 INVITE 2 sdp=a2\nP> ACK 2");
    assert_eq!((s.gaps(), s.session()), (vec![], ("a2".into(), "o2".into())));
}

#[test]
fn dialogs_invented_with_a_known_call_id_keep_no_fork_out() {
    let mut s = outbound();
    for n in 0..100 {
        s.play(&format!("P> BYE 1 tag=invented{n}"));
    }
    s.up();
    assert!(s.is_up());
    assert_eq!(VIP, "10.0.0.100:5060");
}
