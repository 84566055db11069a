use super::*;
use std::time::Duration;

fn codec(node: &str, boot: u64) -> Codec {
    Codec::new(b"0123456789abcdef0123456789abcdef", "c", node, boot)
}

fn beat(n: u64) -> Message {
    Message { kind: Kind::Beat { beat: n, boot: 9 }, epoch: 3, fit: true, priority: 101, reported: Some(settings()) }
}

fn settings() -> ReportedSettings {
    ReportedSettings {
        terms: Terms::new(Duration::from_millis(400), 0.01),
        vips: 0x0102_0304_0506_0708,
        others: u64::MAX,
    }
}

#[test]
fn every_kind_comes_through_once() {
    let (mut a, mut b) = (codec("a", 1), codec("b", 2));
    for kind in [Kind::Beat { beat: 4, boot: 5 }, Kind::Ack { beat: 4, boot: 5, vouch: true }, Kind::Claimed, Kind::Go]
    {
        let m = Message { kind, epoch: 7, fit: false, priority: 300, reported: Some(settings()) };
        let bytes = a.seal("vip", &m);
        assert_eq!(b.open(&bytes), Ok(("a".into(), "vip".into(), m)));
        assert_eq!(b.open(&bytes), Err(Rejected::Replay));
    }
}

#[test]
fn reordering_is_tolerated_within_the_window_and_an_old_run_never_returns() {
    let (mut a, mut b) = (codec("a", 1), codec("b", 2));
    let sent: Vec<_> = (0..100).map(|n| a.seal("i", &beat(n))).collect();
    assert!(b.open(&sent[99]).is_ok());
    assert!(b.open(&sent[98]).is_ok());
    assert_eq!(b.open(&sent[98]), Err(Rejected::Replay));
    assert_eq!(b.open(&sent[3]), Err(Rejected::Replay), "too old to tell");
    let unseen = a.seal("i", &beat(1));
    assert!(b.open(&codec("a", 77).seal("i", &beat(1))).is_ok());
    assert_eq!(b.open(&unseen), Err(Rejected::Replay), "of a run that was replaced");
}

#[test]
fn any_changed_or_missing_byte_and_any_other_key_or_cluster_is_refused() {
    let good = codec("a", 1).seal("i", &beat(1));
    let mut b = codec("b", 2);
    for i in 0..good.len() {
        let mut bad = good.clone();
        bad[i] ^= 0x40;
        assert!(b.open(&bad).is_err(), "byte {i}");
        assert!(b.open(&good[..i]).is_err(), "cut at {i}");
    }
    assert_eq!(Codec::new(b"another", "c", "b", 2).open(&good), Err(Rejected::BadMac));
    assert_eq!(Codec::new(b"0123456789abcdef0123456789abcdef", "d", "b", 2).open(&good), Err(Rejected::OtherCluster));
    assert!(b.open(&good).is_ok(), "none of the bad ones used up the number");
}

#[test]
fn a_datagram_of_long_ago_does_not_shut_out_the_run_that_etcd_knows() {
    let (mut a, mut b) = (codec("a", 1), codec("b", 2));
    b.registered("a", 1);
    let heard = a.seal("i", &beat(1));
    assert!(b.open(&heard).is_ok());
    // Recorded before this receiver started, so it cannot know that this run is an old one.
    let (old, older) = (codec("a", 77).seal("i", &beat(1)), codec("a", 78).seal("i", &beat(1)));
    assert!(b.open(&old).is_ok());
    assert!(b.open(&a.seal("i", &beat(2))).is_ok(), "the present run is heard again");
    assert_eq!(b.open(&heard), Err(Rejected::Replay), "and what it said before is still known");
    assert_eq!(b.open(&old), Err(Rejected::Replay));
    assert!(b.open(&older).is_ok() && b.open(&a.seal("i", &beat(3))).is_ok());
}

/// The tag of an older release, made with the constructor for keys of any length.
#[test]
fn the_key_is_the_same_as_that_of_the_releases_before() {
    let key = b"0123456789abcdef0123456789abcdef";
    let bytes = codec("a", 1).seal("i", &beat(1));
    let (body, tag) = bytes.split_at(bytes.len() - TAG);
    let mut mac = Hmac::<Sha256>::new_from_slice(&Sha256::digest(key)).unwrap();
    mac.update(body);
    assert_eq!(mac.finalize().into_bytes()[..TAG], *tag);
}

#[test]
fn during_a_change_of_key_datagrams_under_either_are_opened_and_under_no_third() {
    let of = |key: &[u8], node: &str, boot| Codec::new(key, "c", node, boot);
    let (former, next, third) = (&[1; 32][..], &[2; 32][..], &[3; 32][..]);
    let mut changing = of(former, "b", 2).accepting(&[next.to_vec()]);
    assert!(changing.open(&of(former, "a", 1).seal("i", &beat(1))).is_ok());
    assert!(changing.open(&of(next, "x", 1).seal("i", &beat(1))).is_ok());
    assert_eq!(changing.open(&of(third, "y", 1).seal("i", &beat(1))), Err(Rejected::BadMac));
    // It sends under its own key alone.
    assert_eq!(of(next, "z", 3).open(&changing.seal("i", &beat(1))), Err(Rejected::BadMac));
}

/// A datagram from a release without fields, and how that release reads the names: only the tag's position depends on
/// the length.
#[test]
fn a_release_without_fields_is_understood_and_understands() {
    let mut old = codec("a", 1);
    let bytes = old.seal("vip", &Message { reported: None, ..beat(4) });
    assert_eq!(bytes.len(), HEAD + 2 + "a".len() + "vip".len() + TAG, "no field");
    let (_, _, m) = codec("b", 2).open(&bytes).unwrap();
    assert_eq!(m, Message { reported: None, ..beat(4) });

    // The reverse: that release ignores the bytes between the names and the tag, up to its longest datagram.
    let longest = "x".repeat(63);
    let bytes = codec(&longest, 1).seal(&longest, &beat(4));
    assert!(bytes.len() <= 583, "{} bytes", bytes.len());
    let names = HEAD + 2 + 2 * longest.len();
    assert_eq!(bytes.len(), names + 2 + TOLD_LEN + TAG);
    assert!(codec("b", 2).open(&bytes).is_ok_and(|o| o.2.reported == Some(settings())));
    // Without room for both, long names displace the fields.
    let widest = "x".repeat(255);
    let bytes = codec(&widest, 1).seal(&widest, &beat(4));
    assert!(bytes.len() <= MAX_DATAGRAM && codec("b", 2).open(&bytes).is_ok_and(|o| o.2.reported.is_none()));
}

#[test]
fn fields_of_later_releases_are_skipped_and_cut_ones_tell_nothing() {
    let mut field = vec![TOLD, TOLD_LEN as u8];
    field.extend_from_slice(&[0_u8; TOLD_LEN]);
    let zero = Some(ReportedSettings { terms: Terms { hold_ns: 0, drift_ppm: 0 }, vips: 0, others: 0 });
    assert_eq!(reported(&field), zero);
    assert_eq!(reported(&[&[9, 2, 7, 7], field.as_slice()].concat()), zero, "after one that is not known");
    let mut longer = field.clone();
    longer[1] += 1;
    longer.push(5);
    assert_eq!(reported(&longer), zero, "a value that was added to");
    for len in 0..field.len() {
        assert_eq!(reported(&field[..len]), None, "cut at {len}");
    }
}
