//! What an inspection found, as plain data. `docs/inspect.md` describes the JSON of these types field by field, and a test holds both
//! together: a field is added there and here, and none is removed or changes its meaning while [`SCHEMA`] stays.

pub use super::survey::{Certainty, Server};
pub use super::wire::Traffic;

use crate::calls::model::{Flow, Pairing};
use crate::calls::tracker::Counters;
use crate::sip::Transport;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Version of the report's JSON.
pub const SCHEMA: u32 = 1;

/// The calls in a capture file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The server that keepcall would guard.
    pub server: Chosen,
    /// Addresses that could be the server, likeliest first.
    pub servers: Vec<Server>,
    /// Time of the first SIP message or datagram, milliseconds since 1970.
    pub first_ms: Option<u64>,
    /// Time of the last one.
    pub last_ms: Option<u64>,
    /// All calls, in the order in which they began.
    pub calls: Vec<Call>,
    /// Legs beyond the limit of a report.
    pub legs_left_out: u64,
    /// Requests that are of no call, by method.
    pub other_requests: BTreeMap<String, u64>,
    /// What was in the frames.
    pub traffic: Traffic,
    /// RTP in the file.
    pub rtp: RtpTotals,
    /// What the tracker counted, at all servers together.
    pub counters: Counters,
    /// What should be known of the file as a whole, in words.
    pub notes: Vec<String>,
    /// Why the file was not read to its end; `None` if it was.
    pub truncated: Option<String>,
}

/// The server of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chosen {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its SIP ports.
    pub ports: Vec<u16>,
    /// How sure this is.
    pub certainty: Certainty,
}

/// RTP and RTCP packets of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RtpTotals {
    /// Packets that belong to a call.
    pub packets: u64,
    /// Packets that look like RTP and belong to no call that is known.
    pub unknown: u64,
}

/// Where a call, or one leg of it, is at the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Answered, and not over.
    Up,
    /// INVITE was sent; nobody rings yet.
    Calling,
    /// It rings.
    Ringing,
    /// Answered, and over.
    Ended,
    /// The caller gave up before an answer.
    Cancelled,
    /// Answered with 3xx.
    Redirected,
    /// Refused with 4xx to 6xx.
    Failed,
    /// No final answer was seen, and nothing was heard for minutes.
    Unanswered,
}

/// Who ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// The calling party.
    Caller,
    /// The called party.
    Callee,
    /// A server between both.
    Server,
}

/// A party, as the first INVITE names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Party {
    /// The display name.
    pub name: Option<String>,
    /// The user part of the URI: the number.
    pub user: Option<String>,
    /// The URI.
    pub uri: String,
    /// Where its SIP comes from, or goes to, as far out as was seen.
    pub address: Option<SocketAddr>,
}

/// One call of a [`Report`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Call {
    /// Name of the call: the same in each inspection of the same file.
    pub id: String,
    /// Where it is.
    pub state: State,
    /// Whether its start is not in the file.
    pub partial: bool,
    /// Whether a leg of it passes the server.
    pub through_server: bool,
    /// Who calls.
    pub from: Party,
    /// Who is called.
    pub to: Party,
    /// Whether it is an emergency call.
    pub emergency: bool,
    /// First message, milliseconds since 1970.
    pub started_ms: u64,
    /// First provisional answer above 100.
    pub ringing_ms: Option<u64>,
    /// First 2xx.
    pub answered_ms: Option<u64>,
    /// When it was over.
    pub ended_ms: Option<u64>,
    /// From the answer (or the first message, if the start is not in the file) to the end, or to the end of the file.
    pub duration_ms: Option<u64>,
    /// The final status code that the caller got.
    pub code: Option<u16>,
    /// Its reason phrase.
    pub reason: Option<String>,
    /// Who ended it.
    pub ended_by: Option<By>,
    /// How it ended, in words: the Reason header if there is one.
    pub ended_how: Option<String>,
    /// How its legs were paired; `None` where nothing was to be paired, or it is not certain.
    pub pairing: Option<Pairing>,
    /// How certain the pairing is, from 0 to 100.
    pub confidence: Option<u8>,
    /// The id under which keepcall would have stored it; `None` if it would not.
    pub stored_id: Option<String>,
    /// Its Call-IDs.
    pub call_ids: Vec<String>,
    /// Each dialog on each hop.
    pub legs: Vec<Leg>,
    /// What would become of it if its server's host failed.
    pub recovery: Recovery,
    /// What should be known of it, in words.
    pub notes: Vec<String>,
}

/// One dialog as it was seen at one server: a hop of a call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leg {
    /// Call-ID.
    pub call_id: String,
    /// Who called whom, seen from the local side.
    pub direction: Side,
    /// Whether the local side is the server of the report.
    pub through_server: bool,
    /// Where it is.
    pub state: State,
    /// Whether it is incompletely known: such a leg is not recovered.
    pub partial: bool,
    /// What is missing.
    pub missing: Vec<String>,
    /// The local side's From or To value.
    pub local: String,
    /// The other side's From or To value.
    pub remote: String,
    /// The local side's tag.
    pub local_tag: String,
    /// The other side's tag.
    pub remote_tag: String,
    /// The request URI of the first INVITE.
    pub request_uri: Option<String>,
    /// How SIP travelled.
    pub transport: Transport,
    /// The local side's address.
    pub local_addr: SocketAddr,
    /// The other side's address, as its packets have it.
    pub remote_addr: SocketAddr,
    /// The same messages on other address pairs: the capture saw them before and after address translation.
    pub also_seen: Vec<[SocketAddr; 2]>,
    /// First message, milliseconds since 1970.
    pub started_ms: u64,
    /// First provisional answer above 100.
    pub ringing_ms: Option<u64>,
    /// First 2xx.
    pub answered_ms: Option<u64>,
    /// When it was over.
    pub ended_ms: Option<u64>,
    /// Final status code of its first INVITE.
    pub code: Option<u16>,
    /// Its reason phrase.
    pub reason: Option<String>,
    /// Status codes of refusals after which the caller tried again (401 and 407, mostly).
    pub retried: Vec<u16>,
    /// Who ended it.
    pub ended_by: Option<End>,
    /// How it ended: the Reason header, or what the tracker says.
    pub ended_how: Option<String>,
    /// Highest CSeq of the local side.
    pub local_cseq: Option<u32>,
    /// Highest CSeq of the other side.
    pub remote_cseq: Option<u32>,
    /// Route set from the local side towards the other.
    pub route_set: Vec<String>,
    /// The other side's Contact.
    pub remote_target: String,
    /// The local side's Contact.
    pub local_target: String,
    /// The session timer.
    pub session_timer: Option<Timer>,
    /// Who holds the audio.
    pub hold: Hold,
    /// The other side's Allow.
    pub allow: String,
    /// The other side's Supported.
    pub supported: String,
    /// The other side's User-Agent or Server, as it came over this hop.
    pub user_agent: Option<String>,
    /// Messages of it, each as often as it was captured.
    pub messages: u64,
    /// re-INVITEs and UPDATEs in it.
    pub reinvites: u64,
    /// Refer-To of its REFERs.
    pub refers: Vec<String>,
    /// The Replaces header of its first INVITE.
    pub replaces: Option<String>,
    /// Its media, one per m-line.
    pub media: Vec<Media>,
}

/// Who sent the first INVITE of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The other side.
    Inbound,
    /// The local side.
    Outbound,
    /// It was not seen.
    Unknown,
}

/// Who sent BYE or CANCEL on a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The local side.
    Local,
    /// The other side.
    Remote,
}

/// A session timer (RFC 4028).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Timer {
    /// Session-Expires, in seconds.
    pub interval_s: u32,
    /// Who refreshes.
    pub refresher: End,
}

/// Who holds the audio of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// Nobody.
    None,
    /// The local side.
    Local,
    /// The other side.
    Remote,
    /// Both.
    Both,
}

/// One m-line of a leg.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Media {
    /// `audio`, `video`, `image` and so on.
    pub kind: String,
    /// `RTP/AVP` and so on.
    pub proto: String,
    /// Whether offer and answer were both seen and accepted; if not, this is the last that each side said.
    pub agreed: bool,
    /// What the local side told the other.
    pub local: Option<Description>,
    /// What the other side said.
    pub remote: Option<Description>,
    /// Codecs that both named, the answerer's order.
    pub codecs: Vec<String>,
    /// Whether this is fax (T.38).
    pub t38: bool,
    /// RTP from the other side to the local side.
    pub received: Option<Rtp>,
    /// RTP from the local side to the other.
    pub sent: Option<Rtp>,
}

/// One side's description of an m-line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Description {
    /// Where it listens; `None` if the description has a name instead.
    pub address: Option<IpAddr>,
    /// Its port; 0 for a refused stream.
    pub port: u16,
    /// Where it listens for RTCP.
    pub rtcp_port: Option<u16>,
    /// `sendrecv`, `sendonly`, `recvonly` or `inactive`.
    pub direction: String,
    /// Formats, by encoding name where the description gives it, else by number.
    pub codecs: Vec<String>,
    /// How it is encrypted.
    pub crypto: Crypto,
    /// Whether RTP and RTCP may share a port.
    pub rtcp_mux: bool,
    /// Whether it offers ICE.
    pub ice: bool,
    /// Payload types with their encoding: to name the packets that were seen.
    #[serde(skip)]
    pub(super) types: Vec<(u8, String)>,
}

/// How media are encrypted. Keys are never told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Crypto {
    /// Not at all.
    None,
    /// With keys in the description (RFC 4568).
    Sdes,
    /// With keys agreed on the media path (RFC 5763).
    Dtls,
}

/// RTP in one direction, between one pair of addresses at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rtp {
    /// Packets, without RTCP.
    pub packets: u64,
    /// Bytes of these, RTP header included.
    pub bytes: u64,
    /// Packets that are missing by their numbers.
    pub lost: u64,
    /// RTCP packets.
    pub rtcp: u64,
    /// First packet, milliseconds since 1970.
    pub first_ms: u64,
    /// Last packet.
    pub last_ms: u64,
    /// Where the most packets came from.
    pub source: Option<SocketAddr>,
    /// Where they went to.
    pub destination: Option<SocketAddr>,
    /// Whether the source is not the address that the sender's description names: a NAT is between, or it sends from another port.
    pub source_differs: bool,
    /// Sources (SSRC) in it.
    pub ssrcs: u32,
    /// Payload types in it with their packets.
    pub payload_types: Vec<PayloadType>,
}

/// A payload type that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PayloadType {
    /// Its number.
    pub number: u8,
    /// What the descriptions call it.
    pub codec: Option<String>,
    /// Packets with it.
    pub packets: u64,
}

/// What would become of the audio of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Audio {
    /// The relay in the kernel carries it on.
    Relayed,
    /// The phones send to each other directly: it does not depend on the server.
    Direct,
    /// It goes by an address that is neither a phone's nor the server's.
    Elsewhere,
    /// It is lost.
    No,
}

/// What would become of the signalling of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signalling {
    /// Both parties get a re-INVITE, and their dialogs are carried on.
    ReInvite,
    /// It ends.
    No,
}

/// What would become of a call if its server's host failed; of a call that is over: while it was up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// Of its audio.
    pub audio: Audio,
    /// Of its signalling.
    pub signalling: Signalling,
    /// Why, in words.
    pub why: String,
    /// The paths that the relay would forward.
    pub flows: Vec<Path>,
}

/// One path of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Path {
    /// The sending phone.
    pub from: SocketAddr,
    /// The server's address that it sends to.
    pub at: SocketAddr,
    /// The phone to forward to.
    pub to: SocketAddr,
    /// The server's address that it expects packets from.
    pub source: SocketAddr,
}

impl From<&Flow> for Path {
    fn from(f: &Flow) -> Self {
        Self { from: f.from, at: f.at, to: f.to, source: f.source }
    }
}

impl Recovery {
    /// Nothing is recovered.
    #[must_use]
    pub fn no(why: impl Into<String>) -> Self {
        Self { audio: Audio::No, signalling: Signalling::No, why: why.into(), flows: Vec::new() }
    }
}
