//! Kinds of links: tags, loopback, interfaces that come and go, and hosts without a ring.

use super::tcp::{message, on, seen};
use futures::FutureExt as _;
use keepcall::wire::capture::{Capture, CaptureError};
use lab::netns::{LONG, Lan};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;

/// Sends whole Ethernet frames from host `b`.
fn send_frames(lan: &Lan, host: &str, frames: Vec<Vec<u8>>) {
    lan.inside(host, move || {
        let index = nix::net::if_::if_nametoindex("eth0").unwrap();
        let socket = socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW, None).unwrap();
        let link = link_address(index);
        for frame in frames {
            nix::sys::socket::sendto(socket.as_raw_fd(), &frame, &link, nix::sys::socket::MsgFlags::empty()).unwrap();
        }
    });
}

fn frame(tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut f = vec![0xff; 6];
    f.extend([2, 0, 0, 0, 0, 9]);
    for tag in tags {
        f.extend(tag.to_be_bytes());
        f.extend([0, 10]);
    }
    f.extend(if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] });
    f.extend(packet);
    f
}

fn udp(sport: u16, payload: &[u8]) -> Vec<u8> {
    [&sport.to_be_bytes()[..], &5060_u16.to_be_bytes(), &((8 + payload.len()) as u16).to_be_bytes(), &[0, 0], payload]
        .concat()
}

fn v4(flags: u16, data: &[u8]) -> Vec<u8> {
    let length = (20 + data.len()) as u16;
    let head = [&[0x45, 0][..], &length.to_be_bytes(), &[0, 7], &flags.to_be_bytes(), &[64, 17, 0, 0]].concat();
    let mut head = [&head[..], &[10, 77, 0, 2, 10, 77, 0, 1]].concat();
    // A bridge drops packets with a wrong checksum.
    let sum: u32 = head.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    head[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    [&head[..], data].concat()
}

fn v6(next: u8, data: &[u8]) -> Vec<u8> {
    let mut p = [&[0x60, 0, 0, 0][..], &(data.len() as u16).to_be_bytes(), &[next, 64]].concat();
    p.extend("fd77::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    p.extend("fd77::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    [p, data.to_vec()].concat()
}

#[test]
fn tagged_frames_are_seen_with_one_tag_and_with_two() {
    let lan = Lan::new(&["a", "b"]);
    let all_tags: [&[u16]; 5] = [&[], &[0x8100], &[0x88a8], &[0x88a8, 0x8100], &[0x8100, 0x8100]];
    let mut frames = Vec::new();
    for (n, tags) in all_tags.into_iter().enumerate() {
        let m = message(n, 10);
        frames.push(frame(tags, &v4(0, &udp(7000, &m))));
        frames.push(frame(tags, &v6(17, &udp(7000, &m))));
        // Hop-by-hop options in front.
        frames.push(frame(tags, &v6(0, &[&[17, 0, 1, 4, 0, 0, 0, 0][..], &udp(7000, &m)].concat())));
        // Two fragments.
        let whole = udp(7000, &message(n, 1000));
        frames.push(frame(tags, &v4(0x2000, &whole[..800])));
        frames.push(frame(tags, &v4(100, &whole[800..])));
        // Not ours.
        let mut audio = udp(7000, &m);
        audio[3] = 1;
        frames.push(frame(tags, &v4(0, &audio)));
        frames.push(frame(tags, &v6(17, &audio)));
    }
    for ring in [8 << 20, 0] {
        // Inbound, and outbound too, since the other side of the link is the same.
        for host in ["b", "a"] {
            let send = frames.clone();
            let lan = &lan;
            let (all, counters) = std::thread::scope(|scope| {
                let (go, gone) = std::sync::mpsc::channel::<()>();
                scope.spawn(move || {
                    gone.recv().unwrap();
                    send_frames(lan, host, send);
                });
                seen(lan, on("eth0", ring), 20, move || go.send(()).unwrap())
            });
            for n in 0..5 {
                let of = |m: &[u8]| all.iter().filter(|s| s.payload == m).count();
                assert_eq!((of(&message(n, 10)), of(&message(n, 1000))), (3, 1), "from {host}, {n}, {counters:?}");
            }
            assert_eq!(counters.malformed, 0, "{counters:?}");
        }
    }
}

#[test]
fn on_a_loopback_each_message_is_seen_once() {
    let lan = Lan::new(&["a"]);
    let (server, phone) = (lan.socket("a", "127.0.0.1:5060"), lan.socket("a", "127.0.0.1:7000"));
    let (listener, mut caller) = lan.inside("a", || {
        let listener = TcpListener::bind("[::1]:5060").unwrap();
        let caller = TcpStream::connect("[::1]:5060").unwrap();
        (listener, caller)
    });
    for ring in [8 << 20, 0] {
        let sockets: [UdpSocket; 2] = [server.try_clone().unwrap(), phone.try_clone().unwrap()];
        let mut to = caller.try_clone().unwrap();
        let (all, counters) = seen(&lan, on("lo", ring), 31, move || {
            for n in 0..10 {
                sockets[0].send_to(&message(n, 3000), "127.0.0.1:7000").unwrap();
                sockets[1].send_to(&message(n, 20), "127.0.0.1:5060").unwrap();
                to.write_all(&message(n, 200)).unwrap();
            }
            sockets[1].send_to(b"end", "127.0.0.1:5060").unwrap();
        });
        // Each exactly once, in whatever order the two transports deliver them.
        for n in 0..10 {
            for size in [3000, 20, 200] {
                assert_eq!(all.iter().filter(|s| s.payload == message(n, size)).count(), 1, "{n} {size} {counters:?}");
            }
        }
        assert_eq!(counters.seen, 31, "{counters:?}");
    }
    caller.flush().unwrap();
    drop(listener);
}

#[test]
fn an_interface_may_go_down_and_come_back_or_be_another() {
    let lan = Lan::new(&["a", "b"]);
    let space = (lan.space("a"), lan.space("b"));
    let ip = move |space: &str, what: &str| {
        let all = format!("-n {space} {what}");
        let done = std::process::Command::new("ip").args(all.split_whitespace()).status().unwrap();
        assert!(done.success(), "{all}");
    };
    for ring in [8 << 20, 0] {
        let (a, b) = space.clone();
        lan.block_on("a", move || async move {
            ip(&a, &format!("link add x0 type veth peer name x1 netns {b}"));
            ip(&a, "link set x0 up");
            ip(&b, "link set x1 up");
            ip(&a, "addr add 10.78.0.1/24 dev x0");
            ip(&b, "addr add 10.78.0.2/24 dev x1");
            let mut capture = Capture::with(on("x0", ring)).unwrap();
            let socket = UdpSocket::bind("0.0.0.0:5060").unwrap();
            let say = |text: &'static str| socket.send_to(text.as_bytes(), "10.78.0.2:7000");
            say("before").unwrap();
            let next =
                async |capture: &mut Capture| tokio::time::timeout(LONG, capture.next()).await.expect("nothing came");
            assert_eq!(next(&mut capture).await.unwrap().payload, b"before");
            ip(&a, "link set x0 down");
            ip(&a, "link set x0 up");
            say("after").unwrap();
            assert_eq!(next(&mut capture).await.unwrap().payload, b"after");
            // Deleted while up, or while down.
            if ring == 0 {
                ip(&a, "link set x0 down");
                assert!(tokio::time::timeout(std::time::Duration::from_millis(50), capture.next()).await.is_err());
            }
            ip(&a, "link del x0");
            let gone = next(&mut capture).await.unwrap_err();
            assert!(matches!(&gone, CaptureError::Gone { interface } if interface == "x0"), "{gone}");
            assert!(matches!(Capture::with(on("x0", ring)), Err(CaptureError::NoInterface { .. })));
        });
    }
}

#[test]
fn without_a_ring_it_goes_on_all_the_same() {
    let lan = Lan::new(&["a", "b"]);
    let (a, b) = (lan.socket("a", "10.77.0.1:5060"), lan.socket("b", "10.77.0.2:7000"));
    // More memory than the kernel gives.
    let (all, counters) = seen(&lan, on("eth0", usize::MAX / 2), 2, move || {
        a.send_to(b"one", "10.77.0.2:7000").unwrap();
        b.send_to(b"two", "10.77.0.1:5060").unwrap();
    });
    assert_eq!(all.iter().map(|s| &s.payload[..]).collect::<Vec<_>>(), [b"one", b"two"]);
    assert!(!counters.ring);
}

#[allow(unsafe_code)]
fn link_address(index: u32) -> nix::sys::socket::LinkAddr {
    use nix::sys::socket::SockaddrLike as _;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address lives over the call, is a sockaddr_ll as its family says, and has the given length.
    unsafe { nix::sys::socket::LinkAddr::from_raw((&raw const address).cast(), Some(length)) }.unwrap()
}

#[test]
fn frames_without_a_message_leave_others_their_turn() {
    const FRAMES: u64 = 10_000;
    let lan = std::sync::Arc::new(Lan::new(&["a", "b"]));
    let wire = std::sync::Arc::clone(&lan);
    let (all, first) = lan.block_on("a", move || async move {
        let mut capture = Capture::open("eth0", &[5060]).unwrap();
        // First fragments whose rest never comes: more than one block of the ring holds.
        let frames = vec![frame(&[], &v4(0x2000, &udp(5060, &[b'x'; 40]))); FRAMES as usize];
        tokio::task::spawn_blocking(move || send_frames(&wire, "b", frames)).await.unwrap();
        let end = tokio::time::Instant::now() + LONG;
        let mut first = None;
        while capture.counters().path.frames < FRAMES {
            assert!(tokio::time::Instant::now() < end, "{:?}", capture.counters());
            // Polled once: reads up to the end of a block, then yields.
            if capture.next().now_or_never().is_none() && first.is_none() {
                first = Some(capture.counters().path.frames).filter(|n| *n > 0);
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        (capture.counters().path.frames, first.unwrap())
    });
    assert!(first < FRAMES / 2, "{first} of {all} frames were read in one go");
}
