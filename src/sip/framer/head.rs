//! Finds the end of the current message. Each line is read only once, even if the message arrives in tiny pieces.

use super::{MAX_MESSAGE, MAX_START_LINE, is_start_line, may_begin};

/// State of the current message. All offsets count from its first byte.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Start of the next unread line.
    line: usize,
    /// Offset where the search for the end of that line resumes.
    searched: usize,
    length: Option<usize>,
    /// The last line was Content-Length without a value. The value may follow on a folded line (RFC 3261 section
    /// 7.3.1).
    length_open: bool,
    /// A Content-Type was seen, so a body follows even without Content-Length.
    typed: bool,
    /// The body may contain start lines of its own: message/sipfrag (RFC 3420), message/sip, multipart.
    nests: bool,
    /// The body is a session description and so consists of whole lines.
    sdp: bool,
    /// Start of the body, once the empty line was read.
    body: Option<usize>,
    /// End of the part of the body searched for a start line.
    looked: usize,
}

/// Verdict on a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Incomplete.
    More,
    /// Complete, with this length.
    Whole(usize),
    /// Cut off among its headers. Another message begins at this offset.
    Torn(usize),
    /// The claimed length exceeds the limit.
    TooLong,
}

impl Head {
    pub(super) const fn is_new(&self) -> bool {
        self.line == 0 && self.searched == 0
    }

    pub(super) const fn is_open_ended(&self) -> bool {
        self.body.is_some() && self.length.is_none()
    }

    /// Continues with `data`, which begins with the message and holds at least the bytes of the last call.
    pub(super) fn read(&mut self, data: &[u8]) -> Verdict {
        while self.body.is_none() {
            let from = self.searched.max(self.line);
            let Some(n) = memchr::memchr(b'\n', &data[from..]) else {
                // At least 1, which marks the message as begun.
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
                // No header looks like a start line.
                return Verdict::Torn(start);
            } else {
                self.header(text);
            }
        }
        let body = self.body.unwrap_or(data.len());
        match self.length {
            Some(length) => self.counted(data, body, length),
            None if self.typed => self.uncounted(data),
            // RFC 3261 section 20.14 requires Content-Length over TCP. Without it and without a Content-Type there is
            // no body.
            None => Verdict::Whole(body),
        }
    }

    fn counted(&mut self, data: &[u8], body: usize, length: usize) -> Verdict {
        let Some(end) = body.checked_add(length).filter(|end| *end <= MAX_MESSAGE) else { return Verdict::TooLong };
        if data.len() < end {
            // Too large a length would swallow the messages after it.
            return match self.look(data, data.len()) {
                Some(at) if !self.nests => Verdict::Whole(at),
                _ => Verdict::More,
            };
        }
        // The last line of a session description never begins like a start line, unless the length is a little too
        // large.
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
        // A message, a keep-alive, or no bytes yet behind the end: the length is right.
        let follows = &data[end..];
        let line = &follows[..memchr::memchr(b'\n', follows).unwrap_or(follows.len())];
        let fits =
            follows.is_empty() || matches!(follows[0], b'\r' | b'\n') || super::message::start_line(line).is_ok();
        if fits || line.len() == follows.len() || self.nests {
            return Verdict::Whole(end);
        }
        // The length is wrong. If a message begins inside the body, this one ended before it.
        self.looked = body;
        Verdict::Whole(self.look(data, end).unwrap_or(end))
    }

    fn uncounted(&mut self, data: &[u8]) -> Verdict {
        self.look(data, data.len()).map_or(Verdict::More, Verdict::Whole)
    }

    /// Offset of the next start line in the body, with its line end before `to`.
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
        // Only Content-Length, Content-Type and their compact forms l and c matter here.
        if !matches!(text[0] | 0x20, b'c' | b'l') {
            return;
        }
        let Some(colon) = memchr::memchr(b':', text) else { return };
        let (name, value) = (text[..colon].trim_ascii_end(), text[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"Content-Length") || name.eq_ignore_ascii_case(b"l") {
            // The first one counts, as in the parser.
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

/// A decimal number, saturated if too large. `None` for anything else.
fn number(text: &[u8]) -> Option<usize> {
    let text = text.trim_ascii();
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0_usize, |n, d| n.saturating_mul(10).saturating_add(usize::from(d - b'0'))))
}
