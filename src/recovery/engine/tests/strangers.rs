//! The third rule: believe only who can know. The same calls run twice, once among the messages of a stranger, who has
//! seen a Call-ID and perhaps one tag, or who guesses the branches of our requests. What is sent to the parties, relayed
//! and stored must be the same to the byte and the millisecond.

use super::Answer;
use super::random_calls::{below, call};
use super::world::{World, agent, server, settings};
use crate::calls::model::{Call, Flow, Leg};
use crate::recovery::engine::{CallStatus, Engine, Origin, Outcome};
use crate::recovery::rng::Rng;
use crate::recovery::types::Fault;
use crate::sip::Transport;
use crate::time::Time;
use crate::wire::Packet;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

const STRANGER: &str = "10.66.0.66:5060";
const REQUESTS: [&str; 8] = ["BYE", "INVITE", "UPDATE", "CANCEL", "ACK", "INFO", "OPTIONS", "REFER"];
/// Responses to requests that were never sent. (A 2xx to an unknown INVITE is acknowledged: it may be the former
/// server's.)
const RESPONSES: [(u16, &str); 9] = [
    (200, "BYE"),
    (481, "BYE"),
    (481, "INVITE"),
    (408, "INVITE"),
    (487, "INVITE"),
    (603, "INVITE"),
    (481, "OPTIONS"),
    (200, "UPDATE"),
    (481, "INFO"),
];

/// A message of somebody who has no part in this dialog.
fn stray(leg: &Leg, other: &Leg, r: &mut Rng) -> String {
    let (phone, server) = (leg.remote.lossy(), leg.local.lossy());
    let (ours, theirs) = (leg.local_tag.lossy(), leg.remote_tag.lossy());
    let cseq = [1, 2, 11, 12, 500, 2_000_000_000][below(r, 6)];
    let sdp = "v=0\r\no=x 1 1 IN IP4 10.66.0.66\r\ns=-\r\nc=IN IP4 10.66.0.66\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
    let (first, method, from, to, branch, body) = if below(r, 2) == 0 {
        let method = REQUESTS[below(r, REQUESTS.len())];
        // One tag is right at most, or the right ones are at the wrong ends.
        let (from, to) = match below(r, 4) {
            0 => (phone.replace(&format!("tag={theirs}"), "tag=guess"), server),
            1 => (phone, server.replace(&format!("tag={ours}"), "tag=guess")),
            2 => (phone, server.replace(&format!(";tag={ours}"), "")),
            _ => (phone.replace(&format!("tag={theirs}"), "tag=guess"), other.local.lossy() + "x"),
        };
        let body = if matches!(method, "INVITE" | "UPDATE") { sdp } else { "" };
        (format!("{method} sip:srv@{} SIP/2.0", agent()), method, from, to, format!("z9hG4bKs{}", r.next()), body)
    } else {
        let (code, method) = RESPONSES[below(r, RESPONSES.len())];
        (format!("SIP/2.0 {code} X"), method, server, phone, format!("z9hG4bKs{}", r.next()), "")
    };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "{first}\r\nVia: SIP/2.0/UDP {STRANGER};branch={branch}\r\nMax-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {}\r\n\
         CSeq: {cseq} {method}\r\nContact: <sip:x@{STRANGER}>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        leg.call_id.lossy(),
        body.len()
    )
}

/// All that was done to the calls.
#[derive(Debug, PartialEq)]
struct Done {
    sent: Vec<(Time, SocketAddr, Vec<u8>)>,
    flows: BTreeMap<String, Vec<Flow>>,
    stored: BTreeMap<String, Call>,
    outcomes: BTreeMap<String, Outcome>,
    status: Vec<CallStatus>,
}

fn history(seed: u64, strangers: bool, fault: Option<Fault>) -> Done {
    let mut r = Rng::new(seed ^ 0x5712);
    let mut w = World::new(seed, 5);
    let mut s = settings(5);
    s.fault = fault;
    w.engine = Engine::new(s, seed);
    w.stranger = Some(STRANGER.parse().unwrap());
    w.talks = [below(&mut r, 3) > 0, below(&mut r, 3) > 0];
    let calls: Vec<Call> = (0..u16::try_from(1 + below(&mut r, 3)).unwrap()).map(|n| call(&mut w, n, &mut r)).collect();
    for phone in &mut w.phones {
        phone.missed = 100;
        phone.steady = false;
        let answers = [Answer::Accept, Answer::Accept, Answer::Nothing, Answer::Stray(481), Answer::Late(3)];
        phone.answers.push_back(answers[below(&mut r, answers.len())].clone());
    }
    w.start(calls.clone());
    let hangs_up = below(&mut r, 60);
    // The strangers' own dice, so that both runs have the same calls.
    let mut dice = Rng::new(seed ^ 0x0dd5);
    for step in 0..40 {
        w.run(Duration::from_millis(1 + r.next() % 2000));
        if step == hangs_up && w.engine.carries(&calls[0].id) && w.phones[0].target == agent() {
            w.ask(0, "BYE", "");
        }
        for _ in 0..if strangers { 3 } else { 0 } {
            let call = &calls[below(&mut dice, calls.len())];
            let legs = &call.legs;
            let i = below(&mut dice, legs.len());
            let text = stray(&legs[i], &legs[legs.len() - 1 - i], &mut dice);
            let (dst, origin) = [(agent(), Origin::RecoveryPort), (server(), Origin::Overheard)][below(&mut dice, 2)];
            let src = STRANGER.parse().unwrap();
            let p = Packet { src, dst, transport: Transport::Udp, payload: text.as_bytes() };
            w.engine.handle_packet(&p, origin, w.now);
            w.drain();
        }
    }
    let status = w.engine.status();
    let World { sent, flows, stored, outcomes, .. } = w;
    Done { sent, flows, stored, outcomes, status }
}

#[test]
fn a_stranger_changes_nothing() {
    for seed in 0..300 {
        assert_eq!(history(seed, true, None), history(seed, false, None), "seed {seed}");
    }
}

#[test]
fn an_engine_that_believes_a_stranger_is_noticed() {
    // Either run may also end at a phone that gets what it cannot accept.
    let run = |seed, strangers, fault| std::panic::catch_unwind(|| history(seed, strangers, Some(fault))).ok();
    for fault in [Fault::TagsIgnored, Fault::BranchIgnored] {
        assert!((0..300).any(|seed| run(seed, true, fault) != run(seed, false, fault)), "{fault:?}");
    }
}
