//! The rules of `[instance.sip.hep]`: one listener per address, and only trusted senders.

use super::Found;
use crate::config::model::{Carrier, Config, Hep, HepAddress, Instance, Sip};
use crate::config::source::Source;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Checks the HEP section of every instance, alone and against the others.
pub(super) fn check(config: &Config, source: &Source<'_>, found: &mut Found) {
    let vips: Vec<IpAddr> = config.instances.iter().flat_map(|i| &i.addresses).map(ipnet::IpNet::addr).collect();
    let mut taken: BTreeMap<HepAddress, &str> = BTreeMap::new();
    for (i, instance) in config.instances.iter().enumerate() {
        let Some(sip) = &instance.sip else { continue };
        let Some(hep) = &sip.hep else { continue };
        let at = format!("instance[{i}].sip.hep");
        if hep.listen.is_empty() {
            let help = "write listen = [\"udp:127.0.0.1:9060\"], or remove the section";
            found.errors.push(source.problem(
                &format!("{at}.listen"),
                "[instance.sip.hep] has no address to listen on",
                help,
            ));
        }
        for (j, listen) in hep.listen.iter().enumerate() {
            let path = format!("{at}.listen[{j}]");
            if let Some((why, help)) = unusable(*listen, config, sip, &vips) {
                found.errors.push(source.problem(&path, format!("cannot receive HEP on {listen}: {why}"), help));
            } else if let Some((other, name)) = taken.iter().find(|(other, _)| overlap(**other, *listen)) {
                let message = format!("{listen} overlaps with {other} of instance {name:?}");
                let help = "give each `listen` its own address and port: HEP packets do not name their instance";
                found.errors.push(source.problem(&path, message, help));
            } else {
                taken.insert(*listen, &instance.name);
            }
        }
        senders(hep, &at, source, found);
        names(hep, instance, &at, source, found);
    }
}

fn unusable(listen: HepAddress, config: &Config, sip: &Sip, vips: &[IpAddr]) -> Option<(String, &'static str)> {
    let (ip, port) = (listen.address.ip(), listen.address.port());
    let is_udp = listen.carrier == Carrier::Udp;
    let near = "listen on loopback (\"udp:127.0.0.1:9060\") if the server is on this host";
    if port == 0 {
        Some(("the port is missing".to_owned(), "write \"udp:127.0.0.1:9060\""))
    } else if ip.is_multicast() {
        Some(("the address is a multicast address".to_owned(), near))
    } else if vips.contains(&ip) {
        Some(("the address is a virtual address, which a backup does not have".to_owned(), near))
    } else if is_udp && ip.is_unspecified() && port == sip.recovery_port {
        Some(("the port is the recovery port".to_owned(), "choose another port"))
    } else if is_udp && port == config.node.port && (ip.is_unspecified() || ip == config.node.address) {
        Some(("the port is the heartbeat port".to_owned(), "choose another port"))
    } else {
        None
    }
}

/// Whether the kernel would refuse the second listener.
fn overlap(a: HepAddress, b: HepAddress) -> bool {
    let (x, y) = (a.address, b.address);
    let everywhere = x.ip().is_unspecified() || y.ip().is_unspecified();
    a.carrier == b.carrier && x.port() == y.port() && (x.ip() == y.ip() || everywhere && x.is_ipv4() == y.is_ipv4())
}

/// A trusted sender can end calls and invent them.
fn senders(hep: &Hep, at: &str, source: &Source<'_>, found: &mut Found) {
    let far = hep.listen.iter().find(|l| !l.address.ip().is_loopback());
    if let (Some(listen), None) = (far, &hep.key_file) {
        if hep.from.is_none() {
            let message = format!("other hosts can reach {listen}, and no setting restricts the senders");
            let help = "add key_file (HEP version 3 only), or from = [\"192.0.2.5\"] with the server's address, or \
                 use loopback";
            found.errors.push(source.problem(at, message, help));
        } else if let Some(listen) =
            hep.listen.iter().find(|l| !l.address.ip().is_loopback() && l.carrier == Carrier::Udp)
        {
            let message = format!(
                "any host that reaches {listen} can forge the addresses in `from`, and so end calls or invent calls"
            );
            let help =
                "add key_file if the server can send a key (Kamailio and Asterisk can), or listen on loopback or tcp";
            found.warnings.push(source.problem(&format!("{at}.from"), message, help));
        }
    }
    let Some(from) = &hep.from else { return };
    if from.is_empty() {
        let help = "write from = [\"127.0.0.1\"] with the server's address, or leave `from` out";
        found.errors.push(source.problem(&format!("{at}.from"), "`from` is empty, so every sender is refused", help));
    }
    for (i, ip) in from.iter().enumerate() {
        if ip.is_unspecified() || ip.is_multicast() {
            let message = format!("no packet can come from {ip}");
            let help =
                "write the address that the server sends from; with key_file and without `from`, any sender may send";
            found.errors.push(source.problem(&format!("{at}.from[{i}]"), message, help));
        }
    }
}

fn names(hep: &Hep, instance: &Instance, at: &str, source: &Source<'_>, found: &mut Found) {
    for (i, ip) in hep.server.iter().enumerate() {
        let path = format!("{at}.server[{i}]");
        let vips = || instance.addresses.iter().map(ipnet::IpNet::addr);
        if vips().any(|v| v == *ip) {
            let message = format!("{ip} is a virtual address, which always counts as the server");
            found.warnings.push(source.problem(&path, message, "leave the address out of `server`"));
        } else if !vips().any(|v| v.is_ipv4() == ip.is_ipv4()) {
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let message = format!("{ip} cannot stand for a virtual address: the instance has no {family} address");
            found.errors.push(source.problem(
                &path,
                message,
                "remove the address from `server`, or add a virtual address of the same family to `addresses`",
            ));
        }
    }
}
