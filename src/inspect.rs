//! Analyses a capture file offline: lists every call, what keepcall would learn of it, and what a takeover would do
//! with it. Reads that file and nothing else.
//!
//! Two passes over the file: the first finds the server, the second follows each hop of each call. Memory holds one
//! frame at a time; records of calls, addresses and RTP are bounded (see the constants here and in the modules below).

mod assemble;
mod file;
mod first_line;
mod link;
mod observer;
mod prospect;
mod record;
mod remarks;
pub mod report;
mod rtp;
mod source;
mod summary;
mod survey;
mod wire;

pub use report::{Report, SCHEMA};

use crate::sip::advertised::Advertised;
use crate::time::Time;
use file::Frame;
use observer::Observer;
use report::{Chosen, Summary};
use source::Source;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use survey::Survey;
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
    /// Addresses and names by which the outside knows the server's addresses.
    pub advertised: Vec<String>,
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
    /// The file is compressed otherwise than by gzip, or in a format that converts to a capture.
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
    /// Standard input is the terminal.
    #[error("standard input is the terminal: pipe a capture into it, as in `tcpdump -w - | keepcall inspect -`")]
    Terminal,
    /// A pipe cannot be kept for the second reading.
    #[error(
        "cannot keep {} in {}: {source}; set TMPDIR to a directory with room, or write a file and name that",
        path.display(),
        directory.display()
    )]
    Spool {
        /// The pipe.
        path: PathBuf,
        /// The directory for temporary files.
        directory: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A pipe has more bytes than are kept.
    #[error("{} has more than {gib} GiB: write a file and name that", path.display())]
    LongPipe {
        /// The pipe.
        path: PathBuf,
        /// Most GiB that are kept.
        gib: u64,
    },
    /// The file begins like gzip, and does not unpack.
    #[error("{} begins like gzip, but cannot be unpacked: {source}; copy or record it again", path.display())]
    Gzip {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The file unpacks to more than a capture would.
    #[error("{} unpacks to {why}: if it is a capture, unpack it with `gunzip` first", path.display())]
    Bomb {
        /// The file.
        path: PathBuf,
        /// The bound that it exceeds.
        why: String,
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
    survey.advertised = Advertised::new(&settings.advertised);
    let mut source = Source::open(path)?;
    walk(&mut source, &mut |_, item| {
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
    let (read, traffic) = walk(&mut source, &mut |at, item| {
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
        summary: Summary::of(&calls),
        calls,
        legs_left_out,
        other_requests: others,
        traffic,
        rtp,
        counters,
        notes: Vec::new(),
        truncated: read.truncated,
    };
    report.notes = remarks::of(&report, malformed);
    Ok(report)
}

fn walk(source: &mut Source, each: &mut dyn FnMut(Time, Item<'_>)) -> Result<(file::Read, Traffic), InspectError> {
    let mut wire = Wire::new();
    let name = source.name.clone();
    let read = file::read(&name, source.pass()?, &mut |frame: Frame<'_>| wire.handle_frame(&frame, each))?;
    let traffic = wire.finish(each);
    Ok((read, traffic))
}

fn ms(at: Time) -> u64 {
    at.as_nanos() / 1_000_000
}

#[cfg(test)]
mod tests;
