use super::*;

#[test]
fn tunnels_do_not_go_on_for_ever() {
    let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2];
    for _ in 0..10 {
        let mut outer = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 4, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2];
        outer.extend(&packet);
        packet = outer;
    }
    let Inside::Ip(outer) = inside(101, &packet) else { panic!() };
    let (inner, unread) = innermost(outer);
    assert_eq!((packet.len() - inner.len(), unread), (20 * MAX_TUNNELS, Some(Unread::Nested)));
}

#[test]
fn what_is_too_short_or_no_ip_is_nothing() {
    for link in [0, 1, 9, 12, 50, 51, 101, 104, 105, 108, 113, 127, 228, 229, 276] {
        for n in 0..64 {
            for byte in [0, 0x45, 0x60, 0x81, 0x88, 0xff] {
                let _ = inside(link, &vec![byte; n]);
                let _ = fitted(&vec![byte; n], true);
            }
        }
        assert_eq!(inside(link, &[]), Inside::Else);
    }
    assert_eq!(inside(1, &[0xff; 60]), Inside::Else);
    assert_eq!(inside(195, &[0x45; 60]), Inside::Unsupported);
}

#[test]
fn lengths_are_fitted_to_what_is_there() {
    let mut whole = vec![0x45, 0, 0, 48, 0, 0, 0, 0, 64, 17, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 0, 9, 0, 9, 0, 28, 0, 0];
    whole.extend([7; 20]);
    assert_eq!(fitted(&whole, true), Cow::<[u8]>::Borrowed(&whole));
    let cut = fitted(&whole[..40], true);
    assert_eq!((cut[3], cut[25]), (40, 20));
    // A damaged frame that was captured whole stays as it is.
    assert_eq!(fitted(&whole[..40], false), Cow::<[u8]>::Borrowed(&whole[..40]));
}
