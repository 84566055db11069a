use super::*;

fn codec(node: &str, boot: u64) -> Codec {
    Codec::new(b"0123456789abcdef0123456789abcdef", "c", node, boot)
}

fn beat(n: u64) -> Message {
    Message { kind: Kind::Beat { beat: n, boot: 9 }, epoch: 3, fit: true, priority: 101 }
}

#[test]
fn every_kind_comes_through_once() {
    let (mut a, mut b) = (codec("a", 1), codec("b", 2));
    for kind in [Kind::Beat { beat: 4, boot: 5 }, Kind::Ack { beat: 4, boot: 5, vouch: true }, Kind::Claimed, Kind::Go] {
        let m = Message { kind, epoch: 7, fit: false, priority: 300 };
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
    // Recorded before this receiver was there: it cannot know that this run is an old one.
    let (old, older) = (codec("a", 77).seal("i", &beat(1)), codec("a", 78).seal("i", &beat(1)));
    assert!(b.open(&old).is_ok());
    assert!(b.open(&a.seal("i", &beat(2))).is_ok(), "the present run is heard again");
    assert_eq!(b.open(&heard), Err(Rejected::Replay), "and what it said before is still known");
    assert_eq!(b.open(&old), Err(Rejected::Replay));
    assert!(b.open(&older).is_ok() && b.open(&a.seal("i", &beat(3))).is_ok());
}

/// An older release's tag, made by the constructor of any length that it used.
#[test]
fn the_key_is_the_same_as_that_of_the_releases_before() {
    let key = b"0123456789abcdef0123456789abcdef";
    let bytes = codec("a", 1).seal("i", &beat(1));
    let (body, tag) = bytes.split_at(bytes.len() - TAG);
    let mut mac = Hmac::<Sha256>::new_from_slice(&Sha256::digest(key)).unwrap();
    mac.update(body);
    assert_eq!(mac.finalize().into_bytes()[..TAG], *tag);
}
