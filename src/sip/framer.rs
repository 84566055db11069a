//! SIP messages out of a stream of bytes (TCP), as somebody sees them who only overhears: Content-Length decides where a message ends
//! (RFC 3261 section 18.3), and whatever contradicts it, or was lost, costs the message that it is in and not the ones after it. Pure.

use super::message::{self, MAX_BYTES, Method, Start};
use head::Head;
use memchr::memmem::Finder;
use std::sync::LazyLock;

mod head;

/// Longest message, and so the most that a framer keeps while it waits for the rest of one: what [`message::Message`] takes. What claims
/// to be longer is passed over up to the next start line.
pub const MAX_MESSAGE: usize = MAX_BYTES;
/// Longest start line. Real ones have under 300 bytes; without an end of line for so long, it is no SIP.
const MAX_START_LINE: usize = 8192;

/// Cuts one direction of a connection into SIP messages.
///
/// Either [`Framer::feed`], which hands out messages without copying those that arrive whole, or [`Framer::push`] and then
/// [`Framer::next`] until it gives nothing more.
#[derive(Debug)]
pub struct Framer {
    /// What has been pushed and not been given out.
    buffer: Vec<u8>,
    /// Where the unread part of `buffer` begins.
    at: usize,
    /// What is known of the message that begins at `at`.
    head: Head,
    /// Whether the next byte begins a message, as far as is known; else the next start line is looked for.
    synced: bool,
    /// The rest of the line that comes next is no start line, as its beginning was none.
    midline: bool,
    skipped: u64,
    resyncs: u64,
}

impl Default for Framer {
    fn default() -> Self {
        Self { buffer: Vec::new(), at: 0, head: Head::default(), synced: true, midline: false, skipped: 0, resyncs: 0 }
    }
}

/// What the next bytes are.
enum Step {
    /// More bytes are needed to tell.
    More,
    /// No part of a message: so many bytes to pass over.
    Skip(usize),
    /// A message of so many bytes.
    Message(usize),
}

impl Framer {
    /// A framer for a stream whose first byte begins a message.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A framer for a stream that is joined somewhere in the middle: begins with the first start line.
    #[must_use]
    pub fn joined() -> Self {
        Self { synced: false, ..Self::default() }
    }

    /// Takes the next bytes of the stream and hands each message that they complete to `out`.
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

    /// Takes the next bytes of the stream. Call [`Framer::next`] until it gives nothing before the next bytes are pushed: whoever does not
    /// loses the oldest once two messages of the largest size wait.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        if self.buffer.len() + bytes.len() > 2 * MAX_MESSAGE && self.buffer.len() > MAX_MESSAGE {
            self.gap();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message.
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
            // Given back: thousands of phones keep a connection open and say nothing.
            self.at = 0;
            self.buffer = Vec::new();
        }
        self.buffer.get(found?)
    }

    /// Bytes of the stream were lost here: what was begun cannot be ended, and the next message begins at the next start line.
    pub fn gap(&mut self) {
        self.skipped += self.buffered() as u64;
        self.buffer = Vec::new();
        self.at = 0;
        self.head = Head::default();
        self.synced = false;
        // Most segments begin with a message, so the place after the lost bytes may be one.
        self.midline = false;
    }

    /// The stream ends here, or nothing more came for a while: a message without Content-Length, which only that can end, is handed to
    /// `out`. After it another message may begin.
    pub fn finish(&mut self, out: &mut dyn FnMut(&[u8])) {
        if self.is_open_ended() {
            out(&self.buffer[self.at..]);
            self.buffer = Vec::new();
            self.at = 0;
            self.head = Head::default();
        }
    }

    /// Whether there is a message whose end only the next message, or silence, can tell: it has a body, but no Content-Length.
    #[must_use]
    pub fn is_open_ended(&self) -> bool {
        self.buffered() > 0 && self.head.is_open_ended()
    }

    /// Bytes that wait for the rest of their message.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.at
    }

    /// Bytes passed over because they belong to no message that could be made out. Keep-alives (RFC 5626 section 3.5.1) do not count.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// How often a start line had to be looked for, because what came was none.
    #[must_use]
    pub const fn resyncs(&self) -> u64 {
        self.resyncs
    }

    /// `data` begins where the last step ended, and is at least what the last step saw.
    fn step(&mut self, data: &[u8]) -> Step {
        // Where nothing is known, the beginning of a segment is as good a place as that of a line.
        if self.midline && !data.is_empty() && !may_begin(data) {
            let end = memchr::memchr(b'\n', data);
            self.midline = end.is_none();
            return self.lose(end.map_or(data.len(), |n| n + 1));
        }
        self.midline = false;
        if self.head.is_new() {
            // RFC 5626 section 3.5.1: CRLFCRLF is a ping and CRLF a pong; RFC 3261 section 7.5: empty lines before a start line do not count.
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
            // A new message begins inside this one, which was cut off.
            head::Verdict::Torn(at) => {
                self.head = Head::default();
                self.lose(at)
            }
            head::Verdict::TooLong => self.resync(data, 1),
        }
    }

    /// Whether a message begins here; `None` if that cannot be told yet.
    fn begins(&self, data: &[u8]) -> Option<bool> {
        let Some(end) = memchr::memchr(b'\n', &data[..data.len().min(MAX_START_LINE)]) else {
            // All that `start_line` takes for white space: what it would read in the whole line must not be given up in a part of it.
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
        // Where a message should begin, any method will do; where one is looked for, only those that exist: the end of a torn start
        // line looks like a whole one.
        Some(if self.synced { message::start_line(line).is_ok() } else { is_start_line(line) })
    }

    /// Passes over what is no message, up to the next start line at or after `from`.
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
        // What was found first is a start line that has no end yet.
        if at == 0 { Step::More } else { self.lose(at) }
    }

    fn lose(&mut self, bytes: usize) -> Step {
        self.skipped += bytes as u64;
        Step::Skip(bytes)
    }
}

/// Where the next start line begins, at or after `from`, or what may become one, as it has no end yet; the end of `data` if there is
/// none.
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

/// Where a start line begins in the last line of a body that has no end of line of its own.
fn behind_body(line: &[u8]) -> Option<usize> {
    // A method that exists is at most 9 characters long.
    const LONGEST: usize = 9;
    let at = memchr::memmem::find(line, b"SIP/2.0")?;
    let start = if line.get(at + 7) == Some(&b' ') {
        at
    } else {
        // METHOD URI SIP/2.0: the method is behind something that is no space, as it would be in the value of a header.
        let uri = line.get(..at)?.strip_suffix(b" ")?;
        let word = uri.get(..memchr::memrchr(b' ', uri)?)?;
        let first = word.len().saturating_sub(LONGEST);
        (first..word.len()).find(|n| Method::of(&word[*n..]) != Method::Other)?
    };
    let glued = start > 0 && !matches!(line[start - 1], b' ' | b'\t' | b':');
    (glued && is_start_line(&line[start..])).then_some(start)
}

/// Whether a line in the middle of a stream begins a message: a request line with a method that exists, or a status line.
fn is_start_line(line: &[u8]) -> bool {
    // It rules nearly all other lines out by their first character, and says the same of a line that is not whole yet.
    if !may_begin(line) {
        return false;
    }
    match message::start_line(line) {
        Ok(Start::Request { method, .. }) => method != Method::Other,
        Ok(Start::Response { .. }) => line.starts_with(b"SIP/2.0 "),
        Err(_) => false,
    }
}

/// Whether bytes from somewhere may be the beginning of a SIP message: as far as they go, they are a method that exists and a space, or
/// `SIP/2.0`. Cheap: for picking the streams of SIP out of all that there are.
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

/// The messages in one datagram: nearly always one. A network card or kernel that joins datagrams of one sender (UDP GRO) hands over
/// several as one; they are cut where Content-Length says that one ends, if a start line follows there.
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

/// Whether a line after the first looks like a start line: a quick look, since it is asked for every datagram.
fn has_second_start_line(bytes: &[u8]) -> bool {
    // Made once: to make it costs as much as to look through a message.
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
            // Whatever else follows is for the parser to judge.
            if is_start_line(line) { end } else { bytes.len() }
        }
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests;
