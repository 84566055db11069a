//! Phones: strict about RFC 3261 and RFC 3264, each with its own number, ports and tone.

mod audio;
pub mod crowd;
mod dialog;
mod line;
pub mod message;
pub mod sdp;
#[cfg(test)]
mod tests;

use super::lan::Host;
use super::unix_us;
use anyhow::{Context, Result, anyhow};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

pub(crate) use audio::tone_of;
pub(crate) use dialog::answer_route;

/// What a phone is told to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Call this number through the server.
    Call(String),
    /// Send BYE.
    Hangup,
    /// Send a re-INVITE with `sendonly`.
    Hold,
    /// Send a re-INVITE with `sendrecv`.
    Resume,
    /// Send a re-INVITE with the description as it is and a session timer, as a refresh of it (RFC 4028).
    Refresh,
    /// Send an UPDATE without a description (RFC 3311), as a refresh.
    Update,
    /// Behave like this from now on.
    Behave(Manner),
}

/// Where a phone is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It has no call.
    #[default]
    Idle,
    /// INVITE is out, or 200 is out and not yet acknowledged.
    Calling,
    /// The dialog is confirmed.
    Up,
    /// BYE was answered, by either side.
    Ended,
    /// The call came to nothing, with this status code (408 for no answer).
    Failed(u16),
}

/// One re-INVITE that the phone received; times are wall-clock microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Reinvite {
    /// When it came.
    pub at: u64,
    /// The code that the phone answered with.
    pub code: u16,
    /// When its ACK came.
    pub acked_at: Option<u64>,
}

/// What a phone saw; times are wall-clock microseconds.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Where it is.
    pub phase: Phase,
    /// Breaches of the RFCs by the other side; each begins with the phone's number.
    pub violations: Vec<String>,
    /// What is allowed but odd.
    pub notes: Vec<String>,
    /// When each audio packet from the negotiated source came.
    pub arrivals: Vec<u64>,
    /// When each second of the right party's tone was complete.
    pub right: Vec<u64>,
    /// Seconds that were not the right party's tone.
    pub wrong: usize,
    /// How many of them came one after the other, last of all.
    pub(crate) wrong_in_a_row: usize,
    /// Packets from elsewhere than the negotiated source: when, from where, and what was negotiated.
    pub foreign: Vec<(u64, SocketAddr, SocketAddr)>,
    /// The other side's re-INVITEs.
    pub reinvites: Vec<Reinvite>,
    /// When the other side's BYE came.
    pub bye_received: Option<u64>,
    /// Code and time of the answer to the own BYE.
    pub(crate) bye_answered: Option<(u16, u64)>,
    /// Code and time of the final answer to each own re-INVITE.
    pub own_reinvites: Vec<(u16, u64)>,
    /// Code and time of the final answer to each own UPDATE.
    pub own_updates: Vec<(u16, u64)>,
    /// The direction in the last SDP of the other side.
    pub remote_direction: String,
}

/// What a phone lets others see, filled while it works.
pub type Shared = Arc<Mutex<State>>;

/// How a phone behaves where the RFCs leave a choice, or where phones are known to depart from them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Answer requests to where the packet came from, and not to where the Via says.
    pub answer_to_source: bool,
    /// Send every request to the server's first address, whatever route set and Contact say: an outbound proxy setting.
    pub outbound_proxy: bool,
    /// Have a display name, a user part and a Contact with everything that the grammar of RFC 3261 allows in them.
    pub ornate: bool,
    /// Send audio from another port than the one that it is received on, and that the description names.
    pub speak_elsewhere: bool,
    /// What becomes of the other side's re-INVITEs.
    pub reinvite: Reaction,
}

/// What a phone does about a re-INVITE of the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reaction {
    /// Answers it as it should be answered.
    #[default]
    Accept,
    /// Answers the next so many with 491, as if its own was under way.
    Glare(u8),
    /// Refuses it with this code; with 481 it knows nothing of the call from then on.
    Refuse(u16),
    /// Hears nothing at all any more, SIP or audio.
    Deaf,
}

/// A phone; it works by itself on the runtime that it was made on.
pub struct Phone {
    /// What it is called by.
    pub number: String,
    shared: Shared,
    commands: mpsc::UnboundedSender<Command>,
}

/// Who a phone is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Its number.
    pub number: String,
    /// Where it receives SIP.
    pub sip: SocketAddr,
    /// Where it receives audio.
    pub rtp: SocketAddr,
    /// The server's first address.
    pub server: SocketAddr,
    /// The own tone, and the one that is expected to be heard, in Hz.
    pub(crate) tones: (f64, f64),
    /// What audio is sent from, if not from where it is received.
    pub(crate) voice: Option<Arc<tokio::net::UdpSocket>>,
    /// How it behaves.
    pub manner: Manner,
}

impl Identity {
    /// The URI of its Contact.
    pub(crate) fn contact_uri(&self) -> String {
        if self.manner.ornate {
            // A user part with parameters, escapes and marks (RFC 3261 section 19.1.1), and URI parameters.
            format!("sip:{};phone-context=%2B49-30;isub=1@{};transport=udp;ob;x=%22", self.number, self.sip)
        } else {
            format!("sip:{}@{}", self.number, self.sip)
        }
    }

    /// The value of its Contact header.
    pub(crate) fn contact(&self) -> String {
        let uri = self.contact_uri();
        if self.manner.ornate {
            let name = r#""O'Hara, \"Scarlett\" <sip:x@y>""#;
            format!(r#"{name} <{uri}>;+sip.instance="<urn:uuid:00000000-0000-1000-8000-{:012}>";q=0.7"#, self.number)
        } else {
            format!("<{uri}>")
        }
    }

    /// The value of its From header, without a tag.
    pub(crate) fn from(&self) -> String {
        let ip = match self.sip.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let n = &self.number;
        if self.manner.ornate {
            format!(r#""Ga\"ga, <\\>;tag=no" <sip:{n}@{ip};user=phone>;x-own="a;tag=b""#)
        } else {
            format!(r#""Phone {n}" <sip:{n}@{ip}>"#)
        }
    }
}

impl Phone {
    /// Phone `index` on a host: `side` 0 is a caller with number 1000 + index on p1, 1 is called as 2000 + index on p2,
    /// and 2 is called as 3000 + index on p1. Its SIP port is its number plus 10000, its RTP port 30000 + 2000 × side +
    /// 2 × index. To be called within a tokio runtime.
    pub fn new(host: &Host, side: usize, index: usize, server: SocketAddr, manner: Manner) -> Result<Self> {
        let number = (side + 1) * 1000 + index;
        let ip: IpAddr = if server.is_ipv4() { host.ip4.into() } else { host.ip6.into() };
        let (sip, rtp, voice) = host.enter(move || {
            let sip = UdpSocket::bind((ip, u16::try_from(number + 10_000)?)).context("SIP port of a phone")?;
            let rtp = UdpSocket::bind((ip, u16::try_from(30_000 + 2_000 * side + 2 * index)?))
                .context("RTP port of a phone")?;
            let voice = UdpSocket::bind((ip, u16::try_from(40_000 + 2_000 * side + 2 * index)?))
                .context("voice port of a phone")?;
            for socket in [&sip, &rtp, &voice] {
                socket.set_nonblocking(true)?;
            }
            Ok((sip, rtp, voice))
        })?;
        let me = Identity {
            number: number.to_string(),
            sip: sip.local_addr()?,
            rtp: rtp.local_addr()?,
            server,
            tones: (tone_of(index, side.min(1)), tone_of(index, 1 - side.min(1))),
            voice: manner.speak_elsewhere.then(|| tokio::net::UdpSocket::from_std(voice).map(Arc::new)).transpose()?,
            manner,
        };
        Ok(Self::on(me, tokio::net::UdpSocket::from_std(sip)?, tokio::net::UdpSocket::from_std(rtp)?))
    }

    /// A phone on these two sockets.
    pub(crate) fn on(me: Identity, sip: tokio::net::UdpSocket, rtp: tokio::net::UdpSocket) -> Self {
        let (number, shared) = (me.number.clone(), Shared::default());
        let (commands, inbox) = mpsc::unbounded_channel();
        let line = line::Line::new(me, sip, rtp, shared.clone());
        tokio::spawn(line.run(inbox));
        Self { number, shared, commands }
    }

    /// Tells it what to do.
    pub fn tell(&self, command: Command) -> Result<()> {
        self.commands.send(command).map_err(|_| anyhow!("phone {} is gone", self.number))
    }

    /// What it has seen so far.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it has seen of the call, in a line.
    pub fn summary(&self) -> String {
        let s = self.state();
        format!("{}: {:?}, re-INVITEs {:?}, {} good seconds", self.number, s.phase, s.reinvites, s.right.len())
    }

    /// The longest silence that touches the time from `from` to `to`: between two packets, or up to now.
    pub(crate) fn longest_gap_us(&self, from: u64, to: u64) -> u64 {
        let state = self.state();
        let a = &state.arrivals;
        let inner = a.windows(2).filter(|w| w[1] >= from && w[0] <= to).map(|w| w[1] - w[0]).max().unwrap_or(0);
        let tail = a
            .last()
            .map_or(unix_us().saturating_sub(from), |&l| if l < to { to.min(unix_us()).saturating_sub(l) } else { 0 });
        inner.max(tail)
    }
}
