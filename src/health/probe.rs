//! What every kind of check does. Its caller judges the results.

use super::hysteresis::Sample;
use super::report::WatchedProcess;
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// What a probe has seen.
#[derive(Debug)]
pub(super) struct Observation {
    pub(super) sample: Sample,
    /// In a few words.
    pub(super) detail: String,
    pub(super) took: Duration,
    /// The server's process, if the check watches one and knows.
    pub(super) process: Option<WatchedProcess>,
}

/// One check's view of the server. It only reports what it sees; the monitor judges the results.
pub(super) trait Probe {
    /// Waits until the next result is due, or there is news, and returns it.
    fn next(&mut self) -> impl Future<Output = Observation> + Send;
}

/// Ticks at once, and then at each interval. After a delay it does not catch up.
pub(super) fn ticks(every: Duration) -> Interval {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}
