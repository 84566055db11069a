use super::*;
use proptest::prelude::*;

/// An IPv4 UDP packet 10.0.0.1:5060 -> 10.0.0.2:5061.
fn v4(payload: &[u8], flags: u16) -> Vec<u8> {
    let mut p = vec![0x45, 0];
    p.extend(((28 + payload.len()) as u16).to_be_bytes());
    p.extend([0, 7]);
    p.extend(flags.to_be_bytes());
    p.extend([64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    p.extend(udp(payload));
    p
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let mut p = Vec::new();
    p.extend(5060_u16.to_be_bytes());
    p.extend(5061_u16.to_be_bytes());
    p.extend(((8 + payload.len()) as u16).to_be_bytes());
    p.extend([0, 0]);
    p.extend(payload);
    p
}

/// An IPv6 UDP packet behind prebuilt extension headers, the first of kind `next`.
fn v6(next: u8, extensions: &[u8], payload: &[u8]) -> Vec<u8> {
    let body = [extensions, &udp(payload)].concat();
    let mut p = vec![0x60, 0, 0, 0];
    p.extend((body.len() as u16).to_be_bytes());
    p.extend([next, 64]);
    p.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
    p.extend("fd00::2".parse::<Ipv6Addr>().unwrap().octets());
    p.extend(body);
    p
}

fn ethernet(tags: &[u16], ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut f = vec![0; 12];
    for tag in tags {
        f.extend(tag.to_be_bytes());
        f.extend([0, 9]);
    }
    f.extend(ethertype.to_be_bytes());
    f.extend(packet);
    f
}

#[test]
fn finds_the_datagram_behind_every_link_type() {
    let packet = v4(b"hello", 0);
    let mut sll = vec![0; 14];
    sll.extend([0x08, 0x00]);
    let mut sll2 = vec![0x08, 0x00];
    sll2.extend([0; 18]);
    for (link, frame) in [
        (Link::Ethernet, ethernet(&[], 0x0800, &packet)),
        (Link::Ethernet, ethernet(&[0x8100], 0x0800, &packet)),
        (Link::Ethernet, ethernet(&[0x88a8, 0x8100], 0x0800, &packet)),
        (Link::Sll, [sll, packet.clone()].concat()),
        (Link::Sll2, [sll2, packet.clone()].concat()),
        (Link::RawIp, packet.clone()),
        (Link::Null, [vec![2, 0, 0, 0], packet.clone()].concat()),
    ] {
        let (src, dst, payload) = udp_of(link, &frame).unwrap();
        assert_eq!(
            (src.to_string(), dst.to_string(), payload),
            ("10.0.0.1:5060".into(), "10.0.0.2:5061".into(), &b"hello"[..])
        );
    }
}

#[test]
fn ipv6_extension_headers_are_looked_behind() {
    // Hop-by-hop (8 bytes), then destination options (16 bytes), then UDP.
    let mut extensions = vec![60, 0, 0, 0, 0, 0, 0, 0];
    extensions.extend([17, 1]);
    extensions.extend([0; 14]);
    for packet in [v6(17, &[], b"x"), v6(0, &extensions, b"x"), v6(44, &[17, 0, 0, 0, 0, 0, 0, 1], b"x")] {
        let frame = ethernet(&[], 0x86dd, &packet);
        let (src, _, payload) = udp_of(Link::Ethernet, &frame).unwrap();
        assert_eq!((src.to_string(), payload), ("[fd00::1]:5060".into(), &b"x"[..]));
    }
}

#[test]
fn padding_is_left_out_and_fragments_are_told() {
    let mut padded = v4(b"hi", 0);
    padded.extend([0xee; 20]);
    assert_eq!(udp_of(Link::RawIp, &padded).unwrap().2, b"hi");
    let first = v4(b"12345678", 0x2000);
    assert_eq!(udp_of(Link::RawIp, &first), None);
    let Some(Udp::Fragment(f)) = udp_in_ip(&first) else { panic!("not a fragment") };
    assert_eq!((f.id, f.offset, f.more, f.data.len()), (7, 0, true, 16));
    let later = v6(44, &[17, 0, 0, 0x19, 0, 0, 0, 9], b"");
    let Some(Udp::Fragment(f)) = udp_in_ip(&later) else { panic!("not a fragment") };
    assert_eq!((f.id, f.offset, f.more), (9, 24, true));
}

#[test]
fn every_truncation_and_every_lying_length_gives_nothing() {
    let whole = ethernet(&[0x8100], 0x0800, &v4(b"payload", 0));
    for end in 0..whole.len() {
        assert_eq!(udp_of(Link::Ethernet, &whole[..end]), None, "cut at {end}");
    }
    let whole = ethernet(&[], 0x86dd, &v6(17, &[], b"payload"));
    for end in 0..whole.len() {
        assert_eq!(udp_of(Link::Ethernet, &whole[..end]), None, "cut at {end}");
    }
    for (at, value) in [(0, 0x44), (2, 0xff), (3, 19), (24, 0xff), (25, 7), (9, 6)] {
        let mut packet = v4(b"payload", 0);
        packet[at] = value;
        assert_eq!(udp_of(Link::RawIp, &packet), None, "byte {at} = {value}");
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
        for link in [Link::Ethernet, Link::Sll, Link::Sll2, Link::RawIp, Link::Null] {
            let _ = udp_of(link, &frame);
        }
    }

    #[test]
    fn flipped_bytes_never_panic(at in 0_usize..60, value: u8) {
        for mut packet in [v4(b"payload", 0), v6(0, &[17, 0, 0, 0, 0, 0, 0, 0], b"payload")] {
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
            let _ = udp_in_ip(&packet);
        }
    }
}
