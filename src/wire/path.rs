//! Turns captured frames into SIP messages: link headers, IP, fragments, UDP and TCP. Every captured frame and every
//! frame from a file takes this path. Pure.

use crate::sip::Transport;
use crate::sip::framer;
use crate::time::Time;
use crate::wire::Packet;
use crate::wire::frame::{self, Fragment, Ip, Link, TCP, Tcp, UDP};
use crate::wire::passage::{self, Passage, Verdict};
use crate::wire::reassembly::Reassembly;
use crate::wire::stream::{StreamCounters, Streams};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// Selects the traffic to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathSettings {
    /// SIP ports for UDP and TCP. One end of a packet must use one of them. `None` accepts any port: every UDP datagram
    /// is handed out, and every TCP stream with a segment that begins like a SIP message.
    pub ports: Option<Vec<u16>>,
    /// The server's addresses. One end of a packet must have one of them, and only packets that leave this host may
    /// have one as their source. An empty list accepts any address.
    pub hosts: Vec<IpAddr>,
}

/// Counts of frames by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathCounters {
    /// Frames, or IP packets.
    pub frames: u64,
    /// Frames without an IP packet (ARP and the like), packets of protocols besides UDP and TCP, and packets of other
    /// ports or hosts.
    pub other: u64,
    /// Packets that came in with a server address as their source: see [`Verdict::Forged`].
    #[serde(default)]
    pub forged: u64,
    /// Packets that go past this host, or leave it from an address outside the server's: see [`Verdict::Astray`].
    #[serde(default)]
    pub astray: u64,
    /// Packets with headers that contradict themselves or the bytes at hand.
    pub malformed: u64,
    /// Packets cut off by the capture's snap length. UDP datagrams are dropped. In a TCP stream the missing rest is a
    /// gap.
    pub truncated: u64,
    /// IP fragments.
    pub fragments: u64,
    /// Fragmented packets that stayed incomplete.
    pub incomplete: u64,
    /// UDP datagrams handed out.
    pub datagrams: u64,
    /// TCP counters.
    pub tcp: StreamCounters,
}

/// Receives each message with its source and destination.
pub type Out<'f> = &'f mut dyn FnMut(Packet<'_>);

/// Turns frames into messages and keeps the partial ones.
#[derive(Debug)]
pub struct Path {
    settings: PathSettings,
    reassembly: Reassembly,
    streams: Streams,
    counters: PathCounters,
}

impl Path {
    /// A path without any state.
    #[must_use]
    pub fn new(settings: PathSettings) -> Self {
        let streams = Streams::new(settings.ports.is_none());
        Self { settings, reassembly: Reassembly::new(), streams, counters: PathCounters::default() }
    }

    /// Handles one frame of the given link type and hands each message that it completes to `out`. `now` never goes
    /// back.
    pub fn handle_frame(&mut self, link: Link, frame: &[u8], now: Time, out: Out<'_>) {
        match frame::ip_of(link, frame) {
            Some(packet) => {
                self.handle_ip(packet, frame::passage_of(link, frame), now, out);
            }
            None => {
                self.counters.frames += 1;
                self.counters.other += 1;
            }
        }
    }

    /// Handles one IP packet, with any padding behind it, and hands each message that it completes to `out`. `now`
    /// never goes back. Returns source and destination of a forged packet.
    pub fn handle_ip(&mut self, packet: &[u8], passage: Passage, now: Time, out: Out<'_>) -> Option<(IpAddr, IpAddr)> {
        self.counters.frames += 1;
        let Some(ip) = frame::ip(packet) else {
            self.counters.malformed += 1;
            return None;
        };
        let (Ip::Whole { src, dst, .. } | Ip::Fragment(Fragment { src, dst, .. })) = ip;
        if !self.is_host(src, dst) {
            self.counters.other += 1;
            return None;
        }
        match self.judge(passage, src, dst) {
            Verdict::Heard => {}
            Verdict::Forged => {
                self.counters.forged += 1;
                return Some((src, dst));
            }
            Verdict::Astray => {
                self.counters.astray += 1;
                return None;
            }
        }
        match ip {
            Ip::Whole { protocol, data, truncated, .. } => {
                self.counters.truncated += u64::from(truncated);
                self.upper(src, dst, protocol, data, truncated, now, out);
            }
            Ip::Fragment(fragment) if matches!(fragment.protocol, UDP | TCP | 0 | 43 | 51 | 60) => {
                self.counters.fragments += 1;
                let joined = self.reassembly.join(&fragment, now)?;
                match joined.upper() {
                    Some((protocol, data)) => self.upper(src, dst, protocol, data, false, now, out),
                    None => self.counters.malformed += 1,
                }
            }
            Ip::Fragment(_) => self.counters.other += 1,
        }
        None
    }

    /// The time at which [`Path::handle_timeout`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.streams.next_deadline()
    }

    /// Gives up on overdue bytes and hands out the messages that waited for them.
    pub fn handle_timeout(&mut self, now: Time, out: Out<'_>) {
        self.streams
            .handle_timeout(now, &mut |src, dst, payload| out(Packet { src, dst, transport: Transport::Tcp, payload }));
    }

    /// Counts of frames so far, by outcome.
    #[must_use]
    pub fn counters(&self) -> PathCounters {
        PathCounters { incomplete: self.reassembly.given_up(), tcp: self.streams.counters(), ..self.counters }
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of a packet, once")]
    fn upper(&mut self, src: IpAddr, dst: IpAddr, protocol: u8, data: &[u8], truncated: bool, now: Time, out: Out<'_>) {
        match protocol {
            UDP => {
                let Some((sport, dport, payload)) = frame::ports_and_payload(data) else {
                    self.counters.malformed += u64::from(!truncated);
                    return;
                };
                if !self.is_wanted(sport, dport) {
                    self.counters.other += 1;
                    return;
                }
                self.counters.datagrams += 1;
                let (src, dst) = (SocketAddr::new(src, sport), SocketAddr::new(dst, dport));
                for payload in framer::datagram(payload) {
                    out(Packet { src, dst, transport: Transport::Udp, payload });
                }
            }
            TCP => match frame::tcp(data) {
                Some(tcp) if self.is_wanted(tcp.sport, tcp.dport) => self.segment(src, dst, &tcp, now, out),
                Some(_) => self.counters.other += 1,
                None => self.counters.malformed += 1,
            },
            _ => self.counters.other += 1,
        }
    }

    fn segment(&mut self, src: IpAddr, dst: IpAddr, tcp: &Tcp<'_>, now: Time, out: Out<'_>) {
        let out = &mut |src, dst, payload: &[u8]| out(Packet { src, dst, transport: Transport::Tcp, payload });
        self.streams.handle_segment(src, dst, tcp, now, out);
    }

    fn is_wanted(&self, sport: u16, dport: u16) -> bool {
        self.settings.ports.as_ref().is_none_or(|ports| ports.contains(&sport) || ports.contains(&dport))
    }

    /// With an empty host list there is no server to impersonate.
    fn judge(&self, passage: Passage, src: IpAddr, dst: IpAddr) -> Verdict {
        let hosts = &self.settings.hosts;
        if hosts.is_empty() {
            Verdict::Heard
        } else {
            passage::judge(passage, hosts.contains(&src), hosts.contains(&dst))
        }
    }

    fn is_host(&self, src: IpAddr, dst: IpAddr) -> bool {
        let hosts = &self.settings.hosts;
        hosts.is_empty() || hosts.contains(&src) || hosts.contains(&dst)
    }
}

#[cfg(test)]
mod tests;
