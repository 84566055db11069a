//! HEP over TCP: splits the stream into packets by version 3's length field.

use super::{HEADER, MAGIC, u16_at};

/// Why a stream is unreadable. Resynchronising is unsafe, because the four letters may occur inside a message. The
/// connection must be closed, and the sender opens a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The stream does not begin with `HEP3`. Versions 1 and 2 have no length, so no stream can carry them.
    #[error("the sender does not speak HEP version 3, the only version over TCP")]
    NotHep3,
    /// The length is smaller than its own header.
    #[error("a packet gives a length of {0} bytes, less than the header")]
    Length(usize),
}

/// Reassembles packets. It holds at most one incomplete packet: 64 KiB and what was read with it.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    read: usize,
}

impl Framer {
    /// Adds bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.read == self.buffer.len() {
            self.buffer.clear();
        } else {
            self.buffer.drain(..self.read);
        }
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete packet, or `None` until more is pushed. Call it until `None` after each [`Framer::push`], or
    /// the buffer grows.
    ///
    /// # Errors As in [`FrameError`]. Each further call returns the same error.
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

    /// Whether an incomplete packet is buffered.
    #[must_use]
    pub fn is_amid(&self) -> bool {
        self.read < self.buffer.len()
    }
}
