//! Which senders are trusted, and which end is the server.

use super::{addr, encode, options};
use crate::hep::Reorder;
use crate::hep::intake::{Counters, Intake, IntakeResult, Key, Refusal, ReportedMessage, Rules};
use crate::sip::Transport;
use crate::time::Time;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const NOW: Time = Time::from_millis(1000);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn rules() -> Rules {
    Rules {
        key: None,
        from: Some(vec![ip("127.0.0.1"), ip("::1"), ip("192.0.2.10")]),
        vips: vec![ip("192.0.2.10"), ip("192.0.2.11"), ip("2001:db8::10")],
        server: vec![ip("0.0.0.0"), ip("10.0.0.5"), ip("fd00::5")],
        sip_ports: vec![5060, 5080],
    }
}

fn keyed() -> Rules {
    Rules { key: Some(Key::new(b"secret")), from: None, ..rules() }
}

fn report(intake: &mut Intake, bytes: &[u8]) -> Option<ReportedMessage> {
    match intake.take(bytes, ip("127.0.0.1"), NOW) {
        IntakeResult::Report(report) => Some(report),
        _ => None,
    }
}

fn why(taken: IntakeResult) -> (Refusal, bool) {
    match taken {
        IntakeResult::Refused { why, tell } => (why, tell),
        other => panic!("{other:?}"),
    }
}

fn tls(phone: &str, server: &str) -> Vec<u8> {
    encode::kamailio3(addr(phone), addr(server), 22, None, &options("TLS"))
}

#[test]
fn without_a_key_the_address_decides() {
    let mut intake = Intake::new(rules());
    let bytes = tls("198.51.100.7:40001", "192.0.2.10:5061");
    for from in ["127.0.0.1", "::1", "192.0.2.10", "::ffff:127.0.0.1"] {
        assert!(matches!(intake.take(&bytes, ip(from), NOW), IntakeResult::Report(_)), "{from}");
    }
    assert_eq!(why(intake.take(&bytes, ip("192.0.2.77"), NOW)), (Refusal::Source(ip("192.0.2.77")), true));
    let v1 = encode::kamailio1(addr("198.51.100.7:40001"), addr("192.0.2.10:5060"), 17, &options("UDP"));
    assert!(matches!(intake.take(&v1, ip("127.0.0.1"), NOW), IntakeResult::Report(_)));
    assert_eq!(intake.counters, Counters { received: 5, refused: 1, ..Counters::default() });
}

#[test]
fn with_a_key_only_the_key_decides() {
    let mut intake = Intake::new(keyed());
    let (phone, vip, sip) = (addr("198.51.100.7:40001"), addr("192.0.2.10:5061"), options("TLS"));
    let far = ip("203.0.113.9");
    let shown = |key| encode::kamailio3(phone, vip, 22, key, &sip);
    assert!(matches!(intake.take(&shown(Some("secret")), far, NOW), IntakeResult::Report(_)));
    for wrong in ["", "secre", "secret ", "Secret", "secretsecret"] {
        assert_eq!(why(intake.take(&shown(Some(wrong)), far, NOW)).0, Refusal::WrongKey(far), "{wrong:?}");
    }
    assert_eq!(why(intake.take(&shown(None), far, NOW)).0, Refusal::NoKey(far));
    // Not even from this host, because versions without a key would bypass it.
    let near = ip("127.0.0.1");
    assert_eq!(why(intake.take(&encode::kamailio2(phone, vip, 22, &sip), near, NOW)).0, Refusal::Version(near, 2));
    assert_eq!((intake.counters.received, intake.counters.refused), (1, 7));
    // Both the address and the key.
    let mut both = Intake::new(Rules { from: Some(vec![near]), ..keyed() });
    assert_eq!(why(both.take(&shown(Some("secret")), far, NOW)).0, Refusal::Source(far));
    assert!(matches!(both.take(&shown(Some("secret")), near, NOW), IntakeResult::Report(_)));
    assert!(!format!("{:?}", keyed()).contains("secret"));
}

#[test]
fn strangers_cannot_have_a_payload_unfolded_or_learn_the_rules() {
    let mut intake = Intake::new(keyed());
    let far = ip("203.0.113.9");
    let bomb = encode::opensips3(addr("1.2.3.4:5"), addr("192.0.2.10:5061"), 22, 1, encode::chunk(0, 16, b"no zlib"));
    assert_eq!(why(intake.take(&bomb, far, NOW)).0, Refusal::NoKey(far));
}

#[test]
fn the_servers_other_names_become_the_floating_address() {
    let mut intake = Intake::new(rules());
    for (src, dst, expected) in [
        ("198.51.100.7:40001", "0.0.0.0:5061", ("198.51.100.7:40001", "192.0.2.10:5061")),
        ("10.0.0.5:5061", "198.51.100.7:40001", ("192.0.2.10:5061", "198.51.100.7:40001")),
        // One of several: the reported address is kept.
        ("192.0.2.11:5061", "198.51.100.7:40001", ("192.0.2.11:5061", "198.51.100.7:40001")),
        ("[fd00::5]:5061", "[2001:db8::7]:1", ("[2001:db8::10]:5061", "[2001:db8::7]:1")),
        // An IPv6 socket that serves IPv4 names both ends like this.
        ("[::ffff:198.51.100.7]:40001", "[::ffff:192.0.2.10]:5061", ("198.51.100.7:40001", "192.0.2.10:5061")),
    ] {
        let got = report(&mut intake, &tls(src, dst)).unwrap();
        assert_eq!((got.src, got.dst, got.transport), (addr(expected.0), addr(expected.1), Transport::Tls));
    }
    // A connection that the server opened.
    let tcp = |src, dst| encode::kamailio3(addr(src), addr(dst), 6, None, &options("TCP"));
    for (src, dst, expected) in [
        ("10.0.0.5:49152", "198.51.100.7:5060", "192.0.2.10:5060"),
        ("192.0.2.11:5080", "198.51.100.7:5060", "192.0.2.11:5080"),
    ] {
        assert_eq!(report(&mut intake, &tcp(src, dst)).unwrap().src, addr(expected));
        assert_eq!(report(&mut intake, &tcp(dst, src)).unwrap().dst, addr(expected));
    }
    let local = ip("127.0.0.1");
    let elsewhere = intake.take(&tls("198.51.100.7:40001", "10.0.0.6:5061"), local, NOW);
    assert_eq!(why(elsewhere), (Refusal::Elsewhere(local, ip("198.51.100.7"), ip("10.0.0.6")), true));
    // The server to itself, and older versions of OpenSIPS, which write the sender of IPv6 messages as receiver too.
    for (src, dst) in [("192.0.2.10:5061", "10.0.0.5:5061"), ("[2001:db8::10]:5061", "[2001:db8::10]:40001")] {
        assert_eq!(intake.take(&tls(src, dst), local, NOW), IntakeResult::PassedOver);
    }
    assert_eq!(intake.counters, Counters { received: 9, elsewhere: 3, ..Counters::default() });
}

#[test]
fn what_is_no_sip_is_counted_and_passed_over() {
    let mut intake = Intake::new(rules());
    let (a, b) = (addr("198.51.100.7:40001"), addr("192.0.2.10:5061"));
    for bytes in [
        encode::opensips3(a, b, 17, 0x56, encode::chunk(0, 15, b"log line")),
        encode::opensips3(a, b, 17, 5, encode::chunk(0, 15, b"{\"sender_information\":{}}")),
        encode::kamailio1(a, b, 17, b"\r\n\r\n"),
        encode::kamailio3(a, b, 22, None, b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"),
        encode::kamailio3(a, b, 132, None, &options("SCTP")),
    ] {
        assert_eq!(intake.take(&bytes, ip("127.0.0.1"), NOW), IntakeResult::PassedOver);
    }
    assert_eq!(intake.counters, Counters { not_sip: 5, ..Counters::default() });
}

#[test]
fn garbage_and_messages_cut_short_are_malformed() {
    let mut intake = Intake::new(rules());
    let (a, b, local) = (addr("198.51.100.7:40001"), addr("192.0.2.10:5061"), ip("127.0.0.1"));
    assert!(matches!(why(intake.take(b"garbage", local, NOW)).0, Refusal::Malformed(..)));
    // FreeSWITCH drops what is beyond 16,000 bytes.
    let text = String::from_utf8(options("TLS")).unwrap().replace("Content-Length: 0", "Content-Length: 99");
    let cut = encode::freeswitch3(a, b, 22, text.as_bytes());
    assert_eq!(why(intake.take(&cut, local, NOW)).0, Refusal::Cut(local));
    assert_eq!(intake.counters, Counters { malformed: 2, ..Counters::default() });
}

#[test]
fn each_source_is_warned_about_once_a_minute() {
    let mut intake = Intake::new(rules());
    let mut told = |source: &str, at: Time| why(intake.take(b"", ip(source), at)).1;
    assert!(told("203.0.113.1", NOW));
    assert!(!told("203.0.113.1", NOW + Duration::from_secs(59)));
    assert!(told("203.0.113.2", NOW + Duration::from_secs(59)));
    assert!(told("203.0.113.1", NOW + Duration::from_secs(61)));
    // A flood of forged addresses: bounded memory, bounded lines.
    let later = NOW + Duration::from_secs(1000);
    let lines = (0..10_000_u32).filter(|i| told(&IpAddr::from(i.to_be_bytes()).to_string(), later)).count();
    assert_eq!(lines, 64);
    assert!(told("203.0.113.1", later + Duration::from_secs(61)));
}

fn reported(port: u16, transport: Transport) -> ReportedMessage {
    let src = SocketAddr::new(ip("198.51.100.7"), port);
    ReportedMessage {
        src,
        dst: addr("192.0.2.10:5060"),
        transport,
        payload: Vec::new(),
        is_request: true,
        transaction: u64::from(port),
    }
}

fn popped(patience: &mut Reorder, ms: u64) -> Vec<u16> {
    std::iter::from_fn(|| patience.pop(NOW + Duration::from_millis(ms))).map(|r| r.src.port()).collect()
}

#[test]
fn the_wire_speaks_first() {
    let mut patience = Reorder::default();
    assert_eq!(patience.next_deadline(), None);
    patience.push(reported(1, Transport::Udp), NOW);
    patience.push(reported(2, Transport::Tls), NOW);
    patience.push(reported(3, Transport::Tcp), NOW + Duration::from_millis(10));
    patience.push(reported(4, Transport::Ws), NOW + Duration::from_millis(10));
    assert_eq!(patience.next_deadline(), Some(NOW + Duration::from_millis(25)));
    assert_eq!(popped(&mut patience, 24), Vec::<u16>::new());
    assert_eq!(popped(&mut patience, 25), [2]);
    assert_eq!(popped(&mut patience, 99), [4]);
    assert_eq!(patience.next_deadline(), Some(NOW + Duration::from_millis(100)));
    assert_eq!(popped(&mut patience, 100), [1]);
    assert_eq!(popped(&mut patience, 500), [3]);
    assert_eq!(patience.next_deadline(), None);
    for i in 0..5000 {
        patience.push(reported(i, Transport::Udp), NOW);
    }
    // Beyond the bound the oldest are passed on, and none is lost.
    assert_eq!(patience.next_deadline(), Some(Time::ZERO));
    assert_eq!(popped(&mut patience, 0), (0..904).collect::<Vec<_>>());
    assert_eq!(popped(&mut patience, 100), (904..5000).collect::<Vec<_>>());
    // So are a few long ones, because their bytes count.
    for i in 0..1000 {
        patience.push(ReportedMessage { payload: vec![0; 60_000], ..reported(i, Transport::Udp) }, NOW);
    }
    let early = popped(&mut patience, 0).len();
    assert!((700..=730).contains(&early), "{early}");
    assert_eq!(popped(&mut patience, 100).len(), 1000 - early);
    assert_eq!(patience.next_deadline(), None);
}

#[test]
fn a_response_waits_for_the_request_that_it_overtook() {
    let mut patience = Reorder::default();
    let answer =
        |port, transaction| ReportedMessage { is_request: false, transaction, ..reported(port, Transport::Tls) };
    patience.push(answer(1, 9), NOW);
    patience.push(answer(2, 9), NOW);
    patience.push(reported(7, Transport::Tls), NOW);
    patience.push(answer(8, 7), NOW);
    patience.push(reported(9, Transport::Tls), NOW + Duration::from_millis(20));
    // The request comes with the first response, although it is not due itself.
    assert_eq!(popped(&mut patience, 25), [9, 1, 2, 7, 8]);
    // A response does not wait for a request that comes too late.
    patience.push(answer(1, 5), NOW + Duration::from_millis(30));
    assert_eq!(popped(&mut patience, 60), [1]);
    patience.push(reported(5, Transport::Tls), NOW + Duration::from_millis(60));
    assert_eq!(popped(&mut patience, 90), [5]);
}

#[test]
fn a_request_and_its_responses_are_known_to_belong_together() {
    let mut intake = Intake::new(rules());
    let mut transaction = |text: &str| {
        let bytes = encode::kamailio3(addr("198.51.100.7:40001"), addr("192.0.2.10:5061"), 22, None, text.as_bytes());
        let report = report(&mut intake, &bytes).unwrap();
        (report.is_request, report.transaction)
    };
    let message = |first: &str, branch: &str, cseq: &str| {
        format!(
            "{first}\r\nVia: SIP/2.0/TLS a;branch={branch};rport=1\r\nFrom: <sip:a>;tag=1\r\nTo: <sip:b>\r\nCall-ID: 1\r\nCSeq: {cseq}\r\n\r\n"
        )
    };
    let (is_request, invite) = transaction(&message("INVITE sip:b SIP/2.0", "z9hG4bK1", "1 INVITE"));
    assert!(is_request);
    assert_eq!(transaction(&message("SIP/2.0 180 Ringing", "z9hG4bK1", "1 INVITE")), (false, invite));
    assert_ne!(transaction(&message("SIP/2.0 180 Ringing", "z9hG4bK2", "1 INVITE")).1, invite);
    assert_ne!(transaction(&message("SIP/2.0 200 OK", "z9hG4bK1", "1 CANCEL")).1, invite);
}
