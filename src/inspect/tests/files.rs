//! Files and frames of every kind.

use super::build::{
    Hop, Kind, RAW, START, Shot, around, audio, block, enhanced, ethernet, file, fragments, interface, ip, paced, pcap,
    section,
};
use super::report::{Report, State};
use super::*;
use std::path::Path;

const A: &str = "10.0.0.1:5060";
const S: &str = "10.0.0.100:5060";

fn call(a: &str, s: &str) -> Vec<Shot> {
    let h = Hop::new("c", a, s, "1000", "2000");
    let (port_a, port_s) = (a.replace("5060", "4000"), s.replace("5060", "9000"));
    let mut shots = h.up(&audio(&port_a, ""), &audio(&port_s, ""));
    shots.extend(h.over(true, 2));
    paced(shots, 100)
}

fn frames(wrap: impl Fn(&[u8]) -> Vec<u8>) -> Vec<(u64, Vec<u8>)> {
    call(A, S).iter().map(|s| (s.at, wrap(&ip(s)))).collect()
}

fn good(bytes: &[u8], what: &str) -> Report {
    let r = run(bytes, &InspectSettings::default()).unwrap();
    let [c] = r.calls.as_slice() else { panic!("{what}: {r:#?}") };
    assert_eq!((c.state, c.legs.len(), c.duration_ms, c.started_ms), (State::Ended, 1, Some(200), START), "{what}");
    assert_eq!((r.first_ms, r.last_ms, r.truncated.as_deref()), (Some(START), Some(START + 600), None), "{what}");
    assert_eq!(c.legs[0].media[0].remote.as_ref().map(|d| d.port), Some(4000), "{what}");
    r
}

#[test]
fn every_kind_of_link_gives_the_same_call() {
    type Wrap = Box<dyn Fn(&[u8]) -> Vec<u8>>;
    let front = |bytes: &[u8]| -> Wrap {
        let bytes = bytes.to_vec();
        Box::new(move |p| [&bytes[..], p].concat())
    };
    let ether = |bytes: &[u8]| front(&[&[0; 12][..], bytes].concat());
    let host = |n: u8| std::net::IpAddr::from([192, 0, 2, n]);
    let vxlan: Wrap = Box::new(move |p| {
        let inner = [&[0x08, 0, 0, 0, 0, 0, 1, 0][..], &ethernet(&[], p)].concat();
        ip(&Shot {
            at: 0,
            src: "192.0.2.1:50000".parse().unwrap(),
            dst: "192.0.2.2:4789".parse().unwrap(),
            payload: inner,
        })
    });
    let gre: Wrap = Box::new(move |p| around(host(1), host(2), 47, &[&[0, 0, 8, 0][..], p].concat()));
    let erspan: Wrap = Box::new(move |p| {
        let data = [&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 0, 0, 0, 0, 0, 0, 0][..], &ethernet(&[], p)].concat();
        around(host(1), host(2), 47, &data)
    });
    let ipip: Wrap = Box::new(move |p| around(host(1), host(2), 4, p));
    let wifi = [&[0x88, 0x01][..], &[0; 24], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]].concat();
    let radiotap = [&[0, 0, 8, 0, 0, 0, 0, 0][..], &wifi].concat();
    let kinds: Vec<(u32, &str, Wrap)> = vec![
        (1, "Ethernet", ether(&[8, 0])),
        (1, "VLAN", ether(&[0x81, 0, 0, 5, 8, 0])),
        (1, "QinQ", ether(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 0])),
        (1, "PPPoE", ether(&[0x88, 0x64, 0x11, 0, 0, 1, 0, 9, 0, 0x21])),
        (1, "MPLS", ether(&[0x88, 0x47, 0, 1, 0, 64, 0, 2, 1, 64])),
        (113, "SLL", front(&[&[0; 14][..], &[8, 0]].concat())),
        (113, "SLL with VLAN", front(&[&[0; 14][..], &[0x81, 0, 0, 5, 8, 0]].concat())),
        (276, "SLL2", front(&[&[8, 0][..], &[0; 18]].concat())),
        (101, "raw", front(&[])),
        (12, "raw of BSD", front(&[])),
        (228, "IPv4", front(&[])),
        (0, "null", front(&[2, 0, 0, 0])),
        (108, "loop", front(&[0, 0, 0, 2])),
        (9, "PPP", front(&[0xff, 0x03, 0, 0x21])),
        (104, "Cisco HDLC", front(&[0x0f, 0, 8, 0])),
        (105, "Wi-Fi", front(&wifi)),
        (127, "Wi-Fi with radiotap", front(&radiotap)),
        (101, "VXLAN", vxlan),
        (101, "GRE", gre),
        (101, "ERSPAN", erspan),
        (101, "IP in IP", ipip),
    ];
    for (link, what, wrap) in kinds {
        let r = good(&pcap(Kind { link, ..RAW }, &frames(wrap)), what);
        assert_eq!((r.traffic.frames, r.traffic.unsupported_frames), (7, 0), "{what}");
    }
    let r = run(&pcap(Kind { link: 147, ..RAW }, &frames(<[u8]>::to_vec)), &InspectSettings::default()).unwrap();
    assert_eq!((r.calls.len(), r.traffic.unsupported_frames), (0, 7));
    assert!(r.notes[0].contains("147"), "{:?}", r.notes);
}

#[test]
fn every_kind_of_pcap_is_read() {
    let plain = frames(<[u8]>::to_vec);
    for magic in [0xa1b2_c3d4, 0xa1b2_3c4d, 0xa1b2_cd34] {
        for big in [false, true] {
            good(&pcap(Kind { magic, big, ..RAW }, &plain), &format!("{magic:x} {big}"));
        }
    }
    // The upper bits of the link type announce a checksum; the header's snap length may be any.
    good(&pcap(Kind { link: 101 | 0x5000_0000, ..RAW }, &plain), "with a checksum");
    let mut odd = pcap(RAW, &plain);
    odd[16..20].copy_from_slice(&[0; 4]);
    good(&odd, "snap length 0");
    // Two files, one after the other.
    let joined = [pcap(RAW, &plain[..3]), pcap(Kind { link: 1, ..RAW }, &frames(|p| ethernet(&[], p))[3..])].concat();
    good(&joined, "joined");
}

#[test]
fn ipv6_odd_ports_and_fragments_are_read() {
    let v6: Vec<_> = call("[fd00::1]:5060", "[fd00::100]:5060").iter().map(|s| (s.at, ip(s))).collect();
    let r = good(&pcap(RAW, &v6), "IPv6");
    assert_eq!(r.server.addresses[0].to_string(), "fd00::100");
    let odd: Vec<_> = call("10.0.0.1:31234", "10.0.0.100:15099");
    let h = Hop::new("c", "10.0.0.1:31234", "10.0.0.100:15099", "1000", "2000");
    let mut shots = h.up(&audio("10.0.0.1:4000", ""), &audio("10.0.0.100:9000", ""));
    shots.extend(h.over(true, 2));
    assert_eq!(odd.len(), shots.len());
    let r = good(&file(&paced(shots, 100)), "odd ports");
    assert_eq!(r.server.ports, [15099]);
    let cut: Vec<_> = call(A, S)
        .iter()
        .flat_map(|s| fragments(&ip(s), 200).into_iter().rev().map(|f| (s.at, f)).collect::<Vec<_>>())
        .collect();
    assert!(cut.len() > 2 * call(A, S).len(), "{}", cut.len());
    good(&pcap(RAW, &cut), "fragments");
}

fn micros(ms: u64) -> u64 {
    (START + ms) * 1000
}

#[test]
fn pcapng_with_several_interfaces_and_sections_is_read() {
    let shots = call(A, S);
    for big in [false, true] {
        let half = |n: u16| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        // Nanoseconds, and an offset of a day.
        let nanos = [&half(9)[..], &half(1), &[9, 0, 0, 0], &half(0), &half(0)].concat();
        let day: i64 = 86_400;
        let day = if big { day.to_be_bytes() } else { day.to_le_bytes() };
        let offset = [&half(14)[..], &half(8), &day, &half(2), &half(3), b"en0\0"].concat();
        let mut out = section(big);
        out.extend(interface(big, 101, 0, &[]));
        out.extend(interface(big, 1, 0, &nanos));
        out.extend(interface(big, 113, 0, &offset));
        // An unknown block.
        out.extend(block(big, 0x0bad, &[1, 2, 3]));
        for (n, s) in shots.iter().enumerate() {
            let p = ip(s);
            let sll = [&[0; 14][..], &[8, 0], &p].concat();
            out.extend(match n % 3 {
                0 => enhanced(big, 0, micros(s.at), &p),
                1 => enhanced(big, 1, micros(s.at) * 1000, &ethernet(&[], &p)),
                _ => enhanced(big, 2, micros(s.at) - 86_400_000_000, &sll),
            });
        }
        good(&out, &format!("big {big}"));
    }
    // Sections in different byte orders; the second counts its interfaces from zero.
    let mut out = [section(false), interface(false, 101, 0, &[])].concat();
    out.extend(shots[..3].iter().flat_map(|s| enhanced(false, 0, micros(s.at), &ip(s))));
    out.extend([section(true), interface(true, 1, 0, &[])].concat());
    out.extend(shots[3..].iter().flat_map(|s| enhanced(true, 0, micros(s.at), &ethernet(&[], &ip(s)))));
    good(&out, "two sections");
}

#[test]
fn packets_without_a_time_and_of_the_old_kind_are_read() {
    let shots = call(A, S);
    let mut out = [section(false), interface(false, 101, 0, &[])].concat();
    for s in &shots {
        let p = ip(s);
        let length = u32::try_from(p.len()).unwrap().to_le_bytes();
        out.extend(block(false, 3, &[&length[..], &p].concat()));
    }
    let r = run(&out, &InspectSettings::default()).unwrap();
    assert_eq!((only(&r).state, r.first_ms), (State::Ended, Some(0)));
    let mut out = [section(false), interface(false, 101, 0, &[])].concat();
    for s in &shots {
        let (p, at) = (ip(s), micros(s.at));
        let length = u32::try_from(p.len()).unwrap().to_le_bytes();
        let time =
            [u32::try_from(at >> 32).unwrap().to_le_bytes(), u32::try_from(at & 0xffff_ffff).unwrap().to_le_bytes()]
                .concat();
        out.extend(block(false, 2, &[&[0, 0, 0, 0][..], &time, &length, &length, &p].concat()));
    }
    good(&out, "the old kind");
}

#[test]
fn lengths_that_the_card_was_to_fill_in_are_all_there_is() {
    let unset = frames(|p| {
        let mut p = p.to_vec();
        p[2..4].copy_from_slice(&[0, 0]);
        p
    });
    good(&pcap(RAW, &unset), "length 0");
}

#[test]
fn a_truncated_file_gives_what_was_read_and_says_so() {
    let shots = call(A, S);
    let mut ng = [section(false), interface(false, 101, 0, &[])].concat();
    ng.extend(shots.iter().flat_map(|s| enhanced(false, 0, micros(s.at), &ip(s))));
    for file in [file(&shots), ng] {
        for cut in [1, 7, 100] {
            let r = run(&file[..file.len() - cut], &InspectSettings::default()).unwrap();
            assert_eq!((r.traffic.frames, only(&r).state), (6, State::Ended));
            assert!(r.truncated.unwrap().contains("after frame 6"));
        }
    }
    // Something else follows.
    let r = run(&[file(&shots), vec![0xff; 100]].concat(), &InspectSettings::default()).unwrap();
    assert!(r.truncated.unwrap().contains("damaged"));
}

#[test]
fn what_is_no_capture_is_named() {
    let e = inspect(Path::new("/no/such/file"), &InspectSettings::default()).unwrap_err();
    assert!(e.to_string().contains("/no/such/file"));
    assert!(matches!(run(b"", &InspectSettings::default()), Err(InspectError::Empty { .. })));
    for bytes in [&b"abc"[..], b"hello world", &[0xff; 4000]] {
        assert!(matches!(run(bytes, &InspectSettings::default()), Err(InspectError::NotACapture { .. })));
    }
    for (bytes, word) in [
        (&[0x28, 0xb5, 0x2f, 0xfd][..], "unzstd"),
        (&[0xfd, b'7', b'z', b'X', b'Z'], "unxz"),
        (b"BZh91", "bunzip2"),
        (b"PK\x03\x04", "unzip"),
        (b"snoop\0\0\0", "editcap"),
        (b"INVITE sip:a SIP/2.0\r\n", "text2pcap"),
    ] {
        let e = run(bytes, &InspectSettings::default()).unwrap_err();
        assert!(matches!(e, InspectError::Packed { .. }) && e.to_string().contains(word), "{e}");
    }
    for cut in [4, 12, 23] {
        let e = run(&file(&[])[..cut], &InspectSettings::default()).unwrap_err();
        assert!(matches!(e, InspectError::Header { .. }), "{cut}: {e}");
    }
    let r = run(&file(&[]), &InspectSettings::default()).unwrap();
    assert_eq!((r.calls.len(), r.notes.as_slice()), (0, &["the file has no packets".to_owned()][..]));
}

/// The shots as a server's reports: HEP version 3 from the server to a collector.
fn reported(shots: &[Shot], protocol: u8) -> Vec<Shot> {
    let chunk = |kind: u16, data: &[u8]| {
        let length = u16::try_from(data.len() + 6).unwrap();
        [&[0, 0][..], &kind.to_be_bytes(), &length.to_be_bytes(), data].concat()
    };
    let one = |s: &Shot| {
        let (std::net::IpAddr::V4(src), std::net::IpAddr::V4(dst)) = (s.src.ip(), s.dst.ip()) else { panic!() };
        let chunks = [
            chunk(1, &[2]),
            chunk(2, &[protocol]),
            chunk(3, &src.octets()),
            chunk(4, &dst.octets()),
            chunk(7, &s.src.port().to_be_bytes()),
            chunk(8, &s.dst.port().to_be_bytes()),
            chunk(11, &[1]),
            chunk(15, &s.payload),
        ]
        .concat();
        let length = u16::try_from(chunks.len() + 6).unwrap();
        let payload = [&b"HEP3"[..], &length.to_be_bytes(), &chunks].concat();
        Shot { at: s.at, src: "10.0.0.100:40000".parse().unwrap(), dst: "10.0.0.50:9060".parse().unwrap(), payload }
    };
    shots.iter().map(one).collect()
}

#[test]
fn what_a_server_reported_by_hep_is_told_as_if_it_had_been_captured() {
    let shots = call(A, S);
    let r = good(&file(&reported(&shots, 17)), "HEP");
    assert_eq!((r.traffic.hep, r.traffic.sip, only(&r).legs[0].transport), (7, 7, crate::sip::Transport::Udp));
    // Also on the wire: still one call.
    let both: Vec<Shot> = shots.iter().zip(reported(&shots, 17)).flat_map(|(s, h)| [s.clone(), h]).collect();
    let r = good(&file(&both), "both");
    assert_eq!(only(&r).legs[0].messages, 14);
    // TLS, marked as such by Kamailio.
    let tls: Vec<Shot> = shots
        .iter()
        .map(|s| Shot {
            payload: String::from_utf8_lossy(&s.payload).replace("SIP/2.0/UDP", "SIP/2.0/TLS").into_bytes(),
            ..s.clone()
        })
        .collect();
    let r = good(&file(&reported(&tls, 22)), "TLS");
    assert_eq!(only(&r).legs[0].transport, crate::sip::Transport::Tls);
}

/// The shots as TCP streams, cut into segments of `piece` bytes.
fn streamed(shots: &[Shot], piece: usize) -> Vec<(u64, Vec<u8>)> {
    let mut next = std::collections::HashMap::new();
    let mut out = Vec::new();
    for s in shots {
        let seq = next.entry((s.src, s.dst)).or_insert(1000_u32);
        for part in s.payload.chunks(piece) {
            let mut tcp = Vec::new();
            tcp.extend(s.src.port().to_be_bytes());
            tcp.extend(s.dst.port().to_be_bytes());
            tcp.extend(seq.to_be_bytes());
            tcp.extend([0, 0, 0, 0, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
            tcp.extend(part);
            out.push((s.at, around(s.src.ip(), s.dst.ip(), 6, &tcp)));
            *seq += u32::try_from(part.len()).unwrap();
        }
    }
    out
}

#[test]
fn sip_over_tcp_is_read_in_whatever_pieces_it_comes() {
    let h = Hop::new("c", "10.0.0.1:49152", S, "1000", "2000");
    let mut shots = h.up(&audio("10.0.0.1:4000", ""), &audio("10.0.0.100:9000", ""));
    shots.extend(h.over(true, 2));
    let shots = paced(shots, 100);
    for piece in [64, 200, 1400] {
        let r = good(&pcap(RAW, &streamed(&shots, piece)), &format!("pieces of {piece}"));
        assert_eq!((only(&r).legs[0].transport, r.traffic.sip), (crate::sip::Transport::Tcp, 7));
        assert_eq!(r.server.ports, [5060]);
    }
    // Keep-alives in between, and a stream of another protocol.
    let mut mixed = shots.clone();
    mixed.insert(2, Shot { payload: b"\r\n\r\n".to_vec(), ..shots[0].clone() });
    let web =
        Shot { src: "10.0.0.1:1".parse().unwrap(), payload: b"GET / HTTP/1.1\r\n\r\n".to_vec(), ..shots[0].clone() };
    mixed.insert(1, web);
    good(&pcap(RAW, &streamed(&mixed, 1400)), "mixed");
}
