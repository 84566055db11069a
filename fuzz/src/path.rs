//! The whole path of a packet: frames to messages to calls.

use super::packet::Run;
use super::show;
use keepcall::time::Time;
use keepcall::wire::frame::Link;
use keepcall::wire::path::{Path, PathSettings};
use std::time::Duration;

/// Reads `data` as frames, each behind three bytes: the kind of link, and its length, high byte first.
pub fn path(data: &[u8]) {
    let settings = PathSettings { ports: Some(vec![5060]), hosts: Vec::new() };
    let plain = walk(data, &settings, false);
    assert_eq!(walk(data, &settings, true), plain, "a VLAN tag more changes nothing");
    let mut run = Run::new();
    let mut packets = 0;
    frames(data, &settings, false, &mut |p| {
        packets += 1;
        run.hear(&p);
    });
    assert_eq!(packets, plain.len());
    run.finish();
    // Any port, as in a report on a file.
    let any = walk(data, &PathSettings::default(), false);
    assert!(
        plain.iter().filter(|p| p.starts_with("Udp")).all(|p| any.contains(p)),
        "a filter leaves out, and adds nothing"
    );
}

/// The packets in the frames of `data`, whatever their ports.
pub fn walked(data: &[u8]) -> Vec<String> {
    walk(data, &PathSettings::default(), false)
}

fn walk(data: &[u8], settings: &PathSettings, tagged: bool) -> Vec<String> {
    let mut all = Vec::new();
    frames(data, settings, tagged, &mut |p| {
        assert!(!p.payload.is_empty() || p.transport == keepcall::sip::Transport::Udp);
        let port = |a: std::net::SocketAddr| settings.ports.as_ref().is_none_or(|ports| ports.contains(&a.port()));
        assert!(port(p.src) || port(p.dst), "{} {}", p.src, p.dst);
        all.push(format!("{:?} {} {} {}", p.transport, p.src, p.dst, show(p.payload)));
    });
    all
}

fn frames(data: &[u8], settings: &PathSettings, tagged: bool, out: &mut dyn FnMut(keepcall::wire::Packet<'_>)) {
    let mut path = Path::new(settings.clone());
    let (mut rest, mut now, mut count) = (data, Time::ZERO, 0);
    while let [kind, high, low, more @ ..] = rest {
        let (frame, more) = more.split_at(more.len().min(usize::from(u16::from_be_bytes([*high, *low]))));
        rest = more;
        let link = match kind % 8 {
            0..=2 => Link::Ethernet,
            3 => Link::Sll,
            4 => Link::Sll2,
            5 => Link::Null,
            _ => Link::RawIp,
        };
        let tag = tagged && link == Link::Ethernet && matches!(frame.get(12..14), Some([0x08, 0x00] | [0x86, 0xdd]));
        let frame = if tag { [&frame[..12], &[0x81, 0x00, 0x00, 0x07], &frame[12..]].concat() } else { frame.to_vec() };
        path.handle_frame(link, &frame, now, out);
        count += 1;
        // The highest bit lets time pass, so that waiting parts time out.
        now += Duration::from_millis(if kind & 0x80 == 0 { 1 } else { 5000 });
        if path.next_deadline().is_some_and(|at| at <= now) {
            path.handle_timeout(now, out);
        }
    }
    let c = path.counters();
    assert_eq!(c.frames, count);
    assert!(c.other + c.malformed + c.datagrams <= c.frames);
}
