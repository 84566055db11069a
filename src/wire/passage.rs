//! Whether a packet counts as one between the server and somebody else, by the way it passed this host. Pure.
//!
//! Any host of a LAN can write the server's address into a frame's source. What the server says *leaves* this host, and what is said to it
//! comes in; the kernel knows which of the two a frame does, whatever the frame claims. So a frame that comes in from one of the
//! server's addresses is a forgery, a loop of the network, or another host that answers for the address, and is never the server's word.
//!
//! What cannot be told apart by this: a frame that this host itself forwards between two ports or networks leaves it as well. A bridge shows
//! such frames on its ports and not on itself, so the interface to listen on is the one that has the addresses (the bridge); a
//! router drops IPv4 packets that come from one of its own addresses before it forwards them.

use crate::time::Time;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// Between two tellings of frames that claim to be the server's: often enough for a person, and no log fills by it.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// How a frame passed the host that captured it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Passage {
    /// Nobody knows: it is from a file that does not say.
    #[default]
    Unknown,
    /// It stayed inside: a host that speaks with itself over its loopback, where every packet leaves and comes in.
    Within,
    /// It left this host.
    Out,
    /// It came in, to this host's link address or to many.
    In,
    /// It came in, to the link address of another host: seen because the interface is promiscuous, or by a mirror.
    Past,
}

impl Passage {
    /// By the number that packet(7) names `sll_pkttype`, and that cooked captures have in their header. Numbers that packet sockets never
    /// give count as frames of others.
    #[must_use]
    pub const fn of_packet_type(number: u16) -> Self {
        match number {
            // PACKET_HOST, PACKET_BROADCAST, PACKET_MULTICAST.
            0..=2 => Self::In,
            // PACKET_OUTGOING.
            4 => Self::Out,
            _ => Self::Past,
        }
    }
}

/// What a packet is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is between the server and somebody else.
    Heard,
    /// It bears the server's address as its source, and does not come from this host.
    Forged,
    /// It goes to the server's address and not to this host, or leaves this host from another address than the server's.
    Astray,
}

/// Judges a packet whose source is one of the server's addresses if `by_server`, and whose destination is one if `to_server`.
///
/// Fragments and segments are judged one by one, before they are put together: a stranger's part never completes a real message.
#[must_use]
pub const fn judge(passage: Passage, by_server: bool, to_server: bool) -> Verdict {
    match (passage, by_server, to_server) {
        (Passage::Unknown | Passage::Within, ..) | (Passage::Out, true, _) | (Passage::In, false, true) => {
            Verdict::Heard
        }
        (Passage::In | Passage::Past, true, _) => Verdict::Forged,
        // What goes past another host's ear was not received by the server here.
        (Passage::Out | Passage::In | Passage::Past, false, _) => Verdict::Astray,
    }
}

/// A frame that came in from one of the server's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Impostor {
    /// The link address that sent it, if the link has such.
    pub link: Option<[u8; 6]>,
    /// The server's address that it bears.
    pub claims: IpAddr,
    /// Who it was sent to.
    pub to: IpAddr,
}

impl fmt::Display for Impostor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} to {}", self.claims, self.to)?;
        let Some([first, rest @ ..]) = self.link else { return Ok(()) };
        write!(f, ", sent by link address {first:02x}")?;
        rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

/// Gathers such frames until somebody is told: of the first at once, of more once a minute.
#[derive(Debug, Default)]
pub struct Impostors {
    fresh: u64,
    last: Option<Impostor>,
    told: Option<Time>,
}

impl Impostors {
    /// Takes one in.
    pub fn handle(&mut self, who: Impostor) {
        self.fresh += 1;
        self.last = Some(who);
    }

    /// How many there were since the last telling, and the newest of them, if it is time to tell.
    pub fn poll(&mut self, now: Time) -> Option<(u64, Impostor)> {
        if self.told.is_some_and(|at| now.since(at) < TELL_EVERY) {
            return None;
        }
        let last = self.last.take()?;
        self.told = Some(now);
        Some((std::mem::take(&mut self.fresh), last))
    }

    /// Forgets what was not told: on a host that does not hold the addresses such frames are another's business.
    pub fn forget(&mut self) {
        (self.fresh, self.last) = (0, None);
    }
}

#[cfg(test)]
mod tests;
