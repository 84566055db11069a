//! The one place that reads a clock for the decisions.

use crate::time::Time;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, on `CLOCK_BOOTTIME`: it goes on while the machine is suspended, so a right cannot outlive a sleep.
#[must_use]
pub fn now() -> Time {
    match boottime() {
        Ok(now) => now,
        // With any time of our own making a right would last for ever. Whoever runs no longer renews what the kernel holds.
        Err(e) => {
            eprintln!(
                "keepcall: the kernel does not tell CLOCK_BOOTTIME ({e}), and no right can be kept without it: stopping"
            );
            std::process::exit(1);
        }
    }
}

fn boottime() -> Result<Time, Box<dyn std::error::Error>> {
    let t = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)?;
    let (secs, nanos) = (u64::try_from(t.tv_sec())?, u64::try_from(t.tv_nsec())?);
    let all = secs.checked_mul(1_000_000_000).and_then(|n| n.checked_add(nanos));
    Ok(Time::from_nanos(all.ok_or("it is beyond what can be counted")?))
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
