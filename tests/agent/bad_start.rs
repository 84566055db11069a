//! The real agent where it cannot start, or cannot start yet. It says what is wrong and what to do, and ends with the
//! documented code, or keeps trying quietly where waiting may help.

use lab::lan::Lan;
use lab::node::{Member, Node, secret};
use nix::sys::signal::Signal;
use std::time::Duration;

/// A stopping agent waits eight seconds at most; the rest is for a stalled machine.
const STOP: Duration = Duration::from_secs(20);

/// An agent that logs each of these words, waits, holds nothing in the meantime, and leaves nothing behind when
/// stopped.
fn waits(node: &Node, before: &[&str], words: &[&str]) {
    let mut agent = node.start_by(before);
    for word in words {
        agent.says(word);
    }
    assert!(agent.is_alive() && !node.has_vip(), "{}", agent.log());
    agent.stops();
    assert!(!node.socket().exists(), "the socket is left behind");
    let tables = node.host.exec(&["nft", "list", "tables"]).unwrap();
    assert!(!tables.contains("keepcall"), "{tables}");
}

#[test]
fn what_is_wrong_with_this_host_is_told_and_waited_for() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    let host = lan.host("a").unwrap();
    let good = Node::new(host, "a", &etcd.url()).with_sip();

    waits(&good.clone().with("\"eth0\"", "\"eth9\""), &[], &["no interface eth9", "eth0"]);
    waits(
        &good.clone().with(&format!("address = \"{}\"", host.ip4), "address = \"10.44.0.99\""),
        &[],
        &["heartbeats", "10.44.0.99"],
    );

    std::fs::remove_file(good.dir.join("key")).unwrap();
    // The agent and `check-config` say the same.
    let both = |words: &[&str]| {
        waits(&good, &[], words);
        let (code, _, said) = good.run(&["check-config"]);
        assert!(code == 3 && words.iter().all(|word| said.contains(word)), "{code}: {said}");
    };
    both(&["cannot read", "/dev/urandom"]);
    good.key(b"short");
    both(&["has 5 bytes; a cluster key needs at least 32 bytes"]);
    good.key(&[0; 64]);
    both(&["repeats one byte (0x00), so everybody can guess the key"]);
    good.key(b"0123456789abcdef0123456789abcdef");

    // Rights: a user other than root, and root without one capability or the other.
    let own = |path: &str| host.exec(&["chown", "-R", "nobody", path]).unwrap();
    own(good.dir.to_str().unwrap());
    waits(&good, &["setpriv", "--reuid", "nobody", "--clear-groups"], &["CAP_NET_"]);
    host.exec(&["chown", "-R", "root", good.dir.to_str().unwrap()]).unwrap();
    waits(&good, &["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"], &["CAP_NET_ADMIN"]);
    waits(&good, &["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"], &["CAP_NET_RAW"]);

    // nft is missing: a PATH with env and nothing else.
    let bin = good.dir.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink("/usr/bin/env", bin.join("env")).unwrap();
    waits(&good, &["env", &format!("PATH={}", bin.display())], &["nft", "install"]);

    // After all repairs it starts: the failures before left nothing in the way.
    let master = good.start();
    master.is_master();
    assert!(good.has_vip());

    // A second agent with the same configuration must not touch what the first one holds, however long it waits.
    for (second, word) in [
        (good.clone(), "another agent answers on"),
        (good.clone().with("/sock\"", "/other.sock\""), "another program has this port"),
    ] {
        let mut second = second.start();
        second.says(word);
        assert!(good.has_vip() && good.socket().exists());
        assert!(second.is_alive() && !second.log().contains("restoring it"), "{}", second.log());
        second.stops();
        assert!(good.has_vip() && good.socket().exists());
    }
    assert!(master.stops() < STOP);
    assert!(!good.has_vip());
}

#[test]
fn etcd_that_is_away_is_waited_for() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    let node = Node::new(lan.host("a").unwrap(), "a", &etcd.url());
    let agent = node.start();
    agent.says("cannot register in etcd");
    assert!(agent.log().contains("check that etcd runs"), "{}", agent.log());
    let status = agent.comes_to("its status", |s| s["etcd"]["healthy"] == false);
    assert!(status["etcd"]["error"].as_str().is_some_and(|e| e.contains("check that etcd runs")), "{status}");
    let (_, text, _) = node.run(&["status"]);
    assert!(text.contains("etcd NOT healthy") && text.contains("refused"), "{text}");
    agent.is_calm();
    assert!(!node.has_vip());
    assert!(agent.log().lines().count() < 40, "{}", agent.log());
    assert!(agent.stops() < STOP);

    // SIGTERM at several moments of the start, and a second one.
    for ms in [0, 5, 20, 60] {
        let mut agent = node.start();
        std::thread::sleep(Duration::from_millis(ms));
        for _ in 0..2 {
            let _ = agent.proc.signal(Signal::SIGTERM);
        }
        // Before its handlers are in place, the signal itself ends it (-1). It leaves nothing behind, since it has done
        // nothing yet.
        let code = agent.ends();
        assert!(code == 0 || code == -1, "{code} {}", agent.log());
        assert!(!agent.log().contains("panicked"));
    }
    let agent = node.start();
    agent.says("cannot register in etcd");
    etcd.start();
    agent.is_master();
    agent.says("registered in etcd");
    assert!(node.has_vip());
    agent.comes_to("etcd to be well", |s| s["etcd"]["healthy"] == true && s["etcd"]["error"].is_null());
    // SIGHUP is logged and ignored.
    agent.proc.signal(Signal::SIGHUP).unwrap();
    agent.says("SIGHUP is ignored");
    agent.is_master();
    agent.is_calm();
    // A second SIGTERM changes nothing.
    agent.proc.signal(Signal::SIGTERM).unwrap();
    agent.stops();
    assert!(!node.has_vip());
}

#[test]
fn etcd_that_lets_nobody_in_is_asked_slowly_until_it_does() {
    let lan = Lan::new().unwrap();
    let mut etcd = Member::new(&lan, "http", &[], &[]);
    etcd.start();
    for args in [
        "user add root:secret",
        "user grant-role root root",
        "user add keepcall:right",
        "role add keepcall",
        "auth enable",
    ] {
        etcd.ctl(&args.split(' ').collect::<Vec<_>>());
    }
    etcd.client = vec!["--user=root:secret".to_owned()];
    let host = lan.host("a").unwrap();
    let node = Node::new(host, "a", &etcd.url());
    let file = node.dir.join("password");
    let with_user = node
        .clone()
        .with("[etcd]\n", &format!("[etcd]\nuser = \"keepcall\"\npassword_file = \"{}\"\n", file.display()));

    // No user at all.
    let agent = node.start();
    agent.says("cannot register in etcd");
    assert!(agent.log().contains("`user` and `password_file`"), "{}", agent.log());
    agent.stops();

    // A wrong password, until etcd gets the matching one.
    secret(&file, "wrong\n");
    let agent = with_user.start();
    agent.says("etcd refused user 'keepcall'");
    let status = agent.comes_to("its status", |s| s["etcd"]["healthy"] == false);
    assert!(status["etcd"]["error"].as_str().is_some_and(|e| e.contains("password_file")), "{status}");
    assert!(!agent.log().contains("wrong\n") && !agent.log().contains(":wrong"), "the password is in the log");
    agent.is_calm();
    let load = etcd.load();
    assert!(load < 0.5, "logins cost etcd {load:.2} of a core");
    etcd.fed(&["user", "passwd", "keepcall", "--interactive=false"], "wrong\n");

    // Then etcd accepts the user, but refuses our keys until the role is granted.
    agent.says("grant the user read and write on the prefix /keepcall/");
    assert!(agent.status().unwrap()["etcd"]["healthy"] == false);
    agent.is_calm();
    etcd.ctl(&["role", "grant-permission", "keepcall", "--prefix=true", "readwrite", "/keepcall/"]);
    etcd.ctl(&["user", "grant-role", "keepcall", "keepcall"]);
    agent.says("registered in etcd");
    agent.is_master();
    // etcd loses its tokens at a restart; the agent gets new ones.
    etcd.proc = None;
    agent.comes_to("etcd to be missed", |s| s["etcd"]["healthy"] == false);
    etcd.start();
    agent.comes_to("etcd to be well", |s| s["etcd"]["healthy"] == true);
    agent.is_master();
    agent.stops();
}
