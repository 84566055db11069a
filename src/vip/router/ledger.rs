//! What each setting was before, who needs it, and which packets are dropped in return. Pure: the values of settings
//! come in by a function.

use crate::fnv::fnv1a;
use crate::vip::forward::{MARK, MASK};
use crate::vip::sysctl::{ALL_V4, ALL_V6, Wanted};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The value of a setting before, and whether the host forwarded on all interfaces even then: its owner then meant this
/// interface alone to be no router's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) value: String,
    pub(super) router: bool,
}

/// An instance that needs settings for its interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need {
    pub(super) interface: String,
    pub(super) instance: String,
    /// It relays calls.
    pub(super) calls: bool,
    /// The agent whose instance it is.
    pub(super) owner: u64,
}

/// The memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    pub(super) before: BTreeMap<String, Before>,
    pub(super) needs: BTreeSet<Need>,
}

/// The value that this program gives a setting.
pub(super) fn set_to(name: &str) -> &'static str {
    match name.rsplit('/').next() {
        Some("send_redirects") => "0",
        Some("accept_ra") => "2",
        _ => "1",
    }
}

/// The setting by which somebody makes the host a router for the family of `name`, if `name` turns forwarding on for
/// one interface.
fn general(name: &str) -> Option<&'static str> {
    match name.rsplit('/').next() {
        Some("forwarding") if name.starts_with("net/ipv4/") => Some(ALL_V4),
        Some("force_forwarding") => Some(ALL_V6),
        _ => None,
    }
}

impl Ledger {
    /// Adds what the comments of the table's elements say. Other programs' comments say nothing.
    pub(super) fn read<'a>(&mut self, comments: impl Iterator<Item = &'a str>) {
        for comment in comments {
            let words: Vec<&str> = comment.split(' ').collect();
            match *words.as_slice() {
                ["set", name, value] => self.was(name, value, false),
                ["set", name, value, "router"] => self.was(name, value, true),
                [kind @ ("calls" | "address"), interface, instance, owner] => {
                    let Ok(owner) = u64::from_str_radix(owner, 16) else { continue };
                    let (interface, instance) = (interface.to_owned(), instance.to_owned());
                    self.needs.insert(Need { interface, instance, calls: kind == "calls", owner });
                }
                _ => {}
            }
        }
    }

    fn was(&mut self, name: &str, value: &str, router: bool) {
        // What is put back goes into a path, and the table could be anybody's.
        let plain = name.starts_with("net/") && !name.split('/').any(|part| matches!(part, "" | "." | ".."));
        if plain && !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
            self.before.insert(name.to_owned(), Before { value: value.to_owned(), router });
        }
    }

    /// Notes the value of each wanted setting that is about to change and is not noted yet.
    pub(super) fn note(&mut self, wanted: &[Wanted], read: impl Fn(&str) -> Option<String>) {
        for Wanted { name, to } in wanted {
            if let Some(value) = read(name).filter(|value| value != to)
                && !self.before.contains_key(name)
            {
                let router = general(name).and_then(&read).is_some_and(|all| all == "1");
                self.was(name, &value, router);
            }
        }
    }

    /// Forgets forwarding settings of a host that somebody has made a router since: nothing of it is ours any more.
    /// Returns those that go back now, because a router forwards without them. (In IPv4 the general setting has
    /// overwritten them.)
    pub(super) fn lift(&mut self, read: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
        let is_router = |name: &str| general(name).and_then(&read).is_some_and(|value| value == "1");
        let mut back = Vec::new();
        self.before.retain(|name, before| {
            let stays = before.router || !is_router(name);
            if !stays && general(name) == Some(ALL_V6) {
                back.push((name.clone(), before.value.clone()));
            }
            stays
        });
        back
    }

    /// Takes out the settings that none of `needed` keeps, in the order in which they go back: forwarding first, and
    /// `accept_ra`, which forwarding needs, last.
    pub(super) fn give_up(&mut self, needed: &[Wanted]) -> Vec<(String, String)> {
        // `accept_ra` is wanted only until forwarding is on.
        let all_v6 = needed.iter().any(|w| w.name == ALL_V6);
        let kept = |name: &str| {
            needed.iter().any(|w| w.name == name) || all_v6 && name.rsplit('/').next() == Some("accept_ra")
        };
        let (stay, go): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.before).into_iter().partition(|(name, _)| kept(name));
        self.before = stay;
        let mut go: Vec<(String, String)> = go.into_iter().map(|(name, before)| (name, before.value)).collect();
        let rank = |name: &str| match name.rsplit('/').next() {
            Some("forwarding" | "force_forwarding") => 0,
            Some("accept_ra") => 2,
            _ => 1,
        };
        go.sort_by_key(|(name, _)| rank(name));
        go
    }

    /// The table: the memory as comments of elements, and the guard.
    ///
    /// A relayed packet is let through by its mark, the first rule, before any look-up.
    pub(super) fn table(&self, table: &str, sets: [&str; 2]) -> String {
        let before = self.before.iter().map(|(name, Before { value, router })| {
            format!("set {name} {value}{}", if *router { " router" } else { "" })
        });
        let needs = self.needs.iter().map(|need| {
            let kind = if need.calls { "calls" } else { "address" };
            format!("{kind} {} {} {:x}", need.interface, need.instance, need.owner)
        });
        let mut text = format!("table inet {table} {{\n");
        for (set, comments) in sets.iter().zip([before.collect::<Vec<_>>(), needs.collect()]) {
            let elements: BTreeMap<u32, String> = comments.into_iter().map(|c| (key(&c), c)).collect();
            let elements: Vec<String> =
                elements.into_iter().map(|(key, comment)| format!("{key:#x} comment \"{comment}\"")).collect();
            let _ = write!(text, "set {set} {{ type mark; ");
            if !elements.is_empty() {
                let _ = write!(text, "elements = {{ {} }} ", elements.join(", "));
            }
            text.push_str("}\n");
        }
        text.push_str("chain forward { type filter hook forward priority raw; policy accept;\n");
        let _ = writeln!(text, "meta mark and {MASK:#x} == {MARK:#x} accept");
        for name in self.before.keys() {
            let family = if name.starts_with("net/ipv4/") { "ipv4" } else { "ipv6" };
            let interface = name.split('/').nth(3).unwrap_or_default();
            if name == ALL_V6 {
                let _ = writeln!(text, "meta nfproto ipv6 counter drop");
            } else if general(name).is_some() {
                let _ = writeln!(text, "iifname \"{interface}\" meta nfproto {family} counter drop");
            }
        }
        text.push_str("}\n}\n");
        text
    }
}

/// A number for a comment. Two comments with one number would cost one of them; of the few here, that does not happen.
fn key(comment: &str) -> u32 {
    let hash = fnv1a(comment.as_bytes());
    (hash ^ hash >> 32) as u32
}

#[cfg(test)]
mod tests;
