//! The one place that reads a clock for the decisions.

use crate::time::Time;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, on `CLOCK_BOOTTIME`: it goes on while the machine is suspended, so a right cannot outlive a sleep.
#[must_use]
pub fn now() -> Time {
    // The clock exists since Linux 2.6.39; a kernel without it cannot run this program at all.
    let t = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap_or_else(|_| nix::sys::time::TimeSpec::new(0, 0));
    let secs = u64::try_from(t.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(t.tv_nsec()).unwrap_or(0);
    Time::from_nanos(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Wall-clock milliseconds since 1970, for what people read. No decision rests on it.
#[must_use]
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// The tokio instant at which `deadline` comes; now if it has passed.
#[must_use]
pub fn tokio_at(deadline: Time) -> tokio::time::Instant {
    // A year stands for "never": tokio's timer wheel has an end.
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    tokio::time::Instant::now() + deadline.since(now()).min(YEAR)
}

/// Wall-clock microseconds since 1970, for timelines that people read. No decision rests on it.
#[must_use]
pub fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}
