//! RFC 4475 sections 3.1.2 (invalid), 3.2 (transactions) and 3.3 (applications).

use super::*;

const REST: [&str; 4] =
    ["From: <sip:caller@example.net>;tag=f1", "To: <sip:user@example.com>", "Call-ID: bad", "CSeq: 1 INVITE"];

fn invite(first: &str, more: &[&str], body: &str) -> String {
    let mut lines = vec![first];
    lines.extend(REST);
    lines.extend(more);
    text(&lines, body)
}

fn error(message: &str) -> ParseError {
    Message::parse(message.as_bytes()).unwrap_err()
}

const PLAIN: &str = "INVITE sip:user@example.com SIP/2.0";

/// 3.1.2.1 (badinv01): stray separators. Verdict: read. Empty values and parameters do not count.
#[test]
fn extraneous_separators() {
    let m = invite(
        PLAIN,
        &["Via: SIP/2.0/UDP 192.0.2.15;;branch=z9hG4bKkdjuw,,;,,", "Contact: \"Joe\" <sip:joe@example.org>;;;;,,"],
        "",
    );
    let m = parse(&m);
    assert_eq!(m.branch(), Some(&b"z9hG4bKkdjuw"[..]));
    assert_eq!(m.contact_uri(), Some(&b"sip:joe@example.org"[..]));
    assert_eq!(all(&m, Name::Contact), ["\"Joe\" <sip:joe@example.org>;;;;"]);
    assert_eq!(all(&m, Name::Via).len(), 2, "the lone semicolon remains as a value");
}

/// 3.1.2.2 (clerr): Content-Length beyond the datagram. Verdict: the available bytes are read, and the message is
/// marked as cut off.
#[test]
fn a_content_length_beyond_the_message() {
    let m = invite(PLAIN, &["Content-Length: 9999"], "v=0\r\n");
    let m = parse(&m);
    assert_eq!((m.body(), m.is_whole()), (&b"v=0\r\n"[..], false));
}

/// 3.1.2.3 (ncl): a negative Content-Length. Verdict: ignored.
#[test]
fn a_negative_content_length() {
    let m = invite(PLAIN, &["Content-Length: -999"], "v=0\r\n");
    assert_eq!(parse(&m).body(), b"v=0\r\n");
}

/// 3.1.2.4 and 3.1.2.5 (scalar02, scalarlg): numbers beyond 32 bits. Verdict: a bad CSeq makes the message useless.
/// Other such headers count as absent.
#[test]
fn overlarge_scalars() {
    let m = invite(
        PLAIN,
        &[
            "Max-Forwards: 300",
            "Expires: 1000000000000000000",
            "Min-SE: 4294967296",
            "RSeq: 99999999999",
            "RAck: 4294967296 1 INVITE",
            "Session-Expires: 18446744073709551616",
            "Content-Length: 00000000000000000000",
        ],
        "v=0\r\n",
    );
    let m = parse(&m);
    assert_eq!((m.min_se(), m.rseq(), m.rack(), m.session_expires()), (None, None, None, None));
    assert_eq!(m.body(), b"", "leading zeros are no size");
    for (start, cseq) in [(PLAIN, "36893488147419103232 INVITE"), ("SIP/2.0 503 No", "9292394834772304023312 OPTIONS")]
    {
        let m = invite(start, &["Retry-After: 949302838503028349304023988"], "").replace("1 INVITE", cseq);
        assert_eq!(error(&m), ParseError::Missing("CSeq"));
    }
}

/// 3.1.2.6 (quotbal): an unclosed quote. Verdict: it hides nothing.
#[test]
fn an_unterminated_quote() {
    let m = invite(PLAIN, &["Contact: \"Joe <sip:joe@example.org>;q=1"], "").replace("To: <", "To: \"Mr. <");
    let m = parse(&m);
    assert_eq!(
        (uri::uri_of(m.to()), m.contact_uri()),
        (&b"sip:user@example.com"[..], Some(&b"sip:joe@example.org"[..]))
    );
    assert_eq!(uri::uri_of(b"\"Mr <sip:a@b>;tag=1;x=\"y\""), b"sip:a@b", "not even if a parameter closes it");
}

/// 3.1.2.7 (ltgtruri): angle brackets around the request URI. Verdict: kept verbatim, but no SIP URI.
#[test]
fn angle_brackets_around_the_request_uri() {
    let m = invite("INVITE <sip:user@example.com> SIP/2.0", &[], "");
    assert_eq!(parse(&m).request_uri(), Some(&b"<sip:user@example.com>"[..]));
    assert_eq!(uri::user(b"<sip:user@example.com>"), None);
}

/// 3.1.2.8, 3.1.2.9 and 3.1.2.10 (lwsruri, lwsstart, trws): white space in and around the parts of the request line.
/// Verdict: the URI is everything between the method and the version.
#[test]
fn white_space_in_the_request_line() {
    for (line, uri) in [
        ("INVITE sip:user@example.com; lr SIP/2.0", "sip:user@example.com; lr"),
        ("INVITE  sip:user@example.com  SIP/2.0", "sip:user@example.com"),
        ("INVITE\tsip:user@example.com\tSIP/2.0", "sip:user@example.com"),
        ("INVITE sip:user@example.com SIP/2.0  ", "sip:user@example.com"),
        ("INVITE sip:user@example.com sip/2.0", "sip:user@example.com"),
    ] {
        assert_eq!(utf8(parse(&invite(line, &[], "")).request_uri().unwrap()), uri);
    }
}

/// 3.1.2.11 (escruri): headers in the request URI. Verdict: a part of the URI, readable on request.
#[test]
fn headers_in_the_request_uri() {
    let m = invite("INVITE sip:user@example.com?Route=%3Csip:example.com%3E&X SIP/2.0", &[], "");
    let uri = parse(&m).request_uri().unwrap().to_vec();
    assert_eq!(&*uri::unescaped(uri::uri_header(&uri, "route").unwrap()), b"<sip:example.com>");
    assert_eq!((uri::uri_header(&uri, "x"), uri::uri_header(&uri, "y")), (Some(&b""[..]), None));
    assert_eq!(uri::host_port(&uri), Some((&b"example.com"[..], None)));
}

/// 3.1.2.12 (baddate): a header without a use here. Verdict: kept.
#[test]
fn a_date_of_another_time_zone() {
    assert_eq!(
        parse(&invite(PLAIN, &["Date: Fri, 01 Jan 2010 16:00:00 EST"], "")).named("date"),
        Some(&b"Fri, 01 Jan 2010 16:00:00 EST"[..])
    );
}

/// 3.1.2.13 (regbadct): a URI with `?` or `,` that should be in brackets. Verdict: read up to the character that would
/// end a value.
#[test]
fn a_contact_that_lacks_its_brackets() {
    let m = invite(PLAIN, &["Contact: sip:user@example.com?Route=%3Csip:sip.example.com%3E"], "");
    assert_eq!(parse(&m).contact_uri(), Some(&b"sip:user@example.com?Route=%3Csip:sip.example.com%3E"[..]));
}

/// 3.1.2.14 (badaspec): spaces within the brackets. Verdict: outer spaces are trimmed, inner ones are kept.
#[test]
fn spaces_within_an_address() {
    let m = invite(PLAIN, &["Contact: < sip:t.watson@example.org >"], "")
        .replace("<sip:caller@example.net>", "\"Bell\" < sip:a. g.bell@example.com >");
    let m = parse(&m);
    assert_eq!((m.contact_uri(), m.from_tag()), (Some(&b"sip:t.watson@example.org"[..]), Some(&b"f1"[..])));
    assert_eq!(uri::uri_of(m.from()), b"sip:a. g.bell@example.com");
}

/// 3.1.2.15 (baddn): a display name with commas, semicolons or quotes in the middle. Verdict: the brackets mark the
/// URI.
#[test]
fn a_display_name_that_should_be_quoted() {
    for name in ["Bell, Alexander", "Bell; A", "Bell \"the\" A", "O'Bell (office)", "\"Bell\", \"A; <b>\"", "Caf\u{e9}"]
    {
        let m = invite(PLAIN, &[], "").replace("From: <", &format!("From: {name} <"));
        let m = parse(&m);
        assert_eq!((utf8(uri::uri_of(m.from())), m.from_tag()), ("sip:caller@example.net", Some(&b"f1"[..])), "{name}");
        assert_eq!(utf8(uri::name_addr(m.from()).display), name);
    }
}

/// 3.1.2.16 (badvers): another version. Verdict: not SIP.
#[test]
fn an_unknown_version() {
    for line in [
        "OPTIONS sip:t@example.org SIP/7.0",
        "OPTIONS sip:t@example.org SIP/2.00",
        "OPTIONS sip:t@example.org",
        "SIP/3.0 200 OK",
    ] {
        assert_eq!(error(&invite(line, &[], "")), ParseError::NotSip, "{line}");
    }
}

/// 3.1.2.17 and 3.1.2.18 (mismatch01, mismatch02): CSeq names another method. Verdict: the request line counts, and the
/// mismatch is reported.
#[test]
fn methods_that_disagree() {
    for (line, method) in [
        ("OPTIONS sip:user@example.com SIP/2.0", Method::Options),
        ("NEWMETHOD sip:user@example.com SIP/2.0", Method::Other),
    ] {
        let m = invite(line, &[], "");
        let m = parse(&m);
        assert_eq!((m.method(), m.cseq_method(), m.cseq_agrees()), (method, Method::Invite, false));
    }
    assert!(parse(&invite(PLAIN, &[], "")).cseq_agrees());
}

/// 3.1.2.19 (bigcode): a status code beyond three digits. Verdict: not SIP.
#[test]
fn an_overlarge_status_code() {
    for code in ["4294967301", "1000", "99", "-1", "2x0", ""] {
        assert_eq!(error(&invite(&format!("SIP/2.0 {code} better not"), &[], "")), ParseError::NotSip, "{code}");
    }
}

/// 3.2.1 (badbranch): a bare magic cookie as branch, or no branch. Verdict: read as written.
#[test]
fn a_branch_that_names_no_transaction() {
    for (via, branch) in
        [(";branch=z9hG4bK", Some("z9hG4bK")), (";branch=", Some("")), (";branch", None), (";rport", None), ("", None)]
    {
        let m = invite(PLAIN, &[&format!("Via: SIP/2.0/UDP 192.0.2.1{via}")], "");
        assert_eq!(parse(&m).branch().map(utf8), branch, "{via}");
    }
}

/// 3.3.1 (insuf): mandatory headers are missing. Verdict: Via and Max-Forwards are optional, the others are required.
#[test]
fn missing_headers() {
    assert!(parse(&invite(PLAIN, &[], "")).branch().is_none());
    for (gone, name) in REST.iter().zip(["From", "To", "Call-ID", "CSeq"]) {
        assert_eq!(error(&invite(PLAIN, &[], "").replace(gone, "X: y")), ParseError::Missing(name));
        let header = gone.split(':').next().unwrap();
        assert_eq!(error(&invite(PLAIN, &[], "").replace(gone, &format!("{header}: \t"))), ParseError::Missing(name));
    }
}

/// 3.3.2, 3.3.3 and 3.3.4 (unkscm, novelsc, unksm2): URIs of other schemes. Verdict: kept. Only known parts of `tel:`
/// are read.
#[test]
fn other_uri_schemes() {
    for (u, scheme, user) in [
        ("nobodyKnowsThisScheme:totallyopaquecontent", Some("nobodyKnowsThisScheme"), None),
        ("soap.beep://192.0.2.103:3002", Some("soap.beep"), None),
        ("name:John_Smith", Some("name"), None),
        ("http://www.example.com/a;b?c", Some("http"), None),
        ("im:user@example.com", Some("im"), None),
        ("urn:service:sos.fire", Some("urn"), None),
        ("tel:7042;phone-context=example.com", Some("tel"), Some("7042")),
        ("TEL:+49-30-1;isub=9", Some("TEL"), Some("+49-30-1")),
        ("isbn:2983792873", Some("isbn"), None),
        ("*", None, None),
        ("10.0.0.1:5060", None, None),
        (":x", None, None),
    ] {
        let m = invite(&format!("INVITE {u} SIP/2.0"), &[&format!("Contact: <{u}>")], "")
            .replace("<sip:user@example.com>", &format!("<{u}>"));
        let m = parse(&m);
        assert_eq!(m.request_uri(), Some(u.as_bytes()));
        assert_eq!(uri::uri_of(m.to()), u.as_bytes());
        assert_eq!((uri::scheme(u.as_bytes()).map(utf8), uri::user(u.as_bytes()).map(utf8)), (scheme, user), "{u}");
        assert_eq!(uri::host_port(u.as_bytes()), None, "{u}");
    }
}

/// 3.3.5 (bext01): unknown option tags. Verdict: listed.
#[test]
fn unknown_extensions() {
    let m = invite(
        PLAIN,
        &["Require: nothingSupportsThis, 100rel", "require:Timer", "Proxy-Require: noProxiesSupportThis"],
        "",
    );
    let m = parse(&m);
    assert_eq!(all(&m, Name::Require), ["nothingSupportsThis", "100rel", "Timer"]);
    assert!(
        m.lists(Name::Require, "timer")
            && m.lists(Name::ProxyRequire, "noproxiessupportthis")
            && !m.lists(Name::Require, "100")
    );
}

/// 3.3.6 and 3.3.15 (invut, sdp01): bodies that the receiver may refuse. Verdict: the body is kept. Only SDP is a
/// description.
#[test]
fn an_unknown_content_type() {
    use crate::sip::body::{Description, description};
    let m = invite(PLAIN, &["Content-Type: application/unknownformat", "Accept: text/nobodyKnowsThis"], "<audio/>");
    let m = parse(&m);
    assert_eq!((m.body(), description(&m)), (&b"<audio/>"[..], Description::None));
}

/// 3.3.7 (regaut01): an unknown authorization scheme. Verdict: kept.
#[test]
fn an_unknown_authorization_scheme() {
    let m = invite(PLAIN, &["Authorization: NoOneKnows opaque=\"x, y\""], "");
    assert_eq!(parse(&m).header(Name::Authorization), Some(&b"NoOneKnows opaque=\"x, y\""[..]));
}

/// 3.3.8 and 3.3.9 (multi01, mcl01): single-value headers that occur twice. Verdict: the first counts.
#[test]
fn single_headers_twice() {
    let m = invite(
        PLAIN,
        &[
            "Call-ID: second",
            "CSeq: 2 BYE",
            "f: <sip:other@h>;tag=f2",
            "t: <sip:other@h>;tag=t2",
            "Content-Type: text/plain",
            "c: application/sdp",
            "Content-Length: 3",
            "l: 5",
        ],
        "v=0\r\n",
    );
    let m = parse(&m);
    assert_eq!(
        (m.call_id(), m.cseq(), m.from_tag(), m.to_tag()),
        (&b"bad"[..], (1, &b"INVITE"[..]), Some(&b"f1"[..]), None)
    );
    assert_eq!((m.header(Name::ContentType), m.body()), (Some(&b"text/plain"[..]), &b"v=0"[..]));
}

/// 3.3.10 (bcast): a response with a broadcast address in its topmost Via. Verdict: read. A response is never answered.
#[test]
fn a_via_with_a_broadcast_address() {
    let m = invite(
        "SIP/2.0 200 OK",
        &[
            "Via: SIP/2.0/UDP 192.0.2.198;branch=z9hG4bK1324923",
            "Via: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bK1saber23",
        ],
        "",
    );
    assert_eq!((parse(&m).code(), parse(&m).branch()), (Some(200), Some(&b"z9hG4bK1324923"[..])));
}

/// 3.3.11 (zeromf): Max-Forwards 0. Verdict: an ordinary value.
#[test]
fn a_max_forwards_of_zero() {
    assert_eq!(parse(&invite(PLAIN, &["Max-Forwards: 0"], "")).header(Name::MaxForwards), Some(&b"0"[..]));
}

/// 3.3.12, 3.3.13 and 3.3.14 (cparam01, cparam02, regescrt): Contact parameters inside and outside the brackets, and
/// headers in the URI.
#[test]
fn parameters_of_a_contact() {
    let m = invite(
        PLAIN,
        &[
            "Contact: sip:+19725552222@gw1.example.net;unknownparam",
            "Contact: <sip:+19725552222@gw1.example.net;unknownparam>",
            "m: <sip:user@example.com?Route=%3Csip:sip.example.com%3E>;q=0.1, *",
        ],
        "",
    );
    let m = parse(&m);
    let contacts: Vec<_> =
        m.values(Name::Contact).map(|v| (utf8(uri::uri_of(v)), uri::param(v, "unknownparam").is_some())).collect();
    assert_eq!(
        contacts,
        [
            ("sip:+19725552222@gw1.example.net", true),
            ("sip:+19725552222@gw1.example.net;unknownparam", false),
            ("sip:user@example.com?Route=%3Csip:sip.example.com%3E", false),
            ("*", false)
        ]
    );
    assert_eq!(parse(&invite(PLAIN, &["Contact: *"], "")).contact_uri(), None);
}

/// Not in RFC 4475, but on real wires: a missing empty line, CR CR LF, no final line end, a tag without a value.
#[test]
fn what_else_is_on_the_wire() {
    let m = parse(
        &invite(PLAIN, &["Content-Type: application/sdp"], "v=0\r\no=- 1 1 IN IP4 h\r\n").replace("\r\n\r\n", "\r\n"),
    )
    .body()
    .to_vec();
    assert_eq!(m, b"v=0\r\no=- 1 1 IN IP4 h\r\n");
    let m = invite(PLAIN, &[], "body").replace("\r\n", "\r\r\n");
    assert_eq!((parse(&m).body(), parse(&m).call_id()), (&b"body"[..], &b"bad"[..]));
    let m = invite(PLAIN, &[], "").trim_end().to_owned();
    assert_eq!((parse(&m).cseq().0, parse(&m).is_whole()), (1, false));
    for tag in [";tag", ";tag=", ";tag=;x", "; TAG ="] {
        assert_eq!(parse(&invite(PLAIN, &[], "").replace(";tag=f1", tag)).from_tag(), None);
    }
    let m = invite(PLAIN, &[" X-Odd: a line that seems to go on with the start line"], "");
    assert_eq!(
        parse(&m).header(Name::CSeq),
        Some(&b"1 INVITE\r\n X-Odd: a line that seems to go on with the start line"[..])
    );
}
