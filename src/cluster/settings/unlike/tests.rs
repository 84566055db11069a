use super::*;
use crate::cluster::record::{SCHEMA, Terms};
use crate::cluster::settings::Named;
use std::time::Duration;

fn settings(addresses: &str, media: &str) -> Described {
    let named = |all: &[(&str, &str)]| all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Named>();
    let instance = named(&[(ADDRESSES, addresses), ("sip.media_ports", media)]);
    Described { node: named(&[("timing.hold", "400ms")]), instances: BTreeMap::from([("pbx".to_owned(), instance)]) }
}

fn reported(vips: u64, others: u64) -> ReportedSettings {
    ReportedSettings { terms: Terms::new(Duration::from_millis(400), 0.01), vips, others }
}

fn entry(version: &str, settings: Option<Described>) -> NodeEntry {
    NodeEntry {
        schema: SCHEMA,
        name: "b".into(),
        address: "10.0.0.2:7490".parse().unwrap(),
        boot: 1,
        version: version.into(),
        settings,
    }
}

fn unlike() -> Unlike {
    Unlike::new(settings("192.0.2.1/24", "1-2"), BTreeMap::from([("pbx".to_owned(), reported(1, 2))]), "1.0")
}

/// Each change as `setting here/there`, with `+` if it differs from now on, `-` if it agrees again, and `!` if it
/// excludes.
fn words(changes: &[Change]) -> Vec<String> {
    let one = |sign: &str, d: &Difference| {
        format!("{sign}{} {}/{}{}", d.setting, d.here, d.there, if d.excludes { "!" } else { "" })
    };
    changes
        .iter()
        .map(|c| match c {
            Change::Differs(d) => one("+", d),
            Change::Agrees(d) => one("-", d),
        })
        .collect()
}

#[test]
fn each_change_is_told_once_with_both_values() {
    let mut u = unlike();
    let other = |media: &str| entry("1.0", Some(settings("192.0.2.1/24", media)));
    assert!(u.learn(&other("1-2")).is_empty());
    assert_eq!(words(&u.learn(&other("3-4"))), ["+sip.media_ports 1-2/3-4"]);
    assert!(
        u.learn(&other("3-4")).is_empty() && u.heard("b", "pbx", Some(reported(1, 9))).is_empty(),
        "it is known which"
    );
    assert_eq!(words(&u.learn(&other("5-6"))), ["+sip.media_ports 1-2/5-6"], "another value");
    assert_eq!(u.differences().count(), 1);
    assert_eq!(words(&u.learn(&other("1-2"))), ["-sip.media_ports 1-2/5-6"]);
    assert_eq!(
        words(&u.learn(&entry("1.1", Some(settings("192.0.2.9/24", "1-2"))))),
        ["+version 1.0/1.1", "+addresses 192.0.2.1/24/192.0.2.9/24!"]
    );
}

#[test]
fn heartbeats_tell_that_something_differs_while_etcd_does_not_say_what() {
    let mut u = unlike();
    assert!(u.heard("b", "pbx", Some(reported(1, 2))).is_empty());
    assert_eq!(
        words(&u.heard("b", "pbx", Some(reported(7, 8)))),
        ["+addresses 192.0.2.1/24/not told!", "+settings others/not told"]
    );
    let found = words(&u.learn(&entry("1.0", Some(settings("192.0.2.9/24", "1-2")))));
    assert_eq!(found, ["-settings others/not told", "+addresses 192.0.2.1/24/192.0.2.9/24!"]);
}

#[test]
fn an_older_release_is_said_not_to_tell_its_hold_until_it_is_upgraded() {
    let mut u = unlike();
    assert!(u.learn(&entry("1.0", None)).is_empty(), "its key alone may be one that its next run replaces");
    assert_eq!(words(&u.heard("b", "pbx", None)), ["+timing.hold 400ms/not told"]);
    assert!(u.heard("b", "pbx", None).is_empty());
    let same = entry("1.0", Some(settings("192.0.2.1/24", "1-2")));
    assert_eq!(words(&u.learn(&same)), ["-timing.hold 400ms/not told"]);
}

#[test]
fn names_beyond_any_cluster_are_not_followed() {
    let mut u = unlike();
    for i in 0..1000 {
        u.heard(&format!("n{i}"), "pbx", Some(reported(7, 8)));
    }
    assert_eq!(u.nodes.len(), MAX_NODES);
}
