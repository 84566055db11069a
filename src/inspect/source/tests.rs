use super::*;

#[test]
fn only_what_no_capture_does_is_a_bomb() {
    assert_eq!(bound(1, FREE), Ok(()));
    assert_eq!(bound(FREE / 100, FREE * 2), Ok(()));
    assert!(bound(FREE / 1000, FREE * 2).unwrap_err().0.contains("500 times"));
    assert!(bound(MAX_UNPACKED / 20, MAX_UNPACKED + 1).unwrap_err().0.contains("8 GiB"));
}
