//! The kernel lease on real interfaces: what a LAN sees of a host while it holds its addresses, and after.
#![allow(clippy::unwrap_used, clippy::panic)]

mod netns;

use ipnet::IpNet;
use keepcall::clock;
use keepcall::time::Time;
use keepcall::vip::address::Addresses;
use keepcall::vip::announce::Announcer;
use keepcall::vip::kernel_lease::{Enforcement, KernelLease, KernelLeaseError};
use keepcall::vip::rawudp::RawUdp;
use netns::{Lan, stdout, until};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const V4: &str = "10.77.0.9";
const V6: &str = "fd77::9";
/// Long enough for an answer on a virtual wire, when none must come.
const QUIET: Duration = Duration::from_millis(150);
/// What a probe may be late by on a busy machine although the host answered in time: it is counted by when it was sent.
const SLACK: Duration = Duration::from_millis(5);

fn vips() -> Vec<IpAddr> {
    vec![V4.parse().unwrap(), V6.parse().unwrap()]
}

fn prefixes() -> Vec<IpNet> {
    vec!["10.77.0.9/24".parse().unwrap(), "fd77::9/64".parse().unwrap()]
}

fn soon(ms: u64) -> Time {
    clock::now() + Duration::from_millis(ms)
}

/// A LAN with a host that has the addresses, an echo on them, and the lease.
struct Scene {
    lan: Arc<Lan>,
    lease: Arc<KernelLease>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Scene {
    fn new(enforcement: Enforcement) -> Self {
        let lan = Arc::new(Lan::new(&["server", "client", "other"]));
        let over = Arc::new(AtomicBool::new(false));
        let lease = Arc::new(lease(enforcement));
        let mut scene = Self { lan, lease, over, threads: Vec::new() };
        scene.have_addresses("server");
        scene.echo("server");
        let found = scene.install();
        assert_eq!((found.enforcement, found.found, found.left), (enforcement, false, None));
        scene
    }

    fn have_addresses(&self, host: &str) {
        self.lan.block_on(host, || async { Addresses::open().unwrap().add("eth0", &prefixes()).await.unwrap() });
    }

    /// Answers each datagram on the addresses with itself.
    fn echo(&mut self, host: &str) {
        for ip in vips() {
            let socket = self.lan.socket(host, &SocketAddr::new(ip, 5060).to_string());
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let over = Arc::clone(&self.over);
            self.threads.push(std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while !over.load(Ordering::Relaxed) {
                    if let Ok((n, from)) = socket.recv_from(&mut buffer) {
                        // Refused once the hold is over.
                        let _ = socket.send_to(&buffer[..n], from);
                    }
                }
            }));
        }
    }

    fn install(&self) -> keepcall::vip::kernel_lease::Installed {
        let lease = Arc::clone(&self.lease);
        self.lan.block_on("server", move || async move { lease.install().await.unwrap() })
    }

    fn renew(&self, epoch: u64, until: Time) {
        let lease = Arc::clone(&self.lease);
        self.lan.inside("server", move || lease.renew(epoch, until).unwrap());
    }

    fn left(&self) -> Option<(u64, Time)> {
        let lease = Arc::clone(&self.lease);
        self.lan.inside("server", move || lease.left().unwrap())
    }

    /// Whether a host gets an answer from an address, without knowing beforehand whose it is if `anew`.
    fn answers(&self, from: &str, ip: &str, anew: bool) -> bool {
        if anew {
            self.lan.exec(from, &format!("ip neigh flush to {ip}"));
        }
        let to = SocketAddr::new(ip.parse().unwrap(), 5060);
        let socket = self.lan.socket(from, if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" });
        socket.set_read_timeout(Some(QUIET)).unwrap();
        let _ = socket.send_to(b"?", to);
        socket.recv_from(&mut [0; 8]).is_ok()
    }

    fn pings(&self, ip: &str) -> bool {
        self.lan.exec("client", &format!("ping -n -c 1 -W 0.2 {ip}")).status.success()
    }

    fn neighbour(&self, host: &str, ip: &str) -> Option<String> {
        let text = self.lan.ip(host, &format!("-j neigh show {ip} dev eth0"));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        json[0]["lladdr"].as_str().map(str::to_owned)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn lease(enforcement: Enforcement) -> KernelLease {
    let lease = KernelLease::new("test", "eth0", &vips());
    if enforcement == Enforcement::Netdev { lease } else { lease.without_netdev() }
}

/// All frames that a host gets, from now on.
struct Sniffer(Socket);

impl Sniffer {
    fn open(lan: &Lan, host: &str) -> Self {
        Self(lan.inside(host, || {
            let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(all)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        }))
    }

    /// How many frames came that say that they are from one of the addresses.
    fn from_vips(&mut self) -> usize {
        let (v4, v6) = (V4.parse::<std::net::Ipv4Addr>().unwrap().octets(), V6.parse::<std::net::Ipv6Addr>().unwrap().octets());
        let mut frame = [0; 2048];
        let mut count = 0;
        while let Ok(n) = self.0.read(&mut frame) {
            let f = &frame[..n];
            let at = |from: usize, bytes: &[u8]| f.get(from..from + bytes.len()) == Some(bytes);
            count += usize::from(match f.get(12..14) {
                Some([8, 6]) => at(28, &v4),
                Some([8, 0]) => at(26, &v4),
                // The source, or the target of an advertisement.
                Some([0x86, 0xdd]) => at(22, &v6) || (at(54, &[136]) && at(62, &v6)),
                _ => false,
            });
        }
        count
    }
}

fn both(test: impl Fn(Enforcement)) {
    test(Enforcement::Netdev);
    test(Enforcement::Fallback);
}

#[test]
fn the_lan_is_answered_while_the_hold_lasts_and_no_longer() {
    both(|enforcement| {
        let scene = Scene::new(enforcement);
        let all = |anew: bool| -> Vec<bool> {
            vec![scene.answers("client", V4, anew), scene.answers("client", V6, anew), scene.pings(V4), scene.pings(V6)]
        };
        assert_eq!(all(true), [false; 4], "{enforcement:?}: before the first hold");
        assert_eq!((scene.neighbour("client", V4), scene.neighbour("client", V6)), (None, None));
        scene.renew(3, soon(20_000));
        assert_eq!(all(true), [true; 4], "{enforcement:?}: held");
        assert_eq!(scene.neighbour("client", V4), Some(scene.lan.mac("server")));
        assert!(stdout(&scene.lan.exec("server", "nft list ruleset")).contains("comment \"epoch 3\""));
        // Lowered, and over by itself.
        scene.renew(3, soon(300));
        until("the hold is over", || scene.left().is_none());
        // The client knows the host's MAC still.
        assert_eq!(all(false), [false; 4], "{enforcement:?}: over");
        assert_eq!(all(true), [false; 4], "{enforcement:?}: over, asked anew");
        assert_eq!((scene.neighbour("client", V4), scene.neighbour("client", V6)), (None, None));
        // The host itself goes on as it did.
        assert!(scene.answers("server", V4, false) && scene.answers("server", V6, false), "loopback is closed");
        assert!(scene.lan.exec("client", "ping -n -c 1 -W 1 10.77.0.1").status.success());
        // And again; then ended at once.
        scene.renew(4, soon(20_000));
        assert_eq!(all(true), [true; 4], "{enforcement:?}: held again");
        scene.lease.end().unwrap();
        assert_eq!(all(false), [false; 4], "{enforcement:?}: ended");
    });
}
