//! HEP versions 1 and 2: C structures in the sender's memory layout.
//!
//! Eight bytes (version, length, family, protocol, and both ports in network byte order), then both addresses, in
//! version 2 then a time, then the message to the end of the datagram. There is no length of the message and no key.
//! Neither version works over a stream, and neither authenticates the sender.
//!
//! Differences between servers:
//! - Kamailio (siptrace_hep.c, `trace_send_hep2_duplicate`): the length covers the eight bytes and the addresses,
//!   without the time. The numbers of the time are little-endian on every machine.
//! - OpenSIPS (proto_hep/hep.c, `create_hep12_message`): the same. `build_hep12_buf` also reserves room for the
//!   addresses twice, so 8 or 32 zeros follow the message.
//! - FreeSWITCH (sofia-sip tport_logging.c, `tport_capt_msg_hepv2`): the length covers the time as well. Only four
//!   bytes of an IPv6 address are copied, from the wrong place. Such a packet is useless, and its addresses cause it to
//!   be ignored.

use super::{Body, Hep, HepError, Kind, u16_at};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Version, length, family, protocol, two ports.
const FIXED: usize = 8;
/// Seconds, microseconds, a 16-bit number, and two padding bytes up to a multiple of four.
const TIME: usize = 12;
/// The same without the padding, from a packed structure. Only a length that includes the time shows it.
const TIME_PACKED: usize = 10;
/// `AF_INET` of every system.
const INET: u8 = 2;
/// `AF_INET6` of Linux.
const INET6: u8 = 10;

pub(super) fn decode(bytes: &[u8]) -> Result<Hep<'_>, HepError> {
    let (version, length, family, protocol) = match bytes {
        [version @ (1 | 2), length, family @ (INET | INET6), protocol, ..] => {
            (*version, usize::from(*length), *family, *protocol)
        }
        _ => return Err(HepError::NotHep),
    };
    let addresses = if family == INET { 8 } else { 32 };
    let start = FIXED + addresses;
    let time = match (version, length.checked_sub(start)) {
        (1, Some(0)) => 0,
        (2, Some(0)) => TIME,
        (2, Some(counted @ (TIME_PACKED | TIME))) => counted,
        _ => return Err(HepError::Malformed("length")),
    };
    let (Some(src_port), Some(dst_port)) = (u16_at(bytes, 4), u16_at(bytes, 6)) else {
        return Err(HepError::Truncated);
    };
    let place = bytes.get(FIXED..start).ok_or(HepError::Truncated)?;
    let (src, dst) = place.split_at(addresses / 2);
    let when = bytes.get(start..start + time).ok_or(HepError::Truncated)?;
    let number = |at: usize| Some(u32::from_le_bytes(when.get(at..at + 4)?.try_into().ok()?));
    let payload = &bytes[start + time..];
    let end = payload.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    let (Some(src), Some(dst)) = (address(src), address(dst)) else { return Err(HepError::Truncated) };
    Ok(Hep {
        version,
        src: SocketAddr::new(src, src_port),
        dst: SocketAddr::new(dst, dst_port),
        protocol,
        at: number(0).map(|s| u64::from(s) * 1_000_000 + u64::from(number(4).unwrap_or(0))),
        // There is no field for another type.
        kind: Kind::Sip,
        auth_key: None,
        agent_id: when.get(8..10).and_then(|n| Some(u32::from(u16::from_le_bytes(n.try_into().ok()?)))),
        agent_name: None,
        correlation_id: None,
        body: Body::Whole(&payload[..end]),
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|b| Ipv4Addr::from(b).into());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|b| Ipv6Addr::from(b).into())).ok()
}
