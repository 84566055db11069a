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

/// An instruction to a phone.
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
    /// Send a re-INVITE with the same description and a session timer, as a session refresh (RFC 4028).
    Refresh,
    /// Send an UPDATE without a description (RFC 3311), as a session refresh.
    Update,
    /// Send a request of this method within the dialog, with the headers that the method needs.
    Request(&'static str),
    /// Behave like this from now on.
    Behave(Manner),
}

/// Phase of a phone's call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// The phone has no call.
    #[default]
    Idle,
    /// The INVITE is sent, or the 200 is sent and not yet acknowledged.
    Calling,
    /// The dialog is confirmed.
    Up,
    /// Either side has answered BYE.
    Ended,
    /// The call failed with this status code (408 for no answer).
    Failed(u16),
}

/// A re-INVITE that the phone received. Times are wall-clock microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Reinvite {
    /// Time of arrival.
    pub at: u64,
    /// Status code of the phone's answer.
    pub code: u16,
    /// Time of the ACK.
    pub acked_at: Option<u64>,
}

/// What a phone saw. Times are wall-clock microseconds.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Phase of the call.
    pub phase: Phase,
    /// Breaches of the RFCs by the other side; each begins with the phone's number.
    pub violations: Vec<String>,
    /// Allowed, but odd.
    pub notes: Vec<String>,
    /// Arrival of each audio packet from the negotiated source.
    pub arrivals: Vec<u64>,
    /// End of each second of the right party's tone.
    pub right: Vec<u64>,
    /// Seconds that were not the right party's tone.
    pub wrong: usize,
    /// How many of these came in a row, up to the last.
    pub(crate) wrong_in_a_row: usize,
    /// Packets from another than the negotiated source: time, source, and negotiated source.
    pub foreign: Vec<(u64, SocketAddr, SocketAddr)>,
    /// Re-INVITEs of the other side.
    pub reinvites: Vec<Reinvite>,
    /// Arrival of the other side's BYE.
    pub bye_received: Option<u64>,
    /// Code and time of the answer to the phone's own BYE.
    pub(crate) bye_answered: Option<(u16, u64)>,
    /// Code and time of the final answer to each of the phone's re-INVITEs.
    pub own_reinvites: Vec<(u16, u64)>,
    /// Code and time of the final answer to each of the phone's UPDATEs.
    pub own_updates: Vec<(u16, u64)>,
    /// Method, code and time of the final answer to each of the phone's other requests.
    pub own_requests: Vec<(String, u16, u64)>,
    /// Methods of the other side's requests within the dialog, re-INVITEs and BYE included.
    pub requests: Vec<String>,
    /// The direction in the last SDP of the other side.
    pub remote_direction: String,
}

/// What a phone reports while it works.
pub type Shared = Arc<Mutex<State>>;

/// How a phone behaves where the RFCs leave a choice, or where phones are known to deviate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Answer requests to the source of the packet, not to the address in the Via.
    pub answer_to_source: bool,
    /// Send every request to the server's first address, whatever route set and Contact say: an outbound proxy setting.
    pub outbound_proxy: bool,
    /// Use a display name, a user part and a Contact with everything that the grammar of RFC 3261 allows in them.
    pub ornate: bool,
    /// Send audio from another port than the one in the description.
    pub speak_elsewhere: bool,
    /// How the phone answers the other side's re-INVITEs.
    pub reinvite: Reaction,
}

/// How a phone answers a re-INVITE of the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reaction {
    /// Correctly.
    #[default]
    Accept,
    /// The next so many with 491, as if the phone's own re-INVITE was under way.
    Glare(u8),
    /// With this code. With 481 the phone no longer knows the call from then on.
    Refuse(u16),
    /// Not at all: the phone receives neither SIP nor audio any more. It goes on speaking.
    Deaf,
    /// Not at all: the phone is gone from the network.
    Gone,
}

/// A phone. It works by itself on the runtime on which it was created.
pub struct Phone {
    /// The number of the phone.
    pub number: String,
    shared: Shared,
    commands: mpsc::UnboundedSender<Command>,
}

/// Identity of a phone.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The number of the phone.
    pub number: String,
    /// Address for SIP.
    pub sip: SocketAddr,
    /// Address for audio.
    pub rtp: SocketAddr,
    /// The server's first address.
    pub server: SocketAddr,
    /// The phone's own tone, and the expected tone, in Hz.
    pub(crate) tones: (f64, f64),
    /// Socket for sending audio, if another than the one for receiving.
    pub(crate) voice: Option<Arc<tokio::net::UdpSocket>>,
    /// Behaviour of the phone.
    pub manner: Manner,
}

impl Identity {
    /// The URI of the phone's Contact.
    pub(crate) fn contact_uri(&self) -> String {
        if self.manner.ornate {
            // A user part with parameters, escapes and marks (RFC 3261 section 19.1.1), and URI parameters.
            format!("sip:{};phone-context=%2B49-30;isub=1@{};transport=udp;ob;x=%22", self.number, self.sip)
        } else {
            format!("sip:{}@{}", self.number, self.sip)
        }
    }

    /// The value of the phone's Contact header.
    pub(crate) fn contact(&self) -> String {
        let uri = self.contact_uri();
        if self.manner.ornate {
            let name = r#""O'Hara, \"Scarlett\" <sip:x@y>""#;
            format!(r#"{name} <{uri}>;+sip.instance="<urn:uuid:00000000-0000-1000-8000-{:012}>";q=0.7"#, self.number)
        } else {
            format!("<{uri}>")
        }
    }

    /// The value of the phone's From header, without a tag.
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
    /// Phone `index` on a host. `side` 0 is a caller with number 1000 + index on p1, 1 is called as 2000 + index on p2,
    /// and 2 is called as 3000 + index on p1. The SIP port is the number plus 10000, the RTP port 30000 + 2000 × side +
    /// 2 × index. Must be called within a tokio runtime.
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

    /// Gives the phone an instruction.
    pub fn tell(&self, command: Command) -> Result<()> {
        self.commands.send(command).map_err(|_| anyhow!("phone {} is gone", self.number))
    }

    /// What the phone has seen so far.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the phone has seen of the call, in one line.
    pub fn summary(&self) -> String {
        let s = self.state();
        format!("{}: {:?}, re-INVITEs {:?}, {} s of the right tone", self.number, s.phase, s.reinvites, s.right.len())
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
