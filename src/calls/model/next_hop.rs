//! Where a request to a phone goes (RFC 3261 sections 8.1.2 and 12.2.1.1).

use super::Leg;
use crate::sip::uri;
use std::net::{IpAddr, SocketAddr};

/// Port of a SIP URI without a port.
const SIP_PORT: u16 = 5060;

impl Leg {
    /// The address named by the phone or its proxy for requests to it, unless it is a host name.
    #[must_use]
    pub fn next_hop(&self) -> Option<SocketAddr> {
        let to = self.route_set.first().map_or(&self.remote_target.0[..], |r| uri::uri_of(&r.0));
        let (host, port) = uri::host_port(to)?;
        let ip: IpAddr = std::str::from_utf8(host).ok()?.parse().ok()?;
        Some(SocketAddr::new(ip, port.unwrap_or(SIP_PORT)))
    }

    /// A target refresh of the phone from `source` was accepted, and its target is set. The source counts as the phone's
    /// address, unless the phone or its proxy names the known one: some trunks send from one host and listen on
    /// another. True if the address changed.
    pub fn moves_with_target(&mut self, source: SocketAddr) -> bool {
        if self.remote_addr == source || self.next_hop() == Some(self.remote_addr) {
            return false;
        }
        self.remote_addr = source;
        true
    }
}
