use super::*;
use crate::vip::nft;

#[test]
fn a_table_that_was_never_there_is_not_gone() {
    assert!(!is_gone(None, None) && !is_gone(None, Some(1)) && !is_gone(Some(1), Some(1)));
    assert!(is_gone(Some(1), None) && is_gone(Some(1), Some(2)));
}

#[test]
fn deletion_and_replacement_are_told_and_nobody_listens_to_the_kernel() {
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let make = "table inet a { set s { type mark; }; }\ntable arp b { }\n";
            nft::run("the test", make).await.unwrap();
            let names = [(Family::Inet, "a"), (Family::Arp, "b"), (Family::Inet, "later")];
            let mut watch = TableWatch::open(names.map(|(family, name)| (family, name.to_owned()))).unwrap();
            // Netlink sockets of this namespace that are members of a netfilter group (protocol 12). A listener would
            // make each element change ten times as slow for every program.
            let sockets = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
            for line in sockets.lines() {
                let fields: Vec<&str> = line.split_whitespace().collect();
                assert!(fields[1] != "12" || fields[3] == "00000000", "{line}");
            }
            nft::run("the test", "delete table arp b\n").await.unwrap();
            assert_eq!(watch.next().await.unwrap(), ["b"]);
            nft::run("the test", &(nft::without("a") + "table inet a { }\ntable inet later { }\n")).await.unwrap();
            assert_eq!(watch.next().await.unwrap(), ["a"]);
            nft::run("the test", "flush ruleset\n").await.unwrap();
            assert_eq!(watch.next().await.unwrap(), ["a", "later"]);
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}
