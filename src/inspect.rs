//! Analyses a capture file offline: lists every call, what keepcall would learn of it, and what a takeover would do
//! with it. Reads that file and nothing else.
//!
//! Two passes over the file: the first finds the server, the second follows each hop of each call. Memory holds one
//! frame at a time; records of calls, addresses and RTP are bounded (see the constants here and in the modules below).

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

/// Time that runs on after the last packet, so that single legs settle.
const AFTER: Duration = Duration::from_secs(2);

/// Settings for one capture file.
#[derive(Clone, Debug, Default)]
pub struct InspectSettings {
    /// Addresses of the server. If empty, the likeliest address is chosen: see `docs/inspect.md`.
    pub vips: Vec<IpAddr>,
    /// SIP ports of the server. If empty, every server port with SIP traffic counts.
    pub sip_ports: Vec<u16>,
    /// See [`TableSettings::pair_header`](crate::calls::table::TableSettings::pair_header).
    pub pair_header: Option<String>,
    /// See [`TableSettings::emergency`](crate::calls::table::TableSettings::emergency).
    pub emergency: Vec<String>,
    /// See [`TableSettings::max_calls`](crate::calls::table::TableSettings::max_calls); 0 means the report's own limit.
    pub max_calls: usize,
}

/// Why a file gave no report. A file that is cut off or damaged further on still gives a report, with
/// [`Report::truncated`] set.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is empty.
    #[error("{} is empty, not a pcap or pcapng file; record one with `tcpdump -i any -w FILE.pcap udp port 5060`", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file is compressed, or in a format that converts to a capture.
    #[error("{} is {what}, not a pcap or pcapng file: {cure} first", path.display())]
    Packed {
        /// The file.
        path: PathBuf,
        /// The format found.
        what: &'static str,
        /// The command that converts it.
        cure: &'static str,
    },
    /// The file does not begin like a capture.
    #[error("{} is not a pcap or pcapng file; record one with `tcpdump -i any -w FILE.pcap udp port 5060`", path.display())]
    NotACapture {
        /// The file.
        path: PathBuf,
    },
    /// The file header is damaged.
    #[error("the header of {} is cut off or damaged ({why}); record the file again", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Reads a capture file and reports the calls in it.
///
/// # Errors See [`InspectError`].
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

/// Notes on the file as a whole.
fn notes(r: &Report, malformed: u64) -> Vec<String> {
    let (t, mut notes) = (&r.traffic, Vec::new());
    if t.frames == 0 {
        notes.push("the file has no packets".to_owned());
    } else if t.unsupported_frames > 0 {
        let kinds: Vec<String> = t.link_types.iter().map(u32::to_string).collect();
        notes.push(format!(
            "{} of {} frames have a link type that keepcall cannot read (in the file: {})",
            t.unsupported_frames,
            t.frames,
            kinds.join(", ")
        ));
    }
    if t.frames > 0 && t.sip == 0 {
        notes.push(format!(
            "the file shows no SIP ({} UDP datagrams, TCP not counted); a capture of SIP over TLS is unreadable",
            t.udp
        ));
    }
    if t.sip_cut > 0 {
        notes
            .push(format!("the capture truncated {} of {} SIP messages: record with `tcpdump -s 0`", t.sip_cut, t.sip));
    }
    if t.back_in_time > 0 {
        notes.push(format!(
            "time steps back in the file ({} frames are older than an earlier one): the order of the file counts",
            t.back_in_time
        ));
    }
    if malformed > 0 {
        notes.push(format!("{malformed} messages begin like SIP but lack what every SIP message must have"));
    }
    if t.sip > 0 && r.calls.is_empty() {
        let others: Vec<String> = r.other_requests.iter().map(|(m, n)| format!("{n} {m}")).collect();
        notes.push(format!(
            "the file has SIP, but no call: {}",
            if others.is_empty() { "no requests".to_owned() } else { others.join(", ") }
        ));
    }
    match r.server.certainty {
        Certainty::Guess if r.servers.len() > 1 => notes.push(format!(
            "the server is a guess: {}; name another one with --vip (and --port)",
            r.server
                .addresses
                .iter()
                .flat_map(|ip| r.server.ports.iter().map(|port| SocketAddr::new(*ip, *port).to_string()))
                .collect::<Vec<_>>()
                .join(", ")
        )),
        Certainty::Given if !r.calls.is_empty() && r.calls.iter().all(|c| !c.through_server) => {
            notes.push("no call in the file passes the given server address".to_owned());
        }
        _ => {}
    }
    if r.legs_left_out > 0 {
        notes.push(format!("the report leaves out {} legs: the maximum is {}", r.legs_left_out, observer::MAX_LEGS));
    }
    notes
}

#[cfg(test)]
mod tests;
