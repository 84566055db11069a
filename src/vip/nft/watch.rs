//! Detects the deletion of our tables. `nft flush ruleset` deletes every table, and so does each firewall reload that
//! starts with it.
//!
//! The kernel can send notifications. But while any program listens, the kernel writes one notification per changed
//! element and holds the nftables lock: a change of 100 relayed calls then takes 30 ms instead of 4, and the kernel
//! lease waits for that lock. So the watch polls the tables. A poll takes no lock and delays nobody.

use crate::vip::nfnl::{Family, Nfnl, NfnlError};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Polling interval. A poll of one table is a system call of some microseconds.
const EVERY: Duration = Duration::from_millis(50);

/// Polls our tables.
#[derive(Debug)]
pub struct TableWatch {
    socket: Nfnl,
    tables: Vec<WatchedTable>,
    ticks: Interval,
}

/// A table, and the kernel's handle of it at the last poll.
#[derive(Debug)]
struct WatchedTable {
    family: Family,
    name: String,
    handle: Option<u64>,
}

impl TableWatch {
    /// Polls these tables from now on. A table that is missing now counts once it appears. Needs a tokio runtime and
    /// `CAP_NET_ADMIN`, and works in the network namespace of this thread.
    ///
    /// # Errors
    /// As in [`NfnlError`].
    pub fn open(tables: impl IntoIterator<Item = (Family, String)>) -> Result<Self, NfnlError> {
        let mut socket = Nfnl::open()?;
        let seen = |(family, name): (Family, String)| {
            let handle = socket.table(family, &name)?;
            Ok(WatchedTable { family, name, handle })
        };
        let tables = tables.into_iter().map(seen).collect::<Result<_, NfnlError>>()?;
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { socket, tables, ticks })
    }

    /// Waits until tables are deleted or replaced, and returns their names. Our own changes count as replacements too.
    /// Dropping the wait loses nothing.
    ///
    /// # Errors
    /// As in [`NfnlError`].
    pub async fn next(&mut self) -> Result<Vec<String>, NfnlError> {
        loop {
            self.ticks.tick().await;
            let mut gone = Vec::new();
            for seen in &mut self.tables {
                let now = self.socket.table(seen.family, &seen.name)?;
                if is_gone(std::mem::replace(&mut seen.handle, now), now) {
                    gone.push(seen.name.clone());
                }
            }
            if !gone.is_empty() {
                return Ok(gone);
            }
        }
    }
}

/// Whether the table was deleted or replaced since the last poll.
fn is_gone(before: Option<u64>, now: Option<u64>) -> bool {
    before.is_some() && before != now
}

#[cfg(test)]
mod tests;
