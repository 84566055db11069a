//! From frames to SIP messages and other datagrams, whatever carries them. Pure.

use super::file::Frame;
use super::link::{self, Inside};
use crate::hep::{self, Kind};
use crate::sip::Transport;
use crate::sip::message::Message;
use crate::time::Time;
use crate::wire::Packet;
use crate::wire::passage::Passage;
use crate::wire::path::{Path, PathSettings};
use serde::Serialize;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// A first line longer than this is no start line of SIP.
const MAX_START: usize = 4096;
/// Longer than anything waits for a missing part.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Link types that are named in a report.
const MAX_LINKS: usize = 32;

/// What a frame brought.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item<'a> {
    /// Something that begins as SIP does; `cut` if the capture did not keep all of it.
    Sip { packet: Packet<'a>, cut: bool },
    /// Any other datagram.
    Datagram { src: SocketAddr, dst: SocketAddr, payload: &'a [u8] },
}

/// What was in the frames of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Frames in the file.
    pub frames: u64,
    /// Link types of the frames, by number.
    pub link_types: BTreeSet<u32>,
    /// Frames of a link type that is not understood.
    pub unsupported_frames: u64,
    /// Frames of which the capture kept only the beginning.
    pub cut_frames: u64,
    /// Frames whose time is before that of an earlier frame; they count as of the latest time so far.
    pub back_in_time: u64,
    /// UDP datagrams, those put together from fragments included.
    pub udp: u64,
    /// TCP segments of streams with SIP in them.
    pub tcp: u64,
    /// HEP packets with SIP in them.
    pub hep: u64,
    /// SIP messages, each as often as it was captured.
    pub sip: u64,
    /// SIP messages of which a part was not captured.
    pub sip_cut: u64,
}

/// Turns frames into items.
pub(super) struct Wire {
    path: Path,
    sorter: Sorter,
}

/// What tells the kinds of items apart, and counts them.
#[derive(Default)]
struct Sorter {
    last: Time,
    traffic: Traffic,
}

impl Wire {
    pub(super) fn new() -> Self {
        Self { path: Path::new(PathSettings { ports: None, hosts: Vec::new() }), sorter: Sorter::default() }
    }

    /// Calls `each` with what the frame brings to an end; time never steps back in what `each` is told.
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
                let ip = link::fitted(ip, frame.cut);
                // Whose host captured it, and when that host was the server, nobody knows: no frame of a file is refused for its way.
                path.handle_ip(&ip, Passage::Unknown, now, &mut |p| sorter.message(p, frame.cut, each));
            }
            Inside::Else => {}
            Inside::Unsupported => t.unsupported_frames += 1,
        }
    }

    /// The file is over: what waited for missing parts is handed out without them.
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
            each(self.last, Item::Datagram { src, dst, payload });
        }
    }

    fn sip(&mut self, packet: Packet<'_>, cut: bool, each: &mut dyn FnMut(Time, Item<'_>)) {
        self.traffic.sip += 1;
        self.traffic.sip_cut += u64::from(cut);
        each(self.last, Item::Sip { packet, cut });
    }

    /// What a server reported by HEP counts as if it had been captured; its addresses are those that the server names.
    fn reported(&mut self, bytes: &[u8], cut: bool, each: &mut dyn FnMut(Time, Item<'_>)) -> bool {
        // Version 3 has a name; 1 and 2 have a number that is also the beginning of other things, so that only SIP tells them.
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

/// Whether bytes begin with a start line of SIP. Ports say nothing: SIP runs on any.
pub(super) fn is_sip(payload: &[u8]) -> bool {
    let text = payload.trim_ascii_start();
    if text.get(..8).is_some_and(|v| v.eq_ignore_ascii_case(b"SIP/2.0 ")) {
        return true;
    }
    // All methods that exist begin with a capital letter.
    if !text.first().is_some_and(u8::is_ascii_uppercase) {
        return false;
    }
    let line = &text[..memchr::memchr(b'\n', &text[..text.len().min(MAX_START)]).unwrap_or(0)];
    line.trim_ascii_end().len() > 12
        && line
            .trim_ascii_end()
            .get(line.trim_ascii_end().len() - 8..)
            .is_some_and(|v| v.eq_ignore_ascii_case(b" SIP/2.0"))
}

#[cfg(test)]
mod tests;
