//! SIP and SDP as bytes with typed views: what tracker and recovery both speak.

pub mod body;
pub mod build;
pub mod framer;
pub mod message;
pub mod sdp;
pub mod uri;
