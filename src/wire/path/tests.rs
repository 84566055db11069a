use super::*;
use proptest::prelude::*;

const ETHERNET: [u8; 12] = [2; 12];

fn udp(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    [&sport.to_be_bytes()[..], &dport.to_be_bytes(), &((8 + payload.len()) as u16).to_be_bytes(), &[0, 0], payload]
        .concat()
}

fn tcp(sport: u16, dport: u16, seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    // With options, as in real segments.
    let head = [0x80, flags, 0xff, 0xff, 0, 0, 0, 0, 1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
    [&sport.to_be_bytes()[..], &dport.to_be_bytes(), &seq.to_be_bytes(), &[0; 4], &head, payload].concat()
}

fn v4(protocol: u8, id: u16, flags: u16, data: &[u8]) -> Vec<u8> {
    let length = (20 + data.len()) as u16;
    let head = [&[0x45, 0][..], &length.to_be_bytes(), &id.to_be_bytes(), &flags.to_be_bytes(), &[64, protocol, 0, 0]]
        .concat();
    [&head[..], &[10, 0, 0, 1, 10, 0, 0, 2], data].concat()
}

fn v6(next: u8, data: &[u8]) -> Vec<u8> {
    let mut p = [&[0x60, 0, 0, 0][..], &(data.len() as u16).to_be_bytes(), &[next, 64]].concat();
    p.extend("fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    p.extend("fd00::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    [p, data.to_vec()].concat()
}

/// An IPv4 packet in fragments of `room` bytes.
fn fragments4(packet: &[u8], id: u16, room: usize) -> Vec<Vec<u8>> {
    let data = &packet[20..];
    let one = |(n, part): (usize, &[u8])| {
        let more = if (n + 1) * room < data.len() { 0x2000 } else { 0 };
        v4(packet[9], id, more | (n * room / 8) as u16, part)
    };
    data.chunks(room).enumerate().map(one).collect()
}

/// An IPv6 packet in fragments of `room` bytes, behind a hop-by-hop header.
fn fragments6(packet: &[u8], id: u32, room: usize) -> Vec<Vec<u8>> {
    let data = &packet[40..];
    let one = |(n, part): (usize, &[u8])| {
        let more = u16::from((n + 1) * room < data.len());
        let head = [44, 0, 0, 0, 0, 0, 0, 0, packet[6], 0];
        v6(0, &[&head[..], &((n * room) as u16 | more).to_be_bytes(), &id.to_be_bytes(), part].concat())
    };
    data.chunks(room).enumerate().map(one).collect()
}

fn invite(length: usize) -> Vec<u8> {
    format!("INVITE sip:a SIP/2.0\r\nCall-ID: 1\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length)).into_bytes()
}

fn sip() -> Path {
    Path::new(PathSettings { ports: Some(vec![5060]), hosts: Vec::new() })
}

fn run(path: &mut Path, packets: &[Vec<u8>]) -> Vec<(Transport, String, String, Vec<u8>)> {
    let mut all = Vec::new();
    for p in packets {
        path.handle_ip(p, Passage::Unknown, Time::ZERO, &mut |p| {
            all.push((p.transport, p.src.to_string(), p.dst.to_string(), p.payload.to_vec()))
        });
    }
    all
}

#[test]
fn messages_come_out_of_every_kind_of_packet() {
    let (small, big) = (invite(10), invite(5000));
    let datagram = |m: &[u8]| udp(5060, 7000, m);
    let segment = |m: &[u8]| tcp(7000, 5060, 1, 0x18, m);
    let cases = [
        ("udp 4", vec![v4(17, 1, 0, &datagram(&small))], &small[..]),
        ("udp 6", vec![v6(17, &datagram(&small))], &small),
        ("udp 4 in fragments", fragments4(&v4(17, 1, 0, &datagram(&big)), 9, 1480), &big),
        ("udp 6 in fragments", fragments6(&v6(17, &datagram(&big)), 9, 1232), &big),
        ("tcp 4", vec![v4(6, 1, 0, &segment(&small))], &small),
        ("tcp 6", vec![v6(6, &segment(&small))], &small),
        ("tcp 4 in fragments", fragments4(&v4(6, 1, 0, &segment(&big)), 9, 1480), &big),
        ("tcp 6 in fragments", fragments6(&v6(6, &segment(&big)), 9, 1232), &big),
    ];
    for (name, packets, message) in cases {
        let mut path = sip();
        let all = run(&mut path, &packets);
        assert_eq!(all.len(), 1, "{name}: {:?}", path.counters());
        let tcp = name.starts_with("tcp");
        assert_eq!(all[0].0, if tcp { Transport::Tcp } else { Transport::Udp }, "{name}");
        assert_eq!(all[0].1.contains("fd00"), name.contains('6'), "{name}");
        assert!(all[0].1.ends_with(if tcp { ":7000" } else { ":5060" }), "{name}: {}", all[0].1);
        assert_eq!(all[0].3, message, "{name}");
        let c = path.counters();
        assert_eq!((c.malformed, c.other, c.incomplete, c.truncated), (0, 0, 0, 0), "{name}");
        assert_eq!((c.frames, c.fragments > 0), (packets.len() as u64, packets.len() > 1), "{name}");
        // Last fragment first.
        let mut turned = packets.clone();
        turned.reverse();
        assert_eq!(run(&mut sip(), &turned).len(), 1, "{name}");
    }
}

#[test]
fn tags_and_links_are_looked_behind() {
    let packet = v4(17, 1, 0, &udp(5060, 7000, &invite(3)));
    let tag = |kind: u16| [&kind.to_be_bytes()[..], &[0, 9]].concat();
    let ether = |tags: &[u8]| [&ETHERNET[..], tags, &[8, 0], &packet].concat();
    let frames = [
        (Link::Ethernet, ether(&[])),
        (Link::Ethernet, ether(&tag(0x8100))),
        (Link::Ethernet, ether(&[tag(0x88a8), tag(0x8100)].concat())),
        (Link::Sll, [&[0; 14][..], &[8, 0], &packet].concat()),
        (Link::Sll, [&[0; 14][..], &tag(0x8100), &[8, 0], &packet].concat()),
        (Link::Sll2, [&[8, 0][..], &[0; 18], &packet].concat()),
        (Link::RawIp, packet.clone()),
        (Link::Null, [&[2, 0, 0, 0][..], &packet].concat()),
    ];
    for (link, frame) in frames {
        let (mut path, mut count) = (sip(), 0);
        path.handle_frame(link, &frame, Time::ZERO, &mut |p| {
            assert_eq!(p.payload, invite(3));
            count += 1;
        });
        assert_eq!(count, 1, "{link:?}");
    }
    let mut path = sip();
    path.handle_frame(Link::Ethernet, &[&ETHERNET[..], &[8, 6], &[0; 28]].concat(), Time::ZERO, &mut |_| panic!("ARP"));
    assert_eq!((path.counters().frames, path.counters().other), (1, 1));
}

#[test]
fn only_the_named_ports_and_hosts_count() {
    let packets = vec![
        v4(17, 1, 0, &udp(5060, 7000, &invite(1))),
        v4(17, 1, 0, &udp(7000, 5061, &invite(1))),
        v4(6, 1, 0, &tcp(7000, 5061, 1, 0x18, &invite(1))),
        v4(1, 1, 0, b"ping"),
    ];
    let mut path = sip();
    assert_eq!(run(&mut path, &packets).len(), 1);
    assert_eq!(path.counters().other, 3);
    let with =
        |ports: Option<Vec<u16>>, host: &str| Path::new(PathSettings { ports, hosts: vec![host.parse().unwrap()] });
    assert_eq!(run(&mut with(Some(vec![5060]), "10.0.0.1"), &packets).len(), 1);
    assert_eq!(run(&mut with(Some(vec![5060]), "10.0.0.2"), &packets).len(), 1);
    assert_eq!(run(&mut with(Some(vec![5060]), "10.0.0.3"), &packets).len(), 0);
    assert_eq!(run(&mut with(None, "10.0.0.1"), &packets).len(), 3);
    let fragments = fragments4(&v4(17, 1, 0, &udp(5060, 7000, &invite(4000))), 9, 1480);
    let mut path = with(None, "10.0.0.3");
    assert!(run(&mut path, &fragments).is_empty());
    assert_eq!(path.counters().fragments, 0);
}

#[test]
fn datagrams_joined_by_the_kernel_are_cut() {
    let mut path = sip();
    let all = run(&mut path, &[v4(17, 1, 0, &udp(5060, 7000, &[invite(5), invite(5), invite(2)].concat()))]);
    assert_eq!(all.iter().map(|m| m.3.clone()).collect::<Vec<_>>(), [invite(5), invite(5), invite(2)]);
    assert_eq!(path.counters().datagrams, 1);
}

#[test]
fn segments_larger_than_the_length_field_are_read() {
    let long = invite(60_000);
    let mut stream = Vec::new();
    for _ in 0..3 {
        stream.extend(&long);
    }
    for version in [4, 6] {
        let segment = tcp(7000, 5060, 1, 0x18, &stream);
        let mut packet = if version == 4 { v4(6, 1, 0, &segment) } else { v6(6, &segment) };
        let at = if version == 4 { 2 } else { 4 };
        packet[at..at + 2].copy_from_slice(&[0, 0]);
        assert_eq!(run(&mut sip(), &[packet]).len(), 3);
    }
}

#[test]
fn what_is_cut_off_is_counted() {
    let mut path = sip();
    let whole = v4(17, 1, 0, &udp(5060, 7000, &invite(100)));
    assert!(run(&mut path, &[whole[..90].to_vec()]).is_empty());
    assert_eq!((path.counters().truncated, path.counters().malformed), (1, 0));
    // In a TCP stream the rest is missing, and the next message is whole.
    let (one, two) = (invite(100), invite(20));
    let first = v4(6, 1, 0, &tcp(7000, 5060, 1, 0x18, &one));
    let second = v4(6, 1, 0, &tcp(7000, 5060, 1 + one.len() as u32, 0x18, &two));
    let mut path = sip();
    assert!(run(&mut path, &[first[..120].to_vec(), second]).is_empty());
    let mut all = Vec::new();
    while let Some(at) = path.next_deadline() {
        path.handle_timeout(at, &mut |p| all.push(p.payload.to_vec()));
    }
    assert_eq!(all, [two]);
    assert_eq!(path.counters().tcp.gaps, 1);
}

#[test]
fn a_stream_in_small_segments_with_ends_on_both_sides() {
    let mut path = sip();
    let m = invite(40);
    let mut packets = vec![v4(6, 1, 0, &tcp(7000, 5060, 99, 0x02, b""))];
    packets.extend(m.chunks(7).enumerate().map(|(n, c)| v4(6, 1, 0, &tcp(7000, 5060, 100 + 7 * n as u32, 0x18, c))));
    packets.push(v4(6, 1, 0, &tcp(7000, 5060, 100 + m.len() as u32, 0x11, b"")));
    assert_eq!(run(&mut path, &packets).len(), 1);
    let c = path.counters().tcp;
    assert_eq!((c.opened, c.streams, c.messages, c.segments), (1, 0, 1, m.len().div_ceil(7) as u64));
}

/// A message from the server at 10.0.0.1 in each form that can be split.
fn from_server(message: &[u8]) -> [Vec<Vec<u8>>; 3] {
    let datagram = v4(17, 1, 0, &udp(5060, 7000, message));
    let (one, two) = message.split_at(message.len() / 2);
    let segments = vec![
        v4(6, 1, 0, &tcp(5060, 7000, 1, 0x18, one)),
        v4(6, 1, 0, &tcp(5060, 7000, 1 + one.len() as u32, 0x18, two)),
    ];
    [vec![datagram.clone()], fragments4(&datagram, 9, 1480), segments]
}

#[test]
fn what_comes_in_from_the_servers_address_is_no_word_of_the_server() {
    let server = || Path::new(PathSettings { ports: Some(vec![5060]), hosts: vec!["10.0.0.1".parse().unwrap()] });
    let heard = |path: &mut Path, packets: &[(Passage, Vec<u8>)]| {
        let mut all = Vec::new();
        for (passage, packet) in packets {
            path.handle_ip(packet, *passage, Time::ZERO, &mut |p| all.push(p.payload.to_vec()));
        }
        all
    };
    let (real, forged) = (invite(4000), vec![b'f'; invite(4000).len()]);
    for (mine, theirs) in from_server(&real).into_iter().zip(from_server(&forged)) {
        let way =
            |passage: Passage, packets: &[Vec<u8>]| packets.iter().map(|p| (passage, p.clone())).collect::<Vec<_>>();
        assert_eq!(heard(&mut server(), &way(Passage::Out, &mine)), [&real[..]]);
        assert_eq!(heard(&mut server(), &way(Passage::Within, &mine)), [&real[..]]);
        for passage in [Passage::In, Passage::Past] {
            let mut path = server();
            assert!(heard(&mut path, &way(passage, &theirs)).is_empty());
            assert_eq!(
                (path.counters().forged, path.counters().datagrams, path.counters().tcp.opened),
                (theirs.len() as u64, 0, 0)
            );
        }
        // Interleave forged parts before and after the real ones. Each real message stays whole, and no message mixes
        // both.
        for first in [true, false] {
            let mut path = server();
            let mut mixed = Vec::new();
            for (m, t) in mine.iter().zip(&theirs) {
                let pair = [(Passage::Out, m.clone()), (Passage::In, t.clone())];
                mixed.extend(if first { pair } else { [pair[1].clone(), pair[0].clone()] });
            }
            assert_eq!(heard(&mut path, &mixed), [&real[..]]);
            assert_eq!((path.counters().forged, path.counters().incomplete), (theirs.len() as u64, 0));
        }
    }
    // To the server, only incoming packets count.
    let to_server = v4(17, 1, 0, &udp(7000, 5060, &real));
    let turned = [&to_server[..12], &to_server[16..20], &to_server[12..16], &to_server[20..]].concat();
    for (passage, count) in [(Passage::In, 1), (Passage::Within, 1), (Passage::Past, 0), (Passage::Out, 0)] {
        let mut path = server();
        assert_eq!(heard(&mut path, &[(passage, turned.clone())]).len(), count, "{passage:?}");
        assert_eq!((path.counters().astray, path.counters().forged), (1 - count as u64, 0), "{passage:?}");
    }
}

#[test]
fn cooked_captures_say_which_way_a_packet_went() {
    let packet = v4(17, 1, 0, &udp(5060, 7000, &invite(3)));
    let sll = |hardware: u16, kind: u16| {
        (Link::Sll, [&kind.to_be_bytes()[..], &hardware.to_be_bytes(), &[0; 10], &[8, 0], &packet].concat())
    };
    let sll2 = |hardware: u16, kind: u8| {
        (Link::Sll2, [&[8, 0, 0, 0, 0, 0, 0, 2][..], &hardware.to_be_bytes(), &[kind], &[0; 9], &packet].concat())
    };
    let plain = (Link::Ethernet, [&ETHERNET[..], &[8, 0], &packet].concat());
    let cases = [
        (sll(1, 4), 1),
        (sll(1, 0), 0),
        (sll(1, 1), 0),
        (sll(1, 3), 0),
        (sll(772, 0), 1),
        (sll2(1, 4), 1),
        (sll2(1, 0), 0),
        (sll2(772, 0), 1),
        (plain, 1),
    ];
    for (n, ((link, frame), expected)) in cases.into_iter().enumerate() {
        let mut path = Path::new(PathSettings { ports: Some(vec![5060]), hosts: vec!["10.0.0.1".parse().unwrap()] });
        let mut count = 0;
        path.handle_frame(link, &frame, Time::ZERO, &mut |_| count += 1);
        assert_eq!((count, path.counters().forged), (expected, 1 - expected), "case {n}");
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 0..40)) {
        let mut path = Path::new(PathSettings::default());
        for (n, frame) in frames.iter().enumerate() {
            for link in [Link::Ethernet, Link::Sll, Link::Sll2, Link::RawIp, Link::Null] {
                path.handle_frame(link, frame, Time::from_millis(n as u64), &mut |_| {});
            }
        }
    }

    #[test]
    fn changed_bytes_never_panic(changes in proptest::collection::vec((0_usize..8, any::<prop::sample::Index>(), any::<u8>()), 0..60)) {
        let mut packets = fragments4(&v4(17, 1, 0, &udp(5060, 7000, &invite(4000))), 9, 1480);
        packets.extend(fragments6(&v6(6, &tcp(7000, 5060, 1, 0x18, &invite(3000))), 9, 1232));
        packets.push(v6(6, &tcp(7000, 5060, 1, 0x02, b"")));
        for (packet, at, value) in changes {
            let n = packet % packets.len();
            let at = at.index(packets[n].len().min(80));
            packets[n][at] = value;
        }
        let mut path = sip();
        run(&mut path, &packets);
        run(&mut path, &packets);
    }
}
