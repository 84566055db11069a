//! The result of the chaos.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The result of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Seed of the faults.
    pub seed: u64,
    /// Number of rounds.
    pub rounds: u64,
    /// What the agents did wrong.
    pub violations: Vec<String>,
    /// Milliseconds in which two hosts answered.
    pub two_hosts_ms: usize,
    /// Number of faults of each kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Number of questions: milliseconds that the witness watched.
    pub asked: usize,
    /// Changes of master in etcd's record.
    pub epochs: u64,
    /// By kind of fault ("several" for rounds with more than one): the silences in milliseconds, and the bound of the
    /// last one.
    pub silences: BTreeMap<String, (Vec<f64>, f64)>,
    /// The longest time for which a client's neighbour cache held the old host after a new host had answered, in
    /// milliseconds.
    pub(crate) cache_late_ms: f64,
}

impl Report {
    /// The last line of the output.
    pub fn json(&self) -> Value {
        let kinds: BTreeMap<&str, Value> = self
            .silences
            .iter()
            .map(|(kind, (all, bound))| {
                let mut all = all.clone();
                all.sort_by(f64::total_cmp);
                let median = all.get(all.len() / 2).copied().unwrap_or(0.0);
                let max = all.last().copied().unwrap_or(0.0);
                (kind.as_str(), json!({"rounds": all.len(), "median": median, "max": max, "bound": bound}))
            })
            .collect();
        json!({
            "seed": self.seed, "rounds": self.rounds, "two_hosts_ms": self.two_hosts_ms, "looked_at_ms": self.asked,
            "epochs": self.epochs, "faults": self.faults, "silence_ms": kinds, "cache_late_ms": self.cache_late_ms, "violations": self.violations,
            "ok": self.violations.is_empty(),
        })
    }
}
