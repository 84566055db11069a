//! Firewalls of the host that stop relayed audio: told, and mended by the very command that is told.

use super::QUIET;
use keepcall::calls::model::Flow;
use keepcall::recovery::media::kernel::KernelRelay;
use keepcall::recovery::permitted::Ground;
use keepcall::vip::forward::{Obstacle, obstacles};
use keepcall::vip::nfnl::Link;
use keepcall::vip::sysctl;
use lab::netns::{Lan, stdout, uninterrupted};
use std::net::{SocketAddr, UdpSocket};

/// A packet of RTP (RFC 3550 section 5.1).
const RTP: &[u8] = b"\x80\0\0\x01\0\0\0\x02\0\0\0\x03audio";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Host `h` relays from 10.77.0.1:4000 to 10.77.0.2:4002 through its address 10.77.0.9.
pub(super) fn relaying(lan: &Lan) {
    lan.block_on("h", || async {
        assert!(sysctl::for_relay("eth0").errors.is_empty());
        let relay = KernelRelay::new("test", &Ground::of(&[addr("10.77.0.9:1").ip()]));
        let (from, at) = (addr("10.77.0.1:4000"), addr("10.77.0.9:10000"));
        let flow = Flow { from, at, to: addr("10.77.0.2:4002"), source: addr("10.77.0.9:10004"), udptl: false };
        relay.set("call", &[flow]).await.unwrap();
    });
    lan.ip("h", "addr add 10.77.0.9/24 dev eth0");
}

/// The sender of the next datagram, if one comes.
pub(super) fn heard(socket: &UdpSocket) -> Option<String> {
    socket.set_read_timeout(Some(QUIET)).unwrap();
    let (_, from) = uninterrupted(|| socket.recv_from(&mut [0; 2048])).ok()?;
    Some(from.to_string())
}

/// Whether audio passes.
pub(super) fn audio_passes(lan: &Lan) -> bool {
    let (a, b) = (lan.socket("a", "10.77.0.1:4000"), lan.socket("b", "10.77.0.2:4002"));
    a.send_to(RTP, "10.77.0.9:10000").unwrap();
    let from = heard(&b);
    assert!(from.as_deref().is_none_or(|from| from == "10.77.0.9:10004"), "{from:?}");
    from.is_some()
}

fn found(lan: &Lan) -> Vec<Obstacle> {
    lan.block_on("h", || async { obstacles(&Link::default(), "eth0", true, false).await.unwrap() })
}

/// Runs commands in `h`, separated by `;`.
fn run(lan: &Lan, commands: &[&str]) {
    for command in commands {
        let done = lan.exec("h", command);
        assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn a_firewall_that_stops_relayed_audio_is_told_with_the_rule_that_mends_it() {
    let nft = "nft add table inet f";
    let drops = "nft add chain inet f onward { type filter hook forward priority 0 ; policy drop ; }";
    let accepts = "nft add chain inet f onward { type filter hook forward priority 0 ; policy accept ; }";
    let established = "nft add rule inet f onward ct state established,related accept";
    let of_set = "nft add rule inet f onward ct state { established , related } accept";
    for (commands, chain, certain) in [
        (&[nft, drops][..], "inet f onward", true),
        // A set is not read, so the rule may accept.
        (&[nft, drops, of_set], "inet f onward", false),
        (&[nft, drops, established], "inet f onward", true),
        (
            &[nft, accepts, "nft add rule inet f onward iifname eth0 meta l4proto udp counter reject"],
            "inet f onward",
            true,
        ),
        (&["iptables -P FORWARD DROP"], "ip filter FORWARD", true),
        (
            &[
                "iptables -P FORWARD DROP",
                "iptables -N DOCKER-USER",
                "iptables -A DOCKER-USER -j RETURN",
                "iptables -A FORWARD -j DOCKER-USER",
                "iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
                "iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
            ],
            "ip filter FORWARD",
            true,
        ),
        (
            &[
                "iptables -P FORWARD DROP",
                "iptables -N ufw-before-forward",
                "iptables -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
                "iptables -A ufw-before-forward -p icmp -j ACCEPT",
                "iptables -A FORWARD -j ufw-before-forward",
            ],
            "ip filter FORWARD",
            false,
        ),
        (&["iptables-legacy -P FORWARD DROP"], "FORWARD of iptables-legacy", true),
    ] {
        let lan = Lan::new(&["a", "b", "h"]);
        relaying(&lan);
        assert!(found(&lan).is_empty() && audio_passes(&lan));
        run(&lan, commands);
        let told = found(&lan);
        assert!(!audio_passes(&lan), "audio passes {commands:?}");
        assert_eq!(told.len(), 1, "{commands:?}: {told:?}");
        assert_eq!((&*told[0].chain, told[0].certain), (chain, certain), "{commands:?}");
        let words = told[0].to_string();
        assert!(words.contains(chain) && words.contains("relayed audio"), "{words}");
        // What is between the first backticks is the command.
        let cure = words.split('`').nth(1).unwrap();
        run(&lan, &[cure]);
        assert!(audio_passes(&lan), "no audio after {cure}:\n{}", stdout(&lan.exec("h", "nft list ruleset")));
        assert_eq!(found(&lan), [], "{cure}");
    }
}

#[test]
fn a_firewall_that_lets_relayed_audio_pass_is_not_told() {
    for rule in [
        "meta l4proto udp accept",
        "iifname eth0 accept",
        "iifname eth* oifname eth0 accept",
        "ct state untracked accept",
        "meta nfproto ipv4 iifname != docker0 accept",
        "meta mark & 0xf0000000 == 0x60000000 accept",
    ] {
        let lan = Lan::new(&["a", "b", "h"]);
        relaying(&lan);
        let rule = format!("nft add rule inet f onward {rule}");
        let chain = "nft add chain inet f onward { type filter hook forward priority 0 ; policy drop ; }";
        run(&lan, &["nft add table inet f", chain, &rule]);
        assert_eq!(found(&lan), [], "{rule}");
        assert!(audio_passes(&lan), "{rule}");
    }
}
