//! What a tracker has to know of its server, and what it tells of itself.

use crate::sip::Transport;
use crate::sip::uri;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// What was seen and what was not learnt, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// All packets handed in.
    pub packets: u64,
    /// Neither to nor from the server's address and SIP port (or both: the server with itself).
    pub foreign: u64,
    /// Keep-alive datagrams.
    pub keep_alives: u64,
    /// Datagrams that are not SIP.
    pub not_sip: u64,
    /// SIP that could not be used: a mandatory header is missing, or it is beyond a limit.
    pub malformed: u64,
    /// Requests and 2xx to INVITE inside dialogs whose start was not seen.
    pub unknown_dialog: u64,
    /// Legs that were not learnt, or not kept: all of the next four.
    pub not_learnt: u64,
    /// Of these: so many legs are up that there was no room for one more.
    pub no_room: u64,
    /// Of these: the server had not answered, and newer ones came in their place.
    pub gave_way: u64,
    /// Of these: too many dialogs with one Call-ID.
    pub same_call_id: u64,
    /// Of these: names that are too long.
    pub too_long: u64,
    /// Legs whose long descriptions were not kept; they are learnt without.
    pub cut: u64,
    /// Legs that were learnt from the middle of their dialogs.
    pub joined: u64,
    /// Confirmed legs that were swept because nothing was heard of them for too long.
    pub swept: u64,
    /// Legs that were confirmed.
    pub confirmed: u64,
}

/// The server that is watched.
#[derive(Clone, Debug)]
pub struct TrackerSettings {
    /// Its floating addresses.
    pub vips: Vec<IpAddr>,
    /// Its SIP ports.
    pub sip_ports: Vec<u16>,
    /// Header that pairs legs, if the operator named one.
    pub pair_header: Option<String>,
    /// Called users that are emergency numbers.
    pub emergency: Vec<String>,
    /// Most legs that are followed at a time, of those that the server has answered.
    pub max_legs: usize,
    /// For a report on what perhaps shows only one side of each dialog: a server that is not heard counts as one that has
    /// answered, and nobody is taken for a stranger.
    pub one_sided: bool,
}

impl TrackerSettings {
    /// Whether one end of a message is the server. Messages over TLS and WebSocket are known from the server's own word alone, so
    /// their ports, which no capture has to be told, are not held against `sip_ports`. A TCP connection that the server opened has
    /// a port of the system's choice, and one of `sip_ports` at the other end, or no capture shows it.
    pub(super) fn is_server(&self, transport: Transport, end: SocketAddr, other: SocketAddr) -> bool {
        self.vips.contains(&end.ip())
            && match transport {
                Transport::Udp => self.sip_ports.contains(&end.port()),
                Transport::Tcp => {
                    let theirs = self.sip_ports.contains(&other.port()) && !self.vips.contains(&other.ip());
                    theirs || self.sip_ports.contains(&end.port())
                }
                Transport::Tls | Transport::Ws => true,
            }
    }

    /// Whether a Record-Route URI is the server's own.
    pub(super) fn is_own(&self, u: &[u8]) -> bool {
        let Some((host, port)) = uri::host_port(u) else { return false };
        let ip = std::str::from_utf8(host).ok().and_then(|h| h.parse().ok());
        // As in `is_server`: where the server takes TLS and WebSocket is not configured.
        let elsewhere = || {
            uri::scheme(u).is_some_and(|s| s.eq_ignore_ascii_case(b"sips"))
                || uri::uri_param(u, "transport")
                    .is_some_and(|t| [&b"tls"[..], b"ws", b"wss"].iter().any(|s| t.eq_ignore_ascii_case(s)))
        };
        ip.is_some_and(|ip| self.vips.contains(&ip))
            && (port.is_none_or(|p| self.sip_ports.contains(&p)) || elsewhere())
    }
}

/// What is kept of the server's dialogs now, and what was seen and not learnt since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learning {
    /// What is kept now.
    #[serde(flatten)]
    pub load: Load,
    /// What was seen, and what was not learnt.
    #[serde(flatten)]
    pub counters: Counters,
}

/// What a tracker keeps now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// Legs that the server has answered, those that still ring included.
    pub answered: usize,
    /// Legs that it has not answered.
    pub unanswered: usize,
    /// Legs that may be over: see docs/learning.md.
    pub doubted: usize,
    /// Bytes of all of them, and of those that ended not long ago.
    pub bytes: usize,
}
