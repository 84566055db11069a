//! RFC 4475 section 3.1.1: odd but valid.

use super::*;
use crate::sip::body::{Description, description};

/// 3.1.1.1 (wsinv): folds, compact and odd-case names, white space in every allowed place, empty and unknown headers.
#[test]
fn a_short_tortuous_invite() {
    let m = "INVITE sip:vera@hall.example.com;unknown SIP/2.0\r\n\
             TO :\r\n sip:vera@hall.example.com ;  tag  =  88t\r\n\
             fRoM   : \"W. \\\\ \\\"Cap\\\" Reed\"  <sip:reed@hall.example.com>\r\n  ;\r\n  tag = 7a6\r\n\
             max-FORWARDS:    0041\r\n\
             I: torture-1\r\n\
             cSEQ: 0007\r\n  INVITE\r\n\
             vIA  : SIP  /   2.0\r\n /UDP\r\n    10.1.2.3;branch=390skdjuw\r\n\
             s :\r\n\
             UnheardOf:\t a value ;;,, ;, with commas\r\n\
             contenT-tyPE  : application / SDP\r\n\
             V:  SIP  / 2.0  / TCP     edge.example.com   ;\r\n  branch  =   z9hG4bKw9,\r\n SIP  /    2.0   / UDP  10.9.9.9 : 5080 ; branch= z9hG4bKw8\r\n\
             roUTE:\r\n <sip:one.example.com;lr;unknown=\"a,b\">,\r\n  <sip:two.example.com;lr>\r\n\
             m:\"Any \\\"<sip:none>\\\"\" <sip:reed@10.1.2.3>  ;newparam = newvalue ;\r\n  second; q = 0.44\r\n\
             conTENT-lenGTH:    4\r\n\r\nv=0\n";
    let m = parse(m);
    assert_eq!((m.method(), m.cseq(), utf8(m.call_id())), (Method::Invite, (7, &b"INVITE"[..]), "torture-1"));
    assert_eq!((m.from_tag(), m.to_tag()), (Some(&b"7a6"[..]), Some(&b"88t"[..])));
    assert_eq!(utf8(uri::uri_of(m.from())), "sip:reed@hall.example.com");
    assert_eq!(utf8(uri::name_addr(m.from()).display), r#""W. \\ \"Cap\" Reed""#);
    assert_eq!(utf8(uri::uri_of(m.to())), "sip:vera@hall.example.com");
    assert_eq!(m.branch(), Some(&b"390skdjuw"[..]));
    let vias: Vec<_> =
        m.values(Name::Via).map(|v| uri::via(v).unwrap()).map(|v| (utf8(v.transport), utf8(v.host), v.port)).collect();
    assert_eq!(vias, [("UDP", "10.1.2.3", None), ("TCP", "edge.example.com", None), ("UDP", "10.9.9.9", Some(5080))]);
    assert_eq!(all(&m, Name::Route), ["<sip:one.example.com;lr;unknown=\"a,b\">", "<sip:two.example.com;lr>"]);
    assert_eq!(m.contact_uri(), Some(&b"sip:reed@10.1.2.3"[..]));
    assert_eq!(uri::param(m.header(Name::Contact).unwrap(), "q"), Some(&b"0.44"[..]));
    assert_eq!((m.header(Name::Subject), m.header(Name::MaxForwards)), (Some(&b""[..]), Some(&b"0041"[..])));
    assert_eq!(m.named("unheardof"), Some(&b"a value ;;,, ;, with commas"[..]));
    assert_eq!(description(&m), Description::Sdp(b"v=0\n"));
    assert!(m.is_whole());
}

/// 3.1.1.2 (intmeth): every token character, in method, header names, tags and URIs.
#[test]
fn a_wide_range_of_valid_characters() {
    let method = "!aZ09-.%*_+`'~";
    let uri = "sip:1_x:&=+$,;?/.!~*'()%40@example.com:5070;unknown-_.!~*'()[]/:&+$=x?hdr=%20-_.!~*'()[]/?:+$";
    let m = text(
        &[
            &format!("{method} {uri} SIP/2.0"),
            "Via: SIP/2.0/TLS h.example.com;branch=z9hG4bK-.!%66*_+`'~",
            "To: \"\u{7f}\u{1} \u{442}\\\"\u{e9}\\\\ @<>;,\" <sip:1_x@example.com>",
            "From: token1~` token2'+_ token3*%!.- <sip:mundane@example.com>;fromParam''~+*_!.-%=\"\u{440}a\";tag=_token~1'+`*%!-.",
            "Call-ID: i%nt.\"<>:\\/{}[]?'+*~`!@x",
            &format!("CSeq: 139122385 {method}"),
            "extension!Header-.%*+_`'~: \u{441}\u{442}",
        ],
        "",
    );
    let m = parse(&m);
    assert_eq!(m.start(), Start::Request { method: Method::Other, name: method.as_bytes(), uri: uri.as_bytes() });
    assert!(m.cseq_agrees());
    assert_eq!(m.from_tag(), Some(&b"_token~1'+`*%!-."[..]));
    assert_eq!(m.branch(), Some(&b"z9hG4bK-.!%66*_+`'~"[..]));
    assert_eq!(utf8(m.call_id()), "i%nt.\"<>:\\/{}[]?'+*~`!@x");
    assert_eq!(utf8(uri::uri_of(m.to())), "sip:1_x@example.com");
    assert_eq!(m.named("EXTENSION!header-.%*+_`'~"), Some("\u{441}\u{442}".as_bytes()));
    assert_eq!(uri::user(uri.as_bytes()), Some(&b"1_x"[..]));
    assert_eq!(uri::host_port(uri.as_bytes()), Some((&b"example.com"[..], Some(5070))));
}

/// 3.1.1.3 and 3.1.1.4 (esc01, escnull): escapes, also of NUL, in user parts and parameters.
#[test]
fn valid_escapes_are_kept_and_can_be_read() {
    let m = text(
        &[
            "INVITE sip:sips%3Auser%40example.com@example.net SIP/2.0",
            "To: sip:%75se%72@example.com",
            "From: <sip:I%20have%20spaces%00and%ff@example.net>;tag=938",
            "Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKe",
            "Call-ID: esc",
            "CSeq: 1 INVITE",
            "Contact: <sip:caller@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31>",
        ],
        "",
    );
    let m = parse(&m);
    let user = |u| uri::unescaped(uri::user(u).unwrap()).into_owned();
    assert_eq!(user(m.request_uri().unwrap()), b"sips:user@example.com");
    assert_eq!(user(uri::uri_of(m.to())), b"user");
    assert_eq!(user(uri::uri_of(m.from())), b"I have spaces\0and\xff");
    assert_eq!(
        utf8(uri::user(uri::uri_of(m.from())).unwrap()),
        "I%20have%20spaces%00and%ff",
        "what goes back is verbatim"
    );
    let contact = m.contact_uri().unwrap();
    assert_eq!(&*uri::unescaped(uri::uri_param(contact, "n%61me").unwrap()), b"value%41", "unescaped once, not twice");
    assert_eq!(uri::uri_param(contact, "lr"), None, "the name of a parameter is compared as it stands");
}

/// 3.1.1.5 (esc02): a percent sign that is no escape, as in method names.
#[test]
fn a_percent_sign_that_is_no_escape() {
    let m = text(
        &[
            "RE%47IST%45R sip:registrar.example.com SIP/2.0",
            "To: \"%Z%45\" <sip:resource@example.com>",
            "From: \"%Z%45\" <sip:100%@example.com>;tag=f232jadfj23",
            "Call-ID: esc02.asdf%45@h",
            "CSeq: 29 RE%47IST%45R",
            "Contact: <sip:x@h.example.com>",
        ],
        "",
    );
    let m = parse(&m);
    assert_eq!(m.method(), Method::Other, "it is not REGISTER");
    assert_eq!(&*uri::unescaped(uri::user(uri::uri_of(m.from())).unwrap()), b"100%");
    for (coded, plain) in [("%", "%"), ("a%4", "a%4"), ("%%41%", "%A%"), ("%4g%41", "%4gA"), ("", "")] {
        assert_eq!(utf8(&uri::unescaped(coded.as_bytes())), plain);
    }
}

/// 3.1.1.6 (lwsdisp): no white space between display name and `<`.
#[test]
fn no_space_before_the_angle_bracket() {
    let m = text(
        &[
            "OPTIONS sip:user@example.com SIP/2.0",
            "t:caller<sip:u@example.com>",
            "f:\"c\"<sip:c@h>;tag=3",
            "i:l",
            "CSeq:6 OPTIONS",
        ],
        "",
    );
    let m = parse(&m);
    assert_eq!(uri::name_addr(m.to()).display, b"caller");
    assert_eq!(
        (uri::uri_of(m.to()), uri::uri_of(m.from()), m.from_tag()),
        (&b"sip:u@example.com"[..], &b"sip:c@h"[..], Some(&b"3"[..]))
    );
}

/// 3.1.1.7 (longreq): many long values.
#[test]
fn long_values() {
    let long = "long".repeat(120);
    let vias: Vec<String> =
        (0..33).map(|i| format!("Via: SIP/2.0/TCP sip{i}.example.com;branch=z9hG4bK{i}{long}")).collect();
    let uri = format!("sip:user{long}@example.com");
    let (start, to) = (format!("INVITE {uri};p{long}=v SIP/2.0"), format!("To: \"{long} {long}\" <{uri}>;tag={long}"));
    let (from, call) = (format!("F: sip:caller@{long}.example.net;tag=12{long}982424"), format!("Call-ID: {long}"));
    let (unknown, contact) = (format!("U{long}: {long}"), format!("Contact: <sip:{long}@h.example.com>"));
    let mut lines = vec![start.as_str(), &to, &from, &call, "CSeq: 3882340 INVITE", &unknown, &contact];
    lines.extend(vias.iter().map(String::as_str));
    let m = text(&lines, "v=0\r\n");
    let m = parse(&m);
    assert_eq!((m.to_tag().unwrap().len(), m.from_tag().unwrap().len()), (480, 488));
    assert_eq!((m.values(Name::Via).count(), m.all().count()), (33, 39));
    assert_eq!(m.values(Name::Via).last().unwrap().len(), vias[32].len() - 5);
    assert_eq!(m.named(&format!("u{long}")), Some(long.as_bytes()));
    assert_eq!(m.body(), b"v=0\r\n");
}

/// 3.1.1.8 (dblreq): bytes behind the body in a datagram, here another message, are not part of the message.
#[test]
fn extra_octets_in_a_datagram() {
    let first = text(
        &[
            "REGISTER sip:example.com SIP/2.0",
            "To: sip:j.user@example.com",
            "From: sip:j.user@example.com;tag=43251j3j324",
            "Max-Forwards: 8",
            "I: dblreq",
            "CSeq: 8 REGISTER",
            "Content-Length: 0",
        ],
        "",
    );
    let both = first.clone() + &first.replace("dblreq", "second").replace("REGISTER", "INVITE");
    let m = parse(&both);
    assert_eq!((m.call_id(), m.method(), m.body()), (&b"dblreq"[..], Method::Register, &b""[..]));
    assert_eq!(m.all().count(), parse(&first).all().count());
}

/// 3.1.1.9 (semiuri): semicolons in the user part belong to the user part.
#[test]
fn semicolons_in_the_user_part() {
    let uri = b"sip:user;par=u%40example.net@example.com";
    assert_eq!(uri::host_port(uri), Some((&b"example.com"[..], None)));
    assert_eq!(uri::uri_param(uri, "par"), None);
    // Telephone numbers have parameters there. The number alone identifies the party.
    assert_eq!(uri::user(uri), Some(&b"user"[..]));
}

/// 3.1.1.10 (transports): known and unknown transports in Via.
#[test]
fn varied_transports() {
    let m = text(
        &[
            "OPTIONS sip:user@example.com SIP/2.0",
            "To: sip:user@example.com",
            "From: <sip:caller@example.com>;tag=323",
            "Call-ID: transports",
            "CSeq: 60 OPTIONS",
            "Via: SIP/2.0/UDP t1.example.com;branch=z9hG4bKa1, SIP/2.0/SCTP t2.example.com;branch=z9hG4bKa2",
            "Via: SIP/2.0/WSS t3.invalid;branch=z9hG4bKa3",
            "v: SIP/2.0/UNKNOWN t4.example.com:9;branch=z9hG4bKa4",
        ],
        "",
    );
    let m = parse(&m);
    let seen: Vec<_> = m
        .values(Name::Via)
        .map(|v| uri::via(v).unwrap())
        .map(|v| (utf8(v.transport), utf8(v.param("branch").unwrap())))
        .collect();
    assert_eq!(seen, [("UDP", "z9hG4bKa1"), ("SCTP", "z9hG4bKa2"), ("WSS", "z9hG4bKa3"), ("UNKNOWN", "z9hG4bKa4")]);
}

/// 3.1.1.11 (mpart01): a multipart body with binary parts and a boundary that is not UTF-8.
#[test]
fn a_multipart_body_with_binary_parts() {
    let mut m = text(
        &[
            "MESSAGE sip:k@example.org SIP/2.0",
            "f: <sip:u@example.org>;tag=1",
            "t: <sip:k@example.org>",
            "i: mp",
            "CSeq: 1 MESSAGE",
            "Content-Type: multipart/mixed;boundary=\"7a\u{e9}b\"",
        ],
        "",
    )
    .into_bytes();
    m.extend_from_slice(
        "--7a\u{e9}b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n".as_bytes(),
    );
    m.extend_from_slice(b"\x00\xff\r\n--not it\r\nv=0\r\n\x80");
    m.extend_from_slice(
        "\r\n--7a\u{e9}b\r\nc:application/sdp\r\n\r\nv=0\r\ns=x\r\n--7a\u{e9}b--\r\nepilogue".as_bytes(),
    );
    let parsed = Message::parse(&m).unwrap();
    assert_eq!(description(&parsed), Description::Sdp(b"v=0\r\ns=x\r\n"));
}

/// 3.1.1.12 (unreason): a reason phrase in UTF-8 with characters that are special elsewhere.
#[test]
fn an_unusual_reason_phrase() {
    let reason = "= 2**3 * 5 \u{43d}\u{43e} \"SIP/2.0\" <x>: \\";
    let m = text(
        &[&format!("SIP/2.0 200 {reason}"), "f: <sip:a>;tag=1", "t: <sip:b>;tag=2", "i: u", "CSeq: 35 INVITE"],
        "",
    );
    assert_eq!(parse(&m).start(), Start::Response { code: 200, reason: reason.as_bytes() });
}

/// 3.1.1.13 (noreason): an empty reason phrase, with and without the space before it.
#[test]
fn an_empty_reason_phrase() {
    for first in ["SIP/2.0 100 ", "SIP/2.0 100"] {
        let m = text(&[first, "f: <sip:a>;tag=1", "t: <sip:b>", "i: u", "CSeq: 35 INVITE"], "");
        assert_eq!(parse(&m).start(), Start::Response { code: 100, reason: b"" });
    }
}

/// 3.4.1 (inv2543): an RFC 2543 request: no branch, no tag, no Max-Forwards, header parameters without brackets.
#[test]
fn an_invite_of_rfc_2543() {
    let m = text(
        &[
            "INVITE sip:uas@example.com SIP/2.0",
            "Via: SIP/2.0/UDP client.example.com",
            "From: sip:caller@example.net",
            "To: sip:uas@example.com",
            "Call-ID: inv2543",
            "CSeq: 8 INVITE",
            "Record-Route: sip:proxy.example.com",
            "Content-Type: application/sdp",
        ],
        "v=0\r\n",
    );
    let m = parse(&m);
    assert_eq!((m.from_tag(), m.to_tag(), m.branch(), m.contact_uri()), (None, None, None, None));
    assert_eq!(all(&m, Name::RecordRoute), ["sip:proxy.example.com"]);
    assert_eq!(m.body(), b"v=0\r\n");
}
