//! Puts IP fragments of UDP datagrams and TCP segments together: an INVITE with many headers and a long SDP does not fit into one frame. Pure.

use crate::time::Time;
use crate::wire::frame::{Fragment, UDP, behind_extensions, ports_and_payload};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Datagrams under way at one time. The oldest gives way: a flood of fragments must not stop real ones, nor take memory.
const MAX_DATAGRAMS: usize = 64;
/// Fragments of one datagram: 65,535 bytes at the 1,280 of IPv6's least MTU are 53.
const MAX_FRAGMENTS: usize = 64;
/// The longest UDP datagram.
const MAX_LENGTH: usize = 65_535;
/// The fragments of one datagram leave back to back; the 30 s and more of RFC 791 and RFC 8200 would only help a flood.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the fragments of one datagram share (RFC 791 section 3.2).
type Key = (IpAddr, IpAddr, u8, u32);

/// A datagram that became whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Who sent it.
    pub src: IpAddr,
    /// Who it was sent to.
    pub dst: IpAddr,
    /// The protocol number of what it carries, as its fragments say; for IPv6 this can be an extension header.
    pub protocol: u8,
    /// What it carries.
    pub data: Vec<u8>,
}

impl Joined {
    /// Protocol number and data, extension headers looked behind.
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
    // Known once the last fragment is here.
    length: Option<usize>,
}

/// Fragments that wait for the rest of their datagram.
#[derive(Debug, Default)]
pub struct Reassembly {
    partials: HashMap<Key, Partial>,
    given_up: u64,
}

impl Reassembly {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a fragment. Returns the UDP datagram (source, destination, payload) that it completes.
    pub fn handle_fragment(&mut self, f: &Fragment<'_>, now: Time) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        let joined = self.join(f, now)?;
        let (UDP, data) = joined.upper()? else { return None };
        let (sport, dport, payload) = ports_and_payload(data)?;
        Some((SocketAddr::new(f.src, sport), SocketAddr::new(f.dst, dport), payload.to_vec()))
    }

    /// Takes a fragment. Returns the datagram that it completes.
    pub fn join(&mut self, f: &Fragment<'_>, now: Time) -> Option<Joined> {
        self.forget_old(now);
        let end = f.offset + f.data.len();
        // RFC 8200 section 4.5: all fragments but the last are a multiple of 8 bytes long.
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
            // The same again (seen twice on its way through the host).
            return None;
        }
        let overlaps = partial.parts.iter().any(|(offset, part)| f.offset < offset + part.len() && *offset < end);
        if overlaps || partial.parts.len() >= MAX_FRAGMENTS {
            // RFC 5722: overlapping fragments are an attack; the whole datagram goes.
            self.partials.remove(&key);
            self.given_up += 1;
            return None;
        }
        partial.parts.push((f.offset, f.data.to_vec()));
        if !f.more {
            partial.length = Some(end);
        }
        // No overlaps, so the datagram is complete when the bytes add up.
        if Some(partial.parts.iter().map(|(_, part)| part.len()).sum()) != partial.length {
            return None;
        }
        let mut parts = self.partials.remove(&key)?.parts;
        parts.sort_unstable_by_key(|(offset, _)| *offset);
        // The protocol of the first fragment counts (RFC 8200 section 4.5); here all have the same.
        let data = parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().concat();
        Some(Joined { src: f.src, dst: f.dst, protocol: f.protocol, data })
    }

    /// Datagrams of which a part never came, or that were refused.
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
