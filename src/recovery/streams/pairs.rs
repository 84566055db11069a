//! Which m-lines of a call's two legs belong together. Pure.
//!
//! An index proves nothing: a server may refuse one of two audio lines on one leg, or list video first on one leg only.
//! So lines pair by kind and state. Of several lines of one kind, the first of one leg belongs to the first of the
//! other, if both legs have as many: a description never changes the order of its lines (RFC 3264 section 8), and a
//! server that carries several passes them on in order. If one leg has more lines of a kind in use than the other,
//! nobody outside of the server knows which of them it connected, and no two of them pair: silence is better than the
//! wrong voice.

use super::Ends;
use crate::sip::sdp::Media;

/// The pairs of m-lines: an index of the first leg, and one of the second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::recovery) struct Pairs {
    /// Pairs of lines that are in use on both legs.
    pub(in crate::recovery) used: Vec<(usize, usize)>,
    /// Pairs of other lines. One that is switched on again continues in its partner's place.
    pub(in crate::recovery) idle: Vec<(usize, usize)>,
    /// Both legs have audio, but one has more audio lines in use than the other.
    pub(in crate::recovery) unlike_audio: bool,
}

impl Pairs {
    /// The partner of a line of leg `side` (0 or 1), among all pairs.
    pub(in crate::recovery) fn partner(&self, side: usize, line: usize) -> Option<usize> {
        partner(self.used.iter().chain(&self.idle), side, line)
    }

    /// The partner of a line in use.
    pub(in crate::recovery) fn used_partner(&self, side: usize, line: usize) -> Option<usize> {
        partner(self.used.iter(), side, line)
    }
}

fn partner<'p>(pairs: impl Iterator<Item = &'p (usize, usize)>, side: usize, line: usize) -> Option<usize> {
    pairs
        .map(|(a, b)| if side == 0 { (*a, *b) } else { (*b, *a) })
        .find(|(own, _)| *own == line)
        .map(|(_, other)| other)
}

/// A line that has no partner yet.
struct Line {
    at: usize,
    kind: Vec<u8>,
    proto: Vec<u8>,
    used: bool,
}

fn lines(ends: &Ends<'_>) -> Vec<Line> {
    let word = |text: &[u8]| text.to_ascii_lowercase();
    let line = |(at, m): (usize, &Media<'_>)| Line {
        at,
        kind: word(m.kind),
        proto: word(m.proto),
        used: ends.in_use(at).is_some(),
    };
    ends.sent.media().iter().enumerate().map(line).collect()
}

/// Pairs the m-lines of two legs.
pub(in crate::recovery) fn pairs(a: &Ends<'_>, b: &Ends<'_>) -> Pairs {
    let (mut a, mut b) = (lines(a), lines(b));
    let audio = |all: &[Line]| all.iter().filter(|l| l.used && l.kind == b"audio").count();
    let (of_a, of_b) = (audio(&a), audio(&b));
    let used = take(&mut a, &mut b, |l| l.used.then(|| l.kind.clone()));
    // A line whose partner cannot be told must not become the partner of an idle one either.
    let (clear_a, clear_b) = (unrivalled(&a, &b), unrivalled(&b, &a));
    a.retain(|l| clear_a.contains(&l.at));
    b.retain(|l| clear_b.contains(&l.at));
    // An offer of optional encryption has a line for each profile.
    let mut idle = take(&mut a, &mut b, |l| Some([l.kind.as_slice(), l.proto.as_slice()].join(&b' ')));
    idle.extend(take(&mut a, &mut b, |l| Some(l.kind.clone())));
    Pairs { used, idle, unlike_audio: of_a != of_b && of_a > 0 && of_b > 0 }
}

/// The lines that are idle, or alone in use: the other leg has no line of the kind in use.
fn unrivalled(own: &[Line], other: &[Line]) -> Vec<usize> {
    own.iter().filter(|l| !l.used || !other.iter().any(|o| o.used && o.kind == l.kind)).map(|l| l.at).collect()
}

/// Takes out the lines of each group of which both legs have as many, in order.
fn take(a: &mut Vec<Line>, b: &mut Vec<Line>, group: impl Fn(&Line) -> Option<Vec<u8>>) -> Vec<(usize, usize)> {
    let of = |all: &[Line], key: &Vec<u8>| -> Vec<usize> {
        all.iter().filter(|l| group(l).as_ref() == Some(key)).map(|l| l.at).collect()
    };
    let mut taken = Vec::new();
    let mut keys: Vec<Vec<u8>> = a.iter().filter_map(&group).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let (of_a, of_b) = (of(a, &key), of(b, &key));
        if of_a.len() == of_b.len() {
            taken.extend(of_a.into_iter().zip(of_b));
        }
    }
    a.retain(|l| !taken.iter().any(|(at, _)| *at == l.at));
    b.retain(|l| !taken.iter().any(|(_, at)| *at == l.at));
    taken.sort_unstable();
    taken
}
