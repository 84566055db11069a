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
    for bad in [&b""[..], b"{", b"\xff\xfe", b"[]", b"{\"schema\":1}", b"{\"schema\":1,\"epoch\":-4}", &vec![b' '; MAX_VALUE + 1]]
    {
        let Recorded::Unreadable { why, .. } = read_record("/keepcall/x/record", bad, 1) else { panic!("was read: {bad:?}") };
        assert!(why.contains("etcdctl del /keepcall/x/record"), "{why}");
        assert!(read_node("k", bad).is_err());
    }
}

#[test]
fn an_alive_key_that_cannot_be_read_still_counts_as_present_and_as_nobodys_epoch() {
    assert_eq!(read_alive(b"12", 5), Alive { epoch: 12, lease: 5 });
    assert_eq!(read_alive(b"\xff", 5), Alive { epoch: 0, lease: 5 });
}
