//! The kernel relay forwards audio between two phones through a virtual address, with real packets.
use keepcall::calls::model::Flow;
use keepcall::recovery::media::kernel::{KernelRelay, RefusedPackets, Wish};
use keepcall::recovery::permitted::Ground;
use keepcall::vip::rawudp::RawUdp;
use keepcall::vip::{nft, sysctl};
use lab::netns::{Lan, receive, silent, stdout, uninterrupted};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Long enough for a packet on a virtual wire; used where none may come.
const QUIET: Duration = Duration::from_millis(300);

fn flow(from: &str, at: &str, to: &str, source: &str) -> Flow {
    let a = |s: &str| s.parse::<SocketAddr>().unwrap();
    Flow { from: a(from), at: a(at), to: a(to), source: a(source), udptl: false }
}

/// Both directions between 10.77.0.1:4000 and 10.77.0.2:4002 (or the same of fd77::), through ports 10000 and 10004 of
/// .9.
fn both_ways(v6: bool) -> Vec<Flow> {
    let ip = |n: u8, port: u16| if v6 { format!("[fd77::{n}]:{port}") } else { format!("10.77.0.{n}:{port}") };
    vec![
        flow(&ip(1, 4000), &ip(9, 10000), &ip(2, 4002), &ip(9, 10004)),
        flow(&ip(2, 4002), &ip(9, 10004), &ip(1, 4000), &ip(9, 10000)),
    ]
}

fn vips() -> Vec<IpAddr> {
    vec!["10.77.0.9".parse().unwrap(), "fd77::9".parse().unwrap()]
}

fn ground() -> Ground {
    Ground::of(&vips())
}

/// A packet of RTP (RFC 3550 section 5.1) with this text as its audio.
fn rtp(text: &str) -> Vec<u8> {
    [&[0x80, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3], text.as_bytes()].concat()
}

/// Reads one RTP packet: its sender, and the text in it.
fn heard(socket: &std::net::UdpSocket) -> (String, String) {
    let mut buffer = [0; 2048];
    let (length, from) =
        uninterrupted(|| socket.recv_from(&mut buffer)).unwrap_or_else(|e| panic!("nothing came to {socket:?}: {e}"));
    assert_eq!(buffer[..12], rtp("")[..]);
    (from.to_string(), String::from_utf8_lossy(&buffer[12..length]).into_owned())
}

fn add_vips(lan: &Lan, host: &str) {
    lan.ip(host, "addr add 10.77.0.9/24 dev eth0");
    lan.ip(host, "addr add fd77::9/64 dev eth0 nodad");
}

/// Arms the relay in host `h`.
fn arm(lan: &Lan, calls: Vec<(&'static str, Vec<Flow>)>) {
    lan.block_on("h", move || async move {
        let prepared = sysctl::for_relay("eth0");
        assert!(prepared.errors.is_empty(), "{:?}", prepared.errors);
        let relay = KernelRelay::new("test", &ground());
        let refused = relay.set_many(calls.iter().map(|(call, flows)| (*call, &flows[..]))).await.unwrap();
        assert!(refused.is_empty(), "{refused:?}");
    });
}

#[test]
fn audio_runs_both_ways_through_an_address_that_comes_after_the_relay_was_armed() {
    for v6 in [false, true] {
        let lan = Lan::new(&["a", "b", "h"]);
        arm(&lan, vec![("call", both_ways(v6))]);
        add_vips(&lan, "h");
        let ip = |n: u8, port: u16| if v6 { format!("[fd77::{n}]:{port}") } else { format!("10.77.0.{n}:{port}") };
        // A server's socket on the same port, in a process without knowledge of the call.
        let server = lan.socket("h", &ip(9, 10000));
        let (a, b) = (lan.socket("a", &ip(1, 4000)), lan.socket("b", &ip(2, 4002)));
        for n in 0..5 {
            a.send_to(&rtp(&format!("from a {n}")), ip(9, 10000)).unwrap();
            assert_eq!(heard(&b), (ip(9, 10004), format!("from a {n}")));
            b.send_to(&rtp(&format!("from b {n}")), ip(9, 10004)).unwrap();
            assert_eq!(heard(&a), (ip(9, 10000), format!("from b {n}")));
        }
        assert!(silent(&server, QUIET), "the server's socket saw relayed audio");
        // Packets to or from another peer on the same port still belong to the server.
        let new = lan.socket("a", &ip(1, 4100));
        new.send_to(b"new call", ip(9, 10000)).unwrap();
        assert_eq!(receive(&server), (ip(1, 4100), "new call".to_owned()));
        server.send_to(b"answer", ip(1, 4100)).unwrap();
        assert_eq!(receive(&new), (ip(9, 10000), "answer".to_owned()));
        // Packets that would mix into the relayed audio do not leave.
        let _ = server.send_to(b"stale", ip(1, 4000));
        assert!(silent(&a, QUIET), "a stale server's audio reached the phone");
        // The phones got no redirect, with which they would bypass the relay.
        let redirects = stdout(&lan.exec("h", "nstat -asz IcmpOutRedirects Icmp6OutRedirects"));
        for line in redirects.lines().filter(|l| l.contains("Redirects")) {
            assert_eq!(line.split_whitespace().nth(1), Some("0"), "{redirects}");
        }
    }
}

#[test]
fn checksums_are_right_for_senders_that_compute_them_and_for_senders_that_have_none() {
    let lan = Lan::new(&["a", "b", "h"]);
    let all = [both_ways(false), both_ways(true)].concat();
    arm(&lan, vec![("call", all)]);
    add_vips(&lan, "h");
    let b4 = lan.socket("b", "10.77.0.2:4002");
    let b6 = lan.socket("b", "[fd77::2]:4002");
    // Raw packets carry complete checksums, as from a real wire, so the receiver checks the relay's work. (A socket
    // over veth leaves the checksum to hardware that is not there, and it stays unchecked.)
    lan.inside("a", || {
        let raw = RawUdp::open("eth0").unwrap();
        let send = |from: &str, to: &str, n: u32| {
            raw.send(from.parse().unwrap(), to.parse().unwrap(), &rtp(&n.to_string())).unwrap();
        };
        for n in 0..200 {
            send("10.77.0.1:4000", "10.77.0.9:10000", n);
            send("[fd77::1]:4000", "[fd77::9]:10000", n);
        }
    });
    for n in 0..200_u32 {
        for b in [&b4, &b6] {
            assert_eq!(heard(b).1, n.to_string());
        }
    }
    // RFC 768: a checksum of zero means none. Some phones send that.
    lan.inside("a", || {
        let socket = std::net::UdpSocket::bind("10.77.0.1:4000").unwrap();
        nix::sys::socket::setsockopt(&socket, NoCheck, &true).unwrap();
        socket.send_to(&rtp("unchecked"), "10.77.0.9:10000").unwrap();
    });
    assert_eq!(heard(&b4), ("10.77.0.9:10004".to_owned(), "unchecked".to_owned()));
    let errors = stdout(&lan.exec("b", "nstat -asz UdpInCsumErrors Udp6InCsumErrors"));
    for line in errors.lines().filter(|l| l.contains("InCsum")) {
        assert_eq!(line.split_whitespace().nth(1), Some("0"), "{errors}");
    }
}

#[test]
fn phones_behind_gateways_are_reached() {
    // a -- gateway g -- h, with b on h's LAN: the next hop to a is not the phone itself.
    let lan = Lan::new(&["g", "b", "h", "a"]);
    lan.ip("g", "addr add 10.78.0.1/24 dev eth0");
    lan.ip("a", "addr flush dev eth0");
    lan.ip("a", "addr add 10.78.0.2/24 dev eth0");
    lan.ip("a", "route add default via 10.78.0.1");
    lan.ip("h", "route add default via 10.77.0.1");
    lan.exec("g", "sysctl -qw net.ipv4.ip_forward=1");
    lan.exec("g", "sysctl -qw net.ipv4.conf.all.send_redirects=0");
    lan.exec("g", "sysctl -qw net.ipv4.conf.eth0.send_redirects=0");
    let flows = vec![
        flow("10.78.0.2:4000", "10.77.0.9:10000", "10.77.0.2:4002", "10.77.0.9:10004"),
        flow("10.77.0.2:4002", "10.77.0.9:10004", "10.78.0.2:4000", "10.77.0.9:10000"),
    ];
    arm(&lan, vec![("call", flows)]);
    add_vips(&lan, "h");
    let (a, b) = (lan.socket("a", "10.78.0.2:4000"), lan.socket("b", "10.77.0.2:4002"));
    a.send_to(&rtp("hello"), "10.77.0.9:10000").unwrap();
    assert_eq!(heard(&b), ("10.77.0.9:10004".to_owned(), "hello".to_owned()));
    b.send_to(&rtp("hello too"), "10.77.0.9:10004").unwrap();
    assert_eq!(heard(&a), ("10.77.0.9:10000".to_owned(), "hello too".to_owned()));
}

#[test]
fn calls_are_changed_counted_and_removed() {
    let lan = Lan::new(&["a", "b", "h"]);
    add_vips(&lan, "h");
    let (a, b) = (lan.socket("a", "10.77.0.1:4000"), lan.socket("b", "10.77.0.2:4002"));
    let c = lan.socket("b", "10.77.0.2:4010");
    let server = lan.socket("h", "10.77.0.9:10000");
    lan.block_on("h", move || async move {
        assert!(sysctl::for_relay("eth0").errors.is_empty());
        let relay = KernelRelay::new("test", &ground());
        // Many more calls in the same transaction, as in a takeover.
        let many: Vec<(String, Vec<Flow>)> = (0..2000_u16)
            .map(|n| {
                let phone = |side: u8, port: u16| format!("10.{side}.{}.{}:{port}", n >> 8, n & 0xff);
                let vip = |port: u16| format!("10.77.0.9:{port}");
                let one = flow(&phone(80, 5000), &vip(11_000 + n), &phone(81, 5002), &vip(14_000 + n));
                let two = flow(&phone(81, 5002), &vip(14_000 + n), &phone(80, 5000), &vip(11_000 + n));
                (format!("other-{n}"), vec![one, two])
            })
            .collect();
        // One impossible call does not keep the others out.
        let bad = [flow("10.0.0.1:0", "10.77.0.9:10000", "10.0.0.2:1", "10.77.0.9:10002")];
        let all = many.iter().map(|(call, flows)| (&call[..], &flows[..])).chain([("bad", &bad[..])]);
        assert_eq!(relay.set_many(all).await.unwrap().len(), 1);
        relay.set("call", &both_ways(false)).await.unwrap();
        for _ in 0..3 {
            a.send_to(&rtp("x"), "10.77.0.9:10000").unwrap();
            heard(&b);
        }
        let counts = relay.counts().await.unwrap();
        assert_eq!(counts.len(), 2001);
        let sent = |counts: &[keepcall::recovery::media::kernel::FlowCount]| {
            let one = counts.iter().find(|c| c.flow.from.to_string() == "10.77.0.1:4000").unwrap();
            (one.packets, one.bytes)
        };
        assert_eq!(sent(&counts["call"]), (3, 3 * 41));
        let few = relay.counts_of(&["call", "other-7", "nobody"]).await.unwrap();
        assert_eq!((few.len(), few["call"].len(), sent(&few["call"])), (2, 2, (3, 3 * 41)));

        // The far phone moves (a re-INVITE): the next packet goes to the new address. The call's unchanged flow keeps
        // its count.
        let mut flows = both_ways(false);
        flows[0].to = "10.77.0.2:4010".parse().unwrap();
        relay.set("call", &flows).await.unwrap();
        a.send_to(&rtp("moved"), "10.77.0.9:10000").unwrap();
        assert_eq!(heard(&c), ("10.77.0.9:10004".to_owned(), "moved".to_owned()));

        // Removed: the server has its port back.
        relay.remove("call").await.unwrap();
        a.send_to(&rtp("gone"), "10.77.0.9:10000").unwrap();
        assert_eq!(heard(&server).1, "gone");
        assert_eq!(relay.counts().await.unwrap().len(), 2000);

        // A new process takes over a crashed one's flows, all of them.
        let next = KernelRelay::new("test", &ground());
        next.set("call", &both_ways(false)).await.unwrap();
        a.send_to(&rtp("again"), "10.77.0.9:10000").unwrap();
        assert_eq!(heard(&b).1, "again");
        assert_eq!(next.counts().await.unwrap().len(), 1);
        next.clear().await.unwrap();
        next.clear().await.unwrap();
        a.send_to(&rtp("cleared"), "10.77.0.9:10000").unwrap();
        assert_eq!(heard(&server).1, "cleared");
    });
    assert!(!stdout(&lan.exec("h", "nft list tables")).contains("keepcall"));
}

#[test]
fn ten_thousand_calls_of_both_families_and_a_flush_of_all_rules() {
    let lan = Lan::new(&["a", "b", "h"]);
    add_vips(&lan, "h");
    let (a, b) = (lan.socket("a", "10.77.0.1:4000"), lan.socket("b", "10.77.0.2:4002"));
    let space = lan.space("h");
    lan.block_on("h", move || async move {
        assert!(sysctl::for_relay("eth0").errors.is_empty());
        let flush = || {
            let all = format!("netns exec {space} nft flush ruleset");
            assert!(std::process::Command::new("ip").args(all.split_whitespace()).status().unwrap().success());
        };
        let relay = KernelRelay::new("test", &ground());
        let many: Vec<(String, Vec<Flow>)> = (0..10_000_u16)
            .map(|n| {
                let v6 = n % 2 == 0;
                let phone = |net: u16, port: u16| {
                    if v6 {
                        format!("[fd80::{net}:{n:x}]:{port}")
                    } else {
                        format!("10.{net}.{}.{}:{port}", n >> 8, n & 0xff)
                    }
                };
                let vip = |port: u16| if v6 { format!("[fd77::9]:{port}") } else { format!("10.77.0.9:{port}") };
                let way = |rtcp: u16| {
                    [
                        flow(
                            &phone(80, 5000 + rtcp),
                            &vip(11_000 + rtcp),
                            &phone(81, 5002 + rtcp),
                            &vip(14_000 + rtcp),
                        ),
                        flow(
                            &phone(81, 5002 + rtcp),
                            &vip(14_000 + rtcp),
                            &phone(80, 5000 + rtcp),
                            &vip(11_000 + rtcp),
                        ),
                    ]
                };
                (format!("other-{n}"), [way(0), way(1)].concat())
            })
            .collect();
        let all = || many.iter().map(|(call, flows)| (&call[..], &flows[..]));
        relay.set("call", &both_ways(false)).await.unwrap();
        assert!(relay.set_many(all()).await.unwrap().is_empty());
        let counts = relay.counts().await.unwrap();
        assert_eq!((counts.len(), counts.values().map(Vec::len).sum::<usize>()), (10_001, 40_002));
        a.send_to(&rtp("x"), "10.77.0.9:10000").unwrap();
        assert_eq!(heard(&b).1, "x");
        // The same set again changes nothing. Then one batch removes half of them and changes others.
        relay.set_many(all()).await.unwrap();
        assert_eq!(relay.counts_of(&["call"]).await.unwrap()["call"].iter().map(|c| c.packets).sum::<u64>(), 1);
        let moved = |flows: &[Flow]| -> Vec<Flow> {
            flows.iter().map(|f| Flow { to: SocketAddr::new(f.to.ip(), f.to.port() + 1000), ..*f }).collect()
        };
        let changed: Vec<(String, Vec<Flow>)> = many
            .iter()
            .enumerate()
            .map(|(n, (call, flows))| (call.clone(), if n % 2 == 0 { Vec::new() } else { moved(flows) }))
            .collect();
        relay.set_many(changed.iter().map(|(call, flows)| (&call[..], &flows[..]))).await.unwrap();
        assert_eq!(relay.counts().await.unwrap().len(), 5_001);
        a.send_to(&rtp("y"), "10.77.0.9:10000").unwrap();
        assert_eq!(heard(&b).1, "y");
        // Somebody removes everything: the next change of any call restores all of it.
        flush();
        assert!(relay.counts().await.unwrap_err().to_string().contains("not there"));
        relay.remove("other-1").await.unwrap();
        assert_eq!(relay.counts().await.unwrap().len(), 5_000);
        a.send_to(&rtp("z"), "10.77.0.9:10000").unwrap();
        assert_eq!(heard(&b).1, "z");
        // A process that ends halfway leaves complete calls, and its successor continues from there.
        let some: Vec<(String, Vec<Flow>)> = many.iter().take(1_000).cloned().collect();
        relay.set_many(some.iter().map(|(call, _)| (&call[..], &[][..]))).await.unwrap();
        let wishes = some.iter().map(|(call, flows)| Wish {
            call: call.clone(),
            flows: flows.clone(),
            emergency: call == "other-999",
        });
        relay.want(wishes).await;
        assert!(relay.step().await.unwrap(), "a piece of several");
        let there = relay.counts().await.unwrap();
        assert!(there.contains_key("other-999"), "emergency calls come first");
        assert!(
            (4_500..5_400).contains(&there.len())
                && there.iter().all(|(call, flows)| call == "call" || flows.len() == 4)
        );
        a.send_to(&rtp("counted"), "10.77.0.9:10000").unwrap();
        assert_eq!(heard(&b).1, "counted");
        let next = KernelRelay::new("test", &ground());
        let all = changed.iter().filter(|(call, _)| some.iter().all(|(other, _)| other != call));
        let all = all.chain(&some).map(|(call, flows)| (&call[..], &flows[..]));
        next.set_many(all.chain([("call", &both_ways(false)[..])])).await.unwrap();
        assert_eq!(next.counts().await.unwrap().len(), 5_501);
        let kept = next.counts_of(&["call"]).await.unwrap();
        assert!(
            kept["call"].iter().any(|flow| flow.packets > 0),
            "what a successor leaves as it is keeps its counters"
        );
        // A successor changes the flows of a crashed process.
        let next = KernelRelay::new("test", &ground());
        next.set("call", &both_ways(false)).await.unwrap();
        assert_eq!(next.counts().await.unwrap().len(), 1);
        // A table of another make is replaced.
        flush();
        nft::run("the test", "table inet keepcall-relay-test { set flow4 { type ipv4_addr; }; }\n").await.unwrap();
        let next = KernelRelay::new("test", &ground());
        next.set("call", &both_ways(false)).await.unwrap();
        a.send_to(&rtp("0"), "10.77.0.9:10000").unwrap();
        assert_eq!(heard(&b).1, "0");
    });
}

/// Real media of phones, and other datagrams to the right port.
fn packets() -> [Vec<(&'static str, Vec<u8>)>; 2] {
    let stun = |kind: u8, cookie: u32| [&[kind, 1, 0, 0][..], &cookie.to_be_bytes(), &[7; 12]].concat();
    let dtls = |first: u8| [&[first, 0xfe, 0xfd][..], &[0; 10]].concat();
    let mut version_1 = rtp("audio");
    version_1[0] = 0x40;
    let good = vec![
        ("RTP", rtp("audio")),
        ("RTP with padding, extension and sources", [&[0xbf, 0xff][..], &[1; 40]].concat()),
        ("a receiver report", [&[0x80, 201, 0, 1][..], &[0; 4]].concat()),
        ("STUN request", stun(0, 0x2112_a442)),
        ("STUN answer", stun(1, 0x2112_a442)),
        ("DTLS alert", dtls(20)),
        ("DTLS handshake", dtls(22)),
        ("DTLS 1.3", dtls(63)),
    ];
    let bad = vec![
        ("an INVITE", b"INVITE sip:1@10.77.0.2 SIP/2.0\r\nVia: SIP/2.0/UDP 10.77.0.1\r\n\r\n".to_vec()),
        ("an answer of SIP", b"SIP/2.0 200 OK\r\n\r\n".to_vec()),
        ("a question to DNS", [&[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"\x01a\x00\x00\x01\x00\x01"].concat()),
        ("zero bytes", vec![0; 40]),
        ("nothing", Vec::new()),
        ("one byte of RTP", vec![0x80]),
        ("seven bytes of RTP", rtp("")[..7].to_vec()),
        ("RTP of version 1", version_1),
        ("RTP of version 3", [&[0xc0][..], &[0; 20]].concat()),
        ("STUN without its cookie", stun(0, 0x2112_a443)),
        ("STUN that is short", stun(0, 0x2112_a442)[..19].to_vec()),
        ("DTLS that is short", dtls(22)[..12].to_vec()),
        ("below DTLS", dtls(19)),
        ("above DTLS", dtls(64)),
        ("an old key agreement (RFC 7983: ZRTP)", [&[0x10, 0, 0, 1][..], b"ZRTP", &[0; 12]].concat()),
    ];
    [good, bad]
}

#[test]
fn nothing_but_what_phones_send_is_forwarded() {
    let lan = Lan::new(&["a", "b", "h"]);
    add_vips(&lan, "h");
    // The same port: refused packets must not reach the server either.
    let server = lan.socket("h", "10.77.0.9:10000");
    for v6 in [false, true] {
        let ip = move |n: u8, port: u16| if v6 { format!("[fd77::{n}]:{port}") } else { format!("10.77.0.{n}:{port}") };
        let (a, b) = (lan.socket("a", &ip(1, 4000)), lan.socket("b", &ip(2, 4002)));
        let server = server.try_clone().unwrap();
        lan.block_on("h", move || async move {
            assert!(sysctl::for_relay("eth0").errors.is_empty());
            let relay = KernelRelay::new("test", &ground());
            relay.set("call", &both_ways(v6)).await.unwrap();
            let before = relay.refused().await.unwrap();
            let [good, bad] = packets();
            let at = ip(9, 10000);
            let next = |what: &str, expected: &[u8]| {
                let mut buffer = [0; 2048];
                let length = uninterrupted(|| b.recv(&mut buffer)).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(buffer[..length], *expected, "{what}");
            };
            for (what, packet) in &bad {
                a.send_to(packet, &at).unwrap();
                // The wire keeps the order: the next packet received is the next one sent.
                a.send_to(&rtp(what), &at).unwrap();
                next(what, &rtp(what));
            }
            for (what, packet) in &good {
                a.send_to(packet, &at).unwrap();
                next(what, packet);
            }
            let refused = relay.refused().await.unwrap();
            assert_eq!(refused, RefusedPackets { payload: before.payload + bad.len() as u64, ..before });
            // Longer than the wire carries at once: the first fragment has the ports, and starts like RTP.
            a.send_to(&rtp(&"long".repeat(700)), &at).unwrap();
            a.send_to(&rtp("whole"), &at).unwrap();
            next("a fragment", &rtp("whole"));
            assert_eq!(relay.refused().await.unwrap().parts, refused.parts + 1);
            // With T.38 agreed, packets may look like anything.
            let fax: Vec<Flow> = both_ways(v6).into_iter().map(|flow| Flow { udptl: true, ..flow }).collect();
            relay.set("call", &fax).await.unwrap();
            for (what, packet) in good.iter().chain(&bad) {
                a.send_to(packet, &at).unwrap();
                next(what, packet);
            }
            relay.set("call", &both_ways(v6)).await.unwrap();
            a.send_to(&bad[3].1, &at).unwrap();
            a.send_to(&rtp("audio again"), &at).unwrap();
            next("audio after a fax", &rtp("audio again"));
            relay.clear().await.unwrap();
            assert!(silent(&server, QUIET), "what is refused reached the server");
        });
    }
}

#[test]
fn what_would_end_on_this_host_is_dropped_whatever_addresses_it_has() {
    let lan = Lan::new(&["a", "b", "h"]);
    add_vips(&lan, "h");
    let a = lan.socket("a", "10.77.0.1:4000");
    // Addresses added after the relay was armed, and unknown to it.
    let server = lan.socket("h", "0.0.0.0:7000");
    lan.block_on("h", move || async move {
        assert!(sysctl::for_relay("eth0").errors.is_empty());
        let relay = KernelRelay::new("test", &ground());
        for (n, to) in ["10.77.0.3:7000", "10.77.0.255:7000"].into_iter().enumerate() {
            let to = flow("10.77.0.1:4000", "10.77.0.9:10000", to, "10.77.0.9:10004");
            relay.set("call", &[to]).await.unwrap();
            a.send_to(&rtp("audio"), "10.77.0.9:10000").unwrap();
            assert!(silent(&server, QUIET));
            assert_eq!(
                relay.refused().await.unwrap(),
                RefusedPackets { this_host: n as u64 + 1, ..RefusedPackets::default() }
            );
        }
        let loopback = flow("10.77.0.1:4000", "10.77.0.9:10000", "127.0.0.1:7000", "10.77.0.9:10004");
        assert!(relay.set("call", &[loopback]).await.is_err());
    });
}

#[derive(Clone, Copy)]
struct NoCheck;

/// SO_NO_CHECK, for which nix has no name.
impl nix::sys::socket::SetSockOpt for NoCheck {
    type Val = bool;
    fn set<F: std::os::fd::AsFd>(&self, fd: &F, on: &bool) -> nix::Result<()> {
        let on = i32::from(*on);
        let size = u32::try_from(size_of::<i32>()).unwrap();
        let raw = std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd());
        #[allow(unsafe_code)]
        // SAFETY: the descriptor is open for the borrow; the option is an int, and `on` outlives the call.
        let result =
            unsafe { libc::setsockopt(raw, libc::SOL_SOCKET, libc::SO_NO_CHECK, (&raw const on).cast(), size) };
        nix::errno::Errno::result(result).map(drop)
    }
}
