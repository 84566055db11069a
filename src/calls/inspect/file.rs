//! A capture file as a series of UDP datagrams with their times.

use super::InspectError;
use crate::calls::frame::{self, Link, Udp};
use crate::calls::reassembly::Reassembly;
use crate::time::Time;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{PcapNgReader, RawBlock};
use pcap_file::{DataLink, Endianness, PcapError};
use std::io::{Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::Path;

/// Block types of pcapng (draft-ietf-opsawg-pcapng) that hold packets.
const SIMPLE: u32 = 3;
const ENHANCED: u32 = 6;

/// Takes time since 1970, source, destination and payload of a datagram.
pub(super) type Each<'f> = &'f mut dyn FnMut(Time, SocketAddr, SocketAddr, &[u8]);

/// What was in the file besides datagrams.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Frames read.
    pub(super) frames: u64,
    /// Frames of a link type that is not understood.
    pub(super) unsupported: u64,
    /// Why reading stopped before the end.
    pub(super) truncated: Option<String>,
}

/// Calls `each` with every UDP datagram in the file, in order. `path` is only named in errors.
pub(super) fn read<R: std::io::Read + Seek>(path: &Path, mut file: R, each: Each<'_>) -> Result<Read, InspectError> {
    let failed = |source| InspectError::Open { path: path.to_owned(), source };
    let mut magic = [0u8; 4];
    let mut got = 0;
    while got < magic.len() {
        match file.read(&mut magic[got..]).map_err(failed)? {
            0 => break,
            n => got += n,
        }
    }
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut sink = Sink { read: Read::default(), reassembly: Reassembly::new(), each };
    match &magic[..got] {
        [0x0a, 0x0d, 0x0d, 0x0a] => pcapng(path, file, &mut sink)?,
        // Microseconds and nanoseconds, in either byte order.
        [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] | [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1] => {
            pcap(path, file, &mut sink)?;
        }
        _ => return Err(InspectError::NotACapture { path: path.to_owned() }),
    }
    Ok(sink.read)
}

struct Sink<'f> {
    read: Read,
    reassembly: Reassembly,
    each: Each<'f>,
}

impl Sink<'_> {
    fn frame(&mut self, at: Time, link: Option<Link>, data: &[u8]) {
        self.read.frames += 1;
        let Some(link) = link else {
            self.read.unsupported += 1;
            return;
        };
        match frame::ip_of(link, data).and_then(frame::udp_in_ip) {
            Some(Udp::Whole { src, dst, payload }) => (self.each)(at, src, dst, payload),
            Some(Udp::Fragment(f)) => {
                if let Some((src, dst, payload)) = self.reassembly.handle_fragment(&f, at) {
                    (self.each)(at, src, dst, &payload);
                }
            }
            None => {}
        }
    }

    fn stop(&mut self, error: &PcapError) {
        let n = self.read.frames;
        self.read.truncated = Some(match error {
            PcapError::IncompleteBuffer => format!("the file ends inside the record after frame {n}"),
            PcapError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                format!("the file ends inside the record after frame {n}")
            }
            PcapError::IoError(e) => format!("reading failed after frame {n}: {e}"),
            other => format!("the record after frame {n} is damaged: {other}"),
        });
    }
}

fn pcap<R: std::io::Read>(path: &Path, file: R, sink: &mut Sink<'_>) -> Result<(), InspectError> {
    let mut reader = PcapReader::new(file).map_err(|e| InspectError::Header { path: path.to_owned(), why: e.to_string() })?;
    let kind = reader.header().datalink;
    let link = link_of(kind).ok_or_else(|| InspectError::LinkType { path: path.to_owned(), number: kind.into() })?;
    while let Some(packet) = reader.next_packet() {
        match packet {
            Ok(p) => {
                let at = u64::try_from(p.timestamp.as_nanos()).unwrap_or(u64::MAX);
                sink.frame(Time::from_nanos(at), Some(link), &p.data);
            }
            Err(e) => {
                // The reader would give the same error for ever.
                sink.stop(&e);
                break;
            }
        }
    }
    Ok(())
}

fn pcapng<R: std::io::Read>(path: &Path, file: R, sink: &mut Sink<'_>) -> Result<(), InspectError> {
    let mut reader = PcapNgReader::new(file).map_err(|e| InspectError::Header { path: path.to_owned(), why: e.to_string() })?;
    // Simple packets carry no time: they count as of the packet before.
    let mut last = Time::ZERO;
    loop {
        let (kind, body) = match reader.next_raw_block() {
            None => return Ok(()),
            Some(Ok(RawBlock { type_, body, .. })) if matches!(type_, SIMPLE | ENHANCED) => (type_, body.into_owned()),
            Some(Ok(_)) => continue,
            Some(Err(e)) => {
                sink.stop(&e);
                return Ok(());
            }
        };
        let big = reader.section().endianness == Endianness::Big;
        let word = |at: usize| {
            let bytes: [u8; 4] = body.get(at..at + 4)?.try_into().ok()?;
            Some(if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
        };
        let packet = if kind == ENHANCED {
            // Interface, time (two words), captured length, original length, data.
            (|| {
                let interface = reader.interfaces().get(usize::try_from(word(0)?).ok()?)?;
                let ticks = u64::from(word(4)?) << 32 | u64::from(word(8)?);
                let length = usize::try_from(word(12)?).ok()?;
                last = Time::from_nanos(nanos(ticks, interface));
                Some((interface.linktype, body.get(20..)?.get(..length)?))
            })()
        } else {
            (|| {
                let interface = reader.interfaces().first()?;
                let length = usize::try_from(word(0)?).ok()?;
                let data = body.get(4..)?;
                Some((interface.linktype, data.get(..length).unwrap_or(data)))
            })()
        };
        match packet {
            Some((kind, data)) => sink.frame(last, link_of(kind), data),
            None => {
                sink.read.truncated = Some(format!("the packet block after frame {} is damaged", sink.read.frames));
                return Ok(());
            }
        }
    }
}

/// Time in nanoseconds; an interface without `if_tsresol` counts microseconds.
fn nanos(ticks: u64, interface: &pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock<'_>) -> u64 {
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption::IfTsResol;
    let resolution = interface.options.iter().find_map(|o| if let IfTsResol(r) = o { Some(*r) } else { None }).unwrap_or(6);
    let per_second: u128 = match resolution {
        // The high bit says that the rest is a power of two, else of ten; beyond these no clock counts.
        r @ 0x80..=0xbf => 1 << (r & 0x7f),
        r @ 0..=18 => 10u128.pow(u32::from(r)),
        _ => 1_000_000,
    };
    u64::try_from(u128::from(ticks) * 1_000_000_000 / per_second).unwrap_or(u64::MAX)
}

fn link_of(kind: DataLink) -> Option<Link> {
    match kind {
        DataLink::ETHERNET => Some(Link::Ethernet),
        DataLink::LINUX_SLL => Some(Link::Sll),
        DataLink::LINUX_SLL2 => Some(Link::Sll2),
        DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => Some(Link::RawIp),
        DataLink::NULL | DataLink::LOOP => Some(Link::Null),
        _ => None,
    }
}
