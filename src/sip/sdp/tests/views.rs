//! Descriptions in the style of phones, gateways, browsers and fax machines.

use super::*;

fn media(body: &[u8]) -> Vec<Media<'_>> {
    Sdp::parse(body).unwrap().media().to_vec()
}

#[test]
fn a_browser_with_bundle_ice_and_dtls() {
    let body = b"v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=group:LS 0 1\r\na=ice-lite\r\na=fingerprint:sha-256 AA:BB\r\na=setup:actpass\r\na=tls-id:abc3de65cddef001be82\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=candidate:1 1 udp 2113937151 192.0.2.4 50000 typ host generation 0\r\na=candidate:2 2 UDP 1 3f.local 50001 typ srflx raddr 10.0.0.1 rport 4\r\na=candidate:broken\r\na=ice-ufrag:4ZcD\r\na=ice-pwd:2/1muCWoOi3uLifh0NuRHlfs\r\na=mid:0\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=ptime:20\r\nb=AS:64\r\nb=TIAS:64000\r\nm=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\na=bundle-only\r\na=fingerprint:sha-1 CC:DD\r\na=fingerprint:sha-256 EE:FF\r\na=setup:PASSIVE\r\n";
    let sdp = Sdp::parse(body).unwrap();
    assert!(sdp.is_ice_lite());
    assert_eq!(
        sdp.groups().map(|g| (g.semantics, g.mids)).collect::<Vec<_>>(),
        [(&b"BUNDLE"[..], vec![&b"0"[..], b"1"]), (b"LS", vec![b"0", b"1"])]
    );
    assert_eq!((sdp.bundled_with(0), sdp.bundled_with(1), sdp.bundled_with(2)), (Some(0), Some(0), None));
    let [audio, video] = sdp.media() else { panic!() };
    assert_eq!(audio.ice(), Some((&b"4ZcD"[..], &b"2/1muCWoOi3uLifh0NuRHlfs"[..])));
    let candidates: Vec<_> = audio.candidates().collect();
    assert_eq!(candidates.len(), 2);
    assert_eq!(
        (candidates[0].component, candidates[0].address, candidates[0].port, candidates[0].kind),
        (1, Some("192.0.2.4".parse().unwrap()), 50000, &b"host"[..])
    );
    assert_eq!((candidates[1].component, candidates[1].address, candidates[1].kind), (2, None, &b"srflx"[..]));
    assert_eq!(
        (audio.setup(), audio.tls_id(), audio.mid()),
        (Some(Setup::ActPass), Some(&b"abc3de65cddef001be82"[..]), Some(&b"0"[..]))
    );
    assert_eq!(audio.fingerprints().collect::<Vec<_>>(), [(&b"sha-256"[..], &b"AA:BB"[..])]);
    assert_eq!(audio.keys, [b"sha-256 AA:BB"]);
    assert_eq!(
        (audio.ptime(), audio.fmtp(b"111"), audio.fmtp(b"63")),
        (Some(20), Some(&b"minptime=10;useinbandfec=1"[..]), None)
    );
    assert_eq!(audio.bandwidths().collect::<Vec<_>>(), [(&b"AS"[..], 64), (b"TIAS", 64000)]);
    assert!(audio.rtcp_mux && audio.is_rtp() && audio.is_secure() && audio.is_hold() && !audio.is_disabled());
    assert_eq!((video.setup(), video.is_disabled(), video.ice()), (Some(Setup::Passive), false, None));
    assert_eq!(video.keys, [&b"sha-1 CC:DD"[..], b"sha-256 EE:FF"], "its own replace those of the session");
    assert_eq!(audio.block().len() + video.block().len() + memchr::memmem::find(body, b"m=").unwrap(), body.len());
}

#[test]
fn a_fax_a_conference_and_keys() {
    let body = b"v=0\no=- 1 1 IN IP6 2001:db8::1\ns=-\nc=IN IP6 2001:db8::1\nt=0 0\nm=image 4100 udptl t38\na=T38FaxVersion:0\na=T38FaxUdpEC:t38UDPRedundancy\nm=application 50000 UDP/BFCP *\na=floorctrl:c-s\na=setup:active\nm=audio 4000 RTP/SAVP 8\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNf|2^20|1:4\na=crypto:2 AEAD_AES_256_GCM inline:abcd UNENCRYPTED_SRTCP\na=crypto:x\nm=message 7654 TCP/MSRP *\nm=audio 4002 TCP/RTP/AVP 0\n";
    let all = media(body);
    assert_eq!(all.iter().map(Media::is_rtp).collect::<Vec<_>>(), [false, false, true, false, true]);
    assert!(all[0].is_t38() && !all[1].is_t38());
    assert_eq!((all[0].attribute("t38faxversion"), all[0].proto), (Some(&b"0"[..]), &b"udptl"[..]));
    assert_eq!((all[1].formats.as_slice(), all[1].setup()), (&[&b"*"[..]][..], Some(Setup::Active)));
    let keys: Vec<_> = all[2].cryptos().collect();
    assert_eq!(keys[0], Crypto { tag: 1, suite: b"AES_CM_128_HMAC_SHA1_80", key: b"inline:WVNf|2^20|1:4" });
    assert_eq!((keys.len(), keys[1].tag, keys[1].suite), (2, 2, &b"AEAD_AES_256_GCM"[..]));
    assert!(!format!("{:?}", keys[0]).contains("WVNf"), "keys do not get into logs");
    assert!(all[2].crypto && !all[0].crypto);
}

#[test]
fn holds_of_each_kind() {
    let hold = |session: &str, own: &str| {
        let body = format!("v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\n{session}m=audio 4000 RTP/AVP 0\r\n{own}");
        media(body.as_bytes())[0].is_hold()
    };
    assert!(!hold("c=IN IP4 1.1.1.1\r\n", ""));
    assert!(hold("c=IN IP4 1.1.1.1\r\na=sendonly\r\n", ""));
    assert!(!hold("c=IN IP4 1.1.1.1\r\na=sendonly\r\n", "a=sendrecv\r\n"), "the m-line's own direction counts");
    assert!(hold("c=IN IP4 1.1.1.1\r\n", "a=Inactive \r\n"));
    assert!(!hold("c=IN IP4 1.1.1.1\r\n", "a=recvonly\r\n"), "it wants media");
    assert!(hold("c=IN IP4 0.0.0.0\r\n", ""));
    assert!(hold("c=IN IP4 1.1.1.1\r\n", "c=IN IP4 0.0.0.0\r\na=sendrecv\r\n"));
    assert!(hold("c=IN IP6 ::\r\n", ""));
    assert!(!hold("c=IN IP4 0.0.0.0\r\n", "c=IN IP4 1.1.1.1\r\n"));
}

#[test]
fn host_names_multicast_and_odd_endings() {
    let body = b"v=0\ro=-  7   8  IN IP4 h.example  \rs=-\rc=IN IP4 media.example.com\rm=audio  4000\tRTP/AVP  0  8 \ra=ptime:32.5\rm=video 5000 RTP/AVP 96\rc=IN IP4 224.2.1.1/127/3\r\0\0garbage";
    let sdp = Sdp::parse(body).unwrap();
    let o = sdp.origin().unwrap();
    assert_eq!((o.username, o.id, o.version, o.rest), (&b"-"[..], &b"7"[..], 8, &b"IN IP4 h.example"[..]));
    let [audio, video] = sdp.media() else { panic!() };
    assert_eq!(
        (audio.connection, audio.host, audio.formats.len(), audio.ptime()),
        (None, Some(&b"media.example.com"[..]), 2, Some(32))
    );
    assert_eq!((video.connection, video.host), (Some("224.2.1.1".parse().unwrap()), Some(&b"224.2.1.1"[..])));
    let next = continue_origin(body).unwrap();
    assert_eq!(Sdp::parse(&next).unwrap().origin().unwrap().version, 9);
    assert!(next.ends_with(b"\r\0\0garbage"));
}

#[test]
fn an_origin_without_a_username_is_read() {
    for (o, want) in [
        (&b" 1 2 IN IP4 h"[..], Some((&b""[..], &b"1"[..], 2))),
        (b"  u 1 2 IN IP4 h", Some((b"u", b"1", 2))),
        (b"u 1 2 IN IP4", None),
        (b"u 1 x IN IP4 h", None),
        (b"u 1 99999999999999999999 IN IP4 h", None),
        (b"", None),
    ] {
        let body = [b"v=0\r\no=", o, b"\r\n"].concat();
        assert_eq!(Sdp::parse(&body).unwrap().origin().map(|o| (o.username, o.id, o.version)), want);
    }
}

#[test]
fn an_edit_keeps_tabs_counts_and_missing_line_ends_apart() {
    let to = "[2001:db8::7]:20000".parse().unwrap();
    let move_all = |body: &[u8], n: usize| {
        String::from_utf8(set_media_address(body, &vec![Some((to, None)); n]).unwrap()).unwrap()
    };
    assert_eq!(move_all(b"m=audio\t4000/2\tRTP/AVP 0", 1), "m=audio\t20000\tRTP/AVP 0\r\nc=IN IP6 2001:db8::7");
    assert_eq!(move_all(b"m=audio 00 RTP/AVP 0\n", 1), "m=audio 00 RTP/AVP 0\nc=IN IP6 2001:db8::7\n");
    assert_eq!(
        move_all(b"c=IN IP4 1.1.1.1\rm= audio  4000 RTP/AVP 0\r", 1),
        "c=IN IP6 2001:db8::7\rm= audio  20000 RTP/AVP 0\r"
    );
}

#[test]
fn what_the_session_said_stays_true_for_m_lines_that_do_not_move() {
    let body = b"v=0\r\no=- 1 1 IN IP4 1.1.1.1\r\nc=IN IP4 old.example\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\na=ice-lite\r\nm=audio 4000 RTP/AVP 0\r\na=candidate:1 1 UDP 1 1.1.1.1 4000 typ host\r\nm=audio 5000 RTP/AVP 0";
    let to = "192.0.2.7:20000".parse().unwrap();
    let out = set_media_address(body, &[Some((to, None)), None]).unwrap();
    let (before, after) = (Sdp::parse(body).unwrap(), Sdp::parse(&out).unwrap());
    assert_eq!(after.media()[0].ice(), None);
    assert_eq!((after.media()[1].ice(), after.media()[1].host), (before.media()[1].ice(), before.media()[1].host));
    assert!(after.is_ice_lite() && out.ends_with(b"RTP/AVP 0\r\nc=IN IP4 old.example\r\na=ice-ufrag:u\r\na=ice-pwd:p"));
    assert_eq!(set_media_address(body, &[None, None]).unwrap(), body);
}

#[test]
fn places_are_those_of_the_whole_description() {
    let bodies = [
        "v=0\r\nc=IN IP4 192.0.2.1/127\r\nm=audio 4000/2 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\nc=IN IP6 2001:db8::1\r\nm=x 1 udp y\r\n",
        "v=0\nm=audio 4000 RTP/AVP 0\nc=IN IP4 phone.example\n",
        "v=0\rc=IN IP4 192.0.2.1\rm=audio\t4000  RTP/AVP 0\rc=\r",
        "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000/x RTP/AVP 0\r\n",
        "v=0\r\nm=audio 4000\r\n",
        "v=0\r\nm=audio 65536 RTP/AVP 0\r\n",
        "s=-\r\n",
        "",
    ];
    for body in bodies {
        let whole = Sdp::parse(body.as_bytes());
        let expected: Vec<_> = whole.iter().flat_map(|s| s.media()).map(|m| (m.connection, m.port)).collect();
        assert_eq!(crate::sip::sdp::places(body.as_bytes()).to_vec(), expected, "{body:?}");
    }
    let many = format!("v=0\r\n{}", "m=audio 9 RTP/AVP 0\r\n".repeat(65));
    assert!(Sdp::parse(many.as_bytes()).is_err());
    assert!(crate::sip::sdp::places(many.as_bytes()).is_empty());
}
