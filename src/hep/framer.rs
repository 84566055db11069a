//! HEP over TCP: cuts the stream into packets by the length that version 3 begins with.

use super::{HEADER, MAGIC, u16_at};

/// Why a stream cannot be read on. There is no second place at which to begin again for sure: the four letters may well stand in a
/// message. So the connection is to be closed; the sender opens a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It does not begin with `HEP3`. Versions 1 and 2 have no length, so no stream can carry them.
    #[error("it is not HEP version 3, which alone can be sent over TCP")]
    NotHep3,
    /// The length is smaller than what it counts.
    #[error("a packet says it has {0} bytes, which is less than its header")]
    Length(usize),
}

/// Puts bytes together to packets. It holds one packet that is not whole at most: 64 KiB and what was read with it.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    read: usize,
}

impl Framer {
    /// Takes in what the stream brought.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.read == self.buffer.len() {
            self.buffer.clear();
        } else {
            self.buffer.drain(..self.read);
        }
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole packet; `None` until more is pushed. Call it until then after each [`Framer::push`]: else the buffer grows.
    ///
    /// # Errors
    /// As in [`FrameError`]; each further call says the same.
    pub fn next_packet(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let rest = &self.buffer[self.read..];
        let known = rest.len().min(MAGIC.len());
        if rest[..known] != MAGIC[..known] {
            return Err(FrameError::NotHep3);
        }
        let Some(length) = u16_at(rest, MAGIC.len()).map(usize::from) else { return Ok(None) };
        if length < HEADER {
            return Err(FrameError::Length(length));
        }
        let start = self.read;
        if rest.len() < length {
            return Ok(None);
        }
        self.read += length;
        Ok(Some(&self.buffer[start..start + length]))
    }

    /// Whether a packet has begun and is not whole.
    #[must_use]
    pub fn is_amid(&self) -> bool {
        self.read < self.buffer.len()
    }
}
