//! A SIP message on its way.

use crate::sip::Transport;
use std::net::SocketAddr;

/// A SIP message as it was seen or received, with where it came from and went to.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Who sent it.
    pub src: SocketAddr,
    /// Who it was sent to.
    pub dst: SocketAddr,
    /// Over what.
    pub transport: Transport,
    /// The message, one datagram.
    pub payload: &'a [u8],
}
