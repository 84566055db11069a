//! Whose HEP is believed, and which end of a message the server is. Pure.
//!
//! Whoever can bring a packet in here can make calls up, and end calls that are up: with a forged BYE, a call is no longer stored and
//! not recovered. So nothing is taken in from just anybody.

use super::{Hep, HepError, Kind, decode, strikes::Strikes, transport_of};
use crate::sip::Transport;
use crate::sip::message::Message;
use crate::time::Time;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};

/// The key that senders must show. Kept as a hash, so that comparing takes the same time whatever was shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of these bytes.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Whether `shown` is the key. How long it takes depends on the length of `shown` alone.
    fn is(&self, shown: &[u8]) -> bool {
        let shown = Sha256::digest(shown);
        let differing = self.0.iter().zip(shown).fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Who is believed, and what the server is called.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The key that each packet must show; then only version 3 is taken in, which can carry one.
    pub key: Option<Key>,
    /// The addresses that packets may come from; `None`: from anywhere, which is for use with a key only.
    pub from: Option<Vec<IpAddr>>,
    /// The floating addresses of the server.
    pub vips: Vec<IpAddr>,
    /// Other addresses that the server may name as its own; each stands for the first floating address of its family. A server
    /// that calls a phone over TCP or TLS does so from the host's own address, unless it is told otherwise.
    pub server: Vec<IpAddr>,
    /// SIP ports of the server over UDP and TCP.
    pub sip_ports: Vec<u16>,
}

/// What came, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// SIP messages that were taken in.
    pub received: u64,
    /// Packets of senders that are not believed, and connections beyond the limit.
    pub refused: u64,
    /// What is no well-formed HEP, or holds a SIP message that was cut short.
    pub malformed: u64,
    /// Payloads that are no SIP: RTCP reports, logs, keep-alives.
    pub not_sip: u64,
    /// SIP of which neither end, or both ends, are the server's.
    pub elsewhere: u64,
    /// Datagrams that the kernel dropped because they came faster than they were read.
    pub dropped: u64,
}

/// A SIP message that a server reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// Who sent it.
    pub src: SocketAddr,
    /// Who it was sent to.
    pub dst: SocketAddr,
    /// Over what.
    pub transport: Transport,
    /// The message.
    pub payload: Vec<u8>,
    /// Whether it is a request.
    pub is_request: bool,
    /// The same for a request and its responses (RFC 3261 section 17.1.3: branch and CSeq), and hardly ever for others.
    pub transaction: u64,
}

/// Why something is not taken in that somebody may want to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The sender's address is not one of those that are believed.
    #[error("{0} may not send here; if it is the server, name it in `from` of [instance.sip.hep]")]
    Source(IpAddr),
    /// Versions 1 and 2 cannot carry a key.
    #[error("{0} sends HEP version {1}, which cannot carry the key of `key_file`; let it send version 3")]
    Version(IpAddr, u8),
    /// No key was shown.
    #[error(
        "{0} shows no key, and `key_file` asks for one; set it in the server, or remove `key_file` and name senders in `from`"
    )]
    NoKey(IpAddr),
    /// The wrong key was shown.
    #[error("{0} shows a key that is not the one of `key_file`")]
    WrongKey(IpAddr),
    /// It is no HEP.
    #[error("{0} sends what cannot be read: {1}")]
    Malformed(IpAddr, HepError),
    /// The SIP message is not whole.
    #[error("{0} sends SIP messages that are cut short; raise the size that it reports at most")]
    Cut(IpAddr),
    /// Neither end is the server.
    #[error(
        "{0} reports SIP between {1} and {2}, of which neither is a virtual address; if one of them is the server, name it in \
         `server` of [instance.sip.hep]"
    )]
    Elsewhere(IpAddr, IpAddr, IpAddr),
}

impl Refusal {
    /// Whether the sender is not believed: nothing more is to be read from it.
    #[must_use]
    pub const fn is_stranger(&self) -> bool {
        matches!(self, Self::Source(_) | Self::Version(..) | Self::NoKey(_) | Self::WrongKey(_))
    }
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A SIP message of the server.
    Report(Reported),
    /// Nothing to learn from.
    PassedOver,
    /// It was not taken in; `tell`: warn of it, for this sender for the first time in a while.
    Refused {
        /// Why.
        why: Refusal,
        /// Whether to warn.
        tell: bool,
    },
}

/// Judges what comes.
#[derive(Debug)]
pub struct Intake {
    rules: Rules,
    strikes: Strikes,
    /// What came, and what became of it.
    pub counters: Counters,
}

impl Intake {
    /// One that goes by `rules`.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, strikes: Strikes::default(), counters: Counters::default() }
    }

    /// Whether packets from `source` are looked at, as far as its address goes.
    ///
    /// # Errors
    /// They are not: the refusal, and whether to warn of it.
    pub fn admit(&mut self, source: IpAddr, now: Time) -> Result<(), (Refusal, bool)> {
        let source = source.to_canonical();
        if self.rules.from.as_ref().is_none_or(|from| from.contains(&source)) {
            return Ok(());
        }
        self.counters.refused += 1;
        Err((Refusal::Source(source), self.strikes.tell(source, now)))
    }

    /// Judges one packet from `source`.
    pub fn take(&mut self, bytes: &[u8], source: IpAddr, now: Time) -> Taken {
        let source = source.to_canonical();
        if let Err((why, tell)) = self.admit(source, now) {
            return Taken::Refused { why, tell };
        }
        let judged = decode(bytes).map_err(|e| Refusal::Malformed(source, e)).and_then(|hep| self.judge(&hep, source));
        match judged {
            Ok(Some(report)) => {
                self.counters.received += 1;
                Taken::Report(report)
            }
            Ok(None) => Taken::PassedOver,
            Err(why) => {
                let count = match why {
                    Refusal::Malformed(..) | Refusal::Cut(_) => &mut self.counters.malformed,
                    Refusal::Elsewhere(..) => &mut self.counters.elsewhere,
                    _ => &mut self.counters.refused,
                };
                *count += 1;
                let tell = self.strikes.tell(source, now);
                Taken::Refused { why, tell }
            }
        }
    }

    fn judge(&mut self, hep: &Hep<'_>, source: IpAddr) -> Result<Option<Reported>, Refusal> {
        if let Some(key) = &self.rules.key {
            match hep.auth_key {
                None if hep.version < 3 => return Err(Refusal::Version(source, hep.version)),
                None => return Err(Refusal::NoKey(source)),
                Some(shown) if !key.is(shown) => return Err(Refusal::WrongKey(source)),
                Some(_) => {}
            }
        }
        if hep.kind != Kind::Sip {
            self.counters.not_sip += 1;
            return Ok(None);
        }
        let payload = hep.payload().map_err(|e| Refusal::Malformed(source, e))?;
        // Keep-alives, handshakes of WebSocket, SIP over SCTP.
        let message = Message::parse(&payload).ok();
        let Some((message, transport)) = message.and_then(|m| transport_of(&m, hep.protocol).map(|t| (m, t))) else {
            self.counters.not_sip += 1;
            return Ok(None);
        };
        if !message.is_whole() {
            return Err(Refusal::Cut(source));
        }
        let (src, dst) = (hep.src.ip().to_canonical(), hep.dst.ip().to_canonical());
        let (from, to, sent) = match (self.own(src), self.own(dst)) {
            (Some(from), None) => (from, dst, true),
            (None, Some(to)) => (src, to, false),
            (None, None) => return Err(Refusal::Elsewhere(source, src, dst)),
            // The server with itself, which is no call of a phone.
            (Some(_), Some(_)) => {
                self.counters.elsewhere += 1;
                return Ok(None);
            }
        };
        let (mut src, mut dst) = (SocketAddr::new(from, hep.src.port()), SocketAddr::new(to, hep.dst.port()));
        let own = if sent { &mut src } else { &mut dst };
        // The port of a connection that the server opened says nothing, and no phone could reach it there.
        if transport == Transport::Tcp
            && !self.rules.sip_ports.contains(&own.port())
            && let Some(port) = self.rules.sip_ports.first()
        {
            own.set_port(*port);
        }
        let (is_request, transaction) = (message.is_request(), transaction(&message));
        Ok(Some(Reported { src, dst, transport, payload: payload.into_owned(), is_request, transaction }))
    }

    /// The floating address that `ip` means; `None` if it is not the server's.
    fn own(&self, ip: IpAddr) -> Option<IpAddr> {
        if self.rules.vips.contains(&ip) {
            return Some(ip);
        }
        // The server may name the address that it is bound to (0.0.0.0), or one that it has beside the floating ones. What phones
        // know is the floating one.
        let named = self.rules.server.contains(&ip);
        named.then(|| self.rules.vips.iter().copied().find(|v| v.is_ipv4() == ip.is_ipv4())).flatten()
    }
}

fn transaction(m: &Message<'_>) -> u64 {
    let mut hash = DefaultHasher::new();
    (m.call_id(), m.branch(), m.cseq()).hash(&mut hash);
    hash.finish()
}
