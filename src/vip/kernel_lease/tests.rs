use super::*;

fn plan(addresses: &[IpAddr]) -> Plan<'_> {
    Plan { table: "t", interface: "eth0", addresses }
}

fn both() -> [IpAddr; 2] {
    ["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()]
}

fn made(plan: &Plan<'_>, kind: &Kind) -> Vec<Chain> {
    let script = plan.chains(std::slice::from_ref(kind), &[]);
    let names = script.lines().filter_map(|l| l.strip_prefix("chain ")?.split(' ').next());
    names.map(|name| Chain { family: kind.word.to_owned(), name: name.to_owned() }).collect()
}

#[test]
fn a_table_is_intact_only_if_it_was_made_of_the_same() {
    let (all, other) = (both(), ["10.0.0.8".parse().unwrap()]);
    for kind in &ALL {
        let there = made(&plan(&all), kind);
        assert!(plan(&all).intact(kind, &there), "{there:?}");
        assert!(!plan(&other).intact(kind, &there));
        assert!(!plan(&all).intact(kind, &[]));
        let elsewhere = Plan { interface: "eth1", ..plan(&all) };
        assert_eq!(elsewhere.intact(kind, &there), kind.word == "arp");
    }
    // An interface takes its chains with it.
    let mut there = made(&plan(&all), &NETDEV);
    there.retain(|c| c.name != "egress");
    assert!(!plan(&all).intact(&NETDEV, &there));
}

#[test]
fn chains_that_are_there_go_before_new_ones_come() {
    let there = [Chain { family: "inet".to_owned(), name: "old".to_owned() }];
    let script = plan(&both()).chains(&ALL, &there);
    assert_eq!(script.matches("delete chain inet t old\n").count(), 1);
    assert!(!script.contains("delete chain netdev") && !script.contains("delete table"), "{script}");
    assert!(script.find("flush table inet t") < script.find("delete chain inet t old"));
}

#[test]
fn rules_are_of_the_families_that_there_are() {
    let v4 = plan(&both()[..1]).chains(&ALL, &[]);
    assert!(v4.contains("arp daddr ip { 10.0.0.9 }") && !v4.contains("ip6") && !v4.contains("icmpv6"), "{v4}");
    let v6 = plan(&both()[1..]).chains(&ALL, &[]);
    assert!(v6.contains("@th,64,128 { 0xfd000000000000000000000000000009 }") && !v6.contains("arp daddr"), "{v6}");
}

/// Runs `f` in its own network namespace, which ends with its thread.
fn apart(f: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
        f();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_hold_that_reaches_the_kernel_late_is_refused() {
    apart(|| {
        let addresses = both();
        let lease = KernelLease::new("test", "lo", &addresses);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(lease.install()).unwrap();
        let mut socket = Nfnl::open().unwrap();
        let hold = || lease.plan().hold(&ALL, 1, Duration::from_secs(5));
        let guards = |socket: &mut Nfnl| socket.list(Family::Inet, lease.table_name(), "guard").unwrap().len();
        socket.commit(lease.plan().guard(guards::LONGEST)).unwrap();
        socket.commit(hold()).unwrap();
        assert_eq!(lease.left().unwrap().map(|l| l.0), Some(1));
        // A guard works only once.
        assert!(matches!(socket.commit(hold()), Err(NfnlError::Gone)));
        lease.end().unwrap();
        assert_eq!(lease.left().unwrap(), None);
        // This process stalls between computing the hold and sending it.
        for (_, guard) in Guards::default().now(Time::ZERO, Duration::ZERO) {
            let began = clock::now();
            socket.commit(lease.plan().guard(guard)).unwrap();
            while guards(&mut socket) > 0 {
                assert!(clock::now().since(began) < Duration::from_secs(1), "the guard does not end");
            }
            let lived = clock::now().since(began);
            assert!(lived >= guard / 4, "{guard:?} ended after {lived:?}");
            assert!(matches!(socket.commit(hold()), Err(NfnlError::Gone)));
            assert_eq!(lease.left().unwrap(), None);
        }
        lease.renew(2, clock::now() + Duration::from_secs(5)).unwrap();
        assert!(!lease.is_silent());
        // The remaining time is too short for a hold.
        lease.renew(2, clock::now() + Duration::from_millis(5)).unwrap();
        assert!(lease.is_silent() && lease.left().unwrap().is_none());
    });
}
