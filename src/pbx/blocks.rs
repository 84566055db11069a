//! Blocks of `Name: value` lines that end with an empty line, the format of both protocols. Pure.

use super::Refusal;

/// Longest block, in bytes. Events of FreeSWITCH carry every variable of a channel, some 20 KB. Those of Asterisk have
/// a few KB.
const MAX_BLOCK: usize = 1 << 20;

/// Received bytes that are not parsed yet.
#[derive(Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// End of the parsed part.
    read: usize,
    /// End of the part without an end of block.
    searched: usize,
}

impl Inbox {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.read > 0 {
            self.bytes.drain(..self.read);
            self.searched -= self.read;
            self.read = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// One line, without its line break.
    pub(super) fn line(&mut self) -> Result<Option<String>, Refusal> {
        let rest = &self.bytes[self.read..];
        let Some(end) = memchr::memchr(b'\n', rest) else {
            return if rest.len() > MAX_BLOCK { Err(Refusal::TooLong) } else { Ok(None) };
        };
        let line = text(&rest[..end]);
        self.skip(end + 1);
        Ok(Some(line))
    }

    /// One complete block. Skips empty lines before it.
    pub(super) fn block(&mut self) -> Result<Option<Block>, Refusal> {
        while matches!(self.bytes.get(self.read), Some(b'\r' | b'\n')) {
            self.skip(1);
        }
        let rest = &self.bytes[self.read..];
        // The end of the block may start in the last bytes of the part already searched.
        let from = (self.searched.max(self.read) - self.read).saturating_sub(3);
        let end = memchr::memchr_iter(b'\n', &rest[from..]).map(|n| from + n).find_map(|n| match &rest[n + 1..] {
            [b'\n', ..] => Some((n, n + 2)),
            [b'\r', b'\n', ..] => Some((n, n + 3)),
            _ => None,
        });
        let Some((end, next)) = end else {
            self.searched = self.bytes.len();
            return if rest.len() > MAX_BLOCK { Err(Refusal::TooLong) } else { Ok(None) };
        };
        let block = Block::parse(&rest[..end]);
        self.skip(next);
        Ok(Some(block))
    }

    /// `n` bytes, once they have arrived.
    pub(super) fn exactly(&mut self, n: usize) -> Result<Option<Vec<u8>>, Refusal> {
        if n > MAX_BLOCK * 64 {
            return Err(Refusal::TooLong);
        }
        let Some(bytes) = self.bytes.get(self.read..self.read + n).map(<[u8]>::to_vec) else { return Ok(None) };
        self.skip(n);
        Ok(Some(bytes))
    }

    fn skip(&mut self, n: usize) {
        self.read += n;
        self.searched = self.searched.max(self.read);
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned()
}

/// The lines of a block.
#[derive(Debug, Default)]
pub(super) struct Block(Vec<(String, String)>);

impl Block {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let line = |l: &[u8]| {
            let at = memchr::memchr(b':', l)?;
            let value = &l[at + 1..];
            Some((text(&l[..at]), text(value.strip_prefix(b" ").unwrap_or(value))))
        };
        Self(bytes.split(|b| *b == b'\n').filter_map(line).collect())
    }

    /// The first value of this name, compared without regard to case. An empty value counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// Like [`Block::get`], but decodes the percent encoding of FreeSWITCH's plain events.
    pub(super) fn decoded(&self, name: &str) -> Option<String> {
        self.get(name).map(decode)
    }
}

/// Decodes `%41` to `A`. An invalid code stays as it is.
fn decode(value: &str) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let code = (*first == b'%').then(|| more.get(..2)).flatten();
        let code = code.filter(|c| c.iter().all(u8::is_ascii_hexdigit));
        match code.and_then(|c| u8::from_str_radix(std::str::from_utf8(c).ok()?, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &more[2..];
            }
            None => {
                out.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests;
