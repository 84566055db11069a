use super::*;

fn flow(from: &str, at: &str, to: &str, source: &str) -> Flow {
    let a = |s: &str| s.parse().unwrap();
    Flow { from: a(from), at: a(at), to: a(to), source: a(source) }
}

fn one(port: u16) -> Flow {
    flow(&format!("10.0.0.1:{port}"), "10.0.0.9:10000", &format!("10.0.0.2:{port}"), "10.0.0.9:10002")
}

fn relay() -> KernelRelay {
    KernelRelay::new("t", &["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()])
}

#[test]
fn flows_that_cannot_be_are_refused() {
    let relay = relay();
    for (why, bad) in [
        ("families", flow("10.0.0.1:4000", "10.0.0.9:10000", "[fd00::2]:4000", "[fd00::9]:10002")),
        ("port zero (a rejected stream)", flow("10.0.0.1:4000", "10.0.0.9:10000", "10.0.0.2:0", "10.0.0.9:10002")),
        ("old-style hold", flow("10.0.0.1:4000", "10.0.0.9:10000", "0.0.0.0:4000", "10.0.0.9:10002")),
        ("not our address", flow("10.0.0.1:4000", "10.0.0.8:10000", "10.0.0.2:4000", "10.0.0.9:10002")),
        ("a loop", flow("10.0.0.1:4000", "10.0.0.9:10000", "10.0.0.9:4000", "10.0.0.9:10002")),
    ] {
        assert!(matches!(relay.check("a", &bad), Err(RelayError::Impossible { .. })), "{why}");
    }
    relay.check("a", &one(4000)).unwrap();
}

#[test]
fn counters_are_given_to_the_call_that_has_the_flow() {
    let mut state = State::default();
    state.planner.handle_present(Present::default(), 1);
    state.planner.handle_set("a", &[one(4000), one(4002)], false).unwrap();
    assert!(matches!(state.planner.poll_action(), Some(Action::Commit(_))));
    state.planner.handle_done(Duration::ZERO);
    let found = |key: &[u8]| Found { key: key.to_vec(), packets: 7, bytes: 700, ..Found::default() };
    let mut all = BTreeMap::new();
    let known = table::key(one(4000).from, one(4000).at);
    let unknown = table::key(one(4004).from, one(4004).at);
    state.count(&[found(known.as_bytes()), found(unknown.as_bytes()), found(&[1, 2, 3])], &mut all);
    assert_eq!(all, BTreeMap::from([("a".to_owned(), vec![FlowCount { flow: one(4000), packets: 7, bytes: 700 }])]));
}
