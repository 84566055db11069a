//! Decides which addresses the relay may forward from and to. Pure. Arming, recovery, `inspect` and `calls` use it.
//!
//! Any caller can write any address into a description: another host's service, this host, a broadcast address. The
//! relay would send there from the server's address, with the server's rights. So only an address plausible for a
//! phone's audio is a valid destination. (The relay's kernel rules check the packets themselves.)

use crate::calls::model::{Call, Flow, Pairing};
use crate::config::MIN_CONFIDENCE;
use crate::sip::Transport;
use crate::sip::advertised::Advertised;
use std::net::{IpAddr, SocketAddr};

/// SIP ports (RFC 3261 section 19.1.2).
const SIP: [u16; 2] = [5060, 5061];
/// First port above the system services. A NAT maps ports in this range to ports in this range (RFC 4787 section
/// 4.2.2), so no phone's audio uses a lower one. DNS, NTP and SNMP do, and the first byte of their packets looks like
/// STUN or DTLS.
const FIRST: u16 = 1024;

/// Facts about the host and the instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ground {
    /// The virtual addresses.
    pub vips: Vec<IpAddr>,
    /// First and last RTP port of the server at the virtual addresses. The last port's RTCP is one above it.
    pub media_ports: (u16, u16),
    /// SIP ports besides 5060 and 5061: those of the instances on this host, and their recovery ports.
    pub sip_ports: Vec<u16>,
    /// Other addresses of this host.
    pub own: Vec<IpAddr>,
    /// The media server of a proxy restores its calls itself, so their audio is not relayed.
    pub external: bool,
    /// Addresses and names by which the outside knows the virtual addresses.
    pub advertised: Advertised,
    /// Least confidence of a pair whose legs may be connected.
    pub min_confidence: u8,
}

/// A pair that is too uncertain to connect its legs: they may belong to strangers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pairing is only {confidence} % sure, below min_confidence {needed}")]
pub struct Doubtful {
    /// Confidence of the pairing.
    pub confidence: u8,
    /// Confidence that the configuration asks for.
    pub needed: u8,
}

/// Reason why the relay refuses to forward a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// IPv4 and IPv6 are mixed.
    #[error("the audio would have to cross between IPv4 and IPv6")]
    Families,
    /// A loopback, multicast, broadcast, unspecified or reserved address, or port 0.
    #[error("{0} cannot be the audio address of a phone")]
    Nowhere(SocketAddr),
    /// Our side is not a virtual address.
    #[error("the audio does not pass a virtual address of this instance")]
    NotOurs,
    /// The server's port is outside its media ports.
    #[error("the server's port {0} is outside media_ports, or is a SIP port")]
    NotMediaPort(u16),
    /// The address is virtual or another one of this host.
    #[error("{0} is an address of this host")]
    ThisHost(IpAddr),
    /// A SIP port.
    #[error("{0} is an address for SIP, not for audio")]
    Sip(SocketAddr),
    /// A port of system services.
    #[error("{0} has a port below 1024, which no phone uses for audio")]
    Service(SocketAddr),
}

impl Ground {
    /// A ground with only the virtual addresses known, for reading a capture.
    #[must_use]
    pub fn of(vips: &[IpAddr]) -> Self {
        Self { vips: vips.to_vec(), media_ports: (FIRST, u16::MAX), min_confidence: MIN_CONFIDENCE, ..Self::default() }
    }

    /// See [`Advertised::vip_behind`].
    #[must_use]
    pub fn vip_behind(&self, told: IpAddr, server: IpAddr) -> Option<IpAddr> {
        self.advertised.vip_behind(&self.vips, told, server)
    }

    /// Why the legs of this call must not be connected, if their pairing is too uncertain.
    ///
    /// One dialog seen on both sides is no guess. A call of a release that stored no confidence has none to compare.
    #[must_use]
    pub fn doubts(&self, call: &Call) -> Option<Doubtful> {
        let confidence = call.confidence.filter(|_| call.pairing != Some(Pairing::SameDialog))?;
        (confidence < self.min_confidence).then_some(Doubtful { confidence, needed: self.min_confidence })
    }

    /// Checks whether the relay may forward `flow`.
    ///
    /// # Errors
    /// The reason for the refusal.
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
            // A link-local phone needs link-local addresses on our side, and IPv4.
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

    /// Like [`Ground::permits`] for a flow of `call`. It also refuses the SIP address of either party.
    ///
    /// # Errors
    /// The reason for the refusal.
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

/// Whether `ip` can never be a phone's address.
fn is_nowhere(ip: IpAddr) -> bool {
    match ip {
        // 0.0.0.0/8 is "this network" (RFC 791). 240.0.0.0/4 is reserved and ends with the broadcast address.
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_multicast() || ip.octets()[0] == 0 || ip.octets()[0] >= 240,
        // An IPv4-mapped address never appears on the wire.
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
