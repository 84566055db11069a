//! Decides which HEP senders are trusted, and which end of a message is the server. Pure.
//!
//! A forged packet can invent calls, and a forged BYE can end a real one, which is then no longer stored or recovered.
//! So only packets from trusted senders are accepted.

use super::{Hep, HepError, Kind, decode, strikes::Strikes, transport_of};
use crate::sip::Transport;
use crate::sip::message::Message;
use crate::time::Time;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};

/// The senders' key. Stored as a hash, so that a comparison takes the same time for any input.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// The key with these bytes.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Whether `shown` is the key. The time depends only on the length of `shown`.
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

/// Trusted senders, and the server's addresses.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The key required in each packet. With a key only version 3 is accepted, because only that can carry one.
    pub key: Option<Key>,
    /// Permitted source addresses. `None` permits all, which is safe only with a key.
    pub from: Option<Vec<IpAddr>>,
    /// The floating addresses of the server.
    pub vips: Vec<IpAddr>,
    /// Other addresses that the server may report as its own. Each stands for the first floating address of its family.
    /// Unless configured otherwise, a server calls a phone over TCP or TLS from the host's own address.
    pub server: Vec<IpAddr>,
    /// SIP ports of the server over UDP and TCP.
    pub sip_ports: Vec<u16>,
}

/// Counters of the input by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Accepted SIP messages.
    pub received: u64,
    /// Packets of untrusted senders, and connections beyond the limit.
    pub refused: u64,
    /// Malformed HEP, or HEP with a truncated SIP message.
    pub malformed: u64,
    /// Payloads other than SIP: RTCP reports, logs, keep-alives.
    pub not_sip: u64,
    /// SIP with the server at neither end, or at both ends.
    pub elsewhere: u64,
    /// Datagrams that the kernel dropped because the agent read too slowly.
    pub dropped: u64,
}

/// A SIP message reported by a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedMessage {
    /// Sender.
    pub src: SocketAddr,
    /// Receiver.
    pub dst: SocketAddr,
    /// Transport.
    pub transport: Transport,
    /// The message.
    pub payload: Vec<u8>,
    /// Whether it is a request.
    pub is_request: bool,
    /// Equal for a request and its responses (RFC 3261 section 17.1.3: branch and CSeq), and hardly ever for others.
    pub transaction: u64,
}

/// Why a packet is refused, if an operator may want to change that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The sender's address is not permitted.
    #[error("{0} may not send HEP here; if {0} is the server, add the address to `from` of [instance.sip.hep]")]
    Source(IpAddr),
    /// Versions 1 and 2 cannot carry a key.
    #[error("{0} sends HEP version {1}, which cannot carry the key of `key_file`; set version 3 in the server")]
    Version(IpAddr, u8),
    /// The packet has no key.
    #[error(
        "{0} sends no key, and `key_file` asks for one; set the key in the server, or remove `key_file` and name \
         senders in `from`"
    )]
    NoKey(IpAddr),
    /// The packet has the wrong key.
    #[error("{0} sends another key than `key_file` holds; set the key of `key_file` in the server")]
    WrongKey(IpAddr),
    /// Not HEP.
    #[error("{0} sends packets that keepcall cannot read: {1}")]
    Malformed(IpAddr, HepError),
    /// The SIP message is truncated.
    #[error("{0} truncates the SIP messages that it reports; raise the size limit for reports in the server")]
    Cut(IpAddr),
    /// Neither end is the server.
    #[error(
        "{0} reports SIP between {1} and {2}, and neither is a virtual address; if one of them is the server, name \
         that address in `server` of [instance.sip.hep]"
    )]
    Elsewhere(IpAddr, IpAddr, IpAddr),
}

impl Refusal {
    /// Whether the sender is untrusted, so that nothing more should be read from it.
    #[must_use]
    pub const fn is_stranger(&self) -> bool {
        matches!(self, Self::Source(_) | Self::Version(..) | Self::NoKey(_) | Self::WrongKey(_))
    }
}

/// Result of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntakeResult {
    /// A SIP message of the server.
    Report(ReportedMessage),
    /// Nothing to learn from.
    PassedOver,
    /// Refused. `tell` asks for a warning, the first about this sender in a while.
    Refused {
        /// Why.
        why: Refusal,
        /// Whether to warn.
        tell: bool,
    },
}

/// Checks incoming packets.
#[derive(Debug)]
pub struct Intake {
    rules: Rules,
    strikes: Strikes,
    /// Counters of the input by result.
    pub counters: Counters,
}

impl Intake {
    /// An intake with these rules.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, strikes: Strikes::default(), counters: Counters::default() }
    }

    /// Whether the address of `source` permits its packets.
    ///
    /// # Errors The refusal if it does not, and whether to warn of it.
    pub fn admit(&mut self, source: IpAddr, now: Time) -> Result<(), (Refusal, bool)> {
        let source = source.to_canonical();
        if self.rules.from.as_ref().is_none_or(|from| from.contains(&source)) {
            return Ok(());
        }
        self.counters.refused += 1;
        Err((Refusal::Source(source), self.strikes.tell(source, now)))
    }

    /// Checks one packet from `source`.
    pub fn take(&mut self, bytes: &[u8], source: IpAddr, now: Time) -> IntakeResult {
        let source = source.to_canonical();
        if let Err((why, tell)) = self.admit(source, now) {
            return IntakeResult::Refused { why, tell };
        }
        let judged = decode(bytes).map_err(|e| Refusal::Malformed(source, e)).and_then(|hep| self.judge(&hep, source));
        match judged {
            Ok(Some(report)) => {
                self.counters.received += 1;
                IntakeResult::Report(report)
            }
            Ok(None) => IntakeResult::PassedOver,
            Err(why) => {
                let count = match why {
                    Refusal::Malformed(..) | Refusal::Cut(_) => &mut self.counters.malformed,
                    Refusal::Elsewhere(..) => &mut self.counters.elsewhere,
                    _ => &mut self.counters.refused,
                };
                *count += 1;
                let tell = self.strikes.tell(source, now);
                IntakeResult::Refused { why, tell }
            }
        }
    }

    fn judge(&mut self, hep: &Hep<'_>, source: IpAddr) -> Result<Option<ReportedMessage>, Refusal> {
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
            // The server to itself, which is no call of a phone.
            (Some(_), Some(_)) => {
                self.counters.elsewhere += 1;
                return Ok(None);
            }
        };
        let (mut src, mut dst) = (SocketAddr::new(from, hep.src.port()), SocketAddr::new(to, hep.dst.port()));
        let own = if sent { &mut src } else { &mut dst };
        // The port of a connection that the server opened is arbitrary, and no phone could reach the server there.
        if transport == Transport::Tcp
            && !self.rules.sip_ports.contains(&own.port())
            && let Some(port) = self.rules.sip_ports.first()
        {
            own.set_port(*port);
        }
        let (is_request, transaction) = (message.is_request(), transaction(&message));
        Ok(Some(ReportedMessage { src, dst, transport, payload: payload.into_owned(), is_request, transaction }))
    }

    /// The floating address for `ip`. `None` if `ip` is not the server's.
    fn own(&self, ip: IpAddr) -> Option<IpAddr> {
        if self.rules.vips.contains(&ip) {
            return Some(ip);
        }
        // The server may report its bind address (0.0.0.0), or a host address beside the floating ones. Phones know the
        // floating one.
        let named = self.rules.server.contains(&ip);
        named.then(|| self.rules.vips.iter().copied().find(|v| v.is_ipv4() == ip.is_ipv4())).flatten()
    }
}

fn transaction(m: &Message<'_>) -> u64 {
    let mut hash = DefaultHasher::new();
    (m.call_id(), m.branch(), m.cseq()).hash(&mut hash);
    hash.finish()
}
