//! Sockets for servers that report their SIP messages.

use super::intake::{Counters, Intake, IntakeResult, ReportedMessage, Rules};
use super::{Framer, Reorder, idle_timeout::IdleTimeout};
use crate::config::{Carrier, HepAddress};
use crate::os::{clock, datagram, interface};
use crate::sync::Locked as _;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{debug, warn};

mod datagrams;

/// Reports that may wait for the instance's loop. Beyond it datagrams wait in the kernel, and streams at their sender.
const WAITING: usize = 1024;
/// Kernel buffer for waiting datagrams: some thousand at 1 kB a message, as for the capture.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Most connections to one socket. A server needs one for each of its processes.
const MAX_CONNECTIONS: usize = 64;
/// Connections that the kernel queues until they are accepted.
const BACKLOG: i32 = 64;
/// Silence of a peer before the first keep-alive probe, and the interval between probes.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Pause after a failed read or accept (out of descriptors, say), so that no error spins.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes per read of a stream.
const CHUNK: usize = 16 * 1024;

/// A HEP socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for HEP on {listen}: {source}; {advice}")]
pub struct HepOpenError {
    listen: HepAddress,
    source: io::Error,
    advice: &'static str,
}

struct Shared {
    instance: String,
    intake: Mutex<Intake>,
}

impl Shared {
    fn intake(&self) -> MutexGuard<'_, Intake> {
        // The intake holds counters and rules, which no panic leaves half changed.
        self.intake.locked()
    }

    /// The report in a packet, and whether its sender may continue.
    fn take(&self, packet: &[u8], source: IpAddr) -> (Option<ReportedMessage>, bool) {
        let taken = self.intake().take(packet, source, clock::now());
        match taken {
            IntakeResult::Report(report) => (Some(report), true),
            IntakeResult::PassedOver => (None, true),
            IntakeResult::Refused { why, tell } => {
                if tell {
                    warn!(instance = self.instance, "ignoring HEP: {why}");
                } else {
                    debug!(instance = self.instance, "ignoring HEP: {why}");
                }
                (None, !why.is_stranger())
            }
        }
    }
}

/// The bound sockets of one instance. Several listeners may share them, and the latest one must be the only one.
#[derive(Debug)]
pub struct Sockets(Vec<(HepAddress, Socket)>);

impl Sockets {
    /// Binds each of `listen`.
    ///
    /// # Errors An address cannot be bound.
    pub fn bind(listen: &[HepAddress]) -> Result<Self, HepOpenError> {
        let one = |at: HepAddress| {
            let socket = match at.carrier {
                Carrier::Udp => udp(at.address),
                Carrier::Tcp => tcp(at.address),
            }
            .map_err(|source| failed(at, source))?;
            let address = socket.local_addr().ok().and_then(|a| a.as_socket()).unwrap_or(at.address);
            Ok((HepAddress { carrier: at.carrier, address }, socket))
        };
        listen.iter().map(|at| one(*at)).collect::<Result<_, _>>().map(Self)
    }
}

fn failed(listen: HepAddress, source: io::Error) -> HepOpenError {
    HepOpenError {
        listen,
        advice: match source.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there: give each instance an address and port of its own"
            }
            io::ErrorKind::AddrNotAvailable => {
                "this host does not have the address: listen on 127.0.0.1 if the server is here"
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE",
            _ => "choose another address or port in `listen` of [instance.sip.hep]",
        },
        source,
    }
}

/// All HEP sockets of one instance.
pub struct Listener {
    reports: mpsc::Receiver<ReportedMessage>,
    patience: Reorder,
    shared: Arc<Shared>,
    addresses: Vec<HepAddress>,
    /// The tasks and their connections end when this is dropped.
    _tasks: JoinSet<()>,
}

impl Listener {
    /// Listens on each of `listen`. Needs a tokio runtime. `instance` is for messages.
    ///
    /// # Errors An address cannot be bound.
    pub fn open(instance: &str, listen: &[HepAddress], rules: Rules) -> Result<Self, HepOpenError> {
        Self::start(instance, &Sockets::bind(listen)?, rules)
    }

    /// Listens on these sockets. Needs a tokio runtime. `instance` is for messages.
    ///
    /// # Errors The system has no more descriptors.
    pub fn start(instance: &str, sockets: &Sockets, rules: Rules) -> Result<Self, HepOpenError> {
        let shared = Arc::new(Shared { instance: instance.to_owned(), intake: Mutex::new(Intake::new(rules)) });
        let (tx, reports) = mpsc::channel(WAITING);
        let mut tasks = JoinSet::new();
        let mut bound = Vec::new();
        for (at, socket) in &sockets.0 {
            let failed = |source: io::Error| failed(*at, source);
            let own = socket.try_clone().map_err(failed)?;
            let (shared, tx) = (Arc::clone(&shared), tx.clone());
            match at.carrier {
                Carrier::Udp => {
                    let socket = UdpSocket::from_std(own.into()).map_err(failed)?;
                    tasks.spawn(datagrams::read(socket, shared, tx));
                }
                Carrier::Tcp => {
                    let socket = TcpListener::from_std(own.into()).map_err(failed)?;
                    tasks.spawn(accept(socket, shared, tx));
                }
            }
            bound.push(*at);
        }
        Ok(Self { reports, patience: Reorder::default(), shared, addresses: bound, _tasks: tasks })
    }

    /// Listening addresses in the order of `listen`. Port 0 is replaced by the system's choice.
    #[must_use]
    pub fn addresses(&self) -> &[HepAddress] {
        &self.addresses
    }

    /// The next report. Cancel safe.
    pub async fn next(&mut self) -> ReportedMessage {
        loop {
            if let Some(report) = self.patience.pop(clock::now()) {
                return report;
            }
            let due = self.patience.next_deadline();
            tokio::select! {
                Some(report) = self.reports.recv() => self.patience.push(report, clock::now()),
                () = clock_at(due) => {}
            }
        }
    }

    /// Counters of the input by result.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.intake().counters
    }
}

/// This host's current addresses, loopback included. A server on it may report any of them as its own.
#[must_use]
pub fn own_addresses() -> Vec<IpAddr> {
    let mut out = interface::addresses().unwrap_or_default();
    out.sort();
    out.dedup();
    out
}

async fn clock_at(due: Option<crate::time::Time>) {
    match due {
        Some(at) => tokio::time::sleep_until(clock::tokio_at(at)).await,
        None => std::future::pending().await,
    }
}

fn bound(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), Some(protocol))?;
    if address.is_ipv6() {
        // [::] must not take 0.0.0.0, which may be configured beside it.
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // Connections of an earlier process must not hold the port for a minute.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn udp(address: SocketAddr) -> io::Result<Socket> {
    let socket = bound(address, Type::DGRAM, Protocol::UDP)?;
    // As much as the host allows. Overflows of a smaller buffer are counted.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    datagram::count_drops(&socket);
    Ok(socket)
}

fn tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = bound(address, Type::STREAM, Protocol::TCP)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

async fn accept(socket: TcpListener, shared: Arc<Shared>, tx: mpsc::Sender<ReportedMessage>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    debug!(instance = shared.instance, "cannot accept a HEP connection: {e}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let admitted = shared.intake().admit(peer.ip(), clock::now());
        if let Err((why, tell)) = admitted {
            if tell {
                warn!(instance = shared.instance, "refusing a HEP connection: {why}");
            }
            continue;
        }
        if connections.len() >= MAX_CONNECTIONS {
            shared.intake().counters.refused += 1;
            debug!(instance = shared.instance, %peer, "refusing a HEP connection: {MAX_CONNECTIONS} are open");
            continue;
        }
        connections.spawn(connection(stream, peer, Arc::clone(&shared), tx.clone()));
    }
}

async fn connection(mut stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>, tx: mpsc::Sender<ReportedMessage>) {
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
    // Without it a vanished peer is detected by the idle timeout.
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keep_alive);
    let mut framer = Framer::default();
    let mut buffer = vec![0; CHUNK];
    let mut leash = IdleTimeout::new(clock::now());
    loop {
        let read = match tokio::time::timeout_at(clock::tokio_at(leash.end()), stream.read(&mut buffer)).await {
            Ok(Ok(0)) => return,
            Ok(Ok(read)) => read,
            Ok(Err(e)) => {
                debug!(instance = shared.instance, %peer, "a HEP connection broke: {e}");
                return;
            }
            Err(_) => {
                debug!(instance = shared.instance, %peer, "closing a HEP connection: no packet for too long");
                return;
            }
        };
        framer.push(&buffer[..read]);
        let mut packets = false;
        loop {
            match framer.next_packet() {
                Ok(Some(packet)) => {
                    let (report, goes_on) = shared.take(packet, peer.ip());
                    if !goes_on {
                        return;
                    }
                    packets = true;
                    if let Some(report) = report
                        && tx.send(report).await.is_err()
                    {
                        return;
                    }
                }
                Ok(None) => break,
                Err(e) => {
                    shared.intake().counters.malformed += 1;
                    debug!(instance = shared.instance, %peer, "closing a HEP connection: {e}");
                    return;
                }
            }
        }
        leash.read(packets, framer.is_amid(), clock::now());
    }
}
