//! Where the relay may take packets from and deliver them to. Pure: arming, recovery, `inspect` and `calls` decide by it.
//!
//! Whoever can call can also write an address into a description: that of another host's service, of this host, of everybody.
//! What the relay sent there would come from the server's address, with the server's rights. So only what a phone's audio can
//! be is a destination. (What a packet may be, the relay's own rules decide in the kernel.)

use crate::calls::model::{Call, Flow};
use crate::sip::Transport;
use std::net::{IpAddr, SocketAddr};

/// The ports of SIP (RFC 3261 section 19.1.2).
const SIP: [u16; 2] = [5060, 5061];
/// The first port that is not a service of the system's. A NAT gives a port from here on to what comes from one (RFC 4787
/// section 4.2.2), so no phone's audio is below; but DNS, NTP and SNMP are, whose packets look like STUN or DTLS by their first byte.
const FIRST: u16 = 1024;

/// What has to be known of a host and an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ground {
    /// The virtual addresses.
    pub vips: Vec<IpAddr>,
    /// First and last port of the server's RTP at the virtual addresses; the RTCP of the last is one above it.
    pub media_ports: (u16, u16),
    /// Ports of SIP beside 5060 and 5061: of the instances here, and their recovery ports.
    pub sip_ports: Vec<u16>,
    /// Other addresses of this host.
    pub own: Vec<IpAddr>,
}

/// Why the relay does not forward a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// IPv4 and IPv6.
    #[error("its ends are not all IPv4 or all IPv6")]
    Families,
    /// Loopback, multicast, broadcast, unspecified, reserved, or port 0.
    #[error("{0} is no address of a phone")]
    Nowhere(SocketAddr),
    /// Not a virtual address.
    #[error("it does not pass a virtual address of this instance")]
    NotOurs,
    /// The server's side is elsewhere.
    #[error("the server's port {0} is not among its media_ports")]
    NotMediaPort(u16),
    /// A virtual or another address of this host.
    #[error("{0} is an address of this host")]
    ThisHost(IpAddr),
    /// SIP is spoken there.
    #[error("{0} is a place of SIP, not of audio")]
    Sip(SocketAddr),
    /// A service of the system may be there.
    #[error("{0} is a port of the system's services, not of a phone's audio")]
    Service(SocketAddr),
}

impl Ground {
    /// Where nothing but the addresses is known: in a capture.
    #[must_use]
    pub fn of(vips: &[IpAddr]) -> Self {
        Self { vips: vips.to_vec(), media_ports: (FIRST, u16::MAX), ..Self::default() }
    }

    /// Whether the relay may forward `flow`.
    ///
    /// # Errors
    /// Why not.
    pub fn permits(&self, flow: &Flow) -> Result<(), Refusal> {
        let v4 = flow.at.is_ipv4();
        let ends = [flow.from, flow.at, flow.to, flow.source];
        if ends.iter().any(|end| end.is_ipv4() != v4) {
            return Err(Refusal::Families);
        }
        if let Some(end) = ends.into_iter().find(|end| end.port() == 0 || is_nowhere(end.ip())) {
            return Err(Refusal::Nowhere(end));
        }
        for ours in [flow.at, flow.source] {
            if !self.vips.contains(&ours.ip()) {
                return Err(Refusal::NotOurs);
            }
            let (first, last) = (self.media_ports.0, self.media_ports.1.saturating_add(1));
            if !(first..=last).contains(&ours.port()) || self.speaks_sip(ours.port()) {
                return Err(Refusal::NotMediaPort(ours.port()));
            }
        }
        for phone in [flow.from, flow.to] {
            if self.vips.contains(&phone.ip()) || self.own.contains(&phone.ip()) {
                return Err(Refusal::ThisHost(phone.ip()));
            }
            // Of one link only: from there to there, or not at all.
            if is_link_local(phone.ip()) && !(is_link_local(flow.at.ip()) && is_link_local(flow.source.ip()) && v4) {
                return Err(Refusal::Nowhere(phone));
            }
        }
        if self.speaks_sip(flow.to.port()) {
            return Err(Refusal::Sip(flow.to));
        }
        if flow.to.port() < FIRST {
            return Err(Refusal::Service(flow.to));
        }
        Ok(())
    }

    /// [`Ground::permits`] for a flow of `call`: nor may it go where one of the call's parties speaks SIP.
    ///
    /// # Errors
    /// Why not.
    pub fn permits_of(&self, call: &Call, flow: &Flow) -> Result<(), Refusal> {
        let mut udp = call.legs.iter().filter(|leg| leg.transport == Transport::Udp);
        if udp.any(|leg| leg.remote_addr == flow.to) {
            return Err(Refusal::Sip(flow.to));
        }
        self.permits(flow)
    }

    fn speaks_sip(&self, port: u16) -> bool {
        SIP.contains(&port) || self.sip_ports.contains(&port)
    }
}

/// Whether no packet of a phone comes from there or goes there.
fn is_nowhere(ip: IpAddr) -> bool {
    match ip {
        // 0.0.0.0/8 is this network (RFC 791), 240.0.0.0/4 is reserved and ends with the broadcast address.
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_multicast() || ip.octets()[0] == 0 || ip.octets()[0] >= 240,
        // What stands for an IPv4 address is on no wire.
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() || ip.to_ipv4_mapped().is_some(),
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
