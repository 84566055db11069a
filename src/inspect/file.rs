//! Reads a capture file as a series of frames with their times.
//!
//! Hand-written instead of a library: files in the field have records longer than the snap length in their header,
//! reserved fields that are not zero, and unknown options. Their packets are readable all the same. Memory holds one
//! frame at a time.

use super::InspectError;
use crate::time::Time;
use std::io::{ErrorKind, Read as Bytes};
use std::path::Path;

/// Longest frame kept; a longer one keeps only its beginning. No link carries more in one frame, offload included.
const MAX_FRAME: usize = 256 * 1024;
/// A record that claims more than this is damaged, and the next record cannot be found.
const MAX_RECORD: u64 = 1 << 30;
/// Most interfaces of one section; frames of further ones count as unsupported.
const MAX_INTERFACES: usize = 65_536;
/// The first bytes of a file compressed by gzip.
pub(super) const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Block types of pcapng (draft-ietf-opsawg-pcapng).
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE: u32 = 3;
const ENHANCED: u32 = 6;

/// One captured frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    /// Time since 1970.
    pub(super) at: Time,
    /// Link type (<https://www.tcpdump.org/linktypes.html>); `None` if the file does not give one.
    pub(super) link: Option<u32>,
    pub(super) data: &'a [u8],
    /// Whether the frame was longer on the wire than the bytes kept.
    pub(super) cut: bool,
}

pub(super) type Each<'f> = &'f mut dyn FnMut(Frame<'_>);

/// Result of reading a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) frames: u64,
    /// Why reading stopped before the end.
    pub(super) truncated: Option<String>,
}

/// Why reading stopped.
enum Stop {
    /// End of the file; `inside` means in the middle of a record.
    End {
        inside: bool,
    },
    Damaged(&'static str),
    Io(std::io::Error),
}

impl From<std::io::Error> for Stop {
    fn from(e: std::io::Error) -> Self {
        if e.kind() == ErrorKind::UnexpectedEof { Self::End { inside: true } } else { Self::Io(e) }
    }
}

/// The file unpacks to more than any capture would: the error of its reader.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Bomb(pub(super) String);

/// Calls `each` with every frame in the file, in order. `path` only appears in errors.
pub(super) fn read(path: &Path, file: Box<dyn Bytes + '_>, each: Each<'_>) -> Result<Read, InspectError> {
    let path = path.to_owned();
    let failed = |source| InspectError::Open { path: path.clone(), source };
    let mut input = Input { file, bytes: 0, frame: Vec::new(), each, read: Read::default() };
    let mut magic = [0u8; 4];
    let got = input.fill(&mut magic).map_err(failed)?;
    let stop = match &magic[..got] {
        [] => return Err(InspectError::Empty { path }),
        [0x0a, 0x0d, 0x0d, 0x0a] => input.pcapng(),
        start => match PcapKind::of(&magic).filter(|_| got == 4) {
            Some(kind) => input.pcap(kind),
            None => {
                return Err(match packed(start) {
                    Some((what, cure)) => InspectError::Packed { path, what, cure },
                    None => InspectError::NotACapture { path },
                });
            }
        },
    };
    let Some(stop) = stop.err() else { return Ok(input.read) };
    let n = input.read.frames;
    let why = match stop {
        Stop::End { inside: false } => return Ok(input.read),
        Stop::End { inside: true } => format!("the file ends inside the record after frame {n}"),
        Stop::Damaged(why) => format!("the record after frame {n} is damaged: {why}"),
        Stop::Io(e) => match e.get_ref().and_then(|e| e.downcast_ref::<Bomb>()) {
            Some(Bomb(why)) => return Err(InspectError::Bomb { path, why: why.clone() }),
            None => format!("cannot read the file after frame {n}: {e}"),
        },
    };
    if input.read.frames == 0 && !input.has_header() {
        return Err(InspectError::Header { path, why });
    }
    input.read.truncated = Some(why);
    Ok(input.read)
}

/// Whether a file that begins so may be a capture, plain or compressed.
pub(super) fn may_be_capture(start: &[u8]) -> bool {
    let magic = start.first_chunk::<4>();
    start.starts_with(&GZIP) || magic.is_some_and(|m| m == &SECTION.to_le_bytes() || PcapKind::of(m).is_some())
}

/// Names a known format that is no capture, and the command that converts it.
fn packed(start: &[u8]) -> Option<(&'static str, &'static str)> {
    Some(match start {
        [0x28, 0xb5, 0x2f, 0xfd] => ("compressed by zstd", "unpack it with `unzstd`"),
        [0xfd, b'7', b'z', b'X'] => ("compressed by xz", "unpack it with `unxz`"),
        [b'B', b'Z', b'h', ..] => ("compressed by bzip2", "unpack it with `bunzip2`"),
        [0x04, 0x22, 0x4d, 0x18] => ("compressed by lz4", "unpack it with `unlz4`"),
        [b'P', b'K', 3, 4] => ("a zip archive", "unpack it with `unzip`"),
        [b's', b'n', b'o', b'o'] => ("a snoop capture", "convert it with `editcap -F pcap`"),
        [b'I', b'N', b'V', b'I'] | [b'S', b'I', b'P', b'/'] => {
            ("SIP as text", "export the capture itself as pcap, or convert the text with `text2pcap`")
        }
        _ => return None,
    })
}

/// The variants of pcap: byte order, resolution, and the longer record header of Kuznetzov's libpcap.
#[derive(Clone, Copy)]
struct PcapKind {
    big: bool,
    nanos: u64,
    header: usize,
}

impl PcapKind {
    fn of(magic: &[u8; 4]) -> Option<Self> {
        [true, false].into_iter().find_map(|big| {
            let (nanos, header) = match word(magic, 0, big)? {
                0xa1b2_c3d4 => (1000, 16),
                0xa1b2_3c4d => (1, 16),
                0xa1b2_cd34 => (1000, 24),
                _ => return None,
            };
            Some(Self { big, nanos, header })
        })
    }
}

struct Interface {
    link: u32,
    snap: usize,
    /// Ticks per second.
    rate: u128,
    /// Seconds to add.
    offset: i64,
}

struct Input<'f> {
    file: Box<dyn Bytes + 'f>,
    /// Bytes read so far.
    bytes: u64,
    frame: Vec<u8>,
    each: Each<'f>,
    read: Read,
}

impl Input<'_> {
    /// Reads until `into` is full or the file ends; returns the number of bytes read.
    fn fill(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let mut got = 0;
        while got < into.len() {
            match self.file.read(&mut into[got..]) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.bytes += got as u64;
        Ok(got)
    }

    /// The next `N` bytes. End of file before the first byte is a clean end.
    fn next<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut bytes = [0u8; N];
        match self.fill(&mut bytes)? {
            0 => Err(Stop::End { inside: false }),
            n if n < N => Err(Stop::End { inside: true }),
            _ => Ok(bytes),
        }
    }

    /// Reads the next `length` bytes into `frame`, at most [`MAX_FRAME`] of them, and skips the rest.
    fn take(&mut self, length: u64) -> Result<(), Stop> {
        let keep = usize::try_from(length).unwrap_or(usize::MAX).min(MAX_FRAME);
        let mut frame = std::mem::take(&mut self.frame);
        frame.resize(keep, 0);
        let got = self.fill(&mut frame);
        self.frame = frame;
        if got? < keep {
            return Err(Stop::End { inside: true });
        }
        let mut rest = length - keep as u64;
        while rest > 0 {
            let n = self.file.read(&mut [0u8; 4096][..usize::try_from(rest).unwrap_or(4096).min(4096)])?;
            if n == 0 {
                return Err(Stop::End { inside: true });
            }
            rest -= n as u64;
        }
        Ok(())
    }

    /// Whether the file's own header was complete.
    fn has_header(&mut self) -> bool {
        // The shortest headers: 24 bytes of pcap, 28 of pcapng. Reading may have stopped before their end.
        if self.bytes < 24 {
            let _ = self.fill(&mut [0; 24]);
        }
        self.bytes >= 24
    }

    fn pcap(&mut self, mut kind: PcapKind) -> Result<(), Stop> {
        let inside = |s| if matches!(s, Stop::End { .. }) { Stop::End { inside: true } } else { s };
        let header: [u8; 20] = self.next().map_err(inside)?;
        // The upper bits give the length of a checksum at the end of each frame.
        let mut link = word(&header, 16, kind.big).map(|l| l & 0x03ff_ffff);
        loop {
            let head: [u8; 16] = self.next()?;
            if let Some(again) = head.first_chunk().and_then(PcapKind::of) {
                // Files joined with `cat`: the magic number is no plausible second.
                kind = again;
                let rest: [u8; 8] = self.next().map_err(inside)?;
                link = word(&rest, 4, kind.big).map(|l| l & 0x03ff_ffff);
                continue;
            }
            if kind.header == 24 {
                self.next::<8>().map_err(inside)?;
            }
            let field = |n: usize| word(&head, n * 4, kind.big).unwrap_or(0);
            let (seconds, fraction, length, original) = (field(0), field(1), u64::from(field(2)), u64::from(field(3)));
            if length > MAX_RECORD {
                return Err(Stop::Damaged("the length is impossible"));
            }
            self.take(length)?;
            let at = u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * kind.nanos;
            self.tell(Time::from_nanos(at), link, 0, self.frame.len(), original > length);
        }
    }

    fn tell(&mut self, at: Time, link: Option<u32>, from: usize, to: usize, cut: bool) {
        self.read.frames += 1;
        let data = self.frame.get(from..to).unwrap_or_default();
        (self.each)(Frame { at, link, data, cut });
    }

    fn pcapng(&mut self) -> Result<(), Stop> {
        let inside = |s| if matches!(s, Stop::End { .. }) { Stop::End { inside: true } } else { s };
        let (mut big, mut interfaces) = (false, Vec::new());
        // Simple packets carry no time; they take the time of the packet before.
        let mut last = Time::ZERO;
        let mut first = true;
        loop {
            let kind = if std::mem::take(&mut first) { SECTION.to_le_bytes() } else { self.next()? };
            let length: [u8; 4] = self.next().map_err(inside)?;
            let mut done = 8;
            if kind == SECTION.to_le_bytes() {
                // A new section has its own byte order, and its interfaces count from zero.
                big = match self.next::<4>().map_err(inside)? {
                    [0x1a, 0x2b, 0x3c, 0x4d] => true,
                    [0x4d, 0x3c, 0x2b, 0x1a] => false,
                    _ => return Err(Stop::Damaged("the section does not give a byte order")),
                };
                interfaces.clear();
                done = 12;
            }
            let kind = word(&kind, 0, big).unwrap_or(0);
            let length = u64::from(word(&length, 0, big).unwrap_or(0));
            if length < done + 4 || length > MAX_RECORD {
                return Err(Stop::Damaged("the length of a block is impossible"));
            }
            // The length is repeated at the end, for backward readers only. Blocks are padded to four bytes.
            self.take((length - done).next_multiple_of(4))?;
            let body = self.frame.len().saturating_sub(4);
            self.frame.truncate(body);
            match kind {
                INTERFACE if interfaces.len() < MAX_INTERFACES => interfaces.push(interface(&self.frame, big)),
                OLD_PACKET | SIMPLE | ENHANCED => self.packet(kind, big, &interfaces, &mut last)?,
                _ => {}
            }
        }
    }

    fn packet(&mut self, kind: u32, big: bool, interfaces: &[Option<Interface>], last: &mut Time) -> Result<(), Stop> {
        let field = |n: usize| word(&self.frame, n * 4, big);
        let size = |n: usize| field(n).and_then(|l| usize::try_from(l).ok());
        let half =
            || self.frame.first_chunk::<2>().map(|b| if big { u16::from_be_bytes(*b) } else { u16::from_le_bytes(*b) });
        let parts = (|| {
            let at = match kind {
                SIMPLE => 0,
                OLD_PACKET => usize::from(half()?),
                _ => size(0)?,
            };
            let interface = interfaces.get(at).and_then(Option::as_ref);
            if kind == SIMPLE {
                let (original, there) = (size(0)?, self.frame.len().checked_sub(4)?);
                let snap = interface.map(|i| i.snap).filter(|s| *s > 0).unwrap_or(usize::MAX);
                return Some((interface, None, 4, original.min(there).min(snap), original));
            }
            let ticks = u64::from(field(1)?) << 32 | u64::from(field(2)?);
            Some((interface, Some(ticks), 20, size(3)?, size(4)?))
        })();
        let Some((interface, ticks, from, length, original)) = parts else {
            return Err(Stop::Damaged("a packet block is too short"));
        };
        if from + length > self.frame.len() && self.frame.len() < MAX_FRAME - 4 {
            return Err(Stop::Damaged("a packet is longer than its block"));
        }
        let link = interface.map(|i| i.link);
        if let (Some(ticks), Some(interface)) = (ticks, interface) {
            *last = interface.time(ticks);
        }
        let to = (from + length).min(self.frame.len());
        self.tell(*last, link, from, to, original > length);
        Ok(())
    }
}

impl Interface {
    fn time(&self, ticks: u64) -> Time {
        let nanos = i128::try_from(u128::from(ticks) * 1_000_000_000 / self.rate).unwrap_or(i128::MAX);
        let nanos = nanos.saturating_add(i128::from(self.offset) * 1_000_000_000);
        Time::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }
}

/// An interface description; `None` for one that is too short, which still takes up a number.
fn interface(body: &[u8], big: bool) -> Option<Interface> {
    let half = |at: usize| {
        let b: [u8; 2] = body.get(at..at + 2)?.try_into().ok()?;
        Some(usize::from(if big { u16::from_be_bytes(b) } else { u16::from_le_bytes(b) }))
    };
    let link = u32::try_from(half(0)?).ok()?;
    let snap = usize::try_from(word(body, 4, big)?).ok()?;
    // Microseconds, unless `if_tsresol` says otherwise.
    let (mut rate, mut offset) = (1_000_000_u128, 0);
    let mut at = 8;
    while let (Some(code @ 1..), Some(length)) = (half(at), half(at + 2)) {
        let value = body.get(at + 4..at + 4 + length).unwrap_or_default();
        match (code, value) {
            // The high bit marks a power of two, otherwise of ten. No clock counts beyond these.
            (9, [r @ 0x80..=0xbf, ..]) => rate = 1 << (r & 0x7f),
            (9, [r @ 0..=18, ..]) => rate = 10u128.pow(u32::from(*r)),
            (14, [..]) => {
                if let Some(b) = value.first_chunk::<8>() {
                    offset = if big { i64::from_be_bytes(*b) } else { i64::from_le_bytes(*b) };
                }
            }
            _ => {}
        }
        at += 4 + length.next_multiple_of(4);
    }
    Some(Interface { link, snap, rate, offset })
}

fn word(bytes: &[u8], at: usize, big: bool) -> Option<u32> {
    let b: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(if big { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) })
}
