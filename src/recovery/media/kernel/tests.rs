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

/// The script that a change makes of an installed table.
fn step(state: &mut State, call: &str, flows: &[Flow]) -> String {
    let mut change = Change::default();
    state.remove(call, &mut change);
    state.insert(call, flows, &mut change).unwrap();
    change.script("t", 1)
}

#[test]
fn setting_the_same_again_changes_nothing() {
    let mut state = State::default();
    assert!(step(&mut state, "a", &[one(4000), one(4002)]).contains("add element"));
    assert_eq!(step(&mut state, "a", &[one(4002), one(4000)]), "");
    assert_eq!(state.slots.len(), 2);
}

#[test]
fn what_is_removed_leaves_nothing_behind_and_its_number_is_used_again() {
    let mut state = State::default();
    step(&mut state, "a", &[one(4000)]);
    let script = step(&mut state, "a", &[]);
    assert_eq!(script.matches("delete element").count(), 6, "{script}");
    assert!(!script.contains("add element"));
    assert!(state.slots.is_empty() && state.local.is_empty() && state.calls.is_empty());
    step(&mut state, "b", &[one(4004)]);
    assert_eq!(state.used, 1);
}

#[test]
fn a_changed_flow_is_replaced_in_one_script() {
    let mut state = State::default();
    step(&mut state, "a", &[one(4000)]);
    let moved = Flow { to: "10.0.0.3:4000".parse().unwrap(), ..one(4000) };
    let script = step(&mut state, "a", &[moved]);
    assert!(script.rfind("delete element").unwrap() < script.find("add element").unwrap(), "{script}");
    assert!(script.contains("10.0.0.3"));
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
fn counters_are_read_from_nfts_json() {
    let json = serde_json::json!([
        { "elem": { "val": { "concat": ["fd00::1", 4000, "fd00::9", 10000] }, "counter": { "packets": 7, "bytes": 700 } } },
        1_795_227_649_u32
    ]);
    let (key, packets, bytes) = count_of(&json).unwrap();
    assert_eq!(
        (key.0.to_string(), key.1.to_string(), packets, bytes),
        ("[fd00::1]:4000".into(), "[fd00::9]:10000".into(), 7, 700)
    );
    assert_eq!(count_of(&serde_json::json!([1, 2])), None);
}
