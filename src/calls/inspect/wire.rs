//! From frames to SIP messages and other datagrams, whatever carries them. Pure.

use super::file::Frame;
use super::link::{self, Inside};
use crate::calls::frame::{self, Udp};
use crate::calls::hep::{self, Kind};
use crate::calls::model::{Packet, Transport};
use crate::calls::reassembly::Reassembly;
use crate::sip::message::Message;
use crate::time::Time;
use serde::Serialize;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// A first line longer than this is no start line of SIP.
const MAX_START: usize = 4096;
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
    /// TCP segments with something in them.
    pub tcp: u64,
    /// HEP packets with SIP in them.
    pub hep: u64,
    /// SIP messages, each as often as it was captured.
    pub sip: u64,
    /// SIP messages of which a part was not captured.
    pub sip_cut: u64,
}

/// Turns frames into items.
#[derive(Default)]
pub(super) struct Wire {
    reassembly: Reassembly,
    last: Time,
    pub(super) traffic: Traffic,
}

impl Wire {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Calls `each` with what the frame brings to an end; time never steps back in what `each` is told.
    pub(super) fn handle_frame(&mut self, frame: &Frame<'_>, each: &mut dyn FnMut(Time, Item<'_>)) {
        let t = &mut self.traffic;
        t.frames += 1;
        t.cut_frames += u64::from(frame.cut);
        t.back_in_time += u64::from(frame.at < self.last);
        self.last = self.last.max(frame.at);
        let Some(link) = frame.link else {
            t.unsupported_frames += 1;
            return;
        };
        if t.link_types.len() < MAX_LINKS {
            t.link_types.insert(link);
        }
        match link::inside(link, frame.data) {
            Inside::Ip(ip) => self.ip(&link::fitted(ip, frame.cut), frame.cut, each),
            Inside::Else => {}
            Inside::Unsupported => t.unsupported_frames += 1,
        }
    }

    fn ip(&mut self, ip: &[u8], cut: bool, each: &mut dyn FnMut(Time, Item<'_>)) {
        match frame::udp_in_ip(ip) {
            Some(Udp::Whole { src, dst, payload }) => self.datagram(src, dst, payload, cut, each),
            Some(Udp::Fragment(f)) => {
                if let Some((src, dst, payload)) = self.reassembly.handle_fragment(&f, self.last) {
                    self.datagram(src, dst, &payload, cut, each);
                }
            }
            None => self.traffic.tcp += u64::from(is_tcp(ip)),
        }
    }

    fn datagram(&mut self, src: SocketAddr, dst: SocketAddr, payload: &[u8], cut: bool, each: &mut dyn FnMut(Time, Item<'_>)) {
        self.traffic.udp += 1;
        if is_sip(payload) {
            self.sip(Packet { src, dst, transport: Transport::Udp, payload }, cut, each);
        } else if !self.reported(payload, cut, each) {
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
        let transport = Message::parse(&payload).ok().and_then(|m| hep::transport_of(&m, hep.protocol)).unwrap_or(Transport::Udp);
        self.sip(Packet { src: hep.src, dst: hep.dst, transport, payload: &payload }, cut, each);
        true
    }
}

fn is_tcp(ip: &[u8]) -> bool {
    match ip.first().map(|b| b >> 4) {
        Some(4) => ip.get(9) == Some(&6),
        Some(6) => ip.get(6) == Some(&6),
        _ => false,
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
        && line.trim_ascii_end().get(line.trim_ascii_end().len() - 8..).is_some_and(|v| v.eq_ignore_ascii_case(b" SIP/2.0"))
}

#[cfg(test)]
mod tests;
