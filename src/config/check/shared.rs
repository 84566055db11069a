//! Two instances that share a server, or its ports.
//!
//! The fence of a backup stops what the server sends, and it knows the server by its source ports alone: a server's
//! socket may be bound to any address. So where two instances have a port in common, the fence of the one that is
//! backup here silences the server of the one that is master here. And a server with an arm in two networks has one leg
//! of a call in each: each instance would know half of it, and the two halves may move to different hosts.

use super::Found;
use crate::config::model::{Config, Sip};
use crate::config::source::Source;

pub(super) fn check(config: &Config, source: &Source<'_>, found: &mut Found) {
    let with_calls: Vec<(usize, &str, &Sip)> =
        config.instances.iter().enumerate().filter_map(|(i, it)| Some((i, &*it.name, it.sip.as_ref()?))).collect();
    for (n, (i, name, sip)) in with_calls.iter().enumerate() {
        // One report for each instance: the first one that it collides with.
        let Some((other, what)) = with_calls[..n].iter().find_map(|(_, other, its)| Some((other, common(sip, its)?)))
        else {
            continue;
        };
        let at = format!("instance[{i}].sip");
        let path = format!("{at}.{}", what.key);
        // A default has no place in the file, and a key of another section below this one is not the place either.
        let path = if source.has(&path) { &path } else { &at };
        let message = format!(
            "instances {other:?} and {name:?} share {}: where one of them is backup, its fence would stop what the \
             other one sends",
            what.words
        );
        let help = "two servers need SIP ports and media ports of their own. One server with an address in two \
             networks has one leg of a call in each, so its calls cannot move in two parts: put all its addresses \
             into one instance if one interface carries them, or keep [instance.sip] in one instance only"
            .to_owned();
        found.errors.push(source.problem(path, message, help));
    }
}

/// What two instances have in common: the key that says so, and the words.
struct Common {
    key: &'static str,
    words: String,
}

fn common(a: &Sip, b: &Sip) -> Option<Common> {
    if let Some(port) = a.ports.iter().find(|port| b.ports.contains(port)) {
        return Some(Common { key: "ports", words: format!("the SIP port {port}") });
    }
    let (first, last) = (a.media_ports.0.max(b.media_ports.0), a.media_ports.1.min(b.media_ports.1));
    if first <= last {
        return Some(Common { key: "media_ports", words: format!("the media ports {first}-{last}") });
    }
    // The fence of one instance would stop the other one's server, or the agent's own requests from its recovery port.
    let within =
        |sip: &Sip, port: u16| sip.ports.contains(&port) || (sip.media_ports.0..=sip.media_ports.1).contains(&port);
    let taken = |key: &'static str, ports: &[u16], sip: &Sip| {
        let port = ports.iter().find(|port| within(sip, **port))?;
        Some(Common { key, words: format!("port {port}") })
    };
    taken("ports", &a.ports, b)
        .or_else(|| taken("recovery_port", &[a.recovery_port], b))
        .or_else(|| taken("media_ports", &b.ports, a))
        .or_else(|| taken("media_ports", &[b.recovery_port], a))
}
