use super::*;
use proptest::prelude::*;

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];

fn segment(port: u16, seq: u32, data: &[u8]) -> Tcp<'_> {
    Tcp { sport: port, dport: 5060, seq, ack: None, syn: false, fin: false, rst: false, data }
}

fn syn(port: u16, seq: u32) -> Tcp<'static> {
    Tcp { syn: true, ..segment(port, seq, b"") }
}

fn message(n: usize) -> Vec<u8> {
    let body = "x".repeat(n % 50);
    format!(
        "OPTIONS sip:a SIP/2.0\r\nCall-ID: {n}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn run(streams: &mut Streams, segments: &[Tcp<'_>], now: Time) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for s in segments {
        streams.handle_segment(A.into(), B.into(), s, now, &mut |src, dst, m| {
            assert_eq!((src.ip(), dst.port()), (IpAddr::from(A), 5060));
            all.push(m.to_vec());
        });
    }
    all
}

/// Recomputes the counts of waiting bytes and streams.
fn check(streams: &Streams) {
    assert_eq!(streams.buffered, streams.streams.values().map(Stream::buffered).sum::<usize>());
    assert_eq!(streams.waiting, streams.streams.values().filter(|s| s.waits()).count());
    assert!(streams.streams.keys().all(|k| streams.queue.iter().any(|(q, _)| q == k)));
}

#[test]
fn what_only_silence_ends_comes_in_the_order_of_time() {
    // Without a Content-Length, silence on the stream ends the message.
    let text = |n: u16| format!("OPTIONS sip:{n} SIP/2.0\r\nCall-ID: {n}\r\nContent-Type: text/plain\r\n\r\nx");
    let mut streams = Streams::new(false);
    // Ports in neither rising nor falling order, so that sorting by port fails the test.
    let ports: Vec<u16> = (0..16).map(|n| 1000 + n * 7 % 16).collect();
    for (n, port) in (0..).zip(&ports) {
        let message = text(*port);
        assert!(run(&mut streams, &[segment(*port, 1, message.as_bytes())], Time::from_millis(n)).is_empty());
    }
    let mut all = Vec::new();
    streams.handle_timeout(Time::from_millis(5000), &mut |src, _, _| all.push(src.port()));
    assert_eq!(all, ports);
}

proptest! {
    #[test]
    fn messages_of_many_streams_come_whole_and_in_order(
        sizes in proptest::collection::vec(1_usize..400, 1..40),
        swaps in proptest::collection::vec(any::<bool>(), 40),
        ports in 1_u16..4,
    ) {
        let stream: Vec<u8> = (0..20).flat_map(message).collect();
        let mut cuts = vec![0];
        let mut sizes = sizes.iter().cycle();
        while cuts[cuts.len() - 1] < stream.len() {
            cuts.push((cuts[cuts.len() - 1] + sizes.next().unwrap()).min(stream.len()));
        }
        let mut pieces: Vec<(usize, &[u8])> = cuts.windows(2).map(|w| (w[0], &stream[w[0]..w[1]])).collect();
        for n in 1..pieces.len() {
            if swaps[n % swaps.len()] {
                pieces.swap(n - 1, n);
            }
        }
        let mut streams = Streams::new(false);
        let opened: Vec<Tcp<'_>> = (0..ports).map(|p| syn(1000 + p, u32::MAX - 100)).collect();
        prop_assert!(run(&mut streams, &opened, Time::ZERO).is_empty());
        let mut all = Vec::new();
        for (at, data) in pieces {
            for p in 0..ports {
                all.extend(run(&mut streams, &[segment(1000 + p, (u32::MAX - 99).wrapping_add(at as u32), data)], Time::ZERO));
            }
            check(&streams);
        }
        prop_assert_eq!(all.len(), 20 * usize::from(ports));
        for (n, m) in all.iter().enumerate().filter(|(n, _)| n % usize::from(ports) == 0) {
            prop_assert!(all.contains(m) && all.contains(&message(n / usize::from(ports))));
        }
        prop_assert_eq!((streams.buffered, streams.waiting, streams.counters().gaps), (0, 0, 0));
    }

    #[test]
    fn counts_stay_true_whatever_comes(
        parts in proptest::collection::vec((0_u16..4, 0_u32..6000, 0_usize..300, 0_u8..24, any::<bool>()), 0..300),
    ) {
        let stream: Vec<u8> = (0..80).flat_map(message).collect();
        let mut streams = Streams::new(false);
        for (n, (port, at, length, flags, ack)) in parts.into_iter().enumerate() {
            let now = Time::from_millis(n as u64 * 40);
            let from = (at as usize).min(stream.len());
            let data = &stream[from..(from + length).min(stream.len())];
            let s = Tcp { syn: flags == 1, fin: flags == 2, rst: flags == 3, ack: ack.then_some(at), ..segment(port, at, data) };
            streams.handle_segment(A.into(), B.into(), &s, now, &mut |_, _, _| {});
            let back = Tcp { sport: 5060, dport: port, ack: Some(at + 50), ..segment(port, 7, b"") };
            if flags == 5 {
                streams.handle_segment(B.into(), A.into(), &back, now, &mut |_, _, _| {});
            }
            if flags == 6 {
                streams.handle_timeout(now, &mut |_, _, _| {});
            }
            check(&streams);
        }
    }
}

#[test]
fn a_lost_segment_costs_its_message_and_the_answer_shows_the_loss() {
    let mut streams = Streams::new(false);
    let (one, two, three) = (message(1), message(2), message(3));
    assert_eq!(run(&mut streams, &[syn(1000, 0), segment(1000, 1, &one)], Time::ZERO), [&one[..]]);
    let seq = 1 + one.len() as u32;
    // The first half of the second message is missing.
    let rest = &two[20..];
    assert!(
        run(&mut streams, &[segment(1000, seq + 20, rest), segment(1000, seq + two.len() as u32, &three)], Time::ZERO)
            .is_empty()
    );
    assert!(streams.next_deadline().is_some());
    let mut all = Vec::new();
    let end = seq + (two.len() + three.len()) as u32;
    let answer =
        Tcp { sport: 5060, dport: 1000, seq: 70, ack: Some(end), syn: false, fin: false, rst: false, data: b"" };
    streams.handle_segment(B.into(), A.into(), &answer, Time::ZERO, &mut |_, _, m| all.push(m.to_vec()));
    assert_eq!(all, [&three[..]]);
    let counters = streams.counters();
    assert_eq!((counters.gaps, counters.messages, counters.skipped), (1, 2, two.len() as u64 - 20));
    assert_eq!(streams.next_deadline(), None);
}

#[test]
fn time_alone_ends_a_hole_and_a_message_without_length() {
    let mut streams = Streams::new(false);
    let one = b"INFO sip:a SIP/2.0\r\nContent-Type: text/plain\r\n\r\nhello".as_slice();
    let two = message(2);
    run(&mut streams, &[syn(1000, 0), segment(1000, 1, one), syn(1001, 0), segment(1001, 9, &two)], Time::ZERO);
    let mut all = Vec::new();
    let mut at = Time::ZERO;
    while let Some(deadline) = streams.next_deadline() {
        assert!(deadline > at, "it would be asked for ever");
        at = deadline;
        assert!(at < Time::from_millis(20_000));
        streams.handle_timeout(at, &mut |_, _, m| all.push((at, m.to_vec())));
        check(&streams);
    }
    assert_eq!(all.len(), 2);
    assert_eq!(all[0], (Time::ZERO + LOOK, one.to_vec()));
    assert_eq!(all[1].1, two);
    assert!(all[1].0 > Time::ZERO + order::PATIENCE);
}

#[test]
fn where_ports_are_unknown_only_sip_is_taken_up() {
    let mut streams = Streams::new(true);
    let tls = [b"\x16\x03\x01".as_slice(), b"GET / HTTP/1.1\r\n\r\n"];
    run(&mut streams, &[syn(1, 0), segment(1, 1, tls[0]), syn(2, 0), segment(2, 1, tls[1])], Time::ZERO);
    assert_eq!(streams.counters().streams, 0);
    let one = message(1);
    // The same in very small pieces.
    let pieces: Vec<Tcp<'_>> = one.chunks(3).enumerate().map(|(n, c)| segment(3, 1 + 3 * n as u32, c)).collect();
    assert_eq!(run(&mut streams, &pieces, Time::ZERO), [&one[..]]);
}

#[test]
fn a_stream_of_something_else_on_a_sip_port_keeps_nothing() {
    let mut streams = Streams::new(false);
    run(&mut streams, &[syn(1, 0)], Time::ZERO);
    let noise: Vec<u8> = (0..1000_u32).map(|n| (n * 37 % 251) as u8 | 0x80).collect();
    for n in 0..200 {
        run(&mut streams, &[segment(1, 1 + n * 1000, &noise)], Time::ZERO);
        assert_eq!(streams.buffered, 0);
    }
    assert_eq!(streams.counters().skipped, 200_000);
}

#[test]
fn the_most_silent_stream_gives_way() {
    let mut streams = Streams::new(false);
    let one = message(1);
    let half = |port, at| (segment(port, 1, &one[..10]), Time::from_millis(at));
    for n in 0..MAX_STREAMS {
        let (s, at) = half((n % 60_000) as u16, n as u64);
        streams.handle_segment([10, 1, 0, (n / 60_000) as u8].into(), B.into(), &s, at, &mut |_, _, _| {});
    }
    assert_eq!(streams.counters().streams, MAX_STREAMS as u64);
    // The first stream sends, so the second is the longest idle when a new one comes.
    let from: IpAddr = [10, 1, 0, 0].into();
    streams.handle_segment(from, B.into(), &segment(0, 11, &one[10..20]), Time::from_millis(70_000), &mut |_, _, _| {});
    streams.handle_segment(
        [10, 9, 9, 9].into(),
        B.into(),
        &segment(0, 1, &one[..10]),
        Time::from_millis(70_001),
        &mut |_, _, _| {},
    );
    let counters = streams.counters();
    assert_eq!((counters.streams, counters.evicted), (MAX_STREAMS as u64, 1));
    let has = |port| streams.streams.contains_key(&(SocketAddr::new(from, port), SocketAddr::new(B.into(), 5060)));
    assert!(has(0) && !has(1) && has(2));
}

#[test]
fn waiting_bytes_of_all_streams_are_bounded() {
    let mut streams = Streams::new(false);
    let big = vec![b'x'; 60_000];
    for port in 0..1000 {
        run(&mut streams, &[syn(port, 0), segment(port, 100, &big)], Time::from_millis(u64::from(port)));
        assert!(streams.buffered <= MAX_BUFFERED);
    }
    assert!(streams.counters().evicted > 400);
    check(&streams);
}

#[test]
fn streams_that_end_or_fall_silent_are_forgotten() {
    let mut streams = Streams::new(false);
    for n in 0..5000_u32 {
        let port = (n % 1000) as u16;
        let m = message(1);
        let fin = Tcp { fin: true, ..segment(port, 1 + m.len() as u32, b"") };
        assert_eq!(
            run(&mut streams, &[syn(port, 0), segment(port, 1, &m), fin], Time::from_millis(u64::from(n))).len(),
            1
        );
    }
    assert!(streams.streams.is_empty() && streams.queue.len() <= SPARE + 2, "{}", streams.queue.len());
    for port in 0..100 {
        run(&mut streams, &[syn(port, 0)], Time::from_millis(10_000));
    }
    let later = Time::from_millis(11_000) + IDLE;
    for n in 0..100 {
        run(&mut streams, &[segment(5000, 1 + n, b"x")], later);
    }
    assert_eq!(streams.counters().streams, 1);
}
