//! The contents of a kernel lease's tables. Pure: names and addresses in, nftables scripts and batches out.

use crate::fnv::fnv1a;
use crate::vip::nfnl::{Batch, Data, Family};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

/// The only element of the set [`GUARD`].
const GUARD_KEY: u32 = 1;
/// No rule looks up this set: see `put` in `kernel_lease.rs`.
const GUARD: &str = "guard";
/// Prefix of an empty chain's name. The name ends in a hash of everything that the table was built from.
const MADE: &str = "made_";

/// A lease table: its family, nft's keyword for it, and its sets.
pub(super) struct Kind {
    pub(super) family: Family,
    pub(super) word: &'static str,
    sets: &'static [Set],
}

/// A set with one element per held address: its name, its type, and whether it is for IPv6.
struct Set(&'static str, &'static str, bool);

const HELD4: Set = Set("held4", "type ipv4_addr", false);
const HELD6: Set = Set("held6", "type ipv6_addr", true);
/// The addresses of [`HELD6`] again, for neighbour discovery targets. nft names that field only since 1.0.8, and cannot
/// look up an unnamed field in a set of addresses.
const TARGET6: Set = Set("target6", "typeof @th,64,128", true);

/// At the interface, both ways: it stops every packet of this host, raw frames included.
pub(super) const NETDEV: Kind = Kind { family: Family::Netdev, word: "netdev", sets: &[HELD4, HELD6, TARGET6] };
/// In the IP layer, for all interfaces.
pub(super) const INET: Kind = Kind { family: Family::Inet, word: "inet", sets: &[HELD4, HELD6, TARGET6] };
/// In address resolution, for all interfaces.
pub(super) const ARP: Kind = Kind { family: Family::Arp, word: "arp", sets: &[HELD4] };

/// The inputs of a lease's tables.
pub(super) struct Plan<'a> {
    pub(super) table: &'a str,
    pub(super) interface: &'a str,
    pub(super) addresses: &'a [IpAddr],
}

/// An existing chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) family: String,
    pub(super) name: String,
}

impl Plan<'_> {
    /// Builds the tables with their sets. Existing sets keep their elements.
    pub(super) fn sets(&self, kinds: &[Kind]) -> String {
        let mut text = String::new();
        for kind in kinds {
            let _ = writeln!(text, "table {} {} {{", kind.word, self.table);
            for Set(name, form, _) in kind.sets {
                let _ = writeln!(text, "set {name} {{ {form}; flags timeout; }}");
            }
            if kind.family == Family::Inet {
                let _ = writeln!(text, "set {GUARD} {{ type mark; flags timeout; }}");
            }
            text.push_str("}\n");
        }
        text
    }

    /// Installs the rules in place of those in the chains `there`. The sets stay untouched.
    pub(super) fn chains(&self, kinds: &[Kind], there: &[Chain]) -> String {
        let mut text = String::new();
        for kind in kinds {
            // Rules refer to chains, so all rules go before the first chain.
            let _ = writeln!(text, "flush table {} {}", kind.word, self.table);
            for chain in there.iter().filter(|c| c.family == kind.word) {
                let _ = writeln!(text, "delete chain {} {} {}", kind.word, self.table, chain.name);
            }
            let _ = writeln!(text, "table {} {} {{\nchain {} {{ }}", kind.word, self.table, self.mark(kind));
            text.push_str(&self.rules(kind));
            text.push_str("}\n");
        }
        text
    }

    /// Deletes all of the tables.
    pub(super) fn without(&self, kinds: &[Kind]) -> String {
        let mut text = String::new();
        for kind in kinds {
            let _ = writeln!(text, "add table {0} {1}\ndelete table {0} {1}", kind.word, self.table);
        }
        text
    }

    /// Whether the table of this kind exists as this version would build it.
    pub(super) fn intact(&self, kind: &Kind, there: &[Chain]) -> bool {
        let has = |name: &str| there.iter().any(|c| c.family == kind.word && c.name == name);
        // On most kernels an interface takes its chains with it when it goes.
        has(&self.mark(kind)) && (kind.family != Family::Netdev || has("ingress") && has("egress"))
    }

    /// Holds exactly these addresses for `timeout`. The kernel refuses the batch if the guard has expired.
    pub(super) fn hold(&self, kinds: &[Kind], epoch: u64, timeout: Duration) -> Batch {
        let mut batch = self.end(kinds);
        let comment = format!("epoch {epoch}");
        for kind in kinds {
            batch.turn_to(kind.family, self.table);
            for Set(name, _, v6) in self.used(kind) {
                for ip in self.addresses.iter().filter(|ip| ip.is_ipv6() == *v6) {
                    batch.add_noted(name, &Data::new().then_ip(*ip), None, Some(timeout), &comment);
                }
            }
        }
        batch.turn_to(Family::Inet, self.table);
        batch.delete(GUARD, &guard_key());
        batch
    }

    /// Ends every hold.
    pub(super) fn end(&self, kinds: &[Kind]) -> Batch {
        let mut batch = Batch::new(Family::Inet, self.table);
        for kind in kinds {
            batch.turn_to(kind.family, self.table);
            // A flush, because deleting an element that has just expired would be an error.
            self.used(kind).for_each(|set| batch.flush(set.0));
        }
        batch
    }

    /// Sets the guard for `timeout`.
    pub(super) fn guard(&self, timeout: Duration) -> Batch {
        let mut batch = Batch::new(Family::Inet, self.table);
        batch.flush(GUARD);
        batch.add(GUARD, &guard_key(), None, Some(timeout));
        batch
    }

    /// The sets of the inet table that show the hold.
    pub(super) const fn told() -> [&'static str; 2] {
        [HELD4.0, HELD6.0]
    }

    fn used(&self, kind: &Kind) -> impl Iterator<Item = &'static Set> {
        kind.sets.iter().filter(|set| self.addresses.iter().any(|ip| ip.is_ipv6() == set.2))
    }

    fn mark(&self, kind: &Kind) -> String {
        // Two versions of a table need different names, and nobody tries to make the names collide.
        let text = self.sets(std::slice::from_ref(kind)) + &self.rules(kind);
        format!("{MADE}{:016x}", fnv1a(text.as_bytes()))
    }

    fn rules(&self, kind: &Kind) -> String {
        let list = |v6: bool, form: fn(&IpAddr) -> String| {
            let all: Vec<String> = self.addresses.iter().filter(|ip| ip.is_ipv6() == v6).map(form).collect();
            (!all.is_empty()).then(|| format!("{{ {} }}", all.join(", ")))
        };
        let number = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => ip.to_bits().to_string(),
            IpAddr::V6(ip) => format!("{:#034x}", ip.to_bits()),
        };
        let v4 = list(false, ToString::to_string);
        let (v6, targets) = (list(true, ToString::to_string), list(true, number));
        // Inbound and outbound, in this order: rules for packets of an address that is not held now.
        let mut arp = [String::new(), String::new()];
        let mut ip = [String::new(), String::new()];
        let [lapsed_in, lapsed_out] =
            if kind.family == Family::Inet { ["goto lapsed_in", "goto lapsed_out"] } else { ["counter drop"; 2] };
        if let Some(v4) = &v4 {
            // ARP from the address itself passes, because it shows where the master is now.
            let _ = writeln!(arp[0], "arp daddr ip {v4} arp saddr ip != {v4} arp daddr ip != @held4 counter drop");
            let _ = writeln!(arp[1], "arp saddr ip {v4} arp saddr ip != @held4 counter drop");
            let _ = writeln!(ip[0], "ip daddr {v4} ip daddr != @held4 {lapsed_in}");
            let _ = writeln!(ip[1], "ip saddr {v4} ip saddr != @held4 {lapsed_out}");
        }
        if let (Some(v6), Some(targets)) = (&v6, &targets) {
            let _ = writeln!(ip[0], "ip6 daddr {v6} ip6 daddr != @held6 {lapsed_in}");
            let _ = writeln!(ip[1], "ip6 saddr {v6} ip6 saddr != @held6 {lapsed_out}");
            // Solicitations go to a multicast group. A solicitation that another host sends from the address itself
            // asks for a different target.
            let _ = writeln!(
                ip[0],
                "icmpv6 type nd-neighbor-solicit @th,64,128 {targets} @th,64,128 != @target6 counter drop"
            );
            let _ = writeln!(
                ip[1],
                "icmpv6 type nd-neighbor-advert @th,64,128 {targets} @th,64,128 != @target6 counter drop"
            );
        }
        let ([arp_in, arp_out], [ip_in, ip_out]) = (arp, ip);
        let chain = |name: &str, hook: &str, rules: &str| {
            format!("chain {name} {{ type filter hook {hook}; policy accept;\n{rules}}}\n")
        };
        let dev = self.interface;
        match kind.family {
            // Ingress runs before everything else. Egress runs after everything else, so it sees what really leaves.
            Family::Netdev => {
                chain("ingress", &format!("ingress device \"{dev}\" priority -500"), &(arp_in + &ip_in))
                    + &chain("egress", &format!("egress device \"{dev}\" priority 500"), &(arp_out + &ip_out))
            }
            Family::Arp => {
                chain("input", "input priority -500", &arp_in) + &chain("output", "output priority 500", &arp_out)
            }
            // Inbound runs before the relay (raw, -300) and connection tracking, outbound after the relay and NAT.
            // Loopback is exempt, because there the host talks to itself. On other interfaces the rules cover only
            // addresses that this host still has, because a host that is also a gateway forwards to the holder.
            Family::Inet | Family::Ip | Family::Ip6 => {
                let lapsed = |name: &str, way: &str, end: &str| {
                    format!(
                        "chain lapsed_{name} {{ {way} \"lo\" accept; {way} \"{dev}\" counter drop; fib {end} type local counter drop; }}\n"
                    )
                };
                lapsed("in", "iifname", "daddr")
                    + &lapsed("out", "oifname", "saddr")
                    + &chain("prerouting", "prerouting priority -450", &ip_in)
                    + &chain("postrouting", "postrouting priority 500", &ip_out)
            }
        }
    }
}

fn guard_key() -> Data {
    Data::new().then(&GUARD_KEY.to_ne_bytes())
}
