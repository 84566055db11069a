use super::*;
use crate::calls::model::{Leg, LegState, Sdp};
use crate::sip::Transport;

fn leg(call_id: &str, outbound: bool, phone: &str, server: &str) -> Leg {
    let body = |at: &str| {
        let (ip, port) = at.split_once(':').unwrap();
        Some(Sdp {
            body: format!("v=0\r\no=- 1 1 IN IP4 {ip}\r\nc=IN IP4 {ip}\r\nm=audio {port} RTP/AVP 0\r\n")
                .as_str()
                .into(),
        })
    };
    serde_json::from_value(serde_json::json!({
        "call_id": call_id, "direction": if outbound { "outbound" } else { "inbound" }, "state": LegState::Confirmed,
        "local": "", "remote": "", "local_tag": "l", "remote_tag": "r", "local_cseq": 1, "remote_cseq": 1, "route_set": [],
        "remote_target": "sip:p", "local_target": "sip:s", "transport": Transport::Udp, "local_addr": "10.0.0.9:5060",
        "remote_addr": "10.0.0.1:5060", "sdp_sent": body(server), "sdp_received": body(phone), "session_timer": null, "allow": "",
        "supported": "",
    }))
    .unwrap()
}

fn call(legs: Vec<Leg>) -> Call {
    let none: [(); 0] = [];
    let mut call: Call = serde_json::from_value(serde_json::json!({
        "schema": 1, "id": "x", "instance": "i", "node": "n", "epoch": 1, "confirmed_ms": 1, "pairing": null, "legs": none,
    }))
    .unwrap();
    call.legs = legs.into_iter().map(Into::into).collect();
    call
}

#[test]
fn recovery_itself_says_what_would_become_of_a_call() {
    let vips = ["10.0.0.9".parse().unwrap()];
    let (a, b) = (leg("i", false, "10.0.0.1:4000", "10.0.0.9:9000"), leg("o", true, "10.0.0.2:4002", "10.0.0.9:9002"));
    let judged = |legs: Vec<Leg>| of_takeover(&call(legs), &Ground::of(&vips), false);
    let r = judged(vec![a.clone(), b.clone()]);
    assert_eq!((r.audio, r.signalling, r.flows.len()), (Audio::Relayed, Signalling::ReInvite, 4));
    assert_eq!((r.flows[0].from, r.flows[0].to), ("10.0.0.1:4000".parse().unwrap(), "10.0.0.2:4002".parse().unwrap()));
    let attack = leg("o", true, "10.0.0.66:5060", "10.0.0.9:9002");
    let r = judged(vec![a.clone(), attack]);
    assert_eq!((r.audio, r.signalling, r.flows.len()), (Audio::No, Signalling::ReInvite, 0));
    assert!(r.why.contains("to 10.0.0.66:5060: 10.0.0.66:5060 is an address for SIP"), "{}", r.why);
    let r = judged(vec![a.clone()]);
    assert_eq!((r.audio, r.signalling), (Audio::No, Signalling::No));
    assert!(r.why.contains("only one leg"), "{}", r.why);
    let r = judged(vec![Leg { partial: true, ..a.clone() }, b.clone()]);
    assert!(r.signalling == Signalling::No && r.why.contains("a leg has gaps"), "{}", r.why);
    let r = judged(vec![a.clone(), Leg { transport: Transport::Tcp, ..b.clone() }]);
    assert!(r.signalling == Signalling::No && r.why.contains("does not use UDP"), "{}", r.why);
    // The server gave the phones each other's address.
    let direct = [leg("i", false, "10.0.0.1:4000", "10.0.0.2:4002"), leg("o", true, "10.0.0.2:4002", "10.0.0.1:4000")];
    let r = judged(direct.to_vec());
    assert_eq!((r.audio, r.signalling, r.flows.len()), (Audio::Direct, Signalling::ReInvite, 0));
    let apart = [leg("i", false, "10.0.0.1:4000", "10.0.0.7:1000"), leg("o", true, "10.0.0.2:4002", "10.0.0.7:1002")];
    let r = judged(apart.to_vec());
    assert!(r.audio == Audio::Elsewhere && r.why.contains("10.0.0.7:1000"), "{}", r.why);
    let other =
        Leg { sdp_received: Some(Sdp { body: "v=0\r\nc=IN IP4 10.0.0.2\r\nm=audio 4002 RTP/AVP 8\r\n".into() }), ..b };
    let r = judged(vec![a, other]);
    assert!(r.signalling == Signalling::No && r.why.contains("codec"), "{}", r.why);
}

#[test]
fn a_doubtful_pair_and_a_dialog_past_the_server_are_promised_nothing() {
    let (a, b) = (leg("i", false, "10.0.0.1:4000", "10.0.0.9:9000"), leg("o", true, "10.0.0.2:4002", "10.0.0.9:9002"));
    let ground = Ground::of(&["10.0.0.9".parse().unwrap()]);
    let doubtful = Call { confidence: Some(65), ..call(vec![a.clone(), b.clone()]) };
    let r = of_takeover(&doubtful, &ground, false);
    assert_eq!((r.audio, r.signalling, r.flows.len()), (Audio::Doubtful, Signalling::No, 0));
    assert!(r.why.starts_with("the pairing is only 65 % sure, below min_confidence 80;"), "{}", r.why);
    let r = of_takeover(&call(vec![a, b]), &ground, true);
    assert_eq!((r.audio, r.signalling), (Audio::Relayed, Signalling::No));
    assert!(r.why.contains("no Record-Route") && !r.why.contains("re-INVITE"), "{}", r.why);
}

#[test]
fn one_phone_that_has_the_other_ones_address_is_told_so() {
    let a = leg("i", false, "10.0.0.1:4000", "10.0.0.2:4002");
    let b = leg("o", true, "10.0.0.2:4002", "10.0.0.9:9002");
    let r = of_takeover(&call(vec![a, b]), &Ground::of(&["10.0.0.9".parse().unwrap()]), false);
    assert_eq!(r.audio, Audio::Elsewhere);
    let told = "10.0.0.2:4002, which is the other phone's address: 10.0.0.1:5060 sends its audio there, and the other";
    assert!(r.why.contains(told) && !r.why.contains("neither"), "{}", r.why);
}

#[test]
fn a_hold_that_hides_the_address_is_no_loss_and_a_video_is_no_audio() {
    let ground = Ground::of(&["10.0.0.9".parse().unwrap()]);
    let said = |text: &str| Some(Sdp { body: text.into() });
    let (a, b) = (leg("i", false, "10.0.0.1:4000", "10.0.0.9:9000"), leg("o", true, "10.0.0.2:4002", "10.0.0.9:9002"));
    let held = Leg { sdp_received: said("v=0\r\nc=IN IP4 0.0.0.0\r\nm=audio 4002 RTP/AVP 0\r\n"), ..b.clone() };
    let r = of_takeover(&call(vec![a.clone(), held]), &ground, false);
    assert!(r.audio == Audio::Relayed && r.flows.is_empty() && r.why.contains("on hold"), "{}", r.why);
    // The audio of one phone would go to a port of SIP. The video passes.
    let lines = |audio: u16, video: u16, ip: &str| {
        format!("v=0\r\nc=IN IP4 {ip}\r\nm=audio {audio} RTP/AVP 0\r\nm=video {video} RTP/AVP 96\r\n")
    };
    let both = |leg: Leg, sent: &str, received: &str| Leg { sdp_sent: said(sent), sdp_received: said(received), ..leg };
    let a = both(a, &lines(9000, 9100, "10.0.0.9"), &lines(4000, 4100, "10.0.0.1"));
    let b = both(b, &lines(9002, 9102, "10.0.0.9"), &lines(5060, 4102, "10.0.0.2"));
    let r = of_takeover(&call(vec![a, b]), &ground, false);
    assert!(r.audio == Audio::No && !r.flows.is_empty() && r.why.contains("a part of the audio"), "{}", r.why);
}
