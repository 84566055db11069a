use super::*;

fn flow(from: &str, at: &str, to: &str, source: &str) -> Flow {
    let a = |s: &str| s.parse().unwrap();
    Flow { from: a(from), at: a(at), to: a(to), source: a(source) }
}

fn one(port: u16) -> Flow {
    flow(&format!("10.0.0.1:{port}"), "10.0.0.9:10000", &format!("10.0.0.2:{port}"), "10.0.0.9:10002")
}

fn relay() -> KernelRelay {
    KernelRelay::new("t", &["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()]).unwrap()
}

/// What a change takes out of an installed table, and what it puts in.
fn step(state: &mut State, call: &str, flows: &[Flow]) -> (Elements, Elements) {
    let mut change = Change::default();
    state.remove(call, &mut change);
    state.insert(call, flows, &mut change).unwrap();
    let (out, put) = change.parts(1);
    assert_eq!(change.batch("t", 1).is_empty(), lengths(&out) == (0, 0) && lengths(&put) == (0, 0));
    (out, put)
}

fn lengths(elements: &Elements) -> (usize, usize) {
    (elements.flows.len(), elements.local.len())
}

#[test]
fn setting_the_same_again_changes_nothing() {
    let mut state = State::default();
    let (out, put) = step(&mut state, "a", &[one(4000), one(4002)]);
    assert_eq!((lengths(&out), lengths(&put)), ((0, 0), (2, 2)));
    let (out, put) = step(&mut state, "a", &[one(4002), one(4000)]);
    assert_eq!((lengths(&out), lengths(&put)), ((0, 0), (0, 0)));
    assert_eq!(state.slots.len(), 2);
}

#[test]
fn what_is_removed_leaves_nothing_behind_and_its_number_is_used_again() {
    let mut state = State::default();
    step(&mut state, "a", &[one(4000)]);
    let (out, put) = step(&mut state, "a", &[]);
    assert_eq!((lengths(&out), lengths(&put)), ((1, 1), (0, 0)));
    assert!(state.slots.is_empty() && state.local.is_empty() && state.calls.is_empty());
    step(&mut state, "b", &[one(4004)]);
    assert_eq!(state.used, 1);
}

#[test]
fn a_changed_flow_is_replaced_in_one_transaction() {
    let mut state = State::default();
    step(&mut state, "a", &[one(4000)]);
    let moved = Flow { to: "10.0.0.3:4000".parse().unwrap(), ..one(4000) };
    let (out, put) = step(&mut state, "a", &[moved]);
    assert_eq!((out.flows[0].0, put.flows[0].0), (one(4000), moved));
    assert_eq!((out.local[0].to, put.local[0].to), (one(4000).to, moved.to));
}

#[test]
fn the_newer_call_takes_a_key_over() {
    let mut state = State::default();
    step(&mut state, "old", &[one(4000), one(4002)]);
    step(&mut state, "new", &[one(4000)]);
    assert_eq!(state.slots[&(one(4000).from, one(4000).at)].0, "new");
    // The old call's end must not take it away.
    step(&mut state, "old", &[]);
    assert_eq!(state.slots.len(), 1);
    assert_eq!(state.local.len(), 1);
}

#[test]
fn the_table_is_bounded() {
    let mut state = State::default();
    let flows: Vec<Flow> = (0..=MAX_FLOWS)
        .map(|n| {
            let phone = SocketAddr::new([10, 1, (n >> 15) as u8, 1].into(), (n & 0x7fff) as u16 + 1);
            Flow { from: phone, ..one(4000) }
        })
        .collect();
    assert!(matches!(state.insert("a", &flows, &mut Change::default()), Err(RelayError::Full { .. })));
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
    step(&mut state, "a", &[one(4000), one(4002)]);
    let found = |key: &[u8]| Found { key: key.to_vec(), packets: 7, bytes: 700, ..Found::default() };
    let mut all = BTreeMap::new();
    let known = table::key(one(4000).from, one(4000).at);
    let unknown = table::key(one(4004).from, one(4004).at);
    state.count(&[found(known.as_bytes()), found(unknown.as_bytes()), found(&[1, 2, 3])], &mut all);
    assert_eq!(all, BTreeMap::from([("a".to_owned(), vec![FlowCount { flow: one(4000), packets: 7, bytes: 700 }])]));
}
