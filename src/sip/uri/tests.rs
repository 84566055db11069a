use super::*;
use proptest::prelude::*;

#[test]
fn finds_the_parts_of_a_name_addr() {
    let n = name_addr(
        br#" "A \"x\" <sip:evil@h>; tag=no" <sip:bob@[2001:db8::1]:5070;lr;transport=udp>;x="a;tag=b" ; Tag = 9z "#,
    );
    assert_eq!(n.display, br#""A \"x\" <sip:evil@h>; tag=no""#);
    assert_eq!(n.uri, b"sip:bob@[2001:db8::1]:5070;lr;transport=udp");
    assert_eq!(parts::find_param(n.params, "tag"), Some(&b"9z"[..]));
    assert_eq!(parts::find_param(n.params, "lr"), None);
}

#[test]
fn without_brackets_parameters_belong_to_the_header() {
    assert_eq!(uri_of(b"sip:a@b;tag=1"), b"sip:a@b");
    assert_eq!(tag_of(b"sip:a@b;tag=1"), Some(&b"1"[..]));
    assert_eq!(tag_of(b"<sip:a@b;tag=1>"), None);
    assert_eq!(tag_of(b"<sip:a@b>;tag="), None);
    assert_eq!(param(b"1800;refresher=uac", "refresher"), Some(&b"uac"[..]));
    assert_eq!(param(b"SIP/2.0/UDP [::1]:5060;rport;branch=z9hG4bKx", "branch"), Some(&b"z9hG4bKx"[..]));
    assert_eq!(param(b"SIP/2.0/UDP h;rport;branch=z", "rport"), Some(&b""[..]));
}

#[test]
fn a_stray_quote_hides_nothing() {
    assert_eq!(tag_of(b"Bob \" <sip:b@h>;tag=7"), Some(&b"7"[..]));
    assert_eq!(uri_of(b"Bob \" <sip:b@h>;tag=7"), b"sip:b@h");
}

#[test]
fn host_port_and_user_of_uris() {
    type Case = (&'static str, Option<(&'static str, Option<u16>)>, Option<&'static str>);
    let cases: [Case; 14] = [
        ("sip:bob@example.org", Some(("example.org", None)), Some("bob")),
        ("SIP:bob:secret@10.0.0.1:5070;lr?Subject=x", Some(("10.0.0.1", Some(5070))), Some("bob")),
        ("sips:[fe80::1]:5061", Some(("fe80::1", Some(5061))), None),
        ("sip:+49;phone-context=x.y@h;user=phone", Some(("h", None)), Some("+49")),
        ("sip:h:99999", Some(("h", None)), None),
        ("tel:+1-201-555;phone-context=a", None, Some("+1-201-555")),
        ("urn:service:sos", None, None),
        ("sip:", None, None),
        ("sip:@h", Some(("h", None)), None),
        ("sip:a@", None, Some("a")),
        ("sip:a@[::1", None, Some("a")),
        ("sip:a@[::?1]", None, Some("a")),
        ("sip:a@[fe80::1%25eth0]:1", Some(("fe80::1%25eth0", Some(1))), Some("a")),
        ("", None, None),
    ];
    for (uri, host, name) in cases {
        assert_eq!(host_port(uri.as_bytes()), host.map(|(h, p)| (h.as_bytes(), p)), "{uri}");
        assert_eq!(user(uri.as_bytes()), name.map(str::as_bytes), "{uri}");
    }
}

#[test]
fn uri_parameters_are_those_behind_the_host() {
    assert_eq!(uri_param(b"sip:h;lr", "LR"), Some(&b""[..]));
    assert_eq!(uri_param(b"sip:a;lr@h", "lr"), None);
    assert_eq!(uri_param(b"sip:h;transport=tcp?lr=1;lr", "transport"), Some(&b"tcp"[..]));
    assert_eq!(uri_param(b"sip:h?a=b;lr", "lr"), None);
}

#[test]
fn headers_of_a_uri_are_not_in_its_user_part() {
    assert_eq!(without_headers(b"sip:a?b@h;x=1?q=1&r=2"), b"sip:a?b@h;x=1");
    assert_eq!(without_headers(b"sip:a?b@h"), b"sip:a?b@h");
    assert_eq!(without_headers(b"tel:1?x"), b"tel:1");
    assert_eq!(uri_header(b"sip:a?b@h?Q=1&r=2&s", "r"), Some(&b"2"[..]));
    assert_eq!(uri_header(b"sip:a?b@h", "b"), None);
}

#[test]
fn splits_values_at_commas_that_separate() {
    let all = |s: &'static [u8]| split_values(s).map(|v| String::from_utf8_lossy(v).into_owned()).collect::<Vec<_>>();
    assert_eq!(all(b"<sip:a,b@h;lr>, \"x, y\" <sip:c>,,<sip:d>"), ["<sip:a,b@h;lr>", "\"x, y\" <sip:c>", "<sip:d>"]);
    assert_eq!(all(b" , ,"), Vec::<String>::new());
    assert_eq!(all(b"<sip:a, b"), ["<sip:a", "b"]);
}

proptest! {
    #[test]
    fn never_panics(text in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(b"<>\"\\;,=:@[]? ".to_vec())], 0..60)) {
        let n = name_addr(&text);
        let _ = (host_port(n.uri), user(n.uri), uri_param(n.uri, "lr"), param(&text, "tag"), sent_by(&text));
        for v in split_values(&text) {
            prop_assert!(!v.is_empty());
        }
    }
}
