//! A LAN with a host that holds addresses, and probes of that host from outside.

use ipnet::IpNet;
use keepcall::os::clock;
use keepcall::time::Time;
use keepcall::vip::address::Addresses;
use keepcall::vip::kernel_lease::{Enforcement, KernelLease};
use lab::netns::Lan;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) const V4: &str = "10.77.0.9";
pub(crate) const V6: &str = "fd77::9";
/// Long enough for an answer on a virtual wire; used where none may come.
pub(crate) const QUIET: Duration = Duration::from_millis(150);
/// A busy machine may delay a probe by this much although the host answered in time: a probe counts at its sending
/// time.
pub(crate) const SLACK: Duration = Duration::from_millis(5);

pub(crate) fn vips() -> Vec<IpAddr> {
    vec![V4.parse().unwrap(), V6.parse().unwrap()]
}

pub(crate) fn prefixes() -> Vec<IpNet> {
    vec!["10.77.0.9/24".parse().unwrap(), "fd77::9/64".parse().unwrap()]
}

pub(crate) fn soon(ms: u64) -> Time {
    clock::now() + Duration::from_millis(ms)
}

/// A LAN with a host that has the addresses, an echo on them, and the lease.
pub(crate) struct Scene {
    pub(crate) lan: Arc<Lan>,
    pub(crate) lease: Arc<KernelLease>,
    pub(crate) over: Arc<AtomicBool>,
    pub(crate) threads: Vec<JoinHandle<()>>,
}

impl Scene {
    pub(crate) fn new(enforcement: Enforcement) -> Self {
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

    pub(crate) fn have_addresses(&self, host: &str) {
        self.lan.block_on(host, || async { Addresses::open().unwrap().add("eth0", &prefixes()).await.unwrap() });
    }

    /// Echoes each datagram sent to the addresses.
    pub(crate) fn echo(&mut self, host: &str) {
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

    pub(crate) fn install(&self) -> keepcall::vip::kernel_lease::Installed {
        let lease = Arc::clone(&self.lease);
        self.lan.block_on("server", move || async move { lease.install().await.unwrap() })
    }

    pub(crate) fn renew(&self, epoch: u64, until: Time) {
        let lease = Arc::clone(&self.lease);
        self.lan.inside("server", move || lease.renew(epoch, until).unwrap());
    }

    pub(crate) fn left(&self) -> Option<(u64, Time)> {
        let lease = Arc::clone(&self.lease);
        self.lan.inside("server", move || lease.left().unwrap())
    }

    /// Whether a host gets an answer from an address; `anew` clears its neighbour entry first.
    pub(crate) fn answers(&self, from: &str, ip: &str, anew: bool) -> bool {
        if anew {
            self.lan.exec(from, &format!("ip neigh flush to {ip}"));
        }
        let to = SocketAddr::new(ip.parse().unwrap(), 5060);
        let socket = self.lan.socket(from, if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" });
        socket.set_read_timeout(Some(QUIET)).unwrap();
        let _ = socket.send_to(b"?", to);
        socket.recv_from(&mut [0; 8]).is_ok()
    }

    /// Whether the client gets an echo reply.
    pub(crate) fn pings(&self, ip: &str) -> bool {
        let ip: IpAddr = ip.parse().unwrap();
        self.lan.inside("client", move || {
            let (domain, protocol, request, reply) = match ip {
                IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
                IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
            };
            let mut socket = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
            socket.set_read_timeout(Some(QUIET)).unwrap();
            // Number and sequence are zero, so the checksum only covers the type; for IPv6 the kernel writes it.
            let mut packet = [0_u8; 8];
            packet[0] = request;
            packet[2] = !request;
            packet[3] = 0xff;
            let _ = socket.send_to(&packet, &SocketAddr::new(ip, 0).into());
            let end = std::time::Instant::now() + QUIET;
            let mut buffer = [0; 256];
            while std::time::Instant::now() < end {
                let Ok(n) = socket.read(&mut buffer) else { return false };
                // A raw IPv4 socket also gets the IP header.
                let kind = if ip.is_ipv4() { buffer[..n].get(20) } else { buffer[..n].first() };
                if kind == Some(&reply) {
                    return true;
                }
            }
            false
        })
    }

    pub(crate) fn neighbour(&self, host: &str, ip: &str) -> Option<String> {
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

pub(crate) fn lease(enforcement: Enforcement) -> KernelLease {
    let lease = KernelLease::new("test", "eth0", &vips());
    if enforcement == Enforcement::Netdev { lease } else { lease.without_netdev() }
}

/// All frames that reach a host, from now on.
pub(crate) struct Sniffer(Socket);

impl Sniffer {
    pub(crate) fn open(lan: &Lan, host: &str) -> Self {
        Self(lan.inside(host, || {
            let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(all)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        }))
    }

    /// The number of frames that claim to come from one of the addresses.
    pub(crate) fn told_by_vips(&mut self) -> usize {
        let (v4, v6) =
            (V4.parse::<std::net::Ipv4Addr>().unwrap().octets(), V6.parse::<std::net::Ipv6Addr>().unwrap().octets());
        let mut frame = [0; 2048];
        let mut count = 0;
        while let Ok(n) = self.0.read(&mut frame) {
            let f = &frame[..n];
            let at = |from: usize, bytes: &[u8]| f.get(from..from + bytes.len()) == Some(bytes);
            count += usize::from(match f.get(12..14) {
                Some([8, 6]) => at(28, &v4),
                Some([8, 0]) => at(26, &v4),
                // The source address, or the target of an advertisement.
                Some([0x86, 0xdd]) => at(22, &v6) || (at(54, &[136]) && at(62, &v6)),
                _ => false,
            });
        }
        count
    }
}

/// Results of the probes of an address.
pub(crate) struct Probed {
    /// Sending time of the last answered probe.
    pub(crate) last: Option<Time>,
    /// Sending time of the probe after it.
    pub(crate) next: Option<Time>,
    /// Unanswered probes among those sent before `last`.
    pub(crate) missed: usize,
}

/// Probes an address each millisecond.
pub(crate) fn probe(scene: &Scene, ip: &str, over: &Arc<AtomicBool>) -> JoinHandle<Probed> {
    let to = SocketAddr::new(ip.parse().unwrap(), 5060);
    let socket = scene.lan.socket("client", if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" });
    socket.set_nonblocking(true).unwrap();
    let over = Arc::clone(over);
    std::thread::spawn(move || {
        let mut sent: Vec<(Time, bool)> = Vec::new();
        let mut buffer = [0; 16];
        let mut take = |socket: &UdpSocket, sent: &mut Vec<(Time, bool)>| {
            while let Ok((8, _)) = socket.recv_from(&mut buffer) {
                let number = u64::from_be_bytes(*buffer.first_chunk().unwrap());
                sent[number as usize].1 = true;
            }
        };
        while !over.load(Ordering::Relaxed) {
            let number = (sent.len() as u64).to_be_bytes();
            sent.push((clock::now(), false));
            let _ = socket.send_to(&number, to);
            take(&socket, &mut sent);
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(QUIET);
        take(&socket, &mut sent);
        let last = sent.iter().rposition(|(_, answered)| *answered);
        let missed = last.map_or(sent.len(), |last| sent[..last].iter().filter(|(_, answered)| !answered).count());
        let next = last.and_then(|n| sent.get(n + 1)).map(|s| s.0);
        Probed { last: last.map(|n| sent[n].0), missed, next }
    })
}
