//! Cuts streams of bytes into messages.

use super::{choices, show};
use keepcall::sip::framer::{Framer, MAX_MESSAGE, datagram};
use keepcall::sip::message::{Message, ParseError};

/// A message found whole behind any gap.
const NEXT: &[u8] = b"BYE sip:a@h SIP/2.0\r\nFrom: <sip:a>;tag=1\r\nTo: <sip:b>;tag=2\r\nCall-ID: next\r\nCSeq: 2 BYE\r\nContent-Length: 0\r\n\r\n";

/// Reads `data` as one direction of a connection, as a part of one, and as a datagram.
pub fn framer(data: &[u8]) {
    let whole = cut(data, usize::MAX, Framer::new());
    for most in [1, 2 + (choices(data) % 60) as usize] {
        let pieces = cut(data, most, Framer::new());
        // A start line inside a body exposes a wrong Content-Length, but only while the body is incomplete. So bytes
        // that arrive at once may be read differently from the same bytes in pieces.
        if whole.1 == 0 && start_lines(data) == whole.0.len() && whole.0.iter().all(|m| is_whole(m)) {
            assert_eq!(pieces, whole, "however the stream is cut: {most}");
        }
    }
    pushed(data);
    behind_a_gap(data);
    cut(data, 7, Framer::joined());
    let pieces: Vec<&[u8]> = datagram(data).collect();
    assert!(pieces.iter().all(|p| !p.is_empty()) && pieces.concat() == data, "a datagram is cut without loss");
}

/// The messages in a stream that arrives at once.
pub fn messages(data: &[u8]) -> Vec<Vec<u8>> {
    cut(data, usize::MAX, Framer::new()).0
}

/// Lines that begin a message, or seem to.
fn start_lines(data: &[u8]) -> usize {
    let lines = data.split(|b| *b == b'\n').map(|l| l.trim_ascii().to_ascii_uppercase());
    lines.filter(|l| l.starts_with(b"SIP/2.0") || l.ends_with(b"SIP/2.0")).count()
}

fn is_whole(m: &[u8]) -> bool {
    Message::parse(m).is_ok_and(|m| m.is_whole())
}

/// The messages, and the number of skipped bytes.
fn cut(data: &[u8], most: usize, mut framer: Framer) -> (Vec<Vec<u8>>, u64) {
    let mut all = Vec::new();
    let mut bytes = 0;
    for piece in data.chunks(most.max(1)) {
        framer.feed(piece, &mut |m| {
            check(m);
            bytes += m.len();
            all.push(m.to_vec());
        });
        assert!(framer.buffered() <= 2 * MAX_MESSAGE + most.min(data.len()));
    }
    framer.finish(&mut |m| {
        check(m);
        bytes += m.len();
        all.push(m.to_vec());
    });
    let blank = data.iter().filter(|b| matches!(b, b'\r' | b'\n')).count();
    let told = bytes + framer.buffered() + usize::try_from(framer.skipped()).unwrap();
    assert!(told <= data.len() && told + blank >= data.len(), "every byte is accounted for: {told} of {}", data.len());
    (all, framer.skipped())
}

fn check(m: &[u8]) {
    assert!(!m.is_empty() && m.len() <= MAX_MESSAGE);
    let read = Message::parse(m).err();
    assert!(!matches!(read, Some(ParseError::NotSip | ParseError::TooLarge)), "{read:?}: {}", show(m));
}

/// `push` and `next` give the same messages as `feed`.
fn pushed(data: &[u8]) {
    let (mut fed, mut pushed) = (Framer::new(), Framer::new());
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for piece in data.chunks(100) {
        fed.feed(piece, &mut |m| a.push(m.to_vec()));
        pushed.push(piece);
        while let Some(m) = pushed.next() {
            b.push(m.to_vec());
        }
    }
    assert_eq!(
        (a, fed.buffered(), fed.skipped(), fed.resyncs()),
        (b, pushed.buffered(), pushed.skipped(), pushed.resyncs())
    );
}

/// After lost bytes the next whole message is found, whatever came before.
fn behind_a_gap(data: &[u8]) {
    let mut framer = Framer::new();
    framer.feed(data, &mut check);
    framer.gap();
    assert_eq!(framer.buffered(), 0);
    let mut found = Vec::new();
    framer.feed(NEXT, &mut |m| found.push(m.to_vec()));
    assert_eq!(found, [NEXT]);
}
