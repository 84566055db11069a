use super::*;
use crate::calls::model::{Direction, LegState, SCHEMA, Sdp as Description};
use crate::sip::Transport;

pub(in crate::recovery) const VIP: &str = "10.9.0.100";

fn sdp(addr: &str, m: &str) -> Option<Description> {
    let text = format!("v=0\r\no=- 1 1 IN IP4 {addr}\r\ns=-\r\nc=IN IP4 {addr}\r\nt=0 0\r\n{m}");
    Some(Description { body: text.as_str().into() })
}

fn leg(direction: Direction, sent: &str, phone: &str, received: &str) -> Leg {
    Leg {
        call_id: "c".into(),
        direction,
        state: LegState::Confirmed,
        local: "<sip:s>;tag=s".into(),
        remote: "<sip:p>;tag=p".into(),
        local_tag: "s".into(),
        remote_tag: "p".into(),
        local_cseq: None,
        remote_cseq: None,
        route_set: Vec::new(),
        remote_target: "sip:p".into(),
        local_target: "sip:s".into(),
        transport: Transport::Udp,
        local_addr: format!("{VIP}:5060").parse().unwrap(),
        remote_addr: format!("{phone}:5060").parse().unwrap(),
        sdp_sent: sdp(VIP, sent),
        sdp_received: sdp(phone, received),
        rtp_sources: Vec::new(),
        session_timer: None,
        allow: "".into(),
        supported: "".into(),
        partial: false,
        gaps: crate::calls::model::Gaps::default(),
        carried: false,
    }
}

fn call(a: Leg, b: Leg) -> Call {
    Call {
        schema: SCHEMA,
        id: "x".into(),
        instance: "i".into(),
        node: "n".into(),
        epoch: 1,
        confirmed_ms: 0,
        pairing: None,
        confidence: None,
        other_end: None,
        legs: vec![a.into(), b.into()],
        emergency: false,
    }
}

pub(in crate::recovery) fn simple(ma: &str, mb: &str) -> Call {
    let line = |port: u16, rest: &str| format!("m=audio {port} {rest}\r\n");
    call(
        leg(Direction::Inbound, &line(10_000, ma), "10.1.0.1", &line(4000, ma)),
        leg(Direction::Outbound, &line(10_002, mb), "10.1.0.2", &line(5000, mb)),
    )
}

/// A call with these m-lines: what each leg was sent, and what it said.
pub(in crate::recovery) fn call_of(a: (&str, &str), b: (&str, &str)) -> Call {
    call(leg(Direction::Inbound, a.0, "10.1.0.1", a.1), leg(Direction::Outbound, b.0, "10.1.0.2", b.1))
}

fn vips() -> Vec<IpAddr> {
    vec![VIP.parse().unwrap()]
}

fn flows_of(call: &Call, vips: &[IpAddr]) -> Result<Vec<Flow>, Unpassable> {
    paths_of(call, &Ground::of(vips)).map(|paths| paths.flows)
}

fn flow(from: &str, at: &str, to: &str, source: &str) -> Flow {
    let p = |s: &str| s.parse().unwrap();
    Flow { from: p(from), at: p(at), to: p(to), source: p(source), udptl: false }
}

#[test]
fn audio_and_rtcp_run_both_ways_through_the_ports_that_phones_know() {
    let c = simple("RTP/AVP 0 8", "RTP/AVP 0");
    assert_eq!(
        flows_of(&c, &vips()).unwrap(),
        [
            flow("10.1.0.1:4000", "10.9.0.100:10000", "10.1.0.2:5000", "10.9.0.100:10002"),
            flow("10.1.0.2:5000", "10.9.0.100:10002", "10.1.0.1:4000", "10.9.0.100:10000"),
            flow("10.1.0.1:4001", "10.9.0.100:10001", "10.1.0.2:5001", "10.9.0.100:10003"),
            flow("10.1.0.2:5001", "10.9.0.100:10003", "10.1.0.1:4001", "10.9.0.100:10001"),
        ]
    );
}

#[test]
fn a_description_that_names_a_place_of_sip_gets_no_audio() {
    // The actual attack: a phone's description names another host's port 5060.
    let mut c = simple("RTP/AVP 0", "RTP/AVP 0");
    c.legs[1].sdp_received = sdp("10.1.0.66", "m=audio 5060 RTP/AVP 0\r\n");
    let paths = paths_of(&c, &Ground::of(&vips())).unwrap();
    assert_eq!(paths.refused[0].1, Refusal::Sip("10.1.0.66:5060".parse().unwrap()));
    // Its RTCP would go to port 5061.
    assert_eq!((paths.flows, paths.refused.len()), (Vec::new(), 2));
    // The other party's own SIP address.
    c.legs[1].sdp_received = sdp("10.1.0.1", "m=audio 6060 RTP/AVP 0\r\na=rtcp-mux\r\n");
    c.legs[0].remote_addr = "10.1.0.1:6060".parse().unwrap();
    let paths = paths_of(&c, &Ground::of(&vips())).unwrap();
    assert_eq!(paths.refused[0].1, Refusal::Sip("10.1.0.1:6060".parse().unwrap()));
    // Audio continues if only the RTCP is refused.
    c.legs[1].sdp_received = sdp("10.1.0.2", "m=audio 5000 RTP/AVP 0\r\na=rtcp:53\r\n");
    let paths = paths_of(&c, &Ground::of(&vips())).unwrap();
    assert_eq!((paths.flows.len(), paths.refused.len()), (2, 1));
}

#[test]
fn udptl_is_what_both_parties_agreed_on() {
    let fax = "m=image 4000 udptl t38\r\n";
    let sides = |a: (&str, &str), b: (&str, &str)| {
        let flows = flows_of(
            &call(leg(Direction::Inbound, a.0, "10.1.0.1", a.1), leg(Direction::Outbound, b.0, "10.1.0.2", b.1)),
            &vips(),
        );
        flows.unwrap().iter().map(|flow| flow.udptl).collect::<Vec<_>>()
    };
    assert_eq!(sides((fax, fax), (fax, &fax.to_uppercase().replace("M=IMAGE", "m=IMAGE"))), [true, true]);
    let tls = fax.replace("udptl", "UDP/TLS/UDPTL");
    assert_eq!(sides((&tls, &tls), (&tls, &tls)), [false, false]);
    let other = "m=application 4000 udptl t38\r\n";
    assert_eq!(sides((other, other), (other, other)), [false, false]);
    assert_eq!(sides((fax, other), (fax, fax)), [false; 0], "an answer of another kind agrees on nothing");
    let audio = "m=audio 4000 RTP/AVP 0\r\n";
    assert_eq!(sides((audio, audio), (audio, audio)), [false; 4]);
}

#[test]
fn what_was_seen_on_the_wire_beats_what_was_said() {
    let mut c = simple("RTP/AVP 0", "RTP/AVP 0\r\na=rtcp:5009");
    c.legs[0].rtp_sources = vec![Some("203.0.113.5:61000".parse().unwrap())];
    // A host without any signalling. An older version may have stored it.
    assert_eq!(flows_of(&c, &vips()).unwrap()[0].from, "10.1.0.1:4000".parse().unwrap());
    c.legs[0].remote_addr = "203.0.113.5:5060".parse().unwrap();
    let flows = flows_of(&c, &vips()).unwrap();
    assert_eq!(flows[0], flow("203.0.113.5:61000", "10.9.0.100:10000", "10.1.0.2:5000", "10.9.0.100:10002"));
    assert_eq!(flows[3], flow("10.1.0.2:5009", "10.9.0.100:5009", "203.0.113.5:61001", "10.9.0.100:10001"));
    let mux = simple("RTP/AVP 0\r\na=rtcp-mux", "RTP/AVP 0\r\na=rtcp-mux");
    assert_eq!(flows_of(&mux, &vips()).unwrap().len(), 2);
}

#[test]
fn a_phone_that_sends_from_another_port_is_still_sent_to_where_it_listens() {
    let mut c = simple("RTP/AVP 0", "RTP/AVP 0");
    c.legs[0].rtp_sources = vec![Some("10.1.0.1:6000".parse().unwrap())];
    let flows = flows_of(&c, &vips()).unwrap();
    assert_eq!(flows[0].from, "10.1.0.1:6000".parse().unwrap());
    assert_eq!(flows[1].to, "10.1.0.1:4000".parse().unwrap());
    assert_eq!(flows[2].from, "10.1.0.1:6001".parse().unwrap());
    assert_eq!(flows[3].to, "10.1.0.1:4001".parse().unwrap());
}

#[test]
fn a_held_call_keeps_its_paths_and_direct_media_has_none() {
    let held = simple("RTP/AVP 0\r\na=sendonly", "RTP/AVP 0\r\na=recvonly");
    assert_eq!(flows_of(&held, &vips()).unwrap().len(), 4);
    let mut zero = simple("RTP/AVP 0", "RTP/AVP 0");
    zero.legs[0].sdp_received = sdp("0.0.0.0", "m=audio 4000 RTP/AVP 0\r\n");
    assert_eq!(flows_of(&zero, &vips()), Ok(vec![]));
    zero.legs[1].sdp_sent = sdp("0.0.0.0", "m=audio 10002 RTP/AVP 0\r\n");
    zero.legs[0].rtp_sources = vec![Some("10.1.0.1:4000".parse().unwrap())];
    assert_eq!(flows_of(&zero, &vips()).unwrap().len(), 4);
    // The lack of a common codec matters only if the server's host carries the audio.
    let direct = simple("RTP/AVP 0", "RTP/AVP 8");
    assert_eq!(flows_of(&direct, &["10.9.0.99".parse().unwrap()]), Ok(vec![]));
}

#[test]
fn what_would_need_transcoding_or_other_keys_is_refused() {
    let v = vips();
    assert_eq!(flows_of(&simple("RTP/AVP 0", "RTP/AVP 8"), &v), Err(Unpassable::NoCommonCodec));
    let opus = |pt: u8| format!("RTP/AVP {pt}\r\na=rtpmap:{pt} OPUS/48000/2");
    assert_eq!(flows_of(&simple(&opus(96), &opus(97)), &v), Err(Unpassable::NoCommonCodec));
    assert!(flows_of(&simple(&opus(96), &opus(96).to_lowercase().replace("rtp/avp", "RTP/AVP")), &v).is_ok());
    let dtmf = |codec: u8| format!("RTP/AVP {codec} 101\r\na=rtpmap:101 telephone-event/8000");
    assert_eq!(flows_of(&simple(&dtmf(0), &dtmf(8)), &v), Err(Unpassable::NoCommonCodec), "DTMF alone is no call");
    let key = |k: &str| format!("RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{k}");
    assert_eq!(flows_of(&simple(&key("a"), &key("b")), &v), Err(Unpassable::KeysDiffer));
    assert_eq!(flows_of(&simple(&key("a"), "RTP/AVP 0"), &v), Err(Unpassable::KeysDiffer));
    assert!(flows_of(&simple(&key("a"), &key("a")), &v).is_ok(), "handed through from end to end");
    let mut none = simple("RTP/AVP 0", "RTP/AVP 0");
    none.legs[1].sdp_received = None;
    assert_eq!(flows_of(&none, &v), Err(Unpassable::NoDescription));
    none.legs.pop();
    assert_eq!(flows_of(&none, &v), Err(Unpassable::OneLeg));
}

#[test]
fn offers_bring_both_legs_to_one_codec_and_touch_nothing_else() {
    let same = simple("RTP/AVP 0 8", "RTP/AVP 0");
    assert_eq!(
        offer_for(&same, 0, &Ground::of(&vips())).unwrap(),
        same.legs[0].sdp_sent.as_ref().unwrap().body.to_vec()
    );
    let c = simple(
        "RTP/AVP 8 0 101\r\na=rtpmap:101 telephone-event/8000",
        "RTP/AVP 0 9 8 96\r\na=rtpmap:96 telephone-event/8000",
    );
    let offer = |side| String::from_utf8(offer_for(&c, side, &Ground::of(&vips())).unwrap()).unwrap();
    assert!(offer(0).contains("m=audio 10000 RTP/AVP 8 0\r\n") && !offer(0).contains("telephone-event"));
    assert!(offer(1).contains("m=audio 10002 RTP/AVP 0 8\r\n"));
}

/// A call in which each side was told, and said, these directions: first leg, second leg.
fn held([a_sent, a_received, b_sent, b_received]: [&str; 4]) -> Call {
    let mut c = simple("RTP/AVP 0", "RTP/AVP 0");
    for (leg, sent, received) in [(0, a_sent, a_received), (1, b_sent, b_received)] {
        let leg = &mut *c.legs[leg];
        for (d, way) in [(&mut leg.sdp_sent, sent), (&mut leg.sdp_received, received)] {
            let body = &mut d.as_mut().unwrap().body;
            *body = match way {
                "zero" => body.lossy().replace("c=IN IP4 10", "c=IN IP4 0.0.0.0\r\nb=AS:10"),
                way => format!("{}a={way}\r\n", body.lossy()),
            }
            .as_str()
            .into();
        }
    }
    c
}

#[test]
fn a_hold_of_the_server_ends_with_the_server_and_a_hold_of_a_phone_goes_on() {
    let both = "sendrecv";
    for (ways, offers) in [
        // uuid_hold: the server plays music to the first party.
        (["sendonly", "recvonly", both, both], [Some(both), None]),
        // Both parked.
        (["sendonly", "recvonly", "sendonly", "recvonly"], [Some(both), Some(both)]),
        // The second phone holds, and the server passed that on.
        (["sendonly", "recvonly", "recvonly", "sendonly"], [None, None]),
        // The same, and the server plays music itself.
        ([both, both, "recvonly", "sendonly"], [None, None]),
        // Nobody knows who began.
        (["inactive", "inactive", both, both], [None, None]),
        ([both, both, both, both], [None, None]),
    ] {
        let call = held(ways);
        for (side, offer) in offers.into_iter().enumerate() {
            let before = call.legs[side].sdp_sent.as_ref().unwrap().body.lossy();
            let after = String::from_utf8(offer_for(&call, side, &Ground::of(&vips())).unwrap()).unwrap();
            match offer {
                None => assert_eq!(after, before, "{ways:?} {side}"),
                Some(way) => assert_eq!(after, before.replace("a=sendonly", &format!("a={way}")), "{ways:?} {side}"),
            }
        }
    }
    let call = held(["zero", both, both, both]);
    let after = String::from_utf8(offer_for(&call, 0, &Ground::of(&vips())).unwrap()).unwrap();
    assert!(after.contains(&format!("c=IN IP4 {VIP}\r\n")) && !after.contains("0.0.0.0"), "{after}");
}

#[test]
fn payload_types_of_another_meaning_are_not_passed_on() {
    let c = simple("RTP/AVP 0 96\r\na=rtpmap:96 opus/48000/2", "RTP/AVP 0 96\r\na=rtpmap:96 telephone-event/8000");
    let body = c.legs[0].sdp_sent.as_ref().unwrap().body.to_vec();
    let out = String::from_utf8(without_conflicts(&c.legs[1], &body).unwrap()).unwrap();
    assert!(out.contains("RTP/AVP 0\r\n") && !out.contains("opus"));
    assert_eq!(without_conflicts(&c.legs[0], &body).unwrap(), body);
}

#[test]
fn emergencies_come_first_then_the_oldest() {
    let one = |id: &str, emergency, confirmed_ms| {
        let mut c = simple("RTP/AVP 0", "RTP/AVP 0");
        (c.id, c.emergency, c.confirmed_ms) = (id.into(), emergency, confirmed_ms);
        c
    };
    let ids: Vec<_> =
        order(vec![one("c", false, 1), one("b", false, 0), one("a", true, 9)]).into_iter().map(|c| c.id).collect();
    assert_eq!(ids, ["a", "b", "c"]);
}

#[test]
fn audio_flows_whatever_its_index() {
    let (one, other) = (("m=audio 10002 RTP/AVP 0\r\n", "m=audio 5000 RTP/AVP 0\r\n"), "RTP/AVP 0\r\n");
    for (sent, received) in [
        ("m=audio 0 RTP/SAVP 0\r\nm=audio 10000 ", "m=audio 4002 RTP/SAVP 0\r\na=crypto:1 X inline:a\r\nm=audio 4000 "),
        ("m=video 0 RTP/AVP 96\r\nm=audio 10000 ", "m=video 4002 RTP/AVP 96\r\nm=audio 4000 "),
        ("m=application 0 UDP/BFCP *\r\nm=audio 10000 ", "m=application 4002 UDP/BFCP *\r\nm=audio 4000 "),
    ] {
        let c = call_of((&format!("{sent}{other}"), &format!("{received}{other}")), one);
        let flows = flows_of(&c, &vips()).unwrap();
        assert_eq!(flows.len(), 4, "{sent}");
        assert_eq!(flows[0], flow("10.1.0.1:4000", "10.9.0.100:10000", "10.1.0.2:5000", "10.9.0.100:10002"));
        // The phone's observed source is that of its own line.
        let mut natted = c.clone();
        natted.legs[0].remote_addr = "203.0.113.5:5060".parse().unwrap();
        natted.legs[0].rtp_sources = vec![None, Some("203.0.113.5:61000".parse().unwrap())];
        assert_eq!(flows_of(&natted, &vips()).unwrap()[1].to, "203.0.113.5:61000".parse().unwrap());
        // The re-INVITE repeats what the leg was last sent.
        for side in 0..2 {
            let offer = offer_for(&c, side, &Ground::of(&vips())).unwrap();
            assert_eq!(offer, c.legs[side].sdp_sent.as_ref().unwrap().body.to_vec());
        }
    }
}

#[test]
fn unlike_numbers_of_audio_streams_are_not_guessed() {
    let two = (
        "m=audio 10000 RTP/AVP 0\r\nm=audio 10004 RTP/AVP 0\r\n",
        "m=audio 4000 RTP/AVP 0\r\nm=audio 4004 RTP/AVP 0\r\n",
    );
    let one = ("m=audio 10002 RTP/AVP 0\r\n", "m=audio 5000 RTP/AVP 0\r\n");
    assert_eq!(flows_of(&call_of(two, one), &vips()), Err(Unpassable::UnlikeStreams));
    assert_eq!(flows_of(&call_of(one, two), &vips()), Err(Unpassable::UnlikeStreams));
    assert_eq!(flows_of(&call_of(two, one), &["10.9.0.99".parse().unwrap()]), Ok(vec![]), "it is not our audio");
    assert_eq!(flows_of(&call_of(two, two), &vips()).unwrap().len(), 8);
}

#[test]
fn a_hold_of_the_server_ends_on_the_line_that_it_is_on() {
    let held = "m=audio 0 RTP/SAVP 0\r\nm=audio 10000 RTP/AVP 0\r\na=sendonly\r\n";
    let c = call_of(
        (held, "m=audio 4002 RTP/SAVP 0\r\nm=audio 4000 RTP/AVP 0\r\na=recvonly\r\n"),
        ("m=audio 10002 RTP/AVP 0\r\n", "m=audio 5000 RTP/AVP 0\r\n"),
    );
    let offer = String::from_utf8(offer_for(&c, 0, &Ground::of(&vips())).unwrap()).unwrap();
    assert!(offer.ends_with(&held.replace("sendonly", "sendrecv")), "{offer}");
}

#[test]
fn parameters_that_change_the_packets_make_another_codec() {
    let amr = |aligned: u8| format!("RTP/AVP 96\r\na=rtpmap:96 AMR/8000\r\na=fmtp:96 octet-align={aligned}");
    assert_eq!(flows_of(&simple(&amr(0), &amr(1)), &vips()), Err(Unpassable::NoCommonCodec));
    assert_eq!(flows_of(&simple(&amr(1), &amr(1)), &vips()).unwrap().len(), 4);
    let both = |aligned: u8| format!("RTP/AVP 96 0\r\na=rtpmap:96 AMR/8000\r\na=fmtp:96 octet-align={aligned}");
    // The offers leave out what one leg reads otherwise.
    let offer = offer_for(&simple(&both(0), &both(1)), 1, &Ground::of(&vips())).unwrap();
    assert!(String::from_utf8(offer).unwrap().contains("m=audio 10002 RTP/AVP 0\r\n"));
    let video = |mode: u8| {
        let line = |port: u16| {
            format!(
                "m=audio {port} RTP/AVP 0\r\nm=video {} RTP/AVP 97\r\na=rtpmap:97 H264/90000\r\na=fmtp:97 packetization-mode={mode}\r\n",
                port + 2
            )
        };
        (line(10_000), line(4000))
    };
    let ((a, b), (c, d)) = (video(0), video(1));
    assert_eq!(flows_of(&call_of((&a, &b), (&c, &d)), &vips()).unwrap().len(), 4, "the audio alone");
    assert_eq!(flows_of(&call_of((&a, &b), (&a, &b)), &vips()).unwrap().len(), 8);
}

#[test]
fn mixed_families_are_told_as_such() {
    let six: IpAddr = "2001:db8::100".parse().unwrap();
    let mut c = simple("RTP/AVP 0", "RTP/AVP 0");
    c.legs[1].local_addr = SocketAddr::new(six, 5060);
    let to_six = |d: &Option<Description>| {
        let text = d.as_ref().unwrap().body.lossy().replace("IP4 10.9.0.100", "IP6 2001:db8::100");
        Some(Description { body: text.replace("IP4 10.1.0.2", "IP6 2001:db8::2").as_str().into() })
    };
    c.legs[1].sdp_sent = to_six(&c.legs[1].sdp_sent);
    c.legs[1].sdp_received = to_six(&c.legs[1].sdp_received);
    assert_eq!(flows_of(&c, &[VIP.parse().unwrap(), six]), Err(Unpassable::Families));
}

fn keys_lost(a: &str, b: &str) -> Option<String> {
    let paths = paths_of(&simple(a, b), &Ground::of(&vips())).unwrap();
    assert_eq!(paths.flows.len(), 4);
    paths.keys_lost.map(|why| why.to_string())
}

#[test]
fn key_presses_need_one_payload_type() {
    let keys = |pt: u8| format!("RTP/AVP 0 {pt}\r\na=rtpmap:{pt} telephone-event/8000");
    let why = keys_lost(&keys(101), &keys(96)).unwrap();
    assert!(why.contains("101 on one leg and 96 on the other"), "{why}");
    assert!(keys_lost(&keys(101), "RTP/AVP 0").unwrap().contains("did not agree"));
    assert_eq!(keys_lost(&keys(101), &keys(101)), None);
    assert_eq!(keys_lost("RTP/AVP 0", "RTP/AVP 0"), None, "in the audio or in INFO");
    let two = "RTP/AVP 0 96 101\r\na=rtpmap:96 telephone-event/16000\r\na=rtpmap:101 telephone-event/8000";
    assert_eq!(keys_lost(two, &keys(101)), None);
}

#[test]
fn an_advertised_address_is_the_vip_s_and_stays_in_descriptions() {
    let public = "203.0.113.10";
    let mut c = simple("RTP/AVP 0", "RTP/AVP 0");
    c.legs[1].sdp_sent = sdp(public, "m=audio 10002 RTP/AVP 0\r\n");
    let why = paths_of(&c, &Ground::of(&vips())).unwrap_err();
    assert_eq!(why, Unpassable::NotOurs(public.parse().unwrap()));
    assert!(why.to_string().contains("an address that is not the VIP's") && why.to_string().contains("advertised"));
    let ground = Ground { advertised: crate::sip::advertised::Advertised::new([public]), ..Ground::of(&vips()) };
    let plain = simple("RTP/AVP 0", "RTP/AVP 0");
    assert_eq!(paths_of(&c, &ground), paths_of(&plain, &ground), "flows use the virtual address");
    assert_eq!(anchors(&c.legs[1], &ground).unwrap()[0], Some((format!("{public}:10002").parse().unwrap(), None)));
    // A hold of the server ends with the address that the phone knows.
    c.legs[1].local_target = format!("sip:s@{public}:5060").as_str().into();
    c.legs[1].sdp_sent = sdp("0.0.0.0", "m=audio 10002 RTP/AVP 0\r\n");
    let offer = String::from_utf8(offer_for(&c, 1, &ground).unwrap()).unwrap();
    assert!(offer.contains(&format!("c=IN IP4 {public}")), "{offer}");
    // Of two virtual addresses the one of the leg's SIP.
    let two = Ground { vips: vec!["10.9.0.101".parse().unwrap(), VIP.parse().unwrap()], ..ground.clone() };
    assert_eq!(two.vip_behind(public.parse().unwrap(), VIP.parse().unwrap()), VIP.parse().ok());
    assert_eq!(two.vip_behind(public.parse().unwrap(), "10.9.0.7".parse().unwrap()), None);
    assert_eq!(two.vip_behind("203.0.113.11".parse().unwrap(), VIP.parse().unwrap()), None);
}

#[test]
fn the_other_phones_address_is_no_foreign_one() {
    let mut c = simple("RTP/AVP 0", "RTP/AVP 0");
    c.legs[1].sdp_sent = sdp("10.1.0.1", "m=audio 4000 RTP/AVP 0\r\n");
    assert_eq!(flows_of(&c, &vips()), Ok(vec![]));
}

#[test]
fn a_pair_below_the_least_confidence_gets_no_path() {
    let with = |confidence, pairing| {
        let mut c = Call { confidence, pairing, ..simple("RTP/AVP 0", "RTP/AVP 0") };
        c.legs[0].rtp_sources = Vec::new();
        flows_of(&c, &vips()).map(|flows| flows.len())
    };
    use crate::calls::model::Pairing::{Evidence, SameDialog};
    let doubtful = Doubtful { confidence: 79, needed: 80 };
    assert_eq!(with(Some(79), Some(Evidence)), Err(Unpassable::Doubtful(doubtful)));
    assert_eq!(with(Some(80), Some(Evidence)), Ok(4));
    assert_eq!(with(None, Some(Evidence)), Ok(4), "an older release stored no confidence");
    assert_eq!(with(Some(1), Some(SameDialog)), Ok(4));
    assert_eq!(doubtful.to_string(), "the pairing is only 79 % sure, below min_confidence 80");
}
