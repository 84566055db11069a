//! Calls with every outcome.

use super::build::{Hop, Shot, audio, file, ip, paced, pcap};
use super::report::{By, Side, State};
use super::{InspectSettings, only, run, told, with_vip};
use crate::calls::model::Pairing;

const A: &str = "10.0.0.1:5060";
const B: &str = "10.0.0.2:5070";
const S: &str = "10.0.0.100:5060";

fn a() -> String {
    audio("10.0.0.1:4000", "")
}

fn b() -> String {
    audio("10.0.0.2:4002", "")
}

#[test]
fn a_call_from_phone_to_phone_is_told_though_there_is_no_server() {
    let h = Hop::new("c", A, B, "1000", "2000");
    let mut shots = h.up(&a(), &b());
    shots.push(h.request(false, "BYE", 7, "Reason: Q.850;cause=16;text=\"bye\"\r\n", ""));
    shots.push(h.response(true, 200, "BYE", 7, ""));
    let r = told(shots);
    let c = only(&r);
    assert_eq!((c.state, c.code, c.ended_by), (State::Ended, Some(200), Some(By::Callee)));
    assert_eq!(c.ended_how.as_deref(), Some("Q.850;cause=16;text=\"bye\""));
    assert_eq!((c.from.user.as_deref(), c.to.user.as_deref()), (Some("1000"), Some("2000")));
    assert_eq!((c.from.address, c.to.address), (Some(A.parse().unwrap()), Some(B.parse().unwrap())));
    let start = super::build::START;
    assert_eq!((c.started_ms, c.ringing_ms, c.answered_ms), (start, Some(start + 200), Some(start + 300)));
    assert_eq!((c.ended_ms, c.duration_ms), (Some(start + 500), Some(200)));
    let [l] = c.legs.as_slice() else { panic!("{c:#?}") };
    assert_eq!((l.direction, l.local_tag.as_str(), l.remote_tag.as_str()), (Side::Inbound, "tc", "fc"));
    assert_eq!((l.local_cseq, l.remote_cseq, l.messages, l.partial), (Some(7), Some(1), 7, false));
    assert_eq!((l.remote_target.as_str(), l.media.len()), ("sip:1000@10.0.0.1:5060", 1));
}

#[test]
fn both_legs_of_a_b2bua_are_one_call() {
    let (i, o) = (Hop::new("in", A, S, "1000", "2000"), Hop::new("out", S, B, "1000", "2000"));
    let mut shots = vec![
        i.invite(&a()),
        i.answer(100, ""),
        o.invite(&audio("10.0.0.100:9002", "")),
        o.answer(180, ""),
        i.answer(180, ""),
    ];
    shots.extend([o.answer(200, &b()), o.ack(), i.answer(200, &audio("10.0.0.100:9000", "")), i.ack()]);
    shots.extend(o.over(false, 5));
    shots.extend(i.over(false, 5));
    let r = told(shots);
    let c = only(&r);
    assert_eq!(
        (c.pairing, c.legs.len(), c.state, c.ended_by),
        (Some(Pairing::Evidence), 2, State::Ended, Some(By::Callee))
    );
    assert!(c.through_server && c.stored_id.is_some());
    assert_eq!(c.legs.iter().map(|l| l.direction).collect::<Vec<_>>(), [Side::Inbound, Side::Outbound]);
    assert_eq!(c.to.address, Some(B.parse().unwrap()));
}

#[test]
fn refusals_keep_their_code() {
    for (code, state) in [
        (302, State::Redirected),
        (404, State::Failed),
        (486, State::Failed),
        (503, State::Failed),
        (603, State::Failed),
    ] {
        let h = Hop::new("c", A, S, "1000", "2000");
        let r = told(vec![h.invite(&a()), h.answer(100, ""), h.answer(code, ""), h.ack()]);
        let c = only(&r);
        assert_eq!((c.state, c.code, c.reason.as_deref(), c.answered_ms), (state, Some(code), Some("Word"), None));
        assert_eq!(c.ended_ms, Some(super::build::START + 200));
        assert_eq!((c.legs[0].media.len(), c.legs[0].media[0].agreed), (1, false));
    }
}

#[test]
fn a_cancelled_call_says_who_gave_up_and_why() {
    let h = Hop::new("c", A, S, "1000", "2000");
    let cancel = h.cancel("Reason: SIP;cause=200;text=\"Call completed elsewhere\"\r\n");
    let ok = Shot { src: S.parse().unwrap(), dst: A.parse().unwrap(), ..cancel.clone() };
    let text = String::from_utf8(ok.payload.clone()).unwrap();
    let ok = Shot { payload: format!("SIP/2.0 200 OK\r\n{}", text.split_once("\r\n").unwrap().1).into_bytes(), ..ok };
    let r = told(vec![h.invite(&a()), h.answer(180, ""), cancel.clone(), ok, h.answer(487, ""), h.ack()]);
    let c = only(&r);
    assert_eq!((c.state, c.code, c.ended_by), (State::Cancelled, Some(487), Some(By::Caller)));
    assert!(c.ended_how.as_deref().unwrap().contains("elsewhere"));
    // The answer to CANCEL was not captured.
    let r = told(vec![h.invite(&a()), h.answer(180, ""), cancel.clone()]);
    assert_eq!(only(&r).state, State::Cancelled);
    // CANCEL came too late: the call was answered and is up.
    let r = told(vec![h.invite(&a()), h.answer(180, ""), cancel, h.answer(200, &b()), h.ack()]);
    assert_eq!((only(&r).state, only(&r).ended_by), (State::Up, None));
}

#[test]
fn calls_that_are_not_answered_yet_are_told() {
    let h = Hop::new("c", A, S, "1000", "2000");
    assert_eq!(only(&told(vec![h.invite(&a())])).state, State::Calling);
    assert_eq!(only(&told(vec![h.invite(&a()), h.answer(100, "")])).state, State::Calling);
    let r = told(vec![h.invite(&a()), h.answer(100, ""), h.answer(183, &b())]);
    let c = only(&r);
    assert_eq!((c.state, c.ended_ms, c.code, c.duration_ms), (State::Ringing, None, None, None));
    assert!(c.recovery.why.contains("nobody has answered the call yet"));
    // A gap longer than any call rings.
    let mut shots = paced(vec![h.invite(&a()), h.answer(180, "")], 100);
    let other = Hop::new("later", A, S, "1000", "3000");
    shots.push(Shot { at: 400_000, ..other.invite(&a()) });
    let r = run(&file(&shots), &InspectSettings::default()).unwrap();
    assert_eq!(r.calls[0].state, State::Unanswered);
}

#[test]
fn a_caller_who_had_to_show_credentials_made_one_call() {
    let h = Hop::new("c", A, S, "1000", "2000");
    let again = Hop { cseq: 2, branch: "z9hG4bKagain".into(), to_tag: "other".into(), ..h.clone() };
    let mut shots = vec![h.invite(&a()), h.answer(407, ""), h.ack()];
    shots.extend(again.up(&a(), &b()));
    let r = told(shots);
    let c = only(&r);
    assert_eq!((c.state, c.code, c.legs.len()), (State::Up, Some(200), 1));
    assert_eq!(
        (c.legs[0].retried.as_slice(), c.legs[0].local_tag.as_str(), c.legs[0].remote_cseq),
        (&[407][..], "other", Some(2))
    );
}

/// The same dialog on each hop through proxies.
fn hops(route: &[&str], record: &[&str]) -> Vec<Hop> {
    let pairs: Vec<_> = route.windows(2).collect();
    let one = |(n, p): (usize, &&[&str])| {
        let mut h = Hop::new("c", p[0], p[1], "1000", "2000");
        h.contacts = [format!("sip:1000@{}", route[0]), format!("sip:2000@{}", route[route.len() - 1])];
        // Each proxy adds itself on top.
        h.more = record[..n].iter().rev().map(|r| format!("Record-Route: <sip:{r};lr>\r\n")).collect();
        h
    };
    pairs.iter().enumerate().map(one).collect()
}

fn along(hops: &[Hop]) -> Vec<Shot> {
    let mut shots: Vec<Shot> = hops.iter().map(|h| h.invite(&a())).collect();
    // Responses carry the headers of the last INVITE.
    let all = hops.last().unwrap().more.clone();
    let back: Vec<Hop> = hops.iter().rev().map(|h| Hop { more: all.clone(), ..h.clone() }).collect();
    for code in [180, 200] {
        shots.extend(back.iter().map(|h| {
            h.answer(code, if code == 200 { "v=0\r\nc=IN IP4 10.0.0.2\r\nm=audio 4002 RTP/AVP 8\r\n" } else { "" })
        }));
    }
    shots.extend(hops.iter().map(|h| Hop { more: String::new(), ..h.clone() }.ack()));
    shots
}

#[test]
fn one_dialog_on_several_hops_is_one_call() {
    let (p1, p2) = ("10.0.0.101:5060", "10.0.0.102:5060");
    let one = hops(&[A, p1, B], &[p1]);
    let r = told(along(&one));
    let c = only(&r);
    assert_eq!((c.legs.len(), c.pairing, c.state), (2, Some(Pairing::SameDialog), State::Up));
    assert_eq!(r.server.addresses, ["10.0.0.101".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!((r.servers[0].relayed, r.servers[0].record_routes, r.servers[0].chosen), (1, true, true));

    let two = hops(&[A, p1, p2, B], &[p1, p2]);
    let mut shots = along(&two);
    shots.extend(two.iter().rev().flat_map(|h| h.over(false, 1)));
    let r = told(shots.clone());
    let c = only(&r);
    assert_eq!((c.legs.len(), c.state, c.ended_by, c.call_ids.len()), (3, State::Ended, Some(By::Callee), 1));
    // Viewed from the second proxy, the first one is a phone that records a route.
    let r = with_vip(shots, "10.0.0.102");
    let c = only(&r);
    let through: Vec<_> = c.legs.iter().filter(|l| l.through_server).collect();
    assert_eq!((through.len(), c.pairing), (2, Some(Pairing::SameDialog)));
    assert_eq!(through[0].route_set, ["<sip:10.0.0.101:5060;lr>"]);
}

#[test]
fn the_branches_of_a_fork_are_legs_of_one_call() {
    let i = Hop::new("c", A, S, "1000", "2000");
    let one = Hop { to_tag: "one".into(), ..Hop::new("c", S, B, "1000", "2000") };
    let two = Hop { to_tag: "two".into(), ..Hop::new("c", S, "10.0.0.3:5060", "1000", "2000") };
    let i = Hop { to_tag: "two".into(), ..i };
    let mut shots = vec![i.invite(&a()), one.invite(&a()), two.invite(&a()), one.answer(180, ""), two.answer(180, "")];
    shots.extend([i.answer(180, ""), two.answer(200, &b()), i.answer(200, &b()), two.ack(), i.ack()]);
    shots.extend([one.cancel(""), one.answer(487, ""), one.ack()]);
    let r = told(shots);
    let c = only(&r);
    assert_eq!((c.state, c.legs.len(), c.code), (State::Up, 3, Some(200)));
    let states: Vec<_> = c.legs.iter().map(|l| (l.remote_addr.to_string(), l.state)).collect();
    assert!(
        states.contains(&(B.to_owned(), State::Cancelled)) && states.contains(&("10.0.0.3:5060".to_owned(), State::Up)),
        "{states:?}"
    );
}

#[test]
fn forks_behind_the_next_hop_are_early_dialogs_of_their_own() {
    let one = Hop { to_tag: "one".into(), ..Hop::new("c", A, S, "1000", "2000") };
    let two = Hop { to_tag: "two".into(), ..one.clone() };
    let r = told(vec![one.invite(&a()), one.answer(180, ""), two.answer(180, ""), two.answer(200, &b()), two.ack()]);
    let c = only(&r);
    assert_eq!((c.state, c.legs.len()), (State::Up, 2));
    let lost = c.legs.iter().find(|l| l.local_tag == "one").unwrap();
    assert_eq!(
        (lost.state, lost.ended_how.as_deref()),
        (State::Cancelled, Some("another branch of the fork answered"))
    );
}

#[test]
fn a_call_that_was_up_before_the_file_is_partial() {
    let h = Hop::new("c", A, S, "1000", "2000");
    let all = h.up(&a(), &b());
    // Only the 200 and what follows it.
    let r = told(all[3..].to_vec());
    let c = only(&r);
    assert_eq!((c.state, c.partial, c.legs[0].partial), (State::Up, true, true));
    // A re-INVITE.
    let r = told(vec![h.request(false, "INVITE", 50, "", &b()), h.response(true, 200, "INVITE", 50, &a())]);
    let c = only(&r);
    assert_eq!((c.state, c.partial, c.duration_ms), (State::Up, true, Some(100)));
    assert!(c.legs[0].missing[0].contains("start"));
    // The end of the call.
    let r = told(h.over(true, 9));
    assert_eq!((only(&r).state, only(&r).partial), (State::Ended, true));
    assert_eq!(only(&r).ended_ms, Some(super::build::START));
    // The refusal of an INVITE from before the capture.
    let r = told(vec![h.answer(486, "")]);
    assert_eq!((only(&r).state, only(&r).code, only(&r).partial), (State::Failed, Some(486), true));
}

#[test]
fn noise_is_no_call() {
    let h = Hop::new("c", A, S, "1000", "2000");
    let mut shots = Vec::new();
    for method in ["OPTIONS", "REGISTER", "SUBSCRIBE", "MESSAGE", "PUBLISH", "WHATEVER"] {
        let text = String::from_utf8(h.invite("").payload).unwrap().replace("INVITE", method);
        shots.push(Shot { payload: text.into_bytes(), ..h.invite("") });
    }
    shots.extend([h.request(true, "NOTIFY", 3, "", ""), h.response(false, 200, "NOTIFY", 3, ""), h.ack()]);
    let r = told(shots);
    assert_eq!(r.calls, []);
    assert_eq!((r.other_requests.get("OPTIONS"), r.other_requests.len()), (Some(&1), 7));
    assert!(r.notes.iter().any(|n| n.contains("no call") && n.contains("1 REGISTER")), "{:?}", r.notes);
}

#[test]
fn packets_that_were_captured_twice_are_one_call() {
    let h = Hop::new("c", A, S, "1000", "2000");
    let mut shots: Vec<Shot> = h.up(&a(), &b()).into_iter().flat_map(|s| [s.clone(), s]).collect();
    shots.extend(h.over(true, 2).into_iter().flat_map(|s| [s.clone(), s]));
    let r = told(shots.clone());
    let c = only(&r);
    assert_eq!((c.legs.len(), c.legs[0].messages, c.state, c.ended_by), (1, 14, State::Ended, Some(By::Caller)));
    // Each message twice: before address translation, and after it to the inside address.
    let inside: std::net::SocketAddr = "172.17.0.2:5060".parse().unwrap();
    let server = S.parse().unwrap();
    let twice = shots.iter().step_by(2).flat_map(|s| {
        let map = |at| if at == server { inside } else { at };
        [s.clone(), Shot { src: map(s.src), dst: map(s.dst), ..s.clone() }]
    });
    let r = told(twice.collect());
    let c = only(&r);
    assert_eq!((c.legs.len(), c.legs[0].also_seen.len(), c.state), (1, 1, State::Ended));
}

#[test]
fn a_call_id_that_is_used_again_is_another_call() {
    let one = Hop::new("same", A, S, "1000", "2000");
    let two = Hop { from_tag: "f2".into(), to_tag: "t2".into(), branch: "z9hG4bK2".into(), ..one.clone() };
    let mut shots = one.up(&a(), &b());
    shots.extend(one.over(true, 2));
    shots.extend(two.up(&a(), &b()));
    let r = told(shots);
    assert_eq!(r.calls.iter().map(|c| c.state).collect::<Vec<_>>(), [State::Ended, State::Up]);
    assert_ne!(r.calls[0].id, r.calls[1].id);
}

#[test]
fn time_that_steps_back_does_no_harm() {
    let h = Hop::new("c", A, S, "1000", "2000");
    let mut shots = paced(h.up(&a(), &b()), 100);
    shots.extend(h.over(true, 2).into_iter().map(|s| Shot { at: 0, ..s }));
    let r = run(&file(&shots), &InspectSettings::default()).unwrap();
    assert_eq!((only(&r).state, r.traffic.back_in_time), (State::Ended, 2));
    assert_eq!(only(&r).duration_ms, Some(100));
    assert!(r.notes.iter().any(|n| n.contains("steps back")));
}

#[test]
fn what_the_capture_cut_off_is_said() {
    let h = Hop::new("c", A, S, "1000", "2000");
    let frames: Vec<_> = paced(h.up(&a(), &b()), 100).iter().map(|s| (s.at, ip(s))).collect();
    let kind = super::build::Kind { snap: 420, ..super::build::RAW };
    let r = run(&pcap(kind, &frames), &InspectSettings::default()).unwrap();
    let c = only(&r);
    assert_eq!((c.state, c.partial, r.traffic.sip_cut, r.traffic.cut_frames), (State::Up, false, 2, 2));
    assert!(c.legs[0].partial && c.legs[0].missing[0].contains("truncated"), "{:?}", c.legs[0].missing);
    assert!(r.notes.iter().any(|n| n.contains("tcpdump -s 0")));
}

#[test]
fn transfers_and_holds_are_seen() {
    let h = Hop::new("c", A, S, "1000", "2000");
    let mut shots = h.up(&a(), &b());
    let hold = audio("10.0.0.1:4000", "a=sendonly\r\n");
    let answer = audio("10.0.0.2:4002", "a=recvonly\r\n");
    shots.extend([
        h.request(true, "INVITE", 2, "", &hold),
        h.response(false, 200, "INVITE", 2, &answer),
        h.request(true, "ACK", 2, "", ""),
    ]);
    let refer = "Refer-To: <sip:3000@example.org?Replaces=x>\r\n";
    shots.extend([h.request(true, "REFER", 3, refer, ""), h.response(false, 202, "REFER", 3, "")]);
    let r = told(shots);
    let l = &only(&r).legs[0];
    assert_eq!((l.hold, l.reinvites, l.remote_cseq), (crate::inspect::report::Hold::Remote, 1, Some(3)));
    assert_eq!(l.refers, ["sip:3000@example.org?Replaces=x"]);
}

#[test]
fn both_legs_of_an_unanswered_call_are_one_call_if_nothing_else_fits() {
    let legs = |n: &str| {
        (Hop::new(&format!("in{n}"), A, S, "1000", "2000"), Hop::new(&format!("out{n}"), S, B, "1000", "2000"))
    };
    let ((i, o), (j, p)) = (legs("1"), legs("2"));
    let one = [
        i.invite(&a()),
        o.invite(&a()),
        o.answer(180, ""),
        i.answer(180, ""),
        o.answer(486, ""),
        o.ack(),
        i.answer(486, ""),
        i.ack(),
    ];
    let r = told(one.to_vec());
    assert_eq!((only(&r).legs.len(), only(&r).state, only(&r).pairing), (2, State::Failed, None));
    // The second call begins after the first has ended.
    let two = [j.invite(&a()), p.invite(&a()), p.answer(486, ""), j.answer(486, "")];
    let r = told([&one[..], &two].concat());
    assert_eq!(r.calls.iter().map(|c| c.legs.len()).collect::<Vec<_>>(), [2, 2]);
    // Both at once: no telling which leg belongs to which.
    let r = told(vec![i.invite(&a()), j.invite(&a()), o.invite(&a()), p.invite(&a())]);
    assert_eq!(r.calls.len(), 4);
}
