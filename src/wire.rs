//! Traffic on this host: frames from a packet socket or a file, and the SIP messages in them.

pub mod capture;
pub mod frame;
mod packet;
pub mod passage;
pub mod path;
pub mod reassembly;
pub mod stream;

pub use packet::Packet;
