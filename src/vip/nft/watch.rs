//! Tells when somebody deletes one of our tables: `nft flush ruleset`, and every reload of a firewall that begins with it, takes
//! them away with all others.
//!
//! The kernel would tell of it by itself. But as long as anybody listens, it writes a notification for each element that anybody
//! changes, while it holds the lock on nftables: a change of 100 calls of the relay then takes 30 ms instead of 4, and the kernel
//! lease waits for that lock. So the tables are asked for instead, which waits for no lock and makes nobody wait.

use crate::vip::nfnl::{Family, Nfnl, NfnlError};
use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Time between two looks. A look at a table is a system call of some microseconds.
const EVERY: Duration = Duration::from_millis(50);

/// A look at our tables, again and again.
#[derive(Debug)]
pub struct TableWatch {
    socket: Nfnl,
    tables: Vec<Seen>,
    ticks: Interval,
}

/// A table, and the kernel's number of it when it was last there.
#[derive(Debug)]
struct Seen {
    family: Family,
    name: String,
    handle: Option<u64>,
}

impl TableWatch {
    /// Looks at these tables from now on; one that is not there yet is looked at once it is. Needs a tokio runtime and
    /// `CAP_NET_ADMIN`, and looks in the network namespace of this thread.
    ///
    /// # Errors
    /// As in [`NfnlError`].
    pub fn open(tables: impl IntoIterator<Item = (Family, String)>) -> Result<Self, NfnlError> {
        let mut socket = Nfnl::open()?;
        let seen = |(family, name): (Family, String)| {
            let handle = socket.table(family, &name)?;
            Ok(Seen { family, name, handle })
        };
        let tables = tables.into_iter().map(seen).collect::<Result<_, NfnlError>>()?;
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { socket, tables, ticks })
    }

    /// Waits until tables are gone, or others are in their place (as our own changes leave them, too): their names. Nothing is
    /// lost when the wait is dropped.
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

/// Whether the table that was there is not there any more.
fn is_gone(before: Option<u64>, now: Option<u64>) -> bool {
    before.is_some() && before != now
}

#[cfg(test)]
mod tests;
