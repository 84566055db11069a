use super::*;

/// An IPv4 packet of this protocol.
fn around(protocol: u8, data: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(20 + data.len()).unwrap().to_be_bytes();
    let header = [0x45, 0, high, low, 0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    [&header[..], data].concat()
}

fn datagram(port: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + data.len()).unwrap();
    let header = [&[0x30, 0x39][..], &port.to_be_bytes(), &length.to_be_bytes(), &[0, 0]].concat();
    around(UDP, &[&header[..], data].concat())
}

fn inner() -> Vec<u8> {
    around(UDP, &[7; 40])
}

fn frame() -> Vec<u8> {
    [&[2; 12][..], &[8, 0], &inner()].concat()
}

/// What `of` is, behind `header`.
fn behind(header: &[u8], of: &[u8]) -> Vec<u8> {
    [header, of].concat()
}

#[test]
fn tunnels_that_are_simple_are_read() {
    let (ip, frame) = (inner(), frame());
    let length = |extra: usize| u16::try_from(ip.len() + extra).unwrap().to_be_bytes();
    let gtp = |flags: u8, more: &[u8]| {
        let header = [&[flags, 0xff][..], &length(more.len()), &[0, 0, 0, 1], more].concat();
        behind(&header, &ip)
    };
    for packet in [
        around(IP_IN_IP, &ip),
        around(GRE, &behind(&[0, 0, 8, 0], &ip)),
        around(GRE, &behind(&[0x30, 0, 8, 0, 0, 0, 0, 1, 0, 0, 0, 2], &ip)),
        around(GRE, &behind(&[0, 0, 0x65, 0x58], &frame)),
        around(GRE, &behind(&[0, 0, 0x88, 0x47, 0, 0, 0x11, 64], &ip)),
        // PPTP: address and control or not, protocol in one byte or two, with an acknowledgement or not.
        around(GRE, &behind(&[0x30, 1, 0x88, 0x0b, 0, 9, 0, 1, 0, 0, 0, 1, 0xff, 3, 0, 0x21], &ip)),
        around(GRE, &behind(&[0x30, 0x81, 0x88, 0x0b, 0, 9, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0x21], &ip)),
        datagram(GTP_U, &gtp(0x30, &[])),
        datagram(GTP_U, &gtp(0x32, &[0, 1, 0, 0])),
        // The container of a 5G session, then a second header.
        datagram(GTP_U, &gtp(0x34, &[0, 0, 0, 0x85, 1, 0x10, 9, 0x20, 2, 0, 0, 0, 0, 0, 0, 0])),
        datagram(GENEVE, &behind(&[1, 0, 0x65, 0x58, 0, 0, 1, 0, 9, 9, 9, 9], &frame)),
        datagram(4789, &behind(&[8, 0, 0, 0, 0, 0, 1, 0], &frame)),
        datagram(TZSP, &behind(&[1, 0, 0, 1, 10, 1, 0, 0, 1], &frame)),
        datagram(L2TP, &behind(&[0, 2, 0, 1, 0, 2, 0xff, 3, 0, 0x21], &ip)),
        datagram(L2TP, &behind(&[0x4a, 2, 0, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 1, 9, 0, 0x21], &ip)),
    ] {
        assert_eq!(content(&packet), Content::Packet(&ip), "{packet:x?}");
        // The padding of a frame is no content.
        let padded = behind(&packet, &[0; 9]);
        assert!(matches!(content(&padded), Content::Packet(i) if i.starts_with(&ip)), "{packet:x?}");
        // Every beginning of it gives something, and no panic. So does damage.
        for n in 0..packet.len() {
            let _ = content(&packet[..n]);
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = packet.clone();
                damaged[n] = value;
                let _ = content(&damaged);
            }
        }
    }
}

#[test]
fn what_is_seen_and_not_read_is_told() {
    let sip = b"OPTIONS sip:a@b SIP/2.0\r\nVia: x\r\n\r\n";
    let chunk = |kind: u8, header: usize, data: &[u8]| {
        let length = u16::try_from(header + data.len()).unwrap().to_be_bytes();
        let mut out = [&[kind, 3][..], &length, &vec![0; header - 4], data].concat();
        out.resize(out.len().next_multiple_of(4), 0);
        out
    };
    let sctp = |chunks: &[Vec<u8>]| around(SCTP, &[&[0; 12][..], &chunks.concat()].concat());
    let fragment = {
        let mut packet = around(GRE, &[0; 40]);
        packet[6] = 0x20;
        packet
    };
    for (packet, what) in [
        (sctp(&[chunk(0, 16, sip)]), Unread::SipOverSctp),
        (sctp(&[chunk(3, 16, &[]), chunk(64, 20, sip)]), Unread::SipOverSctp),
        (around(ESP, &[9; 60]), Unread::Esp),
        (datagram(NAT_T, &[9; 60]), Unread::Esp),
        (datagram(WIREGUARD, &behind(&[4, 0, 0, 0], &[9; 76])), Unread::Wireguard),
        (around(GRE, &[0x30, 1, 0x88, 0x0b, 0, 9, 0, 1, 0, 0, 0, 1, 0x00, 0xfd, 1, 2, 3]), Unread::Gre),
        (around(GRE, &[0, 0, 0x99, 0x99, 1, 2, 3]), Unread::Gre),
        (datagram(GTP_U, &[0x30, 0xff, 0, 6, 0, 0, 0, 1, 0, 1, 2, 3, 4, 5]), Unread::GtpU),
        (datagram(L2TP, &[0, 2, 0, 1, 0, 2, 0, 0xfd, 1, 2]), Unread::L2tp),
        (around(L2TP_V3, &[0, 0, 0, 1, 2, 3]), Unread::L2tp),
        (fragment, Unread::TunnelFragment),
    ] {
        assert_eq!(content(&packet), Content::Unread(what), "{packet:x?}");
    }
}

#[test]
fn what_only_resembles_a_tunnel_is_none() {
    let rtp = [&[0x80, 0, 0, 1][..], &[0; 168]].concat();
    for packet in [
        inner(),
        datagram(GTP_U, &rtp),
        datagram(GENEVE, &rtp),
        datagram(TZSP, &rtp),
        datagram(L2TP, &rtp),
        // Echo request, and a length that leaves bytes over.
        datagram(GTP_U, &[0x32, 1, 0, 4, 0, 0, 0, 0, 0, 1, 0, 0]),
        datagram(GTP_U, &behind(&[0x30, 0xff, 0, 1, 0, 0, 0, 1], &inner())),
        // IKE, a keep-alive, control of L2TP and of PPP, an acknowledgement of PPTP.
        datagram(NAT_T, &[0; 60]),
        datagram(NAT_T, &[0xff]),
        datagram(WIREGUARD, &behind(&[4, 0, 0, 0], &[9; 28])),
        datagram(WIREGUARD, &rtp),
        datagram(L2TP, &[0xc8, 2, 0, 12, 0, 1, 0, 0, 0, 1, 0, 1]),
        around(GRE, &[0x30, 1, 0x88, 0x0b, 0, 9, 0, 1, 0, 0, 0, 1, 0xff, 3, 0xc0, 0x21, 1, 1, 0, 4]),
        around(GRE, &[0x20, 0x81, 0x88, 0x0b, 0, 0, 0, 1, 0, 0, 0, 1]),
        around(SCTP, &[0; 60]),
    ] {
        assert_eq!(content(&packet), Content::Plain, "{packet:x?}");
    }
}
