//! A host on the LAN that asks all hosts at once, each millisecond, who has the VIP, and records which hosts answered.
//!
//! Beside it runs an ordinary client, whose neighbour cache shows where a phone's packets would have gone.

pub mod finding;
mod frames;

pub use finding::Finding;

use super::lan::{Host, VIP4, VIP6};
use super::observer::come_first;
use super::unix_us;
use anyhow::{Context, Result, anyhow};
use finding::Notes;
use frames::Parties;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two questions.
const PERIOD: Duration = Duration::from_millis(1);
/// Room for some seconds of answers, in case the witness has to wait for its turn.
const BUFFER: usize = 8 << 20;
/// Time between two packets of the ordinary client, and between two looks at its neighbour cache.
const CLIENT_PERIOD: Duration = Duration::from_millis(10);

/// Asks until dropped.
pub struct Witness {
    stop: Arc<AtomicBool>,
    notes: Arc<Mutex<Notes>>,
    names: BTreeMap<[u8; 6], String>,
    threads: Vec<JoinHandle<()>>,
}

impl Witness {
    /// `nodes`: the hosts that may have the VIP.
    pub fn start(host: &Host, nodes: &[&Host]) -> Result<Self> {
        let (stop, notes) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Notes::default())));
        let (s, n, ip4, ip6) = (stop.clone(), notes.clone(), host.ip4, host.ip6);
        // Threads stay in the namespace of the thread that starts them.
        let (mac, threads) = host.enter(move || {
            let raw = |p| socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, p);
            // Without a protocol, this socket receives nothing.
            let ask = raw(None).context("packet socket of the witness")?;
            let hear = raw(Some(SockProtocol::EthAll)).context("packet socket of the witness")?;
            setsockopt(&hear, sockopt::ReceiveTimeout, &TimeVal::milliseconds(20))?;
            setsockopt(&hear, sockopt::RcvBufForce, &BUFFER)?;
            let client = UdpSocket::bind((ip4, 0))?;
            let mut all = nix::ifaddrs::getifaddrs()?.filter(|i| i.interface_name == "eth0");
            let link = all.find_map(|i| i.address?.as_link_addr().copied()).context("the witness has no eth0")?;
            let mac = link.addr().ok_or_else(|| anyhow!("eth0 of the witness has no hardware address"))?;
            let parties = Parties { mac, ip4, ip6, vip4: VIP4, vip6: VIP6 };
            let (s2, n2, s3, n3) = (s.clone(), n.clone(), s.clone(), n.clone());
            let threads = vec![
                std::thread::spawn(move || ask_each_period(&ask, &link, &parties, &s, &n)),
                std::thread::spawn(move || hear_all(&hear, &parties, &s2, &n2)),
                std::thread::spawn(move || watch_cache(&client, &s3, &n3)),
            ];
            Ok((mac, threads))
        })?;
        let mut witness = Self { stop, notes, names: BTreeMap::new(), threads };
        for node in nodes {
            witness.names.insert(node.mac()?, node.name.clone());
            // Otherwise a host might be silent only because it first has to ask for the hardware address of the
            // witness.
            node.know(host, mac)?;
        }
        Ok(witness)
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host with this hardware address.
    pub fn name(&self, mac: [u8; 6]) -> String {
        self.names.get(&mac).cloned().unwrap_or_else(|| format!("{mac:02x?}"))
    }

    /// The conclusions from `since` (wall-clock microseconds) until now. Waits a moment for answers that are under way.
    pub fn finding(&self, since: u64) -> Finding {
        let now = unix_us();
        // Once an answer to a later question is here, so are the answers to this one: they cannot overtake each other.
        let end = Instant::now() + Duration::from_millis(200);
        while Instant::now() < end && self.notes().heard.last().is_none_or(|a| a.at <= now) {
            std::thread::sleep(PERIOD);
        }
        finding::find(&self.notes(), since, now, &|mac| self.name(mac))
    }

    /// The host that alone answered all questions of the last `time`.
    pub fn sole_owner(&self, time: Duration) -> Result<String, String> {
        let f = self.finding(unix_us().saturating_sub(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)));
        match &f.owners[..] {
            [(_, one)] if f.silence_us < 20_000 => Ok(one.clone()),
            _ => Err(format!(
                "in the last {time:?} these hosts answered for the VIP: {:?}; the VIP was silent for {} us",
                f.owners, f.silence_us
            )),
        }
    }

    /// The host in the ordinary client's neighbour cache entry for the VIP.
    pub(crate) fn cached(&self) -> Option<String> {
        let mac = self.notes().cache.last().and_then(|c| c.1)?;
        Some(self.name(mac))
    }

    /// Forgets everything before this moment (wall-clock microseconds).
    pub fn forget(&self, before: u64) {
        self.notes().forget(before);
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for t in self.threads.drain(..) {
            let _ = t.join();
        }
    }
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ask_each_period(socket: &OwnedFd, link: &LinkAddr, parties: &Parties, stop: &AtomicBool, notes: &Mutex<Notes>) {
    come_first();
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let n = lock(notes).next_question(unix_us());
        for frame in parties.ask(n) {
            // The frame contains the header; the address only names the interface.
            let _ = sendto(socket.as_raw_fd(), &frame, link, MsgFlags::empty());
        }
        // The witness does not make up for questions that it missed in a stall: all of them would be of one moment.
        next = (next + PERIOD).max(Instant::now());
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn hear_all(socket: &OwnedFd, parties: &Parties, stop: &AtomicBool, notes: &Mutex<Notes>) {
    come_first();
    let mut buf = [0; 256];
    while !stop.load(Ordering::Relaxed) {
        // The time-out lets the thread check `stop`.
        let Ok(n) = recv(socket.as_raw_fd(), &mut buf, MsgFlags::empty()) else { continue };
        if let Some((mac, kind, question)) = parties.hear(&buf[..n]) {
            lock(notes).heard.push(finding::Answer { at: unix_us(), mac, kind, question });
        }
    }
}

/// Sends to the VIP as a phone does, and records the VIP's hardware address in the kernel's neighbour cache.
fn watch_cache(client: &UdpSocket, stop: &AtomicBool, notes: &Mutex<Notes>) {
    let line = format!("{VIP4} ");
    while !stop.load(Ordering::Relaxed) {
        // Nobody listens on the "discard" port. The packet only keeps the cache entry in use.
        let _ = client.send_to(b"keepcall", (VIP4, 9));
        let text = std::fs::read_to_string("/proc/thread-self/net/arp").unwrap_or_default();
        let mac = text.lines().find(|l| l.starts_with(&line)).and_then(|l| {
            let bytes: Vec<u8> =
                l.split_whitespace().nth(3)?.split(':').filter_map(|b| u8::from_str_radix(b, 16).ok()).collect();
            <[u8; 6]>::try_from(bytes).ok().filter(|m| *m != [0; 6])
        });
        let mut notes = lock(notes);
        if notes.cache.last().map(|c| c.1) != Some(mac) {
            notes.cache.push((unix_us(), mac));
        }
        drop(notes);
        std::thread::sleep(CLIENT_PERIOD);
    }
}
