//! Phones: strict about RFC 3261 and RFC 3264, each with its own number, ports and tone.

mod audio;
pub(crate) mod crowd;
mod dialog;
mod line;
mod message;
mod sdp;
#[cfg(test)]
mod tests;

use super::lan::Host;
use super::unix_us;
use anyhow::{Context, Result, anyhow};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

pub(crate) use audio::tone_of;

/// What a phone is told to do.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Call this number through the server.
    Call(String),
    /// Send BYE.
    Hangup,
    /// Send a re-INVITE with `sendonly`.
    Hold,
    /// Send a re-INVITE with `sendrecv`.
    Resume,
}

/// Where a phone is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
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
pub(crate) struct Reinvite {
    pub(crate) at: u64,
    /// The code that the phone answered with.
    pub(crate) code: u16,
    pub(crate) acked_at: Option<u64>,
}

/// What a phone saw; times are wall-clock microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    /// Breaches of the RFCs by the other side; each begins with the phone's number.
    pub(crate) violations: Vec<String>,
    /// What is allowed but odd.
    pub(crate) notes: Vec<String>,
    /// When each audio packet from the negotiated source came.
    pub(crate) arrivals: Vec<u64>,
    /// When each second of the right party's tone was complete.
    pub(crate) right: Vec<u64>,
    /// Seconds that were not the right party's tone.
    pub(crate) wrong: usize,
    /// How many of them came one after the other, last of all.
    pub(crate) wrong_in_a_row: usize,
    /// Packets from elsewhere than the negotiated source: when, from where, and what was negotiated.
    pub(crate) foreign: Vec<(u64, SocketAddr, SocketAddr)>,
    pub(crate) reinvites: Vec<Reinvite>,
    /// When the other side's BYE came.
    pub(crate) bye_received: Option<u64>,
    /// Code and time of the answer to the own BYE.
    pub(crate) bye_answered: Option<(u16, u64)>,
    /// Code and time of the final answer to each own re-INVITE.
    pub(crate) own_reinvites: Vec<(u16, u64)>,
    /// The direction in the last SDP of the other side.
    pub(crate) remote_direction: String,
}

/// What a phone lets others see, filled while it works.
pub(crate) type Shared = Arc<Mutex<State>>;

/// How a phone behaves where the RFCs leave a choice, or where phones are known to depart from them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manner {
    /// Answer requests to where the packet came from, and not to where the Via says.
    pub(crate) answer_to_source: bool,
}

/// A phone; it works by itself on the runtime that it was made on.
pub(crate) struct Phone {
    pub(crate) number: String,
    shared: Shared,
    commands: mpsc::UnboundedSender<Command>,
}

/// Who a phone is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) number: String,
    pub(crate) sip: SocketAddr,
    pub(crate) rtp: SocketAddr,
    pub(crate) server: SocketAddr,
    /// The own tone, and the one that is expected to be heard, in Hz.
    pub(crate) tones: (f64, f64),
    pub(crate) manner: Manner,
}

impl Phone {
    /// Phone `index` on a host: `side` 0 is a caller with number 1000 + index on p1, 1 is called as 2000 + index on p2.
    /// Its SIP port is its number plus 10000, its RTP port 30000 + 2 × index. To be called within a tokio runtime.
    pub(crate) fn new(host: &Host, side: usize, index: usize, server: SocketAddr, manner: Manner) -> Result<Self> {
        let number = (side + 1) * 1000 + index;
        let ip: IpAddr = if server.is_ipv4() { host.ip4.into() } else { host.ip6.into() };
        let (sip, rtp) = host.enter(move || {
            let sip = UdpSocket::bind((ip, u16::try_from(number + 10_000)?)).context("SIP port of a phone")?;
            let rtp = UdpSocket::bind((ip, u16::try_from(30_000 + 2 * index)?)).context("RTP port of a phone")?;
            sip.set_nonblocking(true)?;
            rtp.set_nonblocking(true)?;
            Ok((sip, rtp))
        })?;
        let me = Identity {
            number: number.to_string(),
            sip: sip.local_addr()?,
            rtp: rtp.local_addr()?,
            server,
            tones: (tone_of(index, side), tone_of(index, 1 - side)),
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
    pub(crate) fn tell(&self, command: Command) -> Result<()> {
        self.commands.send(command).map_err(|_| anyhow!("phone {} is gone", self.number))
    }

    /// What it has seen so far.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The longest silence that touches the time from `from` to `to`: between two packets, or up to now.
    pub(crate) fn longest_gap_us(&self, from: u64, to: u64) -> u64 {
        let state = self.state();
        let a = &state.arrivals;
        let inner = a.windows(2).filter(|w| w[1] >= from && w[0] <= to).map(|w| w[1] - w[0]).max().unwrap_or(0);
        let tail =
            a.last().map_or(unix_us().saturating_sub(from), |&l| if l < to { to.min(unix_us()).saturating_sub(l) } else { 0 });
        inner.max(tail)
    }
}
