//! Traffic as a capture file: classic pcap with microseconds, Ethernet, IPv4 and UDP.

use super::traffic::Traffic;
use anyhow::{Context as _, Result, bail};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Ethernet, IPv4 and UDP header.
pub(super) const HEADERS: usize = 14 + 20 + 8;
/// What tcpdump writes for "no frame was truncated".
const SNAPLEN: u32 = 262_144;

/// Writes all messages. `begin` is the time of the first, since 1970.
pub(super) fn write(traffic: &Traffic, begin: Duration, mut to: impl Write) -> Result<()> {
    let mut head = Vec::with_capacity(24);
    head.extend(0xa1b2_c3d4_u32.to_le_bytes());
    head.extend([2, 0, 4, 0]);
    head.extend([0; 8]);
    head.extend(SNAPLEN.to_le_bytes());
    head.extend(1_u32.to_le_bytes());
    to.write_all(&head)?;
    for (sent, payload) in traffic.messages() {
        let at = begin + sent.at;
        let frame = frame(sent.src, sent.dst, payload)?;
        let len = u32::try_from(frame.len())?.to_le_bytes();
        to.write_all(&u32::try_from(at.as_secs())?.to_le_bytes())?;
        to.write_all(&at.subsec_micros().to_le_bytes())?;
        to.write_all(&len)?;
        to.write_all(&len)?;
        to.write_all(&frame)?;
    }
    to.flush().context("cannot write the capture file")
}

/// A frame with this datagram, between made-up hardware addresses.
pub(super) fn frame(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Result<Vec<u8>> {
    let mut frame = Vec::with_capacity(HEADERS + payload.len());
    frame.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    packet(src, dst, payload, &mut frame)?;
    Ok(frame)
}

/// Appends the IPv4 packet with this datagram, without UDP checksum, which RFC 768 allows.
pub(super) fn packet(src: SocketAddr, dst: SocketAddr, payload: &[u8], to: &mut Vec<u8>) -> Result<()> {
    let (IpAddr::V4(from), IpAddr::V4(at)) = (src.ip(), dst.ip()) else { bail!("only IPv4 here, not {src} to {dst}") };
    let udp = u16::try_from(8 + payload.len())?;
    let start = to.len();
    to.extend([0x45, 0]);
    to.extend((20 + udp).to_be_bytes());
    to.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    to.extend(from.octets());
    to.extend(at.octets());
    let sum: u32 = to[start..].chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    // Twenty bytes of header carry at most once more.
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16))?;
    to[start + 10..start + 12].copy_from_slice(&sum.to_be_bytes());
    to.extend(src.port().to_be_bytes());
    to.extend(dst.port().to_be_bytes());
    to.extend(udp.to_be_bytes());
    to.extend([0, 0]);
    to.extend_from_slice(payload);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::traffic::{Places, Plan};
    use super::*;
    use keepcall::wire::frame::{Link, udp_of};
    use pnet_packet::ipv4::{Ipv4Packet, checksum};

    #[test]
    fn every_message_is_read_back() {
        let plan = Plan { calls: 3, up: 1, hold: Duration::from_secs(1), places: Places::wide() };
        let traffic = Traffic::new(&plan);
        let mut file = Vec::new();
        write(&traffic, Duration::from_secs(1000), &mut file).unwrap();
        let mut reader = pcap_file::pcap::PcapReader::new(file.as_slice()).unwrap();
        for (sent, payload) in traffic.messages() {
            let packet = reader.next_packet().unwrap().unwrap();
            assert_eq!(
                packet.timestamp,
                Duration::from_secs(1000) + Duration::from_micros(u64::try_from(sent.at.as_micros()).unwrap())
            );
            assert_eq!(udp_of(Link::Ethernet, &packet.data), Some((sent.src, sent.dst, payload)));
            let ip = Ipv4Packet::new(&packet.data[14..]).unwrap();
            assert_eq!(ip.get_checksum(), checksum(&ip));
        }
        assert!(reader.next_packet().is_none());
    }
}
