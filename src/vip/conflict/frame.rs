//! Reads claims from ARP and neighbour discovery packets. Any input yields a claim or `None`.

use pnet_base::MacAddr;
use pnet_packet::Packet as _;
use pnet_packet::arp::{ArpHardwareTypes, ArpPacket};
use pnet_packet::ethernet::EtherTypes;
use pnet_packet::icmpv6::ndp::NeighborAdvertPacket;
use pnet_packet::icmpv6::{Icmpv6Packet, Icmpv6Types, checksum};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv6::Ipv6Packet;
use std::net::IpAddr;

/// A host's claim to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// The host's hardware address.
    pub mac: MacAddr,
}

/// The claim in an ARP packet (without its link header). In a request or a reply the sender is the claimant (RFC 5227
/// section 2.4). A probe has no sender address and claims nothing.
#[must_use]
pub fn arp(bytes: &[u8]) -> Option<Claim> {
    let arp = ArpPacket::new(bytes)?;
    let ethernet = arp.get_hardware_type() == ArpHardwareTypes::Ethernet && arp.get_hw_addr_len() == 6;
    let ipv4 = arp.get_protocol_type() == EtherTypes::Ipv4 && arp.get_proto_addr_len() == 4;
    let sender = arp.get_sender_proto_addr();
    (ethernet && ipv4 && !sender.is_unspecified())
        .then(|| Claim { address: sender.into(), mac: arp.get_sender_hw_addr() })
}

/// The claim in an IPv6 packet from `from`: a neighbour advertisement. A forwarded or damaged advertisement claims
/// nothing (RFC 4861 section 7.1.2).
#[must_use]
pub fn ipv6(bytes: &[u8], from: MacAddr) -> Option<Claim> {
    let ip = Ipv6Packet::new(bytes)?;
    if ip.get_version() != 6 || ip.get_next_header() != IpNextHeaderProtocols::Icmpv6 || ip.get_hop_limit() != 255 {
        return None;
    }
    // A frame may be padded. Bytes beyond the header's length are not part of the packet.
    let body = ip.payload().get(..usize::from(ip.get_payload_length()))?;
    let icmp = Icmpv6Packet::new(body)?;
    if icmp.get_icmpv6_type() != Icmpv6Types::NeighborAdvert || icmp.get_icmpv6_code().0 != 0 {
        return None;
    }
    if checksum(&icmp, &ip.get_source(), &ip.get_destination()) != icmp.get_checksum() {
        return None;
    }
    let advert = NeighborAdvertPacket::new(body)?;
    Some(Claim { address: advert.get_target_addr().into(), mac: from })
}
