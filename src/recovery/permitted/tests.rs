use super::*;

fn flow(to: &str) -> Flow {
    let a = |s: &str| s.parse().unwrap();
    Flow { from: a("10.0.0.1:4000"), at: a("10.0.0.9:10000"), to: a(to), source: a("10.0.0.9:10002"), udptl: false }
}

fn ground() -> Ground {
    Ground {
        vips: vec!["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap(), "169.254.0.9".parse().unwrap()],
        media_ports: (10_000, 20_000),
        sip_ports: vec![5080, 5070],
        own: vec!["10.0.0.5".parse().unwrap(), "2001:db8::5".parse().unwrap()],
        external: false,
        ..Ground::default()
    }
}

#[test]
fn only_a_phones_audio_is_a_destination() {
    let place = |s: &str| s.parse::<SocketAddr>().unwrap();
    let nowhere = |s: &str| Refusal::Nowhere(place(s));
    for (to, refusal) in [
        // The actual attack: another host's SIP port.
        ("10.0.0.2:5060", Refusal::Sip(place("10.0.0.2:5060"))),
        ("10.0.0.2:5061", Refusal::Sip(place("10.0.0.2:5061"))),
        ("10.0.0.2:5080", Refusal::Sip(place("10.0.0.2:5080"))),
        ("10.0.0.2:5070", Refusal::Sip(place("10.0.0.2:5070"))),
        ("10.0.0.2:53", Refusal::Service(place("10.0.0.2:53"))),
        ("10.0.0.2:161", Refusal::Service(place("10.0.0.2:161"))),
        ("10.0.0.2:1023", Refusal::Service(place("10.0.0.2:1023"))),
        ("10.0.0.9:4000", Refusal::ThisHost("10.0.0.9".parse().unwrap())),
        ("10.0.0.5:4000", Refusal::ThisHost("10.0.0.5".parse().unwrap())),
        ("127.0.0.1:4000", nowhere("127.0.0.1:4000")),
        ("127.9.9.9:4000", nowhere("127.9.9.9:4000")),
        ("224.0.0.251:4000", nowhere("224.0.0.251:4000")),
        ("255.255.255.255:4000", nowhere("255.255.255.255:4000")),
        ("240.0.0.1:4000", nowhere("240.0.0.1:4000")),
        ("0.0.0.0:4000", nowhere("0.0.0.0:4000")),
        ("0.1.2.3:4000", nowhere("0.1.2.3:4000")),
        ("10.0.0.2:0", nowhere("10.0.0.2:0")),
        ("169.254.1.1:4000", nowhere("169.254.1.1:4000")),
        ("[2001:db8::2]:4000", Refusal::Families),
    ] {
        assert_eq!(ground().permits(&flow(to)), Err(refusal), "{to}");
    }
    for to in ["10.0.0.2:4000", "203.0.113.9:1024", "10.0.0.2:65535"] {
        assert_eq!(ground().permits(&flow(to)), Ok(()), "{to}");
    }
}

#[test]
fn the_same_holds_for_ipv6() {
    let v6 = |to: &str| {
        let a = |s: &str| s.parse().unwrap();
        Flow {
            from: a("[fd00::1]:4000"),
            at: a("[fd00::9]:10000"),
            to: a(to),
            source: a("[fd00::9]:10002"),
            udptl: false,
        }
    };
    for to in ["[::1]:4000", "[ff02::1]:4000", "[::]:4000", "[fe80::1]:4000", "[::ffff:10.0.0.2]:4000"] {
        assert!(matches!(ground().permits(&v6(to)), Err(Refusal::Nowhere(_))), "{to}");
    }
    assert!(matches!(ground().permits(&v6("[2001:db8::5]:4000")), Err(Refusal::ThisHost(_))));
    assert!(matches!(ground().permits(&v6("[fd00::2]:5060")), Err(Refusal::Sip(_))));
    assert_eq!(ground().permits(&v6("[fd00::2]:4000")), Ok(()));
}

#[test]
fn the_servers_side_is_a_virtual_address_and_a_media_port() {
    let ours = |at: &str, source: &str| {
        let plain = flow("10.0.0.2:4000");
        ground().permits(&Flow { at: at.parse().unwrap(), source: source.parse().unwrap(), ..plain })
    };
    assert_eq!(ours("10.0.0.8:10000", "10.0.0.9:10002"), Err(Refusal::NotOurs));
    assert_eq!(ours("10.0.0.9:10000", "10.0.0.5:10002"), Err(Refusal::NotOurs));
    for port in [5060, 9999, 20_002] {
        assert_eq!(ours(&format!("10.0.0.9:{port}"), "10.0.0.9:10002"), Err(Refusal::NotMediaPort(port)));
        assert_eq!(ours("10.0.0.9:10002", &format!("10.0.0.9:{port}")), Err(Refusal::NotMediaPort(port)));
    }
    // The RTCP of the last port.
    assert_eq!(ours("10.0.0.9:20001", "10.0.0.9:10002"), Ok(()));
    // A media range that contains the recovery port.
    let within = Ground { sip_ports: vec![10_000], ..ground() };
    assert_eq!(within.permits(&flow("10.0.0.2:4000")), Err(Refusal::NotMediaPort(10_000)));
}

#[test]
fn a_link_of_link_local_addresses_is_a_lan_like_others() {
    let a = |s: &str| s.parse().unwrap();
    let all = Flow {
        from: a("169.254.0.1:4000"),
        at: a("169.254.0.9:10000"),
        to: a("169.254.0.2:4000"),
        source: a("169.254.0.9:10002"),
        udptl: false,
    };
    assert_eq!(ground().permits(&all), Ok(()));
}
