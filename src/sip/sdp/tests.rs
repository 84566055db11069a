mod views;

use super::*;
use proptest::prelude::*;
use std::net::SocketAddr;

const BODY: &[u8] = b"v=0\r\no=root 1821 1821 IN IP4 10.9.0.100\r\ns=Asterisk PBX 16.28.0\r\nc=IN IP4 10.9.0.100\r\nt=0 0\r\nm=audio 11234 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n";

fn differing<'a>(a: &'a [u8], b: &'a [u8]) -> Vec<(&'a str, &'a str)> {
    let (a, b) = (std::str::from_utf8(a).unwrap(), std::str::from_utf8(b).unwrap());
    assert_eq!(a.lines().count(), b.lines().count());
    a.split_inclusive('\n').zip(b.split_inclusive('\n')).filter(|(x, y)| x != y).collect()
}

#[test]
fn reads_what_a_server_sends() {
    let sdp = Sdp::parse(BODY).unwrap();
    let origin = sdp.origin().unwrap();
    assert_eq!((origin.username, origin.id, origin.version), (&b"root"[..], &b"1821"[..], 1821));
    let m = &sdp.media()[0];
    assert_eq!((m.kind, m.port, m.port_count, m.proto), (&b"audio"[..], 11234, 1, &b"RTP/AVP"[..]));
    assert_eq!(m.connection, Some("10.9.0.100".parse().unwrap()));
    assert_eq!(m.encoding(b"101"), Some(&b"telephone-event/8000"[..]));
    assert_eq!(m.encoding(b"9"), Some(&b"G722/8000"[..]));
    assert_eq!((m.rtcp_port(), m.rtcp_mux, m.crypto, m.direction), (Some(11235), false, false, Direction::SendRecv));
}

#[test]
fn is_lenient_in_reading_and_strict_in_editing() {
    let bare = b"v=0\no=x 1 IN IP4 1.2.3.4\nc=IN IP6 2001:db8::1\nm=audio 4000/2 RTP/SAVP 0\na=inactive\na=rtcp:4009 IN IP6 2001:db8::2\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:abc|2^20\nm=video 0 RTP/AVP 96";
    let sdp = Sdp::parse(bare).unwrap();
    assert_eq!(sdp.origin(), None);
    assert_eq!(continue_origin(bare), Err(SdpError::Origin));
    let m = &sdp.media()[0];
    assert_eq!((m.port_count, m.direction, m.crypto), (2, Direction::Inactive, true));
    assert_eq!(m.keys, [b"inline:abc|2^20"]);
    assert_eq!(m.rtcp, Some((4009, Some("2001:db8::2".parse().unwrap()))));
    assert_eq!(sdp.media()[1].port, 0);
    assert_eq!(Sdp::parse(b"hello").unwrap_err(), SdpError::NotSdp);
    assert_eq!(Sdp::parse(b"v=0\r\nm=audio x RTP/AVP 0\r\n").unwrap_err(), SdpError::Media);
    assert_eq!(Sdp::parse(&b"a=x\n".repeat(3000)).unwrap_err(), SdpError::TooLarge);
}

#[test]
fn the_version_grows_by_one_and_nothing_else_changes() {
    let next = continue_origin(BODY).unwrap();
    assert_eq!(
        differing(BODY, &next),
        [("o=root 1821 1821 IN IP4 10.9.0.100\r\n", "o=root 1821 1822 IN IP4 10.9.0.100\r\n")]
    );
    let top = b"v=0\r\no=- 1 18446744073709551615 IN IP4 1.1.1.1\r\n";
    assert_eq!(continue_origin(top), Err(SdpError::Origin));
}

#[test]
fn media_moves_to_another_address() {
    let to: SocketAddr = "192.0.2.7:20000".parse().unwrap();
    let moved = set_media_address(BODY, &[Some((to, None))]).unwrap();
    assert_eq!(
        differing(BODY, &moved),
        [
            ("c=IN IP4 10.9.0.100\r\n", "c=IN IP4 192.0.2.7\r\n"),
            ("m=audio 11234 RTP/AVP 0 8 101\r\n", "m=audio 20000 RTP/AVP 0 8 101\r\n")
        ]
    );
    assert_eq!(set_media_address(BODY, &[]), Err(SdpError::MediaCount));
}

#[test]
fn hold_disabled_lines_and_neighbours_keep_their_meaning() {
    let body = b"v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\nm=video 0 RTP/AVP 96\r\nm=audio 5000 RTP/AVP 0\r\na=candidate:1 1 UDP 1 10.0.0.1 5000 typ host\r\na=rtcp:5003 IN IP4 10.0.0.1\r\nm=audio 6000 RTP/AVP 0\r\n";
    let a: SocketAddr = "192.0.2.7:20000".parse().unwrap();
    let v: SocketAddr = "192.0.2.8:30000".parse().unwrap();
    let out = set_media_address(body, &[Some((a, None)), Some((a, None)), Some((v, Some(30007))), None]).unwrap();
    let sdp = Sdp::parse(&out).unwrap();
    let seen: Vec<_> = sdp.media().iter().map(|m| (m.port, m.connection.unwrap().to_string())).collect();
    let want = [(20000, "0.0.0.0"), (0, "192.0.2.7"), (30000, "192.0.2.8"), (6000, "10.0.0.1")];
    assert_eq!(seen, want.map(|(p, a)| (p, a.to_owned())));
    assert_eq!(sdp.media()[2].rtcp, Some((30007, Some("192.0.2.8".parse().unwrap()))));
    assert!(!out.windows(9).any(|w| w == b"candidate"));
    // A session-level hold stays a hold.
    let held = b"v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\nc=IN IP4 0.0.0.0\r\nm=audio 4000 RTP/AVP 0\r\n";
    let out = set_media_address(held, &[Some((a, None))]).unwrap();
    assert!(Sdp::parse(&out).unwrap().media()[0].connection.unwrap().is_unspecified());
}

#[test]
fn formats_are_dropped_with_all_that_speaks_of_them() {
    let out = keep_formats(BODY, &[Some(vec![b"8".to_vec(), b"101".to_vec()])]).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("m=audio 11234 RTP/AVP 8 101\r\n"));
    assert!(!text.contains("PCMU") && text.contains("a=fmtp:101 0-16\r\n"));
    assert_eq!(keep_formats(BODY, &[Some(vec![])]).unwrap(), BODY, "an m-line without formats would be malformed");
    assert_eq!(keep_formats(BODY, &[None]).unwrap(), BODY);
}

#[test]
fn what_goes_joins_no_lines() {
    // The LF of an empty line must not merge into the end of the line before it.
    let body = b"v=0\rm=audio 4 RTP/AVP 0 8\ra=ptime:20\ra=rtpmap:8 PCMA/8000\r\n\na=x\r";
    let kept = keep_formats(body, &[Some(vec![b"0".to_vec()])]).unwrap();
    assert_eq!(kept.escape_ascii().to_string(), "v=0\\rm=audio 4 RTP/AVP 0\\ra=ptime:20\\r\\r\\na=x\\r");
}

#[test]
fn a_format_ends_at_a_blank_for_every_reader() {
    let body = b"v=0\r\nm=audio 4 RTP/AVP 0 101\r\na=fmtp:101\x0c0-16 x\r\na=fmtp:0\ty\r\n";
    let sdp = Sdp::parse(body).unwrap();
    assert_eq!((sdp.media()[0].fmtp(b"101"), sdp.media()[0].fmtp(b"0")), (None, Some(&b"y"[..])));
}

#[test]
fn only_spaces_and_tabs_are_blanks() {
    let body = b"v=0\r\nm=audio 4 RTP/AVP 0 8\r\na=fmtp:\x0c0 x\r\na=fmtp: 8 y\r\na=sendonly\x0c\r\n";
    let sdp = Sdp::parse(body).unwrap();
    let m = &sdp.media()[0];
    assert_eq!((m.fmtp(b"0"), m.fmtp(b"8"), m.direction), (None, Some(&b"y"[..]), Direction::SendRecv));
    let kept = keep_formats(body, &[Some(vec![b"0".to_vec()])]).unwrap();
    assert!(!kept.windows(6).any(|w| w == b"a=fmtp"), "{}", kept.escape_ascii());
}

proptest! {
    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..400), flips in proptest::collection::vec((0..400_usize, any::<u8>()), 0..8)) {
        let mut mutated = BODY.to_vec();
        for (at, byte) in flips {
            if let Some(b) = mutated.get_mut(at) { *b = byte; }
        }
        for b in [&body, &mutated] {
            let _ = continue_origin(b);
            if let Ok(sdp) = Sdp::parse(b) {
                let n = sdp.media().len();
                let to = "192.0.2.7:20000".parse().unwrap();
                prop_assert!(set_media_address(b, &vec![Some((to, None)); n]).is_ok());
                prop_assert!(keep_formats(b, &vec![Some(vec![b"0".to_vec()]); n]).is_ok());
            }
        }
    }

    #[test]
    fn another_parser_reads_the_same(ip in any::<[u8; 4]>(), port in 1..65000_u16, version in 0..u64::MAX - 1, rtp in 1..65000_u16) {
        let ip = std::net::Ipv4Addr::from(ip);
        let body = format!("v=0\r\no=- 77 {version} IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 8\r\na=sendrecv\r\n");
        let next = continue_origin(body.as_bytes()).unwrap();
        let out = sdp_types::Session::parse(&next).unwrap();
        prop_assert_eq!(out.origin.sess_version, version + 1);
        prop_assert_eq!(&out.origin.sess_id, "77");
        prop_assert_eq!(out.medias[0].port, port);
        prop_assert_eq!(out.connection.unwrap().connection_address, ip.to_string());
        let mine = Sdp::parse(&next).unwrap();
        prop_assert_eq!(mine.media()[0].port, port);
        let new = SocketAddr::from((ip, rtp));
        let moved = set_media_address(&next, &[Some((new, None))]).unwrap();
        let out = sdp_types::Session::parse(&moved).unwrap();
        prop_assert_eq!(out.medias[0].port, rtp);
        prop_assert_eq!(out.connection.unwrap().connection_address, ip.to_string());
    }
}
