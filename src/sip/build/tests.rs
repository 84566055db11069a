use super::*;
use proptest::prelude::*;

const REQUEST: &[u8] = b"BYE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5062;branch=z9hG4bK1;rport, SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK2\r\nv: SIP/2.0/UDP 10.0.0.3;branch=z9hG4bK3\r\nRecord-Route: <sip:p;lr>\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: q\r\nCSeq: 7 BYE\r\n\r\n";

#[test]
fn a_response_carries_what_the_request_demands() {
    let m = Message::parse(REQUEST).unwrap();
    let source: SocketAddr = "10.0.0.9:6000".parse().unwrap();
    let bytes = Builder::response_to(&m, 481, "No", Some(b"t"), Some(source)).build();
    assert_eq!(
        String::from_utf8(bytes).unwrap(),
        "SIP/2.0 481 No\r\nVia: SIP/2.0/UDP 10.0.0.1:5062;branch=z9hG4bK1;rport=6000;received=10.0.0.9\r\nVia: SIP/2.0/UDP 10.0.0.2;branch=z9hG4bK2\r\nVia: SIP/2.0/UDP 10.0.0.3;branch=z9hG4bK3\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=t\r\nCall-ID: q\r\nCSeq: 7 BYE\r\nContent-Length: 0\r\n\r\n"
    );
    let ok = Builder::response_to(&m, 200, "OK", None, None).body("application/sdp", b"v=0").build();
    let ok = Message::parse(&ok).unwrap();
    assert_eq!((ok.body(), ok.header(Name::RecordRoute)), (&b"v=0"[..], Some(&b"<sip:p;lr>"[..])));
}

#[test]
fn responses_go_where_rfc_3261_and_3581_send_them() {
    let source: SocketAddr = "10.0.0.9:6000".parse().unwrap();
    let to = |via: &str| response_address(via.as_bytes(), source).to_string();
    assert_eq!(to("SIP/2.0/UDP 10.0.0.9:5062;branch=x"), "10.0.0.9:5062");
    assert_eq!(to("SIP/2.0/UDP 10.0.0.9;branch=x"), "10.0.0.9:5060");
    assert_eq!(to("SIP/2.0/UDP 10.0.0.9:5062;rport;branch=x"), "10.0.0.9:6000");
    assert_eq!(to("SIP/2.0/UDP 192.168.1.4:5062;branch=x"), "10.0.0.9:6000", "behind a NAT");
    assert_eq!(to("SIP/2.0/UDP phone.example;branch=x"), "10.0.0.9:6000");
    let six: SocketAddr = "[2001:db8::1]:6000".parse().unwrap();
    assert_eq!(response_address(b"SIP/2.0/UDP [2001:db8::1]:5070;branch=x", six).to_string(), "[2001:db8::1]:5070");
    assert_eq!(to(""), "10.0.0.9:6000");
}

#[test]
fn values_cannot_begin_a_line() {
    let bytes = Builder::request("INFO", b"sip:a").header("X", "1\r\nEvil: 2").build();
    assert_eq!(bytes, b"INFO sip:a SIP/2.0\r\nX: 1  Evil: 2\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn names_and_uris_cannot_leave_their_place() {
    let bytes = Builder::request("IN FO\r\nX", b"sip:a b\r\n\"<\xe4>")
        .header("X\r\nY: Z", "\r\n\r\nv")
        .body("a/b\r\nc: d", b"\r\n")
        .build();
    assert_eq!(
        bytes,
        b"IN-FO--X sip:a%20b%0D%0A%22%3C\xe4%3E SIP/2.0\r\nX--Y--Z:     v\r\nContent-Type: a/b  c: d\r\nContent-Length: 2\r\n\r\n\r\n"
    );
}

#[test]
fn an_empty_tag_is_replaced() {
    for (to, want) in [
        ("<sip:c@d>", "<sip:c@d>;tag=n"),
        ("<sip:c@d>;tag=", "<sip:c@d>;tag=n"),
        ("<sip:c@d;x=1", "<sip:c@d;x=1>;tag=n"),
        ("sip:c@d ; x=1 ;TAG;y", "sip:c@d ; x=1 ;y;tag=n"),
        ("\"a;tag=x\" <sip:c@d;tag=q>", "\"a;tag=x\" <sip:c@d;tag=q>;tag=n"),
    ] {
        let text = String::from_utf8_lossy(REQUEST).replace("To: <sip:c@d>", &format!("To: {to}"));
        let out = Builder::response_to(&Message::parse(text.as_bytes()).unwrap(), 200, "OK", Some(b"n"), None).build();
        let m = Message::parse(&out).unwrap();
        assert_eq!((String::from_utf8_lossy(m.to()).as_ref(), m.to_tag()), (want, Some(&b"n"[..])));
    }
}

#[test]
fn a_via_with_odd_spacing_is_understood() {
    let source: SocketAddr = "10.0.0.9:6000".parse().unwrap();
    assert_eq!(response_address(b"SIP / 2.0 / UDP  10.0.0.9 : 5062 ; branch=x", source).port(), 5062);
    let via = received_from(b"SIP/2.0/UDP 10.0.0.1;x=\";received=q\";received=1.2.3.4;branch=b", source);
    assert_eq!(via, b"SIP/2.0/UDP 10.0.0.1;x=\";received=q\";branch=b;received=10.0.0.9");
}

proptest! {
    #[test]
    fn any_via_is_answered_without_panic(via in proptest::collection::vec(any::<u8>(), 0..80)) {
        let source: SocketAddr = "10.0.0.9:6000".parse().unwrap();
        let _ = response_address(&via, source);
        let mut text = b"BYE sip:x SIP/2.0\r\nVia: ".to_vec();
        text.extend_from_slice(&via);
        text.extend_from_slice(b"\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: q\r\nCSeq: 7 BYE\r\n\r\n");
        if let Ok(m) = Message::parse(&text) {
            let out = Builder::response_to(&m, 200, "OK", None, Some(source)).build();
            prop_assert!(Message::parse(&out).is_ok());
        }
    }
}
