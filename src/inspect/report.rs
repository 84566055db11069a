//! Result of an inspection, as plain data. `docs/inspect.md` describes the JSON of these types field by field, and a
//! test holds both together: a new field goes in both places, and no field disappears or changes its meaning while
//! [`SCHEMA`] stays.

mod sum;

pub use super::link::tunnel::Unread;
pub use super::survey::{Certainty, Server};
pub use super::wire::Traffic;
pub use sum::{Lost, Summary};

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
    /// Time of the last SIP message or datagram.
    pub last_ms: Option<u64>,
    /// All calls, in order of their start.
    pub calls: Vec<Call>,
    /// Legs beyond the limit of a report.
    pub legs_left_out: u64,
    /// Requests outside calls, by method.
    pub other_requests: BTreeMap<String, u64>,
    /// Counts of the frames.
    pub traffic: Traffic,
    /// RTP in the file.
    pub rtp: RtpTotals,
    /// The trackers' counters, summed over all servers.
    pub counters: Counters,
    /// How many of its calls would be kept.
    pub summary: Summary,
    /// Notes on the file as a whole.
    pub notes: Vec<String>,
    /// Why reading stopped early; `None` if it reached the end.
    pub truncated: Option<String>,
}

/// The server of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chosen {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its SIP ports.
    pub ports: Vec<u16>,
    /// How certain the choice is.
    pub certainty: Certainty,
}

/// RTP and RTCP packets of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RtpTotals {
    /// Packets that belong to a call.
    pub packets: u64,
    /// Packets that look like RTP and belong to no known call.
    pub unknown: u64,
}

/// State of a call or leg at the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Answered, and still up.
    Up,
    /// INVITE sent; no ringing yet.
    Calling,
    /// Ringing.
    Ringing,
    /// Answered, then ended.
    Ended,
    /// The caller gave up before an answer.
    Cancelled,
    /// Answered with 3xx.
    Redirected,
    /// Refused with 4xx to 6xx.
    Failed,
    /// No final answer was seen, and minutes of silence followed.
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
    /// A server between them.
    Server,
}

/// A party, as named in the first INVITE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Party {
    /// The display name.
    pub name: Option<String>,
    /// The user part of the URI: the number.
    pub user: Option<String>,
    /// The URI.
    pub uri: String,
    /// Where its SIP comes from or goes to, as far out as the capture shows.
    pub address: Option<SocketAddr>,
}

/// One call of a [`Report`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Call {
    /// Name of the call: the same in each inspection of the same file.
    pub id: String,
    /// Its state.
    pub state: State,
    /// Whether its start is missing from the file.
    pub partial: bool,
    /// Whether one of its legs passes the server.
    pub through_server: bool,
    /// The calling party.
    pub from: Party,
    /// The called party.
    pub to: Party,
    /// Whether it is an emergency call.
    pub emergency: bool,
    /// First message, milliseconds since 1970.
    pub started_ms: u64,
    /// First provisional answer above 100.
    pub ringing_ms: Option<u64>,
    /// First 2xx.
    pub answered_ms: Option<u64>,
    /// Its end.
    pub ended_ms: Option<u64>,
    /// From the answer (or the first message, if the start is not in the file) to the end, or to the end of the file.
    pub duration_ms: Option<u64>,
    /// The final status code sent to the caller.
    pub code: Option<u16>,
    /// Its reason phrase.
    pub reason: Option<String>,
    /// The party that ended it.
    pub ended_by: Option<By>,
    /// How it ended, in words: the Reason header if there is one.
    pub ended_how: Option<String>,
    /// How its legs were paired; `None` if there was nothing to pair, or the pairing is uncertain.
    pub pairing: Option<Pairing>,
    /// How certain the pairing is, from 0 to 100.
    pub confidence: Option<u8>,
    /// The id under which keepcall would store it; `None` if keepcall would not.
    pub stored_id: Option<String>,
    /// Its Call-IDs.
    pub call_ids: Vec<String>,
    /// Each dialog on each hop.
    pub legs: Vec<Leg>,
    /// What a takeover would do with it if its server's host failed.
    pub recovery: Recovery,
    /// Notes on this call.
    pub notes: Vec<String>,
}

/// One dialog as seen at one server: a hop of a call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leg {
    /// Call-ID.
    pub call_id: String,
    /// Direction of the first INVITE, seen from the local side.
    pub direction: LegDirection,
    /// Whether the local side is the server of the report.
    pub through_server: bool,
    /// Its state.
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
    /// Transport of its SIP.
    pub transport: Transport,
    /// The local side's address.
    pub local_addr: SocketAddr,
    /// The other side's address, as in its packets.
    pub remote_addr: SocketAddr,
    /// Other address pairs with the same messages: the capture holds both sides of an address translation.
    pub also_seen: Vec<[SocketAddr; 2]>,
    /// First message, milliseconds since 1970.
    pub started_ms: u64,
    /// First provisional answer above 100.
    pub ringing_ms: Option<u64>,
    /// First 2xx.
    pub answered_ms: Option<u64>,
    /// Its end.
    pub ended_ms: Option<u64>,
    /// Final status code of its first INVITE.
    pub code: Option<u16>,
    /// Its reason phrase.
    pub reason: Option<String>,
    /// Status codes of refusals after which the caller retried (mostly 401 and 407).
    pub retried: Vec<u16>,
    /// The side that ended it.
    pub ended_by: Option<End>,
    /// How it ended: the Reason header, or the tracker's reason.
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
    /// The side that holds the audio.
    pub hold: Hold,
    /// The other side's Allow.
    pub allow: String,
    /// The other side's Supported.
    pub supported: String,
    /// The other side's User-Agent or Server, as it came over this hop.
    pub user_agent: Option<String>,
    /// Messages of the leg; each captured copy counts.
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

/// Sender of a leg's first INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LegDirection {
    /// The other side.
    Inbound,
    /// The local side.
    Outbound,
    /// The capture lacks the first INVITE.
    Unknown,
}

/// Sender of BYE or CANCEL on a leg.
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
    /// The side that refreshes.
    pub refresher: End,
}

/// The side that holds the audio of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// Neither side.
    None,
    /// The local side.
    Local,
    /// The other side.
    Remote,
    /// Both sides.
    Both,
}

/// One m-line of a leg.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Media {
    /// `audio`, `video`, `image` and so on.
    pub kind: String,
    /// `RTP/AVP` and so on.
    pub proto: String,
    /// Whether offer and answer were both seen and accepted; otherwise these are the last descriptions of each side.
    pub agreed: bool,
    /// The local side's description.
    pub local: Option<Description>,
    /// The other side's description.
    pub remote: Option<Description>,
    /// Codecs that both sides named, in the answerer's order.
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
    /// Its media address; `None` if the description has a name instead.
    pub address: Option<IpAddr>,
    /// Its port; 0 for a refused stream.
    pub port: u16,
    /// Its RTCP port.
    pub rtcp_port: Option<u16>,
    /// `sendrecv`, `sendonly`, `recvonly` or `inactive`.
    pub direction: String,
    /// Formats, by encoding name where the description gives one, otherwise by number.
    pub codecs: Vec<String>,
    /// How the media is encrypted.
    pub crypto: Crypto,
    /// Whether RTP and RTCP may share a port.
    pub rtcp_mux: bool,
    /// Whether it offers ICE.
    pub ice: bool,
    /// Payload types with their encoding, for naming captured packets.
    #[serde(skip)]
    pub(super) types: Vec<(u8, String)>,
}

/// How media is encrypted. A report never shows keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Crypto {
    /// No encryption.
    None,
    /// Keys in the description (RFC 4568).
    Sdes,
    /// Keys agreed on the media path (RFC 5763).
    Dtls,
}

/// RTP in one direction, between one pair of addresses at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rtp {
    /// Packets, without RTCP.
    pub packets: u64,
    /// Bytes of these, RTP header included.
    pub bytes: u64,
    /// Packets missing by sequence number.
    pub lost: u64,
    /// RTCP packets.
    pub rtcp: u64,
    /// First packet, milliseconds since 1970.
    pub first_ms: u64,
    /// Last packet.
    pub last_ms: u64,
    /// Source of most packets.
    pub source: Option<SocketAddr>,
    /// Destination of most packets.
    pub destination: Option<SocketAddr>,
    /// Whether the source differs from the address in the description that was in force when the packets were sent: a
    /// NAT is between, or the sender uses another port.
    pub source_differs: bool,
    /// The address that the sender had described when it sent these packets, if it differs.
    #[serde(skip)]
    pub(super) told: Option<SocketAddr>,
    /// Sources (SSRC).
    pub ssrcs: u32,
    /// Payload types with their packet counts.
    pub payload_types: Vec<PayloadType>,
}

/// A payload type that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PayloadType {
    /// Its number.
    pub number: u8,
    /// Its name in the descriptions.
    pub codec: Option<String>,
    /// Packets with it.
    pub packets: u64,
}

/// What a takeover would do with the audio of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Audio {
    /// The relay in the kernel forwards it.
    Relayed,
    /// The phones send to each other directly, independent of the server.
    Direct,
    /// The audio passes an address that is neither a phone's nor the server's, or goes to the other phone one way only.
    Elsewhere,
    /// The pairing of the legs is too uncertain to connect them.
    Doubtful,
    /// The audio is lost.
    No,
}

/// What a takeover would do with the signalling of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signalling {
    /// Both parties get a re-INVITE, and their dialogs continue.
    ReInvite,
    /// The signalling ends.
    No,
}

/// What a takeover would do with a call if its server's host failed. For an ended call: while it was up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// Fate of the audio.
    pub audio: Audio,
    /// Fate of the signalling.
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
    /// The server's address to which that phone sends.
    pub at: SocketAddr,
    /// The phone to forward to.
    pub to: SocketAddr,
    /// The server's address from which the receiving phone expects packets.
    pub source: SocketAddr,
    /// Whether fax (T.38) may pass as UDPTL.
    pub udptl: bool,
}

impl From<&Flow> for Path {
    fn from(f: &Flow) -> Self {
        Self { from: f.from, at: f.at, to: f.to, source: f.source, udptl: f.udptl }
    }
}

impl Recovery {
    /// Nothing is recovered.
    #[must_use]
    pub fn no(why: impl Into<String>) -> Self {
        Self { audio: Audio::No, signalling: Signalling::No, why: why.into(), flows: Vec::new() }
    }
}
