//! Whether the firewall of this host lets the relay's packets pass.
//!
//! The relay rewrites a packet before routing, and then the packet crosses the forward hook like any forwarded packet.
//! Docker, ufw, firewalld and many hand-written rulesets drop there what they do not know. An accept in one chain does
//! not help: every base chain of the hook must let a packet pass.
//!
//! The rules are read over netlink, where `nft` and the `iptables` of today (`iptables-nft`) put them. Rules of the
//! former `iptables` (`iptables-legacy`) are not visible there; `forward/legacy.rs` asks that program.

mod legacy;
mod verdict;

use super::nfnl::{Chain, Family, Link, NfnlError};
use std::collections::BTreeSet;
use std::fmt;
use verdict::{Fate, Packet, fate};

/// The top byte of the mark of each relayed packet (`k`), from the first hook to the last. It avoids the small marks
/// common in policy routing.
pub const MARK: u32 = 0x6b00_0000;
/// The bits of a packet's mark that say whether the packet is the relay's.
pub const MASK: u32 = 0xff00_0000;
/// The number of the forward hook (`NF_INET_FORWARD`).
const HOOK: u32 = 2;

/// A chain that stops relayed audio.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Obstacle {
    /// The chain, as `nft list` or `iptables -S` names it.
    pub chain: String,
    /// Whether every relayed packet is dropped; otherwise a rule that cannot be judged may accept some.
    pub certain: bool,
    /// The command that lets relayed packets pass, and how to keep it.
    pub cure: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chain, certain, cure } = self;
        let what = if *certain {
            "drops relayed audio"
        } else {
            "drops relayed audio, unless one of its rules that cannot be judged here accepts it"
        };
        write!(f, "the firewall chain {chain} {what}, and calls are silent after a takeover; let it pass: {cure}")
    }
}

/// The chains that stop the audio of an instance on `interface`, for IPv4 and IPv6 as asked. `link` may be shared.
///
/// # Errors
/// The kernel does not tell its chains or rules.
pub async fn obstacles(link: &Link, interface: &str, v4: bool, v6: bool) -> Result<Vec<Obstacle>, NfnlError> {
    let chains = link.chains().await?;
    let mut found = BTreeSet::new();
    let mut table = None;
    for base in chains.iter().filter(|c| c.hook == Some(HOOK)) {
        let here = (base.family, base.table.as_str());
        let rules = match table.take() {
            Some((of, rules)) if of == here => rules,
            _ => link.rules(base.family, &base.table).await?,
        };
        let worst = [(v4, false), (v6, true)]
            .into_iter()
            .filter(|(wanted, v6)| *wanted && carries(base.family, *v6))
            .filter_map(|(_, v6)| match fate(&rules, &base.name, base.drops, Packet { v6, interface }) {
                Fate::Dropped { certain } => Some(certain),
                Fate::Passes => None,
            })
            .reduce(|a, b| a | b);
        found.extend(worst.map(|certain| Obstacle {
            chain: format!("{} {} {}", word(base.family), base.table, base.name),
            certain,
            cure: cure(base, &chains, interface),
        }));
        table = Some((here, rules));
    }
    found.extend(legacy::obstacles(v4, v6).await);
    Ok(found.into_iter().collect())
}

const fn carries(family: Family, v6: bool) -> bool {
    match family {
        Family::Inet => true,
        Family::Ip => !v6,
        Family::Ip6 => v6,
        Family::Netdev | Family::Arp => false,
    }
}

const fn word(family: Family) -> &'static str {
    match family {
        Family::Inet => "inet",
        Family::Netdev => "netdev",
        Family::Arp => "arp",
        Family::Ip => "ip",
        Family::Ip6 => "ip6",
    }
}

/// The match of relayed packets, as iptables writes it.
fn matched() -> String {
    format!("-m mark --mark {MARK:#x}/{MASK:#x}")
}

/// The command that lets relayed packets through `base`. A program that owns the chain gets the command in its own
/// place, because the program would remove any other at its next reload.
fn cure(base: &Chain, all: &[Chain], interface: &str) -> String {
    let has = |name: &str| all.iter().any(|c| (c.family, &c.table, &*c.name) == (base.family, &base.table, name));
    let program = if base.family == Family::Ip6 { "ip6tables" } else { "iptables" };
    let rule = matched();
    if base.table == "firewalld" {
        return format!(
            "`firewall-cmd --permanent --zone=$(firewall-cmd --get-zone-of-interface={interface}) --add-forward && \
             firewall-cmd --reload`"
        );
    }
    let of_iptables = base.table == "filter" && base.name == "FORWARD" && base.family != Family::Inet;
    if of_iptables && has("DOCKER-USER") {
        format!(
            "`{program} -I DOCKER-USER {rule} -j ACCEPT`, and the same after each start of Docker's host, for example by \
             netfilter-persistent"
        )
    } else if of_iptables && (has("ufw-before-forward") || has("ufw6-before-forward")) {
        let (chain, file) = if base.family == Family::Ip6 {
            ("ufw6-before-forward", "/etc/ufw/before6.rules")
        } else {
            ("ufw-before-forward", "/etc/ufw/before.rules")
        };
        format!("`{program} -I {chain} {rule} -j ACCEPT`, and the line `-A {chain} {rule} -j ACCEPT` in {file}")
    } else if of_iptables {
        format!("`{program} -I FORWARD {rule} -j ACCEPT`, and the same where this host keeps its iptables rules")
    } else {
        format!(
            "`nft insert rule {} {} {} meta mark and {MASK:#x} == {MARK:#x} accept`, and the same rule in the file from \
             which this host loads its ruleset",
            word(base.family),
            base.table,
            base.name
        )
    }
}

#[cfg(test)]
mod tests;
