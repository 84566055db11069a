//! Limits of each mode, for any input and any change of mode.

use super::world::{PORT, VIP, World, server};
use crate::calls::model::{Call, CallEvent};
use crate::config::Mode;
use crate::recovery::engine::{Action, CallState, Engine, Origin, Outcome};
use crate::recovery::rng::Rng;
use crate::sip::Transport;
use crate::time::Time;
use crate::wire::Packet;
use std::net::SocketAddr;
use std::time::Duration;

fn world(mode: Mode) -> World {
    let mut w = World::new(7, 50);
    w.engine.set_mode(mode, w.now);
    w
}

fn state(w: &World, call: &str) -> Option<CallState> {
    w.engine.status().into_iter().find(|s| s.call == call).map(|s| s.state)
}

/// An in-dialog request from phone `i`. `None` if no call has it.
fn request(w: &World, i: usize, method: &str) -> Option<Vec<u8>> {
    let mut legs = w.stored.values().flat_map(|c| &c.legs);
    let leg = legs.find(|l| l.remote_addr == w.phones[i].addr)?;
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    let head = format!(
        "{method} sip:x@{VIP} SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK{i}{method}\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {id}\r\n\
         CSeq: 7000 {method}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
        at = leg.remote_addr,
        from = text(&leg.remote.0),
        to = text(&leg.local.0),
        id = leg.call_id.lossy(),
    );
    Some(head.into_bytes())
}

#[test]
fn observe_leaves_every_call_alone() {
    let mut w = world(Mode::Observe);
    let calls = vec![w.b2bua(0), w.b2bua(1)];
    w.start(calls);
    w.secs(60);
    assert!(w.sent.is_empty() && w.flows.is_empty(), "{:?}", w.sent);
    assert_eq!(w.outcomes.values().filter(|o| **o == Outcome::Left).count(), 2);
    assert!(!w.engine.carries("call-00000"));
}

#[test]
fn audio_relays_until_a_phone_hangs_up_and_never_speaks() {
    for heard in [Origin::Overheard, Origin::RecoveryPort] {
        let mut w = world(Mode::Audio);
        w.talks = [true, false];
        let call = w.b2bua(0);
        w.start(vec![call]);
        w.secs(3600);
        assert_eq!(w.flows["call-00000"].len(), 4);
        assert_eq!((state(&w, "call-00000"), &w.outcomes["call-00000"]), (Some(CallState::Relayed), &Outcome::Relayed));
        let bye = request(&w, 1, "BYE").unwrap();
        let to = if heard == Origin::Overheard { server() } else { SocketAddr::new(VIP.parse().unwrap(), PORT) };
        let packet = Packet { src: w.phones[1].addr, dst: to, transport: Transport::Udp, payload: &bye };
        assert!(w.engine.handle_packet(&packet, heard, w.now));
        w.drain();
        assert!(w.flows["call-00000"].is_empty() && w.stored.is_empty(), "what is over is neither relayed nor stored");
        w.secs(60);
        assert!(w.sent.is_empty());
    }
}

#[test]
fn relayed_audio_ends_in_the_end_even_if_no_end_is_heard() {
    let mut w = world(Mode::Audio);
    w.talks = [true; 2];
    let call = w.b2bua(0);
    w.start(vec![call]);
    w.secs(11 * 3600);
    assert!(!w.flows["call-00000"].is_empty());
    w.secs(2 * 3600);
    assert!(w.flows["call-00000"].is_empty() && w.stored.is_empty());
}

#[test]
fn calls_without_audio_to_relay_are_left_and_not_ended_in_audio() {
    let mut w = world(Mode::Audio);
    let mut alone = w.b2bua(0);
    alone.legs.truncate(1);
    let half = {
        let mut half = w.b2bua(1);
        half.legs[0].partial = true;
        half
    };
    w.start(vec![alone, half]);
    w.secs(50);
    assert!(w.sent.is_empty());
    assert_eq!(w.outcomes["call-00000"], Outcome::Left);
    assert_eq!(w.outcomes["call-00001"], Outcome::Relayed, "its audio can pass, though nothing true can be said in it");
    assert_eq!(w.stored.len(), 2, "what is left alone may live");
}

#[test]
fn less_than_before_stops_signalling_at_once_and_keeps_the_audio() {
    for to in [Mode::Audio, Mode::Observe] {
        for after in [Duration::ZERO, Duration::from_millis(7), Duration::from_secs(60)] {
            let mut w = world(Mode::Full);
            w.talks = [true; 2];
            let calls = (0..4).map(|n| w.b2bua(n)).collect();
            w.start(calls);
            w.run(after);
            let (sent, flows) = (w.sent.len(), w.flows.clone());
            assert_eq!(flows.len(), 4);
            w.engine.set_mode(to, w.now);
            w.drain();
            w.secs(3600);
            assert_eq!(w.sent.len(), sent, "{to} after {after:?}");
            assert_eq!(w.flows, flows, "{to} after {after:?}: without their audio these calls are dead");
            assert_eq!(w.outcomes.len(), 4);
            // A higher mode again: silenced calls stay silent, and new calls get everything.
            w.engine.set_mode(Mode::Full, w.now);
            w.secs(60);
            assert_eq!(w.sent.len(), sent);
            let call = w.b2bua(9);
            w.start(vec![call]);
            w.secs(60);
            assert!(w.sent.len() > sent);
            assert_eq!(w.outcomes["call-00009"], Outcome::Recovered);
        }
    }
}

/// Whether the mode forbids this action. Written from the definition of the modes alone.
fn forbidden(mode: Mode, action: &Action) -> bool {
    match (mode, action) {
        (Mode::Full, _) => false,
        (_, Action::Send { .. }) => true,
        // Removing paths is no relaying.
        (Mode::Observe, Action::Flows { flows, .. }) => !flows.is_empty(),
        _ => false,
    }
}

fn random_call(w: &mut World, n: u16, rng: &mut Rng) -> Call {
    let mut call = w.b2bua(n);
    match rng.next() % 6 {
        0 => call.legs.truncate(1),
        1 => call.legs[1].partial = true,
        2 => call.legs[0].transport = Transport::Tcp,
        3 => call.legs[0].sdp_sent = None,
        _ => {}
    }
    call
}

/// Runs a sequence of takeovers, mode changes, packets and time, and checks each action against the current mode.
fn history(seed: u64) {
    let mut rng = Rng::new(seed);
    // The phones only provide dialogs. Their messages are made up.
    let mut w = World::new(seed, 3);
    let mut engine = Engine::new(super::world::settings(3), seed);
    let (mut mode, mut now, mut n) = (Mode::Full, Time::from_millis(1_000), 0);
    let mut sent: Vec<(SocketAddr, SocketAddr, Vec<u8>)> = Vec::new();
    for _ in 0..120 {
        match rng.next() % 8 {
            0 => {
                let calls: Vec<Call> = (0..3).map(|i| random_call(&mut w, n + i, &mut rng)).collect();
                n += 3;
                w.stored.extend(calls.iter().map(|c| (c.id.clone(), c.clone())));
                engine.start(calls, 2, now);
            }
            1 => {
                mode = Mode::ALL[usize::try_from(rng.next() % 3).unwrap()];
                engine.set_mode(mode, now);
            }
            2 | 3 if !w.phones.is_empty() => {
                let i = usize::try_from(rng.next()).unwrap_or(0) % w.phones.len();
                let method = ["BYE", "INVITE", "OPTIONS", "UPDATE", "INFO", "CANCEL", "ACK", "PRACK"]
                    [usize::try_from(rng.next() % 8).unwrap()];
                let Some(payload) = request(&w, i, method) else { continue };
                let (port, heard) =
                    if rng.next().is_multiple_of(2) { (PORT, Origin::RecoveryPort) } else { (5060, Origin::Overheard) };
                let dst = SocketAddr::new(VIP.parse().unwrap(), port);
                engine.handle_packet(
                    &Packet { src: w.phones[i].addr, dst, transport: Transport::Udp, payload: &payload },
                    heard,
                    now,
                );
            }
            4 | 5 if !sent.is_empty() => {
                // A phone answers an earlier request, however old.
                let (from, to, payload) = sent[usize::try_from(rng.next()).unwrap_or(0) % sent.len()].clone();
                let code = [100, 200, 200, 404, 481, 491, 500][usize::try_from(rng.next() % 7).unwrap()];
                let m = crate::sip::message::Message::parse(&payload).unwrap();
                if m.is_request() {
                    let answer = crate::sip::build::Builder::response_to(&m, code, "Said", None, None).build();
                    let packet = Packet { src: to, dst: from, transport: Transport::Udp, payload: &answer };
                    engine.handle_packet(&packet, Origin::RecoveryPort, now);
                }
            }
            6 => {
                // A stranger at the recovery port.
                let text = format!(
                    "OPTIONS sip:{VIP} SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.1.1;branch=z9hG4bKq\r\n\
                     From: <sip:s@s>;tag=1\r\nTo: <sip:{VIP}>\r\nCall-ID: {}\r\nCSeq: 1 OPTIONS\r\n\r\n",
                    rng.next()
                );
                let dst = SocketAddr::new(VIP.parse().unwrap(), PORT);
                let src = "10.1.1.1:5060".parse().unwrap();
                engine.handle_packet(
                    &Packet { src, dst, transport: Transport::Udp, payload: text.as_bytes() },
                    Origin::RecoveryPort,
                    now,
                );
            }
            _ => {
                now += Duration::from_millis(rng.next() % 40_000);
                engine.handle_timeout(now);
            }
        }
        while let Some(action) = engine.poll_action() {
            assert!(!forbidden(mode, &action), "seed {seed}: {mode} does {action:?}");
            match action {
                Action::Send { from, to, payload } => sent.push((from, to, payload)),
                Action::Store(CallEvent::Put(call)) => drop(w.stored.insert(call.id.clone(), *call)),
                _ => {}
            }
        }
    }
}

#[test]
fn no_history_makes_a_mode_do_what_it_may_not() {
    (0..300).for_each(history);
}
