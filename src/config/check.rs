//! The rules that span fields. Each names the offending value, and what to write instead.

mod address;
mod advertised;
mod hep;
mod instance;
mod shared;

use super::error::Problem;
use super::model::{Config, Etcd, Node, Timing};
use super::source::Source;
use std::collections::BTreeSet;
use std::time::Duration;

/// Findings of the rules.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Broken rules.
    pub(super) errors: Vec<Problem>,
    /// Allowed, but probably mistaken.
    pub(super) warnings: Vec<Problem>,
}

/// Shorter heartbeats cost more than they gain: a loaded host wakes up a few milliseconds late anyway.
const MIN_HEARTBEAT: Duration = Duration::from_millis(5);
/// etcd's smallest lease with its default election timeout of 1 s is 2 s; etcd silently raises shorter requests.
const MIN_LEASE: Duration = Duration::from_secs(2);
/// Above this the slow way of failover is no failover for a caller; still, an operator may have a reason.
const LONG_LEASE: Duration = Duration::from_secs(30);
/// Above this it is a slip of the unit.
const MAX_LEASE: Duration = Duration::from_secs(600);
/// Above this a node's clock is broken, and the hold would have to grow with it.
const MAX_DRIFT: f64 = 0.2;
/// `sun_path` of a unix socket address holds 108 bytes, including the closing zero.
const MAX_SOCKET_PATH: usize = 107;

/// Checks `config` against every rule.
pub(super) fn check(config: &Config, source: &Source<'_>, found: &mut Found) {
    node(&config.node, source, found);
    etcd(&config.etcd, source, found);
    timing(&config.timing, &config.etcd, source, found);
    let socket = config.control.socket.as_os_str();
    if !config.control.socket.is_absolute() || socket.len() > MAX_SOCKET_PATH {
        let message = format!("the control socket needs an absolute path of at most {MAX_SOCKET_PATH} bytes");
        found.errors.push(source.problem("control.socket", message, "write socket = \"/run/keepcall/keepcall.sock\""));
    }
    instance::check(config, source, found);
    shared::check(config, source, found);
    advertised::check(config, source, found);
    hep::check(config, source, found);
}

/// Names go into etcd keys, file names and tables: letters, digits, `.`, `_` and `-` only.
fn name(value: &str, path: &str, source: &Source<'_>, found: &mut Found) {
    let good =
        (1..=63).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !good {
        let message = format!("{value:?} is not a valid name");
        found.errors.push(source.problem(path, message, "use 1 to 63 of the characters A-Z a-z 0-9 . _ -"));
    }
}

/// A key change needs one key besides `key_file`. A datagram that fits no other key is tried with each.
const MAX_ACCEPTED_KEYS: usize = 4;

fn node(node: &Node, source: &Source<'_>, found: &mut Found) {
    if node.accept_key_files.len() > MAX_ACCEPTED_KEYS {
        let message =
            format!("`accept_key_files` names {} keys; the limit is {MAX_ACCEPTED_KEYS}", node.accept_key_files.len());
        let help = "name only the cluster's next or former key, and only during a change of key";
        found.errors.push(source.problem("node.accept_key_files", message, help));
    }
    name(&node.name, "node.name", source, found);
    name(&node.cluster, "node.cluster", source, found);
    if address::no_peer_reaches(node.address) {
        let message = format!("peers cannot send heartbeats to {}", node.address);
        found.errors.push(source.problem(
            "node.address",
            message,
            "write this node's own address on the network that it shares with its peers",
        ));
    } else if node.address.is_loopback() {
        let message = format!("peers on other hosts cannot reach {}", node.address);
        found.warnings.push(source.problem(
            "node.address",
            message,
            "write this node's own address on the network that it shares with its peers",
        ));
    }
}

fn etcd(etcd: &Etcd, source: &Source<'_>, found: &mut Found) {
    if etcd.endpoints.is_empty() {
        let help = "write endpoints = [\"http://192.0.2.1:2379\"], one for each etcd member";
        found.errors.push(source.problem("etcd.endpoints", "`endpoints` is empty", help));
    }
    let mut seen = BTreeSet::new();
    for (i, url) in etcd.endpoints.iter().enumerate() {
        let path = format!("etcd.endpoints[{i}]");
        if let Err(why) = endpoint(url) {
            let help = "write the endpoint like \"http://192.0.2.1:2379\" or \"https://etcd1.example.net:2379\"";
            found.errors.push(source.problem(&path, format!("{url:?} is not an etcd endpoint: {why}"), help));
        } else if !seen.insert(url.trim_end_matches('/').to_ascii_lowercase()) {
            found.errors.push(source.problem(
                &path,
                format!("endpoint {url:?} is listed twice"),
                "list each etcd member once",
            ));
        }
    }
    let pairs = [
        (
            "cert_file",
            etcd.cert_file.is_some(),
            "key_file",
            etcd.key_file.is_some(),
            "a client certificate needs its key",
        ),
        ("user", etcd.user.is_some(), "password_file", etcd.password_file.is_some(), "a user needs a password"),
    ];
    for (a, has_a, b, has_b, why) in pairs {
        if has_a != has_b {
            let (there, absent) = if has_a { (a, b) } else { (b, a) };
            let help = format!("add `{absent}` to [etcd], or remove `{there}`");
            found.errors.push(source.problem(
                &format!("etcd.{there}"),
                format!("`{there}` without `{absent}`: {why}"),
                help,
            ));
        }
    }
    let https = etcd.endpoints.iter().position(|e| e.starts_with("https://"));
    if let (Some(i), None) = (https, &etcd.ca_file) {
        // `etcd/endpoint.rs` trusts `ca_file` alone, so a public authority cannot speak for etcd.
        let help = "add ca_file = \"/etc/keepcall/etcd-ca.pem\": the PEM file of the authority that signed etcd's \
             certificates";
        found.errors.push(source.problem(
            &format!("etcd.endpoints[{i}]"),
            "https endpoints need `ca_file`: the agent does not trust the authorities of the system",
            help,
        ));
    }
    if https.is_none() {
        for (key, given) in [("ca_file", etcd.ca_file.is_some()), ("cert_file", etcd.cert_file.is_some())] {
            if given {
                let message = format!("`{key}` has no effect: every endpoint is http://");
                found.warnings.push(source.problem(
                    &format!("etcd.{key}"),
                    message,
                    "write the endpoints with https://",
                ));
            }
        }
    }
    if etcd.timeout < Duration::from_millis(10) {
        let message = format!("an etcd timeout of {} is too short: no answer arrives in that time", show(etcd.timeout));
        found.errors.push(source.problem("etcd.timeout", message, "write timeout = \"1s\"; the minimum is 10ms"));
    } else if etcd.timeout > etcd.lease_ttl / 3 {
        let message = format!(
            "with `timeout` {} and `lease_ttl` {}, the node loses its lease after two slow answers in a row",
            show(etcd.timeout),
            show(etcd.lease_ttl)
        );
        found.warnings.push(source.problem("etcd.timeout", message, "set `timeout` to a third of `lease_ttl` or less"));
    }
    if etcd.lease_ttl < MIN_LEASE || etcd.lease_ttl.subsec_nanos() != 0 {
        let message = format!("etcd cannot grant a lease of {}", show(etcd.lease_ttl));
        let help = "write whole seconds, 2s or more: lease_ttl = \"3s\"";
        found.errors.push(source.problem("etcd.lease_ttl", message, help));
    } else if etcd.lease_ttl > LONG_LEASE {
        let message = format!(
            "with a `lease_ttl` of {}, a dead master that has no armed successor is replaced only after that time",
            show(etcd.lease_ttl)
        );
        let problem =
            source.problem("etcd.lease_ttl", message, "write lease_ttl = \"3s\", or up to 30s for a slow etcd");
        if etcd.lease_ttl > MAX_LEASE { found.errors.push(problem) } else { found.warnings.push(problem) }
    }
}

/// Whether `url` is http or https, with a host, a port, and nothing else.
fn endpoint(url: &str) -> Result<(), &'static str> {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .ok_or("the endpoint must begin with http:// or https://")?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) || authority.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("only host and port may follow the scheme");
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, port) = v6.split_once("]:").ok_or("an IPv6 host must be written as [address]:port")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| "the address in brackets is not an IPv6 address")?;
            (host, port)
        }
        None => authority.rsplit_once(':').ok_or("the port is missing")?,
    };
    if host.is_empty() || (host.contains(':') && !authority.starts_with('[')) {
        return Err("the host is missing, or an IPv6 address is not in brackets");
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => Err("the port is not a number from 1 to 65535"),
    }
}

fn timing(timing: &Timing, etcd: &Etcd, source: &Source<'_>, found: &mut Found) {
    let Timing { heartbeat, hold, drift, flap_budget, flap_window: _ } = *timing;
    // If the file sets only one of the pair, the message points at that one.
    let hold_at = if source.has("timing.hold") { "timing.hold" } else { "timing.heartbeat" };
    if heartbeat < MIN_HEARTBEAT {
        let message = format!("a heartbeat of {} is below the minimum of {}", show(heartbeat), show(MIN_HEARTBEAT));
        found.errors.push(source.problem("timing.heartbeat", message, "write heartbeat = \"20ms\" or more"));
    } else if hold < heartbeat * 2 {
        let message = format!(
            "a hold of {} ends before the second heartbeat (one every {}) can renew the hold",
            show(hold),
            show(heartbeat)
        );
        let help = format!("write hold = {:?} (four heartbeats); the minimum is two heartbeats", show(heartbeat * 4));
        found.errors.push(source.problem(hold_at, message, help));
    } else if hold < heartbeat * 3 {
        let message = format!(
            "a hold of {} covers only two heartbeats of {}, so two lost packets move the addresses",
            show(hold),
            show(heartbeat)
        );
        let help = format!("write hold = {:?}, which survives three lost packets", show(heartbeat * 4));
        found.warnings.push(source.problem(hold_at, message, help));
    }
    if hold >= etcd.lease_ttl {
        let message =
            format!("a hold of {} is not shorter than the etcd lease of {}", show(hold), show(etcd.lease_ttl));
        let help = "the lease must outlast a hold: lower `hold`, or raise `lease_ttl` in [etcd]";
        found.errors.push(source.problem(hold_at, message, help));
    }
    if flap_budget == 0 {
        let help = "write flap_budget = 4, or more to allow more changes; a dead master is always replaced at once";
        found.errors.push(source.problem(
            "timing.flap_budget",
            "a flap budget of 0 would delay every change of master".to_owned(),
            help,
        ));
    }
    if !(drift > 0.0 && drift <= MAX_DRIFT) {
        let message = format!("a clock drift of {drift} is outside the range from 0 to {MAX_DRIFT}");
        found.errors.push(source.problem(
            "timing.drift",
            message,
            "write drift = 0.01 (1 %): more than 0, at most 0.2",
        ));
    }
}

/// A duration in the file's notation.
fn show(d: Duration) -> String {
    humantime::format_duration(d).to_string()
}
