//! Counts what a takeover now would leave of an instance's calls, with reasons and cures. Pure. `status` and
//! `switchover` say it before it happens; `calls` has the same of each call.

use super::outlook::Outlook;
use super::permitted::{Ground, Refusal};
use super::recoverability::{self, Fate};
use crate::calls::model::Call;
use crate::config::Mode;
use serde::{Deserialize, Serialize};

/// Reasons listed one by one. A phone's description is part of some, so strangers could make any number.
const MAX_REASONS: usize = 8;
/// What tells which legs are one call.
const ASK: &str = "connect the agent to the server (`[instance.sip.ami]` or `esl`), or have the server report its messages \
                   by HEP; Kamailio needs `tcp_source_ipv4`: docs/learning.md";
/// Stands for all reasons beyond these.
const OTHERS: &str = "other reasons: `keepcall calls` has each";

/// What a takeover now would leave of the calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// All calls.
    pub total: usize,
    /// The parties hear each other, and hold, resume and hang up as before.
    pub kept: usize,
    /// The parties hear each other, and nothing else works.
    pub audio: usize,
    /// The parties hear nothing.
    pub lost: usize,
    /// Emergency calls among the lost ones.
    pub lost_emergency: usize,
    /// Why calls would be lost, the most frequent reason first.
    pub reasons: Vec<LostCalls>,
}

/// Calls that would be lost for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LostCalls {
    /// How many.
    pub calls: usize,
    /// The reason.
    pub why: String,
    /// What would keep such calls; `None` if nothing would.
    pub cure: Option<String>,
}

impl Tally {
    /// Counts these calls on this host in this mode.
    #[must_use]
    pub fn of<'a>(calls: impl Iterator<Item = &'a Call>, ground: &Ground, mode: Mode) -> Self {
        let mut tally = Self::default();
        for call in calls {
            tally.add(call, ground, mode);
        }
        tally.reasons.sort_by(|a, b| (b.calls, &a.why).cmp(&(a.calls, &b.why)));
        tally
    }

    fn add(&mut self, call: &Call, ground: &Ground, mode: Mode) {
        let outlook = Outlook::of(call, ground, mode);
        // A call that is over cannot be lost.
        self.total += usize::from(outlook != Outlook::Over);
        match outlook {
            Outlook::Over => {}
            Outlook::Kept(_) => self.kept += 1,
            Outlook::Audio(_) => self.audio += 1,
            Outlook::Lost(why) => {
                let (why, cure) = reason(call, ground, mode, why);
                self.lose(call, why, cure);
            }
            Outlook::Doubtful(_) => {
                self.lose(call, "the pairing of the legs is less sure than min_confidence".to_owned(), Some(ASK));
            }
        }
    }

    fn lose(&mut self, call: &Call, why: String, cure: Option<&str>) {
        self.lost += 1;
        self.lost_emergency += usize::from(call.emergency);
        self.note(why, cure);
    }

    fn note(&mut self, why: String, cure: Option<&str>) {
        let full = self.reasons.len() >= MAX_REASONS;
        let known = self.reasons.iter().position(|r| r.why == why);
        let place = known.or_else(|| self.reasons.iter().position(|r| full && r.why == OTHERS));
        match place {
            Some(i) => self.reasons[i].calls += 1,
            None if full => self.reasons.push(LostCalls { calls: 1, why: OTHERS.to_owned(), cure: None }),
            None => self.reasons.push(LostCalls { calls: 1, why, cure: cure.map(str::to_owned) }),
        }
    }

    /// One line for an operator, such as `3 of 120 calls would be lost, 1 of them an emergency call: 2 (...), 1 (...)`.
    /// `None` if no call would be lost.
    #[must_use]
    pub fn told(&self) -> Option<String> {
        if self.lost == 0 {
            return None;
        }
        let urgent = match self.lost_emergency {
            0 => String::new(),
            1 => ", 1 of them an emergency call".to_owned(),
            n => format!(", {n} of them emergency calls"),
        };
        let reasons: Vec<String> = self.reasons.iter().map(|r| format!("{} ({})", r.calls, r.why)).collect();
        let calls = if self.total == 1 { "call" } else { "calls" };
        Some(format!("{} of {} {calls} would be lost{urgent}: {}", self.lost, self.total, reasons.join(", ")))
    }

    /// The cures of [`Tally::told`], each once.
    #[must_use]
    pub fn cures(&self) -> Vec<&str> {
        let mut cures: Vec<&str> = Vec::new();
        for cure in self.reasons.iter().filter_map(|r| r.cure.as_deref()) {
            if !cures.contains(&cure) {
                cures.push(cure);
            }
        }
        cures
    }
}

/// The reason in words that many calls share, and its cure.
fn reason(call: &Call, ground: &Ground, mode: Mode, why: String) -> (String, Option<&'static str>) {
    let (fate, paths) = recoverability::of(call, ground);
    if !mode.relays() {
        return (why, Some("`keepcall mode full` keeps what can be kept"));
    }
    if fate == Fate::SingleLeg {
        return single(call);
    }
    match paths.refused.first() {
        Some((_, Refusal::NotMediaPort(_))) => (
            "the server's audio port is outside media_ports".to_owned(),
            Some("make `media_ports` of the instance the server's RTP range"),
        ),
        Some((_, Refusal::Nowhere(_) | Refusal::ThisHost(_) | Refusal::Sip(_) | Refusal::Service(_))) => {
            ("a phone named an audio address to which nothing may be sent".to_owned(), None)
        }
        _ => (why, None),
    }
}

/// The reason for a call of which one party is known.
fn single(call: &Call) -> (String, Option<&'static str>) {
    if let Some(end) = &call.other_end {
        return (end.kind.place().to_owned(), None);
    }
    ("keepcall knows only one party".to_owned(), Some(ASK))
}

#[cfg(test)]
mod tests;
