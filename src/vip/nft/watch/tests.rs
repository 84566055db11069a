use super::*;

fn message(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = vec![0; GENERIC];
    for (kind, value) in attributes {
        body.extend(u16::try_from(ATTRIBUTE + value.len()).unwrap().to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(*value);
        body.resize(aligned(body.len()), 0);
    }
    let mut out = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.resize(HEADER, 0);
    out.extend(body);
    out
}

#[test]
fn only_deletions_are_told_and_by_name() {
    let mut all = message(10 << 8, &[(NAME, b"new\0")]);
    all.extend(message(TABLE_DELETED, &[(2, &[1, 2, 3, 4, 5]), (NAME, b"keepcall-fence-sip\0")]));
    all.extend(message(TABLE_DELETED, &[(NAME, b"b\0")]));
    assert_eq!(deleted(&all), ["keepcall-fence-sip", "b"]);
    // Cut anywhere, it is read as far as it goes.
    for end in 0..all.len() {
        assert!(deleted(&all[..end]).len() <= 2);
    }
    let mut endless = message(TABLE_DELETED, &[(NAME, b"x\0")]);
    endless[HEADER + GENERIC] = 0;
    endless[HEADER + GENERIC + 1] = 0;
    assert!(deleted(&endless).is_empty());
}
