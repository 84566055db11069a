//! Addresses, announcements, fence and raw UDP, on real interfaces.
use ipnet::IpNet;
use keepcall::vip::address::{AddressError, AddressEvent, AddressMonitor, Addresses, LIFETIME};
use keepcall::vip::announce::{Announcer, Pace};
use keepcall::vip::fence::{Fence, FenceState};
use keepcall::vip::rawudp::RawUdp;
use keepcall::vip::{nft, sysctl};
use lab::netns::{LONG, Lan, receive, silent, stdout, uninterrupted, until};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Long enough for a packet on a virtual wire; used where none may come.
const QUIET: Duration = Duration::from_millis(300);

fn vips() -> Vec<IpNet> {
    vec!["10.77.0.9/24".parse().unwrap(), "10.77.0.10/32".parse().unwrap(), "fd77::9/64".parse().unwrap()]
}

fn ips() -> Vec<IpAddr> {
    vips().iter().map(IpNet::addr).collect()
}

fn bare(prefixes: &[IpNet]) -> Vec<IpAddr> {
    prefixes.iter().map(IpNet::addr).collect()
}

#[test]
fn addresses_come_and_go_many_times() {
    let lan = Lan::new(&["a"]);
    let shown = |lan: &Lan| {
        let json: serde_json::Value = serde_json::from_str(&lan.ip("a", "-j addr show dev eth0")).unwrap();
        let all = json[0]["addr_info"].as_array().unwrap().clone();
        vips()
            .iter()
            .filter(|v| all.iter().any(|a| a["local"] == v.addr().to_string() && a["prefixlen"] == v.prefix_len()))
            .count()
    };
    for _ in 0..3 {
        lan.block_on("a", || async {
            let addresses = Addresses::open().unwrap();
            addresses.add("eth0", &vips()).await.unwrap();
            addresses.add("eth0", &vips()).await.unwrap();
            assert_eq!(addresses.present("eth0", &bare(&vips())).await.unwrap(), vips());
        });
        assert_eq!(shown(&lan), 3);
        // Usable at once: no duplicate address detection.
        assert!(!lan.ip("a", "-6 addr show dev eth0 tentative").contains("fd77::9"));
        lan.inside("a", || std::net::UdpSocket::bind("[fd77::9]:5060").unwrap());
        lan.block_on("a", || async {
            let addresses = Addresses::open().unwrap();
            addresses.remove("eth0", &vips()).await.unwrap();
            addresses.remove("eth0", &vips()).await.unwrap();
            assert_eq!(addresses.present("eth0", &bare(&vips())).await.unwrap(), vec![]);
        });
        assert_eq!(shown(&lan), 0);
    }
    assert!(lan.ip("a", "addr show dev eth0").contains("10.77.0.1/24"), "the host's own address is gone");
}

#[test]
fn only_stale_addresses_of_ours_are_removed_at_start() {
    let lan = Lan::new(&["a"]);
    lan.ip("a", "addr add 10.77.0.77/24 dev eth0");
    let removed = lan.block_on("a", || async {
        let addresses = Addresses::open().unwrap();
        addresses.add("eth0", &vips()).await.unwrap();
        addresses.remove_stale(&[("eth0", vips()[0])]).await.unwrap()
    });
    assert_eq!(removed, vec![("eth0".to_owned(), vips()[1]), ("eth0".to_owned(), vips()[2])]);
    let left = lan.ip("a", "addr show dev eth0");
    for kept in ["10.77.0.9/24", "10.77.0.77/24", "10.77.0.1/24", "fd77::1/64"] {
        assert!(left.contains(kept), "{kept} is gone: {left}");
    }
}

#[test]
fn removing_one_address_leaves_another_of_the_same_subnet() {
    let lan = Lan::new(&["a"]);
    let two: Vec<IpNet> = vec!["10.99.0.1/24".parse().unwrap(), "10.99.0.2/24".parse().unwrap()];
    lan.block_on("a", || async move {
        assert!(sysctl::for_address("eth0").errors.is_empty());
        let addresses = Addresses::open().unwrap();
        addresses.add("eth0", &two).await.unwrap();
        // The first is the primary one; by the kernel's default the other would be removed with it.
        addresses.remove("eth0", &two[..1]).await.unwrap();
        assert_eq!(addresses.present("eth0", &bare(&two)).await.unwrap(), two[1..].to_vec());
    });
}

#[test]
fn a_missing_interface_and_missing_privilege_are_named() {
    let lan = Lan::new(&["a"]);
    let error = lan.block_on("a", || async { Addresses::open().unwrap().add("eth7", &vips()).await.unwrap_err() });
    assert!(
        matches!(&error, AddressError::NoInterface { name, there } if name == "eth7" && there.contains(&"eth0".to_owned()))
    );
    assert!(error.to_string().contains("eth0"), "{error}");
    let error = lan.inside("a", || Announcer::open("eth7", &ips()).unwrap_err());
    assert!(error.to_string().contains("eth7"), "{error}");
    // Only this thread gives up its capabilities, for good.
    let (address, announce, raw) = lan.block_on("a", || async {
        let mut nobody = Caps { header: CapHeader { version: 0x2008_0522, pid: 0 }, data: [CapData::default(); 2] };
        #[allow(unsafe_code)]
        // SAFETY: version 3 of capset takes a header and two data blocks; both outlive the call.
        let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut nobody.header, nobody.data.as_ptr()) };
        assert_eq!(result, 0);
        let address = Addresses::open().unwrap().add("eth0", &vips()).await.unwrap_err().to_string();
        let announce = Announcer::open("eth0", &ips()).unwrap_err().to_string();
        let raw = RawUdp::open("eth0").unwrap_err().to_string();
        (address, announce, raw)
    });
    assert!(address.contains("CAP_NET_ADMIN"), "{address}");
    assert!(announce.contains("CAP_NET_RAW"), "{announce}");
    assert!(raw.contains("CAP_NET_RAW"), "{raw}");
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

struct Caps {
    header: CapHeader,
    data: [CapData; 2],
}

#[test]
fn the_monitor_tells_what_others_do_to_an_address() {
    let lan = Lan::new(&["a"]);
    let space = lan.space("a");
    lan.block_on("a", || async move {
        let addresses = Addresses::open().unwrap();
        addresses.add("eth0", &vips()).await.unwrap();
        let watched: Vec<(String, IpNet)> = vips().into_iter().map(|v| ("eth0".to_owned(), v)).collect();
        let mut monitor = AddressMonitor::open(&watched).unwrap();
        let ip = |arguments: &str| {
            let all = format!("-n {space} {arguments}");
            assert!(std::process::Command::new("ip").args(all.split_whitespace()).status().unwrap().success());
        };
        let mut next = async || tokio::time::timeout(LONG, monitor.next()).await.unwrap().unwrap();
        let interface = || "eth0".to_owned();
        ip("addr add 10.77.0.50/24 dev eth0");
        ip("addr del 10.77.0.50/24 dev eth0");
        ip("addr del 10.77.0.9/24 dev eth0");
        assert_eq!(next().await, AddressEvent::Vanished { interface: interface(), prefix: vips()[0] });
        ip("link set eth0 down");
        let mut after = Vec::new();
        while after.last() != Some(&AddressEvent::LinkDown { interface: interface() }) {
            after.push(next().await);
        }
        // IPv6 addresses go with the link.
        ip("link set eth0 up");
        while after.last() != Some(&AddressEvent::LinkUp { interface: interface() }) {
            after.push(next().await);
        }
        assert!(after.contains(&AddressEvent::Vanished { interface: interface(), prefix: vips()[2] }), "{after:?}");
    });
}

#[test]
fn what_this_process_removes_is_not_told_and_what_others_remove_is() {
    let lan = Lan::new(&["a"]);
    let space = lan.space("a");
    lan.block_on("a", || async move {
        let addresses = Addresses::open().unwrap();
        addresses.add("eth0", &vips()).await.unwrap();
        let watched: Vec<(String, IpNet)> = vips().into_iter().map(|v| ("eth0".to_owned(), v)).collect();
        let mut monitor = addresses.watch(&watched).unwrap();
        // As at the end of a hold that comes back: removed twice, and added again.
        for _ in 0..3 {
            addresses.remove("eth0", &vips()).await.unwrap();
            addresses.remove("eth0", &vips()).await.unwrap();
            addresses.add("eth0", &vips()).await.unwrap();
        }
        assert!(tokio::time::timeout(QUIET, monitor.next()).await.is_err(), "our own removal is told");
        for vip in vips() {
            let ip = format!("-n {space} addr del {vip} dev eth0");
            assert!(std::process::Command::new("ip").args(ip.split_whitespace()).status().unwrap().success());
            let event = tokio::time::timeout(LONG, monitor.next()).await.unwrap().unwrap();
            assert_eq!(event, AddressEvent::Vanished { interface: "eth0".to_owned(), prefix: vip });
        }
    });
}

#[test]
fn a_lifetime_is_renewed_without_noise_and_ends() {
    let lan = Lan::new(&["a"]);
    let space = lan.space("a");
    let left = |lan: &Lan| -> Vec<u64> {
        let json: serde_json::Value = serde_json::from_str(&lan.ip("a", "-j addr show dev eth0")).unwrap();
        let all = json[0]["addr_info"].as_array().unwrap().iter();
        all.filter(|a| ips().iter().any(|ip| a["local"] == ip.to_string()))
            .map(|a| a["valid_life_time"].as_u64().unwrap())
            .collect()
    };
    let route = lan.ip("a", "-6 route show fd77::/64");
    assert!(!route.is_empty() && !route.contains("expires"));
    lan.block_on("a", || async move {
        let addresses = Addresses::open().unwrap();
        addresses.add("eth0", &vips()).await.unwrap();
        let watched: Vec<(String, IpNet)> = vips().into_iter().map(|v| ("eth0".to_owned(), v)).collect();
        let mut monitor = AddressMonitor::open(&watched).unwrap();
        for _ in 0..5 {
            addresses.add("eth0", &vips()).await.unwrap();
        }
        assert!(tokio::time::timeout(QUIET, monitor.next()).await.is_err(), "a renewal is told");
        // The kernel expires it like any address, as if the agent were gone for good.
        let ip = format!("-n {space} addr change 10.77.0.9/24 dev eth0 valid_lft 1 preferred_lft 1");
        assert!(std::process::Command::new("ip").args(ip.split_whitespace()).status().unwrap().success());
        let event = tokio::time::timeout(Duration::from_secs(10), monitor.next()).await.unwrap().unwrap();
        assert_eq!(event, AddressEvent::Vanished { interface: "eth0".to_owned(), prefix: vips()[0] });
        addresses.add("eth0", &vips()).await.unwrap();
    });
    let whole = LIFETIME.as_secs();
    assert!(left(&lan).len() == 3 && left(&lan).iter().all(|s| (whole - 5..=whole).contains(s)), "{:?}", left(&lan));
    // The host's own address still has its route, without an expiry.
    assert_eq!(lan.ip("a", "-6 route show fd77::/64"), route);
    lan.block_on("a", || async { Addresses::open().unwrap().remove("eth0", &vips()).await.unwrap() });
    assert_eq!(lan.ip("a", "-6 route show fd77::/64"), route);
}

#[test]
fn a_client_on_the_lan_follows_the_announcement_from_one_host_to_the_other() {
    let lan = Lan::new(&["a", "b", "client"]);
    let neighbour = |ip: &str| {
        let json: serde_json::Value =
            serde_json::from_str(&lan.ip("client", &format!("-j neigh show {ip} dev eth0"))).unwrap();
        json[0]["lladdr"].as_str().map(str::to_owned)
    };
    let take = |host: &str| {
        lan.block_on(host, || async {
            Addresses::open().unwrap().add("eth0", &vips()).await.unwrap();
            let announced = Announcer::open("eth0", &ips()).unwrap().announce_now();
            assert_eq!((announced.sent, announced.errors.len()), (5, 0));
        });
    };
    take("a");
    for ip in ["10.77.0.9", "fd77::9"] {
        // The client talks to it, and so has a neighbour entry.
        let to = SocketAddr::new(ip.parse().unwrap(), 5060);
        lan.inside("client", move || {
            std::net::UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })
                .unwrap()
                .send_to(b"x", to)
                .unwrap()
        });
        until("the client knows the first host", || neighbour(ip) == Some(lan.mac("a")));
    }
    lan.ip("a", "link set eth0 down");
    take("b");
    for ip in ["10.77.0.9", "fd77::9"] {
        until("the client knows the new host", || neighbour(ip) == Some(lan.mac("b")));
    }
}

#[test]
fn frames_are_what_the_rfcs_ask_for_and_stop_when_told() {
    let lan = Lan::new(&["a", "client"]);
    // Immediate mode; otherwise the last packets would wait in the kernel while tcpdump ends.
    let mut dump = lan.spawn("client", "tcpdump --immediate-mode -nnvv -e -l -i eth0 -Q in arp or icmp6[0]==136");
    // tcpdump reports on stderr that it listens.
    let mut heard = std::io::BufReader::new(dump.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening on") {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut heard, &mut line).unwrap(), 0);
    }
    let mac = lan.mac("a");
    lan.block_on("a", || async {
        Addresses::open().unwrap().add("eth0", &vips()).await.unwrap();
        let announcer = Arc::new(Announcer::open("eth0", &ips()).unwrap());
        let (first, going) = announcer.start(Pace { burst: 3, interval: Duration::from_millis(20), refreshes: 1000 });
        assert_eq!((first.sent, announcer.counters()), (5, (5, 0)));
        let end = tokio::time::Instant::now() + LONG;
        while announcer.counters().0 < 5 * 5 {
            assert!(tokio::time::Instant::now() < end, "refreshes do not go on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(going);
        let sent = announcer.counters().0;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(announcer.counters().0, sent, "it announces on after its end");
    });
    // It was sent at least 25 times; three are enough to read, and prove that none is half written.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(dump.stdout.take().unwrap()));
    let mut text = String::new();
    while text.matches("tgt is fd77::9").count() < 3 {
        text += &(lines.next().expect("tcpdump goes on").unwrap() + "\n");
    }
    dump.kill().unwrap();
    dump.wait().unwrap();
    let has =
        |words: &[&str]| assert!(text.lines().any(|l| words.iter().all(|w| l.contains(w))), "no {words:?} in {text}");
    has(&["> ff:ff:ff:ff:ff:ff", "who-has 10.77.0.9", "tell 10.77.0.9"]);
    has(&["> ff:ff:ff:ff:ff:ff", "10.77.0.9 is-at", &mac]);
    has(&["10.77.0.10 is-at", &mac]);
    has(&["> 33:33:00:00:00:01", "fd77::9 > ff02::1", "hlim 255", "icmp6 sum ok", "neighbor advertisement"]);
    has(&["tgt is fd77::9", "Flags [override]"]);
    has(&["destination link-address option (2)", &mac]);
}

#[test]
fn the_fence_holds_the_server_back_and_nothing_else() {
    let lan = Lan::new(&["server", "phone"]);
    let phone: Vec<std::net::UdpSocket> =
        ["10.77.0.2:7000", "[fd77::2]:7000"].iter().map(|a| lan.socket("phone", a)).collect();
    let from = |port: u16| {
        [lan.socket("server", &format!("10.77.0.1:{port}")), lan.socket("server", &format!("[fd77::1]:{port}"))]
    };
    let (sip, media, rtcp, other) = (from(5060), from(10_000), from(20_001), from(7490));
    let passes = |sockets: &[std::net::UdpSocket; 2], what: &str| {
        let mut passed = Vec::new();
        for (socket, phone) in sockets.iter().zip(&phone) {
            let sent = socket.send_to(what.as_bytes(), phone.local_addr().unwrap());
            passed.push(sent.is_ok() && receive(phone).1 == what);
            assert!(silent(phone, Duration::from_millis(50)));
        }
        assert_eq!(passed[0], passed[1], "IPv4 and IPv6 differ");
        passed[0]
    };
    let fence = |state: FenceState, phones: &'static [&'static str]| {
        lan.block_on("server", move || async move {
            // A new process each time, which adopts the existing table.
            let fence = Fence::new("test", &[5060, 5080], (10_000, 20_000));
            match state {
                FenceState::Closed => fence.closed().await.unwrap(),
                FenceState::Open => fence.open().await.unwrap(),
                FenceState::Left => {
                    let phones: Vec<SocketAddr> = phones.iter().map(|p| p.parse().unwrap()).collect();
                    fence.left(&phones).await.unwrap();
                }
                _ => fence.removed().await.unwrap(),
            }
            assert_eq!(fence.state().await, state);
        });
    };
    lan.exec("server", "nft add table inet foreign");
    fence(FenceState::Closed, &[]);
    fence(FenceState::Closed, &[]);
    assert!(!passes(&sip, "sip") && !passes(&media, "media") && !passes(&rtcp, "rtcp"));
    assert!(passes(&other, "other"));
    // Loopback is open for checks.
    let check = lan.socket("server", "127.0.0.1:5080");
    sip[0].send_to(b"check", "10.77.0.1:7490").unwrap();
    assert_eq!(receive(&other[0]).1, "check");
    check.send_to(b"check", check.local_addr().unwrap()).unwrap();
    assert_eq!(receive(&check).1, "check");

    fence(FenceState::Open, &[]);
    assert!(passes(&sip, "sip") && passes(&media, "media"));

    fence(FenceState::Left, &["10.77.0.2:7000", "[fd77::2]:7000", "10.77.0.2:7000"]);
    assert!(!passes(&sip, "sip") && !passes(&media, "media"));
    assert!(passes(&other, "other"));
    let elsewhere = lan.socket("phone", "10.77.0.2:7002");
    sip[0].send_to(b"not moved", "10.77.0.2:7002").unwrap();
    assert_eq!(receive(&elsewhere).1, "not moved");
    assert!(stdout(&lan.exec("server", "nft list ruleset")).contains("expires"));

    fence(FenceState::Left, &[]);
    assert!(passes(&sip, "sip"));
    fence(FenceState::Removed, &[]);
    fence(FenceState::Removed, &[]);
    assert!(passes(&sip, "sip"));
    assert_eq!(stdout(&lan.exec("server", "nft list tables")).trim(), "table inet foreign");
}

#[test]
fn one_fence_turns_often_and_survives_a_flush_of_the_ruleset() {
    let lan = Lan::new(&["server", "phone"]);
    let phone = lan.socket("phone", "10.77.0.2:7000");
    let sip = lan.socket("server", "10.77.0.1:5060");
    let fence = std::sync::Arc::new(Fence::new("test", &[5060], (10_000, 20_000)));
    let turn = |to: FenceState| {
        let fence = std::sync::Arc::clone(&fence);
        lan.block_on("server", move || async move {
            match to {
                FenceState::Closed => fence.closed().await.unwrap(),
                _ => fence.open().await.unwrap(),
            }
        });
        let sent = sip.send_to(b"sip", "10.77.0.2:7000").is_ok();
        if to == FenceState::Open {
            assert!(sent && receive(&phone).1 == "sip");
        } else {
            assert!(!sent && silent(&phone, Duration::from_millis(50)));
        }
    };
    for to in [
        FenceState::Open,
        FenceState::Open,
        FenceState::Closed,
        FenceState::Closed,
        FenceState::Open,
        FenceState::Closed,
    ] {
        turn(to);
    }
    // A firewall that loads its own rules removes ours.
    lan.exec("server", "nft flush ruleset");
    turn(FenceState::Closed);
    lan.exec("server", "nft flush ruleset");
    turn(FenceState::Open);
    turn(FenceState::Closed);
}

#[test]
fn tcp_from_a_sip_port_is_held_back() {
    let lan = Lan::new(&["server", "phone"]);
    let listener = lan.inside("phone", || std::net::TcpListener::bind("10.77.0.2:7000").unwrap());
    let dial = |lan: &Lan, limit: Duration| {
        lan.inside("server", move || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&"10.77.0.1:5060".parse::<SocketAddr>().unwrap().into()).unwrap();
            socket.connect_timeout(&"10.77.0.2:7000".parse::<SocketAddr>().unwrap().into(), limit).is_ok()
        })
    };
    lan.block_on("server", || async { Fence::new("test", &[5060], (10_000, 20_000)).closed().await.unwrap() });
    assert!(!dial(&lan, QUIET));
    lan.block_on("server", || async { Fence::new("test", &[5060], (10_000, 20_000)).open().await.unwrap() });
    assert!(dial(&lan, LONG));
    drop(listener);
}

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
fn a_dropping_forward_chain_of_others_is_named_and_nfts_own_words_reach_the_operator() {
    let lan = Lan::new(&["a"]);
    lan.exec("a", "nft add table ip filter");
    lan.exec("a", "nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }");
    let (drops, error) = lan.block_on("a", || async {
        (
            sysctl::forward_drops().await.unwrap(),
            nft::run("the test", "add table inet \"\n").await.unwrap_err().to_string(),
        )
    });
    assert_eq!(drops.len(), 1);
    assert!(drops[0].starts_with("ip filter FORWARD"), "{drops:?}");
    assert!(error.contains("the test") && error.contains("syntax error"), "{error}");
}
