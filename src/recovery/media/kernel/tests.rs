use super::*;

fn flow(from: &str, at: &str, to: &str, source: &str) -> Flow {
    let a = |s: &str| s.parse().unwrap();
    Flow { from: a(from), at: a(at), to: a(to), source: a(source), udptl: false }
}

fn one(port: u16) -> Flow {
    flow(&format!("10.0.0.1:{port}"), "10.0.0.9:10000", &format!("10.0.0.2:{port}"), "10.0.0.9:10002")
}

#[tokio::test]
async fn what_the_ground_does_not_permit_is_wanted_by_nobody() {
    let relay = KernelRelay::new("t", &Ground::of(&["10.0.0.9".parse().unwrap()]));
    let sip = Flow { to: "10.0.0.66:5060".parse().unwrap(), ..one(4002) };
    let wish = |call: &str, flows: &[Flow]| Wish { call: call.to_owned(), flows: flows.to_vec(), emergency: false };
    let refused = relay.want([wish("good", &[one(4000)]), wish("attack", &[one(4004), sip])]).await;
    assert!(
        matches!(&refused[..], [RelayError::Impossible { call, why: Refusal::Sip(_), .. }] if call == "attack"),
        "{refused:?}"
    );
    let mut state = relay.state.lock().await;
    state.planner.handle_present(Present::default(), 1);
    let Some(Action::Commit(piece)) = state.planner.poll_action() else { panic!("nothing is armed") };
    assert_eq!(piece.put.flows.iter().map(|(flow, _)| *flow).collect::<Vec<_>>(), [one(4000)]);
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
