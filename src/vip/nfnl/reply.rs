//! Reads nf_tables answers. Pure, and it never trusts an answer to be complete.

use super::batch::{
    CHAIN_HOOK, CHAIN_NAME, CHAIN_POLICY, CHAIN_TABLE, COMMENT, COUNTER_BYTES, COUNTER_PACKETS, DATA_VALUE, ELEM_DATA,
    ELEM_EXPIRATION, ELEM_EXPR, ELEM_KEY, ELEM_USERDATA, EXPR_DATA, EXPR_NAME, Family, GENERIC, HOOK_NUMBER, LIST_ELEM,
    LIST_ELEMENTS, NESTED, RULE_CHAIN, RULE_EXPRESSIONS, RULE_USERDATA, TABLE_HANDLE,
};
use crate::os::nf_tables::{NEW_CHAIN, NEW_ELEMENT, NEW_RULE, NEW_TABLE};
use netlink_packet_core::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, NetlinkBuffer};
use std::time::Duration;

/// An element of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its key, in the form of [`super::Data`].
    pub key: Vec<u8>,
    /// The map's value for the key; empty in a set.
    pub value: Vec<u8>,
    /// The counter's packets; zero without a counter.
    pub packets: u64,
    /// The counter's bytes; zero without a counter.
    pub bytes: u64,
    /// The remaining lifetime in whole milliseconds; `None` if the element is permanent.
    pub expires: Option<Duration>,
    /// The comment; empty if there is none.
    pub comment: String,
}

/// A rule of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The rule's chain.
    pub chain: String,
    /// The comment; empty if there is none.
    pub comment: String,
    /// The expressions, as the kernel writes them.
    pub body: Vec<u8>,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The family of its table.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The number of its hook; `None` if packets reach it by a jump only.
    pub hook: Option<u32>,
    /// Whether it drops packets that no rule has judged.
    pub drops: bool,
}

/// One message of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The result of message number `sequence`: zero, or a system error number.
    Result { sequence: u32, code: i32 },
    /// The requested elements.
    Elements { sequence: u32, found: Vec<Found> },
    /// The requested table's unique handle.
    Table { sequence: u32, handle: u64 },
    /// A rule of the requested table.
    Rule { sequence: u32, rule: Rule },
    /// A chain whose family forwards IP packets.
    Chain { sequence: u32, chain: Chain },
    /// The end of a listing: zero, or a system error number.
    Done { sequence: u32, code: i32 },
    /// The listed data may have changed during the listing, so the answer to message number `sequence` may be
    /// incomplete.
    Interrupted { sequence: u32 },
    /// The kernel dropped answers.
    Overrun,
}

/// The answer is not in the kernel's format.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::vip) struct Malformed;

/// Parses the messages in one datagram.
pub(super) fn parse(mut bytes: &[u8]) -> Result<Vec<Reply>, Malformed> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let message = NetlinkBuffer::new_checked(bytes).map_err(|_| Malformed)?;
        let (sequence, payload) = (message.sequence_number(), message.payload());
        if matches!(message.message_type(), NEW_ELEMENT | NEW_RULE | NEW_CHAIN | NLMSG_DONE)
            && message.flags() & NLM_F_DUMP_INTR != 0
        {
            replies.push(Reply::Interrupted { sequence });
        }
        match message.message_type() {
            NLMSG_ERROR => replies.push(Reply::Result { sequence, code: code(payload)? }),
            // Older kernels end a listing without a result.
            NLMSG_DONE if payload.is_empty() => replies.push(Reply::Done { sequence, code: 0 }),
            NLMSG_DONE => replies.push(Reply::Done { sequence, code: code(payload)? }),
            NLMSG_OVERRUN => replies.push(Reply::Overrun),
            NEW_ELEMENT => {
                let attributes = payload.get(GENERIC..).ok_or(Malformed)?;
                replies.push(Reply::Elements { sequence, found: elements(attributes)? });
            }
            NEW_TABLE => {
                let attributes = payload.get(GENERIC..).ok_or(Malformed)?;
                replies.push(Reply::Table { sequence, handle: number(first(attributes, TABLE_HANDLE)?)? });
            }
            NEW_RULE => {
                let attributes = payload.get(GENERIC..).ok_or(Malformed)?;
                replies.push(Reply::Rule { sequence, rule: rule(attributes)? });
            }
            NEW_CHAIN => {
                let (head, attributes) = payload.split_at_checked(GENERIC).ok_or(Malformed)?;
                if let Some(family) = head.first().and_then(|number| Family::that_forwards(*number)) {
                    replies.push(Reply::Chain { sequence, chain: chain(family, attributes)? });
                }
            }
            // Other messages (a no-op) say nothing about a request.
            _ => {}
        }
        let length = usize::try_from(message.length()).map_err(|_| Malformed)?;
        // A checked header never has length zero, so the loop ends. The last message may lack padding.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(replies)
}

/// The system's error number, as a positive number.
fn code(payload: &[u8]) -> Result<i32, Malformed> {
    let number = payload.first_chunk::<4>().map(|b| i32::from_ne_bytes(*b)).ok_or(Malformed)?;
    Ok(number.saturating_neg())
}

fn elements(attributes: &[u8]) -> Result<Vec<Found>, Malformed> {
    let mut found = Vec::new();
    for list in each(attributes) {
        let (LIST_ELEMENTS, list) = list? else { continue };
        for element in each(list) {
            let (LIST_ELEM, element) = element? else { continue };
            found.push(self::element(element)?);
        }
    }
    Ok(found)
}

fn element(attributes: &[u8]) -> Result<Found, Malformed> {
    let mut found = Found::default();
    for attribute in each(attributes) {
        match attribute? {
            (ELEM_KEY, data) => found.key = first(data, DATA_VALUE)?.ok_or(Malformed)?.to_vec(),
            (ELEM_DATA, data) => found.value = first(data, DATA_VALUE)?.unwrap_or_default().to_vec(),
            (ELEM_EXPR, expression) if first(expression, EXPR_NAME)? == Some(b"counter\0") => {
                let counter = first(expression, EXPR_DATA)?.ok_or(Malformed)?;
                found.packets = number(first(counter, COUNTER_PACKETS)?)?;
                found.bytes = number(first(counter, COUNTER_BYTES)?)?;
            }
            (ELEM_EXPIRATION, ms) => found.expires = Some(Duration::from_millis(number(Some(ms))?)),
            (ELEM_USERDATA, noted) => found.comment = comment(noted),
            _ => {}
        }
    }
    Ok(found)
}

fn rule(attributes: &[u8]) -> Result<Rule, Malformed> {
    let chain = first(attributes, RULE_CHAIN)?.ok_or(Malformed)?;
    Ok(Rule {
        chain: text(chain),
        comment: first(attributes, RULE_USERDATA)?.map(comment).unwrap_or_default(),
        body: first(attributes, RULE_EXPRESSIONS)?.unwrap_or_default().to_vec(),
    })
}

fn chain(family: Family, attributes: &[u8]) -> Result<Chain, Malformed> {
    let named = |kind| Ok(text(first(attributes, kind)?.ok_or(Malformed)?));
    let whole = |value: Option<&[u8]>| value.and_then(|v| v.first_chunk::<4>()).map(|b| u32::from_be_bytes(*b));
    let hook = match first(attributes, CHAIN_HOOK)? {
        Some(hook) => whole(first(hook, HOOK_NUMBER)?),
        None => None,
    };
    // NF_DROP is zero.
    let drops = whole(first(attributes, CHAIN_POLICY)?) == Some(0);
    Ok(Chain { family, table: named(CHAIN_TABLE)?, name: named(CHAIN_NAME)?, hook, drops })
}

/// The text before the zero byte.
pub(in crate::vip) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

/// The comment in the user data. Any program can write user data, so unreadable data counts as no comment.
fn comment(mut noted: &[u8]) -> String {
    while let [kind, length, rest @ ..] = noted {
        let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else { break };
        if *kind == COMMENT {
            return text(value);
        }
        noted = rest;
    }
    String::new()
}

fn number(value: Option<&[u8]>) -> Result<u64, Malformed> {
    value.and_then(|v| v.first_chunk::<8>()).map(|b| u64::from_be_bytes(*b)).ok_or(Malformed)
}

/// The value of the first attribute of `kind`.
pub(in crate::vip) fn first(attributes: &[u8], kind: u16) -> Result<Option<&[u8]>, Malformed> {
    for attribute in each(attributes) {
        let (this, value) = attribute?;
        if this == kind {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// The kind (without flags) and the value of each attribute. The iterator ends after the first truncated attribute.
pub(in crate::vip) fn each(mut rest: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Malformed>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let whole = std::mem::take(&mut rest);
        let (Some([l0, l1, k0, k1]), true) = (whole.first_chunk::<4>(), whole.len() >= 4) else {
            return Some(Err(Malformed));
        };
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let Some(value) = whole.get(4..length) else { return Some(Err(Malformed)) };
        rest = whole.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The other flag marks the byte order; it is never set here.
        Some(Ok((u16::from_ne_bytes([*k0, *k1]) & !NESTED, value)))
    })
}
