//! The rules of `advertised`: other addresses and names of the virtual addresses.

use super::{Found, Source};
use crate::config::model::Config;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// A public address for each virtual one, and some names. Each is compared with every description.
const MOST: usize = 16;
/// RFC 1035 section 2.3.4.
const MAX_NAME: usize = 253;

pub(super) fn check(config: &Config, source: &Source<'_>, found: &mut Found) {
    let vips: Vec<IpAddr> = config.instances.iter().flat_map(|i| &i.addresses).map(ipnet::IpNet::addr).collect();
    for (i, instance) in config.instances.iter().enumerate() {
        let Some(sip) = &instance.sip else { continue };
        let at = format!("instance[{i}].sip.advertised");
        if sip.advertised.len() > MOST {
            let message = format!("`advertised` lists more than {MOST} addresses and names");
            found.errors.push(source.problem(&at, message, "list only those in the server's own SIP messages"));
        }
        let mut seen = BTreeSet::new();
        for (j, host) in sip.advertised.iter().enumerate() {
            let path = format!("{at}[{j}]");
            if let Some((message, help)) = unusable(host, &vips) {
                found.errors.push(source.problem(&path, message, help));
            } else if !seen.insert(host.to_ascii_lowercase()) {
                found.errors.push(source.problem(&path, format!("{host} is listed twice"), "list each host once"));
            }
        }
    }
}

fn unusable(host: &str, vips: &[IpAddr]) -> Option<(String, &'static str)> {
    match host.parse::<IpAddr>() {
        Ok(ip) if vips.contains(&ip) => {
            Some((format!("{ip} is a virtual address itself"), "list only what differs from `addresses`"))
        }
        Ok(ip) if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() => {
            let help = "write the address outside of the NAT, as the server's SIP messages name it";
            Some((format!("nobody outside can reach the server at {ip}"), help))
        }
        Ok(_) => None,
        Err(_) => {
            let label = |l: &str| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            let last = host.rsplit('.').next().unwrap_or_default();
            // A last label of digits is a mistyped address: no top-level domain has one (RFC 3696 section 2).
            let valid =
                host.len() <= MAX_NAME && host.split('.').all(label) && !last.bytes().all(|b| b.is_ascii_digit());
            let help = "write an address without prefix length or port, or a host name: \"203.0.113.10\"";
            (!valid).then(|| (format!("{host:?} is neither an address nor a host name"), help))
        }
    }
}
