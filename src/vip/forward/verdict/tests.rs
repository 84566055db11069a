use super::*;
use proptest::prelude::*;

const PACKET: Packet<'_> = Packet { v6: false, interface: "eth0" };

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    let name = attribute(NAME, format!("{name}\0").as_bytes());
    attribute(1, &[name, attribute(DATA, &data.concat())].concat())
}

fn whole(kind: u16, number: u32) -> Vec<u8> {
    attribute(kind, &number.to_be_bytes())
}

/// `meta mark and MASK == value`.
fn of_mark(mask: u32, value: u32) -> Vec<u8> {
    let data = |kind: u16, number: u32| attribute(kind, &attribute(VALUE, &number.to_ne_bytes()));
    [
        expression("meta", &[whole(META_DREG, 1), whole(META_KEY, 3)]),
        expression("bitwise", &[whole(1, 1), whole(2, 1), whole(3, 4), data(4, mask), data(5, 0)]),
        expression("cmp", &[whole(1, 1), whole(2, 0), data(3, value)]),
    ]
    .concat()
}

fn verdict(code: i32, chain: &str) -> Vec<u8> {
    let said = [whole(VERDICT_CODE, code.cast_unsigned()), attribute(VERDICT_CHAIN, format!("{chain}\0").as_bytes())];
    expression("immediate", &[whole(1, 0), attribute(2, &attribute(VERDICT, &said.concat()))])
}

fn unknown() -> Vec<u8> {
    expression("limit", &[])
}

fn rule(chain: &str, parts: &[Vec<u8>]) -> Rule {
    Rule { chain: chain.to_owned(), body: parts.concat(), ..Rule::default() }
}

const ACCEPT: i32 = 1;
const DROP: i32 = 0;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const RETURN: i32 = -5;

#[test]
fn only_what_is_certain_counts() {
    let certain = Fate::Dropped { certain: true };
    let doubtful = Fate::Dropped { certain: false };
    let f = |rules: &[Rule]| fate(rules, "f", true, PACKET);
    assert_eq!(f(&[]), certain);
    assert_eq!(fate(&[], "f", false, PACKET), Fate::Passes);
    assert_eq!(f(&[rule("f", &[of_mark(MASK, MARK), verdict(ACCEPT, "")])]), Fate::Passes);
    // The lower bits are the flow's number, and one flow proves nothing for the others.
    assert_eq!(f(&[rule("f", &[of_mark(u32::MAX, MARK), verdict(ACCEPT, "")])]), doubtful);
    assert_eq!(f(&[rule("f", &[of_mark(MASK, 0x6c00_0000), verdict(ACCEPT, "")])]), certain);
    assert_eq!(f(&[rule("f", &[unknown(), verdict(ACCEPT, "")])]), doubtful);
    // A policy of accept with a last rule that drops.
    assert_eq!(fate(&[rule("f", &[verdict(DROP, "")])], "f", false, PACKET), certain);
    assert_eq!(fate(&[rule("f", &[unknown(), verdict(DROP, "")])], "f", false, PACKET), Fate::Passes);
    // A drop comes before the accept.
    assert_eq!(f(&[rule("f", &[verdict(DROP, "")]), rule("f", &[verdict(ACCEPT, "")])]), certain);
    // Jumps come back, gotos do not.
    let user = rule("user", &[of_mark(MASK, MARK), verdict(ACCEPT, "")]);
    assert_eq!(f(&[rule("f", &[verdict(JUMP, "user")]), user.clone()]), Fate::Passes);
    assert_eq!(f(&[rule("f", &[unknown(), verdict(JUMP, "user")]), user]), doubtful);
    let back = rule("user", &[verdict(RETURN, "")]);
    let last = rule("f", &[verdict(ACCEPT, "")]);
    assert_eq!(f(&[rule("f", &[verdict(JUMP, "user")]), last.clone(), back.clone()]), Fate::Passes);
    assert_eq!(f(&[rule("f", &[verdict(GOTO, "user")]), last, back]), certain);
}

#[test]
fn rules_that_never_end_are_left() {
    // Each chain jumps twice to the next one, so a walk without a limit takes 2^15 rounds and more.
    let twice = |n: usize| (0..30).map(move |_| rule(&format!("c{n}"), &[verdict(JUMP, &format!("c{}", n + 1))]));
    let rules: Vec<Rule> = (0..16).flat_map(twice).collect();
    assert_eq!(fate(&rules, "c0", true, PACKET), Fate::Dropped { certain: false });
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
        let _ = judge(&body, PACKET);
        let mut good = [of_mark(MASK, MARK), verdict(ACCEPT, "x")].concat();
        if let Some(byte) = good.get_mut(cut) {
            *byte = byte.wrapping_add(body.first().copied().unwrap_or(1));
        }
        good.truncate(cut.max(body.len()));
        let _ = judge(&good, PACKET);
    }
}
