use super::*;

#[test]
fn a_key_that_can_be_guessed_is_no_key() {
    assert_eq!(KeyFault::of(b""), Some(KeyFault::Short(0)));
    assert_eq!(KeyFault::of(&[7; 31]), Some(KeyFault::Short(31)));
    assert_eq!(KeyFault::of(&[0; 32]), Some(KeyFault::Repeated(0)));
    assert_eq!(KeyFault::of(&[b'\n'; 40]), Some(KeyFault::Repeated(b'\n')));
    assert_eq!(KeyFault::of(&[&[b'0'; 44][..], b"\n"].concat()), Some(KeyFault::Repeated(b'0')));
    assert_eq!(KeyFault::of(b"0123456789abcdef0123456789abcdef"), None);
    let said = KeyFault::Repeated(0).to_string() + &KeyFault::Short(5).cure(Path::new("/k"));
    assert!(said.contains("0x00") && said.contains("/dev/urandom | base64 > /k"), "{said}");
}
