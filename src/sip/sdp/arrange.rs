//! Puts the m-lines of a description into another order and number, for a dialog with other m-lines.

use super::edit::{blocks, push};
use super::{Media, Sdp, SdpError};

/// One m-line of the new description.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// The m-line with this index, with all its lines.
    Line(usize),
    /// These lines as they are.
    Block(&'a [u8]),
    /// An m-line of this kind, protocol and formats that is refused or switched off (RFC 3264 sections 6 and 8.2).
    Off(&'a Media<'a>),
}

/// The description with these m-lines behind its session lines.
///
/// Unless all lines stay where they are, `a=group` goes: it names lines of the old order (RFC 5888 section 9.2 requires
/// that a line without a group is treated as before groups existed).
///
/// # Errors
/// The body is not SDP, or a part names an m-line that is not there.
pub fn arrange(body: &[u8], parts: &[Part<'_>]) -> Result<Vec<u8>, SdpError> {
    let count = Sdp::parse(body)?.media().len();
    let moved = parts.len() != count || parts.iter().enumerate().any(|(n, p)| !matches!(p, Part::Line(i) if *i == n));
    if !moved {
        return Ok(body.to_vec());
    }
    let mut out = Vec::with_capacity(body.len() + 64);
    let blocks = blocks(body);
    let (session, lines) = blocks.split_first().ok_or(SdpError::NotSdp)?;
    session.iter().filter(|line| line.attribute(b"group").is_none()).for_each(|line| push(&mut out, line));
    for part in parts {
        if !matches!(out.last(), None | Some(b'\r' | b'\n')) {
            out.extend_from_slice(b"\r\n");
        }
        match part {
            Part::Line(i) => lines.get(*i).ok_or(SdpError::MediaCount)?.iter().for_each(|line| push(&mut out, line)),
            Part::Block(block) => out.extend_from_slice(block),
            Part::Off(m) => {
                let formats = m.formats.join(&b' ');
                out.extend_from_slice(&[b"m=", m.kind, b" 0 ", m.proto, b" ", &formats, b"\r\n"].concat());
            }
        }
    }
    Ok(out)
}
