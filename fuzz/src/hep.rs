//! HEP: packets, streams of packets, and trusted senders.

use super::packet::Run;
use super::{choices, inside, show};
use keepcall::hep::intake::{Counters, Intake, IntakeResult, Key, Rules};
use keepcall::hep::{Framer, Kind, decode};
use keepcall::sip::Transport;
use keepcall::sip::message::Message;
use keepcall::time::Time;
use keepcall::wire::Packet;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

/// The key in the saved inputs.
const SECRET: &[u8] = b"secret";

/// Reads `data` as a datagram from a server, and as a stream.
pub fn hep(data: &[u8]) {
    datagram(data);
    stream(data);
}

fn datagram(data: &[u8]) {
    let source: IpAddr = "10.0.0.100".parse().unwrap();
    let rules = |key: Option<&[u8]>| Rules {
        key: key.map(Key::new),
        from: Some(vec![source]),
        vips: vec![source, "2001:db8::100".parse().unwrap()],
        server: vec!["127.0.0.1".parse().unwrap()],
        sip_ports: vec![5060],
    };
    let (mut open, mut closed) = (Intake::new(rules(None)), Intake::new(rules(Some(SECRET))));
    let (taken, guarded) = (open.take(data, source, Time::ZERO), closed.take(data, source, Time::ZERO));
    assert_eq!((judged(open.counters), judged(closed.counters)), (1, 1), "each packet is counted once");
    let stranger = open.take(data, "10.0.0.66".parse().unwrap(), Time::ZERO);
    assert!(matches!(&stranger, IntakeResult::Refused { why, .. } if why.is_stranger()), "{stranger:?}");
    let Ok(h) = decode(data) else {
        assert!(matches!(taken, IntakeResult::Refused { .. }) && matches!(guarded, IntakeResult::Refused { .. }));
        return;
    };
    assert!((1..=3).contains(&h.version));
    assert!([h.auth_key, h.agent_name, h.correlation_id].iter().flatten().all(|p| inside(data, p)));
    if h.auth_key == Some(SECRET) {
        assert_eq!(guarded, taken);
    } else {
        assert!(matches!(&guarded, IntakeResult::Refused { why, .. } if why.is_stranger()), "{guarded:?}");
    }
    match h.payload() {
        Ok(Cow::Borrowed(p)) => assert!(inside(data, p)),
        Ok(Cow::Owned(p)) => assert!(p.len() <= 65_535),
        Err(_) => assert!(!matches!(taken, IntakeResult::Report(_))),
    }
    if let IntakeResult::Report(r) = taken {
        assert_eq!(h.kind, Kind::Sip);
        let own = |a: SocketAddr| a.ip() == source || a.ip() == "2001:db8::100".parse::<IpAddr>().unwrap();
        assert!(own(r.src) != own(r.dst), "the server is one end: {} {}", r.src, r.dst);
        // For a TCP connection opened by the server, the server's SIP port replaces its source port.
        let kept = |was: SocketAddr, is: SocketAddr| {
            was.port() == is.port() || r.transport == Transport::Tcp && own(is) && is.port() == 5060
        };
        assert!(kept(h.src, r.src) && kept(h.dst, r.dst), "{h:?} {r:?}");
        let m = Message::parse(&r.payload).unwrap_or_else(|e| panic!("{e}: {}", show(&r.payload)));
        assert!(m.is_whole());
        let mut run = Run::new();
        run.hear(&Packet { src: r.src, dst: r.dst, transport: r.transport, payload: &r.payload });
        run.finish();
    }
}

fn judged(c: Counters) -> u64 {
    c.received + c.refused + c.malformed + c.not_sip + c.elsewhere
}

/// The framer's packets, with the stream cut into pieces of at most `most` bytes.
fn packets(data: &[u8], most: usize) -> (Vec<Vec<u8>>, bool) {
    let mut framer = Framer::default();
    let mut all = Vec::new();
    for piece in data.chunks(most.max(1)) {
        framer.push(piece);
        loop {
            match framer.next_packet() {
                Ok(Some(packet)) => all.push(packet.to_vec()),
                Ok(None) => break,
                Err(e) => {
                    assert_eq!(framer.next_packet(), Err(e), "an end is an end");
                    return (all, false);
                }
            }
        }
    }
    let whole: usize = all.iter().map(Vec::len).sum();
    assert_eq!(framer.is_amid(), whole < data.len());
    (all, true)
}

fn stream(data: &[u8]) {
    let (all, alive) = packets(data, usize::MAX);
    assert!(data.starts_with(&all.concat()), "packets are the stream, cut");
    for packet in &all {
        assert!(packet.starts_with(b"HEP3") && packet.len() >= 6);
        if let Ok(h) = decode(packet) {
            assert_eq!(h.version, 3);
        }
    }
    for most in [1, 2 + (choices(data) % 40) as usize] {
        assert_eq!(packets(data, most), (all.clone(), alive), "however the stream is cut");
    }
}
