use super::*;

#[test]
fn names_are_identifiers_and_stay_apart() {
    assert_eq!(table_name("fence", "pbx-1.a_b"), "keepcall-fence-pbx-1.a_b");
    let (a, b) = (table_name("fence", "a b"), table_name("fence", "a;b"));
    assert_ne!(a, b);
    // The names of earlier versions: a new process must find its predecessor's tables.
    assert_eq!(table_name("fence", "office 1"), "keepcall-fence-office_1/66321be76e95de36");
    assert_eq!(table_name("relay", "büro"), "keepcall-relay-b_ro/7b764c738ef0d7c5");
    for name in [a, b, table_name("x", ""), table_name("x", &"é\n{}".repeat(200))] {
        assert!(name.len() < 255 && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c)), "{name}");
    }
}
