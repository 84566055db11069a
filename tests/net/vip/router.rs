//! The host is no router because of the relay, and its settings go back to what they were.

use super::forward::{audio_passes, heard, relaying};
use keepcall::vip::router::{Router, TABLE};
use lab::netns::{Lan, stdout};
use std::sync::Arc;

/// A LAN where `a` sends through `h` to addresses that only `b` has.
fn lan() -> Lan {
    let lan = Lan::new(&["a", "b", "h"]);
    for (v, far, of_h) in [("-4", "10.78.0.2/32", "10.77.0.3"), ("-6", "fd78::2/128", "fd77::3")] {
        lan.ip("b", &format!("addr add {far} dev eth0{}", if v == "-6" { " nodad" } else { "" }));
        lan.ip("a", &format!("{v} route add {far} via {of_h}"));
        lan.ip("h", &format!("{v} route add {far} dev eth0"));
    }
    // `a` must not learn the short way.
    lan.exec("a", "sysctl -qw net.ipv4.conf.all.accept_redirects=0 net.ipv4.conf.eth0.accept_redirects=0");
    lan.exec("a", "sysctl -qw net.ipv6.conf.all.accept_redirects=0 net.ipv6.conf.eth0.accept_redirects=0");
    lan
}

/// Whether `h` forwards a stranger's packet, in IPv4 and in IPv6.
fn forwards(lan: &Lan) -> (bool, bool) {
    let one = |from: &str, to: &str| {
        let (a, b) = (lan.socket("a", from), lan.socket("b", to));
        a.send_to(b"stranger", to).unwrap();
        heard(&b).is_some()
    };
    (one("10.77.0.1:5000", "10.78.0.2:5001"), one("[fd77::1]:5000", "[fd78::2]:5001"))
}

/// The settings of `h` for IP.
fn settings(lan: &Lan) -> String {
    let all = stdout(&lan.exec("h", "sysctl -a -r net.ipv[46].(conf|ip_nonlocal|ip_forward)"));
    assert!(all.contains("net.ipv4.conf.eth0.send_redirects"), "{all}");
    all
}

/// An agent of `h` with this router: `change` runs there.
fn agent<F: Future<Output = ()>>(
    lan: &Lan,
    router: &Arc<Router>,
    change: impl FnOnce(Arc<Router>) -> F + Send + 'static,
) {
    let router = Arc::clone(router);
    lan.block_on("h", move || change(router));
}

async fn prepare(router: Arc<Router>, instance: &'static str) {
    let done = router.prepare(instance, "eth0", true).await.unwrap();
    assert!(done.errors.is_empty(), "{:?}", done.errors);
}

async fn release(router: Arc<Router>, instance: &'static str) {
    let done = router.release(instance).await.unwrap();
    assert!(done.errors.is_empty(), "{:?}", done.errors);
}

fn table(lan: &Lan) -> String {
    stdout(&lan.exec("h", &format!("nft -a list table inet {TABLE}")))
}

#[test]
fn a_strangers_packet_is_not_forwarded_because_of_the_relay() {
    let lan = lan();
    assert_eq!(forwards(&lan), (false, false));
    // Forwarding alone, as the relay needs it, makes the host a router.
    relaying(&lan);
    assert_eq!(forwards(&lan), (true, true));
    lan.exec("h", "sysctl -qw net.ipv4.conf.eth0.forwarding=0 net.ipv6.conf.eth0.force_forwarding=0");
    lan.exec("h", "sysctl -qw net.ipv6.conf.all.forwarding=0");
    let router = Arc::default();
    agent(&lan, &router, |r| prepare(r, "pbx"));
    assert_eq!(forwards(&lan), (false, false));
    assert!(audio_passes(&lan), "{}", table(&lan));

    // A firewall's reload removes the table, and somebody's sysctl --system the setting.
    lan.exec("h", &format!("nft delete table inet {TABLE}"));
    lan.exec("h", "sysctl -qw net.ipv4.conf.eth0.forwarding=0");
    agent(&lan, &router, |r| async move { drop(r.look().await.unwrap()) });
    assert_eq!(forwards(&lan), (false, false));
    assert!(audio_passes(&lan), "{}", table(&lan));

    // Docker starts: the host is a router from now on, for what it forwards and not for IPv6.
    lan.exec("h", "sysctl -qw net.ipv4.ip_forward=1");
    agent(&lan, &router, |r| async move { drop(r.look().await.unwrap()) });
    assert_eq!(forwards(&lan), (true, false));
    // For IPv6, too; and no longer, when that ends.
    lan.exec("h", "sysctl -qw net.ipv6.conf.all.forwarding=1");
    agent(&lan, &router, |r| async move { drop(r.look().await.unwrap()) });
    assert_eq!(forwards(&lan), (true, true));
    lan.exec("h", "sysctl -qw net.ipv6.conf.all.forwarding=0 net.ipv4.ip_forward=0");
    agent(&lan, &router, |r| async move { drop(r.look().await.unwrap()) });
    assert_eq!(forwards(&lan), (false, false));
    agent(&lan, &router, |r| release(r, "pbx"));
    assert_eq!(forwards(&lan), (false, false));
    assert!(table(&lan).is_empty());
}

#[test]
fn a_host_that_was_a_router_stays_one() {
    let lan = lan();
    lan.exec("h", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    let before = settings(&lan);
    let router = Arc::default();
    agent(&lan, &router, |r| prepare(r, "pbx"));
    relaying(&lan);
    assert_eq!(forwards(&lan), (true, true));
    assert!(audio_passes(&lan));
    agent(&lan, &router, |r| release(r, "pbx"));
    assert_eq!(settings(&lan), before);
    assert_eq!(forwards(&lan), (true, true));
}

#[test]
fn a_clean_stop_puts_every_setting_back_also_after_a_process_that_was_killed() {
    let lan = lan();
    let before = settings(&lan);
    let agent_of = |node: &str| Arc::new(Router::new("default", node));
    let (router, other) = (agent_of("a"), agent_of("other"));
    agent(&lan, &router, |r| prepare(r, "pbx"));
    agent(&lan, &router, |r| prepare(r, "renamed"));
    agent(&lan, &other, |r| prepare(r, "pbx"));
    let during = settings(&lan);
    assert_ne!(during, before);
    // What was in memory is gone. The next process changes nothing but what its new configuration no longer has.
    let router = agent_of("a");
    agent(&lan, &router, |r| prepare(r, "pbx"));
    let there = table(&lan);
    assert!(there.contains("pbx") && !there.contains("renamed"), "{there}");
    let router = agent_of("a");
    agent(&lan, &router, |r| prepare(r, "pbx"));
    assert_eq!(table(&lan), there);
    // Another agent on this host needs the settings.
    agent(&lan, &router, |r| release(r, "pbx"));
    assert_eq!(settings(&lan), during);
    assert_eq!(forwards(&lan), (false, false));
    let other = agent_of("other");
    agent(&lan, &other, |r| prepare(r, "pbx"));
    // An operator's own choice of today stays.
    lan.exec("h", "sysctl -qw net.ipv4.conf.eth0.send_redirects=1");
    agent(&lan, &other, |r| release(r, "pbx"));
    assert_eq!(settings(&lan), before);
    assert!(table(&lan).is_empty());
}
