//! Captures of half a dialog: one direction, responses only, the end of it. And copies, which are no other call.

use super::build::{Hop, Shot, audio, rtp};
use super::report::{By, State};
use super::{only, told, with_vip};

const A: &str = "10.0.0.1:5060";
const B: &str = "10.0.0.2:5060";
const S: &str = "10.0.0.100:5060";

fn a() -> String {
    audio("10.0.0.1:4000", "")
}

fn b() -> String {
    audio("10.0.0.100:9000", "")
}

fn hop() -> Hop {
    Hop::new("c", A, S, "1000", "2000")
}

/// An ACK of a 2xx, with a branch of its own.
fn ack(h: &Hop) -> Shot {
    h.request(true, "ACK", h.cseq, "", "")
}

/// The ACK of a refusal has the branch of its INVITE.
fn ack_of_refusal(h: &Hop) -> Shot {
    let text = String::from_utf8(ack(h).payload).unwrap();
    let branch = format!("{}ACK{}", h.branch, h.cseq);
    Shot { payload: text.replace(&branch, &h.branch).into_bytes(), ..ack(h) }
}

fn state(shots: Vec<Shot>) -> (State, Option<u16>, bool) {
    let r = with_vip(shots, "10.0.0.100");
    let c = only(&r);
    (c.state, c.code, c.partial)
}

#[test]
fn the_caller_s_packets_alone_tell_the_course() {
    let h = hop();
    assert_eq!(state(vec![h.invite(&a())]), (State::Calling, None, false));
    assert_eq!(state(vec![h.invite(&a()), ack(&h)]), (State::Up, None, true));
    assert_eq!(state(vec![h.invite(&a()), ack(&h), h.request(true, "BYE", 2, "", "")]), (State::Ended, None, true));
    // The server's BYE shows itself by its answer.
    let ok = h.response(true, 200, "BYE", 1, "");
    assert_eq!(state(vec![h.invite(&a()), ack(&h), ok.clone()]), (State::Ended, None, true));
    assert_eq!(state(vec![h.invite(&a()), ok]), (State::Ended, None, true));
    // No ACK was captured, but callers give up by CANCEL before the answer.
    assert_eq!(state(vec![h.invite(&a()), h.request(true, "BYE", 2, "", "")]), (State::Ended, None, true));
    assert_eq!(state(vec![h.invite(&a()), h.request(true, "INVITE", 2, "", &a())]), (State::Up, None, true));
    assert_eq!(state(vec![h.invite(&a()), ack_of_refusal(&h)]), (State::Failed, None, false));
    assert_eq!(state(vec![h.invite(&a()), h.cancel(""), ack_of_refusal(&h)]), (State::Cancelled, None, false));
    // Credentials were asked for, then the call was answered.
    let again = Hop { cseq: 2, branch: "z9hG4bKagain".into(), ..h.clone() };
    let shots = vec![h.invite(&a()), ack_of_refusal(&h), again.invite(&a()), ack(&again)];
    let r = with_vip(shots, "10.0.0.100");
    assert_eq!((only(&r).state, only(&r).legs.len()), (State::Up, 1));
    // Neither the refusal nor its ACK was captured.
    let r = with_vip(vec![h.invite(&a()), again.invite(&a()), ack(&again)], "10.0.0.100");
    assert_eq!((only(&r).state, only(&r).legs.len()), (State::Up, 1));
}

#[test]
fn the_server_s_packets_alone_tell_the_course() {
    let h = hop();
    let (ringing, busy) = (h.answer(180, ""), h.answer(486, ""));
    assert_eq!(state(vec![ringing.clone()]), (State::Ringing, None, true));
    assert_eq!(state(vec![ringing.clone(), busy.clone()]), (State::Failed, Some(486), true));
    assert_eq!(state(vec![busy]), (State::Failed, Some(486), true));
    assert_eq!(state(vec![ringing.clone(), h.answer(302, "")]), (State::Redirected, Some(302), true));
    let ok_of_cancel = h.response(false, 200, "CANCEL", 1, "");
    let same = String::from_utf8(ok_of_cancel.payload.clone()).unwrap();
    let same = same.replace(&format!("{}CANCEL1", h.branch), &h.branch).into_bytes();
    let ok_of_cancel = Shot { payload: same, ..ok_of_cancel };
    assert_eq!(state(vec![ringing.clone(), ok_of_cancel]), (State::Cancelled, None, true));
    assert_eq!(state(vec![ringing.clone(), h.answer(487, "")]), (State::Cancelled, Some(487), true));
    assert_eq!(state(vec![ringing.clone(), h.answer(200, &b())]), (State::Up, Some(200), true));
    let bye = h.response(false, 200, "BYE", 2, "");
    assert_eq!(state(vec![ringing, h.answer(200, &b()), bye.clone()]), (State::Ended, Some(200), true));
    // Challenged, BYE ends nothing.
    assert_eq!(state(vec![h.answer(200, &b()), h.response(false, 401, "BYE", 2, "")]).0, State::Up);
    assert_eq!(state(vec![bye]), (State::Ended, None, true));
    // The caller was asked for credentials first.
    let first = Hop { to_tag: "other".into(), ..h.clone() };
    let again = Hop { cseq: 2, branch: "z9hG4bKagain".into(), ..h };
    let r = with_vip(vec![first.answer(401, ""), again.answer(180, "")], "10.0.0.100");
    let c = only(&r);
    assert_eq!((c.state, c.legs.len(), c.legs[0].retried.as_slice()), (State::Ringing, 1, &[401][..]));
}

#[test]
fn only_a_refresh_tells_that_a_call_is_up() {
    let h = hop();
    for method in ["INVITE", "UPDATE"] {
        let r = with_vip(vec![h.response(true, 200, method, 9, &a())], "10.0.0.100");
        assert_eq!((only(&r).state, only(&r).partial), (State::Up, true), "{method}");
    }
}

#[test]
fn a_later_invite_that_was_refused_does_not_end_a_call() {
    let h = hop();
    let refused = h.response(false, 488, "INVITE", 7, "");
    let info = h.request(true, "INFO", 8, "", "");
    let r = with_vip(vec![refused, info], "10.0.0.100");
    assert_eq!((only(&r).state, only(&r).code, only(&r).ended_ms), (State::Up, None, None));
}

#[test]
fn a_copy_of_the_invite_is_no_other_call() {
    let h = hop();
    let copy = Hop { branch: "z9hG4bKcopy".into(), cseq: 2, a: "10.0.0.1:1032".into(), ..h.clone() };
    // CANCEL of the copy, before and after the answer to the first.
    let refused = Hop { to_tag: "other".into(), ..copy.clone() };
    let before =
        vec![h.invite(&a()), copy.invite(&a()), copy.cancel(""), refused.answer(487, ""), h.answer(200, &b()), ack(&h)];
    let r = with_vip(before, "10.0.0.100");
    assert_eq!((r.calls.len(), r.calls[0].state, r.calls[0].ended_by), (1, State::Up, None));
    // The same CSeq: a fork on its way to the server (RFC 3261 section 8.2.2.2).
    let merged = Hop { cseq: 1, ..copy };
    let shots = vec![h.invite(&a()), merged.invite(&a()), Hop { to_tag: "x".into(), ..merged.clone() }.answer(482, "")];
    let r = with_vip([shots.clone(), vec![h.answer(180, "")]].concat(), "10.0.0.100");
    assert_eq!((r.calls.len(), r.calls[0].state), (1, State::Ringing));
    let r = with_vip([shots, vec![h.answer(200, &b()), merged.cancel(""), ack(&h)]].concat(), "10.0.0.100");
    assert_eq!((r.calls.len(), r.calls[0].state), (1, State::Up));
}

#[test]
fn reinvites_count_once_whoever_sent_them_and_however_often() {
    let h = hop();
    let up = h.up(&a(), &b());
    let again = |by_a: bool, cseq: u32, sdp: &str| h.request(by_a, "INVITE", cseq, "", sdp);
    let ok = |by_a: bool, cseq: u32| h.response(!by_a, 200, "INVITE", cseq, &b());
    let count = |more: Vec<Shot>| {
        let r = told([up.clone(), more].concat());
        assert_eq!(only(&r).state, State::Up);
        only(&r).legs[0].reinvites
    };
    assert_eq!(count(vec![]), 0);
    // The called side begins to count at any number, also at that of the first INVITE.
    assert_eq!(count(vec![again(false, 1, ""), again(false, 1, ""), ok(false, 1)]), 1);
    assert_eq!(count(vec![again(true, 2, &a()), ok(true, 2), again(false, 2, &b()), again(true, 2, &a())]), 2);
    let update = h.request(true, "UPDATE", 3, "", &a());
    assert_eq!(count(vec![update.clone(), update, again(true, 4, &a())]), 2);
    // Challenged, then repeated with credentials.
    let challenge = h.response(false, 407, "INVITE", 2, "");
    assert_eq!(count(vec![again(true, 2, &a()), challenge, again(true, 3, &a()), ok(true, 3)]), 1);
    // Only the response was captured, twice.
    assert_eq!(count(vec![ok(true, 2), ok(true, 2)]), 1);
    // The answer to the first INVITE, once more.
    assert_eq!(count(vec![h.answer(200, &b()), ack(&h)]), 0);
}

#[test]
fn what_goes_past_a_proxy_is_of_its_call() {
    let (i, o) = (hop(), Hop { a: S.into(), b: B.into(), branch: "z9hG4bKout".into(), ..hop() });
    let contacts = ["sip:1000@10.0.0.1".to_owned(), "sip:2000@10.0.0.2".to_owned()];
    let (i, o) = (Hop { contacts: contacts.clone(), ..i }, Hop { contacts: contacts.clone(), ..o });
    let direct = Hop { b: B.into(), contacts, ..i.clone() };
    let answer = audio("10.0.0.2:4002", "");
    let mut shots = vec![i.invite(&a()), o.invite(&a()), o.answer(200, &answer), i.answer(200, &answer)];
    shots.push(ack(&direct));
    shots.extend(rtp("10.0.0.1:4000", "10.0.0.2:4002", 3));
    let r = with_vip(shots.clone(), "10.0.0.100");
    assert_eq!((only(&r).state, only(&r).legs.len()), (State::Up, 2));
    assert!(only(&r).notes.iter().any(|n| n.contains("past the server")), "{:?}", only(&r).notes);
    // A re-INVITE, then the called side hangs up.
    shots.extend([direct.request(true, "INVITE", 2, "", &a()), direct.response(false, 200, "INVITE", 2, &answer)]);
    shots.extend(direct.over(false, 1));
    let r = with_vip(shots, "10.0.0.100");
    let c = only(&r);
    assert_eq!((c.state, c.legs.len(), c.legs[0].reinvites), (State::Ended, 2, 1));
    assert_eq!(c.ended_by, Some(By::Callee));
}

#[test]
fn the_half_of_another_hop_is_not_past_the_server() {
    let hop = |a: &str, b: &str| Hop {
        branch: format!("z9hG4bK{a}{b}").replace(['.', ':'], ""),
        ..Hop::new("c", a, b, "1", "2")
    };
    let (q, answer) = ("10.0.0.50:5060", audio("10.0.0.2:4002", ""));
    let (one, two, three) = (hop(A, S), hop(S, q), hop(q, B));
    let mut shots = vec![one.invite(&a()), two.invite(&a()), three.answer(180, ""), three.answer(200, &answer)];
    shots.extend([two.answer(200, &answer), one.answer(200, &answer), ack(&one), ack(&two), ack(&three)]);
    shots.extend(three.over(false, 1));
    let r = with_vip(shots, "10.0.0.100");
    let c = only(&r);
    // The BYE ends the dialog on each hop.
    assert_eq!((c.state, c.legs.len()), (State::Ended, 3));
    assert!(!c.notes.iter().any(|n| n.contains("past the server")), "{:?}", c.notes);
}

#[test]
fn audio_that_follows_its_description_is_no_nat() {
    let h = hop();
    let moved = audio("10.0.0.1:6000", "");
    let mut shots = h.up(&a(), &b());
    shots.extend(rtp("10.0.0.1:4000", "10.0.0.100:9000", 30));
    // Refused: the old port stays.
    shots.extend([
        h.request(true, "INVITE", 2, "", &moved),
        h.response(false, 488, "INVITE", 2, ""),
        ack_of_refusal(&h),
    ]);
    shots.extend(rtp("10.0.0.1:4000", "10.0.0.100:9000", 60));
    // Offered by the server, without SDP: the ACK has the answer.
    shots.extend([h.request(false, "INVITE", 1, "", ""), h.response(true, 200, "INVITE", 1, &moved)]);
    shots.push(h.request(false, "ACK", 1, "", &b()));
    shots.extend(rtp("10.0.0.1:6000", "10.0.0.100:9000", 30));
    let r = with_vip(shots.clone(), "10.0.0.100");
    let port = |r: &super::Report| only(r).notes.iter().any(|n| n.contains("another port"));
    assert!(!port(&r), "{:?}", only(&r).notes);
    let received = only(&r).legs[0].media[0].received.as_ref().unwrap();
    assert_eq!((received.packets, received.source_differs, only(&r).legs[0].reinvites), (120, false, 2));
    // From a port that nobody described.
    shots.extend(rtp("10.0.0.1:7000", "10.0.0.100:9000", 300));
    assert!(port(&with_vip(shots, "10.0.0.100")));
}
