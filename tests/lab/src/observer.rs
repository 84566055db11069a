//! A host on the LAN that sends the VIP an echo request each millisecond, and records which host answered when.

use super::lan::Host;
use super::unix_us;
use anyhow::{Context, Result, anyhow};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two echo requests.
const PERIOD: Duration = Duration::from_millis(1);
const PERIOD_US: u64 = 1000;
/// Mark of the observer's echo requests.
const ID: u16 = 0x6b63;

/// An answer to an echo request.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Time of arrival, in wall-clock microseconds.
    pub at: u64,
    /// Hardware address of the sender.
    pub mac: [u8; 6],
}

/// The silence around an event.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    /// The last answer before the silence and the first after it, in wall-clock microseconds.
    pub from: u64,
    /// Time of the first answer after the silence.
    pub to: u64,
    /// The host of the first answer after the silence.
    pub mac: [u8; 6],
}

impl Gap {
    /// Length of the silence.
    pub fn millis(&self) -> f64 {
        us_to_ms(self.to - self.from)
    }
}

/// Microseconds as milliseconds, for people.
pub fn us_to_ms(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64() * 1000.0
}

/// Sends echo requests until dropped.
pub struct Observer {
    stop: Arc<AtomicBool>,
    /// When each echo request left, in wall-clock microseconds.
    asked: Arc<Mutex<Vec<u64>>>,
    answers: Arc<Mutex<Vec<Answer>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Observer {
    /// Starts to send echo requests to `vip` from `host`.
    pub fn start(host: &Host, vip: Ipv4Addr) -> Result<Self> {
        let (ask, hear) = host.enter(|| {
            let ask =
                Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).context("raw socket of the observer")?;
            // Nobody reads from this socket. The packet socket below reads the answers with their hardware addresses.
            ask.set_recv_buffer_size(1)?;
            let hear = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
                .context("packet socket of the observer")?;
            setsockopt(&hear, sockopt::ReceiveTimeout, &TimeVal::milliseconds(100))?;
            Ok((ask, hear))
        })?;
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (s1, s2, q1, a2) = (stop.clone(), stop.clone(), asked.clone(), answers.clone());
        let threads = vec![
            std::thread::spawn(move || ask_each_period(&ask, vip, &s1, &q1)),
            std::thread::spawn(move || hear_answers(&hear, vip, &s2, &a2)),
        ];
        Ok(Self { stop, asked, answers, threads })
    }

    /// All answers so far.
    pub fn answers(&self) -> Vec<Answer> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the VIP has answered within the last 50 ms.
    pub fn is_answered(&self) -> bool {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).last().is_some_and(|a| a.at + 50_000 > unix_us())
    }

    /// The longest finished silence that begins at or after `event` (less one period, for the answer that was under
    /// way).
    ///
    /// While the observer sends nothing, nobody is silent: on a busy machine the observer has to wait for its turn, now
    /// and then for tens of milliseconds. So a silence is at most as long as its echo requests last.
    pub fn gap_after(&self, event: u64) -> Result<Gap> {
        self.gap_between(event, u64::MAX)
    }

    /// As [`Self::gap_after`], of silences that end by `until`.
    pub fn gap_between(&self, event: u64, until: u64) -> Result<Gap> {
        let all = self.answers();
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        all.windows(2)
            .filter(|w| w[1].at >= event && w[1].at <= until)
            .map(|w| {
                let from = asked.partition_point(|&t| t <= w[0].at);
                let questions = asked.partition_point(|&t| t <= w[1].at) - from;
                let longest = (questions as u64 + 1) * PERIOD_US;
                Gap { from: w[0].at.max(w[1].at.saturating_sub(longest)), to: w[1].at, mac: w[1].mac }
            })
            .max_by_key(|g| g.to - g.from)
            .ok_or_else(|| anyhow!("the VIP no longer answered the observer"))
    }

    /// The silence between the last answer of the host that answered at `event` and the first answer of another host.
    pub fn gap_at_change(&self, event: u64) -> Result<Gap> {
        let all = self.answers();
        let old = all.iter().rev().find(|a| a.at <= event).map(|a| a.mac);
        let next = all.iter().position(|a| a.at > event && Some(a.mac) != old);
        let next = next.filter(|&i| i > 0).ok_or_else(|| anyhow!("no other host answered the observer for the VIP"))?;
        Ok(Gap { from: all[next - 1].at, to: all[next].at, mac: all[next].mac })
    }

    /// The hosts that answered, in order. A host is listed again if the VIP returned to it.
    pub fn owners(&self) -> Vec<[u8; 6]> {
        let mut owners: Vec<[u8; 6]> = self.answers().iter().map(|a| a.mac).collect();
        owners.dedup();
        owners
    }

    /// Returns of the VIP to an earlier host after the first change, which must never happen.
    pub fn returns(&self) -> usize {
        let owners = self.owners();
        owners.iter().enumerate().filter(|(i, mac)| owners[..*i].contains(mac)).count()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for t in self.threads.drain(..) {
            let _ = t.join();
        }
    }
}

/// Gives the calling thread priority over all ordinary ones: a wait for the processor would count as silence.
pub(super) fn come_first() {
    let tid = nix::unistd::gettid().to_string();
    // Without the privilege, the observer measures as well as it can.
    let _ = std::process::Command::new("chrt").args(["--fifo", "--pid", "10", &tid]).output();
}

fn ask_each_period(socket: &Socket, vip: Ipv4Addr, stop: &AtomicBool, asked: &Mutex<Vec<u64>>) {
    come_first();
    let to = SockAddr::from(SocketAddrV4::new(vip, 0));
    let mut sequence = 0_u16;
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let mut p = [8, 0, 0, 0, ID.to_be_bytes()[0], ID.to_be_bytes()[1], 0, 0, 0x6b, 0x65, 0x65, 0x70];
        p[6..8].copy_from_slice(&sequence.to_be_bytes());
        let sum = checksum(&p);
        p[2..4].copy_from_slice(&sum.to_be_bytes());
        asked.lock().unwrap_or_else(PoisonError::into_inner).push(unix_us());
        // A missing neighbour at this moment is what the observer measures.
        let _ = socket.send_to(&p, &to);
        sequence = sequence.wrapping_add(1);
        next += PERIOD;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(*c.get(1).unwrap_or(&0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0)
}

fn hear_answers(socket: &OwnedFd, vip: Ipv4Addr, stop: &AtomicBool, answers: &Mutex<Vec<Answer>>) {
    come_first();
    let mut buf = [0; 256];
    while !stop.load(Ordering::Relaxed) {
        // The time-out lets the thread check `stop`.
        let Ok((n, from)) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buf) else { continue };
        let now = unix_us();
        let p = &buf[..n];
        // IPv4 without options, ICMP echo reply, from the VIP, with the observer's mark.
        let ours = n >= 28
            && p[0] == 0x45
            && p[9] == 1
            && p[12..16] == vip.octets()
            && p[20] == 0
            && p[24..26] == ID.to_be_bytes();
        if let (true, Some(mac)) = (ours, from.and_then(|f| f.addr())) {
            answers.lock().unwrap_or_else(PoisonError::into_inner).push(Answer { at: now, mac });
        }
    }
}
