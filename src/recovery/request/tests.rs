use super::*;
use crate::calls::model::{Direction, LegState, SessionTimer};
use crate::sip::Transport;

fn leg() -> Leg {
    Leg {
        call_id: "c@x".into(),
        direction: Direction::Inbound,
        state: LegState::Confirmed,
        local: "\"Bob \\\"B\\\"\" <sip:bob@p;x=1>;tag=s;foo=bar".into(),
        remote: "<sip:alice@p>;tag=a".into(),
        local_tag: "s".into(),
        remote_tag: "a".into(),
        local_cseq: None,
        remote_cseq: Some(1),
        route_set: vec!["<sip:[2001:db8::7];lr>;p=1".into(), "\"R\" <sip:r2;lr=on>".into()],
        remote_target: "sip:alice@[2001:db8::1]:5062;transport=udp".into(),
        local_target: "sip:srv@[2001:db8::100]:5060".into(),
        transport: Transport::Udp,
        local_addr: "[2001:db8::100]:5060".parse().unwrap(),
        remote_addr: "[2001:db8::1]:5062".parse().unwrap(),
        sdp_sent: None,
        sdp_received: None,
        rtp_sources: Vec::new(),
        session_timer: None,
        allow: "".into(),
        supported: "".into(),
        partial: false,
        gaps: crate::calls::model::Gaps::default(),
        carried: false,
    }
}

fn text(leg: &Leg) -> String {
    let b = start(leg, &target(leg), "INVITE", 1, "z9hG4bKx", 5070, None);
    String::from_utf8(offering(b, leg, 5070, None).build()).unwrap()
}

#[test]
fn a_request_says_exactly_what_the_dialog_is() {
    let agent = USER_AGENT;
    assert_eq!(
        text(&leg()),
        format!(
            "INVITE sip:alice@[2001:db8::1]:5062;transport=udp SIP/2.0\r\n\
             Via: SIP/2.0/UDP [2001:db8::100]:5070;branch=z9hG4bKx\r\n\
             Route: <sip:[2001:db8::7];lr>;p=1\r\n\
             Route: \"R\" <sip:r2;lr=on>\r\n\
             Max-Forwards: 70\r\n\
             From: \"Bob \\\"B\\\"\" <sip:bob@p;x=1>;tag=s;foo=bar\r\n\
             To: <sip:alice@p>;tag=a\r\n\
             Call-ID: c@x\r\n\
             CSeq: 1 INVITE\r\n\
             Contact: <sip:srv@[2001:db8::100]:5070>\r\n\
             Allow: {ALLOW}\r\n\
             User-Agent: {agent}\r\n\
             Content-Length: 0\r\n\r\n"
        )
    );
}

#[test]
fn a_strict_router_takes_its_own_uri_and_the_target_goes_last() {
    let mut leg = leg();
    leg.route_set = vec!["<sip:strict;transport=udp?x=y>".into(), "<sip:loose;lr>".into()];
    let t = target(&leg);
    assert_eq!(t.uri, b"sip:strict;transport=udp");
    assert_eq!(t.routes, [&b"<sip:loose;lr>"[..], b"<sip:alice@[2001:db8::1]:5062;transport=udp>"]);
}

#[test]
fn the_session_timer_keeps_its_roles() {
    let mut leg = leg();
    assert!(!text(&leg).contains("timer"));
    leg.session_timer = Some(SessionTimer { interval_s: 1800, local_refreshes: true });
    assert!(text(&leg).contains("Supported: timer\r\nSession-Expires: 1800;refresher=uac\r\nMin-SE: 90\r\n"));
    leg.session_timer = Some(SessionTimer { interval_s: 30, local_refreshes: false });
    assert!(text(&leg).contains("Session-Expires: 90;refresher=uas\r\n"));
}

#[test]
fn a_contact_without_user_stays_without() {
    let mut leg = leg();
    leg.local_target = "".into();
    assert_eq!(contact(&leg, 5070), b"sip:[2001:db8::100]:5070");
}

#[test]
fn a_contact_has_the_virtual_address_or_an_advertised_host() {
    let advertised = Advertised::new(["203.0.113.10", "sip.example.com"]);
    for (told, kept) in [
        ("sip:srv@203.0.113.10:5060", "sip:srv@203.0.113.10:5070"),
        ("sip:SIP.example.com", "sip:SIP.example.com:5070"),
        ("sip:srv@[2001:db8:0::100]", "sip:srv@[2001:db8:0::100]:5070"),
        ("sip:srv@10.0.0.1", "sip:srv@[2001:db8::100]:5070"),
        ("sip:10.0.0.1", "sip:[2001:db8::100]:5070"),
        ("tel:+491", "sip:+491@[2001:db8::100]:5070"),
        ("", "sip:[2001:db8::100]:5070"),
    ] {
        let mut leg = leg();
        leg.local_target = told.into();
        if let Some(target) = own_target(&leg, &advertised) {
            leg.local_target = target.as_slice().into();
        }
        assert_eq!(String::from_utf8(contact(&leg, 5070)).unwrap(), kept, "{told}");
        let host = kept.split('@').next_back().unwrap().trim_start_matches("sip:");
        assert!(text(&leg).contains(&format!("Via: SIP/2.0/UDP {host};branch=")), "{told}");
    }
}
