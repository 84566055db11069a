//! The fence: what it holds back of a server without the addresses.

use super::QUIET;
use keepcall::vip::fence::{Fence, FenceState};
use lab::netns::{LONG, Lan, receive, silent, stdout};
use std::net::SocketAddr;
use std::time::Duration;

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
