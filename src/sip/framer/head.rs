//! Where the message ends that begins here: read line by line, each only once however small the pieces are in which it comes.

use super::{MAX_MESSAGE, MAX_START_LINE, is_start_line, may_begin};

/// What was learnt of a message so far. All offsets count from its first byte.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Where the next line begins that was not read yet.
    line: usize,
    /// Where the search for the end of that line goes on.
    searched: usize,
    length: Option<usize>,
    /// The line before is Content-Length without a value yet, which may follow on a folded line (RFC 3261 section 7.3.1).
    length_open: bool,
    /// Whether there is a Content-Type, so that a body follows even if Content-Length is missing.
    typed: bool,
    /// Whether the body may hold start lines that are its own: message/sipfrag (RFC 3420), message/sip, multipart.
    nests: bool,
    /// Whether the body is a session description, which is made of whole lines.
    sdp: bool,
    /// Where the body begins, once the empty line was read.
    body: Option<usize>,
    /// How far the body was searched for a start line.
    looked: usize,
}

/// What is known of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is not whole yet.
    More,
    /// It is so long.
    Whole(usize),
    /// It stops among its headers: another one begins at this offset.
    Torn(usize),
    /// It claims to be longer than any message may be.
    TooLong,
}

impl Head {
    pub(super) const fn is_new(&self) -> bool {
        self.line == 0 && self.searched == 0
    }

    pub(super) const fn is_open_ended(&self) -> bool {
        self.body.is_some() && self.length.is_none()
    }

    /// Goes on with `data`, which begins with the message and holds at least what it held the last time.
    pub(super) fn read(&mut self, data: &[u8]) -> Verdict {
        while self.body.is_none() {
            let from = self.searched.max(self.line);
            let Some(n) = memchr::memchr(b'\n', &data[from..]) else {
                // At least 1, so that it is known that the message was begun.
                self.searched = data.len();
                return Verdict::More;
            };
            let (start, end) = (self.line, from + n);
            let mut text = &data[start..end];
            while let Some(shorter) = text.strip_suffix(b"\r") {
                text = shorter;
            }
            self.line = end + 1;
            self.searched = self.line;
            if start == 0 {
                continue;
            }
            if text.is_empty() {
                self.body = Some(self.line);
                self.looked = self.line;
            } else if is_start_line(text) {
                // No header looks like this.
                return Verdict::Torn(start);
            } else {
                self.header(text);
            }
        }
        let body = self.body.unwrap_or(data.len());
        match self.length {
            Some(length) => self.counted(data, body, length),
            None if self.typed => self.uncounted(data),
            // RFC 3261 section 20.14 wants the header over TCP; without it and without a type there is nothing to come.
            None => Verdict::Whole(body),
        }
    }

    fn counted(&mut self, data: &[u8], body: usize, length: usize) -> Verdict {
        let Some(end) = body.checked_add(length).filter(|end| *end <= MAX_MESSAGE) else { return Verdict::TooLong };
        if data.len() < end {
            // A length that is too large would swallow the messages after it.
            return match self.look(data, data.len()) {
                Some(at) if !self.nests => Verdict::Whole(at),
                _ => Verdict::More,
            };
        }
        // The last line of a session description is not the beginning of a start line, unless the length is a little too large.
        if self.sdp {
            let last = memchr::memrchr(b'\n', &data[body..end]).map_or(body, |n| body + n + 1);
            if last < end && may_begin(&data[last..end]) {
                match memchr::memchr(b'\n', &data[last..]) {
                    Some(n) if is_start_line(&data[last..last + n]) => return Verdict::Whole(last),
                    Some(_) => {}
                    None if data.len() - last < MAX_START_LINE => return Verdict::More,
                    None => {}
                }
            }
        }
        // What follows is a message, or a keep-alive, or not there yet: then the length is right.
        let follows = &data[end..];
        let line = &follows[..memchr::memchr(b'\n', follows).unwrap_or(follows.len())];
        let fits =
            follows.is_empty() || matches!(follows[0], b'\r' | b'\n') || super::message::start_line(line).is_ok();
        if fits || line.len() == follows.len() || self.nests {
            return Verdict::Whole(end);
        }
        // Else it is wrong: if a message begins inside the body, this one ended before it.
        self.looked = body;
        Verdict::Whole(self.look(data, end).unwrap_or(end))
    }

    fn uncounted(&mut self, data: &[u8]) -> Verdict {
        self.look(data, data.len()).map_or(Verdict::More, Verdict::Whole)
    }

    /// The next start line in the body that ends before `to`.
    fn look(&mut self, data: &[u8], to: usize) -> Option<usize> {
        while let Some(n) = memchr::memchr(b'\n', &data[self.looked..to]) {
            let at = self.looked;
            if is_start_line(&data[at..at + n]) {
                return Some(at);
            }
            self.looked = at + n + 1;
        }
        None
    }

    fn header(&mut self, text: &[u8]) {
        if matches!(text[0], b' ' | b'\t') {
            if self.length_open {
                self.length_open = false;
                self.length = number(text);
            }
            return;
        }
        self.length_open = false;
        // Content-Length, Content-Type and their compact forms l and c; all else is none of this reader's business.
        if !matches!(text[0] | 0x20, b'c' | b'l') {
            return;
        }
        let Some(colon) = memchr::memchr(b':', text) else { return };
        let (name, value) = (text[..colon].trim_ascii_end(), text[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"Content-Length") || name.eq_ignore_ascii_case(b"l") {
            // The first one counts, as for the parser.
            if self.length.is_none() {
                self.length_open = value.is_empty();
                self.length = number(value);
            }
        } else if name.eq_ignore_ascii_case(b"Content-Type") || name.eq_ignore_ascii_case(b"c") {
            self.typed = true;
            let kind = value.to_ascii_lowercase();
            self.sdp = kind.starts_with(b"application/sdp");
            self.nests = kind.starts_with(b"message/") || kind.starts_with(b"multipart/");
        }
    }
}

/// A decimal number; too large a one is as large as can be. `None` if it is none.
fn number(text: &[u8]) -> Option<usize> {
    let text = text.trim_ascii();
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0_usize, |n, d| n.saturating_mul(10).saturating_add(usize::from(d - b'0'))))
}
