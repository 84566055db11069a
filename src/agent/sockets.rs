//! The agent's own SIP sockets: the recovery port on each virtual address, bound before the address arrives.

use super::part::Licence;
use crate::sip::Transport;
use crate::wire::Packet;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// Datagrams that may wait for the instance's loop. Beyond this they are dropped, and the phone retransmits.
const WAITING: usize = 1024;
/// The largest UDP payload.
const DATAGRAM: usize = 65_535;
/// Room for the answers of a thousand phones at once.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The recovery port is not available.
#[derive(Debug, thiserror::Error)]
#[error("cannot use UDP port {port} of {address} as the recovery port: {source}; {advice}")]
pub struct RecoveryPortError {
    address: IpAddr,
    port: u16,
    source: io::Error,
    advice: &'static str,
}

/// A datagram from the recovery port.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
    pub(super) payload: Vec<u8>,
}

impl Datagram {
    pub(super) fn packet(&self) -> Packet<'_> {
        Packet { src: self.src, dst: self.dst, transport: Transport::Udp, payload: &self.payload }
    }
}

/// One socket per virtual address, all read into one queue.
#[derive(Debug)]
pub(super) struct RecoverySockets {
    sockets: Vec<(SocketAddr, Arc<UdpSocket>)>,
    queue: mpsc::Receiver<Datagram>,
    readers: Vec<tokio::task::JoinHandle<()>>,
}

/// The recovery port of each address, bound once for all runs of the part that reads it.
#[derive(Debug)]
pub(super) struct RecoveryPort(Vec<(SocketAddr, std::net::UdpSocket)>);

impl RecoveryPort {
    pub(super) fn bind(vips: &[IpAddr], port: u16) -> Result<Self, RecoveryPortError> {
        let mut sockets = Vec::new();
        for &address in vips {
            let local = SocketAddr::new(address, port);
            let socket = bind(local).map_err(|source| RecoveryPortError {
                address,
                port,
                advice: match source.kind() {
                    io::ErrorKind::AddrInUse => {
                        "another program listens on the port: choose another `recovery_port` in [instance.sip], or \
                         stop that program"
                    }
                    io::ErrorKind::PermissionDenied => "give the agent CAP_NET_ADMIN, or run it as root",
                    _ => "check `addresses` and `recovery_port`",
                },
                source,
            })?;
            sockets.push((local, socket));
        }
        Ok(Self(sockets))
    }
}

impl RecoverySockets {
    /// Reads the port in the caller's runtime.
    pub(super) fn start(port: &RecoveryPort) -> io::Result<Self> {
        let (tx, queue) = mpsc::channel(WAITING);
        let (mut sockets, mut readers) = (Vec::new(), Vec::new());
        for (local, socket) in &port.0 {
            let socket = Arc::new(UdpSocket::from_std(socket.try_clone()?)?);
            readers.push(tokio::spawn(read(*local, Arc::clone(&socket), tx.clone())));
            sockets.push((*local, socket));
        }
        Ok(Self { sockets, queue, readers })
    }

    pub(super) async fn next(&mut self) -> Option<Datagram> {
        self.queue.recv().await
    }

    /// Sends from the recovery port of `from`'s address while the licence is valid. Returns false if `from` is not a
    /// recovery port.
    pub(super) async fn send(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
        licence: &Licence,
    ) -> io::Result<bool> {
        let Some((_, socket)) = self.sockets.iter().find(|(local, _)| *local == from) else { return Ok(false) };
        loop {
            socket.writable().await?;
            match licence.act(|| socket.try_send_to(payload, to)) {
                Some(Err(e)) if e.kind() == io::ErrorKind::WouldBlock => {}
                Some(sent) => return sent.map(|_| true),
                None => return Ok(true),
            }
        }
    }
}

impl Drop for RecoverySockets {
    fn drop(&mut self) {
        for reader in &self.readers {
            reader.abort();
        }
    }
}

fn bind(local: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    // The kernel caps the size at net.core.rmem_max. A smaller buffer still works.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    socket.bind(&local.into())?;
    Ok(socket.into())
}

async fn read(local: SocketAddr, socket: Arc<UdpSocket>, queue: mpsc::Sender<Datagram>) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((n, src)) => {
                let datagram = Datagram { src, dst: local, payload: buffer[..n].to_vec() };
                if queue.send(datagram).await.is_err() {
                    return;
                }
            }
            // An ICMP error of an earlier send appears here, and the socket still works. The pause limits the cost of a
            // lasting error.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}
