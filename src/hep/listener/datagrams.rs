//! HEP over UDP, with a count of the kernel's drops.

use super::{PAUSE, Shared};
use crate::hep::intake::Reported;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use socket2::Socket;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tracing::debug;

/// Largest UDP payload.
const DATAGRAM: usize = 65_535;

/// Asks the kernel to report with each datagram how many were dropped before it (`SO_RXQ_OVFL`).
pub(super) fn count_drops(socket: &Socket) {
    // Without it drops are not counted, and nothing else changes.
    let _ = setsockopt(socket, sockopt::RxqOvfl, &1);
}

struct Datagram {
    length: usize,
    source: SocketAddr,
    /// All drops of this socket so far.
    dropped: Option<u32>,
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut slices = [IoSliceMut::new(buffer)];
    let mut control = nix::cmsg_space!(u32);
    let got = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let dropped = got.cmsgs()?.find_map(|c| match c {
        ControlMessageOwned::RxqOvfl(count) => Some(count),
        _ => None,
    });
    let address = got.address.as_ref();
    let v4 = address.and_then(SockaddrStorage::as_sockaddr_in).map(|a| SocketAddr::from(*a));
    let source = v4.or_else(|| address.and_then(SockaddrStorage::as_sockaddr_in6).map(|a| SocketAddr::from(*a)));
    // Sockets of these families always report it. A datagram without a sender must not be trusted.
    let source = source.ok_or_else(|| io::Error::other("a datagram without a sender"))?;
    Ok(Datagram { length: got.bytes, source, dropped })
}

pub(super) async fn read(socket: UdpSocket, shared: Arc<Shared>, tx: mpsc::Sender<Reported>) {
    let mut buffer = vec![0; DATAGRAM];
    let mut seen = 0_u32;
    loop {
        let datagram = match socket.async_io(Interest::READABLE, || receive(&socket, &mut buffer)).await {
            Ok(datagram) => datagram,
            Err(e) => {
                debug!(instance = shared.instance, "cannot receive HEP, trying again: {e}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        #[cfg(feature = "faults")]
        crate::faults::point("hep");
        if let Some(dropped) = datagram.dropped {
            // The kernel's count wraps around at 2^32.
            shared.intake().counters.dropped += u64::from(dropped.wrapping_sub(seen));
            seen = dropped;
        }
        let (report, _) = shared.take(&buffer[..datagram.length], datagram.source.ip());
        if let Some(report) = report
            && tx.send(report).await.is_err()
        {
            return;
        }
    }
}
