//! The SIP of the live measurement: each message leaves its sender's socket at its time, and its receiver reads it.

use super::super::traffic::{Places, Traffic};
use anyhow::{Context as _, Result, bail};
use lab::lan::Host;
use lab::phone::message::{Message, Writer};
use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A message that leaves later than this after its time counts as late.
const LATE: Duration = Duration::from_millis(20);
/// Room for messages that nobody has read yet.
const BUFFER: usize = 1 << 20;

/// The sockets of the server and of all phones.
pub(super) struct Signalling {
    sockets: HashMap<SocketAddr, UdpSocket>,
}

/// When each message left.
pub(super) struct Left {
    start: Instant,
    at: Vec<Instant>,
    due: Vec<Duration>,
}

impl Left {
    pub(super) fn len(&self) -> usize {
        self.at.len()
    }

    /// When message number `n` left.
    pub(super) fn at(&self, n: usize) -> Option<Instant> {
        self.at.get(n).copied()
    }

    pub(super) fn late(&self) -> usize {
        self.at
            .iter()
            .zip(&self.due)
            .filter(|(at, due)| at.saturating_duration_since(self.start + **due) > LATE)
            .count()
    }
}

impl Signalling {
    pub(super) fn new(server: &Host, phones: [&Host; 2], places: &Places) -> Result<Self> {
        let mut wanted = vec![(server.clone(), places.server)];
        for n in 0..usize::from(places.ports) {
            wanted.push((phones[0].clone(), places.caller(n)));
            wanted.push((phones[1].clone(), places.called(n)));
        }
        let mut sockets = HashMap::new();
        for (host, at) in wanted {
            let socket = host.enter(move || {
                let socket = UdpSocket::bind(at).with_context(|| format!("cannot bind {at}"))?;
                socket.set_nonblocking(true)?;
                socket2::SockRef::from(&socket).set_recv_buffer_size(BUFFER)?;
                Ok(socket)
            })?;
            sockets.insert(at, socket);
        }
        Ok(Self { sockets })
    }

    /// A start that is soon, but leaves time to prepare.
    pub(super) fn start_time(&self) -> Instant {
        Instant::now() + Duration::from_millis(200)
    }

    /// Sends all messages, each at its time after `start`. Every message has to arrive.
    pub(super) fn send(&self, traffic: &Traffic, start: Instant) -> Result<Left> {
        let mut left = Left { start, at: Vec::with_capacity(traffic.len()), due: Vec::with_capacity(traffic.len()) };
        let (mut open, mut arrived) = (Vec::new(), 0);
        for (sent, bytes) in traffic.messages() {
            let wait = (start + sent.at).saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                arrived += self.read(&mut open);
                std::thread::sleep(wait);
            }
            let socket = self.sockets.get(&sent.src).with_context(|| format!("no socket for {}", sent.src))?;
            left.at.push(Instant::now());
            left.due.push(sent.at);
            socket
                .send_to(bytes, sent.dst)
                .with_context(|| format!("cannot send from {} to {}", sent.src, sent.dst))?;
            open.push(sent.dst);
        }
        let end = Instant::now() + Duration::from_secs(2);
        while arrived < traffic.len() && Instant::now() < end {
            arrived += self.sockets.values().map(drain).sum::<usize>();
        }
        if arrived != traffic.len() {
            bail!("{arrived} of {} messages arrived", traffic.len());
        }
        Ok(left)
    }

    /// Reads everything that has arrived at these sockets.
    fn read(&self, open: &mut Vec<SocketAddr>) -> usize {
        open.sort_unstable();
        open.dedup();
        open.drain(..).filter_map(|at| self.sockets.get(&at)).map(drain).sum()
    }
}

fn drain(socket: &UdpSocket) -> usize {
    let mut buffer = [0; 2048];
    let mut n = 0;
    while socket.recv(&mut buffer).is_ok() {
        n += 1;
    }
    n
}

/// Until dropped, answers the OPTIONS with which the agent of a host checks the server.
pub(super) struct Checked {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Checked {
    pub(super) fn start(host: &Host) -> Result<Self> {
        let socket = host.enter(|| Ok(UdpSocket::bind(("127.0.0.1", 5060))?))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((n, from)) = socket.recv_from(&mut buffer) else { continue };
                let Ok(m) = Message::parse(&buffer[..n]) else { continue };
                let via = m.list("via").swap_remove(0);
                // The agent asks again after a lost answer.
                let _ = socket.send_to(&Writer::response(&m, 200, "OK", &via, Some("check")).end(None), from);
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Checked {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}
