//! The only clock source for decisions.

use crate::time::Time;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The current time on `CLOCK_BOOTTIME`. This clock keeps running during suspend, so a right cannot outlive a sleep.
#[must_use]
pub fn now() -> Time {
    match boottime() {
        Ok(now) => now,
        // An invented time would make a right last for ever. A stopped agent no longer renews the kernel lease.
        Err(e) => {
            eprintln!(
                "keepcall: stopping: cannot read CLOCK_BOOTTIME ({e}), and no right to the addresses holds without it"
            );
            std::process::exit(1);
        }
    }
}

fn boottime() -> Result<Time, Box<dyn std::error::Error>> {
    let t = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)?;
    let (secs, nanos) = (u64::try_from(t.tv_sec())?, u64::try_from(t.tv_nsec())?);
    let all = secs.checked_mul(1_000_000_000).and_then(|n| n.checked_add(nanos));
    Ok(Time::from_nanos(all.ok_or("the time is too large")?))
}

/// Wall-clock milliseconds since 1970, for display only. No decision depends on it.
#[must_use]
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// The tokio instant of `deadline`; now if the deadline has passed.
#[must_use]
pub fn tokio_at(deadline: Time) -> tokio::time::Instant {
    // One year stands for "never", because tokio's timer wheel has an end.
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    tokio::time::Instant::now() + deadline.since(now()).min(YEAR)
}

/// Wall-clock microseconds since 1970, for displayed timelines. No decision depends on it.
#[must_use]
pub fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}
