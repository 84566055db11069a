//! Decodes packets as the servers write them, and garbage.

mod intake;
mod one_call;
mod server_end;
mod stream;

use super::{HepError, Kind, decode, transport_of};
use crate::sip::Transport;
use crate::sip::message::Message;
use lab::hep::{self as encode, MICROS, SECONDS, chunk, packet};
use proptest::prelude::*;
use std::net::SocketAddr;

pub(super) const AT: u64 = SECONDS as u64 * 1_000_000 + MICROS as u64;

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A request with `via` in its topmost Via.
pub(super) fn options(via: &str) -> Vec<u8> {
    format!(
        "OPTIONS sip:192.0.2.10 SIP/2.0\r\nVia: SIP/2.0/{via} 198.51.100.7:5061;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bK0\r\n\
         From: <sip:a@example.net>;tag=1\r\nTo: <sip:b@example.net>\r\nCall-ID: a84b4c76e66710\r\nCSeq: 1 OPTIONS\r\n\
         Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

#[test]
fn version_3_of_each_server_says_the_same() {
    for (phone, vip) in [("198.51.100.7:40001", "192.0.2.10:5061"), ("[2001:db8::7]:40001", "[2001:db8::10]:5061")] {
        let (phone, vip, sip) = (addr(phone), addr(vip), options("TLS"));
        for (name, bytes, key, agent) in [
            ("kamailio", encode::kamailio3(phone, vip, 22, Some("secret"), &sip), Some(&b"secret"[..]), 241),
            ("freeswitch", encode::freeswitch3(phone, vip, 22, &sip), None, 200),
            ("opensips", encode::opensips3(phone, vip, 22, 1, chunk(0, 15, &sip)), None, 1),
            ("asterisk", encode::asterisk3(phone, vip, 6, "secret", &sip), Some(b"secret"), 1234),
        ] {
            let hep = decode(&bytes).unwrap();
            assert_eq!((hep.version, hep.src, hep.dst, hep.kind), (3, phone, vip, Kind::Sip), "{name}");
            assert_eq!((hep.at, hep.auth_key, hep.agent_id), (Some(AT), key, Some(agent)), "{name}");
            assert_eq!(*hep.payload().unwrap(), *sip, "{name}");
            let m = Message::parse(&sip).unwrap();
            assert_eq!(transport_of(&m, hep.protocol), Some(Transport::Tls), "{name}");
        }
        let asterisk = encode::asterisk3(phone, vip, 6, "secret", &sip);
        assert_eq!(decode(&asterisk).unwrap().correlation_id, Some(&b"a84b4c76e66710"[..]));
    }
}

#[test]
fn versions_1_and_2_of_each_server_say_the_same() {
    let sip = options("UDP");
    for (phone, vip) in [("198.51.100.7:5062", "192.0.2.10:5060"), ("[2001:db8::7]:5062", "[2001:db8::10]:5060")] {
        let (phone, vip) = (addr(phone), addr(vip));
        for (name, bytes, version, at, agent) in [
            ("kamailio 1", encode::kamailio1(phone, vip, 17, &sip), 1, None, None),
            ("kamailio 2", encode::kamailio2(phone, vip, 17, &sip), 2, Some(AT), Some(241)),
            ("freeswitch 2", encode::freeswitch2(phone, vip, 17, &sip), 2, Some(AT), Some(200)),
            ("opensips 2", encode::opensips2(phone, vip, 17, &sip), 2, Some(AT), Some(1)),
        ] {
            let hep = decode(&bytes).unwrap();
            assert_eq!((hep.version, hep.src, hep.dst, hep.kind), (version, phone, vip, Kind::Sip), "{name}");
            assert_eq!((hep.protocol, hep.at, hep.agent_id, hep.auth_key), (17, at, agent, None), "{name}");
            assert_eq!(*hep.payload().unwrap(), *sip, "{name}");
        }
    }
}

/// Literal bytes, so that encoder and decoder cannot share a mistake.
#[test]
fn bytes_by_hand() {
    let v1 = b"\x01\x10\x02\x11\x13\xc6\x13\xc4\xc6\x33\x64\x07\xc0\x00\x02\x0aOPTIONS sip:a SIP/2.0\r\n\r\n";
    let hep = decode(v1).unwrap();
    assert_eq!((hep.src, hep.dst, hep.protocol), (addr("198.51.100.7:5062"), addr("192.0.2.10:5060"), 17));
    assert!(hep.payload().unwrap().starts_with(b"OPTIONS "));
    let v3 = b"HEP3\x00\x46\
        \x00\x00\x00\x01\x00\x07\x02\x00\x00\x00\x02\x00\x07\x16\
        \x00\x00\x00\x03\x00\x0a\xc6\x33\x64\x07\x00\x00\x00\x04\x00\x0a\xc0\x00\x02\x0a\
        \x00\x00\x00\x07\x00\x08\x9c\x41\x00\x00\x00\x08\x00\x08\x13\xc5\
        \x00\x00\x00\x0b\x00\x07\x01\x00\x00\x00\x0f\x00\x07A";
    let hep = decode(v3).unwrap();
    assert_eq!((hep.src, hep.dst, hep.protocol), (addr("198.51.100.7:40001"), addr("192.0.2.10:5061"), 22));
    assert_eq!((&*hep.payload().unwrap(), hep.kind, hep.at), (&b"A"[..], Kind::Sip, None));
}

#[test]
fn the_topmost_via_decides_and_the_number_tells_what_via_cannot() {
    use Transport::{Tcp, Tls, Udp, Ws};
    for (via, protocol, expected) in [
        ("UDP", 17, Some(Udp)),
        ("UDP", 6, Some(Tcp)),
        ("udp", 22, Some(Tls)),
        ("TCP", 6, Some(Tcp)),
        ("TCP", 17, Some(Tcp)),
        // Its own TLS socket, behind a balancer that writes another Via.
        ("TCP", 22, Some(Tls)),
        ("TLS", 22, Some(Tls)),
        // Asterisk, new and old.
        ("TLS", 6, Some(Tls)),
        ("TLS", 17, Some(Tls)),
        // Kamailio, OpenSIPS, FreeSWITCH.
        ("WS", 22, Some(Ws)),
        ("WSS", 50, Some(Ws)),
        ("wss", 6, Some(Ws)),
        ("TCP", 50, Some(Ws)),
        ("SCTP", 132, None),
        ("UDP", 132, None),
        ("TLS-SCTP", 22, None),
        ("UDP", 255, Some(Udp)),
    ] {
        let bytes = options(via);
        assert_eq!(transport_of(&Message::parse(&bytes).unwrap(), protocol), expected, "Via {via}, number {protocol}");
    }
    let without = b"OPTIONS sip:a SIP/2.0\r\nf: <sip:a>;tag=1\r\nt: <sip:b>\r\ni: 1\r\nCSeq: 1 OPTIONS\r\n\r\n";
    assert_eq!(transport_of(&Message::parse(without).unwrap(), 22), Some(Tls));
}

fn zlib(data: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut e = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    e.write_all(data).unwrap();
    e.finish().unwrap()
}

#[test]
fn a_compressed_payload_is_unfolded_up_to_a_bound() {
    let (a, b) = (addr("198.51.100.7:5060"), addr("192.0.2.10:5060"));
    let with = |data: &[u8]| encode::opensips3(a, b, 17, 1, chunk(0, 16, data));
    let sip = options("UDP");
    assert_eq!(*decode(&with(&zlib(&sip))).unwrap().payload().unwrap(), *sip);
    assert_eq!(decode(&with(&zlib(&[b'a'; 65_535]))).unwrap().payload().unwrap().len(), 65_535);
    // 65 kB hold 64 MB of zeros. One byte too many is enough to give up.
    for bomb in [zlib(&[b'a'; 65_536]), zlib(&vec![0; 64 << 20])] {
        assert_eq!(decode(&with(&bomb)).unwrap().payload(), Err(HepError::Inflate));
    }
    assert_eq!(decode(&with(b"OPTIONS sip:a SIP/2.0")).unwrap().payload(), Err(HepError::Inflate));
    let cut = zlib(&sip);
    assert_eq!(decode(&with(&cut[..cut.len() / 2])).unwrap().payload(), Err(HepError::Inflate));
}

#[test]
fn unknown_chunks_are_skipped_and_known_ones_held_to_their_size() {
    let (a, b) = (addr("198.51.100.7:5060"), addr("192.0.2.10:5060"));
    let sip = chunk(0, 15, &options("UDP"));
    // Vendor 4 is Asterisk's: its type 1 is not the family.
    let odd = [chunk(4, 1, b"anything"), chunk(0, 999, b""), chunk(0, 18, &[0, 7]), sip].concat();
    assert_eq!(decode(&encode::opensips3(a, b, 17, 1, odd)).unwrap().src, a);
    for (kind, size, name) in
        [(1, 2, "family"), (3, 5, "IPv4 source"), (6, 4, "IPv6 destination"), (7, 4, "source port"), (11, 4, "kind")]
    {
        let bytes = packet(&[chunk(0, kind, &vec![0; size])]);
        assert_eq!(decode(&bytes), Err(HepError::Malformed(name)));
    }
    let many = vec![chunk(0, 999, b""); 65];
    assert_eq!(decode(&packet(&many)), Err(HepError::TooManyChunks));
    let mixed = [chunk(0, 3, &[1, 2, 3, 4]), chunk(0, 6, &[0; 16]), chunk(0, 11, &[1]), chunk(0, 15, b"x")];
    assert_eq!(decode(&packet(&mixed)), Err(HepError::Malformed("destination address")));
    assert_eq!(decode(&packet(&mixed[..3])), Err(HepError::Malformed("destination address")));
    assert_eq!(decode(&packet(&mixed[..2])), Err(HepError::Missing("kind of payload")));
    assert_eq!(decode(&packet(&mixed[2..])), Err(HepError::Missing("source address")));
    assert_eq!(decode(&packet(&[])), Err(HepError::Missing("kind of payload")));
}

#[test]
fn what_is_no_sip_needs_no_addresses() {
    // OpenSIPS' xlog, RTCP reports as JSON, Kamailio's hlog.
    for kind in [0x56, 5, 100] {
        let hep = packet(&[chunk(0, 11, &[kind]), chunk(0, 15, b"{}")]);
        assert_eq!(decode(&hep).unwrap().kind, Kind::Other(kind));
    }
    assert_eq!(decode(&packet(&[chunk(0, 11, &[100])])).unwrap().kind, Kind::Other(100));
}

#[test]
fn a_packet_cut_anywhere_is_an_error() {
    let (a, b) = (addr("198.51.100.7:5060"), addr("192.0.2.10:5060"));
    let whole = encode::kamailio3(a, b, 17, None, &options("UDP"));
    for end in 0..whole.len() {
        assert!(decode(&whole[..end]).is_err(), "{end} bytes of {}", whole.len());
    }
    let mut longer = whole.clone();
    longer.extend_from_slice(b"\0\0rest");
    assert_eq!(decode(&longer), decode(&whole));
    // The header of the versions without a length of their message.
    for bytes in
        [encode::kamailio1(a, b, 17, b""), encode::kamailio2(a, b, 17, b""), encode::freeswitch2(a, b, 17, b"")]
    {
        assert!(decode(&bytes).is_ok());
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err());
        }
    }
    let mut wrong = encode::kamailio1(a, b, 17, b"x");
    wrong[1] = 28;
    assert_eq!(decode(&wrong), Err(HepError::Malformed("length")));
    wrong[1] = 7;
    assert_eq!(decode(&wrong), Err(HepError::Malformed("length")));
    wrong[0] = 3;
    assert_eq!(decode(&wrong), Err(HepError::NotHep));
    assert_eq!(decode(b"OPTIONS sip:a SIP/2.0"), Err(HepError::NotHep));
    assert_eq!(decode(b""), Err(HepError::NotHep));
    // A chunk shorter than its own header would loop for ever.
    let short = [b"HEP3\x00\x0c".as_slice(), &[0, 0, 0, 15, 0, 5]].concat();
    assert_eq!(decode(&short), Err(HepError::Truncated));
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), version in 0_u8..4) {
        let mut bytes = bytes;
        match (version, bytes.len()) {
            (3, 6..) => { let n = u16::try_from(bytes.len()).unwrap(); bytes[..4].copy_from_slice(b"HEP3"); bytes[4..6].copy_from_slice(&n.to_be_bytes()); }
            (1 | 2, 3..) => { bytes[0] = version; bytes[1] %= 64; bytes[2] = if bytes[2] & 1 == 0 { 2 } else { 10 }; }
            _ => {}
        }
        if let Ok(hep) = decode(&bytes) {
            let _ = hep.payload();
        }
    }

    #[test]
    fn whatever_was_written_is_read(a in any::<[u8; 16]>(), b in any::<[u8; 16]>(), ports in any::<(u16, u16)>(), key in "[ -~]{0,40}",
                                    payload in proptest::collection::vec(any::<u8>(), 0..2000), protocol in any::<u8>()) {
        let (src, dst) = (SocketAddr::new(a.into(), ports.0), SocketAddr::new(b.into(), ports.1));
        let bytes = encode::kamailio3(src, dst, protocol, Some(&key), &payload);
        let hep = decode(&bytes).unwrap();
        prop_assert_eq!((hep.src, hep.dst, hep.protocol, hep.auth_key), (src, dst, protocol, Some(key.as_bytes())));
        prop_assert_eq!(&*hep.payload().unwrap(), &payload[..]);
    }
}
