//! Waiting with a deadline, and with a reason for a failure.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(20);

/// Polls `f` until it gives a value. The error names what was awaited, and the last objection of `f`.
pub fn until<T>(what: &str, limit: Duration, f: impl FnMut() -> Result<T, String>) -> Result<T> {
    every(POLL, what, limit, f)
}

/// As [`until`], with a chosen time between two polls, for conditions whose check is expensive.
pub fn every<T>(pause: Duration, what: &str, limit: Duration, mut f: impl FnMut() -> Result<T, String>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        match f() {
            Ok(v) => return Ok(v),
            Err(why) if Instant::now() >= end => bail!("waited {limit:?} for {what}: {why}"),
            Err(_) => std::thread::sleep(pause),
        }
    }
}
