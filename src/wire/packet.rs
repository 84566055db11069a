//! A SIP message in transit.

use crate::sip::Transport;
use std::net::SocketAddr;

/// A captured or received SIP message with its source and destination.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Source address and port.
    pub src: SocketAddr,
    /// Destination address and port.
    pub dst: SocketAddr,
    /// Transport that carried the message.
    pub transport: Transport,
    /// One whole SIP message.
    pub payload: &'a [u8],
}
