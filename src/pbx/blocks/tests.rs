use super::{Inbox, MAX_BLOCK};
use crate::pbx::Refusal;

#[test]
fn blocks_come_whole_however_the_bytes_come() {
    let stream = b"Hello 1.0\r\nA: 1\r\nB:2\r\n\r\n\r\nC: x: y\nempty:\n\nD: 4\r\n\r\nrest";
    for chunk in 1..stream.len() {
        let mut inbox = Inbox::default();
        let (mut banner, mut blocks) = (None, Vec::new());
        for part in stream.chunks(chunk) {
            inbox.push(part);
            if banner.is_none() {
                banner = inbox.line().unwrap();
            }
            while banner.is_some() {
                let Some(block) = inbox.block().unwrap() else { break };
                blocks.push(["a", "B", "C", "D", "empty"].map(|n| block.get(n).unwrap_or("-").to_owned()).join(","));
            }
        }
        assert_eq!(
            (banner.as_deref(), blocks.join(" ").as_str()),
            (Some("Hello 1.0"), "1,2,-,-,- -,-,x: y,-,- -,-,-,4,-"),
            "{chunk}"
        );
        assert_eq!(inbox.exactly(4).unwrap().as_deref(), Some(&b"rest"[..]));
        assert_eq!(inbox.exactly(1).unwrap(), None);
    }
}

#[test]
fn endless_blocks_and_lines_are_refused() {
    let mut inbox = Inbox::default();
    let mut refused = None;
    for _ in 0..MAX_BLOCK / 1000 + 2 {
        inbox.push(&[b'x'; 1000]);
        refused = inbox.block().err();
    }
    assert_eq!(refused, Some(Refusal::TooLong));
    assert_eq!(inbox.line(), Err(Refusal::TooLong));
    assert_eq!(inbox.exactly(usize::MAX / 2), Err(Refusal::TooLong));
}

#[test]
fn percent_codes_are_undone_and_what_is_none_stays() {
    for (value, meant) in
        [("a%40b%3A5060", "a@b:5060"), ("100%", "100%"), ("%4", "%4"), ("%zz%+1", "%zz%+1"), ("%C3%A9", "é"), ("", "")]
    {
        assert_eq!(super::decode(value), meant);
    }
}
