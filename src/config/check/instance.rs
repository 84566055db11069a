//! Rules for instances: their addresses, checks, SIP and hooks.

use super::{Found, Source, address, name, show};
use crate::config::ends::{MIN_CARRIED, RTP_TIMEOUT_S};
use crate::config::model::{Check, Config, Instance, Process, Sip, SipOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// Burst packets go out 10 ms apart; a longer burst would still be running long after every phone has heard it.
const MAX_BURST: u32 = 100;
/// Closer probes load the server more than they tell.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// Closer announcements are a flood, and switches limit floods.
const MIN_ANNOUNCE: Duration = Duration::from_millis(10);
/// Most SIP ports, and most addresses, of one instance: the capture's filter compares each packet with each of them
/// (`wire/capture/filter.rs`; `tests/plain/config.rs` compares the limits).
const MOST: usize = 64;
/// Most instances with calls: the relay's packet marks have one byte for the instance, and zero is none.
const MOST_INSTANCES: usize = 255;
/// The kernel keeps 15 bytes of a process name (`TASK_COMM_LEN` is 16).
const MAX_COMM: usize = 15;

pub(super) fn check(config: &Config, source: &Source<'_>, found: &mut Found) {
    if config.instances.is_empty() {
        found.errors.push(source.problem(
            "instance",
            "the file has no [[instance]]",
            "add [[instance]] with name, interface and addresses",
        ));
    }
    let mut names = BTreeSet::new();
    let mut addresses: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for (i, instance) in config.instances.iter().enumerate() {
        let at = format!("instance[{i}]");
        name(&instance.name, &format!("{at}.name"), source, found);
        if !names.insert(instance.name.as_str()) {
            let message = format!("two instances have the name {:?}", instance.name);
            found.errors.push(source.problem(&format!("{at}.name"), message, "give each instance a different name"));
        }
        one(instance, &at, source, found);
        for (j, net) in instance.addresses.iter().enumerate() {
            let path = format!("{at}.addresses[{j}]");
            if let Some((message, help)) = address::doubtful(*net).filter(|_| net.prefix_len() > 0) {
                found.warnings.push(source.problem(&path, message, help));
            }
            let calls = instance.sip.is_some();
            let fault = address::unusable(*net).or_else(|| address::no_calls(net.addr()).filter(|_| calls));
            if let Some((message, help)) = fault {
                found.errors.push(source.problem(&path, message, help));
            } else if net.addr() == config.node.address {
                let message = format!("{} is this node's own address", net.addr());
                let help = "a virtual address moves between nodes: use an address that no host owns";
                found.errors.push(source.problem(&path, message, help));
            } else if let Some(other) = addresses.insert(net.addr(), &instance.name) {
                let message = format!("{} is listed twice (first in instance {other:?})", net.addr());
                found.errors.push(source.problem(&path, message, "list each address once, in one instance"));
            }
        }
    }
    let with_calls = config.instances.iter().filter(|i| i.sip.is_some()).count();
    if with_calls > MOST_INSTANCES {
        let message = format!(
            "{with_calls} instances have [instance.sip]; the audio relay has packet marks for {MOST_INSTANCES}"
        );
        found.errors.push(source.problem("instance", message, "divide the instances between more hosts"));
    }
    // Only now is every VIP known: a check of one instance may name an address of another.
    for (i, instance) in config.instances.iter().enumerate() {
        for (j, check) in instance.checks.iter().enumerate() {
            if let Some(options) = &check.sip_options
                && addresses.contains_key(&options.target.ip())
            {
                let message = format!(
                    "{} is a virtual address: on a backup, the check would reach the master's server",
                    options.target.ip()
                );
                let help = "let the server listen on loopback as well, and write target = \"127.0.0.1:5060\"";
                found.errors.push(source.problem(
                    &format!("instance[{i}].check[{j}].sip-options.target"),
                    message,
                    help,
                ));
            }
        }
    }
}

fn one(instance: &Instance, at: &str, source: &Source<'_>, found: &mut Found) {
    if let Some((message, help)) = address::interface(&instance.interface) {
        found.errors.push(source.problem(&format!("{at}.interface"), message, help));
    }
    if instance.addresses.is_empty() {
        let help = "write addresses = [\"192.0.2.10/24\"]";
        found.errors.push(source.problem(&format!("{at}.addresses"), "the instance has no address", help));
    } else if instance.sip.is_some() && instance.addresses.len() > MOST {
        let message =
            format!("the instance has {} addresses; the capture takes at most {MOST}", instance.addresses.len());
        let help = "divide the addresses between instances whose servers have ports of their own";
        found.errors.push(source.problem(&format!("{at}.addresses"), message, help));
    }
    let announce = &instance.announce;
    if !(1..=MAX_BURST).contains(&announce.burst) {
        let message = format!("a burst of {} announcements is outside the range from 1 to {MAX_BURST}", announce.burst);
        found.errors.push(source.problem(&format!("{at}.announce.burst"), message, "write burst = 5"));
    }
    if announce.refreshes > 0 && announce.interval < MIN_ANNOUNCE {
        let message = format!("an announcement every {} is a flood", show(announce.interval));
        found.errors.push(source.problem(
            &format!("{at}.announce.interval"),
            message,
            "write interval = \"1s\"; the minimum is 10ms",
        ));
    }
    if instance.checks.is_empty() {
        let message = format!(
            "instance {:?} has no check: a takeover happens only if the host or the agent fails",
            instance.name
        );
        found.warnings.push(source.problem(at, message, "add [[instance.check]] to notice a failed server"));
    } else if !instance.checks.iter().any(|c| c.fatal) {
        let message =
            format!("no check of instance {:?} is fatal: a node with a failed server stays master", instance.name);
        found.warnings.push(source.problem(
            &format!("{at}.check"),
            message,
            "leave `fatal` out of one check (the default is true)",
        ));
    }
    let mut names = BTreeSet::new();
    for (j, check) in instance.checks.iter().enumerate() {
        let at = format!("{at}.check[{j}]");
        if !names.insert(check.name.as_str()) {
            let message = format!("two checks of this instance have the name {:?}", check.name);
            found.errors.push(source.problem(
                &format!("{at}.name"),
                message,
                "give each check of an instance a different name",
            ));
        }
        probe(check, &at, source, found);
    }
    if let Some(s) = &instance.sip {
        sip(s, &format!("{at}.sip"), source, found);
    }
    let hooks = [("on_master", &instance.hooks.on_master), ("on_backup", &instance.hooks.on_backup)];
    for (key, command) in hooks {
        if let Some(command) = command {
            hook(command, &format!("{at}.hooks.{key}"), source, found);
        }
    }
}

fn probe(check: &Check, at: &str, source: &Source<'_>, found: &mut Found) {
    name(&check.name, &format!("{at}.name"), source, found);
    for (key, value) in [("rise", check.rise), ("fall", check.fall)] {
        if value == 0 {
            let message = format!("`{key}` of 0 is not possible: a check needs at least one result");
            found.errors.push(source.problem(&format!("{at}.{key}"), message, format!("write {key} = 1 or more")));
        }
    }
    if check.interval < MIN_INTERVAL {
        let message = format!("an interval of {} is below the minimum of {}", show(check.interval), show(MIN_INTERVAL));
        found.errors.push(source.problem(
            &format!("{at}.interval"),
            message,
            "write interval = \"1s\"; the minimum is 10ms",
        ));
    } else if check.sip_options.is_some() && (check.timeout >= check.interval || check.timeout.is_zero()) {
        // A process check has no timeout: reading the kernel's state never blocks.
        let path =
            if source.has(&format!("{at}.timeout")) { format!("{at}.timeout") } else { format!("{at}.interval") };
        let message = format!(
            "a timeout of {} is not shorter than the interval of {}",
            show(check.timeout),
            show(check.interval)
        );
        found.errors.push(source.problem(
            &path,
            message,
            format!("write timeout = {:?}, or a longer interval", show(check.interval / 2)),
        ));
    }
    match (&check.sip_options, &check.process) {
        (Some(options), None) => sip_options(options, &format!("{at}.sip-options"), source, found),
        (None, Some(p)) => process(p, &format!("{at}.process"), source, found),
        (None, None) => {
            let message = format!("check {:?} has no kind", check.name);
            let help = "add [instance.check.sip-options] or [instance.check.process] below the check";
            found.errors.push(source.problem(at, message, help));
        }
        (Some(_), Some(_)) => {
            let message = format!("check {:?} has two kinds", check.name);
            let help = "write two [[instance.check]]: one with sip-options, one with process";
            found.errors.push(source.problem(at, message, help));
        }
    }
}

fn sip_options(options: &SipOptions, at: &str, source: &Source<'_>, found: &mut Found) {
    if options.target.ip().is_unspecified() || options.target.ip().is_multicast() || options.target.port() == 0 {
        let message = format!("cannot send a request to {}", options.target);
        found.errors.push(source.problem(&format!("{at}.target"), message, "write target = \"127.0.0.1:5060\""));
    }
    if let Some(uri) = &options.uri
        && !(uri.starts_with("sip:")
            && uri.len() > 4
            && uri.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"".contains(&b)))
    {
        let message = format!("{uri:?} is not a SIP URI");
        found.errors.push(source.problem(
            &format!("{at}.uri"),
            message,
            "write the URI like \"sip:keepcall@127.0.0.1\", without < and >",
        ));
    }
    if options.codes.is_empty() {
        let message = "`codes` is empty, so the check always fails";
        found.errors.push(source.problem(
            &format!("{at}.codes"),
            message,
            "write codes = [\"2xx\"], or leave `codes` out",
        ));
    }
    for (i, code) in options.codes.iter().enumerate() {
        if !is_code(code) {
            let message = format!("{code:?} is not a final SIP status code or class");
            let help = "write a code (\"200\", up to \"699\") or a class (\"2xx\" to \"6xx\")";
            found.errors.push(source.problem(&format!("{at}.codes[{i}]"), message, help));
        }
    }
}

/// A final status: 1xx does not end a transaction, so it is no result.
fn is_code(code: &str) -> bool {
    let bytes = code.as_bytes();
    bytes.len() == 3
        && (b'2'..=b'6').contains(&bytes[0])
        && (bytes[1..].eq_ignore_ascii_case(b"xx") || bytes[1..].iter().all(u8::is_ascii_digit))
}

fn process(process: &Process, at: &str, source: &Source<'_>, found: &mut Found) {
    let given = [process.pidfile.is_some(), process.name.is_some(), process.unit.is_some()];
    if given.iter().filter(|g| **g).count() != 1 {
        let message = "a process check needs exactly one of `pidfile`, `name` and `unit`";
        found.errors.push(source.problem(
            at,
            message,
            "write unit = \"asterisk.service\" if systemd runs the server, else pidfile or name",
        ));
    }
    if let Some(path) = process.pidfile.as_deref().filter(|p| !p.is_absolute()) {
        let message = format!("the pidfile {} is not an absolute path", path.display());
        let help = "write the whole path, for example \"/run/asterisk/asterisk.pid\"";
        found.errors.push(source.problem(&format!("{at}.pidfile"), message, help));
    }
    if let Some(name) = &process.name {
        if name.is_empty() || name.contains('/') {
            let message = format!("{name:?} is not a valid process name");
            found.errors.push(source.problem(
                &format!("{at}.name"),
                message,
                "write the name that `ps -o comm` shows, without a path",
            ));
        } else if name.len() > MAX_COMM {
            let cut: String = name.chars().take(MAX_COMM).collect();
            let message = format!(
                "{name:?} has more than {MAX_COMM} characters; the kernel keeps only {MAX_COMM} of a process name"
            );
            found.errors.push(source.problem(
                &format!("{at}.name"),
                message,
                format!("write name = {cut:?}, as `ps -o comm` shows it"),
            ));
        }
    }
    if let Some(unit) = &process.unit {
        let known = [".service", ".scope"].iter().any(|s| unit.len() > s.len() && unit.ends_with(s));
        if !known || unit.contains(['/', ' ']) {
            let stem = unit.split(['/', ' ', '.']).next().unwrap_or("asterisk");
            let message = format!("{unit:?} is not the name of a systemd service or scope");
            found.errors.push(source.problem(
                &format!("{at}.unit"),
                message,
                format!("write unit = \"{stem}.service\""),
            ));
        }
    }
}

/// Which stored calls are trusted.
fn records(sip: &Sip, at: &str, source: &Source<'_>, found: &mut Found) {
    let path = format!("{at}.plain_records");
    if !sip.encrypt && !sip.accepts_plain() {
        let message = "this node would store unencrypted calls and refuse them when it reads them back";
        let help = "leave both keys out: then calls are encrypted, and unencrypted stored calls are refused";
        found.errors.push(source.problem(&path, message, help));
    } else if sip.accepts_plain() {
        let message = "unencrypted calls in etcd are accepted: anyone who can write to etcd can redirect their audio";
        let help = "leave `encrypt` and `plain_records` out once no node with an older release stores calls";
        found.warnings.push(source.problem(if sip.encrypt { &path } else { at }, message, help));
    }
}

/// When a carried call ends.
fn ends(sip: &Sip, at: &str, source: &Source<'_>, found: &mut Found) {
    let (least, most) = RTP_TIMEOUT_S;
    if !(least..=most).contains(&sip.rtp_timeout.as_secs()) {
        let message = format!("`rtp_timeout` of {} is outside of {least} s to {most} s", show(sip.rtp_timeout));
        let help = "write \"60s\"; with less, lost packets of a quiet phone look like its end";
        found.errors.push(source.problem(&format!("{at}.rtp_timeout"), message, help));
    }
    if !sip.max_carried.is_zero() && sip.max_carried < MIN_CARRIED {
        let message = format!("`max_carried` of {} would end calls soon after each takeover", show(sip.max_carried));
        let help = format!("write {:?} or more, or leave `max_carried` out", show(MIN_CARRIED));
        found.errors.push(source.problem(&format!("{at}.max_carried"), message, help));
    }
}

fn sip(sip: &Sip, at: &str, source: &Source<'_>, found: &mut Found) {
    records(sip, at, source, found);
    let (first, last) = sip.media_ports;
    let in_media = |port: u16| (first..=last).contains(&port);
    if sip.ports.is_empty() {
        found.errors.push(source.problem(&format!("{at}.ports"), "`ports` is empty", "write ports = [5060]"));
    } else if sip.ports.len() > MOST {
        let message = format!("`ports` has {} ports; the capture takes at most {MOST}", sip.ports.len());
        let help = "name only the ports on which the server speaks SIP; its RTP range belongs in media_ports";
        found.errors.push(source.problem(&format!("{at}.ports"), message, help));
    }
    let mut seen = BTreeSet::new();
    for (i, port) in sip.ports.iter().enumerate() {
        let path = format!("{at}.ports[{i}]");
        if !seen.insert(*port) {
            found.errors.push(source.problem(&path, format!("port {port} is listed twice"), "list each port once"));
        } else if in_media(*port) {
            let message = format!("SIP port {port} is one of the media ports {first}-{last}");
            let help = "write the server's RTP range in media_ports, without its SIP ports";
            found.errors.push(source.problem(&path, message, help));
        }
    }
    let recovery = sip.recovery_port;
    let clash = if sip.ports.contains(&recovery) {
        Some("is a SIP port of the server: the server would receive the responses to the agent's requests".to_owned())
    } else if in_media(recovery) {
        Some(format!("is one of the media ports {first}-{last}"))
    } else {
        None
    };
    if let Some(why) = clash {
        let path =
            if source.has(&format!("{at}.recovery_port")) { format!("{at}.recovery_port") } else { at.to_owned() };
        let free = (5070..5090).chain(6070..6090).find(|p| !sip.ports.contains(p) && !in_media(*p)).unwrap_or(7070);
        let help = format!("write recovery_port = {free}, or another free port of the virtual address");
        found.errors.push(source.problem(&path, format!("the recovery port {recovery} {why}"), help));
    }
    for (key, value) in [("window", sip.window), ("max_calls", sip.max_calls)] {
        if value == 0 {
            let message =
                format!("with `{key}` of 0, no call can be {}", if key == "window" { "recovered" } else { "tracked" });
            let help = format!(
                "write {key} = 1 or more, or leave `{key}` out; to move only the addresses, remove [instance.sip]"
            );
            found.errors.push(source.problem(&format!("{at}.{key}"), message, help));
        }
    }
    ends(sip, at, source, found);
    if let Some(header) = &sip.pair_header {
        // A header name is a token (RFC 3261 section 25.1).
        let token = |b: u8| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b);
        if header.is_empty() || !header.bytes().all(token) {
            let message = format!("{header:?} is not the name of a SIP header");
            found.errors.push(source.problem(
                &format!("{at}.pair_header"),
                message,
                "write the name without a colon: \"X-Call-Ref\"",
            ));
        }
    }
    server(sip, at, source, found);
    for (i, number) in sip.emergency.iter().enumerate() {
        if number.is_empty() || number.chars().any(char::is_whitespace) {
            let message = format!("{number:?} is not a number that a phone can dial");
            found.errors.push(source.problem(
                &format!("{at}.emergency[{i}]"),
                message,
                "write the number as phones dial it: \"911\"",
            ));
        }
    }
}

/// Where the server reports its bridges.
fn server(sip: &Sip, at: &str, source: &Source<'_>, found: &mut Found) {
    let ami = sip.ami.as_ref().map(|a| (a.address, "ami", 5038));
    let esl = sip.esl.as_ref().map(|e| (e.address, "esl", 8021));
    if ami.is_some() && esl.is_some() {
        let help = "keep only the section of the server that uses the instance's SIP ports";
        found.errors.push(source.problem(
            &format!("{at}.esl"),
            "[instance.sip.ami] and [instance.sip.esl] exclude each other: a server is either Asterisk or FreeSWITCH",
            help,
        ));
    }
    for (address, key, port) in ami.into_iter().chain(esl) {
        let path = if source.has(&format!("{at}.{key}.address")) {
            format!("{at}.{key}.address")
        } else {
            format!("{at}.{key}")
        };
        if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
            let message = format!("cannot connect to {address}");
            found.errors.push(source.problem(&path, message, format!("write address = \"127.0.0.1:{port}\"")));
        } else if key == "esl" && !address.ip().is_loopback() {
            let message = format!(
                "the password goes to {address} in clear text, and the agent needs only this node's own server"
            );
            found.warnings.push(source.problem(
                &path,
                message,
                "let FreeSWITCH listen on loopback, and write that address",
            ));
        }
    }
    if let Some(user) = sip.ami.as_ref().map(|a| &a.user)
        && (user.is_empty() || user.contains(char::is_control))
    {
        let message = format!("{user:?} is not a valid user of the manager interface");
        let help = "write the section name from manager.conf: user = \"keepcall\"";
        found.errors.push(source.problem(&format!("{at}.ami.user"), message, help));
    }
}

fn hook(command: &[String], at: &str, source: &Source<'_>, found: &mut Found) {
    let Some(program) = command.first() else {
        let help = "write [\"/usr/bin/systemctl\", \"restart\", \"asterisk\"], or leave the hook out";
        found.errors.push(source.problem(at, "the hook names no program", help));
        return;
    };
    if !Path::new(program).is_absolute() {
        let message = format!("{program:?} is not an absolute path: hooks run without a shell and without PATH");
        let help = "write the whole path, for example \"/usr/bin/systemctl\"";
        found.errors.push(source.problem(&format!("{at}[0]"), message, help));
    }
}
