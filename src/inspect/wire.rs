//! Turns frames into SIP messages and other datagrams, whatever their transport. Pure.

use super::file::Frame;
use super::first_line::is_sip;
use super::link::tunnel::{self, Content, Unread};
use super::link::{self, Inside};
use crate::hep::{self, Kind};
use crate::sip::Transport;
use crate::sip::message::Message;
use crate::time::Time;
use crate::wire::Packet;
use crate::wire::passage::Passage;
use crate::wire::path::{Path, PathSettings};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// Longer than any wait for a missing part.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Most link types named in a report.
const MAX_LINKS: usize = 32;

/// One item from the frames.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item<'a> {
    /// A payload that begins like SIP; `cut` if the capture kept only a part of it.
    Sip { packet: Packet<'a>, cut: bool },
    /// Any other datagram.
    Datagram { src: SocketAddr, dst: SocketAddr, payload: &'a [u8] },
}

/// Counts of the frames of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Frames in the file.
    pub frames: u64,
    /// Link types of the frames, by number.
    pub link_types: BTreeSet<u32>,
    /// Frames of an unsupported link type.
    pub unsupported_frames: u64,
    /// Frames of which the capture kept only the beginning.
    pub cut_frames: u64,
    /// Frames older than an earlier frame; they take the latest time so far.
    pub back_in_time: u64,
    /// UDP datagrams, including those reassembled from fragments.
    pub udp: u64,
    /// TCP segments of streams that carry SIP.
    pub tcp: u64,
    /// HEP packets that carry SIP.
    pub hep: u64,
    /// SIP messages; each captured copy counts.
    pub sip: u64,
    /// SIP messages captured only in part.
    pub sip_cut: u64,
    /// Packets in which SIP was seen or may be, and that are not read, by kind.
    pub unread: BTreeMap<Unread, u64>,
}

/// Turns frames into items.
pub(super) struct Wire {
    path: Path,
    sorter: Sorter,
}

/// Sorts and counts the items.
#[derive(Default)]
struct Sorter {
    last: Time,
    traffic: Traffic,
    /// The packets inside of datagrams that came in fragments.
    inner: Vec<Vec<u8>>,
}

impl Wire {
    pub(super) fn new() -> Self {
        Self { path: Path::new(PathSettings { ports: None, hosts: Vec::new() }), sorter: Sorter::default() }
    }

    /// Calls `each` with every item that the frame completes. Time never steps back for `each`.
    pub(super) fn handle_frame(&mut self, frame: &Frame<'_>, each: &mut dyn FnMut(Time, Item<'_>)) {
        let Self { path, sorter } = self;
        let t = &mut sorter.traffic;
        t.frames += 1;
        t.cut_frames += u64::from(frame.cut);
        t.back_in_time += u64::from(frame.at < sorter.last);
        sorter.last = sorter.last.max(frame.at);
        let now = sorter.last;
        let Some(link) = frame.link else {
            t.unsupported_frames += 1;
            return;
        };
        if t.link_types.len() < MAX_LINKS {
            t.link_types.insert(link);
        }
        match link::inside(link, frame.data) {
            Inside::Ip(ip) => {
                if path.next_deadline().is_some_and(|d| d <= now) {
                    path.handle_timeout(now, &mut |p| sorter.message(p, false, each));
                }
                let (ip, unread) = link::innermost(ip);
                if let Some(what) = unread {
                    *sorter.traffic.unread.entry(what).or_default() += 1;
                }
                let ip = link::fitted(ip, frame.cut);
                // A file does not say which host captured it, or whether that host was the server: no frame is refused
                // for its direction.
                path.handle_ip(&ip, Passage::Unknown, now, &mut |p| sorter.message(p, frame.cut, each));
                for _ in 0..link::MAX_TUNNELS {
                    for inner in std::mem::take(&mut sorter.inner) {
                        let (ip, unread) = link::innermost(&inner);
                        if let Some(what) = unread {
                            *sorter.traffic.unread.entry(what).or_default() += 1;
                        }
                        path.handle_ip(ip, Passage::Unknown, now, &mut |p| sorter.message(p, false, each));
                    }
                }
                sorter.inner.clear();
            }
            Inside::Else => {}
            Inside::Unsupported => t.unsupported_frames += 1,
        }
    }

    /// End of file: hands out what still waits for missing parts.
    pub(super) fn finish(&mut self, each: &mut dyn FnMut(Time, Item<'_>)) -> Traffic {
        let Self { path, sorter } = self;
        path.handle_timeout(sorter.last + PATIENCE, &mut |p| sorter.message(p, false, each));
        let counters = path.counters();
        sorter.traffic.udp = counters.datagrams;
        sorter.traffic.tcp = counters.tcp.segments;
        sorter.traffic.clone()
    }
}

impl Sorter {
    fn message(&mut self, packet: Packet<'_>, cut: bool, each: &mut dyn FnMut(Time, Item<'_>)) {
        let Packet { src, dst, transport, payload } = packet;
        if is_sip(payload) {
            self.sip(packet, cut && transport == Transport::Udp, each);
        } else if transport == Transport::Udp && !self.reported(payload, cut, each) {
            // Whole packets in tunnels were found before. This one came in fragments.
            match tunnel::of_udp([src.port(), dst.port()], payload) {
                Content::Packet(inner) => self.inner.push(inner.to_vec()),
                Content::Plain | Content::Unread(_) => each(self.last, Item::Datagram { src, dst, payload }),
            }
        }
    }

    fn sip(&mut self, packet: Packet<'_>, cut: bool, each: &mut dyn FnMut(Time, Item<'_>)) {
        self.traffic.sip += 1;
        self.traffic.sip_cut += u64::from(cut);
        each(self.last, Item::Sip { packet, cut });
    }

    /// Messages that a server reports by HEP count as captured; their addresses are the ones in the report.
    fn reported(&mut self, bytes: &[u8], cut: bool, each: &mut dyn FnMut(Time, Item<'_>)) -> bool {
        // HEP version 3 has a magic word. Versions 1 and 2 begin with a number that other protocols use too, so only
        // SIP inside identifies them.
        if !bytes.starts_with(b"HEP3") && !matches!(bytes.first(), Some(1 | 2)) {
            return false;
        }
        let Ok(hep) = hep::decode(bytes) else { return false };
        let Some(payload) = (hep.kind == Kind::Sip).then(|| hep.payload().ok()).flatten().filter(|p| is_sip(p)) else {
            return false;
        };
        self.traffic.hep += 1;
        let transport =
            Message::parse(&payload).ok().and_then(|m| hep::transport_of(&m, hep.protocol)).unwrap_or(Transport::Udp);
        self.sip(Packet { src: hep.src, dst: hep.dst, transport, payload: &payload }, cut, each);
        true
    }
}
