use super::*;

const NODE: &str =
    "[node]\nname = 'a'\naddress = '10.0.0.1'\nkey_file = '/k'\n[etcd]\nendpoints = ['http://10.0.0.9:2379']\n";
const INSTANCE: &str =
    "[[instance]]\nname = 'pbx'\ninterface = 'eth0'\naddresses = ['192.0.2.1/24', '2001:db8::1/64']\n";
const REST: &str = "[[instance.check]]\nname = 'server'\n[instance.check.process]\nname = 'asterisk'\n[instance.sip]\nports = [5060]\n";

fn config(text: &str) -> Config {
    toml::from_str(text).unwrap()
}

fn whole() -> String {
    format!("{NODE}{INSTANCE}{REST}")
}

/// Describes a node whose text differs from that of all others by this change.
fn with(from: &str, to: &str) -> Described {
    assert!(whole().contains(from), "{from}");
    describe(&config(&whole().replace(from, to)))
}

#[test]
fn each_difference_is_named_with_both_values_and_only_addresses_exclude() {
    let here = describe(&config(&whole()));
    for (from, to, setting, there, excludes) in [
        ("192.0.2.1/24", "192.0.2.9/24", "addresses", "192.0.2.9/24 2001:db8::1/64", true),
        ("'192.0.2.1/24', ", "", "addresses", "2001:db8::1/64", true),
        ("192.0.2.1/24", "192.0.2.1/32", "addresses", "192.0.2.1/32 2001:db8::1/64", false),
        ("[etcd]\n", "[timing]\nhold = '2s'\n[etcd]\n", "timing.hold", "2s", false),
        ("[etcd]\n", "[timing]\ndrift = 0.02\n[etcd]\n", "timing.drift", "0.02", false),
        ("[etcd]\n", "[timing]\nheartbeat = '20ms'\n[etcd]\n", "timing.heartbeat", "20ms", false),
        ("[etcd]\n", "[etcd]\nlease_ttl = '5s'\n", "etcd.lease_ttl", "5s", false),
        ("ports = [5060]", "media_ports = '20000-30000'", "sip.media_ports", "20000-30000", false),
        ("ports = [5060]", "ports = [5061]", "sip.ports", "5061", false),
        ("ports = [5060]", "recovery_port = 5071", "sip.recovery_port", "5071", false),
        ("ports = [5060]", "plain_records = 'accept'", "sip.plain_records", "accept", false),
        ("ports = [5060]", "encrypt = false\nplain_records = 'refuse'", "sip.encrypt", "false", false),
        ("[instance.sip]\nports = [5060]\n", "", "sip", "false", false),
        ("interface = 'eth0'\n", "interface = 'eth0'\npreempt = true\n", "preempt", "true", false),
        ("name = 'server'\n", "name = 'other'\n", "checks", "other", false),
        (
            "name = 'server'\n",
            "name = 'server'\nfall = 9\n",
            "check.server",
            "process, fatal, each 1s within 500ms, rise 2, fall 9",
            false,
        ),
    ] {
        let other = with(from, to);
        let found = here.differences("b", &other);
        let named: Vec<_> = found.iter().map(|d| (d.setting.as_str(), d.there.as_str(), d.excludes)).collect();
        assert_eq!(named, [(setting, there, excludes)], "{from} -> {to}");
        assert!(found.iter().all(|d| d.node == "b" && d.here != d.there));
        // The other node finds the same difference in reverse.
        let back = other.differences("a", &here);
        assert!(
            back.iter().all(|d| d.setting == setting && d.there != d.here && d.excludes == excludes) && back.len() == 1,
            "{back:?}"
        );
        assert_ne!(here.digest("pbx"), other.digest("pbx"), "{from} -> {to}");
    }
}

#[test]
fn what_is_each_hosts_own_makes_no_difference() {
    let here = describe(&config(&whole()));
    for (from, to) in [
        ("name = 'a'", "name = 'b'\npriority = 7\nport = 7999"),
        ("10.0.0.1", "10.0.0.2"),
        ("'/k'", "'/other'"),
        ("eth0", "bond0"),
        ("http://10.0.0.9:2379", "http://10.0.0.8:2379"),
        ("name = 'asterisk'", "pidfile = '/run/pid'"),
        ("'192.0.2.1/24', '2001:db8::1/64'", "'2001:db8::1/64', '192.0.2.1/24'"),
        ("[instance.sip]\n", "[instance.hooks]\non_master = ['/bin/true']\n[instance.sip]\n"),
    ] {
        let other = with(from, to);
        assert_eq!(
            (other.differences("b", &here), other.digest("pbx")),
            (Vec::new(), here.digest("pbx")),
            "{from} -> {to}"
        );
    }
}

/// These numbers cross the wire between releases: a change makes every rolling upgrade look like a difference.
#[test]
fn digests_stay_what_they_are() {
    let text = whole();
    let instance = &config(&text).instances[0];
    assert_eq!(digest_of_vips(&vips(instance)), 16_178_425_522_715_840_298);
    assert_eq!(describe(&config(&text)).digest("pbx"), 4_632_598_678_217_188_834);
    for changed in ["min_confidence = 70", "advertised = ['203.0.113.10']"] {
        assert_ne!(with("ports = [5060]", changed).digest("pbx"), 4_632_598_678_217_188_834, "{changed}");
    }
    let default = "ports = [5060]\nmin_confidence = 80\nadvertised = []";
    assert_eq!(with("ports = [5060]", default).digest("pbx"), 4_632_598_678_217_188_834);
    for other in ["media = 'external'", "rtp_timeout = '90s'", "max_carried = '2h'"] {
        assert_ne!(with("ports = [5060]", other).digest("pbx"), 4_632_598_678_217_188_834, "{other}");
    }
    for default in ["media = 'relay'", "rtp_timeout = '60s'", "max_carried = '0s'"] {
        assert_eq!(with("ports = [5060]", default).digest("pbx"), 4_632_598_678_217_188_834, "{default}");
    }
}

#[test]
fn settings_that_one_side_does_not_know_are_no_difference() {
    let here = describe(&config(&whole()));
    let mut later = here.clone();
    later.node.insert("timing.new".into(), "1".into());
    later.instances.insert("other".into(), Named::new());
    later.instances.entry("pbx".into()).or_default().remove("sip.window");
    assert!(here.differences("b", &later).is_empty() && later.differences("a", &here).is_empty());
}

#[test]
fn the_values_of_very_many_instances_stay_out_of_the_nodes_key() {
    let one = describe(&config(&whole()));
    assert_eq!(one.clone().bounded(), one);
    let value = &one.instances["pbx"];
    let all = (0..500).map(|i| (format!("pbx{i}"), value.clone())).collect();
    let many = Described { instances: all, ..one.clone() };
    assert_eq!(many.bounded(), Described { instances: BTreeMap::new(), ..one });
}
