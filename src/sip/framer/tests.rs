use super::*;
use proptest::prelude::*;

fn message(start: &str, body: &str) -> Vec<u8> {
    let typed = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!("{start}\r\nVia: SIP/2.0/TCP 10.0.0.1\r\nCall-ID: 1\r\n{typed}Content-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn invite(body: &str) -> Vec<u8> {
    message("INVITE sip:bob@example.org SIP/2.0", body)
}

fn ok() -> Vec<u8> {
    message("SIP/2.0 200 OK", "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\n")
}

/// The messages that a framer makes of these pieces, by `feed` and by `push`.
fn cut(mut framer: Framer, pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut second = Framer { synced: framer.synced, ..Framer::default() };
    let (mut fed, mut pushed) = (Vec::new(), Vec::new());
    for piece in pieces {
        framer.feed(piece, &mut |m| fed.push(m.to_vec()));
        second.push(piece);
        while let Some(m) = second.next() {
            pushed.push(m.to_vec());
        }
    }
    assert_eq!(fed, pushed, "feed and push disagree");
    assert_eq!((framer.skipped, framer.buffered()), (second.skipped, second.buffered()));
    fed
}

fn texts(messages: &[Vec<u8>]) -> Vec<String> {
    messages.iter().map(|m| String::from_utf8_lossy(m).into_owned()).collect()
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_messages(
        kinds in proptest::collection::vec((0_usize..4, 0_usize..400), 1..8),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
        pings in any::<bool>(),
    ) {
        let messages: Vec<Vec<u8>> = kinds
            .iter()
            .map(|(kind, length)| match kind {
                0 => invite(&"a=sendrecv\r\n".repeat(length / 12)),
                1 => ok(),
                2 => message("BYE sip:a SIP/2.0", ""),
                _ => message("FANCY sip:a SIP/2.0", &"x".repeat(*length)),
            })
            .collect();
        let glue: &[u8] = if pings { b"\r\n\r\n" } else { b"" };
        let stream: Vec<u8> = messages.iter().flat_map(|m| [m, glue].concat()).collect();
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(stream.len())).collect();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
        prop_assert_eq!(cut(Framer::new(), &pieces), messages);
    }

    #[test]
    fn garbage_never_panics_nor_grows(
        pieces in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..300),
                "(INVITE|SIP/2.0 200|[A-Z]{1,3}) [a-z:]{0,9}( SIP/2.0)?\r?\n(l|Content-Length|c): ?[0-9]{0,6}\r?\n(\r?\n)?".prop_map(String::into_bytes),
            ],
            0..60,
        ),
        gaps in any::<u64>(),
    ) {
        let mut framer = Framer::new();
        let total: usize = pieces.iter().map(Vec::len).sum();
        let mut out = 0;
        for (n, piece) in pieces.iter().enumerate() {
            framer.feed(piece, &mut |m| out += m.len());
            if gaps >> (n % 64) & 1 == 1 && n % 5 == 0 {
                framer.gap();
            }
            prop_assert!(framer.buffered() <= MAX_MESSAGE);
        }
        prop_assert!(out + framer.buffered() <= total);
    }

    #[test]
    fn a_message_after_any_garbage_is_found(garbage in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let stream = [&garbage[..], b"\n", &invite("v=0\r\n"), &ok(), &ok()].concat();
        let all = cut(Framer::joined(), &[&stream]);
        prop_assert!(all.len() >= 2 && all[all.len() - 1] == ok(), "{:?}", texts(&all));
    }
}

#[test]
fn several_in_one_piece_and_one_byte_at_a_time() {
    let stream = [invite("v=0\r\n"), ok(), message("ACK sip:a SIP/2.0", "")].concat();
    assert_eq!(cut(Framer::new(), &[&stream]).len(), 3);
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(cut(Framer::new(), &bytes).concat(), stream);
}

#[test]
fn keep_alives_are_passed_over_and_do_not_count() {
    let stream = [b"\r\n\r\n", &invite("")[..], b"\r\n", b"\r\n\r\n", &ok()].concat();
    let mut framer = Framer::new();
    let mut all = Vec::new();
    framer.feed(&stream, &mut |m| all.push(m.to_vec()));
    assert_eq!(all, [invite(""), ok()]);
    assert_eq!((framer.skipped(), framer.resyncs(), framer.buffered()), (0, 0, 0));
}

#[test]
fn compact_folded_and_odd_lengths() {
    for head in
        ["l: 3", "L:3", "content-length :  3 ", "Content-Length:\r\n 3", "Content-Length: 3\r\nContent-Length: 9"]
    {
        let one = format!("INFO sip:a SIP/2.0\r\n{head}\r\n\r\nabc");
        let stream = [one.as_bytes(), &ok()].concat();
        assert_eq!(cut(Framer::new(), &[&stream]), [one.as_bytes(), &ok()], "{head}");
        // Bare LF.
        let one = one.replace('\r', "");
        let stream = [one.as_bytes(), &ok()].concat();
        assert_eq!(cut(Framer::new(), &[&stream]), [one.as_bytes(), &ok()], "{head}");
    }
}

#[test]
fn without_a_length_the_next_start_line_ends_a_body() {
    let one = b"INVITE sip:a SIP/2.0\r\nCall-ID: 1\r\nContent-Type: application/sdp\r\n\r\nv=0\r\ns=-\r\n";
    let mut framer = Framer::new();
    let mut all = Vec::new();
    framer.feed(&[&one[..], &ok()].concat(), &mut |m| all.push(m.to_vec()));
    assert_eq!(all, [&one[..], &ok()]);
    // The end of the stream ends the message as well.
    framer.feed(one, &mut |_| panic!("not known to be whole"));
    assert!(framer.is_open_ended());
    let mut last = Vec::new();
    framer.finish(&mut |m| last.push(m.to_vec()));
    assert_eq!(last, [one]);
    assert_eq!(framer.buffered(), 0);
    // Without a body there is nothing to wait for.
    let bare = b"OPTIONS sip:a SIP/2.0\r\nCall-ID: 1\r\n\r\n";
    assert_eq!(cut(Framer::new(), &[bare]), [bare]);
}

#[test]
fn a_wrong_length_costs_no_other_message() {
    let wrong = |claim: usize| {
        format!(
            "INVITE sip:a SIP/2.0\r\nContent-Type: application/sdp\r\nContent-Length: {claim}\r\n\r\nv=0\r\na=x\r\n"
        )
        .into_bytes()
    };
    for claim in [0, 3, 8, 12, 60, 300, 65_000, 66_000, usize::MAX] {
        let stream = [&wrong(claim)[..], &ok(), &message("BYE sip:a SIP/2.0", ""), &ok()].concat();
        for size in [7, 100, 10_000] {
            let pieces: Vec<&[u8]> = stream.chunks(size).collect();
            let all = cut(Framer::new(), &pieces);
            assert!(
                all.ends_with(&[ok(), message("BYE sip:a SIP/2.0", ""), ok()]),
                "{claim} by {size}: {:#?}",
                texts(&all)
            );
            // The message itself comes out with the available part of its body, unless it claims an impossible length.
            assert_eq!(all.len(), if claim > MAX_MESSAGE { 3 } else { 4 }, "{claim} by {size}: {:#?}", texts(&all));
        }
    }
}

#[test]
fn a_message_inside_a_body_stays_there() {
    let fragment = "SIP/2.0 200 OK\r\nTo: x\r\n";
    let notify = format!(
        "NOTIFY sip:a SIP/2.0\r\nContent-Type: message/sipfrag;version=2.0\r\nContent-Length: {}\r\n\r\n{fragment}",
        fragment.len()
    )
    .into_bytes();
    let stream = [&notify[..], &ok()].concat();
    for size in [1, 9, 1000] {
        let pieces: Vec<&[u8]> = stream.chunks(size).collect();
        assert_eq!(cut(Framer::new(), &pieces), [notify.clone(), ok()]);
    }
}

#[test]
fn after_a_gap_the_next_start_line_counts() {
    let one = invite("v=0\r\na=sendrecv\r\n");
    for lost_from in 1..one.len() {
        let mut framer = Framer::new();
        let mut all = Vec::new();
        framer.feed(&one[..lost_from], &mut |m| all.push(m.to_vec()));
        framer.gap();
        // The rest of some message, then two whole ones.
        framer.feed(&[&one[one.len() - lost_from..], &ok(), &ok()].concat(), &mut |m| all.push(m.to_vec()));
        assert!(all.ends_with(&[ok(), ok()]), "{lost_from}: {:#?}", texts(&all));
        assert_eq!(all.len(), 2, "{lost_from}: {:#?}", texts(&all));
    }
}

#[test]
fn after_a_gap_a_body_without_an_end_of_line_hides_nothing() {
    for next in [ok(), invite("")] {
        for rest in [
            "v=0\r\nbody",
            "v=0",
            "Via: SIP/2.0/TCP x\r\nSubject: INVITE sip:a SIP/2.0\r\nSubject:BYE sip:a SIP/2.0\r\n\r\n{}",
        ] {
            let stream = [rest.as_bytes(), &next].concat();
            assert_eq!(cut(Framer::joined(), &[&stream]), std::slice::from_ref(&next), "{rest}");
            assert_eq!(cut(Framer::joined(), &[rest.as_bytes(), &next]), std::slice::from_ref(&next), "{rest}");
        }
    }
}

#[test]
fn a_message_torn_among_its_headers_is_dropped() {
    let stream = [b"INVITE sip:a SIP/2.0\r\nVia: SIP/2.0/TCP x\r\nCall-ID: half\r\n", &ok()[..]].concat();
    assert_eq!(cut(Framer::new(), &[&stream]), [ok()]);
}

#[test]
fn what_has_no_end_is_given_up_and_bounded() {
    let mut framer = Framer::new();
    framer.feed(b"INVITE sip:a SIP/2.0\r\n", &mut |_| panic!("no message"));
    for _ in 0..10_000 {
        framer.feed(b"Via: SIP/2.0/TCP x\r\n", &mut |_| panic!("no message"));
        assert!(framer.buffered() <= MAX_MESSAGE);
    }
    framer.feed(&[7; 100_000], &mut |_| panic!("no message"));
    assert!(framer.buffered() <= MAX_MESSAGE);
    let mut all = Vec::new();
    framer.feed(&[b"\r\n", &ok()[..]].concat(), &mut |m| all.push(m.to_vec()));
    assert_eq!(all, [ok()]);
    assert!(framer.skipped() > 200_000 && framer.resyncs() > 0);
}

#[test]
fn whoever_never_asks_loses_the_oldest() {
    let mut framer = Framer::new();
    for _ in 0..2000 {
        framer.push(&ok());
        assert!(framer.buffered() <= 2 * MAX_MESSAGE);
    }
    assert_eq!(framer.next(), Some(&ok()[..]));
}

#[test]
fn joined_datagrams_are_cut_and_others_left_alone() {
    let cut = |bytes: &[u8]| datagram(bytes).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let two = [invite("v=0\r\n"), ok()].concat();
    assert_eq!(cut(&two), [invite("v=0\r\n"), ok()]);
    let three = [ok(), ok(), message("BYE sip:a SIP/2.0", "")].concat();
    assert_eq!(cut(&three).len(), 3);
    // A message fragment as a body, trailing bytes, too large a length: each datagram is one message.
    let fragment = "SIP/2.0 200 OK\r\n";
    let notify = message("NOTIFY sip:a SIP/2.0", fragment);
    for one in [notify, [&ok()[..], b"trailing"].concat(), invite(""), b"\0\x01".to_vec(), b"\r\n\r\n".to_vec()] {
        assert_eq!(cut(&one), [one]);
    }
    assert!(cut(b"").is_empty());
}

#[test]
fn beginnings_are_told() {
    for yes in ["INVITE sip:a SIP/2.0", "SIP/2.0 200 OK", "I", "SIP/2", "BYE ", "OPTIONS sip:"] {
        assert!(may_begin(yes.as_bytes()), "{yes}");
    }
    for no in ["", "GET / HTTP/1.1", "INVITED", "\x16\x03\x01", "Via: SIP/2.0/TCP"] {
        assert!(!may_begin(no.as_bytes()), "{no}");
    }
}

#[test]
fn a_start_line_with_other_blanks_is_the_same_in_pieces() {
    let rest =
        "Via: x\r\nFrom: <sip:a>;tag=1\r\nTo: <sip:b>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";
    for start in ["OPTIONS\tsip:a SIP/2.0", "  OPTIONS sip:a SIP/2.0", "\x0cOPTIONS sip:a SIP/2.0", "SIP/2.0\t200 OK"] {
        let stream = format!("{start}\r\n{rest}");
        for most in [1, 5, stream.len()] {
            let (mut framer, mut all) = (Framer::new(), Vec::new());
            stream.as_bytes().chunks(most).for_each(|piece| framer.feed(piece, &mut |m| all.push(m.to_vec())));
            assert_eq!(all, [stream.as_bytes()], "{start:?} in pieces of {most}");
        }
    }
}
