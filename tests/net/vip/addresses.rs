//! Addresses: added, removed, watched, and with a lifetime.

use super::{QUIET, bare, ips, vips};
use ipnet::IpNet;
use keepcall::vip::address::{AddressError, AddressEvent, AddressMonitor, Addresses, LIFETIME};
use keepcall::vip::announce::Announcer;
use keepcall::vip::rawudp::RawUdp;
use keepcall::vip::sysctl;
use lab::netns::{LONG, Lan};
use std::time::Duration;

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
