//! A crowd of phones on one socket, for a thousand calls at a time. The crowd accepts every re-INVITE, and has no
//! audio.

use super::dialog::answer_route;
use super::message::{Message, Start, Writer};
use super::sdp::Own;
use crate::lan::Host;
use anyhow::{Context, Result};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Answers until dropped.
pub struct Crowd {
    /// Address of the crowd.
    pub at: SocketAddr,
    stop: Arc<AtomicBool>,
    invites: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Listens on this port of a host. The number of a call follows the last `~` of its Call-ID; `rtp_port` gives its
    /// RTP port.
    pub fn start(host: &Host, port: u16, rtp_port: fn(u16) -> u16) -> Result<Self> {
        let at = SocketAddr::from((host.ip4, port));
        let socket = host.enter(move || UdpSocket::bind(at).context("SIP port of the crowd"))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        // A window of re-INVITEs comes at once.
        socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20)?;
        let (stop, invites) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (s, i) = (stop.clone(), invites.clone());
        let thread = std::thread::spawn(move || {
            let mut buf = vec![0; 65_536];
            while !s.load(Ordering::Relaxed) {
                let Ok((n, from)) = socket.recv_from(&mut buf) else { continue };
                let Some((bytes, to)) = answer(&buf[..n], from, at, rtp_port, &i) else { continue };
                // The other side asks again after a lost answer.
                let _ = socket.send_to(&bytes, to);
            }
        });
        Ok(Self { at, stop, invites, thread: Some(thread) })
    }

    /// Number of answered INVITEs.
    pub fn invites(&self) -> usize {
        self.invites.load(Ordering::Relaxed)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

fn answer(
    bytes: &[u8],
    from: SocketAddr,
    at: SocketAddr,
    rtp_port: fn(u16) -> u16,
    invites: &AtomicUsize,
) -> Option<(Vec<u8>, SocketAddr)> {
    let m = Message::parse(bytes).ok().filter(|m| matches!(m.start, Start::Request(..)) && m.method() != "ACK")?;
    let (via, to) = answer_route(&m, from)?;
    let mut w = Writer::response(&m, 200, "OK", &via, None);
    if m.method() != "INVITE" {
        return Some((w.end(None), to));
    }
    invites.fetch_add(1, Ordering::Relaxed);
    let number: u16 = m.call_id().rsplit('~').next()?.parse().ok()?;
    w.header("Contact", &format!("<sip:crowd@{at}>"));
    let own = Own::new(u64::from(number) + 1, SocketAddr::new(at.ip(), rtp_port(number)));
    Some((w.end(Some(&own.text())), to))
}
