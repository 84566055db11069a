use super::*;
use proptest::prelude::*;

const INVITE: &str = "INVITE sip:bob@example.org SIP/2.0\r\n\
Via: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKa;rport, SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKb\r\n\
Max-Forwards: 70\r\nFrom: \"A, \\\"x\\\"\" <sip:alice@example.org>;tag=ft\r\nTo: <sip:bob@example.org>\r\n\
Call-ID: c1@10.0.0.1\r\nCSeq: 1 INVITE\r\nContact: <sip:alice@10.0.0.1:5060>\r\n\
Record-Route: <sip:p1;lr>, <sip:p2;lr>\r\nRecord-Route: <sip:p3;lr>\r\nContent-Type: application/sdp\r\n\
Content-Length: 4\r\n\r\nv=0\nxxxx";

fn minimal(more: &str) -> String {
    format!("OPTIONS sip:h SIP/2.0\r\nCall-ID: c\r\nFrom: <sip:a>;tag=1\r\nTo: <sip:b>\r\nCSeq: 7 OPTIONS\r\n{more}")
}

#[test]
fn reads_a_well_formed_invite() {
    let m = Message::parse(INVITE.as_bytes()).unwrap();
    assert_eq!(m.start(), Start::Request { method: Method::Invite, name: b"INVITE", uri: b"sip:bob@example.org" });
    assert!(m.is_request());
    assert_eq!(m.call_id(), b"c1@10.0.0.1");
    assert_eq!(m.cseq(), (1, &b"INVITE"[..]));
    assert_eq!(m.from_tag(), Some(&b"ft"[..]));
    assert_eq!(m.to_tag(), None);
    assert_eq!(m.branch(), Some(&b"z9hG4bKa"[..]));
    assert_eq!(m.contact_uri(), Some(&b"sip:alice@10.0.0.1:5060"[..]));
    assert_eq!(m.body(), b"v=0\n");
    assert_eq!(m.values(Name::RecordRoute).collect::<Vec<_>>(), [&b"<sip:p1;lr>"[..], b"<sip:p2;lr>", b"<sip:p3;lr>"]);
    assert_eq!(m.headers(Name::RecordRoute).count(), 2);
    assert_eq!(m.values(Name::Via).count(), 2);
    assert_eq!(m.named("max-forwards"), Some(&b"70"[..]));
    assert_eq!(m.all().count(), 11);
}

#[test]
fn reads_compact_folded_lf_only_and_odd_spacing() {
    let text = "\r\n\r\nSIP/2.0  200   OK then\nv  :  SIP/2.0/UDP h;branch=z9hG4bKq\ni\t: c\nf: <sip:a>;\n  tag=1\n\
                t:<sip:b>;tag=2\ncseq:  0042   INVITE\nm:sip:x@h;expires=3\nL: 2\nbroken line\n: novalue\nX-Y: \n\nabcd";
    let m = Message::parse(text.as_bytes()).unwrap();
    assert_eq!(m.start(), Start::Response { code: 200, reason: b"OK then" });
    assert_eq!(m.method(), Method::Invite);
    assert_eq!(m.code(), Some(200));
    assert_eq!(m.header(Name::From), Some(&b"<sip:a>;\n  tag=1"[..]));
    assert_eq!((m.from_tag(), m.to_tag()), (Some(&b"1"[..]), Some(&b"2"[..])));
    assert_eq!(m.cseq(), (42, &b"INVITE"[..]));
    assert_eq!(m.contact_uri(), Some(&b"sip:x@h"[..]));
    assert_eq!(m.named("x-y"), Some(&b""[..]));
    assert_eq!(m.body(), b"ab");
}

#[test]
fn content_length_missing_too_large_or_no_number_means_the_rest() {
    for length in
        ["", "Content-Length: 900\r\n", "Content-Length: -1\r\n", "Content-Length: 99999999999999\r\n", "l: x\r\n"]
    {
        let text = minimal(&format!("{length}\r\nbody"));
        assert_eq!(Message::parse(text.as_bytes()).unwrap().body(), b"body", "{length}");
    }
    assert_eq!(Message::parse(minimal("").as_bytes()).unwrap().body(), b"");
}

#[test]
fn the_first_of_two_single_headers_wins() {
    let text = minimal("Call-ID: other\r\nCSeq: 9 BYE\r\nl: 1\r\nContent-Length: 3\r\n\r\nabc");
    let m = Message::parse(text.as_bytes()).unwrap();
    assert_eq!((m.call_id(), m.cseq().0, m.body()), (&b"c"[..], 7, &b"a"[..]));
}

#[test]
fn keeps_bytes_that_are_not_utf8() {
    let mut bytes = minimal("Subject: ").into_bytes();
    bytes.extend_from_slice(b"\xff\xfe\x00\x80\r\n\r\n");
    assert_eq!(Message::parse(&bytes).unwrap().header(Name::Subject), Some(&b"\xff\xfe\x00\x80"[..]));
}

#[test]
fn unknown_methods_and_uris_of_other_schemes_are_kept() {
    let text =
        minimal("\r\n").replacen("OPTIONS sip:h", "!FOO-1 tel:+49;phone-context=x", 1).replace("7 OPTIONS", "7 !FOO-1");
    let m = Message::parse(text.as_bytes()).unwrap();
    assert_eq!(m.method(), Method::Other);
    assert_eq!(m.start(), Start::Request { method: Method::Other, name: b"!FOO-1", uri: b"tel:+49;phone-context=x" });
}

#[test]
fn says_why_bytes_are_not_sip() {
    let check = |bytes: &[u8], e: ParseError| {
        assert_eq!(Message::parse(bytes).unwrap_err(), e, "{:?}", String::from_utf8_lossy(bytes))
    };
    for keep_alive in [&b""[..], b"\r\n\r\n", b"\r\n", b"\0", b"\0\0\0\0", b"jaK"] {
        check(keep_alive, ParseError::KeepAlive);
    }
    for other in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"SIP/2.0 99 x\r\n",
        b"SIP/2.0 2OO x\r\n",
        b"INVITE  SIP/2.0\r\n",
        b"IN\x01 sip:h SIP/2.0\r\n",
        b"INVITE sip:h SIP/3.0\r\n",
        b"\x80\xc8\x00\x01\x00\x01",
        b"INVITE\r\nFrom: x\r\n",
    ] {
        check(other, ParseError::NotSip);
    }
    check(minimal("\r\n").replace("Call-ID", "X").as_bytes(), ParseError::Missing("Call-ID"));
    check(minimal("\r\n").replace("From", "X").as_bytes(), ParseError::Missing("From"));
    check(minimal("\r\n").replace("To: <sip:b>", "To:").as_bytes(), ParseError::Missing("To"));
    for cseq in ["OPTIONS", "7", "7 ", "", "4294967296 OPTIONS", "-7 OPTIONS"] {
        check(minimal("\r\n").replace("7 OPTIONS", cseq).as_bytes(), ParseError::Missing("CSeq"));
    }
    check(minimal(&"X: y\r\n".repeat(MAX_HEADERS)).as_bytes(), ParseError::TooManyHeaders);
    check(&vec![b'a'; MAX_BYTES + 1], ParseError::TooLarge);
}

#[test]
fn a_message_of_the_largest_size_and_header_count_is_read() {
    let mut text = minimal(&"X: y\r\n".repeat(MAX_HEADERS - 4));
    text.push_str("\r\n");
    text.push_str(&"b".repeat(MAX_BYTES - text.len()));
    let m = Message::parse(text.as_bytes()).unwrap();
    assert_eq!(m.all().count(), MAX_HEADERS);
    assert!(m.body().ends_with(b"bb"));
}

/// A message with these header lines in addition to the mandatory ones.
fn with(lines: &str) -> String {
    minimal(&format!("{lines}\r\n\r\n"))
}

#[test]
fn headers_with_a_shape_are_read() {
    let text = with(
        "Session-Expires: 1800 ; Refresher = UAS;x\r\nMin-SE:  090;a=b\r\nRSeq: 988789\r\nRAck: 776656\t1\r\n INVITE\r\n\
         Refer-To: <sip:b@h?Replaces=c%40h%3Bto-tag%3D1%3Bfrom-tag%3D2>\r\nReferred-By: <sip:r@h>;cid=1\r\n\
         Reason: Q.850 ;cause=16 ;text=\"Terminated, normally\", SIP;cause=200\r\nreason: X\r\no: refer;id=93809824\r\n\
         Subscription-State: Terminated;reason=noresource;expires=10\r\nSession-ID: ab30317f1a784dc48ff824d0d3715d86; remote=00000000000000000000000000000000\r\n\
         Remote-Party-ID: <sip:r@h>;party=calling\r\nP-Asserted-Identity: \"A\" <sip:1@h>, <tel:1>\r\nDiversion: <sip:d1@h>;reason=busy, <sip:d2@h>\r\n\
         Path: <sip:p1;lr>,<sip:p2;lr>\r\nX-Pair: q",
    );
    let m = Message::parse(text.as_bytes()).unwrap();
    assert_eq!(m.session_expires(), Some(SessionExpires { interval_s: 1800, refresher: Some(Refresher::Uas) }));
    assert_eq!((m.min_se(), m.rseq()), (Some(90), Some(988_789)));
    assert_eq!(m.rack(), Some(RAck { rseq: 776_656, cseq: 1, method: b"INVITE" }));
    let replaces = uri::unescaped(uri::uri_header(m.refer_to().unwrap(), "replaces").unwrap()).into_owned();
    assert_eq!(
        Replaces::parse(&replaces),
        Some(Replaces { call_id: b"c@h", to_tag: b"1", from_tag: b"2", early_only: false })
    );
    assert_eq!(m.referred_by(), Some(&b"sip:r@h"[..]));
    let reasons: Vec<_> = m.reasons().collect();
    assert_eq!(reasons[0], Reason { protocol: b"Q.850", cause: Some(16), text: b"Terminated, normally" });
    assert_eq!(
        reasons[1..],
        [Reason { protocol: b"SIP", cause: Some(200), text: b"" }, Reason { protocol: b"X", cause: None, text: b"" }]
    );
    assert_eq!(m.event(), Some(Event { package: b"refer", id: Some(b"93809824") }));
    let state = m.subscription_state().unwrap();
    assert_eq!((state.is_terminated(), state.reason, state.expires_s), (true, Some(&b"noresource"[..]), Some(10)));
    assert_eq!(m.session_id(), Some(SessionId { local: Some(b"ab30317f1a784dc48ff824d0d3715d86"), remote: None }));
    assert_eq!(m.asserted(), Some(&b"sip:1@h"[..]));
    assert_eq!(m.values(Name::Diversion).map(uri::uri_of).collect::<Vec<_>>(), [b"sip:d1@h", b"sip:d2@h"]);
    assert_eq!((m.values(Name::Path).count(), m.named("x-PAIR")), (2, Some(&b"q"[..])));
}

#[test]
fn headers_without_their_shape_are_absent() {
    let text = with(
        "Session-Expires: soon\r\nMin-SE:\r\nRSeq: 1 2\r\nRAck: 1 INVITE\r\nRefer-To: <>\r\nEvent: ;id=1\r\nSubscription-State:\r\nReplaces: c;to-tag=1",
    );
    let m = Message::parse(text.as_bytes()).unwrap();
    assert_eq!((m.session_expires(), m.min_se(), m.rseq(), m.rack()), (None, None, None, None));
    assert_eq!((m.refer_to(), m.event(), m.subscription_state(), m.replaces()), (None, None, None, None));
    assert_eq!((m.session_id(), m.asserted(), m.referred_by(), m.reasons().count()), (None, None, None, 0));
    for (value, want) in [
        ("c;from-tag=2;to-tag=1;early-only", Some((&b"c"[..], &b"1"[..], &b"2"[..], true))),
        (" c@h ; local-tag = 1 ; remote-tag=2", Some((b"c@h", b"1", b"2", false))),
        (";to-tag=1;from-tag=2", None),
        ("c;to-tag=;from-tag=2", None),
        ("c", None),
    ] {
        assert_eq!(
            Replaces::parse(value.as_bytes()).map(|r| (r.call_id, r.to_tag, r.from_tag, r.early_only)),
            want,
            "{value}"
        );
    }
}

fn touch_everything(m: &Message<'_>) {
    let _ = (
        m.start(),
        m.method(),
        m.code(),
        m.request_uri(),
        m.branch(),
        m.contact_uri(),
        m.from_tag(),
        m.to_tag(),
        m.body().len(),
    );
    for n in [Name::Via, Name::Contact, Name::RecordRoute, Name::Allow] {
        let _ = (m.values(n).count(), m.headers(n).count());
    }
    let _ = (m.all().count(), m.named("x-any"), format!("{m:?}"));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(m) = Message::parse(&bytes) {
            touch_everything(&m);
        }
    }

    #[test]
    fn mutated_messages_never_panic(edits in proptest::collection::vec((any::<u16>(), any::<u8>(), 0u8..3), 1..12), cut in any::<u16>()) {
        let mut bytes = INVITE.as_bytes().to_vec();
        for (at, byte, what) in edits {
            let at = usize::from(at) % bytes.len();
            match what {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        bytes.truncate(usize::from(cut) % (bytes.len() * 4) + 1);
        if let Ok(m) = Message::parse(&bytes) {
            touch_everything(&m);
        }
    }
}
