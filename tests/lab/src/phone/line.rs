//! A phone at work: transactions, timers, one call, and the call's audio.

mod requests;
mod responses;
#[cfg(test)]
mod tests;

use super::audio::{Ear, Heard, Mouth};
use super::dialog::{COOKIE, Dialog};
use super::message::{Message, Start};
use super::sdp::Own;
use super::{Command, Identity, Phase, Reaction, Shared, State};
use crate::unix_us;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// T1 and T2 of RFC 3261, and 64 × T1, after which a transaction has failed.
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
const T64: Duration = Duration::from_secs(32);
/// Answers kept for retransmitted requests. A phone has one call, so a few are enough.
const ANSWERS: usize = 32;
/// Entries kept in each list of a report: an hour of audio, and more faults than anyone reads.
const MAX_ARRIVALS: usize = 200_000;
const MAX_FAULTS: usize = 50;

/// A message that the phone retransmits until something stops it.
struct Repeat {
    bytes: Vec<u8>,
    to: SocketAddr,
    at: Instant,
    pause: Duration,
    give_up: Instant,
}

impl Repeat {
    fn new(bytes: Vec<u8>, to: SocketAddr) -> Self {
        let now = Instant::now();
        Self { bytes, to, at: now + T1, pause: T1, give_up: now + T64 }
    }
}

/// The phone's own request that waits for its final answer.
struct Client {
    method: String,
    branch: String,
    cseq: u32,
    repeat: Repeat,
    /// A provisional answer stops the retransmissions of an INVITE.
    quiet: bool,
    initial: bool,
}

/// The 2xx that waits for its ACK.
struct Server {
    repeat: Repeat,
    cseq: u32,
    branch: String,
    initial: bool,
    /// The INVITE had no SDP, so the ACK brings the answer.
    late_offer: bool,
}

pub(crate) struct Line {
    me: Identity,
    sip: UdpSocket,
    rtp: UdpSocket,
    shared: Shared,
    dialog: Option<Dialog>,
    client: Option<Client>,
    server: Option<Server>,
    /// Branch, method, bytes and destination of the answers given.
    answers: VecDeque<(String, String, Vec<u8>, SocketAddr)>,
    /// The ACK of the last 2xx, sent again for each retransmission of the 2xx.
    ack: Option<(u32, Vec<u8>, SocketAddr)>,
    mouth: Mouth,
    ear: Ear,
}

/// A unique token. Unlike a random one, it shows in a trace which message came first.
fn token() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{:x}k{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Line {
    pub(crate) fn new(me: Identity, sip: UdpSocket, rtp: UdpSocket, shared: Shared) -> Self {
        let ssrc = u32::from(me.rtp.port()) << 8 | u32::from(me.sip.port() & 0xff);
        let (mouth, ear) = (Mouth::new(me.tones.0, ssrc), Ear::new(me.tones.1));
        Self {
            me,
            sip,
            rtp,
            shared,
            dialog: None,
            client: None,
            server: None,
            answers: VecDeque::new(),
            ack: None,
            mouth,
            ear,
        }
    }

    /// Works until the phone is dropped.
    pub(crate) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        let (mut sip_buf, mut rtp_buf) = (vec![0; 65_536], vec![0; 2048]);
        let mut tick = interval(Duration::from_millis(20));
        // Makes up for a late tick, so that the RTP clock keeps up with the wall clock.
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            let next = self.next_timer();
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(c) => self.obey(c).await,
                    None => return,
                },
                // An error of a UDP socket concerns one datagram (ICMP unreachable). The timers handle the loss.
                r = self.sip.recv_from(&mut sip_buf) => if let Ok((n, from)) = r {
                    self.hear_sip(&sip_buf[..n], from).await;
                },
                r = self.rtp.recv_from(&mut rtp_buf) => if let Ok((n, from)) = r {
                    self.hear_rtp(&rtp_buf[..n], from);
                },
                _ = tick.tick() => self.speak().await,
                () = sleep_until(next) => self.on_timer().await,
            }
        }
    }

    fn note<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn violations(&self, faults: Vec<String>) {
        self.note(|s| {
            for f in faults {
                if s.violations.len() < MAX_FAULTS {
                    s.violations.push(format!("{}: {f}", self.me.number));
                }
            }
        });
    }

    fn contact(&self) -> String {
        self.me.contact()
    }

    fn via(&self) -> (String, String) {
        let branch = format!("{COOKIE}{}", token());
        (format!("SIP/2.0/UDP {};branch={branch}", self.me.sip), branch)
    }

    async fn send(&self, bytes: &[u8], to: SocketAddr) {
        // A host without the server's address refuses here. The retransmissions continue.
        let _ = self.sip.send_to(bytes, to).await;
    }

    // ---- commands ----

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Call(number) => self.call(&number).await,
            Command::Hangup => self.start("BYE", None).await,
            Command::Hold | Command::Resume => {
                let direction = if matches!(command, Command::Hold) { "sendonly" } else { "sendrecv" };
                let Some(d) = &mut self.dialog else { return };
                d.own.set_direction(direction);
                let text = d.own.text();
                self.start("INVITE", Some(text)).await;
            }
            Command::Refresh => {
                let Some(d) = &mut self.dialog else { return };
                d.timed = true;
                let text = d.own.text();
                self.start("INVITE", Some(text)).await;
            }
            Command::Update => self.start("UPDATE", None).await,
            Command::Request(method) => self.start(method, None).await,
            Command::Behave(manner) => self.me.manner = manner,
        }
    }

    async fn call(&mut self, number: &str) {
        let own = Own::new(u64::from(self.me.rtp.port()) + 1000, self.me.rtp);
        let host = match self.me.server.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let uri = format!("sip:{number}@{host}");
        let local = format!("{};tag={}", self.me.from(), token());
        let d = Dialog {
            call_id: format!("{}@{}", token(), self.me.sip.ip()),
            local,
            remote: format!("<{uri}>"),
            target: uri,
            routes: Vec::new(),
            local_cseq: 100,
            remote_cseq: None,
            sdp: None,
            own,
            recorded: false,
            timed: false,
        };
        let (via, branch) = self.via();
        let bytes = d.request("INVITE", d.local_cseq, &via, &self.contact(), Some(&d.own.text()));
        let cseq = d.local_cseq;
        self.dialog = Some(d);
        self.note(|s| s.phase = Phase::Calling);
        self.send(&bytes, self.me.server).await;
        let repeat = Repeat::new(bytes, self.me.server);
        self.client = Some(Client { method: "INVITE".into(), branch, cseq, repeat, quiet: false, initial: true });
    }

    async fn start(&mut self, method: &str, sdp: Option<String>) {
        let (via, branch) = self.via();
        let contact = self.contact();
        let Some(d) = &mut self.dialog else { return };
        d.local_cseq += 1;
        let cseq = d.local_cseq;
        let bytes = d.request(method, cseq, &via, &contact, sdp.as_deref());
        let hop = if self.me.manner.outbound_proxy { Some(self.me.server) } else { d.next_hop() };
        let Some(to) = hop else { return };
        self.send(&bytes, to).await;
        let repeat = Repeat::new(bytes, to);
        self.client = Some(Client { method: method.into(), branch, cseq, repeat, quiet: false, initial: false });
    }

    // ---- timers ----

    fn next_timer(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let c =
            self.client.as_ref().map(|c| if c.quiet { c.repeat.give_up } else { c.repeat.at.min(c.repeat.give_up) });
        let s = self.server.as_ref().map(|s| s.repeat.at.min(s.repeat.give_up));
        [c, s].into_iter().flatten().min().unwrap_or(far)
    }

    async fn on_timer(&mut self) {
        let now = Instant::now();
        if let Some(c) = &mut self.client {
            if now >= c.repeat.give_up {
                let (method, initial) = (c.method.clone(), c.initial);
                self.client = None;
                self.violations(vec![format!("{method} had no final answer for 32 s")]);
                if initial {
                    self.note(|s| s.phase = Phase::Failed(408));
                }
            } else if now >= c.repeat.at && !c.quiet {
                c.repeat.pause = if c.method == "INVITE" { c.repeat.pause * 2 } else { (c.repeat.pause * 2).min(T2) };
                c.repeat.at = now + c.repeat.pause;
                let (bytes, to) = (c.repeat.bytes.clone(), c.repeat.to);
                self.send(&bytes, to).await;
            }
        }
        if let Some(s) = &mut self.server {
            if now >= s.repeat.give_up {
                let cseq = s.cseq;
                self.server = None;
                self.violations(vec![format!("no ACK for the 200 to INVITE {cseq} for 32 s")]);
            } else if now >= s.repeat.at {
                s.repeat.pause = (s.repeat.pause * 2).min(T2);
                s.repeat.at = now + s.repeat.pause;
                let (bytes, to) = (s.repeat.bytes.clone(), s.repeat.to);
                self.send(&bytes, to).await;
            }
        }
    }

    // ---- received SIP ----

    async fn hear_sip(&mut self, bytes: &[u8], from: SocketAddr) {
        if matches!(self.me.manner.reinvite, Reaction::Deaf | Reaction::Gone) {
            return;
        }
        match Message::parse(bytes) {
            Ok(m) if matches!(m.start, Start::Request(..)) => self.hear_request(m, from).await,
            Ok(m) => self.hear_response(m).await,
            Err(e) => self.violations(vec![format!("unreadable SIP from {from}: {e}")]),
        }
    }

    // ---- audio ----

    async fn speak(&mut self) {
        if self.me.manner.reinvite == Reaction::Gone {
            return;
        }
        let Some(d) = &self.dialog else { return };
        let Some(remote) = &d.sdp else { return };
        let wanted = remote.direction == "sendrecv" || remote.direction == "recvonly";
        if let Some(to) = remote.audio.filter(|_| wanted && d.own.sends()) {
            let packet = self.mouth.packet();
            let _ = self.me.voice.as_deref().unwrap_or(&self.rtp).send_to(&packet, to).await;
        }
    }

    fn hear_rtp(&mut self, packet: &[u8], from: SocketAddr) {
        if matches!(self.me.manner.reinvite, Reaction::Deaf | Reaction::Gone) {
            return;
        }
        let agreed = self.dialog.as_ref().and_then(|d| d.sdp.as_ref()).and_then(|s| s.audio);
        // Audio may overtake the answer that names its source, and outlive the BYE by a moment.
        let Some(agreed) = agreed else { return };
        if agreed != from {
            return self.note(|s| {
                if s.foreign.len() < MAX_FAULTS {
                    s.foreign.push((unix_us(), from, agreed));
                }
            });
        }
        let heard = self.ear.hear(packet);
        let now = unix_us();
        let number = &self.me.number;
        self.note(|s| {
            if s.arrivals.len() < MAX_ARRIVALS {
                s.arrivals.push(now);
            }
            match heard {
                Ok(Heard::More) => {}
                Ok(Heard::Right) => {
                    s.right.push(now);
                    s.wrong_in_a_row = 0;
                }
                Ok(Heard::Wrong) => {
                    s.wrong += 1;
                    s.wrong_in_a_row += 1;
                    // One mismatch may be a packet that was lost before a server that numbers its packets anew.
                    if s.wrong_in_a_row == 2 && s.violations.len() < MAX_FAULTS {
                        s.violations.push(format!("{number}: two seconds of audio that are not the other party's"));
                    }
                }
                Err(e) => {
                    if s.violations.len() < MAX_FAULTS {
                        s.violations.push(format!("{number}: {e}"));
                    }
                }
            }
        });
    }
}
