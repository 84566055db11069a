use super::*;
use proptest::prelude::*;

fn data(seq: u32, data: &[u8]) -> Part<'_> {
    Part { seq, syn: false, fin: false, rst: false, data }
}

fn syn(seq: u32) -> Part<'static> {
    Part { seq, syn: true, fin: false, rst: false, data: &[] }
}

fn fin(seq: u32) -> Part<'static> {
    Part { seq, syn: false, fin: true, rst: false, data: &[] }
}

/// The output as text: bytes as they are, `|` for a gap, `^` for a restart, `$` for the end.
#[derive(Default)]
struct Sink(String);

impl Sink {
    fn take(&mut self, piece: &Piece<'_>) {
        match piece {
            Piece::Bytes(b) => self.0.push_str(&String::from_utf8_lossy(b)),
            Piece::Gap => self.0.push('|'),
            Piece::Restart => self.0.push('^'),
            Piece::End => self.0.push('$'),
        }
    }
}

fn run(order: &mut Order, parts: &[Part<'_>]) -> String {
    let mut sink = Sink::default();
    for part in parts {
        order.handle(part, Time::ZERO, &mut |p| sink.take(&p));
    }
    sink.0
}

proptest! {
    /// Splitting, repeating, overlapping and shuffling within a window all give the same bytes.
    #[test]
    fn any_segments_give_the_same_bytes(
        length in 1_usize..4000,
        isn: u32,
        wraps in any::<bool>(),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 1_usize..900), 0..60),
        disorder in proptest::collection::vec(0_usize..12, 140),
    ) {
        let isn = if wraps { u32::MAX - (length / 2) as u32 } else { isn };
        let bytes: Vec<u8> = (0..length).map(|n| b'a' + (n * 7 % 26) as u8).collect();
        // Pieces of 50 that cover everything, plus random pieces, each moved by up to a dozen places.
        let cover = (0..length.div_ceil(50)).map(|n| (n * 50, 50));
        let mut pieces: Vec<(usize, usize)> = cover.chain(cuts.iter().map(|(at, l)| (at.index(length), *l))).collect();
        pieces.sort_unstable();
        let mut placed: Vec<(usize, (usize, usize))> =
            pieces.iter().enumerate().map(|(n, p)| (n + disorder[n % disorder.len()], *p)).collect();
        placed.sort_by_key(|(place, _)| *place);
        let mut order = Order::new(&syn(isn));
        let mut sink = Sink::default();
        for (_, (at, l)) in placed {
            let end = (at + l).min(length);
            order.handle(&data(isn.wrapping_add(1 + at as u32), &bytes[at..end]), Time::ZERO, &mut |p| sink.take(&p));
        }
        order.handle(&fin(isn.wrapping_add(1 + length as u32)), Time::ZERO, &mut |p| sink.take(&p));
        prop_assert_eq!(sink.0, String::from_utf8(bytes).unwrap() + "$");
        prop_assert_eq!((order.held_bytes, order.held.len(), order.gaps), (0, 0, 0));
    }

    /// Any input keeps memory bounded and its count right.
    #[test]
    fn garbage_stays_bounded(parts in proptest::collection::vec((any::<u16>(), 0_usize..2000, 0_u8..40, any::<u8>()), 0..400)) {
        let bytes = [b'x'; 2000];
        let mut order = Order::new(&syn(u32::MAX - 3000));
        for (n, (seq, length, flags, far)) in parts.into_iter().enumerate() {
            let base = if far == 0 { 1 << 30 } else { 0 };
            let part = Part {
                seq: (u32::MAX - 3000).wrapping_add(u32::from(seq)).wrapping_add(base),
                syn: flags == 1,
                fin: flags == 2,
                rst: flags == 3,
                data: &bytes[..length],
            };
            order.handle(&part, Time::from_millis(n as u64), &mut |_| {});
            if flags == 4 {
                order.acknowledged(part.seq, &mut |_| {});
            }
            prop_assert!(order.held_bytes <= MAX_HELD + 2000 && order.held.len() <= MAX_SEGMENTS + 1);
            prop_assert_eq!(order.held_bytes, order.held.iter().map(|(_, d)| d.len()).sum::<usize>());
        }
    }
}

#[test]
fn repetitions_and_overlaps_give_only_what_is_new() {
    let mut o = Order::new(&syn(9));
    assert_eq!(
        run(&mut o, &[data(10, b"abc"), data(10, b"abc"), data(12, b"cde"), data(10, b"ab"), data(14, b"e")]),
        "abcde"
    );
    assert_eq!(o.repeated, 3);
    // A keep-alive probe repeats the last byte (RFC 9293 section 3.8.4), or is empty and one number before.
    assert_eq!(run(&mut o, &[data(14, b"e"), data(14, b""), data(15, b"f")]), "f");
}

#[test]
fn a_hole_that_the_receiver_does_not_have_is_given_up() {
    let mut o = Order::new(&syn(9));
    assert_eq!(run(&mut o, &[data(10, b"abc"), data(16, b"ghi"), data(22, b"mno")]), "abc");
    let mut sink = Sink::default();
    o.acknowledged(13, &mut |p| sink.take(&p));
    assert_eq!(sink.0, "", "it waits for the same bytes");
    o.acknowledged(19, &mut |p| sink.take(&p));
    assert_eq!(sink.0, "|ghi", "it has them, and will not be sent them again; the second hole is still open");
    o.handle_timeout(Time::ZERO + PATIENCE, &mut |p| sink.take(&p));
    assert_eq!(sink.0, "|ghi");
    o.handle_timeout(Time::ZERO + PATIENCE * 2, &mut |p| sink.take(&p));
    assert_eq!((sink.0.as_str(), o.gaps), ("|ghi|mno", 2));
}

#[test]
fn a_hole_is_given_up_when_too_much_waits() {
    let mut o = Order::new(&syn(0));
    let big = vec![b'x'; 60_000];
    let mut total = 0;
    let mut gaps = 0;
    for n in 0..6 {
        o.handle(&data(101 + n * 60_000, &big), Time::ZERO, &mut |p| match p {
            Piece::Bytes(b) => total += b.len(),
            Piece::Gap => gaps += 1,
            _ => panic!("{p:?}"),
        });
    }
    assert_eq!((total, gaps), (360_000, 1));
    let mut o = Order::new(&syn(0));
    let parts: Vec<Part<'_>> = (0..200).map(|n| data(101 + 2 * n, b"x")).collect();
    assert!(run(&mut o, &parts).starts_with('|'));
    assert!(o.held.len() <= MAX_SEGMENTS);
    // A late segment also shows that enough time has passed.
    let mut o = Order::new(&syn(0));
    run(&mut o, &[data(5, b"e")]);
    let mut sink = Sink::default();
    o.handle(&data(6, b"f"), Time::ZERO + PATIENCE * 2, &mut |p| sink.take(&p));
    assert_eq!(sink.0, "|ef");
}

#[test]
fn a_stream_that_was_open_before_begins_anywhere() {
    let mut o = Order::new(&data(500, b"x"));
    assert_eq!(run(&mut o, &[data(500, b"xy"), data(502, b"z")]), "xyz");
    // Bytes from before the beginning fill no hole.
    assert_eq!(run(&mut o, &[data(490, b"0123456789")]), "");
}

#[test]
fn the_end_comes_after_all_bytes() {
    let mut o = Order::new(&syn(9));
    assert_eq!(run(&mut o, &[fin(13)]), "");
    assert_eq!(run(&mut o, &[data(10, b"abc")]), "abc$");
    let mut o = Order::new(&syn(9));
    assert_eq!(run(&mut o, &[Part { fin: true, ..data(10, b"abc") }]), "abc$");
}

#[test]
fn a_reset_counts_only_if_it_fits() {
    let rst = |seq| Part { rst: true, ..data(seq, b"") };
    let mut o = Order::new(&syn(9));
    assert_eq!(
        run(
            &mut o,
            &[
                data(10, b"abc"),
                rst(13 + (1 << 21)),
                rst(13_u32.wrapping_sub(1 << 21)),
                data(13, b"d"),
                data(15, b"f"),
                rst(14)
            ]
        ),
        "abcd|f$"
    );
}

#[test]
fn a_new_connection_between_the_same_ports_starts_anew() {
    let mut o = Order::new(&syn(9));
    // A repeated SYN means nothing. A new SYN means nothing until data follow, because it may be forged or refused.
    assert_eq!(run(&mut o, &[data(10, b"abc"), syn(9), syn(5_000_000), data(13, b"d")]), "abcd");
    assert_eq!(run(&mut o, &[data(5_000_001, b"new"), syn(5_000_000), data(5_000_004, b"er")]), "^newer");
    // The new connection's first segments in the wrong order.
    assert_eq!(run(&mut o, &[syn(9_000_000), data(9_000_003, b"cd"), data(9_000_001, b"ab")]), "^abcd");
    // New numbers close to the old ones.
    assert_eq!(run(&mut o, &[syn(9_000_100), data(9_000_101, b"x")]), "^x");
    // A new connection with an unseen SYN.
    assert_eq!(run(&mut o, &[data(70_000_000, b"y"), data(70_000_001, b"z")]), "|yz");
}

#[test]
fn data_may_come_with_the_syn() {
    let first = Part { syn: true, ..data(9, b"abc") };
    let mut o = Order::new(&first);
    assert_eq!(run(&mut o, &[first, first, data(13, b"d")]), "abcd");
}
