//! Settings that should be equal on every node. They exist by name and in words, to show both values of a difference,
//! and as digests that fit into a heartbeat. Settings that may differ (names, priorities, interfaces, hooks, targets of
//! checks) are left out.
//!
//! A digest must not change with the release: values enter it by name, in the order of names. Leave a setting of a
//! later release out of the description while it has its default, so that an upgrade alone makes no difference.

mod unlike;

pub use unlike::{Change, Unlike};

use crate::config::{Check, Config, DEFAULT_RTP_TIMEOUT, Etcd, Instance, MIN_CONFIDENCE, Media, Sip, Timing};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Settings by their names in the configuration, each as a person writes it.
pub type Named = BTreeMap<String, String>;

/// Above this many bytes, the node's key omits the values. The key is read up to 64 kB: a hundred instances fit.
const MAX_TOLD: usize = 32 * 1024;
/// Nodes must agree on this setting: a node with another value cannot become master.
const ADDRESSES: &str = "addresses";

/// All settings of one node that should be equal on every node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// Settings of the whole agent.
    pub node: Named,
    /// Settings of each instance.
    pub instances: BTreeMap<String, Named>,
}

/// A setting that differs between this node and another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Difference {
    /// The other node.
    pub node: String,
    /// The instance; `None` for a setting of the whole agent.
    pub instance: Option<String>,
    /// The setting's name, as in the configuration.
    pub setting: String,
    /// The value on this node.
    pub here: String,
    /// The value on the other node.
    pub there: String,
    /// The difference bars the other node, or this one, from becoming master of the instance.
    pub excludes: bool,
}

/// Stands for a value that the other node does not report.
const UNTOLD: &str = "not told";

impl Difference {
    /// Explains the difference and its remedy.
    #[must_use]
    pub fn meaning(&self) -> &'static str {
        match self.setting.as_str() {
            ADDRESSES if self.excludes => {
                "a node with different addresses cannot become master of the instance; give every node the same \
                 addresses"
            }
            "timing.hold" if self.there == UNTOLD => {
                "the node's older release does not report its `hold`; upgrade every node before you change `hold`"
            }
            "timing.hold" | "timing.drift" => "the master's value counts; give every node the same value",
            "version" => "finish the upgrade",
            _ => "the value changes with each takeover; give every node the same value",
        }
    }
}

fn show(d: Duration) -> String {
    humantime::format_duration(d).to_string()
}

fn list<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    all.into_iter().map(|t| t.to_string()).collect::<Vec<_>>().join(" ")
}

/// Describes a configuration. The patterns name every field, so that a new field cannot be forgotten.
#[must_use]
pub fn describe(config: &Config) -> Described {
    let Timing { heartbeat, hold, drift, flap_budget, flap_window } = &config.timing;
    let Etcd { lease_ttl, endpoints: _, user: _, password_file: _, ca_file: _, cert_file: _, key_file: _, timeout: _ } =
        &config.etcd;
    let node = [
        ("timing.heartbeat", show(*heartbeat)),
        ("timing.hold", show(*hold)),
        ("timing.drift", drift.to_string()),
        ("timing.flap_budget", flap_budget.to_string()),
        ("timing.flap_window", show(*flap_window)),
        ("etcd.lease_ttl", show(*lease_ttl)),
    ];
    Described { node: named(node), instances: config.instances.iter().map(|i| (i.name.clone(), instance(i))).collect() }
}

fn named<'a>(all: impl IntoIterator<Item = (&'a str, String)>) -> Named {
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn instance(i: &Instance) -> Named {
    // `keepcall mode` and `status` show each node's mode themselves.
    let Instance {
        name: _,
        interface: _,
        addresses,
        preempt,
        preempt_delay,
        mode: _,
        announce: _,
        checks,
        sip,
        hooks: _,
    } = i;
    let sorted: BTreeSet<String> = addresses.iter().map(ToString::to_string).collect();
    let mut all = named([
        (ADDRESSES, list(sorted)),
        ("preempt", preempt.to_string()),
        ("preempt_delay", show(*preempt_delay)),
        ("checks", list(checks.iter().map(|c| &c.name).collect::<BTreeSet<_>>())),
        ("sip", sip.is_some().to_string()),
    ]);
    all.extend(checks.iter().map(|c| (format!("check.{}", c.name), check(c))));
    if let Some(sip) = sip {
        all.extend(calls(sip));
    }
    all
}

fn check(c: &Check) -> String {
    let Check { name: _, interval, timeout, rise, fall, fatal, sip_options, process } = c;
    let kind = match (sip_options, process) {
        (Some(_), _) => "sip-options",
        (None, Some(_)) => "process",
        (None, None) => "none",
    };
    let fatal = if *fatal { "fatal" } else { "not fatal" };
    format!("{kind}, {fatal}, each {} within {}, rise {rise}, fall {fall}", show(*interval), show(*timeout))
}

fn calls(sip: &Sip) -> Named {
    let Sip {
        ports,
        media_ports,
        media,
        recovery_port,
        pair_header,
        min_confidence,
        advertised,
        emergency,
        encrypt,
        plain_records: _,
        window,
        max_calls,
        rtp_timeout,
        max_carried,
        hep,
        ami,
        esl,
    } = sip;
    let mut all = named([
        ("sip.ports", list(ports.iter().collect::<BTreeSet<_>>())),
        ("sip.media_ports", format!("{}-{}", media_ports.0, media_ports.1)),
        ("sip.recovery_port", recovery_port.to_string()),
        ("sip.pair_header", pair_header.clone().unwrap_or_default()),
        ("sip.emergency", list(emergency.iter().collect::<BTreeSet<_>>())),
        ("sip.encrypt", encrypt.to_string()),
        ("sip.plain_records", if sip.accepts_plain() { "accept" } else { "refuse" }.to_owned()),
        ("sip.window", window.to_string()),
        ("sip.max_calls", max_calls.to_string()),
        // Each host has its own report targets and secrets.
        ("sip.hep", hep.is_some().to_string()),
        ("sip.ami", ami.is_some().to_string()),
        ("sip.esl", esl.is_some().to_string()),
    ]);
    if *media == Media::External {
        all.insert("sip.media".to_owned(), "external".to_owned());
    }
    if *min_confidence != MIN_CONFIDENCE {
        all.insert("sip.min_confidence".to_owned(), min_confidence.to_string());
    }
    if !advertised.is_empty() {
        all.insert("sip.advertised".to_owned(), list(advertised.iter().collect::<BTreeSet<_>>()));
    }
    if *rtp_timeout != DEFAULT_RTP_TIMEOUT {
        all.insert("sip.rtp_timeout".to_owned(), show(*rtp_timeout));
    }
    if !max_carried.is_zero() {
        all.insert("sip.max_carried".to_owned(), show(*max_carried));
    }
    all
}

/// Virtual addresses of an instance, without prefix lengths and order: all nodes must agree on them.
#[must_use]
pub fn vips(i: &Instance) -> BTreeSet<IpAddr> {
    i.addresses.iter().map(ipnet::IpNet::addr).collect()
}

/// First 64 bits of SHA-256 over the words, each preceded by its length.
fn digest<'a>(words: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut hash = Sha256::new();
    for w in words {
        hash.update(u64::try_from(w.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(w.as_bytes());
    }
    hash.finalize().iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b))
}

/// Digest of virtual addresses.
#[must_use]
pub fn digest_of_vips(vips: &BTreeSet<IpAddr>) -> u64 {
    let words: Vec<String> = vips.iter().map(ToString::to_string).collect();
    digest(words.iter().map(String::as_str))
}

impl Described {
    /// Digest of all settings that affect an instance.
    #[must_use]
    pub fn digest(&self, instance: &str) -> u64 {
        let own = self.instances.get(instance).into_iter().flatten();
        digest(self.node.iter().chain(own).flat_map(|(name, value)| [name.as_str(), value.as_str()]))
    }

    /// Drops the instances' values if they do not fit into a node's key.
    #[must_use]
    pub fn bounded(self) -> Self {
        let words = |n: &Named| n.iter().map(|(a, b)| a.len() + b.len() + 6).sum::<usize>();
        let all: usize = self.instances.iter().map(|(name, n)| name.len() + words(n)).sum();
        if all > MAX_TOLD { Self { instances: BTreeMap::new(), ..self } } else { self }
    }

    /// Returns the settings that differ at `node`. A setting or an instance that only one of the two nodes has is no
    /// difference (another release, or no part in the instance).
    #[must_use]
    pub fn differences(&self, node: &str, there: &Self) -> Vec<Difference> {
        let pairs = self.instances.iter().filter_map(|(i, here)| Some((Some(i), here, there.instances.get(i)?)));
        let pairs = std::iter::once((None, &self.node, &there.node)).chain(pairs);
        let mut all = Vec::new();
        for (instance, here, there) in pairs {
            for (setting, here) in here {
                let Some(there) = there.get(setting).filter(|t| *t != here) else { continue };
                all.push(Difference {
                    node: node.to_owned(),
                    instance: instance.cloned(),
                    setting: setting.clone(),
                    here: here.clone(),
                    there: there.clone(),
                    excludes: setting == ADDRESSES && addresses(here) != addresses(there),
                });
            }
        }
        all
    }
}

/// Extracts the addresses from a list of prefixes.
fn addresses(list: &str) -> BTreeSet<&str> {
    list.split(' ').map(|p| p.split_once('/').map_or(p, |(address, _)| address)).collect()
}

#[cfg(test)]
mod tests;
