use super::{same, tail};

#[test]
fn one_number_in_many_ways_of_writing_is_the_same() {
    let ways: [&[u8]; 6] = [
        b"+49301234567",
        b"0049301234567",
        b"0301234567",
        b"49301234567",
        b"+49-30-(123)45.67",
        b"0301234567;phone-context=x",
    ];
    for a in ways {
        for b in ways {
            assert!(same(a, b), "{:?} {:?}", std::str::from_utf8(a), std::str::from_utf8(b));
        }
        assert_eq!(tail(a).as_deref(), Some(&b"1234567"[..]));
    }
}

#[test]
fn other_numbers_extensions_and_names_are_not() {
    let pairs: [(&[u8], &[u8]); 7] = [
        (b"+49301234567", b"+49301234568"),
        (b"+49301234567", b"+49401234567"),
        // Extensions: each digit counts.
        (b"1000", b"91000"),
        (b"001000", b"1000"),
        (b"alice", b"alice"),
        (b"12345678a", b"12345678"),
        // Longer in front than any prefix.
        (b"1234567", b"9999991234567"),
    ];
    for (a, b) in pairs {
        assert!(!same(a, b), "{:?} {:?}", std::str::from_utf8(a), std::str::from_utf8(b));
    }
    assert_eq!((tail(b"1000"), tail(b""), tail(b"+")), (None, None, None));
    assert_eq!(tail(&[b'7'; 100]), None, "longer than any number");
}
