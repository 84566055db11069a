//! The keys of the file and the form of each value. Finds every unknown key, missing key and malformed value in one
//! pass.
//!
//! Serde stops at its first mistake; an operator wants the whole list. A test keeps this table and `model` in step.

use super::error::Problem;
use super::model::HepAddress;
use super::source::Source;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The longest duration: sums and products of several fit every clock, and nothing here waits longer.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The form of one value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// A string.
    Text,
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// An array of strings.
    Texts,
    /// `true` or `false`.
    Bool,
    /// A whole number in the range.
    Whole(u64, u64),
    /// An array of ports.
    Ports,
    /// A number, fraction allowed.
    Number,
    /// `"100ms"`.
    Duration,
    /// `"10000-20000"`.
    PortRange,
    /// An IPv4 or IPv6 address.
    Address,
    /// An array of addresses with prefix lengths.
    Nets,
    /// An address with a port.
    Socket,
    /// An array of addresses.
    Addresses,
    /// An array of addresses with port, each prefixed `udp:` or `tcp:`.
    Carriers,
    /// A table with the given keys.
    Table(&'static [Key]),
    /// An array of tables with the given keys.
    Tables(&'static [Key]),
}

/// One key of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) required: bool,
}

const fn must(name: &'static str, form: Form) -> Key {
    Key { name, form, required: true }
}
const fn may(name: &'static str, form: Form) -> Key {
    Key { name, form, required: false }
}

const PORT: Form = Form::Whole(1, 65_535);
const COUNT: Form = Form::Whole(0, u32::MAX as u64);

/// The whole file.
pub(super) const ROOT: &[Key] = &[
    must("node", Form::Table(NODE)),
    must("etcd", Form::Table(ETCD)),
    may("timing", Form::Table(TIMING)),
    may("control", Form::Table(CONTROL)),
    must("instance", Form::Tables(INSTANCE)),
];
const NODE: &[Key] = &[
    must("name", Form::Text),
    may("cluster", Form::Text),
    must("address", Form::Address),
    may("port", PORT),
    must("key_file", Form::Text),
    may("accept_key_files", Form::Texts),
    may("priority", Form::Whole(0, 65_535)),
];
const ETCD: &[Key] = &[
    must("endpoints", Form::Texts),
    may("user", Form::Text),
    may("password_file", Form::Text),
    may("ca_file", Form::Text),
    may("cert_file", Form::Text),
    may("key_file", Form::Text),
    may("timeout", Form::Duration),
    may("lease_ttl", Form::Duration),
];
const TIMING: &[Key] = &[
    may("heartbeat", Form::Duration),
    may("hold", Form::Duration),
    may("drift", Form::Number),
    may("flap_budget", Form::Whole(0, 1_000)),
    may("flap_window", Form::Duration),
];
const CONTROL: &[Key] = &[may("socket", Form::Text), may("group", Form::Text)];
const INSTANCE: &[Key] = &[
    must("name", Form::Text),
    must("interface", Form::Text),
    must("addresses", Form::Nets),
    may("preempt", Form::Bool),
    may("preempt_delay", Form::Duration),
    may("mode", Form::Choice(&["observe", "audio", "full"])),
    may("announce", Form::Table(ANNOUNCE)),
    may("check", Form::Tables(CHECK)),
    may("sip", Form::Table(SIP)),
    may("hooks", Form::Table(HOOKS)),
];
const ANNOUNCE: &[Key] = &[may("burst", COUNT), may("interval", Form::Duration), may("refreshes", COUNT)];
const CHECK: &[Key] = &[
    must("name", Form::Text),
    may("interval", Form::Duration),
    may("timeout", Form::Duration),
    may("rise", COUNT),
    may("fall", COUNT),
    may("fatal", Form::Bool),
    may("sip-options", Form::Table(SIP_OPTIONS)),
    may("process", Form::Table(PROCESS)),
];
const SIP_OPTIONS: &[Key] = &[must("target", Form::Socket), may("uri", Form::Text), may("codes", Form::Texts)];
const PROCESS: &[Key] = &[may("pidfile", Form::Text), may("name", Form::Text), may("unit", Form::Text)];
const SIP: &[Key] = &[
    may("ports", Form::Ports),
    may("media_ports", Form::PortRange),
    may("media", Form::Choice(&["relay", "external"])),
    may("recovery_port", PORT),
    may("pair_header", Form::Text),
    may("min_confidence", Form::Whole(0, 100)),
    may("advertised", Form::Texts),
    may("emergency", Form::Texts),
    may("encrypt", Form::Bool),
    may("plain_records", Form::Choice(&["refuse", "accept"])),
    may("window", Form::Whole(0, 1_000_000)),
    may("max_calls", Form::Whole(0, 10_000_000)),
    may("rtp_timeout", Form::Duration),
    may("max_carried", Form::Duration),
    may("hep", Form::Table(HEP)),
    may("ami", Form::Table(AMI)),
    may("esl", Form::Table(ESL)),
];
const HEP: &[Key] = &[
    must("listen", Form::Carriers),
    may("key_file", Form::Text),
    may("from", Form::Addresses),
    may("server", Form::Addresses),
];
const AMI: &[Key] = &[may("address", Form::Socket), must("user", Form::Text), must("secret_file", Form::Text)];
const ESL: &[Key] = &[may("address", Form::Socket), must("password_file", Form::Text)];
const HOOKS: &[Key] = &[may("on_master", Form::Texts), may("on_backup", Form::Texts)];

/// Walks the document: notes the place of every value, and returns every mistake of form.
pub(super) fn walk(document: &Spanned<DeTable<'_>>, source: &mut Source<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    table(document.get_ref(), None, ROOT, "", source, &mut problems);
    problems
}

fn table(
    t: &DeTable<'_>,
    span: Option<Range<usize>>,
    keys: &[Key],
    path: &str,
    source: &mut Source<'_>,
    out: &mut Vec<Problem>,
) {
    for (name, value) in t {
        let at = join(path, name.get_ref());
        match keys.iter().find(|k| k.name == name.get_ref().as_ref()) {
            Some(key) => {
                source.note(&at, value.span());
                self::value(value, key.form, &at, source, out);
            }
            None => out.push(unknown(name, keys, path, source)),
        }
    }
    for key in keys.iter().filter(|k| k.required && !t.contains_key(k.name)) {
        let (message, help) = match (key.form, path) {
            (Form::Table(_), "") => (format!("section [{}] is missing", key.name), format!("add [{}]", key.name)),
            (Form::Tables(_), "") => (format!("section [[{}]] is missing", key.name), format!("add [[{}]]", key.name)),
            _ => (
                format!("{} lacks the key `{}`", title(path), key.name),
                format!("add {}", example_line(key.name, key.form)),
            ),
        };
        out.push(source.problem_at(span.clone(), message, Some(help)));
    }
}

fn value(v: &Spanned<DeValue<'_>>, form: Form, path: &str, source: &mut Source<'_>, out: &mut Vec<Problem>) {
    match (form, v.get_ref()) {
        (Form::Table(keys), DeValue::Table(t)) => return table(t, Some(v.span()), keys, path, source, out),
        (Form::Tables(keys), DeValue::Array(items)) => {
            for (i, item) in items.iter().enumerate() {
                let at = format!("{path}[{i}]");
                source.note(&at, item.span());
                value(item, Form::Table(keys), &at, source, out);
            }
            return;
        }
        (Form::Texts | Form::Ports | Form::Nets | Form::Addresses | Form::Carriers, DeValue::Array(items)) => {
            let each = match form {
                Form::Ports => PORT,
                Form::Nets | Form::Carriers => form,
                Form::Addresses => Form::Address,
                _ => Form::Text,
            };
            for (i, item) in items.iter().enumerate() {
                source.note(&format!("{path}[{i}]"), item.span());
                if !fits(item.get_ref(), each, true) {
                    out.push(wrong(item, each, true, path, source));
                }
            }
            return;
        }
        (
            Form::Table(_)
            | Form::Tables(_)
            | Form::Texts
            | Form::Ports
            | Form::Nets
            | Form::Addresses
            | Form::Carriers,
            _,
        ) => {}
        (_, found) if fits(found, form, false) => return,
        _ => {}
    }
    out.push(wrong(v, form, false, path, source));
}

/// Whether one value has the form; `item` means an element of an array.
fn fits(v: &DeValue<'_>, form: Form, item: bool) -> bool {
    match (form, v) {
        (Form::Text, DeValue::String(_)) | (Form::Bool, DeValue::Boolean(_)) => true,
        (Form::Whole(low, high), DeValue::Integer(i)) => {
            u64::from_str_radix(i.as_str(), i.radix()).is_ok_and(|n| (low..=high).contains(&n))
        }
        (Form::Choice(all), DeValue::String(s)) => all.contains(&s.as_ref()),
        (Form::Number, DeValue::Integer(_) | DeValue::Float(_)) => true,
        (Form::Duration, DeValue::String(s)) => humantime::parse_duration(s).is_ok_and(|d| d <= LONGEST),
        (Form::Address, DeValue::String(s)) => s.parse::<IpAddr>().is_ok(),
        (Form::Nets, DeValue::String(s)) => item && s.parse::<ipnet::IpNet>().is_ok(),
        (Form::Socket, DeValue::String(s)) => s.parse::<SocketAddr>().is_ok(),
        (Form::Carriers, DeValue::String(s)) => item && s.parse::<HepAddress>().is_ok(),
        (Form::PortRange, DeValue::String(s)) => s.split_once('-').is_some_and(
            |(a, b)| matches!((a.trim().parse::<u16>(), b.trim().parse::<u16>()), (Ok(a), Ok(b)) if 0 < a && a < b),
        ),
        _ => false,
    }
}

fn wrong(v: &Spanned<DeValue<'_>>, form: Form, item: bool, path: &str, source: &Source<'_>) -> Problem {
    let name = path.rsplit('.').next().unwrap_or(path);
    let found = match v.get_ref() {
        DeValue::String(s) => format!("{s:?}"),
        DeValue::Integer(i) => i.as_str().to_owned(),
        DeValue::Float(f) => f.as_str().to_owned(),
        DeValue::Boolean(b) => b.to_string(),
        DeValue::Datetime(d) => d.to_string(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    };
    let message = if item {
        format!("{found} in `{name}` is not {}", item_name(form))
    } else {
        format!("`{name}` must be {}, not {found}", form_name(form))
    };
    // The commonest slips get the exact text to write.
    let help = match (form, v.get_ref()) {
        (Form::Nets, DeValue::String(s)) if s.parse::<IpAddr>().is_ok() => {
            format!("add the prefix length of the network: \"{s}/{}\"", if s.contains(':') { 64 } else { 24 })
        }
        (Form::Socket, DeValue::String(s)) if s.parse::<IpAddr>().is_ok() => {
            let port = [(".ami.", 5038), (".esl.", 8021)]
                .iter()
                .find(|(at, _)| path.contains(at))
                .map_or(5060, |(_, port)| *port);
            format!(
                "add the port: \"{}\"",
                if s.contains(':') { format!("[{s}]:{port}") } else { format!("{s}:{port}") }
            )
        }
        (Form::Duration, DeValue::String(s)) if humantime::parse_duration(s).is_ok() => {
            "write a year at most: \"365d\"".to_owned()
        }
        (Form::Duration, DeValue::Integer(i)) => {
            format!("write the value in quotes and with its unit: \"{0}ms\" or \"{0}s\"", i.as_str())
        }
        (Form::Texts, DeValue::String(s)) => format!("write {name} = [{s:?}]"),
        (Form::Nets | Form::Carriers | Form::Addresses, DeValue::String(s)) if !item => {
            format!("write {name} = [{s:?}]")
        }
        (Form::Carriers, DeValue::String(s)) if s.parse::<SocketAddr>().is_ok() => {
            format!("add the transport: \"udp:{s}\" or \"tcp:{s}\"")
        }
        (Form::Address, _) if item => "write it like \"192.0.2.1\", without a prefix length".to_owned(),
        (Form::Carriers, _) if item => "write it like \"udp:127.0.0.1:9060\"".to_owned(),
        (Form::Ports, DeValue::Integer(i)) => format!("write {name} = [{}]", i.as_str()),
        (Form::Table(_), _) => format!("write a separate section: [{}]", section(path)),
        (Form::Tables(_), _) => format!("write a separate section for each: [[{}]]", section(path)),
        (Form::Nets, _) if item => "write it like \"192.0.2.10/24\"".to_owned(),
        (Form::Whole(..), _) if item => "write it like 5060, without quotes".to_owned(),
        (Form::Text, _) if item => "write it in quotes".to_owned(),
        _ => format!("write it like {}", example_line(name, form)),
    };
    source.problem_at(Some(v.span()), message, Some(help))
}

fn form_name(form: Form) -> String {
    match form {
        Form::Text => "a string".to_owned(),
        Form::Choice(all) => format!("one of {}", all.join(", ")),
        Form::Texts => "an array of strings".to_owned(),
        Form::Bool => "true or false".to_owned(),
        Form::Whole(low, u64::MAX | 0xffff_ffff) => format!("a whole number of {low} or more"),
        Form::Whole(low, high) => format!("a whole number from {low} to {high}"),
        Form::Ports => "an array of ports".to_owned(),
        Form::Number => "a number".to_owned(),
        Form::Duration => "a duration with its unit".to_owned(),
        Form::PortRange => "a port range, the lower port first".to_owned(),
        Form::Address => "an IPv4 or IPv6 address".to_owned(),
        Form::Nets => "an array of addresses with prefix lengths".to_owned(),
        Form::Socket => "an address with a port".to_owned(),
        Form::Addresses => "an array of addresses".to_owned(),
        Form::Carriers => "an array of addresses with udp: or tcp: and a port".to_owned(),
        Form::Table(_) => "a table".to_owned(),
        Form::Tables(_) => "an array of tables".to_owned(),
    }
}

fn item_name(form: Form) -> String {
    match form {
        Form::Nets => "an address with its prefix length".to_owned(),
        Form::Carriers => "udp: or tcp: with an address and a port".to_owned(),
        Form::Whole(..) => "a port from 1 to 65535".to_owned(),
        other => form_name(other),
    }
}

/// An example line for a key of this form.
fn example_line(name: &str, form: Form) -> String {
    let value = match (form, name) {
        (Form::Text, "interface") => "\"eth0\"",
        (Form::Text, "key_file") => "\"/etc/keepcall/cluster.key\"",
        (Form::Text, "socket") => "\"/run/keepcall/keepcall.sock\"",
        (Form::Text, "uri") => "\"sip:keepcall@127.0.0.1\"",
        (Form::Text, "pidfile") => "\"/run/asterisk/asterisk.pid\"",
        (Form::Text, "unit") => "\"asterisk.service\"",
        (Form::Text, "user") => "\"keepcall\"",
        (Form::Text, "secret_file") => "\"/etc/keepcall/ami.secret\"",
        (Form::Text, "password_file") => "\"/etc/keepcall/password\"",
        (Form::Text, _) => "\"a\"",
        (Form::Choice(all), _) => return format!("{name} = {:?}", all.first().copied().unwrap_or_default()),
        (Form::Texts, "endpoints") => "[\"http://192.0.2.1:2379\"]",
        (Form::Texts, "codes") => "[\"2xx\"]",
        (Form::Texts, "accept_key_files") => "[\"/etc/keepcall/former.key\"]",
        (Form::Texts, "advertised") => "[\"203.0.113.10\"]",
        (Form::Texts, "emergency") => "[\"911\", \"112\"]",
        (Form::Texts, _) => "[\"/usr/bin/systemctl\", \"restart\", \"asterisk\"]",
        (Form::Bool, _) => "true",
        (Form::Whole(..), "priority") => "100",
        (Form::Whole(..), "port") => "7490",
        (Form::Whole(..), "recovery_port") => "5070",
        (Form::Whole(..), "max_calls") => "10000",
        (Form::Whole(..), "min_confidence") => "80",
        (Form::Whole(..), _) => "3",
        (Form::Ports, _) => "[5060]",
        (Form::Number, _) => "0.01",
        (Form::Duration, "heartbeat") => "\"100ms\"",
        (Form::Duration, "lease_ttl") => "\"3s\"",
        (Form::Duration, _) => "\"500ms\"",
        (Form::PortRange, _) => "\"10000-20000\"",
        (Form::Address, _) => "\"192.0.2.1\"",
        (Form::Nets, _) => "[\"192.0.2.10/24\"]",
        (Form::Socket, "address") => "\"127.0.0.1:5038\"",
        (Form::Socket, _) => "\"127.0.0.1:5060\"",
        (Form::Addresses, _) => "[\"192.0.2.1\"]",
        (Form::Carriers, _) => "[\"udp:127.0.0.1:9060\"]",
        (Form::Table(_) | Form::Tables(_), _) => "{}",
    };
    format!("{name} = {value}")
}

fn unknown(name: &Spanned<std::borrow::Cow<'_, str>>, keys: &[Key], path: &str, source: &Source<'_>) -> Problem {
    let given = name.get_ref().as_ref();
    let nearest =
        keys.iter().map(|k| (distance(given, k.name), k.name)).min().filter(|(d, n)| *d <= 1.max(n.len() / 3));
    let known: Vec<&str> = keys.iter().map(|k| k.name).collect();
    let help = match nearest {
        Some((_, n)) => format!("did you mean `{n}`? valid keys: {}", known.join(", ")),
        None => match home_of(given, ROOT, "") {
            Some(section) if section != self::section(path) => {
                format!("`{given}` belongs in {}; valid keys: {}", title(&section), known.join(", "))
            }
            _ => format!("valid keys: {}", known.join(", ")),
        },
    };
    let place = if path.is_empty() { "at the top of the file".to_owned() } else { format!("in {}", title(path)) };
    source.problem_at(Some(name.span()), format!("unknown key `{given}` {place}"), Some(help))
}

/// The first section with a key of this name.
fn home_of(name: &str, keys: &[Key], path: &str) -> Option<String> {
    keys.iter().find_map(|k| {
        let (Form::Table(inner) | Form::Tables(inner)) = k.form else { return None };
        let at = join(path, k.name);
        if inner.iter().any(|k| k.name == name) { Some(at) } else { home_of(name, inner, &at) }
    })
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Section name of a path: `instance[0].check[1]` becomes `instance.check`.
fn section(path: &str) -> String {
    path.split('.').map(|part| part.split('[').next().unwrap_or(part)).collect::<Vec<_>>().join(".")
}

/// A section's header in the file.
fn title(path: &str) -> String {
    let name = section(path);
    let many = matches!(name.as_str(), "instance" | "instance.check");
    if many { format!("[[{name}]]") } else { format!("[{name}]") }
}

/// Edit distance (insert, delete, replace), for suggestions. Both strings are short key names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
