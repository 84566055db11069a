//! Waiting with a deadline and a reason.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Time between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// Polls `f` until it gives a value; the error says what was waited for, and what `f` last said against it.
pub fn until<T>(what: &str, limit: Duration, f: impl FnMut() -> Result<T, String>) -> Result<T> {
    every(POLL, what, limit, f)
}

/// The same with a chosen time between two looks, for conditions that cost something to look at.
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
