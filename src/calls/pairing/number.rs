//! Telephone numbers that are the same although they are written otherwise: `+49 30 1234567`, `0049301234567`, `0301234567`.

use smallvec::SmallVec;

/// Numbers with fewer digits are extensions and short codes, where each digit counts. Seven are a subscriber's number in
/// every numbering plan that lets one leave the rest out.
const LEAST: usize = 7;
/// E.164 allows 15 digits; prefixes for carriers and trunks come on top.
const MOST: usize = 24;
/// What one way of writing may have in front that another has not: a country code of three digits, and a trunk prefix of one
/// or two.
const PREFIX: usize = 5;

type Digits = SmallVec<[u8; MOST]>;

/// The digits, without what only says how they are dialled. `None` if it is no telephone number.
fn digits(user: &[u8]) -> Option<Digits> {
    let mut out = Digits::new();
    for (i, b) in user.iter().enumerate() {
        match b {
            b'0'..=b'9' if out.len() < MOST => out.push(*b),
            b'+' if i == 0 => {}
            // Visual separators of RFC 3966 section 3.
            b'-' | b'.' | b'(' | b')' => {}
            // Parameters of a telephone number in a SIP URI (RFC 3261 section 19.1.6).
            b';' if i > 0 => break,
            _ => return None,
        }
    }
    let zeros = out.iter().take_while(|b| **b == b'0').count();
    out.drain(..zeros);
    (out.len() >= LEAST).then_some(out)
}

/// The last digits: equal for all ways to write one number, and a place to look for them.
pub(super) fn tail(user: &[u8]) -> Option<SmallVec<[u8; LEAST]>> {
    let digits = digits(user)?;
    Some(digits[digits.len() - LEAST..].into())
}

/// Whether both may be one number.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    let (Some(a), Some(b)) = (digits(a), digits(b)) else { return false };
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    long.ends_with(&short) && long.len() - short.len() <= PREFIX
}

#[cfg(test)]
mod tests;
