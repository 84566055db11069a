use super::offers::changed;
use super::world::{agent, server, settings};
use super::*;
use crate::calls::model::{Call, Direction, SessionTimer};
use crate::recovery::engine::{CallState, Engine, Origin, Outcome};
use crate::sip::Transport;
use crate::time::Time;
use crate::wire::Packet;
use proptest::prelude::*;
use std::time::Duration;

pub(super) fn recovered(seed: u64) -> (World, Call) {
    let mut w = World::new(seed, 50);
    let call = w.b2bua(0);
    w.start(vec![call.clone()]);
    w.secs(2);
    assert_eq!(w.outcomes["call-00000"], Outcome::Recovered);
    (w, call)
}

pub(super) fn both_hung_up(w: &World) {
    assert!(w.phones.iter().all(|p| p.ended));
    assert!(w.stored.is_empty());
    assert!(w.flows.values().all(Vec::is_empty));
}

#[test]
fn both_parties_are_reinvited_and_either_can_hang_up() {
    for hangs_up in [0, 1] {
        let (mut w, _) = recovered(hangs_up as u64);
        assert_eq!(w.flows["call-00000"].len(), 4);
        for p in &w.phones {
            assert_eq!(
                (p.accepted, p.acked, p.target, p.max_gap),
                (1, 1, agent(), u32::from(p.call_id.starts_with('b')))
            );
            assert_eq!(p.got, ["INVITE"]);
        }
        let stored = &w.stored["call-00000"];
        assert!(stored.legs.iter().all(|l| l.carried && l.local_target.lossy() == "sip:srv@10.9.0.100:5070"));
        assert_eq!((stored.legs[0].local_cseq, stored.legs[1].local_cseq), (Some(1), Some(103)));
        w.ask(hangs_up, "BYE", "");
        w.secs(40);
        assert_eq!(w.result(hangs_up), ("BYE".into(), 200));
        assert_eq!(w.phones[1 - hangs_up].byes, 1);
        both_hung_up(&w);
        w.secs(60);
        assert!(w.engine.status().is_empty() && w.engine.by_call_id.is_empty() && w.engine.next_deadline().is_none());
    }
}

#[test]
fn an_answer_to_the_packets_source_is_overheard() {
    let mut w = World::new(3, 50);
    let call = w.b2bua(0);
    w.phones.iter_mut().for_each(|p| p.lazy = true);
    w.start(vec![call]);
    w.secs(2);
    assert_eq!(w.outcomes["call-00000"], Outcome::Recovered);
}

/// The server's response to a request from phone 0 to the server's port.
fn server_says(w: &mut World, code: u16, method: &str) {
    let head =
        format!("SIP/2.0 {code} X\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKown\r\nCall-ID: a0@x\r\n", w.phones[0].addr);
    let text =
        format!("{head}From: <sip:alice@p>;tag=a\r\nTo: \"S, 1\" <sip:bob@p>;tag=s1\r\nCSeq: 9 {method}\r\n\r\n");
    let p = Packet { src: server(), dst: w.phones[0].addr, transport: Transport::Udp, payload: text.as_bytes() };
    assert!(w.engine.handle_packet(&p, Origin::Overheard, w.now), "it belongs to a call of the engine");
    w.drain();
}

#[test]
fn a_phone_that_the_server_told_its_call_is_unknown_is_asked() {
    let (mut w, _) = recovered(4);
    // A challenge, a refusal or the response to BYE says nothing about the call.
    for (code, method) in [(401, "INVITE"), (488, "INVITE"), (481, "BYE")] {
        server_says(&mut w, code, method);
    }
    w.secs(2);
    assert_eq!(w.phones[0].got, ["INVITE"]);
    server_says(&mut w, 481, "INVITE");
    w.secs(2);
    assert_eq!(w.phones[0].got, ["INVITE", "INVITE"]);
    assert_eq!((w.phones[0].accepted, w.phones[1].got.len()), (2, 1), "it lives, and the other party is left alone");
    w.phones[0].answers.extend([Answer::Code(481, ""), Answer::Code(481, "")]);
    server_says(&mut w, 481, "INFO");
    w.secs(15);
    assert_eq!((w.phones[1].byes, w.phones[0].byes), (1, 0), "it had given the call up");
}

#[test]
fn strict_router_gets_its_own_uri() {
    let mut w = World::new(3, 50);
    let mut call = w.b2bua(0);
    w.phones[0].routes = vec!["<sip:10.7.0.9>".into(), "<sip:10.7.0.2;lr>".into()];
    call.legs[0] = w.phones[0].leg(Direction::Inbound).into();
    w.start(vec![call]);
    w.secs(2);
    assert_eq!(w.outcomes["call-00000"], Outcome::Recovered);
}

#[test]
fn bye_on_the_servers_port_during_recovery_ends_the_other_party() {
    for who in [0, 1] {
        let mut w = World::new(7, 50);
        let call = w.b2bua(0);
        // BYE crosses the response with a new Contact.
        w.phones.iter_mut().for_each(|p| p.steady = false);
        w.start(vec![call]);
        w.ask(who, "BYE", "");
        w.secs(40);
        // The server's 481 is not simulated, so the phone that hangs up gives up by itself.
        w.phones[who].ended = true;
        assert_eq!(w.outcomes["call-00000"], Outcome::HungUp);
        assert_eq!(w.phones[1 - who].byes, 1);
        both_hung_up(&w);
        assert!(!w.phones[who].got.contains(&"BYE".to_owned()));
    }
}

#[test]
fn glare_is_tried_again_and_refusals_leave_the_call_up() {
    for (answer, want) in [
        (Answer::Code(491, ""), Outcome::Recovered),
        (Answer::Code(500, ""), Outcome::Recovered),
        (Answer::Code(500, "Retry-After: 2\r\n"), Outcome::Recovered),
        (Answer::Bare, Outcome::Recovered),
        (Answer::Code(488, ""), Outcome::Refused { code: Some(488), reason: "a party refused the re-INVITE".into() }),
        (Answer::Code(401, ""), Outcome::Refused { code: Some(401), reason: "a party refused the re-INVITE".into() }),
        (Answer::Ring, Outcome::Refused { code: Some(408), reason: "a party refused the re-INVITE".into() }),
    ] {
        let mut w = World::new(9, 50);
        let call = w.b2bua(0);
        w.phones[1].answers.push_back(answer.clone());
        w.start(vec![call]);
        w.secs(40);
        assert_eq!(w.outcomes["call-00000"], want, "{answer:?}");
        assert_eq!(w.engine.status()[0].state, CallState::Carried);
        let gap = if matches!(answer, Answer::Code(500, "")) { 100 } else { 1 };
        assert_eq!(w.phones[1].max_gap, gap, "{answer:?}");
        assert!(w.phones[1].all_acked(), "{answer:?}");
        // After a refused re-INVITE the phone still uses the server's port: an overheard BYE.
        w.phones[0].target = agent();
        w.ask(0, "BYE", "");
        w.secs(5);
        assert_eq!((w.result(0), w.phones[1].byes), (("BYE".into(), 200), 1), "{answer:?}");
        both_hung_up(&w);
    }
}

#[test]
fn session_timers_are_kept_and_a_phone_that_does_not_refresh_is_asked() {
    for local in [true, false] {
        let mut w = World::new(23, 50);
        let mut call = w.b2bua(0);
        w.phones[0].timer = Some(SessionTimer { interval_s: 200, local_refreshes: local });
        call.legs[0] = w.phones[0].leg(Direction::Inbound).into();
        w.start(vec![call]);
        w.secs(2);
        let invite = w.sent.iter().find(|(_, to, b)| *to == w.phones[0].addr && b.starts_with(b"INVITE")).unwrap();
        let role =
            if local { "Session-Expires: 200;refresher=uac\r\n" } else { "Session-Expires: 200;refresher=uas\r\n" };
        assert!(String::from_utf8_lossy(&invite.2).contains(role));
        w.secs(250);
        if local {
            assert_eq!(w.phones[0].accepted, 3, "refreshed at 100 and 200 s");
            assert_eq!(w.engine.status()[0].state, CallState::Carried);
        } else {
            assert_eq!((w.phones[0].byes, w.phones[1].byes), (0, 0), "no refresh came, and the phone is there");
            assert_eq!(w.phones[0].accepted, 2, "recovered, and asked once");
        }
    }
}

#[test]
fn a_second_takeover_goes_on_from_what_was_stored() {
    let (mut w, _) = recovered(27);
    let body = changed(&w.phones[0], 9, "sendonly");
    w.phones[0].sdp.clone_from(&body);
    w.ask(0, "INVITE", &body);
    w.secs(2);
    let stored: Vec<Call> =
        w.stored.values().map(|c| serde_json::from_str(&serde_json::to_string(c).unwrap()).unwrap()).collect();
    w.engine = Engine::new(settings(50), 99);
    w.outcomes.clear();
    w.start(stored);
    w.secs(2);
    assert_eq!(w.outcomes["call-00000"], Outcome::Recovered);
    assert!(w.phones[1].sdp_seen.contains("a=sendonly"), "a held call stays held");
    assert_eq!(w.phones[1].max_gap, 1);
    w.ask(1, "BYE", "");
    w.secs(2);
    both_hung_up(&w);
}

#[test]
fn a_thousand_calls_are_paced_and_emergencies_go_first() {
    let mut w = World::new(29, 20);
    let mut calls: Vec<Call> = (0..1000).map(|n| w.b2bua(n)).collect();
    calls[777].emergency = true;
    w.start(calls);
    assert_eq!(w.sent.len(), 40, "a window of calls, two parties each");
    assert_eq!(w.sent[0].1, w.phones[2 * 777].addr);
    w.secs(60);
    assert_eq!(w.outcomes.values().filter(|o| **o == Outcome::Recovered).count(), 1000);
    assert_eq!(w.most_busy, 20);
    assert!(w.phones.iter().all(|p| (p.accepted, p.acked) == (1, 1)));
}

#[test]
fn what_belongs_to_nothing_is_refused_or_ignored() {
    let (mut w, _) = recovered(31);
    let mut count = |payload: &str, heard| {
        let p = Packet {
            src: "10.8.8.8:5099".parse().unwrap(),
            dst: agent(),
            transport: Transport::Udp,
            payload: payload.as_bytes(),
        };
        let ours = w.engine.handle_packet(&p, heard, w.now);
        let mut out = Vec::new();
        while let Some(a) = w.engine.poll_action() {
            if let crate::recovery::engine::Action::Send { payload, to, .. } = a {
                out.push((to.to_string(), String::from_utf8(payload).unwrap()));
            }
        }
        (ours, out)
    };
    let req = |method: &str, call: &str, tags: (&str, &str)| {
        format!(
            "{method} sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.0.1:5060;branch=z9hG4bKq;rport\r\nFrom: <sip:a@b>;tag={}\r\nTo: <sip:c@d>;tag={}\r\nCall-ID: {call}\r\nCSeq: 3 {method}\r\n\r\n",
            tags.0, tags.1
        )
    };
    let (ours, out) = count(&req("BYE", "other", ("x", "y")), Origin::RecoveryPort);
    assert!(!ours && out.len() == 1 && out[0].0 == "10.8.8.8:5099");
    assert!(out[0].1.starts_with("SIP/2.0 481 ") && out[0].1.contains(";rport=5099;received=10.8.8.8"));
    assert_eq!(count(&req("ACK", "other", ("x", "y")), Origin::RecoveryPort), (false, vec![]));
    assert_eq!(count("garbage", Origin::RecoveryPort), (false, vec![]));
    assert_eq!(count(&req("BYE", "other", ("x", "y")), Origin::Overheard), (false, vec![]));
    let (ours, out) = count(&req("BYE", "a0@x", ("x", "y")), Origin::RecoveryPort);
    assert!(ours && out[0].1.starts_with("SIP/2.0 481 "), "our Call-ID, but not our tags");
    // RFC 3261 section 12.2.2: a CSeq below the last.
    let (_, out) = count(&req("OPTIONS", "a0@x", ("a", "s1")), Origin::RecoveryPort);
    assert!(out[0].1.starts_with("SIP/2.0 500 "));
    assert_eq!(w.engine.status()[0].state, CallState::Carried);
    w.engine.stop();
    assert!(w.engine.status().is_empty() && w.engine.poll_action().is_none() && w.engine.next_deadline().is_none());
}

#[test]
fn every_call_ends_well_over_a_bad_network() {
    for seed in 0..300 {
        let mut w = World::new(seed, 3);
        (w.chaos, w.loss) = (true, 15);
        let calls: Vec<Call> = (0..4).map(|n| w.b2bua(n)).collect();
        w.phones.iter_mut().for_each(|p| p.steady = false);
        w.start(calls);
        w.secs(70);
        assert_eq!(w.outcomes.len(), 4, "seed {seed}");
        for n in 0..4 {
            let held = w.rng.next().is_multiple_of(2);
            let who = 2 * n + usize::from(w.rng.next().is_multiple_of(2));
            if held && !w.phones[who].ended {
                let body = changed(&w.phones[who], 50, "sendonly");
                w.ask(who, "INVITE", &body);
                w.run(Duration::from_millis(w.now.as_nanos() % 900));
            }
            if !w.phones[who].ended {
                w.ask(who, "BYE", "");
            }
        }
        w.secs(100);
        for (i, p) in w.phones.iter().enumerate() {
            assert!(p.ended, "seed {seed} phone {i}: {:?} {:?}", p.got, p.results);
            assert!(
                p.results.iter().all(|(m, code, _)| m != "BYE" || *code == 200),
                "seed {seed} phone {i} {:?}",
                p.results
            );
            assert!(p.results.iter().all(|(_, code, _)| *code != 0), "seed {seed} phone {i} {:?}", p.results);
            assert!(p.acked == p.accepted && p.all_acked(), "seed {seed} phone {i}: each final answer has its ACK");
        }
        both_hung_up(&w);
        w.secs(200);
        assert!(w.engine.status().is_empty(), "seed {seed}");
        assert_eq!(w.engine.next_deadline(), None, "seed {seed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_packet_panics(
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        edits in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..12),
        which in any::<u16>(),
        overheard in any::<bool>(),
    ) {
        let (mut w, _) = recovered(1);
        let body = changed(&w.phones[0], 9, "sendonly");
        let now = w.now;
        w.phones[0].ask("INVITE", "Session-Expires: 100\r\n", &body, now);
        w.phones[1].ask("UPDATE", "", &body, now);
        w.phones[0].ask("BYE", "", "", now);
        let mut known: Vec<Vec<u8>> = w.sent.iter().map(|(_, _, b)| b.clone()).collect();
        for p in &mut w.phones {
            known.extend(p.out.drain(..).map(|(_, b)| b));
        }
        let mut packet = known[usize::from(which) % known.len()].clone();
        for (at, byte) in edits {
            let at = usize::from(at) % packet.len();
            packet[at] = byte;
        }
        let heard = if overheard { Origin::Overheard } else { Origin::RecoveryPort };
        for payload in [&noise, &packet] {
            let src = w.phones[0].addr;
            w.engine.handle_packet(&Packet { src, dst: agent(), transport: Transport::Udp, payload }, heard, w.now);
            while w.engine.poll_action().is_some() {}
            for _ in 0..200 {
                let Some(at) = w.engine.next_deadline() else { break };
                w.engine.handle_timeout(at);
                prop_assert!(w.engine.next_deadline().is_none_or(|next| next > at || next == Time::FAR));
                while w.engine.poll_action().is_some() {}
            }
        }
    }
}

fn packets(w: &mut World, src: &str, dst: std::net::SocketAddr, payload: &[u8], heard: Origin) -> Vec<String> {
    let p = Packet { src: src.parse().unwrap(), dst, transport: Transport::Udp, payload };
    assert!(w.engine.handle_packet(&p, heard, w.now));
    let mut out = Vec::new();
    while let Some(a) = w.engine.poll_action() {
        if let crate::recovery::engine::Action::Send { payload, to, .. } = a {
            out.push(format!("{to} {}", String::from_utf8_lossy(&payload)));
        }
    }
    out
}

#[test]
fn a_bye_that_a_proxy_on_the_vip_passes_on_is_answered_through_it() {
    let (mut w, _) = recovered(35);
    w.phones[0].ask("BYE", "", "", w.now);
    let (_, bye) = w.phones[0].out.pop().unwrap();
    let src = w.phones[0].addr.to_string();
    let out = packets(&mut w, &src, server(), &bye, Origin::Overheard);
    assert!(out.len() == 1 && out[0].starts_with("10.1.0.2:5060 BYE "), "{out:?}");
    let text = String::from_utf8(bye).unwrap();
    let passed = text.replacen("Via:", "Via: SIP/2.0/UDP 10.9.0.100;branch=z9hG4bKproxy\r\nVia:", 1);
    for _ in 0..2 {
        let out = packets(&mut w, "10.9.0.100:5060", agent(), passed.as_bytes(), Origin::RecoveryPort);
        assert!(
            out.len() == 1
                && out[0].starts_with(
                    "10.9.0.100:5060 SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.9.0.100;branch=z9hG4bKproxy\r\n"
                )
        );
        assert_eq!(out[0].matches("Via:").count(), 2);
    }
}

#[test]
fn what_is_kept_for_a_dialog_is_bounded() {
    let (mut w, _) = recovered(37);
    let src = w.phones[0].addr.to_string();
    for i in 0..500 {
        let method = ["INFO", "OPTIONS", "UPDATE", "MESSAGE"][i % 4];
        w.phones[0].ask(method, "", if i % 4 == 0 { "Signal=1\r\n" } else { "" }, w.now);
        let (_, bytes) = w.phones[0].out.pop().unwrap();
        packets(&mut w, &src, agent(), &bytes, Origin::RecoveryPort);
    }
    for call in w.engine.calls.values() {
        for side in &call.sides {
            assert!(side.served.len() <= crate::recovery::call::MAX_SERVED);
            assert!(side.others.len() <= crate::recovery::call::MAX_OTHERS);
            assert!(side.acked.len() <= crate::recovery::call::MAX_ACKED);
        }
    }
}
