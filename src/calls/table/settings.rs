//! Settings of the table of calls.

use crate::sip::advertised::Advertised;
use std::net::IpAddr;

/// Settings of a [`Table`](super::Table) for its instance.
#[derive(Clone, Debug)]
pub struct TableSettings {
    /// Name of the instance.
    pub instance: String,
    /// Name of this node.
    pub node: String,
    /// Floating addresses of the server.
    pub vips: Vec<IpAddr>,
    /// SIP ports of the server.
    pub sip_ports: Vec<u16>,
    /// Addresses and names by which the outside knows the floating addresses.
    pub advertised: Advertised,
    /// A header with the same value in the first INVITE of both legs of a call, if the server writes one.
    pub pair_header: Option<String>,
    /// Called users that are emergency numbers, besides `urn:service:sos`.
    pub emergency: Vec<String>,
    /// Most calls followed at a time. Beyond it new calls are counted, but not learnt.
    pub max_calls: usize,
}
