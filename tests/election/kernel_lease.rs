//! The kernel lease on real interfaces: a LAN's view of a host while it holds its addresses, and after.
mod scene;

use keepcall::os::clock;
use keepcall::vip::announce::Announcer;
use keepcall::vip::kernel_lease::{Enforcement, KernelLease, KernelLeaseError};
use keepcall::vip::rawudp::RawUdp;
use lab::netns::{Lan, stdout, until};
use scene::*;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn both(test: impl Fn(Enforcement)) {
    test(Enforcement::Netdev);
    test(Enforcement::Fallback);
}

#[test]
fn the_lan_is_answered_while_the_hold_lasts_and_no_longer() {
    both(|enforcement| {
        let scene = Scene::new(enforcement);
        let all = |anew: bool| -> Vec<bool> {
            vec![scene.answers("client", V4, anew), scene.answers("client", V6, anew), scene.pings(V4), scene.pings(V6)]
        };
        assert_eq!(all(true), [false; 4], "{enforcement:?}: before the first hold");
        assert_eq!((scene.neighbour("client", V4), scene.neighbour("client", V6)), (None, None));
        scene.renew(3, soon(20_000));
        assert_eq!(all(true), [true; 4], "{enforcement:?}: held");
        assert_eq!(scene.neighbour("client", V4), Some(scene.lan.mac("server")));
        assert!(stdout(&scene.lan.exec("server", "nft list ruleset")).contains("comment \"epoch 3\""));
        // Lowered, then over by itself.
        scene.renew(3, soon(300));
        until("the hold is over", || scene.left().is_none());
        // The client still knows the host's MAC.
        assert_eq!(all(false), [false; 4], "{enforcement:?}: over");
        assert_eq!(all(true), [false; 4], "{enforcement:?}: over, asked anew");
        assert_eq!((scene.neighbour("client", V4), scene.neighbour("client", V6)), (None, None));
        // The host itself works as before.
        assert!(scene.answers("server", V4, false) && scene.answers("server", V6, false), "loopback is closed");
        assert!(scene.pings("10.77.0.1") && scene.pings("fd77::1"));
        // Held again, then ended at once.
        scene.renew(4, soon(20_000));
        assert_eq!(all(true), [true; 4], "{enforcement:?}: held again");
        scene.lease.end().unwrap();
        assert_eq!(all(false), [false; 4], "{enforcement:?}: ended");
    });
}

#[test]
fn a_host_that_no_longer_renews_is_silent_at_the_deadline_and_never_later() {
    both(|enforcement| {
        let scene = Scene::new(enforcement);
        for round in 1..=4 {
            scene.renew(round, soon(5_000));
            assert!(scene.answers("client", V4, true) && scene.answers("client", V6, true));
            let over = Arc::new(AtomicBool::new(false));
            let probes = [probe(&scene, V4, &over), probe(&scene, V6, &over)];
            let deadline = soon(300);
            scene.renew(round, deadline);
            until("the deadline has passed for long", || clock::now() > deadline + Duration::from_millis(200));
            over.store(true, Ordering::Relaxed);
            for probe in probes {
                let probed = probe.join().unwrap();
                let (last, next) = (probed.last.unwrap(), probed.next.unwrap());
                println!("{enforcement:?}: the last answer was {:?} before the deadline", deadline.since(last));
                assert!(last <= deadline + SLACK, "answered {:?} after the deadline", last.since(deadline));
                // Not much earlier either: the guard, two ticks of the kernel's clock, and a busy machine. The first
                // probe without an answer counts; the one before it may be old because the prober itself had to wait.
                assert!(
                    deadline.since(next) < Duration::from_millis(150),
                    "silent {:?} too early",
                    deadline.since(next)
                );
            }
        }
    });
}

#[test]
fn a_thousand_renewals_lose_no_packet() {
    both(|enforcement| {
        let scene = Scene::new(enforcement);
        scene.renew(1, soon(5_000));
        assert!(scene.answers("client", V4, true) && scene.answers("client", V6, true));
        let over = Arc::new(AtomicBool::new(false));
        let probes = [probe(&scene, V4, &over), probe(&scene, V6, &over)];
        let lease = Arc::clone(&scene.lease);
        let mut took = scene.lan.inside("server", move || {
            let one = |_| {
                let begin = clock::now();
                lease.renew(1, soon(5_000)).unwrap();
                let took = clock::now().since(begin);
                std::thread::sleep(Duration::from_micros(500));
                took
            };
            (0..1000).map(one).collect::<Vec<_>>()
        });
        over.store(true, Ordering::Relaxed);
        for probe in probes {
            let probed = probe.join().unwrap();
            assert!(probed.last.is_some() && probed.missed == 0, "{} probes were not answered", probed.missed);
        }
        took.sort();
        println!("{enforcement:?}: a renewal took {:?} (median), {:?} (99th of 100)", took[500], took[990]);
        assert!(took[500] < Duration::from_millis(5), "{:?}", took[500]);
    });
}

#[test]
fn nothing_leaves_from_the_addresses_after_the_end() {
    both(|enforcement| {
        let scene = Scene::new(enforcement);
        let mut sniffer = Sniffer::open(&scene.lan, "client");
        let send = |frames: bool| {
            scene.lan.inside("server", move || {
                let raw = RawUdp::open("eth0").unwrap();
                for (ip, phone) in [(V4, "10.77.0.2:7000"), (V6, "[fd77::2]:7000")] {
                    let from = SocketAddr::new(ip.parse().unwrap(), 5060);
                    let _ = raw.send(from, phone.parse().unwrap(), b"raw");
                    let _ = raw.send(from, phone.parse().unwrap(), &[0; 4000]);
                    let socket = UdpSocket::bind(SocketAddr::new(from.ip(), 0)).unwrap();
                    let _ = socket.send_to(b"plain", phone.parse::<SocketAddr>().unwrap());
                    // To a neighbour that must be resolved first, with whatever sender address the kernel takes.
                    let _ = socket.send_to(b"plain", if from.is_ipv4() { "10.77.0.3:7" } else { "[fd77::3]:7" });
                }
                if frames {
                    Announcer::open("eth0", &vips()).unwrap().announce_now();
                }
            });
        };
        scene.renew(1, soon(20_000));
        send(true);
        let mut heard = 0;
        until("frames from the addresses come", || {
            heard += sniffer.told_by_vips();
            heard >= 13
        });
        scene.lease.end().unwrap();
        std::thread::sleep(QUIET);
        sniffer.told_by_vips();
        // Without the table at the interface, raw frames pass.
        send(enforcement == Enforcement::Netdev);
        assert!(!scene.answers("client", V4, true) && !scene.answers("client", V6, true));
        std::thread::sleep(QUIET);
        assert_eq!(sniffer.told_by_vips(), 0, "{enforcement:?}");
    });
}

#[test]
fn a_host_without_a_hold_talks_to_the_one_that_has_it() {
    both(|enforcement| {
        let scene = Scene::new(enforcement);
        let backup = Arc::new(lease(enforcement));
        let installing = Arc::clone(&backup);
        scene.lan.block_on("other", move || async move { installing.install().await.unwrap() });
        scene.renew(1, soon(20_000));
        for ip in [V4, V6] {
            assert!(scene.answers("other", ip, true), "{enforcement:?}: {ip}");
            assert_eq!(scene.neighbour("other", ip), Some(scene.lan.mac("server")));
        }
        // The holder resolves the backup first, from the virtual address.
        scene.lan.exec("server", "ip neigh flush all");
        assert!(scene.answers("other", V4, false) && scene.answers("other", V6, false));
        // A new master announces itself, and the backup learns it.
        scene.lan.inside("client", || Announcer::open("eth0", &vips()).unwrap().announce_now());
        for ip in [V4, V6] {
            until("the backup knows the new master", || scene.neighbour("other", ip) == Some(scene.lan.mac("client")));
        }
    });
}

#[test]
fn of_two_hosts_with_the_addresses_only_the_holder_answers() {
    both(|enforcement| {
        let mut scene = Scene::new(enforcement);
        scene.have_addresses("other");
        scene.echo("other");
        let other = Arc::new(lease(enforcement));
        let installing = Arc::clone(&other);
        scene.lan.block_on("other", move || async move { installing.install().await.unwrap() });
        let mut macs = Vec::new();
        for round in 0..4 {
            let (server, epoch, other) = (round % 2 == 0, round + 1, Arc::clone(&other));
            if server {
                scene.lan.inside("other", move || other.end().unwrap());
                scene.renew(epoch, soon(20_000));
            } else {
                scene.lease.end().unwrap();
                scene.lan.inside("other", move || other.renew(epoch, soon(20_000)).unwrap());
            }
            for ip in [V4, V6] {
                assert!(scene.answers("client", ip, true), "{enforcement:?} {round} {ip}");
                macs.push(scene.neighbour("client", ip).unwrap());
            }
        }
        let (a, b) = (scene.lan.mac("server"), scene.lan.mac("other"));
        assert_eq!(macs, [&a, &a, &b, &b, &a, &a, &b, &b].map(String::clone));
    });
}

#[test]
fn another_interface_of_the_host_does_not_answer_either() {
    both(|enforcement| {
        let scene = Scene::new(enforcement);
        let client = scene.lan.space("client");
        scene.lan.ip("server", &format!("link add eth1 type veth peer name eth1 netns {client}"));
        for (host, n) in [("server", 1), ("client", 2)] {
            scene.lan.ip(host, "link set eth1 up");
            scene.lan.ip(host, &format!("addr add 10.78.0.{n}/24 dev eth1"));
            scene.lan.ip(host, &format!("addr add fd78::{n}/64 dev eth1 nodad"));
        }
        // The client takes the other path. For IPv6 it uses a gateway, since Linux does not answer there for the
        // address.
        scene.lan.ip("client", "link set eth0 down");
        scene.lan.ip("client", &format!("route add {V4}/32 dev eth1 src 10.78.0.2"));
        scene.lan.ip("client", &format!("-6 route add {V6}/128 via fd78::1 dev eth1 src fd78::2"));
        until("the link is ready", || scene.pings("10.78.0.1") && scene.pings("fd78::1"));
        assert!(!scene.answers("client", V4, true) && !scene.pings(V4), "{enforcement:?}");
        assert!(!scene.answers("client", V6, true) && !scene.pings(V6), "{enforcement:?}");
        scene.renew(1, soon(20_000));
        assert!(scene.answers("client", V4, true) && scene.answers("client", V6, true), "{enforcement:?}");
        scene.lease.end().unwrap();
        assert!(!scene.answers("client", V4, false) && !scene.answers("client", V6, false), "{enforcement:?}");
    });
}

#[test]
fn a_flushed_ruleset_is_put_back_with_what_is_held() {
    both(|enforcement| {
        let scene = Scene::new(enforcement);
        scene.renew(5, soon(20_000));
        assert!(scene.answers("client", V4, true) && scene.answers("client", V6, true));
        let over = Arc::new(AtomicBool::new(false));
        let probes = [probe(&scene, V4, &over), probe(&scene, V6, &over)];
        let put_back = || {
            let lease = Arc::clone(&scene.lease);
            scene.lan.block_on("server", move || async move { lease.put_back().await.unwrap() })
        };
        assert!(!put_back(), "nothing was gone");
        scene.lan.exec("server", "nft flush ruleset");
        let error = scene.lease.renew(5, soon(20_000)).unwrap_err();
        assert!(matches!(error, KernelLeaseError::Gone { .. }), "{error}");
        assert!(put_back());
        assert_eq!(scene.left().map(|l| l.0), Some(5));
        // Only one of the tables.
        scene.lan.exec("server", "nft delete table inet keepcall-lease-test");
        assert!(put_back() && !put_back());
        scene.lan.exec("server", "nft delete table arp keepcall-lease-test");
        assert!(put_back() && !put_back());
        let ended = scene.left().unwrap().1;
        assert!(ended > soon(10_000));
        over.store(true, Ordering::Relaxed);
        for probe in probes {
            assert_eq!(
                probe.join().unwrap().missed,
                0,
                "{enforcement:?}: probes were lost while the tables were put back"
            );
        }
        scene.renew(5, soon(100));
        until("the hold is over", || scene.left().is_none());
        // A hold that is over is not answered for, and restoring the tables does not bring it back.
        scene.lan.exec("server", "nft flush ruleset");
        assert!(put_back());
        assert_eq!(scene.left(), None);
        assert!(!scene.answers("client", V4, true) && !scene.answers("client", V6, true));
    });
}

#[test]
fn a_successor_finds_what_is_held_and_nothing_is_lost_on_the_way() {
    both(|enforcement| {
        let scene = Scene::new(enforcement);
        let deadline = soon(20_000);
        scene.renew(7, deadline);
        assert!(scene.answers("client", V4, true) && scene.answers("client", V6, true));
        let over = Arc::new(AtomicBool::new(false));
        let probes = [probe(&scene, V4, &over), probe(&scene, V6, &over)];
        let install =
            |lease: KernelLease| scene.lan.block_on("server", move || async move { lease.install().await.unwrap() });
        let adopt = |lease: KernelLease| {
            let found = install(lease);
            let (epoch, until) = found.left.unwrap();
            assert!(found.found && epoch == 7 && until <= deadline, "{found:?}");
            // Little is lost, except on a stalled machine.
            assert!(deadline.since(until) < Duration::from_secs(1), "{:?} are lost", deadline.since(until));
        };
        adopt(lease(enforcement));
        over.store(true, Ordering::Relaxed);
        for probe in probes {
            assert_eq!(probe.join().unwrap().missed, 0, "{enforcement:?}: probes were lost");
        }
        // Another list of addresses means other rules, and ends the hold: a hold covers all addresses or none.
        let more = [vips(), vec!["10.77.0.10".parse().unwrap()]].concat();
        let found = install(match enforcement {
            Enforcement::Netdev => KernelLease::new("test", "eth0", &more),
            Enforcement::Fallback => KernelLease::new("test", "eth0", &more).without_netdev(),
        });
        assert!(found.found && found.left.is_none(), "{found:?}");
        assert!(stdout(&scene.lan.exec("server", "nft list ruleset")).contains("10.77.0.10"));
        assert!(!scene.answers("client", V4, true) && !scene.answers("client", V6, true));
        // A table that cannot be adopted is closed.
        scene.lan.exec("server", "nft flush ruleset");
        scene.lan.exec("server", "nft add table inet keepcall-lease-test");
        scene.lan.exec("server", "nft add chain inet keepcall-lease-test old");
        scene.lan.exec("server", "nft add set inet keepcall-lease-test held4 { type inet_service ; }");
        let found = install(lease(enforcement));
        assert!(found.found && found.left.is_none(), "{found:?}");
        assert!(!scene.answers("client", V4, true) && !scene.answers("client", V6, true));
    });
}

#[test]
fn tables_of_others_stay_as_they_are_and_ours_leave_nothing() {
    both(|enforcement| {
        let lan = Lan::new(&["server"]);
        let lease = Arc::new(lease(enforcement));
        lan.exec("server", "nft add table inet filter");
        lan.exec("server", "nft add chain inet filter input { type filter hook input priority 0 ; policy accept ; }");
        lan.exec("server", "nft add rule inet filter input tcp dport 22 accept");
        lan.exec("server", "nft add table netdev edge");
        lan.exec("server", "nft add chain netdev edge in { type filter hook ingress device eth0 priority 0 ; }");
        let before = stdout(&lan.exec("server", "nft list ruleset"));
        lan.block_on("server", move || async move {
            lease.install().await.unwrap();
            lease.renew(1, soon(5_000)).unwrap();
            lease.end().unwrap();
            lease.renew(2, soon(5_000)).unwrap();
            lease.remove().await.unwrap();
            lease.remove().await.unwrap();
            assert!(!lease.put_back().await.unwrap());
        });
        assert!(before.contains("dport 22"));
        assert_eq!(stdout(&lan.exec("server", "nft list ruleset")), before);
    });
}

#[test]
fn an_epoch_that_was_let_go_does_not_come_back_and_a_missing_interface_is_named() {
    let scene = Scene::new(Enforcement::Netdev);
    scene.renew(3, soon(5_000));
    scene.lease.let_go(3).unwrap();
    // A renewal that was under way.
    scene.renew(3, soon(5_000));
    assert_eq!(scene.left(), None);
    scene.renew(4, soon(5_000));
    assert_eq!(scene.left().map(|l| l.0), Some(4));
    let error = scene
        .lan
        .block_on("server", || async { KernelLease::new("test", "eth7", &vips()).install().await.unwrap_err() });
    assert!(error.to_string().contains("eth7"), "{error}");
}

#[test]
fn a_kernel_that_is_busy_with_other_tables_never_makes_a_hold_longer() {
    let scene = Scene::new(Enforcement::Netdev);
    let over = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&over);
    let (space, path) =
        (scene.lan.space("server"), std::env::temp_dir().join(format!("kc-{}-busy.nft", std::process::id())));
    let elements: Vec<String> =
        (0..20_000_u32).map(|n| format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255)).collect();
    let script = format!(
        "table inet big {{ set s {{ type ipv4_addr; elements = {{ {} }}\n}}\n}}\ndelete table inet big\n",
        elements.join(",")
    );
    std::fs::write(&path, script).unwrap();
    let file = path.clone();
    // Another program that changes its own tables all the time, in large pieces.
    let noise = std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let mut nft = std::process::Command::new("ip");
            if !nft.args(["netns", "exec", &space, "nft", "-f"]).arg(&file).status().unwrap().success() {
                return false;
            }
        }
        true
    });
    let lease = Arc::clone(&scene.lease);
    let (kept, refused, longest) = scene.lan.inside("server", move || {
        let (mut kept, mut refused, mut longest) = (0, 0, Duration::ZERO);
        let end = soon(5_000);
        while clock::now() < end {
            let deadline = soon(150);
            let began = clock::now();
            match lease.renew(1, deadline) {
                Ok(()) => {
                    kept += 1;
                    if let Some((_, until)) = lease.left().unwrap() {
                        assert!(until <= deadline, "held for {:?} too long", until.since(deadline));
                    }
                }
                Err(e) => {
                    assert!(matches!(e, KernelLeaseError::Busy), "{e}");
                    refused += 1;
                }
            }
            longest = longest.max(clock::now().since(began));
            std::thread::sleep(Duration::from_millis(2));
        }
        (kept, refused, longest)
    });
    over.store(true, Ordering::Relaxed);
    assert!(noise.join().unwrap(), "nft failed");
    std::fs::remove_file(path).unwrap();
    println!("{kept} holds kept, {refused} refused, the longest took {longest:?}");
    assert!(kept > 0);
}
