//! Matches telephone numbers across notations: `+49 30 1234567`, `0049301234567`, `0301234567`.

use smallvec::SmallVec;

/// Numbers with fewer digits are extensions and short codes, where each digit counts. Seven digits are a subscriber
/// number in every numbering plan that allows local dialling.
const LEAST: usize = 7;
/// E.164 allows 15 digits. Carrier and trunk prefixes come on top.
const MOST: usize = 24;
/// Longest extra prefix of one notation over another: a country code of three digits and a trunk prefix of one or two.
const PREFIX: usize = 5;

type Digits = SmallVec<[u8; MOST]>;

/// The digits of a number without its dialling prefixes. `None` if it is no telephone number.
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

/// The last digits: equal in all notations of a number, so they serve as an index key.
pub(super) fn tail(user: &[u8]) -> Option<SmallVec<[u8; LEAST]>> {
    let digits = digits(user)?;
    Some(digits[digits.len() - LEAST..].into())
}

/// Whether both may be the same number.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    let (Some(a), Some(b)) = (digits(a), digits(b)) else { return false };
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    long.ends_with(&short) && long.len() - short.len() <= PREFIX
}

#[cfg(test)]
mod tests;
