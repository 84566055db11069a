//! Moments in the order of time, relative to the event.

use lab::observer::us_to_ms;
use serde_json::Value;
use std::collections::BTreeMap;

/// The moments of a run.
pub(crate) struct Timeline {
    zero: u64,
    moments: Vec<(u64, String)>,
}

impl Timeline {
    /// `zero`: the event, in wall-clock microseconds.
    pub(crate) const fn new(zero: u64) -> Self {
        Self { zero, moments: Vec::new() }
    }

    /// Adds a moment; `None` adds nothing.
    pub(crate) fn add(&mut self, at: Option<u64>, what: impl Into<String>) {
        if let Some(at) = at {
            self.moments.push((at, what.into()));
        }
    }

    /// Adds the phases of an entry of the agent's history. Returns their times in milliseconds after the event, by
    /// name.
    pub(crate) fn add_history(&mut self, entry: &Value) -> BTreeMap<String, f64> {
        let mut out = BTreeMap::new();
        for phase in entry["phases"].as_array().into_iter().flatten() {
            let (Some(name), Some(at)) = (phase["name"].as_str(), phase["unix_us"].as_u64()) else { continue };
            let (master, cause) = (entry["master"].as_str().unwrap_or("?"), entry["cause"].as_str().unwrap_or("?"));
            self.add(Some(at), format!("agent on {master}: {}", in_words(name, cause)));
            out.insert(name.to_owned(), self.millis(at));
        }
        out
    }

    /// Milliseconds after the event, to a hundredth.
    pub(crate) fn millis(&self, at: u64) -> f64 {
        let ms = if at >= self.zero { us_to_ms(at - self.zero) } else { -us_to_ms(self.zero - at) };
        (ms * 100.0).round() / 100.0
    }

    /// The lines to print.
    pub(crate) fn lines(&mut self) -> Vec<String> {
        self.moments.sort_by_key(|m| m.0);
        self.moments.iter().map(|(at, what)| format!("{:+10.1} ms  {what}", self.millis(*at))).collect()
    }
}

/// What a phase of the history means. The meaning depends on the cause of the takeover.
fn in_words<'a>(phase: &'a str, cause: &str) -> &'a str {
    match (phase, cause) {
        ("detected", "fast") => "no heartbeat of the master for the whole hold",
        ("detected", "slow") => "the master's lease in etcd has expired",
        ("detected", "handover") => "the master hands the VIP over (read from etcd)",
        ("detected", _) => "no node is master",
        ("committed", "handover") => "claim is in etcd; the old master may let go",
        ("committed", _) => "master by the record in etcd",
        ("address", _) => "VIP added",
        ("announced", _) => "VIP announced to the LAN (ARP, NA)",
        ("relay", _) => "relay forwards the audio of every call",
        ("first-reinvite", _) => "first re-INVITE sent",
        ("last-reinvite", _) => "last re-INVITE sent",
        ("settled", _) => "every call has an outcome",
        (other, _) => other,
    }
}
