//! How many of the answered calls of a file would be kept, and why the rest would not. Pure.

use super::report::{Audio, Call, Lost, Recovery, Signalling, State, Summary};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// Most reasons told apart.
const MAX_REASONS: usize = 100;
/// Most reasons in the line for people.
const MAX_TOLD: usize = 5;

impl Summary {
    /// Sums up the calls of a report.
    pub(super) fn of(calls: &[Call]) -> Self {
        let mut sum = Self::default();
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for call in calls.iter().filter(|c| matches!(c.state, State::Up | State::Ended)) {
            if !call.through_server {
                sum.elsewhere += 1;
                continue;
            }
            sum.answered += 1;
            if matches!(call.recovery.audio, Audio::Relayed | Audio::Direct) {
                sum.kept += 1;
                sum.audio_only += usize::from(call.recovery.signalling == Signalling::No);
                continue;
            }
            let why = reason(&call.recovery);
            let room = reasons.len() < MAX_REASONS || reasons.contains_key(&why);
            *reasons.entry(if room { why } else { "other reasons".to_owned() }).or_default() += 1;
        }
        sum.lost = reasons.into_iter().map(|(why, calls)| Lost { calls, why }).collect();
        sum.lost.sort_by_key(|lost| Reverse(lost.calls));
        sum
    }

    /// The line for people; empty if no call was answered.
    #[must_use]
    pub fn line(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        if self.answered > 0 {
            let _ = write!(text, "of {} {} would be kept", calls(self.answered), self.kept);
            if self.audio_only > 0 {
                let _ = write!(text, " ({} of them with audio, but without signalling)", self.audio_only);
            }
        }
        let told = self.lost.iter().take(MAX_TOLD);
        for (n, lost) in told.enumerate() {
            let _ = write!(text, "{} {}: {}", if n == 0 { "; the rest:" } else { "," }, lost.calls, lost.why);
        }
        let more: usize = self.lost.iter().skip(MAX_TOLD).map(|l| l.calls).sum();
        if more > 0 {
            let _ = write!(text, ", {more} for other reasons");
        }
        if self.elsewhere > 0 {
            let first = if text.is_empty() { "" } else { "; " };
            let what = if self.elsewhere == 1 { "does" } else { "do" };
            let _ = write!(text, "{first}{} {what} not pass the server", calls(self.elsewhere));
        }
        text
    }
}

fn calls(n: usize) -> String {
    format!("{n} answered call{}", if n == 1 { "" } else { "s" })
}

/// Why a call is lost: what ends the signalling, else what ends the audio. Addresses are left out, so that the calls of
/// one kind count together.
fn reason(r: &Recovery) -> String {
    let why = match (r.signalling, r.why.split_once("; ")) {
        (Signalling::No, Some((first, _))) => first,
        (Signalling::ReInvite, Some((_, rest))) => rest,
        (_, None) => &r.why,
    };
    let plain = |word: &str| {
        let bare = word.trim_end_matches([',', ';', ':']);
        let address = bare.parse::<SocketAddr>().is_ok() || bare.parse::<IpAddr>().is_ok();
        if address { format!("(address){}", &word[bare.len()..]) } else { word.to_owned() }
    };
    why.split(' ').map(plain).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
