//! The agent's own SIP sockets: the recovery port on each virtual address, bound before the address is here.

use crate::calls::model::{Packet, Transport};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// Datagrams that may wait for the instance's loop; a phone retransmits what is dropped beyond that.
const WAITING: usize = 1024;
/// The largest UDP payload there is.
const DATAGRAM: usize = 65_535;
/// Room for the answers of a thousand phones at once.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The recovery port could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot use UDP port {port} of {address} as recovery port: {source}; {advice}")]
pub struct RecoveryPortError {
    address: IpAddr,
    port: u16,
    source: io::Error,
    advice: &'static str,
}

/// A datagram that reached the recovery port.
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

/// One socket for each virtual address, all read into one queue.
#[derive(Debug)]
pub(super) struct RecoverySockets {
    sockets: Vec<(SocketAddr, Arc<UdpSocket>)>,
    queue: mpsc::Receiver<Datagram>,
    readers: Vec<tokio::task::JoinHandle<()>>,
}

impl RecoverySockets {
    pub(super) fn open(vips: &[IpAddr], port: u16) -> Result<Self, RecoveryPortError> {
        let (tx, queue) = mpsc::channel(WAITING);
        let mut sockets = Vec::new();
        let mut readers = Vec::new();
        for &address in vips {
            let local = SocketAddr::new(address, port);
            let socket = bind(local).map_err(|source| RecoveryPortError {
                address,
                port,
                advice: match source.kind() {
                    io::ErrorKind::AddrInUse => {
                        "another program listens there: choose another `recovery_port` in [instance.sip], or stop that program"
                    }
                    io::ErrorKind::PermissionDenied => "run the agent as root or with CAP_NET_ADMIN",
                    _ => "check `addresses` and `recovery_port`",
                },
                source,
            })?;
            let socket = Arc::new(socket);
            readers.push(tokio::spawn(read(local, Arc::clone(&socket), tx.clone())));
            sockets.push((local, socket));
        }
        Ok(Self { sockets, queue, readers })
    }

    pub(super) async fn next(&mut self) -> Option<Datagram> {
        self.queue.recv().await
    }

    /// Sends from the recovery port of `from`'s address; false if that is not one of ours.
    pub(super) async fn send(&self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> io::Result<bool> {
        match self.sockets.iter().find(|(local, _)| *local == from) {
            Some((_, socket)) => socket.send_to(payload, to).await.map(|_| true),
            None => Ok(false),
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

fn bind(local: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    // The kernel caps this at net.core.rmem_max; less is worse but works.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    socket.bind(&local.into())?;
    UdpSocket::from_std(socket.into())
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
            // An ICMP error of an earlier send shows up here; the socket itself goes on. The pause bounds what a lasting error costs.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}
