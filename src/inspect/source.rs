//! Opens a capture so that it can be read twice from its start: a file, standard input or another pipe, each plain or
//! compressed by gzip.

use super::InspectError;
use super::file::{self, Bomb};
use flate2::bufread::MultiGzDecoder;
use std::collections::hash_map::RandomState;
use std::fs::{File, OpenOptions};
use std::hash::BuildHasher as _;
use std::io::{BufRead as _, BufReader, Cursor, ErrorKind, IsTerminal as _, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Bytes per read from disk.
const BUFFER: usize = 256 * 1024;
/// A pipe is kept in a temporary file, which must not fill the disk.
const MAX_PIPE: u64 = 8 << 30;
/// Most bytes that a compressed file may unpack to.
const MAX_UNPACKED: u64 = 8 << 30;
/// Deflate packs zeros 1,032 to 1. No capture of telephony comes near, since each record has a time of its own.
const MAX_RATIO: u64 = 500;
/// Below this many bytes any ratio is harmless.
const FREE: u64 = 64 << 20;

/// A capture that can be read again from its start.
#[derive(Debug)]
pub(super) struct Source {
    /// How errors call it.
    pub(super) name: PathBuf,
    file: File,
    /// Where the capture begins: a shell may have read a part of its standard input.
    start: u64,
}

impl Source {
    /// Opens the file; `-` is standard input.
    pub(super) fn open(path: &Path) -> Result<Self, InspectError> {
        let input = path == Path::new("-");
        let name = if input { PathBuf::from("standard input") } else { path.to_owned() };
        let failed = |source| InspectError::Open { path: name.clone(), source };
        let mut file = if input {
            let input = std::io::stdin();
            if input.is_terminal() {
                return Err(InspectError::Terminal);
            }
            File::from(input.as_fd().try_clone_to_owned().map_err(failed)?)
        } else {
            File::open(path).map_err(failed)?
        };
        let kind = file.metadata().map_err(failed)?;
        if kind.is_dir() {
            return Err(failed(ErrorKind::IsADirectory.into()));
        }
        let start = if kind.is_file() {
            file.stream_position().map_err(failed)?
        } else {
            file = kept(&name, file)?;
            0
        };
        Ok(Self { name, file, start })
    }

    /// The whole capture, unpacked.
    pub(super) fn pass(&mut self) -> Result<Box<dyn Read + '_>, InspectError> {
        let failed = |source| InspectError::Open { path: self.name.clone(), source };
        self.file.seek(SeekFrom::Start(self.start)).map_err(failed)?;
        let mut plain = BufReader::with_capacity(BUFFER, Counted { file: &self.file, bytes: 0 });
        if !plain.fill_buf().map_err(failed)?.starts_with(&file::GZIP) {
            return Ok(Box::new(plain));
        }
        let unpacked = Unpacked { inner: MultiGzDecoder::new(plain), bytes: 0 };
        let mut unpacked = BufReader::with_capacity(BUFFER, unpacked);
        // What does not even begin to unpack is told as such, not as a capture that ends early.
        let mut start = [0u8; 4];
        let mut got = 0;
        while got < start.len() {
            match unpacked.read(&mut start[got..]) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(InspectError::Gzip { path: self.name.clone(), source }),
            }
        }
        if start.starts_with(&file::GZIP) {
            return Err(InspectError::Packed {
                path: self.name.clone(),
                what: "compressed by gzip twice",
                cure: "unpack it with `gunzip`",
            });
        }
        Ok(Box::new(Cursor::new(start).take(got as u64).chain(unpacked)))
    }
}

/// The bytes of a pipe in a temporary file that is gone when it is closed: it has telephone numbers in it.
fn kept(name: &Path, mut pipe: File) -> Result<File, InspectError> {
    let failed = |source| InspectError::Open { path: name.to_owned(), source };
    let mut start = Vec::new();
    Read::by_ref(&mut pipe).take(16).read_to_end(&mut start).map_err(failed)?;
    let directory = std::env::temp_dir();
    let spool = |source| InspectError::Spool { path: name.to_owned(), directory: directory.clone(), source };
    let unique = RandomState::new().hash_one(std::process::id());
    let path = directory.join(format!("keepcall-inspect-{unique:016x}"));
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(spool)?;
    std::fs::remove_file(&path).map_err(spool)?;
    file.write_all(&start).map_err(spool)?;
    // An endless pipe that is no capture is not read to its end.
    if !file::may_be_capture(&start) {
        return Ok(file);
    }
    let (mut total, mut buffer) = (start.len() as u64, vec![0u8; BUFFER]);
    loop {
        let n = match pipe.read(&mut buffer) {
            Ok(0) => return Ok(file),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(failed(e)),
        };
        total += n as u64;
        if total > MAX_PIPE {
            return Err(InspectError::LongPipe { path: name.to_owned(), gib: MAX_PIPE >> 30 });
        }
        file.write_all(&buffer[..n]).map_err(spool)?;
    }
}

/// Counts the bytes read.
struct Counted<'f> {
    file: &'f File,
    bytes: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(into)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

/// Unpacks gzip up to a bound.
struct Unpacked<'f> {
    inner: MultiGzDecoder<BufReader<Counted<'f>>>,
    bytes: u64,
}

impl Read for Unpacked<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(into)?;
        self.bytes += n as u64;
        let packed = self.inner.get_ref().get_ref().bytes;
        bound(packed, self.bytes).map_err(std::io::Error::other)?;
        Ok(n)
    }
}

/// Whether a file may unpack to so much.
fn bound(packed: u64, unpacked: u64) -> Result<(), Bomb> {
    if unpacked > MAX_UNPACKED {
        return Err(Bomb(format!("more than {} GiB", MAX_UNPACKED >> 30)));
    }
    // Counted are whole reads from disk, which only makes the ratio smaller.
    if unpacked > FREE && unpacked / MAX_RATIO > packed {
        return Err(Bomb(format!("more than {MAX_RATIO} times its size")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
