//! Limits warnings per source: a stranger with a thousand packets a second causes one line a minute.

use crate::time::Time;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Least time between two warnings about a source.
const QUIET: Duration = Duration::from_secs(60);
/// Most sources in memory. With more of them in a minute (forged addresses) the rest is counted, but not logged.
const MAX_SOURCES: usize = 64;

/// Sources that were recently warned about.
#[derive(Debug, Default)]
pub(super) struct Strikes {
    told: HashMap<IpAddr, Time>,
}

impl Strikes {
    /// Whether to warn of this source now.
    pub(super) fn tell(&mut self, source: IpAddr, now: Time) -> bool {
        if self.told.get(&source).is_some_and(|at| now < *at + QUIET) {
            return false;
        }
        if self.told.len() >= MAX_SOURCES && !self.told.contains_key(&source) {
            self.told.retain(|_, at| now < *at + QUIET);
            if self.told.len() >= MAX_SOURCES {
                return false;
            }
        }
        self.told.insert(source, now);
        true
    }
}
