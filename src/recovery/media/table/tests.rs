use super::*;

#[test]
fn marks_keep_instances_and_flows_apart() {
    assert_eq!(mark(1, 0), 0x6b01_0000);
    assert_ne!(mark(1, 7), mark(2, 7));
    assert_eq!(mark(u8::MAX, u16::MAX), 0x6bff_ffff);
}
