use super::*;

fn record() -> Record {
    Record {
        schema: SCHEMA,
        epoch: 7,
        master: "a".into(),
        successor: Some("b".into()),
        members: vec!["a".into(), "b".into()],
        since_ms: 1,
        reason: "first".into(),
        handover: None,
        flaps: 2,
        addresses: BTreeMap::from([("a".into(), "[::1]:7490".parse().unwrap())]),
        terms: Some(Terms::new(Duration::from_millis(400), 0.01)),
        vips: BTreeSet::from(["192.0.2.1".parse().unwrap()]),
    }
}

#[test]
fn a_record_comes_back_as_it_was_written() {
    assert_eq!(read_record("k", &encode(&record()), 3), Recorded::Good { revision: 3, record: record().into() });
}

#[test]
fn a_newer_schema_is_refused_even_if_the_rest_looks_familiar() {
    let newer = encode(&Record { schema: SCHEMA + 1, ..record() });
    let Recorded::Unreadable { why, revision: 3 } = read_record("k", &newer, 3) else { panic!("was read") };
    assert!(why.contains("upgrade") && why.contains("schema 2"), "{why}");
}

#[test]
fn an_epoch_that_leaves_no_room_for_the_next_one_is_refused() {
    for epoch in [0, (1 << 62) + 1, u64::MAX] {
        let bad = encode(&Record { epoch, ..record() });
        let Recorded::Unreadable { why, .. } = read_record("k", &bad, 1) else { panic!("was read: {epoch}") };
        assert!(why.contains(&epoch.to_string()) && why.contains("etcdctl del k"), "{why}");
    }
}

#[test]
fn garbage_is_refused_with_the_key_and_the_cure() {
    for bad in [
        &b""[..],
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{\"schema\":1}",
        b"{\"schema\":1,\"epoch\":-4}",
        &vec![b' '; MAX_VALUE + 1],
    ] {
        let Recorded::Unreadable { why, .. } = read_record("/keepcall/x/record", bad, 1) else {
            panic!("was read: {bad:?}")
        };
        assert!(why.contains("etcdctl del /keepcall/x/record"), "{why}");
        assert!(read_node("k", bad).is_err());
    }
}

#[test]
fn an_alive_key_that_cannot_be_read_still_counts_as_present_and_as_nobodys_epoch() {
    assert_eq!(read_alive(b"12", 5), Alive { epoch: 12, lease: 5 });
    assert_eq!(read_alive(b"\xff", 5), Alive { epoch: 0, lease: 5 });
}

#[test]
fn every_field_at_its_extremes_is_read_or_named_as_unreadable() {
    let long = "x".repeat(64);
    type Change<'a> = Box<dyn Fn(&mut Record) + 'a>;
    let bad: Vec<(&str, Change<'_>)> = vec![
        ("epoch 0", Box::new(|r| r.epoch = 0)),
        ("epoch 4611686018427387905", Box::new(|r| r.epoch = MAX_EPOCH + 1)),
        ("epoch 18446744073709551615", Box::new(|r| r.epoch = u64::MAX)),
        ("since_ms", Box::new(|r| r.since_ms = u64::MAX)),
        ("more than 64 members", Box::new(|r| r.members = (0..65).map(|n| n.to_string()).collect())),
        ("not a valid node name", Box::new(|r| r.master = String::new())),
        ("not a valid node name", Box::new(|r| r.master = "a/b".into())),
        ("not a valid node name", Box::new(|r| r.successor = Some(long.clone()))),
        ("not a valid node name", Box::new(|r| r.handover = Some("\u{1b}[2J".into()))),
        ("not a valid node name", Box::new(|r| r.members.push("ä".into()))),
        ("not a valid node name", Box::new(|r| r.addresses.extend([(" ".into(), "[::1]:1".parse().unwrap())]))),
    ];
    for (part, change) in bad {
        let mut r = record();
        change(&mut r);
        let Recorded::Unreadable { why, .. } = read_record("k", &encode(&r), 1) else { panic!("was read: {part}") };
        assert!(why.contains(part) && why.contains("etcdctl del k"), "{part}: {why}");
    }
    // A million names exceed the longest value, and an out-of-range number is rejected.
    let many = Record { members: (0..1_000_000).map(|n| n.to_string()).collect(), ..record() };
    for bad in [
        encode(&many),
        br#"{"schema":1,"epoch":1e99}"#.to_vec(),
        br#"{"schema":1,"epoch":18446744073709551616}"#.to_vec(),
    ] {
        assert!(matches!(read_record("k", &bad, 1), Recorded::Unreadable { .. }));
    }
    let edge = Record { epoch: MAX_EPOCH, since_ms: MAX_MS, flaps: u32::MAX, master: "x".repeat(63), ..record() };
    assert_eq!(read_record("k", &encode(&edge), 1), Recorded::Good { revision: 1, record: edge.into() });
    assert_eq!(read_alive(u64::MAX.to_string().as_bytes(), 5).epoch, 0);
    assert_eq!(read_alive(b"-1", 5).epoch, 0);
}

#[test]
fn a_node_key_names_a_node_that_can_be_spoken_to() {
    let entry = |name: &str, address: &str| NodeEntry {
        schema: SCHEMA,
        name: name.into(),
        address: address.parse().unwrap(),
        boot: u64::MAX,
        version: "0".into(),
        settings: None,
    };
    assert!(read_node("k", &encode(&entry("a", "192.0.2.1:7490"))).is_ok());
    for (name, address) in
        [("", "192.0.2.1:1"), ("a b", "192.0.2.1:1"), ("a", "192.0.2.1:0"), ("a", "0.0.0.0:1"), ("a", "[ff02::1]:1")]
    {
        assert!(read_node("k", &encode(&entry(name, address))).is_err(), "{name} {address}");
    }
}
