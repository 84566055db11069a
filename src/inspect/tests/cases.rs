//! Captures that were once told wrongly, each one of a kind; the folder has them.

use super::report::{Audio, By, Call, Hold, Report, Signalling, State, Unread};
use super::{InspectSettings, only, run};

/// Time of the first packet of each capture.
const START: u64 = 1_700_000_000_000;

fn report(bytes: &[u8]) -> Report {
    let settings = InspectSettings { vips: vec!["192.0.2.100".parse().unwrap()], ..InspectSettings::default() };
    run(bytes, &settings).unwrap()
}

fn after(ms: Option<u64>) -> Option<u64> {
    ms.map(|at| at - START)
}

fn reinvites(c: &Call) -> Vec<u64> {
    c.legs.iter().map(|l| l.reinvites).collect()
}

#[test]
fn a_bye_past_a_proxy_ends_the_call() {
    let r = report(include_bytes!("cases/proxy-without-record-route-bye-direct.pcap"));
    let c = only(&r);
    assert_eq!((c.state, c.ended_by, after(c.ended_ms), c.legs.len()), (State::Ended, Some(By::Caller), Some(7539), 2));
    assert!(c.legs.iter().all(|l| l.state == State::Ended && l.through_server), "{:#?}", c.legs);
    assert!(c.notes.iter().any(|n| n.contains("past the server")), "{:?}", c.notes);
}

#[test]
fn cancel_ends_only_the_copy_that_it_names() {
    let r = report(include_bytes!("cases/cancel-of-a-second-copy-of-the-INVITE-ends-the-answered-call.pcap"));
    let c = only(&r);
    assert_eq!((c.state, c.ended_by, c.ended_ms, after(c.answered_ms)), (State::Up, None, None, Some(59)));
    assert_eq!((c.legs.len(), c.partial, reinvites(c), c.legs[0].messages), (1, false, vec![2], 18));
}

#[test]
fn responses_alone_tell_an_answer_and_an_end() {
    let r = report(include_bytes!("cases/responses-only-180-then-200-says-ringing.pcap"));
    let c = only(&r);
    assert_eq!((c.state, c.partial, c.code), (State::Up, true, Some(200)));
    assert_eq!((after(c.ringing_ms), after(c.answered_ms)), (Some(39), Some(8039)));
    let r = report(include_bytes!("cases/only-the-200-of-a-BYE-says-up.pcap"));
    assert_eq!((only(&r).state, only(&r).partial, after(only(&r).ended_ms)), (State::Ended, true, Some(19)));
}

#[test]
fn one_direction_alone_tells_an_answer_and_an_end() {
    for bytes in [
        &include_bytes!("cases/only-the-packets-that-the-server-gets.pcap")[..],
        include_bytes!("cases/only-the-packets-that-the-server-sends.pcap"),
    ] {
        let r = report(bytes);
        assert!(!r.calls.is_empty());
        for c in &r.calls {
            assert_eq!((c.state, c.partial), (State::Ended, true), "{c:#?}");
            assert!(c.answered_ms.is_some() && c.ended_ms.is_some() && c.duration_ms > Some(12_000), "{c:#?}");
        }
    }
}

#[test]
fn reinvites_are_counted_once_and_audio_is_judged_by_its_time() {
    let r = report(include_bytes!("cases/one-reinvite-sent-7-times-counts-7.pcap"));
    assert_eq!(reinvites(only(&r)), [0, 1]);
    let r = report(include_bytes!("cases/offerless-reinvite-changes-port-false-note-and-count-0.pcap"));
    let c = only(&r);
    assert_eq!((reinvites(c), c.notes.as_slice()), (vec![0, 1], &[][..]));
    let received = c.legs[1].media[0].received.as_ref().unwrap();
    assert!(!received.source_differs && received.packets == 30, "{received:?}");
}

#[test]
fn an_old_style_hold_is_no_nat() {
    let r = report(include_bytes!("cases/old-style-hold-is-told-as-nat.pcap"));
    let c = only(&r);
    assert_eq!((c.legs[0].hold, c.legs[1].hold, c.notes.as_slice()), (Hold::Remote, Hold::None, &[][..]));
}

#[test]
fn direct_media_of_one_leg_is_the_other_phone_s() {
    let r = report(include_bytes!("cases/direct-media-on-one-leg-only.pcap"));
    let c = only(&r);
    assert_eq!((c.recovery.audio, reinvites(c), c.notes.as_slice()), (Audio::Elsewhere, vec![1, 1], &[][..]));
    let why = &c.recovery.why;
    assert!(why.contains("192.0.2.22:6000, which is the other phone's address"), "{why}");
    assert!(!why.contains("neither"), "{why}");
}

#[test]
fn fax_is_told_as_fax() {
    let r = report(include_bytes!("cases/fax-told-as-audio-relayed.pcap"));
    let c = only(&r);
    assert_eq!((reinvites(c), c.legs[0].media[0].t38), (vec![1, 1], true));
    assert!(c.notes.iter().any(|n| n.contains("T.38") && n.contains("UDPTL")), "{:?}", c.notes);
    assert!(c.recovery.why.contains("fax") && !c.recovery.why.contains("audio"), "{}", c.recovery.why);
    assert!(c.recovery.flows.iter().all(|f| f.udptl), "{:?}", c.recovery.flows);
}

#[test]
fn sip_in_tunnels_is_read_or_told() {
    for bytes in [
        &include_bytes!("cases/sip-inside-gtp-u-is-not-told.pcap")[..],
        include_bytes!("cases/sip-inside-pptp-gre-is-not-told.pcap"),
    ] {
        let r = report(bytes);
        assert_eq!((only(&r).state, only(&r).ended_by, r.traffic.sip), (State::Ended, Some(By::Caller), 5));
        assert!(r.traffic.unread.is_empty() && r.notes.is_empty(), "{:?}", r.notes);
    }
    let r = report(include_bytes!("cases/sip-over-sctp-is-not-told.pcap"));
    assert_eq!((r.calls.len(), r.traffic.unread.get(&Unread::SipOverSctp)), (0, Some(&5)));
    assert!(r.notes.iter().any(|n| n.contains("SIP over SCTP") && n.contains("5 packets")), "{:?}", r.notes);
}

/// Who transferred is out; the legs that stayed are the pair.
#[test]
fn after_a_transfer_the_legs_that_talk_are_the_pair() {
    for (bytes, confidence, up) in [
        (&include_bytes!("cases/blind-transfer-by-refer.pcap")[..], 90, ["b1@192.0.2.100", "c1@192.0.2.100"]),
        (include_bytes!("cases/attended-transfer-inside-the-server.pcap"), 95, ["b1@192.0.2.100", "c1@192.0.2.100"]),
    ] {
        let r = report(bytes);
        let c = only(&r);
        let talking: Vec<&str> = c.legs.iter().filter(|l| l.state == State::Up).map(|l| l.call_id.as_str()).collect();
        assert_eq!((c.state, c.confidence, talking.as_slice()), (State::Up, Some(confidence), &up[..]), "{c:#?}");
        let flows = &c.recovery.flows;
        let parties: std::collections::BTreeSet<_> = flows.iter().map(|f| f.to.ip()).collect();
        assert_eq!(parties, ["192.0.2.22", "192.0.2.23"].map(|ip| ip.parse().unwrap()).into());
    }
}

#[test]
fn streams_pair_whatever_their_index() {
    for bytes in [
        &include_bytes!("cases/optional-srtp-two-audio-lines-one-refused-is-silence.pcap")[..],
        include_bytes!("cases/video-first-on-one-leg-audio-at-another-index.pcap"),
    ] {
        let r = report(bytes);
        let c = only(&r);
        assert_eq!(
            (c.recovery.audio, c.recovery.signalling),
            (Audio::Relayed, Signalling::ReInvite),
            "{:?}",
            c.recovery
        );
        let rtp = c.recovery.flows[0];
        let at = |text: &str| text.parse().unwrap();
        assert_eq!((rtp.from, rtp.at), (at("192.0.2.21:4000"), at("192.0.2.100:10000")));
        assert_eq!((rtp.to, rtp.source), (at("192.0.2.22:6000"), at("192.0.2.100:10010")));
        assert_eq!(c.recovery.flows.len(), 4);
    }
}

#[test]
fn key_presses_under_another_payload_type_are_told_as_lost() {
    let r = report(include_bytes!("cases/telephone-event-payload-type-differs.pcap"));
    let c = only(&r);
    assert_eq!((c.recovery.audio, c.recovery.signalling), (Audio::Relayed, Signalling::ReInvite));
    let why = &c.recovery.why;
    assert!(why.contains("key presses (DTMF) will not pass") && why.contains("101") && why.contains("96"), "{why}");
}

#[test]
fn an_advertised_address_is_the_servers_own() {
    let bytes = include_bytes!("cases/server-behind-nat-tells-a-public-media-address.pcap");
    let r = report(bytes);
    let c = only(&r);
    assert_eq!((c.recovery.audio, c.recovery.signalling), (Audio::No, Signalling::No), "{:?}", c.recovery);
    let why = &c.recovery.why;
    assert!(why.contains("an address that is not the VIP's") && why.contains("203.0.113.10"), "{why}");
    assert!(why.contains("advertised"), "{why}");
    for vips in [vec!["192.0.2.100".parse().unwrap()], Vec::new()] {
        let advertised = vec!["203.0.113.10".to_owned()];
        let r = run(bytes, &InspectSettings { vips, advertised, ..InspectSettings::default() }).unwrap();
        let c = only(&r);
        assert_eq!((c.recovery.audio, c.recovery.flows.len()), (Audio::Relayed, 4), "{:?}", c.recovery);
        assert!(c.recovery.flows.iter().all(|f| f.at.ip().to_string() == "192.0.2.100"), "{:?}", c.recovery.flows);
        let received = |leg: usize| c.legs[leg].media[0].received.as_ref().map(|r| r.packets);
        assert_eq!((received(0), received(1)), (Some(30), Some(30)), "the audio belongs to both legs");
    }
}

/// Nobody can re-INVITE a party that is gone: the other one is a call of one leg.
#[test]
fn a_leg_that_timed_out_leaves_a_single_leg() {
    let r = report(include_bytes!("cases/one-leg-timed-out-call-told-as-recovered.pcap"));
    let c = only(&r);
    assert_eq!((c.state, c.pairing), (State::Up, None), "{c:#?}");
    assert_eq!((c.recovery.audio, c.recovery.signalling), (Audio::No, Signalling::No), "{:?}", c.recovery);
    assert!(c.recovery.flows.is_empty());
}
