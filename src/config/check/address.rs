//! Addresses and interfaces that no host can use, or that would reach into a script or a path.

use ipnet::IpNet;
use std::net::IpAddr;

/// `IFNAMSIZ` is 16, including the closing zero.
const MAX_INTERFACE: usize = 15;
/// Prefixes shorter than these (IPv4, IPv6) make the kernel look for a large part of the Internet on the local wire.
const WIDE: (u8, u8) = (8, 16);

/// A rejected value: what is wrong with it, and what to write.
pub(super) type Fault = (String, &'static str);

/// Why `name` names no interface here.
///
/// The kernel refuses some names itself (`dev_valid_name`). Others are refused because the name goes into nftables
/// scripts between quotes, where `"` and `\` end or change the string and `*` stands for any text, and into paths below
/// `/proc/sys`, where `all` and `default` are not interfaces.
pub(super) fn interface(name: &str) -> Option<Fault> {
    let help = "write the name that `ip link` shows, without the `@` and what follows it, for example \"eth0\"";
    let odd =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':' | '@' | '%' | '"' | '\'' | '\\' | '*');
    let why = if name.is_empty() {
        "it is empty".to_owned()
    } else if name.len() > MAX_INTERFACE {
        format!("the kernel keeps at most {MAX_INTERFACE} bytes of a name")
    } else if matches!(name, "." | ".." | "all" | "default") {
        "no interface can have this name".to_owned()
    } else if let Some(c) = name.chars().find(|c| odd(*c)) {
        format!("it contains {c:?}")
    } else {
        return None;
    };
    Some((format!("{name:?} is not a valid interface name: {why}"), help))
}

/// Why no host can have this virtual address.
pub(super) fn unusable(net: IpNet) -> Option<Fault> {
    let ip = net.addr();
    let phones = "write the address that the phones register with";
    let prefix = "write the host's address with the network's prefix length";
    let (what, help) = if ip.is_unspecified() {
        ("the unspecified address", phones)
    } else if ip.is_loopback() {
        ("a loopback address", phones)
    } else if ip.is_multicast() {
        ("a multicast address", "write a unicast address")
    } else if ip == IpAddr::from([255, 255, 255, 255]) {
        ("the broadcast address", "write a unicast address")
    } else if matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 0) {
        // RFC 1122 section 3.2.1.3: "this network".
        ("an address of 0.0.0.0/8, which no host can have", phones)
    } else if matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        ("an IPv4 address in the notation of IPv6, which no wire carries", "write it as an IPv4 address")
    } else if net.prefix_len() == 0 {
        ("an address whose network is the whole Internet: the host would lose its other routes", prefix)
    } else if net.prefix_len() + 1 < net.max_prefix_len() && ip == net.network() {
        // With /31 and /127 both addresses are hosts (RFC 3021, RFC 6164).
        ("the network address, not a host address", prefix)
    } else if matches!(net, IpNet::V4(v4) if v4.prefix_len() < 31 && v4.addr() == v4.broadcast()) {
        ("the broadcast address of its network", prefix)
    } else {
        return None;
    };
    Some((format!("{net} is {what}"), help))
}

/// Why this virtual address is probably mistaken.
pub(super) fn doubtful(net: IpNet) -> Option<Fault> {
    let least = if net.addr().is_ipv4() { WIDE.0 } else { WIDE.1 };
    (net.prefix_len() < least).then(|| {
        let message =
            format!("with {net}, the host looks for a large part of the Internet on the interface's own wire");
        (message, "write the prefix length of the interface's network, for example /24")
    })
}

/// Why an instance with calls cannot use this virtual address: the agent binds the recovery port to the address alone,
/// and a link-local address needs its interface as well.
pub(super) fn no_calls(ip: IpAddr) -> Option<Fault> {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()).then(|| {
        let message = format!("{ip} is a link-local address, and the agent cannot recover calls on one");
        (message, "write an address that the phones reach, or remove [instance.sip]: then only the address moves")
    })
}

/// Why peers cannot reach this node at `ip`.
pub(super) fn no_peer_reaches(ip: IpAddr) -> bool {
    let special = ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::from([255, 255, 255, 255]);
    special || matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some())
}

#[cfg(test)]
mod tests;
