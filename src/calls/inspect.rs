//! A capture file as the tracker sees it: what would be known of its calls. Offline; it reads a file and nothing else.

mod file;
mod report;

pub use report::{Report, ReportedCall, ReportedLeg, ReportedMedia};

use super::model::{CallEvent, LegState, Packet, Transport};
use super::table::{PAIRED, Table, TableSettings};
use crate::sip::message::{Message, Method};
use crate::time::Time;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most calls in one report; beyond it they are counted only. A report of more is nothing that a person reads.
const MAX_REPORTED: usize = 100_000;
/// Most addresses, and most Call-IDs of each, that are compared to find the server. Enough to be sure; a file of any size costs no more.
const MAX_ADDRESSES: usize = 10_000;
const MAX_CALL_IDS: usize = 10_000;
/// How long time goes on after the last packet, so that single legs settle.
const AFTER: Duration = Duration::from_secs(2);

/// What to look for in a capture file.
#[derive(Clone, Debug, Default)]
pub struct InspectSettings {
    /// Addresses of the server. If there are none, the server is the address that takes part in the INVITEs of the most Call-IDs; of
    /// equals the one that received the most INVITEs, then the lowest.
    pub vips: Vec<IpAddr>,
    /// SIP ports of the server. If there are none: the ports at its addresses that INVITEs go to or come from; 5060 if none do.
    pub sip_ports: Vec<u16>,
    /// See [`TableSettings::pair_header`].
    pub pair_header: Option<String>,
    /// See [`TableSettings::emergency`].
    pub emergency: Vec<String>,
    /// See [`TableSettings::max_calls`]; 0 for as many as a report may have.
    pub max_calls: usize,
}

/// Why a file gave no report at all. A file that is cut off or damaged further on gives [`Report::truncated`] instead.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It can't be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// It does not begin as a capture does.
    #[error("{} is no pcap or pcapng file; record one with `tcpdump -i any -w FILE.pcap udp port 5060`", path.display())]
    NotACapture {
        /// The file.
        path: PathBuf,
    },
    /// Its file header is damaged.
    #[error("the header of {} is cut off or damaged ({why}); record the file again", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// The reader's words.
        why: String,
    },
    /// It was recorded on a kind of link that is not understood.
    #[error(
        "{} has link type {number}; Ethernet (1), Linux cooked (113, 276), raw IP (101, 228, 229) and loopback (0, 108) can be read",
        path.display()
    )]
    LinkType {
        /// The file.
        path: PathBuf,
        /// The link type.
        number: u32,
    },
}

/// Reads a capture file and tells the calls in it.
///
/// # Errors
/// See [`InspectError`].
pub fn inspect(path: &Path, settings: &InspectSettings) -> Result<Report, InspectError> {
    let inferred = settings.vips.is_empty();
    let (vips, sip_ports) = if inferred || settings.sip_ports.is_empty() {
        let mut survey = Survey::default();
        file::read(path, open(path)?, &mut |_, src, dst, payload| survey.see(src, dst, payload))?;
        survey.server(settings)
    } else {
        (settings.vips.clone(), settings.sip_ports.clone())
    };
    let mut table = Table::for_report(TableSettings {
        instance: String::new(),
        node: String::new(),
        vips: vips.clone(),
        sip_ports: sip_ports.clone(),
        pair_header: settings.pair_header.clone(),
        emergency: settings.emergency.clone(),
        max_calls: if settings.max_calls == 0 { MAX_REPORTED } else { settings.max_calls },
    });
    let mut book = Book::default();
    let (mut first, mut last) = (None, Time::ZERO);
    let read = file::read(path, open(path)?, &mut |at, src, dst, payload| {
        first.get_or_insert(at);
        // Files that were merged may step back; the table's time never does.
        last = last.max(at);
        if table.next_deadline().is_some_and(|d| d <= last) {
            table.handle_timeout(last);
            book.note(&mut table, last);
        }
        table.handle_packet(&Packet { src, dst, transport: Transport::Udp, payload }, ms(at), last);
        book.note(&mut table, last);
    })?;
    table.handle_timeout(last + AFTER);
    book.note(&mut table, last);
    Ok(Report {
        vips,
        sip_ports,
        inferred,
        frames: read.frames,
        unsupported_frames: read.unsupported,
        first_ms: first.map(ms),
        last_ms: first.map(|_| ms(last)),
        ringing: table.legs().filter(|l| l.state != LegState::Confirmed).count(),
        counters: table.counters(),
        truncated: read.truncated,
        calls_left_out: book.left_out,
        calls: book.in_order(),
    })
}

fn open(path: &Path) -> Result<File, InspectError> {
    File::open(path).map_err(|source| InspectError::Open { path: path.to_owned(), source })
}

fn ms(at: Time) -> u64 {
    at.as_nanos() / 1_000_000
}

/// The calls so far, by id.
#[derive(Default)]
struct Book {
    calls: BTreeMap<String, ReportedCall>,
    left_out: u64,
}

impl Book {
    fn note(&mut self, table: &mut Table, now: Time) {
        while let Some(event) = table.poll_event() {
            match event {
                CallEvent::Put(call) => {
                    if self.calls.len() >= MAX_REPORTED && !self.calls.contains_key(&call.id) {
                        self.left_out += 1;
                    } else {
                        self.calls.insert(call.id.clone(), ReportedCall::new(&call));
                    }
                }
                CallEvent::Delete { id, reason: PAIRED } => {
                    self.calls.remove(&id);
                }
                CallEvent::Delete { id, reason } => {
                    if let Some(call) = self.calls.get_mut(&id) {
                        (call.up, call.ended, call.ended_ms) = (false, Some(reason), Some(ms(now)));
                    }
                }
            }
        }
    }

    fn in_order(self) -> Vec<ReportedCall> {
        let mut calls: Vec<_> = self.calls.into_values().collect();
        calls.sort_by(|a, b| (a.confirmed_ms, &a.id).cmp(&(b.confirmed_ms, &b.id)));
        calls
    }
}

/// Who takes part in INVITEs, to find the server.
#[derive(Default)]
struct Survey {
    seen: BTreeMap<IpAddr, Seen>,
}

#[derive(Default)]
struct Seen {
    call_ids: HashSet<Vec<u8>>,
    received: u64,
    ports: HashSet<u16>,
}

impl Survey {
    fn see(&mut self, src: SocketAddr, dst: SocketAddr, payload: &[u8]) {
        // Most datagrams of a capture are RTP; only a request line of INVITE is worth a parse.
        if !payload.trim_ascii_start().starts_with(b"INVITE ") {
            return;
        }
        let Ok(m) = Message::parse(payload) else { return };
        if m.method() != Method::Invite {
            return;
        }
        for (end, receives) in [(src, false), (dst, true)] {
            if self.seen.len() >= MAX_ADDRESSES && !self.seen.contains_key(&end.ip()) {
                continue;
            }
            let seen = self.seen.entry(end.ip()).or_default();
            seen.received += u64::from(receives);
            seen.ports.insert(end.port());
            if seen.call_ids.len() < MAX_CALL_IDS {
                seen.call_ids.insert(m.call_id().to_vec());
            }
        }
    }

    fn server(&self, settings: &InspectSettings) -> (Vec<IpAddr>, Vec<u16>) {
        let vips = if settings.vips.is_empty() {
            let most = self.seen.iter().max_by_key(|(ip, s)| (s.call_ids.len(), s.received, std::cmp::Reverse(**ip)));
            most.map(|(ip, _)| *ip).into_iter().collect()
        } else {
            settings.vips.clone()
        };
        let mut ports = settings.sip_ports.clone();
        if ports.is_empty() {
            ports = vips.iter().filter_map(|ip| self.seen.get(ip)).flat_map(|s| s.ports.iter().copied()).collect();
            ports.sort_unstable();
            ports.dedup();
        }
        if ports.is_empty() {
            ports.push(5060);
        }
        (vips, ports)
    }
}

#[cfg(test)]
mod tests;
