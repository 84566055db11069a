use super::*;

#[test]
fn a_name_that_could_leave_its_quotes_is_no_interface() {
    for name in [
        "",
        "eth0\"; drop",
        "eth0\";drop",
        "a\\",
        "eth*",
        "a b",
        "a\tb",
        "a\0",
        "a/b",
        "a:1",
        "eth0@if3",
        "eth%d",
        ".",
        "..",
        "all",
        "default",
        "sixteen-bytes-..",
        "é234567890123456",
        "'a'",
    ] {
        assert!(interface(name).is_some(), "{name:?} is accepted");
    }
    for name in ["eth0", "eth0.100", "br-lan", "wg_0", "enp0s31f6", "fifteen-bytes-1", "büro", "lo", "a+b"] {
        assert_eq!(interface(name), None, "{name:?}");
    }
}

#[test]
fn an_address_that_no_host_can_have_is_refused() {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    for (text, word) in [
        ("192.0.2.5/0", "whole Internet"),
        ("2001:db8::1/0", "whole Internet"),
        ("0.0.0.0/0", "unspecified"),
        ("::/0", "unspecified"),
        ("0.1.2.3/24", "0.0.0.0/8"),
        ("127.0.0.2/32", "loopback"),
        ("::ffff:192.0.2.1/128", "notation of IPv6"),
        ("239.1.1.1/32", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("10.0.0.255/24", "broadcast"),
        ("10.0.0.0/24", "network address"),
    ] {
        assert!(unusable(net(text)).is_some_and(|(why, _)| why.contains(word)), "{text}");
    }
    for text in ["10.0.0.0/31", "10.0.0.1/32", "2001:db8::/127", "10.0.0.1/8", "fe80::1/64"] {
        assert_eq!(unusable(net(text)), None);
    }
    assert!(doubtful(net("10.0.0.1/7")).is_some() && doubtful(net("10.0.0.1/8")).is_none());
    assert!(doubtful(net("2001:db8::1/15")).is_some() && doubtful(net("2001:db8::1/16")).is_none());
    assert!(no_calls("fe80::1".parse().unwrap()).is_some() && no_calls("2001:db8::1".parse().unwrap()).is_none());
}
