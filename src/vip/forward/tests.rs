use super::*;

fn chain(family: Family, table: &str, name: &str) -> Chain {
    Chain { family, table: table.to_owned(), name: name.to_owned(), hook: Some(HOOK), drops: true }
}

#[test]
fn the_cure_is_in_the_place_of_the_program_that_owns_the_chain() {
    let base = chain(Family::Ip, "filter", "FORWARD");
    let with = |name: &str| cure(&base, &[base.clone(), chain(Family::Ip, "filter", name)], "eth0");
    let mark = "-m mark --mark 0x6b000000/0xff000000 -j ACCEPT`";
    assert!(with("other").starts_with(&format!("`iptables -I FORWARD {mark}")));
    assert!(with("DOCKER-USER").starts_with(&format!("`iptables -I DOCKER-USER {mark}")));
    assert!(with("ufw-before-forward").starts_with(&format!("`iptables -I ufw-before-forward {mark}")));
    let v6 = chain(Family::Ip6, "filter", "FORWARD");
    assert!(cure(&v6, &[chain(Family::Ip6, "filter", "DOCKER-USER")], "eth0").starts_with("`ip6tables -I DOCKER-USER"));
    let own = chain(Family::Inet, "mine", "fwd");
    let said = cure(&own, &[], "eth0");
    assert!(
        said.starts_with("`nft insert rule inet mine fwd meta mark and 0xff000000 == 0x6b000000 accept`"),
        "{said}"
    );
    let firewalld = cure(&chain(Family::Inet, "firewalld", "filter_FORWARD"), &[], "eth7");
    assert!(firewalld.contains("--get-zone-of-interface=eth7") && firewalld.contains("--add-forward"));
}

#[test]
fn the_former_iptables_is_judged_by_its_own_list() {
    let judged = |said: &str| legacy::judged("iptables-legacy", Some(said)).map(|o| o.certain);
    assert_eq!(judged("-P FORWARD ACCEPT\n"), None);
    assert_eq!(judged("-P FORWARD DROP\n"), Some(true));
    assert_eq!(judged("-P FORWARD DROP\n-A FORWARD -i br0 -j ACCEPT\n"), Some(false));
    assert_eq!(judged("-P FORWARD DROP\n-A FORWARD -m mark --mark 0x6b000000/0xff000000 -j ACCEPT\n"), None);
    assert_eq!(judged("-P FORWARD DROP\n-A FORWARD -m mark --mark 0x6b000000/0xff000000 -j DROP\n"), Some(false));
    assert_eq!(legacy::judged("iptables-legacy", None), None);
}
