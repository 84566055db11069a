//! Settings and counters of a tracker.

use crate::sip::Transport;
use crate::sip::advertised::Advertised;
use crate::sip::uri;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// All packets handed in.
    pub packets: u64,
    /// Neither to nor from the server's address and SIP port (or both: the server to itself).
    pub foreign: u64,
    /// Keep-alive datagrams.
    pub keep_alives: u64,
    /// Datagrams that are not SIP.
    pub not_sip: u64,
    /// Unusable SIP: a mandatory header is missing, or a limit is exceeded.
    pub malformed: u64,
    /// Requests and 2xx to INVITE inside dialogs whose start was not seen.
    pub unknown_dialog: u64,
    /// Legs that were refused or dropped: the sum of the next four.
    pub not_learnt: u64,
    /// Of these: too many legs were up for one more.
    pub no_room: u64,
    /// Of these: unanswered legs that newer ones displaced.
    pub gave_way: u64,
    /// Of these: too many dialogs with one Call-ID.
    pub same_call_id: u64,
    /// Of these: a name was too long.
    pub too_long: u64,
    /// Legs whose long descriptions were not kept. They are learnt without.
    pub cut: u64,
    /// Legs that were learnt from the middle of their dialogs.
    pub joined: u64,
    /// Confirmed legs that were swept because they were silent for too long.
    pub swept: u64,
    /// Legs that were confirmed.
    pub confirmed: u64,
}

/// The watched server.
#[derive(Clone, Debug)]
pub struct TrackerSettings {
    /// Its floating addresses.
    pub vips: Vec<IpAddr>,
    /// Addresses and names by which the outside knows the floating addresses.
    pub advertised: Advertised,
    /// Its SIP ports.
    pub sip_ports: Vec<u16>,
    /// Header that pairs legs, if the operator named one.
    pub pair_header: Option<String>,
    /// Called users that are emergency numbers.
    pub emergency: Vec<String>,
    /// Most answered legs followed at a time.
    pub max_legs: usize,
    /// For a report on a capture that may show only one side of each dialog. An unheard server then counts as one that
    /// has answered, and nobody counts as a stranger.
    pub one_sided: bool,
}

impl TrackerSettings {
    /// Whether one end of a message is the server. Messages over TLS and WebSocket come only from the server's own
    /// reports, and their ports need no configuration, so `sip_ports` does not apply to them. On a TCP connection that
    /// the server opened, the port at its end is the system's choice, and the other end must have one of `sip_ports`,
    /// or no capture shows it.
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
        // As in `is_server`: the server's TLS and WebSocket ports are not configured.
        let elsewhere = || {
            uri::scheme(u).is_some_and(|s| s.eq_ignore_ascii_case(b"sips"))
                || uri::uri_param(u, "transport")
                    .is_some_and(|t| [&b"tls"[..], b"ws", b"wss"].iter().any(|s| t.eq_ignore_ascii_case(s)))
        };
        (ip.is_some_and(|ip| self.vips.contains(&ip)) || self.advertised.has_host(host))
            && (port.is_none_or(|p| self.sip_ports.contains(&p)) || elsewhere())
    }
}

/// Current load, and counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learning {
    /// Current load.
    #[serde(flatten)]
    pub load: Load,
    /// Counters of what was seen and what was not learnt.
    #[serde(flatten)]
    pub counters: Counters,
}

/// Current load of a tracker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// Legs that the server has answered, including those that still ring.
    pub answered: usize,
    /// Legs that the server has not answered.
    pub unanswered: usize,
    /// Legs that may be over; see docs/learning.md.
    pub doubted: usize,
    /// Bytes of all of them, and of those that ended recently.
    pub bytes: usize,
}
