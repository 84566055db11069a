//! HEP from a stream.

use super::{addr, encode, options};
use crate::hep::{FrameError, Framer};
use proptest::prelude::*;

fn packets(n: u16) -> Vec<Vec<u8>> {
    let vip = addr("192.0.2.10:5060");
    (0..n)
        .map(|i| encode::kamailio3(addr(&format!("198.51.100.7:{}", 5000 + i)), vip, 17, None, &options("UDP")))
        .collect()
}

fn drain(framer: &mut Framer, out: &mut Vec<Vec<u8>>) {
    while let Some(packet) = framer.next_packet().unwrap() {
        out.push(packet.to_vec());
    }
}

proptest! {
    #[test]
    fn cut_wherever_you_like(cuts in proptest::collection::vec(1_usize..900, 1..40)) {
        let sent = packets(5);
        let stream = sent.concat();
        let (mut framer, mut got, mut rest) = (Framer::default(), Vec::new(), &stream[..]);
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            rest = later;
            framer.push(now);
            drain(&mut framer, &mut got);
        }
        prop_assert_eq!(got, sent);
        prop_assert!(!framer.is_amid());
    }
}

#[test]
fn garbage_is_an_error_as_soon_as_it_shows_and_stays_one() {
    for garbage in [&b"G"[..], b"HEX", b"\x01\x10\x02\x11", b"\r\n"] {
        let mut framer = Framer::default();
        framer.push(&packets(1)[0]);
        assert!(framer.next_packet().unwrap().is_some());
        framer.push(garbage);
        assert_eq!(framer.next_packet(), Err(FrameError::NotHep3));
        framer.push(&packets(1)[0]);
        assert_eq!(framer.next_packet(), Err(FrameError::NotHep3));
    }
    let mut framer = Framer::default();
    framer.push(b"HEP3\x00\x05");
    assert_eq!(framer.next_packet(), Err(FrameError::Length(5)));
}

#[test]
fn a_part_is_waited_for() {
    let whole = packets(1).remove(0);
    let mut framer = Framer::default();
    assert!(!framer.is_amid());
    for (i, byte) in whole.iter().enumerate() {
        framer.push(&[*byte]);
        let last = i + 1 == whole.len();
        assert_eq!(framer.next_packet().unwrap().is_some(), last);
        assert_eq!(framer.is_amid(), !last);
    }
}
