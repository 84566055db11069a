//! SIP over real TCP connections.

use keepcall::sip::Transport;
use keepcall::wire::capture::{Capture, CaptureCounters, CaptureSettings, Captured};
use lab::netns::{LONG, Lan};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

pub(crate) fn message(n: usize, body: usize) -> Vec<u8> {
    let head = format!("INFO sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP x\r\nCall-ID: {n}\r\nContent-Length: {body}\r\n\r\n");
    [head.into_bytes(), vec![b'x'; body]].concat()
}

/// Captures in host `a` while `traffic` runs, until this many messages were seen.
pub(crate) fn seen(
    lan: &Lan,
    settings: CaptureSettings,
    count: usize,
    traffic: impl FnOnce() + Send + 'static,
) -> (Vec<Captured>, CaptureCounters) {
    lan.block_on("a", move || async move {
        let mut capture = Capture::with(settings).unwrap();
        let traffic = std::thread::spawn(traffic);
        let mut all = Vec::new();
        while all.len() < count {
            let next = tokio::time::timeout(LONG, capture.next()).await;
            all.push(
                next.unwrap_or_else(|_| panic!("only {} seen; {:?}; {:?}", all.len(), capture.counters(), brief(&all)))
                    .unwrap(),
            );
        }
        traffic.join().unwrap();
        (all, capture.counters())
    })
}

/// Source, destination and beginning of each message, for a failure's text.
fn brief(all: &[Captured]) -> Vec<String> {
    let head = |s: &Captured| String::from_utf8_lossy(&s.payload[..s.payload.len().min(60)]).into_owned();
    all.iter().map(|s| format!("{} {} {} {}", s.src, s.dst, s.payload.len(), head(s))).collect()
}

pub(crate) fn on(interface: &str, ring: usize) -> CaptureSettings {
    CaptureSettings { interface: interface.to_owned(), ports: vec![5060], hosts: Vec::new(), ring }
}

/// A connection between the hosts with segments of at most `mss` bytes: the phone's end in `b`, the server's in `a`.
fn connection(lan: &Lan, ip: &str, mss: u32) -> (TcpStream, TcpStream) {
    let at: SocketAddr = format!("{ip}:5060").parse().unwrap();
    let listener = lan.inside("a", move || TcpListener::bind(at).unwrap());
    let phone = lan.inside("b", move || {
        let domain = if at.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
        if mss > 0 {
            socket.set_tcp_mss(mss).unwrap();
        }
        socket.connect(&at.into()).unwrap();
        TcpStream::from(socket)
    });
    let (server, _) = listener.accept().unwrap();
    (phone, server)
}

#[test]
fn messages_of_a_connection_come_whole_both_ways() {
    let lan = Lan::new(&["a", "b"]);
    for ip in ["10.77.0.1", "[fd77::1]"] {
        // Small segments, and segments of up to 64 kB that the network card would split; the latter also without a
        // ring.
        for (mss, ring) in [(88, 8 << 20), (0, 8 << 20), (0, 0)] {
            let sizes: Vec<usize> = (0..60).map(|n| [0, 700, 3000, 60_000][n % 4]).collect();
            let (total, sent) = (sizes.len(), sizes.clone());
            let (mut phone, mut server) = connection(&lan, ip, mss);
            let (all, counters) = seen(&lan, on("eth0", ring), 2 * total, move || {
                let bytes: Vec<u8> = sent.iter().enumerate().flat_map(|(n, size)| message(n, *size)).collect();
                let length = bytes.len();
                let read =
                    |mut from: TcpStream| std::thread::spawn(move || from.read_exact(&mut vec![0; length]).unwrap());
                let readers = [read(phone.try_clone().unwrap()), read(server.try_clone().unwrap())];
                phone.write_all(&bytes).unwrap();
                server.write_all(&bytes).unwrap();
                readers.into_iter().for_each(|r| r.join().unwrap());
            });
            let host: IpAddr = ip.trim_matches(['[', ']']).parse().unwrap();
            for to_server in [true, false] {
                let way: Vec<&Captured> = all.iter().filter(|s| (s.dst.ip() == host) == to_server).collect();
                assert_eq!(way.len(), total);
                assert!(way.iter().enumerate().all(|(n, s)| s.payload == message(n, sizes[n])), "{ip} {mss} {ring}");
                assert!(way.iter().all(|s| s.transport == Transport::Tcp));
            }
            assert_eq!((counters.dropped, counters.malformed, counters.cut, counters.path.tcp.gaps), (0, 0, 0, 0));
            assert_eq!((counters.ring, counters.path.tcp.skipped), (ring > 0, 0));
        }
    }
}

#[test]
fn only_the_named_hosts_are_seen() {
    let lan = Lan::new(&["a", "b"]);
    lan.ip("a", "addr add 10.77.0.50/24 dev eth0");
    lan.ip("a", "addr add fd77::50/64 dev eth0 nodad");
    let from = ["10.77.0.1", "10.77.0.50", "[fd77::1]", "[fd77::50]"].map(|ip| lan.socket("a", &format!("{ip}:5060")));
    let phones = ["10.77.0.2", "[fd77::2]"].map(|ip| lan.socket("b", &format!("{ip}:7000")));
    let hosts = ["10.77.0.9", "10.77.0.50", "fd77::9", "fd77::50"].map(|ip| ip.parse().unwrap()).to_vec();
    let big = message(1, 4000);
    let sent = big.clone();
    let (all, counters) = seen(&lan, CaptureSettings { hosts, ..on("eth0", 8 << 20) }, 8, move || {
        for (n, socket) in from.iter().enumerate() {
            for text in [&sent[..], b"small"] {
                socket.send_to(text, phones[n / 2].local_addr().unwrap()).unwrap();
                phones[n / 2].send_to(text, socket.local_addr().unwrap()).unwrap();
            }
        }
    });
    assert!(
        all.iter().all(|s| s.src.to_string().contains("50]:5060")
            || s.src.to_string().contains("0.50:")
            || s.dst.to_string().contains("50")),
        "{all:?}"
    );
    assert_eq!(all.iter().filter(|s| s.payload == big).count(), 4);
    // The kernel filtered out the rest, fragments included.
    assert_eq!(counters.path.other, 0, "{counters:?}");
}
