//! Reassembles IP fragments of UDP datagrams and TCP segments. An INVITE with many headers and a long SDP exceeds one
//! frame. Pure.

use crate::time::Time;
use crate::wire::frame::{Fragment, UDP, behind_extensions, ports_and_payload};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Datagrams in reassembly at one time. The oldest gives way, so a flood of fragments neither blocks real datagrams nor
/// eats memory.
const MAX_DATAGRAMS: usize = 64;
/// Fragments of one datagram. At IPv6's minimum MTU of 1,280 bytes, 65,535 bytes take 54.
const MAX_FRAGMENTS: usize = 64;
/// The longest UDP datagram.
const MAX_LENGTH: usize = 65_535;
/// Reassembly time-out. The fragments of one datagram leave back to back, and the 30 s and more of RFC 791 and RFC 8200
/// would only help a flood.
const PATIENCE: Duration = Duration::from_secs(2);

/// The key shared by all fragments of one datagram (RFC 791 section 3.2).
type Key = (IpAddr, IpAddr, u8, u32);

/// A reassembled datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Protocol number from the fragments. In IPv6 it can name an extension header.
    pub protocol: u8,
    /// The reassembled payload.
    pub data: Vec<u8>,
}

impl Joined {
    /// Protocol number and data behind any extension headers.
    #[must_use]
    pub fn upper(&self) -> Option<(u8, &[u8])> {
        behind_extensions(self.protocol, &self.data)
    }
}

#[derive(Debug)]
struct Partial {
    since: Time,
    // Offset and bytes, in order of arrival.
    parts: Vec<(usize, Vec<u8>)>,
    // Known once the last fragment has arrived.
    length: Option<usize>,
}

/// Fragments that wait for the rest of their datagram.
#[derive(Debug, Default)]
pub struct Reassembly {
    partials: HashMap<Key, Partial>,
    given_up: u64,
}

impl Reassembly {
    /// A reassembly without any fragments.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Handles one fragment. Returns the UDP datagram (source, destination, payload) that it completes.
    pub fn handle_fragment(&mut self, f: &Fragment<'_>, now: Time) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        let joined = self.join(f, now)?;
        let (UDP, data) = joined.upper()? else { return None };
        let (sport, dport, payload) = ports_and_payload(data)?;
        Some((SocketAddr::new(f.src, sport), SocketAddr::new(f.dst, dport), payload.to_vec()))
    }

    /// Handles one fragment. Returns the datagram that it completes.
    pub fn join(&mut self, f: &Fragment<'_>, now: Time) -> Option<Joined> {
        self.forget_old(now);
        let end = f.offset + f.data.len();
        // RFC 8200 section 4.5: every fragment except the last has a multiple of 8 bytes.
        if end > MAX_LENGTH || f.data.is_empty() || (f.more && !f.data.len().is_multiple_of(8)) {
            return None;
        }
        let key = (f.src, f.dst, f.protocol, f.id);
        if !self.partials.contains_key(&key) && self.partials.len() >= MAX_DATAGRAMS {
            let oldest = self.partials.iter().map(|(key, p)| (p.since, *key)).min().map(|(_, key)| key);
            oldest.and_then(|key| self.partials.remove(&key));
            self.given_up += 1;
        }
        let partial =
            self.partials.entry(key).or_insert_with(|| Partial { since: now, parts: Vec::new(), length: None });
        if partial.parts.iter().any(|(offset, part)| *offset == f.offset && *part == f.data) {
            // A duplicate, captured twice on its way through the host.
            return None;
        }
        let overlaps = partial.parts.iter().any(|(offset, part)| f.offset < offset + part.len() && *offset < end);
        if overlaps || partial.parts.len() >= MAX_FRAGMENTS {
            // RFC 5722: overlapping fragments are an attack. Drop the whole datagram.
            self.partials.remove(&key);
            self.given_up += 1;
            return None;
        }
        partial.parts.push((f.offset, f.data.to_vec()));
        if !f.more {
            partial.length = Some(end);
        }
        // Without overlaps, the datagram is complete when the lengths add up.
        if Some(partial.parts.iter().map(|(_, part)| part.len()).sum()) != partial.length {
            return None;
        }
        let mut parts = self.partials.remove(&key)?.parts;
        parts.sort_unstable_by_key(|(offset, _)| *offset);
        // The first fragment's protocol counts (RFC 8200 section 4.5). Here all fragments have the same, as it is in
        // the key.
        let data = parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().concat();
        Some(Joined { src: f.src, dst: f.dst, protocol: f.protocol, data })
    }

    /// Datagrams that timed out incomplete or were refused.
    #[must_use]
    pub const fn given_up(&self) -> u64 {
        self.given_up
    }

    fn forget_old(&mut self, now: Time) {
        let before = self.partials.len();
        self.partials.retain(|_, p| now.since(p.since) < PATIENCE);
        self.given_up += (before - self.partials.len()) as u64;
    }
}

#[cfg(test)]
mod tests;
