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
    // Chains at an interface go with it.
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
