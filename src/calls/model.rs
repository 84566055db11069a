//! The data of a call: the tracker fills it, etcd stores it, and recovery works from it.
//!
//! "Local" is the side of the server that keepcall guards. "Remote" is the phone or trunk on the other end of a leg.

mod common;
mod gaps;
mod next_hop;
mod shared;
mod size;

pub use gaps::{Gap, Gaps};
pub use shared::Shared;

use crate::pbx::ConnectedTo;
use crate::sip::{Transport, sdp};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;

/// Bytes exactly as they were on the wire. JSON shows them as text if they are UTF-8, else as `{"base64": ...}`.
///
/// The bytes never change, and clones share them. The tracker's copy, the copy that waits for its write and the stored
/// copy of a call are the same memory.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Verbatim(pub Arc<[u8]>);

impl Verbatim {
    /// Bytes that many calls have in common (lists of methods, the server's own Contact). Equal values share one
    /// allocation.
    #[must_use]
    pub fn common(bytes: &[u8]) -> Self {
        common::shared(bytes)
    }

    /// The bytes as text, with invalid UTF-8 replaced. For people, never for the wire.
    #[must_use]
    pub fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl fmt::Debug for Verbatim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.lossy())
    }
}

impl From<&str> for Verbatim {
    fn from(s: &str) -> Self {
        Self(s.as_bytes().into())
    }
}

impl From<&[u8]> for Verbatim {
    fn from(s: &[u8]) -> Self {
        Self(s.into())
    }
}

impl From<Vec<u8>> for Verbatim {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Deref for Verbatim {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Verbatim {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        match std::str::from_utf8(&self.0) {
            Ok(text) => s.serialize_str(text),
            Err(_) => Base64 { base64: base64::engine::general_purpose::STANDARD.encode(&self.0) }.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for Verbatim {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Visitor(|bytes: &[u8]| Self(bytes.into())))
    }
}

/// Reads either form and builds the value from the bytes without an intermediate copy.
struct Visitor<F>(F);

impl<'de, F: FnOnce(&[u8]) -> Verbatim> serde::de::Visitor<'de> for Visitor<F> {
    type Value = Verbatim;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or {\"base64\": ...}")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Verbatim, E> {
        Ok(self.0(text.as_bytes()))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Verbatim, A::Error> {
        use base64::Engine as _;
        let coded = Base64::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(coded.base64).map_err(serde::de::Error::custom)?;
        Ok(self.0(&bytes))
    }
}

/// Reads a field whose equal values share memory; see [`Verbatim::common`].
fn common<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Verbatim, D::Error> {
    d.deserialize_any(Visitor(Verbatim::common))
}

#[derive(Serialize, Deserialize)]
struct Base64 {
    base64: String,
}

/// Who sent the first INVITE of a leg, seen from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The phone called the server: the server is UAS of the first INVITE.
    Inbound,
    /// The server called the phone: the server is UAC of the first INVITE.
    Outbound,
}

/// Where a leg is in its life (RFC 3261 section 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LegState {
    /// INVITE seen, no tag from the far side yet.
    Calling,
    /// A provisional answer with a To tag.
    Early,
    /// A 2xx was seen; the dialog is confirmed.
    Confirmed,
    /// BYE, CANCEL, or a final refusal ended it.
    Ended,
}

/// A session description (RFC 8866) in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sdp {
    /// The body as it was on the wire.
    pub body: Verbatim,
}

/// A leg's session timer (RFC 4028), as the last 2xx to INVITE or UPDATE set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTimer {
    /// Session-Expires, in seconds.
    pub interval_s: u32,
    /// Whether the local (server) side has to refresh.
    pub local_refreshes: bool,
}

/// One SIP dialog as the server saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// Call-ID, verbatim.
    pub call_id: Verbatim,
    /// Who started the dialog. If the start was missed: who sent the first request seen.
    pub direction: Direction,
    /// The leg's state in its life.
    pub state: LegState,
    /// Whole value of the header that names the server's side, tag included, verbatim. The agent sends it in From.
    pub local: Verbatim,
    /// Whole value of the header that names the phone's side, tag included, verbatim. The agent sends it in To.
    pub remote: Verbatim,
    /// The server's tag.
    pub local_tag: Verbatim,
    /// The phone's tag. Empty until the phone has given one.
    pub remote_tag: Verbatim,
    /// Highest CSeq number that the server has used towards the phone. `None` if it has sent no request.
    pub local_cseq: Option<u32>,
    /// Highest CSeq number that the phone has used towards the server. `None` if it has sent no request.
    pub remote_cseq: Option<u32>,
    /// Route set from the server towards the phone, in the order of the Route headers to send (RFC 3261 section 12.1).
    /// Each is a whole `<sip:...;lr>` value, verbatim. Entries of the server itself (a proxy that record-routes) are
    /// left out.
    pub route_set: Vec<Verbatim>,
    /// The phone's Contact URI (without angle brackets), verbatim: the request URI of the agent's requests.
    pub remote_target: Verbatim,
    /// The server's own Contact URI as the phone knows it.
    #[serde(deserialize_with = "common")]
    pub local_target: Verbatim,
    /// Transport of the leg's SIP.
    pub transport: Transport,
    /// The server's address and port on the wire, as the phone knows it.
    pub local_addr: SocketAddr,
    /// Real source address of the phone's (or its proxy's) packets, and destination of the server's.
    pub remote_addr: SocketAddr,
    /// The last session description sent to the phone that is in force (rejected offers do not count).
    pub sdp_sent: Option<Sdp>,
    /// The last session description from the phone that is in force.
    pub sdp_received: Option<Sdp>,
    /// Real source of the phone's RTP, one per m-line of `sdp_received`, where it was observed.
    #[serde(default)]
    pub rtp_sources: Vec<Option<SocketAddr>>,
    /// The session timer, if the leg has one.
    pub session_timer: Option<SessionTimer>,
    /// The phone's Allow, joined by commas. Empty if it sent none.
    #[serde(deserialize_with = "common")]
    pub allow: Verbatim,
    /// The phone's Supported, joined by commas. Empty if it sent none.
    #[serde(deserialize_with = "common")]
    pub supported: Verbatim,
    /// Whether a fact that recovery needs is unknown or lost. Such a leg is not recovered. `gaps` says what is missing.
    #[serde(default)]
    pub partial: bool,
    /// What is missing.
    #[serde(default, skip_serializing_if = "Gaps::is_empty")]
    pub gaps: Gaps,
    /// An agent carries this leg: it recovered the leg and gave the phone the Contact of the recovery port.
    #[serde(default)]
    pub carried: bool,
}

/// Whether a phone's RTP may come from `host`. The signalling vouches for only two hosts: the one that the phone's SDP
/// has `told`, and the source of its SIP (a NAT's public side).
#[must_use]
pub fn may_send_rtp(told: IpAddr, sip_source: IpAddr, host: IpAddr) -> bool {
    host == told || host == sip_source
}

impl Leg {
    /// Whether the phone's RTP may come from `host` although its SDP says `told`.
    #[must_use]
    pub fn may_send_rtp(&self, told: IpAddr, host: IpAddr) -> bool {
        may_send_rtp(told, self.remote_addr.ip(), host)
    }

    /// Before `received` becomes the phone's description: an observed source of its RTP stays valid only while the
    /// phone describes the same address, or hides it for a hold.
    pub fn keep_rtp_sources(&mut self, received: &[u8]) {
        if self.rtp_sources.iter().all(Option::is_none) {
            return;
        }
        let old = self.sdp_received.as_ref().and_then(|d| sdp::Sdp::parse(&d.body.0).ok());
        let new = sdp::Sdp::parse(received).ok();
        let place = |d: &Option<sdp::Sdp<'_>>, i: usize| d.as_ref()?.media().get(i).map(|m| (m.connection, m.port));
        let held = |ip: Option<IpAddr>| ip.is_some_and(|ip| ip.is_unspecified());
        for (i, source) in self.rtp_sources.iter_mut().enumerate() {
            let stays = match (place(&old, i), place(&new, i)) {
                // A hold in the old style names 0.0.0.0, and so hides the address for its time.
                (Some((before, old)), Some((after, new))) => {
                    old == new && (before == after || held(before) || held(after))
                }
                _ => false,
            };
            if !stays {
                *source = None;
            }
        }
        if self.rtp_sources.iter().all(Option::is_none) {
            self.rtp_sources = Vec::new();
        }
    }

    /// Why the leg, taken by itself, would not be recovered. `None` if it would.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        let mut why: Vec<&str> = self.gaps.iter().map(Gap::why).collect();
        if why.is_empty() && self.partial {
            // A version that did not keep the reason stored this leg.
            why.push(Gap::Other.why());
        }
        match self.transport {
            Transport::Udp => {}
            // The phone opened the connection, and the connection died with the server.
            Transport::Tcp | Transport::Tls | Transport::Ws => {
                why.push("the leg uses TCP, TLS or WebSocket, and only the phone can open a new connection")
            }
        }
        (!why.is_empty()).then(|| why.join("; "))
    }
}

/// How two legs were found to be one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pairing {
    /// Both legs are one dialog that passed a proxy: same Call-ID and tags.
    SameDialog,
    /// A header that the operator named had the same value in both first INVITEs.
    Header,
    /// Session-ID (RFC 7989).
    SessionId,
    /// Identities, time and media agreed, and no other leg agreed equally.
    Evidence,
    /// The server itself reported both legs in one bridge.
    Bridge,
}

/// One conversation: one or two legs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Version of this layout; see [`SCHEMA`].
    pub schema: u32,
    /// Name of the call in etcd and on the command line: letters, digits and `-` only.
    pub id: String,
    /// The instance (VIP group) whose server carries the call.
    pub instance: String,
    /// The node that wrote this record.
    pub node: String,
    /// Epoch of the instance at the time of writing.
    pub epoch: u64,
    /// Time of confirmation, in wall-clock milliseconds since 1970.
    pub confirmed_ms: u64,
    /// How the legs were paired; `None` for a single leg.
    pub pairing: Option<Pairing>,
    /// Confidence of the pairing, from 0 to 100 (see [`crate::calls::pairing`]). 100 means that the server reported it,
    /// or that both legs are one dialog. `None` for a single leg.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<u8>,
    /// What a single leg is connected to, if the server reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_end: Option<ConnectedTo>,
    /// Two legs, or one if the server itself is the other party or the partner is uncertain.
    pub legs: Vec<Shared<Leg>>,
    /// Whether a leg is an emergency call (RFC 5031 service URN, or a number from the configuration).
    #[serde(default)]
    pub emergency: bool,
}

impl Call {
    /// Frees the memory that parsing over-allocated, because lists grow in steps larger than a call needs.
    pub fn shrink(&mut self) {
        self.legs.shrink_to_fit();
        for leg in &mut self.legs {
            leg.route_set.shrink_to_fit();
            leg.rtp_sources.shrink_to_fit();
        }
    }
}

/// Version of [`Call`]'s JSON. A reader refuses a newer version than it knows.
pub const SCHEMA: u32 = 1;

/// A change in the set of confirmed calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallEvent {
    /// The call was confirmed, or its state changed: store this.
    Put(Box<Call>),
    /// The call is over: remove it.
    Delete {
        /// [`Call::id`].
        id: String,
        /// Why, in a few words, for history and logs.
        reason: &'static str,
    },
}

/// One direction of audio in the kernel relay. A packet `from` a phone to the VIP port `at` goes `to` the other phone.
/// It leaves from `source`, the VIP port that the other phone knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// The sending phone.
    pub from: SocketAddr,
    /// The VIP address and port that it sends to.
    pub at: SocketAddr,
    /// The phone to forward to.
    pub to: SocketAddr,
    /// The VIP address and port that the receiving phone expects packets from.
    pub source: SocketAddr,
    /// Whether both parties have agreed on T.38 over UDPTL here. UDPTL packets have no recognisable pattern.
    pub udptl: bool,
}
