//! Splits a captured TCP stream into SIP messages. Content-Length marks the end of a message (RFC 3261 section 18.3). A
//! wrong length or lost bytes cost the message they are in and spare the ones after it. Pure.

use super::message::{self, MAX_BYTES, Method, Start};
use head::Head;
use memchr::memmem::Finder;
use std::sync::LazyLock;

mod head;

/// Longest message ([`message::Message`] accepts no longer one), and so the most that a framer buffers. A message with
/// a larger claimed length is skipped up to the next start line.
pub const MAX_MESSAGE: usize = MAX_BYTES;
/// Longest start line. Real ones have under 300 bytes. A longer line without an end is no SIP.
const MAX_START_LINE: usize = 8192;

/// Splits one direction of a connection into SIP messages.
///
/// Use either [`Framer::feed`], which hands out whole messages without a copy, or [`Framer::push`] and then
/// [`Framer::next`] until it returns `None`.
#[derive(Debug)]
pub struct Framer {
    /// Pushed bytes that have not been handed out.
    buffer: Vec<u8>,
    /// Start of the unread part of `buffer`.
    at: usize,
    /// State of the message that begins at `at`.
    head: Head,
    /// The next byte should begin a message. If false, the framer searches for the next start line.
    synced: bool,
    /// The rest of the current line is no start line, because its beginning was none.
    midline: bool,
    skipped: u64,
    resyncs: u64,
}

impl Default for Framer {
    fn default() -> Self {
        Self { buffer: Vec::new(), at: 0, head: Head::default(), synced: true, midline: false, skipped: 0, resyncs: 0 }
    }
}

/// Verdict on the next bytes.
enum Step {
    /// More bytes are needed to decide.
    More,
    /// Skip this many bytes, which belong to no message.
    Skip(usize),
    /// A message of this many bytes.
    Message(usize),
}

impl Framer {
    /// A framer for a stream whose first byte begins a message.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A framer for a stream joined in the middle. It begins with the first start line.
    #[must_use]
    pub fn joined() -> Self {
        Self { synced: false, ..Self::default() }
    }

    /// Adds the next bytes of the stream and hands each message that they complete to `out`.
    pub fn feed(&mut self, bytes: &[u8], out: &mut dyn FnMut(&[u8])) {
        if self.buffered() > 0 {
            self.push(bytes);
            while let Some(message) = self.next() {
                out(message);
            }
            return;
        }
        let mut rest = bytes;
        loop {
            match self.step(rest) {
                Step::More => break,
                Step::Skip(n) => rest = &rest[n..],
                Step::Message(n) => {
                    out(&rest[..n]);
                    rest = &rest[n..];
                }
            }
        }
        self.buffer.extend_from_slice(rest);
    }

    /// Adds the next bytes of the stream. Call [`Framer::next`] until it returns `None` before the next push. Otherwise
    /// the oldest bytes are lost once two messages of the largest size wait.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        if self.buffer.len() + bytes.len() > 2 * MAX_MESSAGE && self.buffer.len() > MAX_MESSAGE {
            self.gap();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole message.
    #[allow(clippy::should_implement_trait, reason = "it lends its buffer, which an Iterator cannot")]
    pub fn next(&mut self) -> Option<&[u8]> {
        let buffer = std::mem::take(&mut self.buffer);
        let mut found = None;
        loop {
            match self.step(&buffer[self.at..]) {
                Step::More => break,
                Step::Skip(n) => self.at += n,
                Step::Message(n) => {
                    found = Some(self.at..self.at + n);
                    self.at += n;
                    break;
                }
            }
        }
        self.buffer = buffer;
        if found.is_none() && self.at == self.buffer.len() {
            // Free the buffer: thousands of phones keep an idle connection open.
            self.at = 0;
            self.buffer = Vec::new();
        }
        self.buffer.get(found?)
    }

    /// Marks lost bytes. The current message cannot be completed, and the next one begins at the next start line.
    pub fn gap(&mut self) {
        self.skipped += self.buffered() as u64;
        self.buffer = Vec::new();
        self.at = 0;
        self.head = Head::default();
        self.synced = false;
        // Most segments begin with a message, so the bytes after the loss may begin one.
        self.midline = false;
    }

    /// Marks the end of the stream, or a silence. A message without Content-Length ends here and is handed to `out`.
    /// Another message may follow.
    pub fn finish(&mut self, out: &mut dyn FnMut(&[u8])) {
        if self.is_open_ended() {
            out(&self.buffer[self.at..]);
            self.buffer = Vec::new();
            self.at = 0;
            self.head = Head::default();
        }
    }

    /// The current message has a body without Content-Length. Only the next message or silence ends it.
    #[must_use]
    pub fn is_open_ended(&self) -> bool {
        self.buffered() > 0 && self.head.is_open_ended()
    }

    /// Bytes that wait for the rest of their message.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.at
    }

    /// Bytes skipped because they belong to no recognisable message. Keep-alives (RFC 5626 section 3.5.1) do not count.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Searches for a start line after unexpected bytes.
    #[must_use]
    pub const fn resyncs(&self) -> u64 {
        self.resyncs
    }

    /// `data` begins at the end of the last step and holds at least the bytes of the last call.
    fn step(&mut self, data: &[u8]) -> Step {
        // Out of sync, the beginning of a segment may hold a start line, just like the beginning of a line.
        if self.midline && !data.is_empty() && !may_begin(data) {
            let end = memchr::memchr(b'\n', data);
            self.midline = end.is_none();
            return self.lose(end.map_or(data.len(), |n| n + 1));
        }
        self.midline = false;
        if self.head.is_new() {
            // RFC 5626 section 3.5.1: CRLFCRLF is a ping and CRLF a pong. RFC 3261 section 7.5: empty lines before a
            // start line do not count.
            let blank = data.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            if blank > 0 {
                return Step::Skip(blank);
            }
            if data.is_empty() {
                return Step::More;
            }
            match self.begins(data) {
                Some(true) => self.synced = true,
                Some(false) => return self.resync(data, 0),
                None => return Step::More,
            }
        }
        match self.head.read(data) {
            head::Verdict::More if data.len() > MAX_MESSAGE => self.resync(data, 1),
            head::Verdict::More => Step::More,
            head::Verdict::Whole(length) => {
                self.head = Head::default();
                Step::Message(length)
            }
            // The message was cut off, and a new one begins inside it.
            head::Verdict::Torn(at) => {
                self.head = Head::default();
                self.lose(at)
            }
            head::Verdict::TooLong => self.resync(data, 1),
        }
    }

    /// Whether a message begins here. `None` if more bytes are needed.
    fn begins(&self, data: &[u8]) -> Option<bool> {
        let Some(end) = memchr::memchr(b'\n', &data[..data.len().min(MAX_START_LINE)]) else {
            // Trim whatever `start_line` treats as white space. A partial line must not be rejected if the whole line
            // would be accepted.
            let line = data.trim_ascii_start();
            let word = &line[..line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len())];
            let hopeful = if self.synced {
                word.iter().all(|b| message::is_token(*b) || *b == b'/') && data.len() < MAX_START_LINE
            } else {
                may_begin(data) && data.len() < MAX_START_LINE
            };
            return if hopeful { None } else { Some(false) };
        };
        let line = &data[..end];
        // In sync, any method is accepted. In a search, only a known method is, because the end of a torn start line
        // looks like a whole one.
        Some(if self.synced { message::start_line(line).is_ok() } else { is_start_line(line) })
    }

    /// Skips to the next start line at or after `from`.
    fn resync(&mut self, data: &[u8], from: usize) -> Step {
        if self.synced {
            self.resyncs += 1;
        }
        self.head = Head::default();
        self.synced = false;
        let at = next_start_line(data, from);
        if at == data.len() {
            self.midline = data.last() != Some(&b'\n');
        }
        // Offset 0 is a start line without its end yet.
        if at == 0 { Step::More } else { self.lose(at) }
    }

    fn lose(&mut self, bytes: usize) -> Step {
        self.skipped += bytes as u64;
        Step::Skip(bytes)
    }
}

/// Offset of the next start line, or of a possible one without its end yet, at or after `from`. The end of `data` if
/// there is none.
fn next_start_line(data: &[u8], from: usize) -> usize {
    let mut at = if from == 0 { 0 } else { memchr::memchr(b'\n', &data[from - 1..]).map_or(data.len(), |n| from + n) };
    while let Some(n) = memchr::memchr(b'\n', &data[at..]) {
        let line = &data[at..at + n];
        if is_start_line(line) {
            return at;
        }
        if let Some(inside) = behind_body(line) {
            return at + inside;
        }
        at += n + 1;
    }
    if data.len() - at < MAX_START_LINE && may_begin(&data[at..]) { at } else { data.len() }
}

/// Offset of a start line that follows a body without a final line end, on the same line.
fn behind_body(line: &[u8]) -> Option<usize> {
    // Known methods have at most 9 characters.
    const LONGEST: usize = 9;
    let at = memchr::memmem::find(line, b"SIP/2.0")?;
    let start = if line.get(at + 7) == Some(&b' ') {
        at
    } else {
        // METHOD URI SIP/2.0. The method must directly follow a character other than a space. After a space it would be
        // part of a header value.
        let uri = line.get(..at)?.strip_suffix(b" ")?;
        let word = uri.get(..memchr::memrchr(b' ', uri)?)?;
        let first = word.len().saturating_sub(LONGEST);
        (first..word.len()).find(|n| Method::of(&word[*n..]) != Method::Other)?
    };
    let glued = start > 0 && !matches!(line[start - 1], b' ' | b'\t' | b':');
    (glued && is_start_line(&line[start..])).then_some(start)
}

/// Whether a line in the middle of a stream begins a message: a request line with a known method, or a status line.
fn is_start_line(line: &[u8]) -> bool {
    // This check rejects nearly every other line by its first character. It gives the same verdict on a partial line.
    if !may_begin(line) {
        return false;
    }
    match message::start_line(line) {
        Ok(Start::Request { method, .. }) => method != Method::Other,
        Ok(Start::Response { .. }) => line.starts_with(b"SIP/2.0 "),
        Err(_) => false,
    }
}

/// Whether `bytes` may be the beginning of a SIP message: a known method and a space, or `SIP/2.0`, as far as the bytes
/// go. Cheap enough to pick the SIP streams out of all traffic.
#[must_use]
pub fn may_begin(bytes: &[u8]) -> bool {
    const BEGINNINGS: [&[u8]; 15] = [
        b"SIP/2.0 ",
        b"INVITE ",
        b"ACK ",
        b"BYE ",
        b"CANCEL ",
        b"OPTIONS ",
        b"REGISTER ",
        b"PRACK ",
        b"UPDATE ",
        b"INFO ",
        b"REFER ",
        b"NOTIFY ",
        b"SUBSCRIBE ",
        b"MESSAGE ",
        b"PUBLISH ",
    ];
    !bytes.is_empty() && BEGINNINGS.iter().any(|b| bytes.starts_with(b) || b.starts_with(bytes))
}

/// The messages in one datagram, nearly always one. A network card or kernel that joins datagrams of one sender (UDP
/// GRO) delivers several as one. They are split at the end given by Content-Length, if a start line follows there.
pub fn datagram(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let end = if has_second_start_line(bytes) { end_of_first(bytes) } else { bytes.len() };
        let (first, rest) = bytes.split_at(end);
        bytes = rest;
        Some(first)
    })
}

/// Quick check for a start line after the first line. It runs on every datagram.
fn has_second_start_line(bytes: &[u8]) -> bool {
    // Built once, because building it costs as much as searching a message.
    static VERSION: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"SIP/2.0"));
    let Some(first) = memchr::memchr(b'\n', bytes) else { return false };
    VERSION.find_iter(&bytes[first..]).any(|n| {
        let (before, after) = (bytes.get(first + n - 1), bytes.get(first + n + 7));
        match before {
            Some(b'\n') => after == Some(&b' '),
            Some(b' ') => matches!(after, Some(b'\r' | b'\n')),
            _ => false,
        }
    })
}

fn end_of_first(bytes: &[u8]) -> usize {
    match Head::default().read(bytes) {
        head::Verdict::Whole(end) => {
            let blank = bytes[end..].iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            let line = bytes[end + blank..].split(|b| *b == b'\n').next().unwrap_or_default();
            // Anything else is left to the parser.
            if is_start_line(line) { end } else { bytes.len() }
        }
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests;
