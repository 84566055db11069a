//! RFC 5118: IPv6 in SIP.

use super::*;
use crate::sip::sdp::Sdp;

fn host(u: &str) -> Option<(String, Option<u16>)> {
    uri::host_port(u.as_bytes()).map(|(h, p)| (utf8(h).to_owned(), p))
}

/// 4.1 to 4.4: references with and without brackets and port.
#[test]
fn references_in_uris() {
    let some = |h: &str, p| Some((h.to_owned(), p));
    assert_eq!(host("sip:[2001:db8::10]"), some("2001:db8::10", None));
    // Invalid, but only one reading is possible.
    assert_eq!(host("sip:user@2001:db8::10;lr"), some("2001:db8::10", None));
    // A port would look like part of the address. Inside the brackets it belongs to the address.
    assert_eq!(host("sip:[2001:db8::10:5070]"), some("2001:db8::10:5070", None));
    assert_eq!(host("sip:2001:db8::10:5070"), some("2001:db8::10:5070", None));
    assert_eq!(host("sip:a@[2001:db8::10]:5070;transport=tcp"), some("2001:db8::10", Some(5070)));
    // Neither an address nor a host with a port.
    assert_eq!(host("sip:cafe:beef:5070"), some("cafe", None));
    assert_eq!(host("sip:[::1"), None);
}

/// 4.5: `received` with brackets and without; 4.10: the three colons of the first grammar.
#[test]
fn references_in_via() {
    let v = uri::via(b"SIP/2.0/UDP [2001:db8::9:1]:5062;received=[2001:db8::9:255];branch=z9hG4bKas3").unwrap();
    assert_eq!(
        (utf8(v.host), v.port, v.param("received")),
        ("2001:db8::9:1", Some(5062), Some(&b"[2001:db8::9:255]"[..]))
    );
    let v = uri::via(b"SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bKas3;received=2001:db8::9:255").unwrap();
    assert_eq!((v.param("received"), v.param("branch")), (Some(&b"2001:db8::9:255"[..]), Some(&b"z9hG4bKas3"[..])));
    assert_eq!(
        host("sip:[2001:db8:::192.0.2.1]").unwrap().0,
        "2001:db8:::192.0.2.1",
        "kept; who parses the address refuses it"
    );
}

/// 4.6 to 4.9: addresses of both families and mapped ones, in headers and descriptions.
#[test]
fn both_families_in_one_message() {
    let body = "v=0\r\no=a 1 1 IN IP6 2001:db8::20\r\ns=-\r\nc=IN IP6 ::ffff:192.0.2.10\r\nt=0 0\r\nm=audio 42000 RTP/AVP 0\r\nm=video 6024 RTP/AVP 107\r\nc=IN IP4 192.0.2.1\r\n";
    let m = text(
        &[
            "BYE sip:user@host.example.net SIP/2.0",
            "Via: SIP/2.0/UDP [2001:db8::9:1]:6050;branch=z9hG4bKas3-111",
            "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKjhja8781hjuaij65144",
            "Record-Route: <sip:[2001:db8::10];lr>, <sip:192.0.2.9:5061;lr>",
            "Call-ID: 997077@[2001:db8::20]",
            "CSeq: 89187 BYE",
            "To: <sip:user@example.net>;tag=9817--94",
            "From: <sip:user@[2001:db8::20]>;tag=81x2",
        ],
        body,
    );
    let m = parse(&m);
    let hosts: Vec<_> = m.values(Name::RecordRoute).map(|r| host(utf8(uri::uri_of(r))).unwrap()).collect();
    assert_eq!(hosts, [("2001:db8::10".to_owned(), None), ("192.0.2.9".to_owned(), Some(5061))]);
    let sdp = Sdp::parse(m.body()).unwrap();
    let addresses: Vec<_> = sdp.media().iter().map(|m| m.connection.unwrap().to_string()).collect();
    assert_eq!(addresses, ["::ffff:192.0.2.10", "192.0.2.1"]);
}
