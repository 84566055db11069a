//! Decides whether a packet counts as traffic of the server, by the direction in which it passed this host. Pure.
//!
//! Any host on a LAN can write the server's address into a frame's source. The server's own packets *leave* this host,
//! and packets to the server come in. The kernel knows the direction of a frame, whatever the frame claims. So a frame
//! that comes in from a server address is a forgery, a network loop, or another host that answers for the address. It
//! is never the server's word.
//!
//! The direction cannot expose a frame that this host itself forwards between two ports or networks: such a frame
//! leaves the host as well. A bridge shows forwarded frames on its ports and not on itself, so capture on the interface
//! that has the addresses (the bridge). A router drops IPv4 packets from one of its own addresses before it forwards
//! them.

use crate::time::{OnceAMinute, Time};
use std::fmt;
use std::net::IpAddr;

/// Direction in which a frame passed the capturing host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Passage {
    /// Unknown: the frame is from a file without this information.
    #[default]
    Unknown,
    /// Stayed inside: on a loopback every packet leaves and comes in.
    Within,
    /// Left this host.
    Out,
    /// Came in, to this host's link address or to a broadcast or multicast address.
    In,
    /// Came in, to another host's link address. A promiscuous interface or a mirror port shows such frames.
    Past,
}

impl Passage {
    /// Maps the number that packet(7) calls `sll_pkttype`, also found in the header of a cooked capture. A number that
    /// packet sockets never give counts as a frame of another host.
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

/// Verdict on a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Traffic between the server and a peer.
    Heard,
    /// Has the server's address as its source, and did not come from this host.
    Forged,
    /// Goes to the server's address and past this host, or leaves this host from an address outside the server's.
    Astray,
}

/// Judges a packet. `by_server`: its source is a server address. `to_server`: its destination is one.
///
/// Fragments and segments are judged one by one, before reassembly, so a stranger's part never completes a real
/// message.
#[must_use]
pub const fn judge(passage: Passage, by_server: bool, to_server: bool) -> Verdict {
    match (passage, by_server, to_server) {
        (Passage::Unknown | Passage::Within, ..) | (Passage::Out, true, _) | (Passage::In, false, true) => {
            Verdict::Heard
        }
        (Passage::In | Passage::Past, true, _) => Verdict::Forged,
        // The server here never received a frame to another host's link address.
        (Passage::Out | Passage::In | Passage::Past, false, _) => Verdict::Astray,
    }
}

/// A frame that came in from a server address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Impostor {
    /// The sender's link address, if the link has one.
    pub link: Option<[u8; 6]>,
    /// The server address in its source field.
    pub claims: IpAddr,
    /// Destination address.
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

/// Collects such frames for the warnings: the first is reported at once, later ones once a minute.
#[derive(Debug, Default)]
pub struct Impostors {
    fresh: u64,
    last: Option<Impostor>,
    told: OnceAMinute,
}

impl Impostors {
    /// Counts one frame.
    pub fn handle(&mut self, who: Impostor) {
        self.fresh += 1;
        self.last = Some(who);
    }

    /// The number of frames since the last report and the newest of them, once a report is due.
    pub fn poll(&mut self, now: Time) -> Option<(u64, Impostor)> {
        if !self.told.is_due(now) {
            return None;
        }
        let last = self.last.take()?;
        self.told.happens(now);
        Some((std::mem::take(&mut self.fresh), last))
    }

    /// Forgets the unreported frames. On a host without the addresses, such frames come from the holder.
    pub fn forget(&mut self) {
        (self.fresh, self.last) = (0, None);
    }
}

#[cfg(test)]
mod tests;
