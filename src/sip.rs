//! SIP and SDP as bytes with typed views, for the tracker and for recovery.

pub mod advertised;
pub mod body;
pub mod build;
pub mod framer;
pub mod message;
pub mod sdp;
mod transport;
pub mod uri;

pub use transport::Transport;
