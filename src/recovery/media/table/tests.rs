use super::*;

#[test]
fn marks_keep_instances_and_flows_apart() {
    assert_eq!(mark(1, 0), 0x6b01_0000);
    assert_ne!(mark(1, 7), mark(2, 7));
    assert_eq!(mark(u8::MAX, u16::MAX), 0x6bff_ffff);
}

#[test]
fn keys_are_read_as_they_are_written() {
    for (from, at) in [("10.0.0.1:4000", "10.0.0.9:10000"), ("[fd00::1]:4000", "[fd00::9]:65535")] {
        let (from, at) = (from.parse().unwrap(), at.parse().unwrap());
        assert_eq!(ends(key(from, at).as_bytes()), Some((from, at)));
    }
    for wrong in [&[][..], &[0; 3], &[0; 15], &[0; 17], &[0; 24], &[0; 64]] {
        assert_eq!(ends(wrong), None, "{wrong:?}");
    }
}
