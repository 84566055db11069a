//! The capture sees SIP in both directions, over UDP and TCP, and no audio, on real interfaces.
mod links;
mod load;
mod tcp;

use keepcall::wire::capture::{Capture, CaptureCounters, CaptureError, Captured};
use lab::netns::{LONG, Lan};
use std::time::Duration;

/// Captures these ports in host `a` while `traffic` runs, until a datagram "end" arrives.
fn seen(lan: &Lan, ports: Vec<u16>, traffic: impl FnOnce() + Send + 'static) -> (Vec<Captured>, CaptureCounters) {
    lan.block_on("a", move || async move {
        let mut capture = Capture::open("eth0", &ports).unwrap();
        let traffic = std::thread::spawn(traffic);
        let mut all = Vec::new();
        loop {
            let next = tokio::time::timeout(LONG, capture.next()).await;
            let seen = next.unwrap_or_else(|_| panic!("the end was not seen, only {all:?}")).unwrap();
            if seen.payload == b"end" {
                break;
            }
            all.push(seen);
        }
        traffic.join().unwrap();
        (all, capture.counters())
    })
}

#[test]
fn sip_both_ways_and_no_audio() {
    // Many ports too: then the filter's jumps are longest.
    let many: Vec<u16> = (5060..5124).collect();
    for ports in [vec![5060], many] {
        let lan = Lan::new(&["a", "b"]);
        let pairs = [("10.77.0.1", "10.77.0.2"), ("[fd77::1]", "[fd77::2]")]
            .map(|(a, b)| [(a, 5060, b, 7000), (a, 7000, b, 5060), (a, 10_000, b, 10_002), (a, 5059, b, 5124)])
            .concat();
        let last = (*ports.last().unwrap(), ports.len());
        let sockets: Vec<_> = pairs
            .iter()
            .map(|(a, sport, b, dport)| {
                (
                    lan.socket("a", &format!("{a}:{sport}")),
                    lan.socket("b", &format!("{b}:{dport}")),
                    *sport == 5060 || *dport == 5060,
                )
            })
            .collect();
        let (from_last, end) =
            (lan.socket("a", "10.77.0.1:9000"), lan.socket("b", &format!("10.77.0.2:{}", last.0.max(5061))));
        let expected: usize = sockets.iter().filter(|s| s.2).count() * 2;
        let stop = lan.socket("a", "10.77.0.1:9001");
        let (all, counters) = seen(&lan, ports.clone(), move || {
            for (a, b, sip) in &sockets {
                let (a_at, b_at) = (a.local_addr().unwrap(), b.local_addr().unwrap());
                let text = |way: &str| format!("{way} {}", if *sip { "sip" } else { "audio" });
                for _ in 0..if *sip { 1 } else { 50 } {
                    a.send_to(text("out").as_bytes(), b_at).unwrap();
                    b.send_to(text("in").as_bytes(), a_at).unwrap();
                }
            }
            if last.1 > 1 {
                from_last.send_to(b"out sip", end.local_addr().unwrap()).unwrap();
            }
            stop.send_to(b"end", "10.77.0.2:5060").unwrap();
        });
        assert!(all.iter().all(|s| s.payload.ends_with(b"sip")), "audio came through: {all:?}");
        assert_eq!(all.len(), expected + usize::from(last.1 > 1), "{all:?}");
        let has = |src: &str, dst: &str, text: &[u8]| {
            assert!(
                all.iter().any(|s| s.src.to_string() == src && s.dst.to_string() == dst && s.payload == text),
                "{all:?}"
            );
        };
        has("10.77.0.1:5060", "10.77.0.2:7000", b"out sip");
        has("10.77.0.2:7000", "10.77.0.1:5060", b"in sip");
        has("[fd77::2]:7000", "[fd77::1]:5060", b"in sip");
        has("[fd77::1]:7000", "[fd77::2]:5060", b"out sip");
        assert_eq!((counters.dropped, counters.malformed, counters.fragments), (0, 0, 0));
    }
}

#[test]
fn a_sample_holds_only_rtp_that_comes_to_the_given_addresses() {
    let lan = Lan::new(&["a", "b"]);
    let phones = ["10.77.0.2", "[fd77::2]"].map(|ip| lan.socket("b", &format!("{ip}:7000")));
    let out = lan.socket("a", "10.77.0.1:10000");
    let vips = ["10.77.0.9", "10.77.0.1", "fd77::9", "fd77::1"].map(|ip| ip.parse().unwrap()).to_vec();
    let (all, rare) = lan.block_on("a", move || async move {
        let mut all = Capture::sample("eth0", &vips, (10_000, 20_000), 1).unwrap();
        let mut rare = Capture::sample("eth0", &vips, (10_000, 20_000), 1).unwrap();
        rare.resample(&vips, (10_000, 20_000), 50).unwrap();
        let traffic = std::thread::spawn(move || {
            for (phone, at) in phones.iter().zip(["10.77.0.1", "[fd77::1]"]) {
                for port in [9_999, 10_000, 20_000, 20_001, 5060] {
                    for _ in 0..200 {
                        phone.send_to(port.to_string().as_bytes(), format!("{at}:{port}")).unwrap();
                    }
                }
            }
            out.send_to(b"out", phones[0].local_addr().unwrap()).unwrap();
            phones[0].send_to(b"end", "10.77.0.1:10002").unwrap();
        });
        let mut seen = Vec::new();
        while seen.last().is_none_or(|s: &Captured| s.payload != b"end") {
            seen.push(tokio::time::timeout(LONG, all.next()).await.expect("the end is sampled").unwrap());
        }
        traffic.join().unwrap();
        let mut few = 0;
        // Everything sent before the end has arrived.
        while tokio::time::timeout(Duration::from_millis(100), rare.next()).await.is_ok() {
            few += 1;
        }
        (seen, few)
    });
    assert_eq!(all.len(), 801, "two ports in range, two families, 200 each, and the end");
    assert!(
        all.iter().all(|s| s.payload == b"end" || s.payload == s.dst.port().to_string().as_bytes()),
        "{:?}",
        all.last()
    );
    assert!(all.iter().all(|s| (10_000..=20_000).contains(&s.dst.port())));
    // One in fifty of 801 is 16; 200 is beyond any chance.
    assert!((1..200).contains(&rare), "{rare} of 801");
}

#[test]
fn fragmented_messages_are_put_together() {
    let lan = Lan::new(&["a", "b"]);
    let big: Vec<u8> = (0..4000_u32).map(|n| n as u8).collect();
    let sockets = ["10.77.0.1", "[fd77::1]"].map(|ip| lan.socket("a", &format!("{ip}:5060")));
    let phones = ["10.77.0.2", "[fd77::2]"].map(|ip| lan.socket("b", &format!("{ip}:7000")));
    let audio = lan.socket("b", "10.77.0.2:7002");
    let sent = big.clone();
    let (all, counters) = seen(&lan, vec![5060], move || {
        for (socket, phone) in sockets.iter().zip(&phones) {
            socket.send_to(&sent, phone.local_addr().unwrap()).unwrap();
            phone.send_to(&sent, socket.local_addr().unwrap()).unwrap();
        }
        // Large, but for none of our ports.
        audio.send_to(&sent, "10.77.0.1:7004").unwrap();
        phones[0].send_to(b"end", "10.77.0.1:5060").unwrap();
    });
    assert_eq!(all.len(), 4, "{}", all.len());
    assert!(all.iter().all(|s| s.payload == big));
    assert!(counters.fragments >= 12, "{counters:?}");
}

#[test]
fn what_is_wrong_is_named() {
    let lan = Lan::new(&["a"]);
    lan.block_on("a", || async {
        let error = Capture::open("eth7", &[5060]).unwrap_err();
        assert!(error.to_string().contains("eth7") && error.to_string().contains("eth0"), "{error}");
        assert!(matches!(Capture::open("eth0", &[]), Err(CaptureError::Ports { count: 0 })));
        assert!(matches!(Capture::open("eth0", &[1; 65]), Err(CaptureError::Ports { count: 65 })));
    });
}
