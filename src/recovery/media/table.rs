//! The nftables table of the kernel relay: its contents, and how one flow is added and removed.

use crate::calls::model::Flow;
use crate::vip::forward;
use crate::vip::nfnl::{Batch, Data};
use crate::vip::nft::signed::Signed;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// Most flows of one instance at one time. The mark carries the flow's number in 16 bits. Enough for 16,384 calls with
/// RTP and RTCP both ways.
pub(super) const MAX_FLOWS: usize = 65_536;
/// Top byte of the mark.
const MARK: u32 = forward::MARK;

/// The mark of flow `slot` of instance `tag`.
pub(super) fn mark(tag: u8, slot: u16) -> u32 {
    MARK | u32::from(tag) << 16 | u32::from(slot)
}

/// The instance's and the flow's number in a mark made by [`mark`].
pub(super) const fn of_mark(mark: u32) -> Option<(u8, u16)> {
    if mark & forward::MASK == MARK { Some(((mark >> 16) as u8, mark as u16)) } else { None }
}

/// A packet's addresses and ports in the form of the sets.
pub(super) fn key(from: SocketAddr, to: SocketAddr) -> Data {
    Data::new().then_address(from).then_address(to)
}

/// Sender and our port, from the key of a flow map's element.
pub(super) fn ends(key: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let address = |bytes: &[u8]| -> Option<SocketAddr> {
        let (ip, port) = bytes.split_last_chunk::<4>()?;
        let ip = <[u8; 4]>::try_from(ip).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(ip).map(IpAddr::from));
        Some(SocketAddr::new(ip.ok()?, u16::from_be_bytes([port[0], port[1]])))
    };
    let (from, at) = key.split_at_checked(key.len() / 2)?;
    Some((address(from)?, address(at)?))
}

/// The flow map of one address family. Its elements have counters.
pub(super) const fn flow_map(v4: bool) -> &'static str {
    if v4 { SETS[0].0 } else { SETS[1].0 }
}

/// The sets and maps: name, type of key and value, and whether elements have counters.
pub(super) const SETS: [(&str, &str, bool); 11] = [
    // Sender and our port -> the flow's mark.
    ("flow4", "ipv4_addr . inet_service . ipv4_addr . inet_service : mark", true),
    ("flow6", "ipv6_addr . inet_service . ipv6_addr . inet_service : mark", true),
    // The mark -> the values written into the packet.
    ("daddr4", "mark : ipv4_addr", false),
    ("daddr6", "mark : ipv6_addr", false),
    ("saddr4", "mark : ipv4_addr", false),
    ("saddr6", "mark : ipv6_addr", false),
    ("dport", "mark : inet_service", false),
    ("sport", "mark : inet_service", false),
    // Packets that a server on this host must not send, because the relay sends from that port to that phone.
    ("local4", "ipv4_addr . inet_service . ipv4_addr . inet_service", false),
    ("local6", "ipv6_addr . inet_service . ipv6_addr . inet_service", false),
    // Marks of flows with agreed T.38.
    (UDPTL, "mark", false),
];
/// The set of flows whose packets may have any payload.
const UDPTL: &str = "udptl";
/// The set with one counter for each drop reason.
pub(super) const REFUSED: &str = "refused";

/// Reason for dropping a flow's packet: its key in the set [`REFUSED`], as a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DropReason {
    /// The payload is not what phones send: RTP, RTCP, STUN or DTLS, or agreed UDPTL.
    Payload = 1,
    /// A fragment, or a packet with headers between IP and UDP. Its payload cannot be checked.
    Part = 2,
    /// The packet would end on this host, or at a broadcast address of its network.
    ThisHost = 3,
}

impl DropReason {
    pub(super) const ALL: [Self; 3] = [Self::Payload, Self::Part, Self::ThisHost];

    pub(super) fn key(self) -> Data {
        Data::new().then(&(self as u32).to_ne_bytes())
    }

    /// The rule that counts and drops.
    fn rule(self) -> String {
        format!("meta mark set {} meta mark @{REFUSED} drop", self as u32)
    }
}

/// The payload check by first bytes (RFC 7983): the chains `to4` and `to6`, which pass accepted packets to `send4` or
/// `send6`. `whole` matches whole datagrams without headers between IP and UDP.
///
/// RTP and RTCP have version 2 (RFC 3550) and at least 8 bytes. All other packets take the longer path. The bytes are
/// matched by their offset behind the UDP header, which every kernel with nftables supports.
fn passes(v: u8, whole: &str) -> String {
    let (payload, part) = (DropReason::Payload.rule(), DropReason::Part.rule());
    format!(
        "chain to{v} {{\n{whole} @th,64,8 & 0xc0 == 0x80 udp length >= 16 goto send{v}\ngoto other{v}\n}}\n\
         chain other{v} {{\n{whole} goto odd{v}\n{part}\ndrop\n}}\n\
         chain odd{v} {{\n@th,64,8 20-63 udp length >= 21 goto send{v}\n\
         @th,64,8 0-1 @th,96,32 0x2112a442 udp length >= 28 goto send{v}\n\
         meta mark @{UDPTL} goto send{v}\n{payload}\ndrop\n}}\n"
    )
}

/// Key and value of a flow with mark `mark` in set number `set` of [`SETS`], if it belongs in that set.
pub(super) fn of_flow(set: usize, flow: &Flow, mark: u32) -> Option<(Data, Option<Data>)> {
    if (set < 6) && (set % 2 == 1) != flow.at.is_ipv6() {
        return None;
    }
    // Marks are in host byte order, addresses and ports in network byte order.
    let number = Data::new().then(&mark.to_ne_bytes());
    let ip = |a: SocketAddr| Data::new().then_ip(a.ip());
    let port = |a: SocketAddr| Data::new().then(&a.port().to_be_bytes());
    match set {
        0 | 1 => Some((key(flow.from, flow.at), Some(number))),
        2 | 3 => Some((number, Some(ip(flow.to)))),
        4 | 5 => Some((number, Some(ip(flow.source)))),
        6 => Some((number, Some(port(flow.to)))),
        7 => Some((number, Some(port(flow.source)))),
        10 if flow.udptl => Some((number, None)),
        _ => None,
    }
}

/// The key in set number `set` that stops this host from sending the packets of `flow`, if it belongs in that set.
pub(super) fn of_local(set: usize, flow: &Flow) -> Option<Data> {
    (set == 8 + usize::from(flow.at.is_ipv6())).then(|| key(flow.source, flow.to))
}

/// Flows with their marks, and flows for the local sets, that are added or removed together.
#[derive(Clone, Debug, Default)]
pub(super) struct Elements {
    pub(super) flows: Vec<(Flow, u32)>,
    pub(super) local: Vec<Flow>,
}

impl Elements {
    /// Writes the additions.
    pub(super) fn add(&self, batch: &mut Batch) {
        self.each(|set, key, value| batch.add(set, key, value, None));
    }

    /// Writes the deletions.
    pub(super) fn delete(&self, batch: &mut Batch) {
        self.each(|set, key, _| batch.delete(set, key));
    }

    // Set by set, so that thousands of elements share messages. Collecting them first would take as much memory as the
    // batch itself.
    pub(super) fn each(&self, mut write: impl FnMut(&str, &Data, Option<&Data>)) {
        for (set, (name, ..)) in SETS.iter().enumerate() {
            for (key, value) in self.flows.iter().filter_map(|(flow, mark)| of_flow(set, flow, *mark)) {
                write(name, &key, value.as_ref());
            }
            for key in self.local.iter().filter_map(|flow| of_local(set, flow)) {
                write(name, &key, None);
            }
        }
    }
}

/// The script that creates the table or renews its rules. The set elements stay, so a predecessor's audio continues.
/// nft refuses if a table of another version has sets that do not fit.
pub(super) fn renewed(table: &str, rules: &Signed) -> String {
    // Flushing a table removes its rules and keeps the elements.
    format!("add table inet {table}\nflush table inet {table}\n{}", rules.text())
}

/// The sets and rules.
///
/// Stateless. In prerouting, a packet of a flow gets the flow's number as its mark, and its new destination. In
/// postrouting it gets its new source, by the mark. The more obvious ways fail:
/// - NAT needs a connection tracking entry for each flow. It decides at a flow's first packet only, so it misses
///   elements that are armed later. It also makes the kernel track all other traffic on the host.
/// - Rewriting the source in prerouting fails, because a packet from one of our own addresses is dropped there as
///   martian.
/// - A second look-up by addresses instead of the mark sees the rewritten packet instead of the original.
/// - `fwd` at the ingress hook skips routing, and a phone behind a gateway needs routing.
///
/// Raw priority precedes connection tracking (-200), and `notrack` keeps relayed packets out of it. It also precedes
/// the socket look-up, so no socket on this host sees a relayed packet.
pub(super) fn rules(table: &str, tag: u8, vips: &[IpAddr]) -> Signed {
    let mut text = format!("table inet {table} {{\n");
    for (name, kind, counts) in SETS {
        let what = if kind.contains(':') { "map" } else { "set" };
        let counter = if counts { "counter; " } else { "" };
        let _ = writeln!(text, "{what} {name} {{ type {kind}; size {MAX_FLOWS}; {counter}}}");
    }
    let (mut pre, mut to, mut from, mut output) = (String::new(), String::new(), String::new(), String::new());
    for (ip, v, want) in [("ip", 4, IpAddr::is_ipv4 as fn(&IpAddr) -> bool), ("ip6", 6, IpAddr::is_ipv6)] {
        let ours: Vec<String> = vips.iter().filter(|a| want(a)).map(ToString::to_string).collect();
        if ours.is_empty() {
            continue;
        }
        let ours = ours.join(", ");
        let _ = writeln!(
            pre,
            "meta l4proto udp {ip} daddr {{ {ours} }} meta mark set {ip} saddr . udp sport . {ip} daddr . udp dport map @flow{v} \
             goto to{v}"
        );
        let _ = writeln!(
            output,
            "oifname != \"lo\" meta l4proto udp {ip} saddr {{ {ours} }} {ip} saddr . udp sport . {ip} daddr . udp dport @local{v} \
             counter drop"
        );
        // A UDP checksum of zero means "none" in IPv4, and some phones send it. Rewriting the port would turn it into a
        // wrong checksum, so it is reset to zero before the address is rewritten. Rewriting the address keeps a zero.
        let bare = |word: &str, chain: &str| {
            format!(
                "chain {chain} {{\nudp {word}port set meta mark map @{word}port\nudp checksum set 0\nip {word}addr set meta mark map @{word}addr4\n"
            )
        };
        if v == 4 {
            let _ = writeln!(to, "{}}}", bare("d", "bare_to4"));
            let _ = writeln!(from, "{}meta mark set 0\n}}", bare("s", "bare_from4"));
        }
        let zero = |chain: &str| if v == 4 { format!("udp checksum 0 goto {chain}\n") } else { String::new() };
        let _ = writeln!(
            to,
            "chain send{v} {{\nnotrack\n{}udp dport set meta mark map @dport\n{ip} daddr set meta mark map \
             @daddr{v}\n}}",
            zero("bare_to4")
        );
        to.push_str(&passes(v, if v == 4 { "ip frag-off & 0x3fff == 0" } else { "ip6 nexthdr udp" }));
        // Clear the mark at the end, because other rules must not see it.
        let _ = writeln!(
            from,
            "chain from{v} {{\n{}udp sport set meta mark map @sport\n{ip} saddr set meta mark map @saddr{v}\nmeta mark set 0\n}}",
            zero("bare_from4")
        );
    }
    if vips.iter().any(IpAddr::is_ipv6) {
        // IPv4 has a sysctl against redirects, IPv6 has none. A phone that obeyed a redirect would bypass the relay.
        // Redirects are dropped only while a relay is armed here, and hosts work well without them.
        output.push_str("icmpv6 type nd-redirect drop\n");
    }
    let (first, last) = (mark(tag, 0), mark(tag, u16::MAX));
    let all = DropReason::ALL.map(|why| (why as u32).to_string()).join(", ");
    let _ = writeln!(text, "set {REFUSED} {{ type mark; counter; elements = {{ {all} }} }}");
    // A packet with a destination written by the relay never ends here, whatever addresses this host has.
    let input = format!("meta mark {first:#x}-{last:#x} meta l4proto udp {}\n", DropReason::ThisHost.rule());
    let mut post = String::new();
    for (v, name, want) in [(4, "ipv4", IpAddr::is_ipv4 as fn(&IpAddr) -> bool), (6, "ipv6", IpAddr::is_ipv6)] {
        if vips.iter().any(want) {
            let _ = writeln!(post, "meta mark {first:#x}-{last:#x} meta nfproto {name} meta l4proto udp goto from{v}");
        }
    }
    let _ = write!(
        text,
        "{to}{from}chain input {{ type filter hook input priority raw; policy accept;\n{input}}}\n\
         chain prerouting {{ type filter hook prerouting priority raw; policy accept;\n{pre}}}\n\
         chain postrouting {{ type filter hook postrouting priority raw; policy accept;\n{post}}}\n\
         chain output {{ type filter hook output priority raw; policy accept;\n{output}}}\n}}\n"
    );
    Signed::new(&text)
}

#[cfg(test)]
mod tests;
