//! Invariants that hold for any input. The fuzzer calls these functions, and so does an ordinary test, with the saved
//! inputs and mutations of them. A broken invariant panics in both.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "a panic is how a finding is told"
)]

mod framer;
mod hep;
mod message;
mod packet;
mod path;
mod sdp;
mod uri;

pub use framer::{framer, messages};
pub use hep::hep;
pub use message::message;
pub use packet::{SEPARATOR, packet};
pub use path::{path, walked};
pub use sdp::sdp;
pub use uri::uri;

/// Whether `part` lies inside `whole`, byte for byte in the same memory: a view, not a copy. An empty part may stand
/// for "nothing".
pub fn inside(whole: &[u8], part: &[u8]) -> bool {
    let (whole, part) = (whole.as_ptr_range(), part.as_ptr_range());
    part.is_empty() || (whole.start <= part.start && part.end <= whole.end)
}

/// A number that depends on all of `data` (FNV-1a). Where an invariant needs choices, the input makes them.
pub fn choices(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

/// Bytes in readable form.
pub fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
