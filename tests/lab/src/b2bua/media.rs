//! The media of one call of the lab's B2BUA: two sockets on the VIP. What one socket receives, the other sends on.

use super::{Host, Targets};
use anyhow::{Context, Result};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::PoisonError;
use tokio::task::JoinHandle;

/// A socket on a host.
pub(super) fn bind(host: &Host, at: SocketAddr) -> Result<tokio::net::UdpSocket> {
    let socket = host.enter(move || {
        let socket = UdpSocket::bind(at).with_context(|| format!("cannot bind {at}"))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })?;
    Ok(tokio::net::UdpSocket::from_std(socket)?)
}

/// The relay of one call. It ends when dropped.
pub(super) struct Relay {
    targets: Targets,
    task: JoinHandle<()>,
}

impl Relay {
    pub(super) fn start(host: &Host, at: [SocketAddr; 2]) -> Result<Self> {
        let (a, b) = (bind(host, at[0])?, bind(host, at[1])?);
        let targets = Targets::default();
        let shared = Arc::clone(&targets);
        let task = tokio::spawn(async move {
            let (mut one, mut two) = ([0; 2048], [0; 2048]);
            loop {
                let (bytes, leg) = tokio::select! {
                    r = a.recv_from(&mut one) => (r.map(|(n, _)| one[..n].to_vec()), 0),
                    r = b.recv_from(&mut two) => (r.map(|(n, _)| two[..n].to_vec()), 1),
                };
                let to = shared.lock().unwrap_or_else(PoisonError::into_inner)[1 - leg];
                if let (Ok(bytes), Some(to)) = (bytes, to) {
                    // The send fails while the host is cut off, as on any server.
                    let _ = if leg == 0 { b.send_to(&bytes, to).await } else { a.send_to(&bytes, to).await };
                }
            }
        });
        Ok(Self { targets, task })
    }

    /// Sets the audio address of a leg's phone.
    pub(super) fn send_to(&self, leg: usize, to: Option<SocketAddr>) {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)[leg] = to;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
