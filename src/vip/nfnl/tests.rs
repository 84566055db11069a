use super::batch::{self, Batch, Data, Family};
use super::reply::{Found, Malformed, Reply, Rule, parse};
use super::within;
use proptest::prelude::*;

fn key(n: u32) -> Data {
    Data::new().then(&n.to_be_bytes())
}

/// The type, flags and number of each message.
fn headers(mut bytes: &[u8]) -> Vec<(u16, u16, u32)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let message = netlink_packet_core::NetlinkBuffer::new_checked(bytes).unwrap();
        all.push((message.message_type(), message.flags(), message.sequence_number()));
        bytes = &bytes[message.length() as usize..];
    }
    all
}

#[test]
fn keys_are_padded_as_the_kernel_has_them() {
    let v4 = Data::new().then_address("10.0.0.1:5060".parse().unwrap()).then_address("10.0.0.2:7".parse().unwrap());
    assert_eq!(v4.as_bytes(), [10, 0, 0, 1, 0x13, 0xc4, 0, 0, 10, 0, 0, 2, 0, 7, 0, 0]);
    let v6 = "[fd00::1]:5060".parse().unwrap();
    assert_eq!(Data::new().then_address(v6).then_address(v6).as_bytes().len(), 40);
    assert_eq!(Data::new().then(&[17]).as_bytes(), [17]);
    assert_eq!(Data::new().then(&[1; 60]).then(&[2; 8]).as_bytes(), [1; 60]);
}

#[test]
fn one_transaction_has_a_begin_an_end_and_one_acknowledged_message() {
    let mut batch = Batch::new(Family::Inet, "t");
    assert!(batch.is_empty());
    batch.flush("a");
    for n in 0..3 {
        batch.add("a", &key(n), None, None);
    }
    batch.delete("b", &key(1));
    let mut sequence = u32::MAX;
    let all = batch.transactions(usize::MAX, &mut sequence);
    assert_eq!((all.len(), sequence, all[0].first, all[0].last), (1, 4, u32::MAX, 2));
    let kinds = headers(&all[0].bytes);
    assert_eq!(kinds, [(16, 1, u32::MAX), (0xa0e, 1, 0), (0xa0c, 0x401, 1), (0xa0e, 5, 2), (17, 1, 3)]);
}

#[test]
fn many_elements_are_many_messages_and_split_where_the_buffer_ends() {
    let fill = || {
        let mut batch = Batch::new(Family::Netdev, "t");
        for n in 0..10_000 {
            batch.add("set", &key(n), Some(&key(n)), Some(std::time::Duration::from_secs(1)));
        }
        batch
    };
    let size = fill().size();
    let one = fill().transactions(usize::MAX, &mut 1);
    assert_eq!(one.len(), 1);
    assert_eq!(one[0].bytes.len(), size + 40);
    let messages = headers(&one[0].bytes).len() - 2;
    assert!(messages > 10, "{messages}");
    let limit = 100_000;
    let some = fill().transactions(limit, &mut 1);
    assert!(
        some.iter().all(|t| t.bytes.len() <= limit),
        "{:?}",
        some.iter().map(|t| t.bytes.len()).collect::<Vec<_>>()
    );
    assert_eq!(some.iter().map(|t| headers(&t.bytes).len() - 2).sum::<usize>(), messages);
    // A limit below one message cannot be kept, and must not loop for ever.
    assert_eq!(fill().transactions(1, &mut 1).len(), messages);
    assert!(Batch::new(Family::Inet, "t").transactions(1, &mut 1).is_empty());
}

/// The kernel's answer to a query for one element with a counter.
fn answer() -> Vec<u8> {
    let counter = [attribute(1, &700_u64.to_be_bytes()), attribute(2, &7_u64.to_be_bytes())].concat();
    let expression = [attribute(1, b"counter\0"), attribute(0x8002, &counter)].concat();
    let element = [attribute(0x8001, &attribute(1, &[10, 0, 0, 1])), attribute(0x8007, &expression)].concat();
    message(0xa0c, 0, &[attribute(1, b"t\0"), attribute(0x8003, &attribute(0x8001, &element))].concat())
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A message with number 9, for the family inet.
fn message(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let mut message = (attributes.len() as u32 + 20).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(9_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend([1, 0, 0, 0]);
    message.extend(attributes);
    message
}

#[test]
fn of_rules_chain_and_comment_are_read() {
    let rule = |noted: &[u8]| [attribute(1, b"t\0"), attribute(2, b"output\0"), attribute(7, noted)].concat();
    let read = |comment: &str| Reply::Rule {
        sequence: 9,
        rule: Rule { chain: "output".to_owned(), comment: comment.to_owned(), ..Rule::default() },
    };
    // User data of another program comes first.
    let noted = [&[1, 2, 0, 0][..], &[0, 4], b"abc\0"].concat();
    assert_eq!(parse(&message(0xa06, 2, &rule(&noted))), Ok(vec![read("abc")]));
    assert_eq!(parse(&message(0xa06, 2, &rule(&noted[..7]))), Ok(vec![read("")]));
    let plain = [attribute(1, b"t\0"), attribute(2, b"output\0")].concat();
    // Other rules appeared or disappeared during the listing.
    assert_eq!(parse(&message(0xa06, 0x12, &plain)), Ok(vec![Reply::Interrupted { sequence: 9 }, read("")]));
    assert_eq!(parse(&message(0xa06, 2, &attribute(1, b"t\0"))), Err(Malformed));
}

#[test]
fn counters_are_read() {
    let found = vec![Found { key: vec![10, 0, 0, 1], packets: 7, bytes: 700, ..Found::default() }];
    assert_eq!(parse(&answer()), Ok(vec![Reply::Elements { sequence: 9, found }]));
}

#[test]
fn an_answer_that_ends_early_is_malformed_and_never_more() {
    let whole = answer();
    for length in 1..whole.len() {
        assert_eq!(parse(&whole[..length]), Err(Malformed), "{length} bytes");
    }
    // An error without its number.
    let mut short = 16_u32.to_ne_bytes().to_vec();
    short.extend([2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(parse(&short), Err(Malformed));
}

#[test]
fn numbers_are_compared_over_their_end() {
    assert!(within(u32::MAX, 0, 2) && within(5, 5, 5) && !within(u32::MAX, 3, 2) && !within(1, 0, 2));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_fail_otherwise(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn nor_do_changed_answers(changes in proptest::collection::vec((0_usize..120, any::<u8>()), 1..6)) {
        let mut bytes = answer();
        for (at, to) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
        }
        let _ = parse(&bytes);
    }

    #[test]
    fn batches_of_any_order_are_whole(steps in proptest::collection::vec((0_u8..3, 0_u8..3, any::<u32>()), 0..200), limit in 0_usize..20_000) {
        let mut batch = Batch::new(Family::Inet, "t");
        for (what, set, n) in &steps {
            let set = ["a", "b", "c"][usize::from(*set)];
            match what {
                0 => batch.add(set, &key(*n), None, None),
                1 => batch.delete(set, &key(*n)),
                _ => batch.flush(set),
            }
        }
        let size = batch.size();
        let all = batch.transactions(limit, &mut 1);
        prop_assert_eq!(all.iter().map(|t| t.bytes.len() - 40).sum::<usize>(), size);
        for transaction in all {
            let kinds = headers(&transaction.bytes);
            prop_assert_eq!(kinds.iter().filter(|k| k.1 & 4 != 0).map(|k| k.2).collect::<Vec<_>>(), vec![transaction.last]);
        }
    }
}

#[test]
fn questions_are_messages_of_their_own() {
    let mut sequence = 7;
    let (bytes, last) = batch::questions(Family::Inet, "t", "s", &[key(1), key(2)], &mut sequence);
    assert_eq!((headers(&bytes), last), (vec![(0xa0d, 1, 7), (0xa0d, 5, 8)], 8));
}
