//! Media: the agreement, and the RTP.

use super::build::{Hop, Shot, audio, file, paced, rtp};
use super::*;
use crate::inspect::report::{Crypto, Hold, Media};

const A: &str = "10.0.0.1:5060";
const B: &str = "10.0.0.2:5060";
const S: &str = "10.0.0.100:5060";

/// A call through a B2BUA. The caller's description names `told_at`, and its packets come from `real`.
fn conversation(told_at: &str, real: &str, packets: [u16; 2]) -> Report {
    // The NAT gives SIP and RTP the same address.
    let caller = format!("{}:5060", real.split(':').next().unwrap());
    let (i, o) = (Hop::new("in", &caller, S, "1000", "2000"), Hop::new("out", S, B, "1000", "2000"));
    let mut shots = vec![i.invite(&audio(told_at, "")), o.invite(&audio("10.0.0.100:9002", ""))];
    shots.extend([o.answer(200, &audio("10.0.0.2:4002", "")), o.ack()]);
    shots.extend([i.answer(200, &audio("10.0.0.100:9000", "")), i.ack()]);
    shots.extend(rtp(real, "10.0.0.100:9000", packets[0]));
    shots.extend(rtp("10.0.0.100:9000", real, packets[1]));
    shots.extend(rtp("10.0.0.2:4002", "10.0.0.100:9002", packets[1]));
    shots.extend(rtp("10.0.0.100:9002", "10.0.0.2:4002", packets[0]));
    shots.extend(rtp("10.0.0.9:1", "10.0.0.8:2", 3));
    run(&file(&paced(shots, 20)), &InspectSettings::default()).unwrap()
}

#[test]
fn rtp_is_laid_to_the_legs() {
    let r = conversation("10.0.0.1:4000", "10.0.0.1:4000", [60, 40]);
    assert_eq!((r.rtp.packets, r.rtp.unknown), (200, 3));
    let c = only(&r);
    let m: Vec<&Media> = c.legs.iter().map(|l| &l.media[0]).collect();
    assert!(m.iter().all(|m| m.agreed && m.codecs == ["PCMA/8000", "telephone-event/8000"]));
    let received = m[0].received.as_ref().unwrap();
    assert_eq!((received.packets, received.bytes, received.lost, received.ssrcs), (60, 60 * 172, 0, 1));
    assert_eq!((received.source_differs, received.source), (false, Some("10.0.0.1:4000".parse().unwrap())));
    assert_eq!((received.payload_types[0].number, received.payload_types[0].codec.as_deref()), (8, Some("PCMA/8000")));
    assert_eq!(m[0].sent.as_ref().unwrap().packets, 40);
    assert_eq!((m[1].received.as_ref().unwrap().packets, m[1].sent.as_ref().unwrap().packets), (40, 60));
    assert_eq!(c.notes, Vec::<String>::new());
}

#[test]
fn a_phone_behind_a_nat_is_found_by_its_rtp() {
    let r = conversation("192.168.1.5:4000", "203.0.113.7:61000", [60, 40]);
    let c = only(&r);
    let m = &c.legs[0].media[0];
    assert!(m.received.as_ref().unwrap().source_differs);
    assert_eq!((m.received.as_ref().unwrap().packets, m.sent.as_ref().unwrap().packets), (60, 40));
    assert!(c.notes.iter().any(|n| n.contains("behind a NAT") && n.contains("203.0.113.7:61000")), "{:?}", c.notes);
}

#[test]
fn one_way_audio_is_said() {
    let c = only(&conversation("10.0.0.1:4000", "10.0.0.1:4000", [100, 0])).clone();
    assert!(c.notes.iter().any(|n| n.starts_with("one-way audio: RTP goes only from 10.0.0.1")), "{:?}", c.notes);
    assert!(c.notes.iter().any(|n| n.starts_with("one-way audio: RTP goes only to 10.0.0.2")), "{:?}", c.notes);
}

#[test]
fn losses_and_ports_of_earlier_calls_are_told_apart() {
    let one = Hop::new("one", A, S, "1000", "2000");
    let two = Hop { from_tag: "x".into(), branch: "z9hG4bKx".into(), ..Hop::new("two", B, S, "1001", "2000") };
    let (sdp, server) = (audio("10.0.0.1:4000", ""), audio("10.0.0.100:9000", ""));
    let mut lossy = rtp("10.0.0.1:4000", "10.0.0.100:9000", 30);
    lossy.drain(10..15);
    let mut shots = [one.up(&sdp, &server), lossy, one.over(true, 2)].concat();
    // The server gives the port to the next call, minutes later.
    shots = paced(shots, 20);
    let later = [two.up(&audio("10.0.0.2:4002", ""), &server), rtp("10.0.0.2:4002", "10.0.0.100:9000", 7)].concat();
    shots.extend(paced(later, 20).into_iter().map(|s| Shot { at: s.at + 100_000, ..s }));
    let r = run(&file(&shots), &InspectSettings::default()).unwrap();
    let received: Vec<_> = r.calls.iter().map(|c| c.legs[0].media[0].received.clone().unwrap()).collect();
    assert_eq!(received.iter().map(|r| (r.packets, r.lost)).collect::<Vec<_>>(), [(25, 5), (7, 0)]);
}

#[test]
fn every_kind_of_media_is_described_and_no_key_is_told() {
    let key = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";
    let fingerprint = "4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B";
    let sdes = format!(
        "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/SAVP 0\r\n\
         a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}\r\nm=image 4004 udptl t38\r\n"
    );
    let dtls = format!(
        "v=0\r\no=- 1 1 IN IP4 10.0.0.100\r\ns=-\r\nc=IN IP4 10.0.0.100\r\nt=0 0\r\na=fingerprint:sha-256 {fingerprint}\r\na=ice-ufrag:x\r\na=ice-pwd:y\r\n\
         m=audio 9000 UDP/TLS/RTP/SAVPF 0\r\na=rtcp-mux\r\na=inactive\r\nm=image 0 udptl t38\r\n"
    );
    let h = Hop::new("c", A, S, "1000", "2000");
    let r = told(h.up(&sdes, &dtls));
    let [voice, fax] = only(&r).legs[0].media.as_slice() else { panic!("{r:#?}") };
    let (local, remote) = (voice.local.as_ref().unwrap(), voice.remote.as_ref().unwrap());
    assert_eq!(
        (remote.crypto, remote.ice, remote.rtcp_mux, remote.rtcp_port),
        (Crypto::Sdes, false, false, Some(4001))
    );
    assert_eq!(
        (local.crypto, local.ice, local.rtcp_mux, local.direction.as_str()),
        (Crypto::Dtls, true, true, "inactive")
    );
    assert_eq!((fax.kind.as_str(), fax.t38, fax.local.as_ref().map(|d| d.port)), ("image", true, Some(0)));
    assert_eq!(only(&r).legs[0].hold, Hold::Local);
    let json = serde_json::to_string(&r).unwrap();
    assert!(!json.contains(key) && !json.contains(fingerprint) && json.contains("\"sdes\""));
}
