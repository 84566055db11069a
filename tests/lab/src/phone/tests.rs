use super::audio::{Ear, Heard, Mouth, tone_of};
use super::dialog::{answer_route, request_faults};
use super::message::Message;
use super::sdp::Sdp;

fn listen(mouth: &mut Mouth, ear: &mut Ear) -> Heard {
    for _ in 0..49 {
        assert_eq!(ear.hear(&mouth.packet()), Ok(Heard::More));
    }
    ear.hear(&mouth.packet()).unwrap()
}

#[test]
fn an_ear_tells_neighbouring_tones_apart() {
    assert_eq!(listen(&mut Mouth::new(tone_of(3, 0), 1), &mut Ear::new(tone_of(3, 0))), Heard::Right);
    assert_eq!(listen(&mut Mouth::new(tone_of(3, 0), 1), &mut Ear::new(tone_of(3, 1))), Heard::Wrong);
    assert_eq!(listen(&mut Mouth::new(tone_of(700, 1), 1), &mut Ear::new(tone_of(700, 1))), Heard::Right);
}

const OFFER: &str = "v=0\r\no=- 7 9 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

#[test]
fn a_wrong_successor_of_an_sdp_is_told() {
    let first = Sdp::parse(OFFER).unwrap();
    assert!(first.faults_after(&first).is_empty());
    let good = Sdp::parse(&OFFER.replace("7 9 IN", "7 10 IN")).unwrap();
    assert!(good.faults_after(&first).is_empty());
    for (from, to, says) in [
        ("7 9 IN", "7 11 IN", "not up by one"),
        ("7 9 IN", "8 10 IN", "session id"),
        ("o=- 7 9 IN IP4 10.0.0.1", "o=- 7 10 IN IP4 10.0.0.2", "address"),
        ("m=audio 4000", "m=audio 4002", "stayed"),
        (
            "7 9 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP",
            "7 10 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/SAVP",
            "m-line 0",
        ),
    ] {
        let bad = Sdp::parse(&OFFER.replace(from, to)).unwrap();
        let faults = bad.faults_after(&first).join("; ");
        assert!(faults.contains(says), "{to}: {faults}");
    }
}

fn invite(via: &str) -> Message {
    let text = format!(
        "INVITE sip:1@10.0.0.9:5062 SIP/2.0\r\nVia: {via}\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n\
         Max-Forwards: 70\r\nContact: <sip:a@10.0.0.1:5070>\r\nContent-Length: 0\r\n\r\n"
    );
    Message::parse(text.as_bytes()).unwrap()
}

#[test]
fn answers_go_where_the_via_says() {
    let from = "10.0.0.1:6000".parse().unwrap();
    let to = |via: &str| answer_route(&invite(via), from).unwrap();
    assert_eq!(to("SIP/2.0/UDP 10.0.0.1:5070;branch=z9hG4bKx").1, "10.0.0.1:5070".parse().unwrap());
    assert_eq!(to("SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx").1, "10.0.0.1:5060".parse().unwrap());
    let (via, addr) = to("SIP/2.0/UDP 10.0.0.7:5070;branch=z9hG4bKx");
    assert_eq!((addr, via.ends_with(";received=10.0.0.1")), ("10.0.0.1:5070".parse().unwrap(), true));
    let (via, addr) = to("SIP/2.0/UDP 10.0.0.1:5070;rport;branch=z9hG4bKx");
    assert_eq!((addr, via.contains(";rport=6000;")), (from, true));
}

#[test]
fn faults_of_a_request_are_told() {
    assert!(request_faults(&invite("SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx")).is_empty());
    assert_eq!(request_faults(&invite("SIP/2.0/UDP 10.0.0.1;branch=x")).len(), 1);
    assert!(Message::parse(b"INVITE sip:a SIP/2.0\r\nContent-Length: 5\r\n\r\n").is_err());
}
