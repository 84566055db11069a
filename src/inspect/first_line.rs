//! Tells SIP by its first line. Pure.

/// A first line longer than this is no SIP start line.
const MAX_START: usize = 4096;

/// Whether the bytes begin with a SIP start line. Ports do not tell: SIP runs on any.
pub(super) fn is_sip(payload: &[u8]) -> bool {
    let text = payload.trim_ascii_start();
    if text.get(..8).is_some_and(|v| v.eq_ignore_ascii_case(b"SIP/2.0 ")) {
        return true;
    }
    // Every real method begins with a capital letter.
    if !text.first().is_some_and(u8::is_ascii_uppercase) {
        return false;
    }
    let line = &text[..memchr::memchr(b'\n', &text[..text.len().min(MAX_START)]).unwrap_or(0)];
    line.trim_ascii_end().len() > 12
        && line
            .trim_ascii_end()
            .get(line.trim_ascii_end().len() - 8..)
            .is_some_and(|v| v.eq_ignore_ascii_case(b" SIP/2.0"))
}

#[cfg(test)]
mod tests;
