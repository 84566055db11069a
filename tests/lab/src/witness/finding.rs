//! Conclusions from the witness's notes: who had the VIP when, how long the VIP was silent, and whether two hosts had
//! it at once.

use super::frames::Kind;
use std::collections::{BTreeMap, BTreeSet};

/// A frame that the witness received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// Time of reading, in wall-clock microseconds.
    pub(super) at: u64,
    /// Hardware address of the sender.
    pub(super) mac: [u8; 6],
    /// Kind of the frame.
    pub(super) kind: Kind,
    /// Number of the question; `None` for a frame that answers no question.
    pub(super) question: Option<u32>,
}

/// Everything that the witness wrote down.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Number of the first question in `asked`.
    first: u32,
    /// When each question left, in wall-clock microseconds.
    asked: Vec<u64>,
    /// Received frames in the order of arrival.
    pub(super) heard: Vec<Answer>,
    /// The client's neighbour cache: each change, with its time.
    pub(super) cache: Vec<(u64, Option<[u8; 6]>)>,
}

impl Notes {
    /// Writes a question down. Returns its number.
    pub(super) fn next_question(&mut self, at: u64) -> u32 {
        self.asked.push(at);
        self.first.wrapping_add(u32::try_from(self.asked.len() - 1).unwrap_or(0))
    }

    pub(super) fn forget(&mut self, before: u64) {
        let n = self.asked.partition_point(|&t| t < before);
        self.asked.drain(..n);
        self.first = self.first.wrapping_add(u32::try_from(n).unwrap_or(0));
        self.heard.retain(|a| a.at >= before);
        // The last entry before the cut still holds at the cut.
        let n = self.cache.partition_point(|c| c.0 < before);
        self.cache.drain(..n.saturating_sub(1));
    }
}

/// The conclusions for a stretch of time.
#[derive(Clone, Debug, Default)]
pub struct Finding {
    /// Number of questions: milliseconds that the witness watched.
    pub asked: usize,
    /// Questions of which two hosts answered the same frame: milliseconds in which two hosts had the VIP.
    pub two_hosts_ms: usize,
    /// The first of these questions, in words.
    pub first_two: Option<String>,
    /// When the first and the last of these questions left, in wall-clock microseconds.
    pub(crate) two_from_to: Option<(u64, u64)>,
    /// The hosts that spoke for the VIP, in order, with the time of the first frame (wall-clock microseconds). A host
    /// is listed again if it spoke again after another host.
    pub owners: Vec<(u64, String)>,
    /// Time of each host's last frame, in wall-clock microseconds.
    pub last_words: BTreeMap<String, u64>,
    /// The longest run of questions without an echo, for the worse of the two addresses, in microseconds: one
    /// millisecond for each question, because the witness may have had to wait for its turn in between.
    pub silence_us: u64,
    /// When the first question of that run left.
    pub(crate) silent_from: u64,
    /// The longest time for which the client's neighbour cache still held another host after a new host had answered.
    pub(crate) cache_late_us: u64,
}

/// Time between two questions, in microseconds.
const PERIOD_US: u64 = 1000;

/// Evaluates the questions from `since` until `until`.
pub(super) fn find(notes: &Notes, since: u64, until: u64, name: &dyn Fn([u8; 6]) -> String) -> Finding {
    let from = notes.asked.partition_point(|&t| t < since);
    let to = notes.asked.partition_point(|&t| t <= until);
    let mut out = Finding { asked: to.saturating_sub(from), ..Finding::default() };
    // For each question and kind of frame, the hosts that answered.
    let mut hosts: BTreeMap<(usize, Kind), BTreeSet<[u8; 6]>> = BTreeMap::new();
    let (mut last, mut spoke) = (None, BTreeMap::new());
    for a in notes.heard.iter() {
        // An answer counts at the time of its question, which is the same for all hosts.
        let place = a.question.map(|q| q.wrapping_sub(notes.first) as usize);
        let within = place.map_or(a.at >= since && a.at <= until, |p| (from..to).contains(&p));
        if !within {
            continue;
        }
        if let Some(p) = place {
            hosts.entry((p, a.kind)).or_default().insert(a.mac);
        }
        spoke.insert(a.mac, a.at);
        if last != Some(a.mac) {
            last = Some(a.mac);
            out.owners.push((a.at, name(a.mac)));
        }
    }
    out.last_words = spoke.into_iter().map(|(mac, at)| (name(mac), at)).collect();
    let mut two: Vec<usize> = hosts.iter().filter(|(_, h)| h.len() > 1).map(|(k, _)| k.0).collect();
    two.dedup();
    out.two_hosts_ms = two.len();
    if let (Some(&a), Some(&b)) = (two.first(), two.last()) {
        out.two_from_to = Some((notes.asked[a], notes.asked[b]));
        out.first_two = hosts.iter().find(|(k, h)| k.0 == a && h.len() > 1).map(|((_, kind), h)| {
            format!("one {kind:?} got answers from {}", h.iter().map(|m| name(*m)).collect::<Vec<_>>().join(" and "))
        });
    }
    for kind in [Kind::Echo4, Kind::Echo6] {
        let mut begin = from;
        for p in from..=to {
            if p == to || hosts.contains_key(&(p, kind)) {
                let silence = (p - begin) as u64 * PERIOD_US;
                if silence > out.silence_us {
                    (out.silence_us, out.silent_from) = (silence, notes.asked[begin]);
                }
                begin = p + 1;
            }
        }
    }
    out.cache_late_us =
        (1..out.owners.len()).map(|i| cache_late(notes, &out.owners, i, until, name)).max().unwrap_or(0);
    out
}

/// How long after the first frame of this owner the cache still held another host; at most until the first frame of the
/// next owner. An empty entry counts as right, because it misleads no client.
fn cache_late(notes: &Notes, owners: &[(u64, String)], i: usize, until: u64, name: &dyn Fn([u8; 6]) -> String) -> u64 {
    let (at, owner) = &owners[i];
    let end = owners.get(i + 1).map_or(until, |next| next.0);
    let before = notes.cache.partition_point(|c| c.0 <= *at).saturating_sub(1);
    let rest = notes.cache.get(before..).unwrap_or_default();
    let good = rest.iter().find(|c| c.1.is_none_or(|m| name(m) == *owner)).map_or(end, |c| c.0.min(end));
    good.saturating_sub(*at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];

    /// One question a millisecond. `answers[n]` names the hosts that answer question `n`, each with both echoes.
    fn notes(answers: &[&[[u8; 6]]]) -> Notes {
        let mut notes = Notes { first: u32::MAX, ..Notes::default() };
        for (i, macs) in answers.iter().enumerate() {
            let at = i as u64 * PERIOD_US;
            let question = Some(notes.next_question(at));
            for kind in [Kind::Echo4, Kind::Echo6] {
                notes.heard.extend(macs.iter().map(|&mac| Answer { at: at + 30, mac, kind, question }));
            }
        }
        notes
    }

    fn letter(mac: [u8; 6]) -> String {
        if mac == A { "a" } else { "b" }.to_owned()
    }

    fn owners(f: &Finding) -> String {
        f.owners.iter().map(|o| o.1.as_str()).collect()
    }

    #[test]
    fn a_change_of_host_is_a_silence_and_not_two_hosts() {
        let f = find(&notes(&[&[A], &[A], &[], &[], &[], &[B], &[B]]), 0, u64::MAX, &letter);
        assert_eq!((f.two_hosts_ms, f.silence_us, f.silent_from, f.asked), (0, 3000, 2000, 7));
        assert_eq!(owners(&f), "ab");
    }

    #[test]
    fn two_hosts_are_seen() {
        let f = find(&notes(&[&[A], &[A, B], &[B, A], &[B]]), 0, u64::MAX, &letter);
        assert_eq!((f.two_hosts_ms, f.two_from_to, f.silence_us), (2, Some((1000, 2000)), 0));
        assert!(owners(&f).starts_with("abab"), "{}", owners(&f));
        assert!(f.first_two.unwrap().contains("a and b"));
    }

    #[test]
    fn hosts_that_answer_in_turn_are_seen() {
        assert_eq!(owners(&find(&notes(&[&[A], &[B], &[A], &[B]]), 0, u64::MAX, &letter)), "abab");
    }

    #[test]
    fn an_announcement_is_a_word_for_the_vip() {
        let mut n = notes(&[&[A], &[A], &[A]]);
        n.heard.insert(2, Answer { at: 500, mac: B, kind: Kind::Unasked, question: None });
        assert_eq!(owners(&find(&n, 0, u64::MAX, &letter)), "aba");
    }

    #[test]
    fn one_address_that_is_silent_is_enough() {
        let mut n = notes(&[&[A], &[A], &[A], &[A]]);
        n.heard.retain(|a| a.kind == Kind::Echo4 || a.at > 2500);
        assert_eq!(find(&n, 0, u64::MAX, &letter).silence_us, 3000);
    }

    #[test]
    fn what_is_forgotten_is_left_out_and_the_numbers_go_on() {
        let mut n = notes(&[&[A, B], &[A], &[], &[A]]);
        n.forget(1000);
        let f = find(&n, 0, u64::MAX, &letter);
        assert_eq!((f.two_hosts_ms, f.silence_us, f.asked), (0, 1000, 3));
        assert_eq!(n.next_question(9000), 3);
    }

    #[test]
    fn a_cache_that_is_late_is_measured() {
        let mut n = notes(&[&[A], &[], &[B], &[B], &[B]]);
        n.cache = vec![(0, Some(A)), (4000, Some(B))];
        assert_eq!(find(&n, 0, 5000, &letter).cache_late_us, 1970);
    }
}
