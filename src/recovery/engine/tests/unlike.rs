//! Calls whose legs are unlike: in their m-lines, in their families, or perhaps in who they belong to.

use super::Answer;
use super::offers::changed;
use super::world::{PORT, VIP, World, settings};
use crate::calls::model::Call;
use crate::recovery::engine::Outcome;
use crate::recovery::engine::{Action, Engine};
use crate::sip::advertised::Advertised;

/// Changes what the server has told, and what the phone of a leg has said.
fn edit(call: &mut Call, side: usize, sent: impl Fn(String) -> String, received: impl Fn(String) -> String) {
    let leg = &mut *call.legs[side];
    let (s, r) = (leg.sdp_sent.as_mut().unwrap(), leg.sdp_received.as_mut().unwrap());
    s.body = sent(s.body.lossy()).as_str().into();
    r.body = received(r.body.lossy()).as_str().into();
}

/// The phones know what the call's legs say.
fn tell(w: &mut World, call: &Call) {
    for (phone, leg) in w.phones.iter_mut().zip(&call.legs) {
        phone.sdp_seen = leg.sdp_sent.as_ref().unwrap().body.lossy();
        phone.sdp = leg.sdp_received.as_ref().unwrap().body.lossy();
    }
}

fn reason(w: &World) -> String {
    match &w.outcomes["call-00000"] {
        Outcome::Refused { code: None, reason } => reason.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn hold_and_resume_cross_between_legs_of_unlike_m_lines() {
    let mut w = World::new(61, 50);
    let mut call = w.b2bua(0);
    edit(
        &mut call,
        0,
        |s| s + "m=video 0 RTP/AVP 96\r\n",
        |s| s + "m=video 4002 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n",
    );
    tell(&mut w, &call);
    w.start(vec![call]);
    w.secs(2);
    // The phone that answered the re-INVITE has one m-line in these tests; its own offers have both.
    let both = |sdp: String| sdp + "m=video 0 RTP/AVP 96\r\n";
    let leg = &mut *w.engine.calls.get_mut(&0).unwrap().call.legs[0];
    leg.sdp_received.as_mut().unwrap().body = both(leg.sdp_received.as_ref().unwrap().body.lossy()).as_str().into();
    let lines = |sdp: &str| sdp.lines().filter(|l| l.starts_with("m=")).map(|l| l[2..9].to_owned()).collect::<Vec<_>>();
    for (version, tail) in [(9, "sendonly"), (10, "sendrecv")] {
        let body = both(changed(&w.phones[0], version, tail));
        w.ask(0, "INVITE", &body);
        w.secs(2);
        assert_eq!(w.result(0), ("INVITE".into(), 200), "{tail}");
        assert!(w.phones[1].sdp_seen.contains(&format!("a={tail}")), "{}", w.phones[1].sdp_seen);
        assert_eq!(lines(&w.phones[1].sdp_seen), ["audio 1"]);
        assert_eq!(lines(&w.phones[0].sdp_seen), ["audio 1", "video 0"]);
    }
    // From the other side, the leg's second line stays.
    w.phones[0].answers.push_back(Answer::Bare);
    let body = changed(&w.phones[1], 11, "sendonly");
    w.ask(1, "INVITE", &body);
    w.secs(2);
    assert_eq!(w.result(1), ("INVITE".into(), 200));
    assert_eq!(lines(&w.phones[0].sdp_seen), ["audio 1", "video 0"]);
    assert!(w.phones[0].sdp_seen.contains("a=sendonly"), "{}", w.phones[0].sdp_seen);
    assert_eq!(lines(&w.phones[1].sdp_seen), ["audio 1"]);
}

#[test]
fn the_legs_of_a_doubtful_pair_have_nothing_to_do_with_each_other() {
    let mut w = World::new(62, 50);
    let mut call = w.b2bua(0);
    call.confidence = Some(65);
    w.start(vec![call]);
    w.secs(600);
    assert!(w.sent.is_empty() && w.flows.is_empty(), "{:?}", w.flows);
    assert_eq!(reason(&w), "the pairing is only 65 % sure, below min_confidence 80");
    // One hangs up at the server: that is no news for the other.
    w.ask(0, "BYE", "");
    w.secs(60);
    assert!(w.sent.is_empty());
    assert_eq!(w.phones[1].byes, 0);
}

#[test]
fn a_call_between_families_is_left_alone() {
    let mut w = World::new(63, 50);
    let mut call = w.b2bua(0);
    let six = |text: String| text.replace("IP4 10.9.0.100", "IP6 fd00::9").replace("IP4 10.1.0.2", "IP6 fd00::2");
    edit(&mut call, 1, six, six);
    let mut settings = settings(50);
    settings.ground.vips.push("fd00::9".parse().unwrap());
    w.engine = Engine::new(settings, 1);
    w.start(vec![call]);
    w.secs(60);
    assert!(w.sent.is_empty() && w.flows.is_empty(), "{:?}", w.flows);
    assert!(reason(&w).contains("IPv4") && reason(&w).contains("IPv6"), "{}", reason(&w));
}

#[test]
fn behind_a_nat_the_agent_keeps_the_server_s_name() {
    for (host, kept) in [("203.0.113.10", true), ("sip.example.com", true), ("203.0.113.11", false)] {
        let mut w = World::new(64, 50);
        let mut call = w.b2bua(0);
        edit(&mut call, 0, |s| s.replace(VIP, "203.0.113.10"), |s| s);
        call.legs[0].local_target = format!("sip:srv@{host}:5060").as_str().into();
        let mut settings = settings(50);
        settings.ground.advertised = Advertised::new(["203.0.113.10", "SIP.example.com"]);
        let mut engine = Engine::new(settings, 1);
        engine.start(vec![call], 2, w.now);
        let host = if kept { host } else { VIP };
        let (mut invites, mut paths) = (Vec::new(), 0);
        while let Some(action) = engine.poll_action() {
            match action {
                Action::Send { payload, to, .. } if to == w.phones[0].addr => {
                    invites.push(String::from_utf8(payload).unwrap());
                }
                Action::Flows { flows, .. } => {
                    paths = flows.len();
                    assert!(flows.iter().all(|f| f.at.ip().to_string() == VIP && f.source.ip().to_string() == VIP));
                }
                _ => {}
            }
        }
        let [invite] = invites.as_slice() else { panic!("{invites:?}") };
        assert!(invite.contains(&format!("Contact: <sip:srv@{host}:{PORT}>\r\n")), "{invite}");
        assert!(invite.contains(&format!("Via: SIP/2.0/UDP {host}:{PORT};")), "{invite}");
        assert!(invite.contains("c=IN IP4 203.0.113.10\r\n") && paths == 4, "{invite}");
    }
}
