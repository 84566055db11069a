//! The heartbeat datagram between two nodes: one authenticated message. Layout, big endian: magic "KC" 1 (3 bytes) |
//! kind | flags | cluster (8) | boot (8) | seq (8) | epoch (8) | beat (8) | beat's boot (8) | priority (2) | sender
//! length (1), sender | instance length (1), instance | fields | first 16 bytes of HMAC-SHA256 over all preceding
//! bytes. A field is its number (1) | length (1) | value. Older releases send no fields and ignore the bytes after the
//! names. A receiver skips unknown fields. Field 1: hold in ns (8) | drift in millionths (4) | digest of the addresses
//! (8) | digest of the other settings (8).

use super::election::{Kind, Message, Told};
use super::record::{MAX_EPOCH, Terms};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Protocol version, the third byte.
const MAGIC: [u8; 3] = [b'K', b'C', 1];
const HEAD: usize = 3 + 2 + 6 * 8 + 2;
/// 128 bits of the MAC: ample strength, and RFC 2104 section 5 allows truncation to half of the output.
const TAG: usize = 16;
/// Output length of SHA-256 in bytes.
const SHA256: usize = 32;
/// Longest datagram. The format allows names of 255 bytes, the configuration 63, so the fields have room. A release
/// without fields rejects longer datagrams.
pub const MAX_DATAGRAM: usize = HEAD + 2 * 256 + TAG;
/// Number of the field with the sender's settings, and the length of its value.
const TOLD: u8 = 1;
const TOLD_LEN: usize = 8 + 4 + 8 + 8;
/// Limit on senders with remembered sequence numbers. Only a holder of the key can add a sender.
const MAX_SENDERS: usize = 256;

/// Why a datagram was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The datagram does not have this protocol version.
    #[error("not a heartbeat of this protocol version")]
    Malformed,
    /// The datagram belongs to another cluster.
    #[error("sent by another cluster: give each cluster its own `port`, or correct `cluster`")]
    OtherCluster,
    /// The keys differ, or the bytes were changed.
    #[error("wrong key: the content of `key_file` must be the same on every node")]
    BadMac,
    /// The datagram was seen before, or is too old to check.
    #[error("a replay, or older than the newest heartbeats of its sender")]
    Replay,
}

/// Seals outgoing messages and opens incoming ones.
pub struct Codec {
    mac: Hmac<Sha256>,
    /// MACs under the other accepted keys, during a change of key.
    others: Vec<Hmac<Sha256>>,
    cluster: u64,
    node: String,
    boot: u64,
    seq: u64,
    senders: HashMap<String, Window>,
}

/// Limit on remembered runs of one sender: more restarts than an attacker can record and replay within a hold.
const MAX_RUNS: usize = 32;

/// The current run of a sender and its earlier runs.
#[derive(Default)]
struct Window {
    now: Run,
    before: Vec<Run>,
    /// The run that etcd has under the sender's name.
    registered: Option<u64>,
}

/// One run of a sender: its newest number, and which of the last 64 numbers were seen.
#[derive(Clone, Copy, Default)]
struct Run {
    boot: u64,
    newest: u64,
    seen: u64,
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    // Hash the key first, so that a key of any length fits into a block of the hash. RFC 2104 section 2 pads a shorter
    // key with zeroes, so the result is HMAC under that hash. This constructor cannot fail, so no fallback key is
    // needed.
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block[..SHA256].copy_from_slice(&Sha256::digest(key));
    Hmac::new(&block)
}

/// Reads the sender's settings from the fields after the names; `None` without that field, as from an older release.
fn told(mut fields: &[u8]) -> Option<Told> {
    while let [number, len, rest @ ..] = fields {
        let (value, rest) = rest.split_at_checked(usize::from(*len))?;
        fields = rest;
        // A later release may extend the value.
        if *number == TOLD && value.len() >= TOLD_LEN {
            let word =
                |from: usize, len: usize| value[from..from + len].iter().fold(0_u64, |n, b| n << 8 | u64::from(*b));
            let terms = Terms { hold_ns: word(0, 8), drift_ppm: u32::try_from(word(8, 4)).unwrap_or(u32::MAX) };
            return Some(Told { terms, vips: word(12, 8), others: word(20, 8) });
        }
    }
    None
}

fn flag(on: bool, bit: u8) -> u8 {
    u8::from(on) << bit
}

impl Codec {
    /// Creates the codec of `node` in `cluster`. `boot` is random for each run of the agent.
    #[must_use]
    pub fn new(key: &[u8], cluster: &str, node: &str, boot: u64) -> Self {
        let hash = Sha256::digest(cluster.as_bytes());
        let cluster = hash.iter().take(8).fold(0_u64, |n, b| n << 8 | u64::from(*b));
        Self {
            mac: keyed(key),
            others: Vec::new(),
            cluster,
            node: node.to_owned(),
            boot,
            seq: 0,
            senders: HashMap::new(),
        }
    }

    /// Also opens datagrams under these keys: the next or the former key, during a change of the cluster's key.
    #[must_use]
    pub fn accepting(mut self, keys: &[Vec<u8>]) -> Self {
        self.others = keys.iter().map(|k| keyed(k)).collect();
        self
    }

    /// Encodes and authenticates a message. Names longer than 255 bytes are truncated; the configuration rejects them
    /// anyway.
    pub fn seal(&mut self, instance: &str, m: &Message) -> Vec<u8> {
        self.seq += 1;
        let (kind, beat, boot, vouch) = match m.kind {
            Kind::Beat { beat, boot } => (0, beat, boot, false),
            Kind::Ack { beat, boot, vouch } => (1, beat, boot, vouch),
            Kind::Claimed => (2, 0, 0, false),
            Kind::Go => (3, 0, 0, false),
        };
        let mut out = Vec::with_capacity(MAX_DATAGRAM);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[kind, flag(m.fit, 0) | flag(vouch, 1)]);
        for n in [self.cluster, self.boot, self.seq, m.epoch, beat, boot] {
            out.extend_from_slice(&n.to_be_bytes());
        }
        out.extend_from_slice(&m.priority.to_be_bytes());
        for name in [self.node.as_str(), instance] {
            let bytes = &name.as_bytes()[..name.len().min(255)];
            out.push(u8::try_from(bytes.len()).unwrap_or(255));
            out.extend_from_slice(bytes);
        }
        if let Some(t) = m.told.filter(|_| out.len() + 2 + TOLD_LEN + TAG <= MAX_DATAGRAM) {
            out.extend_from_slice(&[TOLD, TOLD_LEN as u8]);
            out.extend_from_slice(&t.terms.hold_ns.to_be_bytes());
            out.extend_from_slice(&t.terms.drift_ppm.to_be_bytes());
            out.extend_from_slice(&t.vips.to_be_bytes());
            out.extend_from_slice(&t.others.to_be_bytes());
        }
        let mut mac = self.mac.clone();
        mac.update(&out);
        let tag = mac.finalize().into_bytes();
        out.extend_from_slice(&tag[..TAG]);
        out
    }

    /// Returns sender, instance and message of an authentic, new datagram.
    ///
    /// # Errors
    /// The reason for the rejection. Use no part of a rejected datagram.
    pub fn open(&mut self, bytes: &[u8]) -> Result<(String, String, Message), Rejected> {
        if bytes.len() < HEAD + 2 + TAG || bytes.len() > MAX_DATAGRAM || bytes[..3] != MAGIC {
            return Err(Rejected::Malformed);
        }
        let (body, tag) = bytes.split_at(bytes.len() - TAG);
        let word = |i: usize| body[5 + i * 8..13 + i * 8].iter().fold(0_u64, |n, b| n << 8 | u64::from(*b));
        if word(0) != self.cluster {
            return Err(Rejected::OtherCluster);
        }
        let fits = |mac: &Hmac<Sha256>| mac.clone().chain_update(body).verify_truncated_left(tag).is_ok();
        if !std::iter::once(&self.mac).chain(&self.others).any(fits) {
            return Err(Rejected::BadMac);
        }
        let (boot, seq, epoch, beat, beat_boot) = (word(1), word(2), word(3), word(4), word(5));
        if epoch > MAX_EPOCH {
            return Err(Rejected::Malformed);
        }
        let kind = match body[3] {
            0 => Kind::Beat { beat, boot: beat_boot },
            1 => Kind::Ack { beat, boot: beat_boot, vouch: body[4] & 2 != 0 },
            2 => Kind::Claimed,
            3 => Kind::Go,
            _ => return Err(Rejected::Malformed),
        };
        let mut rest = &body[HEAD..];
        let mut name = || -> Option<String> {
            let (len, tail) = rest.split_first()?;
            let (name, tail) = tail.split_at_checked(usize::from(*len))?;
            rest = tail;
            String::from_utf8(name.to_vec()).ok()
        };
        let (Some(sender), Some(instance)) = (name(), name()) else { return Err(Rejected::Malformed) };
        let told = told(rest);
        if !self.fresh(&sender, boot, seq) {
            return Err(Rejected::Replay);
        }
        let priority = u16::from_be_bytes([body[HEAD - 2], body[HEAD - 1]]);
        Ok((sender, instance, Message { kind, epoch, fit: body[4] & 1 != 0, priority, told }))
    }

    fn fresh(&mut self, sender: &str, boot: u64, seq: u64) -> bool {
        if self.senders.len() >= MAX_SENDERS && !self.senders.contains_key(sender) {
            return false;
        }
        let first = || Window { now: Run { boot, ..Run::default() }, ..Window::default() };
        let w = self.senders.entry(sender.to_owned()).or_insert_with(first);
        if w.now.boot != boot {
            // Reject a datagram of an earlier run: it was recorded or delayed. Exception: the run that etcd knows is
            // accepted again, because a replayed datagram of a run unknown here may have displaced it.
            let known = w.before.iter().position(|r| r.boot == boot);
            if known.is_some() && w.registered != Some(boot) {
                return false;
            }
            let run = known.map_or(Run { boot, ..Run::default() }, |i| w.before.remove(i));
            w.before.push(std::mem::replace(&mut w.now, run));
            if w.before.len() > MAX_RUNS {
                w.before.remove(0);
            }
        }
        let run = &mut w.now;
        if seq > run.newest {
            let by = seq - run.newest;
            run.seen = if by >= 64 { 0 } else { run.seen << by };
            run.seen |= 1;
            run.newest = seq;
            return true;
        }
        let back = run.newest - seq;
        if back >= 64 || run.seen & 1 << back != 0 {
            return false;
        }
        run.seen |= 1 << back;
        true
    }

    /// Records the sender's current run, as its key in etcd shows it.
    pub fn registered(&mut self, sender: &str, boot: u64) {
        if self.senders.len() >= MAX_SENDERS && !self.senders.contains_key(sender) {
            return;
        }
        let first = || Window { now: Run { boot, ..Run::default() }, ..Window::default() };
        self.senders.entry(sender.to_owned()).or_insert_with(first).registered = Some(boot);
    }
}

#[cfg(test)]
mod tests;
