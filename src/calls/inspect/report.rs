//! What an inspection found, as plain data.

use crate::calls::model::{Call, Direction, Leg, Pairing, Sdp, SessionTimer, Transport};
use crate::calls::tracker::Counters;
use crate::sip::sdp;
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};

/// The calls in a capture file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Addresses that were taken for the server's.
    pub vips: Vec<IpAddr>,
    /// SIP ports that were taken for the server's.
    pub sip_ports: Vec<u16>,
    /// Whether the addresses were inferred from the traffic.
    pub inferred: bool,
    /// Frames read.
    pub frames: u64,
    /// Frames of a link type that is not understood.
    pub unsupported_frames: u64,
    /// Time of the first datagram, milliseconds since 1970.
    pub first_ms: Option<u64>,
    /// Time of the last datagram, milliseconds since 1970.
    pub last_ms: Option<u64>,
    /// Confirmed calls, in the order in which they were confirmed.
    pub calls: Vec<ReportedCall>,
    /// Confirmed calls beyond the limit of a report.
    pub calls_left_out: u64,
    /// Legs that were neither answered nor refused at the end of the file.
    pub ringing: usize,
    /// What the tracker counted.
    pub counters: Counters,
    /// Why the file was not read to its end; `None` if it was.
    pub truncated: Option<String>,
}

/// One call of a [`Report`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReportedCall {
    /// Name of the call.
    pub id: String,
    /// Whether the call was up when the file ended.
    pub up: bool,
    /// How it ended, if it did.
    pub ended: Option<&'static str>,
    /// When it was confirmed, milliseconds since 1970.
    pub confirmed_ms: u64,
    /// When it ended, milliseconds since 1970.
    pub ended_ms: Option<u64>,
    /// How the legs were paired; `None` for a single leg.
    pub pairing: Option<Pairing>,
    /// How certain the pairing is, from 0 to 100; `None` for a single leg.
    pub confidence: Option<u8>,
    /// Whether it is an emergency call.
    pub emergency: bool,
    /// Its legs.
    pub legs: Vec<ReportedLeg>,
    /// Why the call, as it was last seen, could not be recovered, as far as signalling tells; empty if it could.
    pub obstacles: Vec<String>,
}

/// One leg of a [`ReportedCall`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReportedLeg {
    /// Call-ID.
    pub call_id: String,
    /// Who called whom, seen from the server.
    pub direction: Direction,
    /// From or To value of the server's side.
    pub local: String,
    /// From or To value of the phone's side.
    pub remote: String,
    /// How SIP travelled.
    pub transport: Transport,
    /// The server's address.
    pub local_addr: SocketAddr,
    /// Where the phone's packets came from.
    pub remote_addr: SocketAddr,
    /// Highest CSeq of the server.
    pub local_cseq: Option<u32>,
    /// Highest CSeq of the phone.
    pub remote_cseq: Option<u32>,
    /// Route set towards the phone.
    pub route_set: Vec<String>,
    /// The phone's Contact.
    pub remote_target: String,
    /// The server's Contact.
    pub local_target: String,
    /// The session timer.
    pub session_timer: Option<SessionTimer>,
    /// What the phone was told to send to.
    pub media_sent: Vec<ReportedMedia>,
    /// What the phone said that it listens to.
    pub media_received: Vec<ReportedMedia>,
    /// Whether the leg is incompletely known.
    pub partial: bool,
}

/// One m-line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportedMedia {
    /// `audio`, `video` and so on.
    pub kind: String,
    /// Address; `None` if the description has a name instead.
    pub address: Option<IpAddr>,
    /// Port; 0 for a refused stream.
    pub port: u16,
    /// `RTP/AVP` and so on.
    pub proto: String,
    /// Formats, by encoding name where the description gives it, else by number.
    pub codecs: Vec<String>,
    /// `sendrecv`, `sendonly`, `recvonly` or `inactive`.
    pub direction: String,
}

impl ReportedCall {
    pub(super) fn new(call: &Call) -> Self {
        let mut obstacles = Vec::new();
        if call.legs.len() < 2 {
            obstacles.push(
                "no second leg was found for certain: the server was the other party, or the pairing is in doubt".to_owned(),
            );
        }
        for leg in &call.legs {
            let what = |why: &str| {
                format!("the leg {} {}: {why}", if leg.direction == Direction::Inbound { "from" } else { "to" }, leg.remote_addr)
            };
            if leg.partial {
                obstacles.push(what("its tags, Contact, route set or session description are incomplete"));
            }
            if leg.sdp_sent.is_none() || leg.sdp_received.is_none() {
                obstacles.push(what("no complete offer and answer were seen"));
            }
        }
        Self {
            id: call.id.clone(),
            up: true,
            ended: None,
            confirmed_ms: call.confirmed_ms,
            ended_ms: None,
            pairing: call.pairing,
            confidence: call.confidence,
            emergency: call.emergency,
            legs: call.legs.iter().map(|leg| ReportedLeg::new(leg)).collect(),
            obstacles,
        }
    }
}

impl ReportedLeg {
    fn new(leg: &Leg) -> Self {
        Self {
            call_id: leg.call_id.lossy(),
            direction: leg.direction,
            local: leg.local.lossy(),
            remote: leg.remote.lossy(),
            transport: leg.transport,
            local_addr: leg.local_addr,
            remote_addr: leg.remote_addr,
            local_cseq: leg.local_cseq,
            remote_cseq: leg.remote_cseq,
            route_set: leg.route_set.iter().map(crate::calls::model::Verbatim::lossy).collect(),
            remote_target: leg.remote_target.lossy(),
            local_target: leg.local_target.lossy(),
            session_timer: leg.session_timer,
            media_sent: media(leg.sdp_sent.as_ref()),
            media_received: media(leg.sdp_received.as_ref()),
            partial: leg.partial,
        }
    }
}

fn media(description: Option<&Sdp>) -> Vec<ReportedMedia> {
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    let Some(Ok(parsed)) = description.map(|d| sdp::Sdp::parse(&d.body.0)) else { return Vec::new() };
    let one = |m: &sdp::Media<'_>| ReportedMedia {
        kind: text(m.kind),
        address: m.connection,
        port: m.port,
        proto: text(m.proto),
        codecs: m.formats.iter().map(|f| text(m.encoding(f).unwrap_or(f))).collect(),
        direction: format!("{:?}", m.direction).to_lowercase(),
    };
    parsed.media().iter().map(one).collect()
}
