//! A capture file as keepcall would see it: every call in it, what would be known of it, and what would become of it. Offline; it reads a
//! file and nothing else.
//!
//! The file is read twice: first to find out who the server is, then to follow each hop of each call. Only one frame is in memory at
//! a time; what is kept of calls, addresses and RTP is bounded (see the constants here and in the modules below).

mod assemble;
mod file;
mod link;
mod observer;
mod prospect;
mod record;
pub mod report;
mod rtp;
mod survey;
mod wire;

pub use report::{Report, SCHEMA};

use crate::time::Time;
use file::Frame;
use observer::Observer;
use report::Chosen;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use survey::{Certainty, Survey};
use wire::{Item, Traffic, Wire};

/// How long time goes on after the last packet, so that single legs settle.
const AFTER: Duration = Duration::from_secs(2);

/// What to look for in a capture file.
#[derive(Clone, Debug, Default)]
pub struct InspectSettings {
    /// Addresses of the server. If there are none, the likeliest is found out: see `docs/inspect.md`.
    pub vips: Vec<IpAddr>,
    /// SIP ports of the server. If there are none: all ports of it that SIP was seen on.
    pub sip_ports: Vec<u16>,
    /// See [`TableSettings::pair_header`](crate::calls::table::TableSettings::pair_header).
    pub pair_header: Option<String>,
    /// See [`TableSettings::emergency`](crate::calls::table::TableSettings::emergency).
    pub emergency: Vec<String>,
    /// See [`TableSettings::max_calls`](crate::calls::table::TableSettings::max_calls); 0 for as many as a report may have.
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
    /// There is nothing in it.
    #[error("{} is empty: no pcap or pcapng file; record one with `tcpdump -i any -w FILE.pcap udp port 5060`", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It is packed, or something that a capture can be made of.
    #[error("{} is {what}, and no pcap or pcapng file: {cure} first", path.display())]
    Packed {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// What to do.
        cure: &'static str,
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
        /// What is wrong.
        why: String,
    },
}

/// Reads a capture file and tells the calls in it.
///
/// # Errors
/// See [`InspectError`].
pub fn inspect(path: &Path, settings: &InspectSettings) -> Result<Report, InspectError> {
    let mut survey = Survey::default();
    walk(path, &mut |_, item| {
        if let Item::Sip { packet, .. } = item {
            survey.see(&packet);
        }
    })?;
    let others = std::mem::take(&mut survey.others);
    let malformed = survey.malformed;
    let roles = survey.roles(&settings.vips, &settings.sip_ports);
    let (servers, certainty) = (roles.servers.clone(), roles.certainty);
    let (vips, ports) = (roles.vips.clone(), roles.ports.clone());
    let mut observer = Observer::new(roles, settings.clone());
    let (mut first, mut last) = (None, Time::ZERO);
    let (read, traffic) = walk(path, &mut |at, item| {
        first.get_or_insert(at);
        last = at;
        match item {
            Item::Sip { packet, cut } => observer.handle_sip(&packet, cut, at),
            Item::Datagram { src, dst, payload } => observer.handle_datagram(src, dst, payload, at),
        }
    })?;
    observer.finish(last + AFTER);
    let (rtp, counters, legs_left_out) = (observer.streams.totals, observer.counters(), observer.left_out);
    let calls = assemble::calls(observer, last);
    let mut report = Report {
        schema: SCHEMA,
        server: Chosen { addresses: vips, ports, certainty },
        servers,
        first_ms: first.map(ms),
        last_ms: first.map(|_| ms(last)),
        calls,
        legs_left_out,
        other_requests: others,
        traffic,
        rtp,
        counters,
        notes: Vec::new(),
        truncated: read.truncated,
    };
    report.notes = notes(&report, malformed);
    Ok(report)
}

fn walk(path: &Path, each: &mut dyn FnMut(Time, Item<'_>)) -> Result<(file::Read, Traffic), InspectError> {
    let file = File::open(path).map_err(|source| InspectError::Open { path: path.to_owned(), source })?;
    let mut wire = Wire::new();
    let read = file::read(path, file, &mut |frame: Frame<'_>| wire.handle_frame(&frame, each))?;
    let traffic = wire.finish(each);
    Ok((read, traffic))
}

fn ms(at: Time) -> u64 {
    at.as_nanos() / 1_000_000
}

/// What should be known of the file as a whole.
fn notes(r: &Report, malformed: u64) -> Vec<String> {
    let (t, mut notes) = (&r.traffic, Vec::new());
    if t.frames == 0 {
        notes.push("there is no packet in the file".to_owned());
    } else if t.unsupported_frames > 0 {
        let kinds: Vec<String> = t.link_types.iter().map(u32::to_string).collect();
        notes.push(format!(
            "{} of {} frames are of a link type that is not understood (in the file: {})",
            t.unsupported_frames,
            t.frames,
            kinds.join(", ")
        ));
    }
    if t.frames > 0 && t.sip == 0 {
        notes.push(format!(
            "no SIP was found ({} UDP datagrams, and whatever TCP there is); SIP over TLS cannot be read from a capture",
            t.udp
        ));
    }
    if t.sip_cut > 0 {
        notes.push(format!(
            "the capture kept only the beginning of {} of {} SIP messages: record with `tcpdump -s 0`",
            t.sip_cut, t.sip
        ));
    }
    if t.back_in_time > 0 {
        notes.push(format!(
            "time steps back in the file ({} frames are older than one before them): packets are taken in the file's order",
            t.back_in_time
        ));
    }
    if malformed > 0 {
        notes.push(format!("{malformed} messages begin like SIP and lack what every message must have"));
    }
    if t.sip > 0 && r.calls.is_empty() {
        let others: Vec<String> = r.other_requests.iter().map(|(m, n)| format!("{n} {m}")).collect();
        notes.push(format!(
            "there is SIP, but no call: {}",
            if others.is_empty() { "no requests".to_owned() } else { others.join(", ") }
        ));
    }
    match r.server.certainty {
        Certainty::Guess if r.servers.len() > 1 => notes.push(format!(
            "that {} is the server is a guess; name it with --vip (and --port) if it is another",
            r.server
                .addresses
                .iter()
                .flat_map(|ip| r.server.ports.iter().map(|port| SocketAddr::new(*ip, *port).to_string()))
                .collect::<Vec<_>>()
                .join(", ")
        )),
        Certainty::Given if !r.calls.is_empty() && r.calls.iter().all(|c| !c.through_server) => {
            notes.push("no call in the file passes the address that was named".to_owned());
        }
        _ => {}
    }
    if r.legs_left_out > 0 {
        notes.push(format!("{} legs are left out: a report has {} at most", r.legs_left_out, observer::MAX_LEGS));
    }
    notes
}

#[cfg(test)]
mod tests;
