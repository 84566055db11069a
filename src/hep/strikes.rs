//! Limits warnings per source: a stranger with a thousand packets a second causes one line a minute.

use crate::time::{OnceAMinute, Time};
use std::collections::HashMap;
use std::net::IpAddr;

/// Most sources in memory. With more of them in a minute (forged addresses) the rest is counted, but not logged.
const MAX_SOURCES: usize = 64;

/// Sources that were recently warned about.
#[derive(Debug, Default)]
pub(super) struct Strikes {
    told: HashMap<IpAddr, OnceAMinute>,
}

impl Strikes {
    /// Whether to warn of this source now.
    pub(super) fn tell(&mut self, source: IpAddr, now: Time) -> bool {
        if self.told.len() >= MAX_SOURCES && !self.told.contains_key(&source) {
            self.told.retain(|_, warning| !warning.is_due(now));
            if self.told.len() >= MAX_SOURCES {
                return false;
            }
        }
        self.told.entry(source).or_default().take(now)
    }
}
