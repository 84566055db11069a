//! A master whose kernel fails it: addresses removed by somebody, and tables that cannot be restored.

use lab::lan::{Lan, VIP4, VIP6};
use lab::node::{Agent, Member, Node, SOON};
use lab::wait;
use lab::witness::Witness;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

fn reason(status: &Value) -> &str {
    status["instances"][0]["reason"].as_str().unwrap_or_default()
}

fn epoch(agent: &Agent) -> u64 {
    agent.status().unwrap()["instances"][0]["epoch"].as_u64().unwrap()
}

fn both_addresses(lan: &Lan, name: &str, etcd: &Member) -> Node {
    let both = format!("\"{VIP4}/24\", \"{VIP6}/64\"");
    Node::new(lan.host(name).unwrap(), name, &etcd.url()).with(&format!("\"{VIP4}/24\""), &both)
}

#[test]
fn an_address_that_is_held_and_not_there_is_told_and_put_back() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let node = both_addresses(&lan, "a", &etcd);
    let host = &node.host;
    let agent = node.start();
    agent.is_master();
    let before = epoch(&agent);

    // The second time the agent waits a second, and reports the state meanwhile.
    let remove = || drop(host.exec(&["ip", "addr", "del", &format!("{VIP4}/24"), "dev", "eth0"]).unwrap());
    let put_back =
        || {
            wait::until("the address to be put back", SOON, || {
                if node.has_vip() { Ok(()) } else { Err("it is not".into()) }
            })
            .unwrap();
        };
    let removed = format!("needs repair: another program removed {VIP4}/24 from eth0");
    wait::until("a removal to be told by status", SOON, || {
        remove();
        put_back();
        remove();
        let status = agent.status()?;
        put_back();
        if reason(&status).contains(&removed) { Ok(status) } else { Err(status.to_string()) }
    })
    .unwrap();
    agent.comes_to("all to be well", |s| !reason(s).contains("needs repair"));

    // An address that cannot be put back leaves the other one untouched, and comes back as soon as possible.
    let six = || host.has_address(VIP6.into()).unwrap();
    host.sysctl("net/ipv6/conf/eth0/disable_ipv6", "1").unwrap();
    let status = agent.comes_to("the address that is not there to be told", |s| {
        reason(s).contains("needs repair: not all of the addresses are on eth0")
            && s["instances"][0]["role"] == "master"
    });
    assert!(node.has_vip() && !six(), "{status}");
    assert!(node.run(&["status"]).1.contains("not all of the addresses are on eth0"));
    host.sysctl("net/ipv6/conf/eth0/disable_ipv6", "0").unwrap();
    // Well before the addresses get a new lifetime, which happens four times a minute.
    let limit = Duration::from_secs(8);
    wait::until("the address to be put back", limit, || if six() { Ok(()) } else { Err(agent.log()) }).unwrap();
    agent.comes_to("all to be well", |s| !reason(s).contains("needs repair"));
    assert_eq!(epoch(&agent), before, "{}", agent.log());
    let told = agent.log().matches("not all of the addresses are on").count();
    assert!(told <= 2, "it is told {told} times\n{}", agent.log());
    agent.stops();
}

#[test]
fn a_master_that_cannot_make_its_tables_again_hands_over_and_repairs_itself_later() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let (a, b) = (both_addresses(&lan, "a", &etcd), both_addresses(&lan, "b", &etcd));
    // An nft that fails as long as a file exists.
    let (bin, broken) = (a.dir.join("bin"), a.dir.join("broken"));
    std::fs::create_dir(&bin).unwrap();
    let nft = bin.join("nft");
    let script = format!(
        "#!/bin/sh\n[ -e {} ] && {{ echo 'it is broken' >&2; exit 1; }}\nexec /usr/sbin/nft \"$@\"\n",
        broken.display()
    );
    std::fs::write(&nft, script).unwrap();
    std::fs::set_permissions(&nft, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("PATH={}:{}", bin.display(), std::env::var("PATH").unwrap());

    let first = a.start_by(&["env", &path]);
    first.is_master();
    let second = b.start();
    first.is_armed("b");
    let witness = Witness::start(lan.host("obs").unwrap(), &[&a.host, &b.host]).unwrap();
    let since = lab::unix_us();
    std::fs::write(&broken, "").unwrap();
    for family in ["netdev", "inet", "arp"] {
        a.host.exec(&["/usr/sbin/nft", "delete", "table", family, "keepcall-lease-sip"]).unwrap();
    }
    first.comes_to("the kernel's fault to be told", |s| {
        reason(s).contains("needs repair: master, but the kernel does not answer")
            || s["instances"][0]["role"] != "master"
    });
    second.is_master();
    wait::until("the address to be away", SOON, || if a.has_vip() { Err(first.log()) } else { Ok(()) }).unwrap();
    first.comes_to("the fault to be told still", |s| {
        reason(s).contains("needs repair: the kernel does not apply the hold")
    });
    first.says("it is broken");

    std::fs::remove_file(&broken).unwrap();
    first.says("the kernel applies the hold again");
    second.is_armed("a");
    first.comes_to("all to be well", |s| !reason(s).contains("needs repair"));
    let seen = witness.finding(since);
    println!("silent for {} ms; two hosts for {} ms; {:?}", seen.silence_us / 1000, seen.two_hosts_ms, seen.owners);
    assert_eq!(seen.two_hosts_ms, 0, "{seen:?}");
    assert_eq!(seen.owners.len(), 2, "{:?}", seen.owners);
    // The node can be master again once the master has heard that it is fit.
    second.comes_to("the other node to be fit", |s| {
        s["nodes"].as_array().is_some_and(|all| all.iter().any(|n| n["name"] == "a" && n["fit"] == true))
    });
    let (code, out, err) = b.run(&["switchover", "--yes"]);
    assert_eq!(code, 0, "{out}{err}");
    first.is_master();
    first.stops();
    second.stops();
}

#[test]
fn a_firewall_in_the_way_is_told_and_a_clean_stop_puts_the_kernels_settings_back() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let node = Node::new(lan.host("a").unwrap(), "a", &etcd.url()).with_sip();
    let host = &node.host;
    let settings = || host.exec(&["sysctl", "-a", "-r", "net.ipv[46].(conf|ip_nonlocal|ip_forward)"]).unwrap();
    let tables = || host.exec(&["nft", "list", "tables"]).unwrap();
    let before = settings();
    let mut agent = node.start();
    agent.is_master();
    let during = settings();
    assert_ne!(during, before);
    assert!(tables().contains("keepcall-router"));

    host.exec(&["nft", "add", "table", "inet", "f"]).unwrap();
    let chain = "{ type filter hook forward priority 0 ; policy drop ; }";
    host.exec(&["nft", "add", "chain", "inet", "f", "onward", chain]).unwrap();
    let warnings = |s: &Value| s["instances"][0]["warnings"].to_string();
    let words = "the firewall chain inet f onward drops relayed audio";
    let status = agent.comes_to("the chain to be told", |s| warnings(s).contains(words));
    assert!(node.run(&["status"]).1.contains(&format!("sip: WARNING: {words}")), "{status}");
    let cure = warnings(&status).split('`').nth(1).unwrap().to_owned();
    host.exec(&cure.split(' ').collect::<Vec<_>>()).unwrap();
    agent.comes_to("the cure to be seen", |s| s["instances"][0]["warnings"].is_null());
    assert_eq!(agent.log().matches(words).count(), 1, "{}", agent.log());

    // A restart leaves all; a kill leaves it to the next process, which knows what was before.
    for signal in [Signal::SIGUSR2, Signal::SIGKILL] {
        agent.proc.signal(signal).unwrap();
        agent.ends();
        assert_eq!(settings(), during, "after {signal}");
        agent = node.start();
        agent.is_master();
    }
    agent.stops();
    assert_eq!(settings(), before);
    assert!(!tables().contains("keepcall"), "{}", tables());
}
