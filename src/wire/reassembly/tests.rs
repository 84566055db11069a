use super::*;
use proptest::prelude::*;

fn datagram(payload: &[u8]) -> Vec<u8> {
    let mut d = vec![0x13, 0xc4, 0x13, 0xc5];
    d.extend(((8 + payload.len()) as u16).to_be_bytes());
    d.extend([0, 0]);
    d.extend(payload);
    d
}

fn cut(bytes: &[u8], room: usize, id: u32) -> Vec<Fragment<'_>> {
    let count = bytes.len().div_ceil(room);
    let ip = |n| IpAddr::from([10, 0, 0, n]);
    let one =
        |(i, data)| Fragment { src: ip(1), dst: ip(2), protocol: 17, id, offset: i * room, more: i + 1 < count, data };
    bytes.chunks(room).enumerate().map(one).collect()
}

proptest! {
    #[test]
    fn any_order_gives_the_datagram_once(length in 100_usize..5000, order in any::<u64>()) {
        let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let bytes = datagram(&payload);
        let mut fragments = cut(&bytes, 64, 1);
        let n = fragments.len();
        for i in 0..n {
            fragments.swap(i, (order.wrapping_mul(i as u64 + 7) % n as u64) as usize);
        }
        let mut r = Reassembly::new();
        let mut done = Vec::new();
        for f in fragments.iter().flat_map(|f| [f, f]).take(if n > MAX_FRAGMENTS { 0 } else { usize::MAX }) {
            done.extend(r.handle_fragment(f, Time::ZERO));
        }
        if n <= MAX_FRAGMENTS {
            prop_assert_eq!(done.len(), 1);
            prop_assert_eq!(&done[0].2, &payload);
            prop_assert_eq!(done[0].0.to_string(), "10.0.0.1:5060");
        }
    }

    #[test]
    fn garbage_stays_bounded(parts in proptest::collection::vec((0_u32..500, 0_usize..9000, any::<bool>(), 0_usize..40), 0..600)) {
        let mut r = Reassembly::new();
        let bytes = [0_u8; 40];
        let ip = IpAddr::from([10, 0, 0, 1]);
        for (n, (id, offset, more, length)) in parts.into_iter().enumerate() {
            let f = Fragment { src: ip, dst: ip, protocol: 17, id, offset: offset * 8, more, data: &bytes[..length] };
            r.handle_fragment(&f, Time::from_millis(n as u64));
            prop_assert!(r.partials.len() <= MAX_DATAGRAMS);
        }
    }
}

#[test]
fn a_missing_part_is_forgotten_and_counted() {
    let bytes = datagram(&[7; 100]);
    let mut r = Reassembly::new();
    assert_eq!(r.handle_fragment(&cut(&bytes, 64, 1)[0], Time::ZERO), None);
    assert_eq!(r.handle_fragment(&cut(&bytes, 64, 1)[1], Time::from_millis(2500)), None);
    assert_eq!(r.given_up(), 1);
}

#[test]
fn overlaps_are_refused() {
    let bytes = datagram(&[7; 100]);
    let mut r = Reassembly::new();
    r.handle_fragment(&cut(&bytes, 64, 1)[0], Time::ZERO);
    assert_eq!(r.handle_fragment(&cut(&bytes, 56, 1)[1], Time::ZERO), None);
    assert_eq!(r.handle_fragment(&cut(&bytes, 64, 1)[1], Time::ZERO), None);
    assert_eq!(r.given_up(), 1);
}
