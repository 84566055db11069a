//! Raw datagrams, sysctls, and the forward chains of other firewalls.

use keepcall::vip::rawudp::RawUdp;
use keepcall::vip::{nft, sysctl};
use lab::netns::{Lan, receive, stdout, uninterrupted};

#[test]
fn raw_datagrams_leave_from_a_port_that_another_socket_owns() {
    let lan = Lan::new(&["server", "phone"]);
    for (server, phone) in [("10.77.0.1:5060", "10.77.0.2:7000"), ("[fd77::1]:5060", "[fd77::2]:7000")] {
        let owner = lan.socket("server", server);
        let socket = lan.socket("phone", phone);
        let lengths = [0_usize, 1, 500, 1444, 1445, 1452, 1453, 1472, 1473, 4000, 65_507];
        lan.inside("server", move || {
            let raw = RawUdp::open("eth0").unwrap();
            let (from, to) = (server.parse().unwrap(), phone.parse().unwrap());
            for length in lengths {
                let payload: Vec<u8> = (0..length).map(|n| (n * 7) as u8).collect();
                raw.send(from, to, &payload).unwrap();
            }
            assert!(raw.send(from, to, &[0; 65_508]).is_err());
            let other = if from.is_ipv4() { "[fd77::2]:1" } else { "10.77.0.2:1" };
            assert!(raw.send(from, other.parse().unwrap(), b"x").is_err());
        });
        let mut buffer = vec![0; 70_000];
        for length in lengths {
            let (got, source) = uninterrupted(|| socket.recv_from(&mut buffer))
                .unwrap_or_else(|e| panic!("{length} bytes from {server}: {e}"));
            assert_eq!((got, source.to_string()), (length, server.to_owned()));
            assert!(
                buffer[..got].iter().enumerate().all(|(n, b)| *b == (n * 7) as u8),
                "{length} bytes are not the same"
            );
        }
        // The answer goes to the owner.
        socket.send_to(b"answer", server).unwrap();
        assert_eq!(receive(&owner), (phone.to_owned(), "answer".to_owned()));
    }
}

#[test]
fn sysctls_are_changed_once_and_told() {
    let lan = Lan::new(&["a"]);
    let (first, second) = lan.inside("a", || {
        let all = || [sysctl::for_address("eth0"), sysctl::for_relay("eth0")];
        (all(), all())
    });
    for done in first.iter().chain(&second) {
        assert!(done.errors.is_empty(), "{:?}", done.errors);
    }
    let told: Vec<String> = first.iter().flat_map(|d| &d.changes).map(ToString::to_string).collect();
    assert!(told.contains(&"net/ipv4/ip_nonlocal_bind: 0 -> 1".to_owned()), "{told:?}");
    assert!(told.contains(&"net/ipv4/conf/eth0/forwarding: 0 -> 1".to_owned()), "{told:?}");
    assert!(second.iter().all(|d| d.changes.is_empty()), "{second:?}");
    assert_eq!(
        stdout(&lan.exec("a", "cat /proc/sys/net/ipv4/ip_forward")).trim(),
        "0",
        "other interfaces forward, too"
    );
    lan.inside("a", || std::net::UdpSocket::bind("10.77.0.99:5060").unwrap());
}

#[test]
fn nfts_own_words_reach_the_operator() {
    let lan = Lan::new(&["a"]);
    let error =
        lan.block_on("a", || async { nft::run("the test", "add table inet \"\n").await.unwrap_err().to_string() });
    assert!(error.contains("the test") && error.contains("syntax error"), "{error}");
}

#[test]
fn an_interface_that_cannot_announce_is_told_by_the_check_of_the_configuration() {
    use keepcall::config::{Files, parse};
    let lan = Lan::new(&["a"]);
    lan.ip("a", "tuntap add dev tun0 mode tun");
    let warnings = lan.inside("a", || {
        let text = "[node]\nname = \"a\"\naddress = \"10.77.0.1\"\nkey_file = \"/dev/null\"\n[etcd]\nendpoints = [\"http://h:1\"]\n\
                    [[instance]]\nname = \"i\"\ninterface = \"INTERFACE\"\naddresses = [\"10.77.0.9/24\"]\n";
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        std::fs::write(&key, b"0123456789abcdef0123456789abcdef").unwrap();
        ["eth0", "tun0", "tun1"].map(|interface| {
            let text = text.replace("INTERFACE", interface).replace("/dev/null", key.to_str().unwrap());
            let loaded = parse(&text, "x", Files::Check).unwrap_or_else(|e| panic!("{e}"));
            loaded.warnings.iter().map(|w| w.message.clone()).collect::<Vec<_>>().join("\n")
        })
    });
    assert!(!warnings[0].contains("interface") && !warnings[0].contains("does not have"), "{warnings:?}");
    assert!(warnings[1].contains("cannot announce addresses on tun0"), "{warnings:?}");
    assert!(warnings[2].contains("there is no interface tun1; there are: "), "{warnings:?}");
}
