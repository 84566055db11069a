//! Kernel filters for every frame, in classic BPF. They start at the IP header (a DGRAM packet socket).

use crate::os::bpf::{Label, Program};
use socket2::SockFilter;
use std::net::IpAddr;

/// Most ports, and most addresses, in one filter. The kernel accepts programs of 4096 instructions.
pub(super) const MAX_PORTS: usize = 64;

/// Offset of the frame's protocol: SKF_AD_OFF + SKF_AD_PROTOCOL.
const PROTOCOL: u32 = 0xffff_f000;
/// Offset of the frame's direction: SKF_AD_OFF + SKF_AD_PKTTYPE.
const PACKET_TYPE: u32 = 0xffff_f004;
/// Offset of a random number, new for each packet: SKF_AD_OFF + SKF_AD_RANDOM.
const RANDOM: u32 = 0xffff_f038;
const OUTGOING: u32 = 4;
/// First packet type that is not for this host: PACKET_OTHERHOST.
const NOT_FOR_HERE: u32 = 3;
const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;
/// 802.1Q, 802.1ad, and the number used by older QinQ gear.
const VLAN: [u32; 3] = [0x8100, 0x88a8, 0x9100];
const UDP: u32 = 17;
const TCP: u32 = 6;
const FRAGMENT: u32 = 44;
/// Hop-by-hop options, routing, authentication, destination options.
const EXTENSIONS: [u32; 4] = [0, 43, 51, 60];

/// Accepts whole UDP and TCP packets from or to one of `ports` and one of `hosts` (an empty list accepts any), and
/// fragments that may belong to such packets. `None` without ports, or with too many ports or hosts.
///
/// A first fragment has ports and is judged by them. A later one has none and is judged by its hosts. An IPv6 packet
/// with extension headers besides a fragment header is judged by its hosts too, because its ports can be anywhere.
/// Ports come before hosts: nearly all traffic is RTP, and it goes to the same hosts.
pub(super) fn ports_filter(ports: &[u16], hosts: &[IpAddr]) -> Option<Vec<SockFilter>> {
    if ports.is_empty() || ports.len() > MAX_PORTS || hosts.len() > MAX_PORTS {
        return None;
    }
    let mut p = Program::default();
    let [v4, v6, v4_hosts, v6_hosts] = place(&mut p);

    // In each block, the scratch register and X hold the start of the IP header, unless stated otherwise.
    p.here(v4);
    p.byte_at_x(9);
    udp_or_tcp(&mut p);
    p.half_at_x(6);
    p.if_any_bit(0x1fff, v4_hosts);
    // X now holds the offset of the ports.
    p.header_length_v4();
    one_port(&mut p, 0, ports, v4_hosts);

    p.here(v6);
    let (plain, fragment) = (p.label(), p.label());
    p.byte_at_x(6);
    for extension in EXTENSIONS {
        p.if_equal(extension, v6_hosts);
    }
    p.if_equal(FRAGMENT, fragment);
    udp_or_tcp(&mut p);
    p.here(plain);
    one_port(&mut p, 40, ports, v6_hosts);
    p.here(fragment);
    p.half_at_x(42);
    p.if_any_bit(0xfff8, v6_hosts);
    p.byte_at_x(40);
    for extension in EXTENSIONS {
        p.if_equal(extension, v6_hosts);
    }
    udp_or_tcp(&mut p);
    one_port(&mut p, 48, ports, v6_hosts);

    p.here(v4_hosts);
    p.x_is_base();
    one_host(&mut p, hosts, true, [12, 16]);
    p.here(v6_hosts);
    p.x_is_base();
    one_host(&mut p, hosts, false, [8, 24]);
    p.assemble()
}

/// Accepts a random one in `one_in` whole UDP packets that come in to one of `addresses` and a port of `ports` (first
/// and last). The draw comes first, so most packets cost two instructions.
pub(super) fn sample_filter(addresses: &[IpAddr], ports: (u16, u16), one_in: u32) -> Option<Vec<SockFilter>> {
    if addresses.is_empty() || addresses.len() > MAX_PORTS {
        return None;
    }
    let mut p = Program::default();
    let (v4, v6, v4_port, v6_port, in_range) = (p.label(), p.label(), p.label(), p.label(), p.label());
    let no = p.label();
    p.word(RANDOM);
    p.if_at_least((u32::MAX / one_in.max(1)).max(1), no);
    p.byte(PACKET_TYPE);
    p.if_at_least(NOT_FOR_HERE, no);
    p.half(PROTOCOL);
    p.if_equal(IPV4, v4);
    p.if_equal(IPV6, v6);
    p.reject();

    p.here(v4);
    p.base(0);
    p.byte_at_x(9);
    p.unless_equal(UDP, no);
    // A whole packet has no further fragments and offset 0.
    p.half_at_x(6);
    p.if_any_bit(0x3fff, no);
    addressed(&mut p, addresses, true, 16, v4_port);
    p.reject();
    p.here(v4_port);
    p.header_length_v4();
    p.half_at_x(2);
    p.goto(in_range);

    p.here(v6);
    p.base(0);
    p.byte_at_x(6);
    p.unless_equal(UDP, no);
    addressed(&mut p, addresses, false, 24, v6_port);
    p.reject();
    p.here(v6_port);
    p.half_at_x(42);

    p.here(in_range);
    p.unless_at_least(u32::from(ports.0), no);
    p.if_at_least(u32::from(ports.1) + 1, no);
    p.accept();
    p.here(no);
    p.reject();
    p.assemble()
}

/// Finds the IP header and jumps to the first label (IPv4) or the second (IPv6). The other two labels are for the host
/// checks.
fn place(p: &mut Program) -> [Label; 4] {
    let labels = [p.label(), p.label(), p.label(), p.label()];
    let [v4, v6, ..] = labels;
    let (begins_4, begins_6, tagged, inner_tag, type_of_inner) =
        (p.label(), p.label(), p.label(), p.label(), p.label());
    p.half(PROTOCOL);
    p.if_equal(IPV4, begins_4);
    p.if_equal(IPV6, begins_6);
    for tag in VLAN {
        p.if_equal(tag, tagged);
    }
    p.reject();
    // The kernel has stripped the outer tag of an incoming frame, so with two tags the data begins with the inner one.
    // If the network card does not insert tags itself, an outgoing tagged frame begins with the IP header.
    p.here(tagged);
    p.byte(PACKET_TYPE);
    p.unless_equal(OUTGOING, inner_tag);
    p.byte(0);
    p.shift_right(4);
    p.if_equal(4, begins_4);
    p.if_equal(6, begins_6);
    p.here(inner_tag);
    p.half(2);
    p.if_equal(IPV4, type_of_inner);
    p.if_equal(IPV6, type_of_inner);
    p.reject();
    p.here(type_of_inner);
    p.base(4);
    p.byte_at_x(0);
    p.shift_right(4);
    p.if_equal(4, v4);
    p.if_equal(6, v6);
    p.reject();
    p.here(begins_6);
    p.base(0);
    p.goto(v6);
    p.here(begins_4);
    p.base(0);
    p.goto(v4);
    labels
}

/// Continues if the loaded protocol number is UDP or TCP. Rejects otherwise.
fn udp_or_tcp(p: &mut Program) {
    let on = p.label();
    p.if_equal(UDP, on);
    p.if_equal(TCP, on);
    p.reject();
    p.here(on);
}

/// Jumps to `found` if the source or destination port, at X plus `at`, is one of `ports`. Rejects otherwise.
fn one_port(p: &mut Program, at: u32, ports: &[u16], found: Label) {
    for at in [at, at + 2] {
        p.half_at_x(at);
        for port in ports {
            p.if_equal(u32::from(*port), found);
        }
    }
    p.reject();
}

/// Accepts if `hosts` is empty or has the address at one of the two places. Rejects otherwise.
fn one_host(p: &mut Program, hosts: &[IpAddr], v4: bool, places: [u32; 2]) {
    let found = p.label();
    if !hosts.is_empty() {
        for at in places {
            addressed(p, hosts, v4, at, found);
        }
        p.reject();
    }
    p.here(found);
    p.accept();
}

/// Jumps to `found` if the address at X plus `at` is one of `hosts`. Continues otherwise.
fn addressed(p: &mut Program, hosts: &[IpAddr], v4: bool, at: u32, found: Label) {
    for host in hosts {
        let octets = match host {
            IpAddr::V4(a) if v4 => a.octets().to_vec(),
            IpAddr::V6(a) if !v4 => a.octets().to_vec(),
            _ => continue,
        };
        let next = p.label();
        for (n, word) in (0..).zip(octets.chunks_exact(4)) {
            p.word_at_x(at + 4 * n);
            p.unless_equal(word.iter().fold(0, |w, b| w << 8 | u32::from(*b)), next);
        }
        p.goto(found);
        p.here(next);
    }
}
