//! The benchmark's rounds as figures, and as a table for people.

use super::HOLD;
use serde_json::{Value, json};

/// One measured round.
pub(super) struct Sample {
    /// The silence of the VIP in milliseconds; for a killed server, the time until the other host answered.
    pub(super) ms: f64,
    /// Returns of the VIP to an earlier owner: a client's packets went to two hosts in turn.
    pub(super) overlapped: bool,
    /// Milliseconds in which two hosts answered for the VIP.
    pub(super) two_hosts_ms: usize,
    /// How often the round started again because the VIP moved before the event.
    pub(super) begun_again: usize,
}

impl Sample {
    pub(super) fn in_words(&self) -> String {
        format!("{:.1} ms (two hosts {} ms)", self.ms, self.two_hosts_ms)
    }
}

/// Statistics of many rounds, in milliseconds.
pub(super) struct Summary {
    pub(super) median: f64,
    min: f64,
    max: f64,
    two_hosts_median: f64,
    pub(super) two_hosts_max: usize,
    overlaps: usize,
    begun_again: usize,
}

impl Summary {
    /// `None` without rounds.
    pub(super) fn of(samples: &[Sample]) -> Option<Self> {
        let all: Vec<f64> = samples.iter().map(|s| s.ms).collect();
        let two: Vec<f64> =
            samples.iter().map(|s| f64::from(u32::try_from(s.two_hosts_ms).unwrap_or(u32::MAX))).collect();
        Some(Self {
            median: median(&all)?,
            min: round(all.iter().copied().fold(f64::INFINITY, f64::min)),
            max: round(all.iter().copied().fold(0.0, f64::max)),
            two_hosts_median: median(&two)?,
            two_hosts_max: samples.iter().map(|s| s.two_hosts_ms).max()?,
            overlaps: samples.iter().filter(|s| s.overlapped).count(),
            begun_again: samples.iter().map(|s| s.begun_again).sum(),
        })
    }

    /// This median as a fraction of the other median. `None` if the other is zero.
    pub(super) fn ratio_to(&self, other: &Self) -> Option<f64> {
        (other.median > 0.0).then(|| (self.median / other.median * 1000.0).round() / 1000.0)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "median_ms": self.median, "min_ms": self.min, "max_ms": self.max, "two_hosts_median_ms": self.two_hosts_median,
            "two_hosts_max_ms": self.two_hosts_max, "rounds_with_two_answering": self.overlaps,
            "rounds_begun_again": self.begun_again
        })
    }
}

fn round(ms: f64) -> f64 {
    (ms * 100.0).round() / 100.0
}

fn median(values: &[f64]) -> Option<f64> {
    let mut all = values.to_vec();
    all.sort_by(f64::total_cmp);
    let n = all.len();
    Some(round(f64::midpoint(*all.get(n.checked_sub(1)? / 2)?, *all.get(n / 2)?)))
}

pub(super) fn print_table(rows: &[Value]) {
    println!(
        "\nSilence of the VIP for a LAN client that asks each millisecond, in ms: median (min to max); for kill-server the time\n\
         from the death to the other host's first answer. Two hosts: milliseconds in which both answered, in the worst round\n\
         (after kill-agent and freeze-agent both are watched for a fixed time).\n\
         Both stand the loss of three heartbeats (keepcall: hold = {HOLD} x heartbeat; keepalived: 3 x advert_int + skew).\n\
         Planned switchover: `keepcall switchover`; keepalived: a track_file lowers the master's priority, the other preempts.\n"
    );
    println!(
        "{:12} {:>9}  {:>28}  {:>28}  {:>6}  {:>21}",
        "event", "heartbeat", "keepcall", "keepalived", "ratio", "two hosts, kc and ka"
    );
    for r in rows {
        let cell = |v: &Value| match v["median_ms"].as_f64() {
            Some(m) => {
                format!(
                    "{m:.1} ({:.1} to {:.1})",
                    v["min_ms"].as_f64().unwrap_or(0.0),
                    v["max_ms"].as_f64().unwrap_or(0.0)
                )
            }
            None => "-".to_owned(),
        };
        println!(
            "{:12} {:>6} ms  {:>28}  {:>28}  {:>6}  {:>10} {:>10}",
            r["event"].as_str().unwrap_or(""),
            r["heartbeat_ms"],
            cell(&r["keepcall"]),
            cell(&r["keepalived"]),
            r["ratio"].as_f64().map_or_else(|| "-".to_owned(), |x| format!("{x:.3}")),
            r["keepcall_two_hosts_ms"],
            r["keepalived_two_hosts_ms"]
        );
    }
    println!();
}
