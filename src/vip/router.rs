//! Keeps this host from being a router because of the relay, and puts the kernel's settings back.
//!
//! The relay needs forwarding on the interface of the virtual address. With forwarding on, the kernel would also forward
//! what strangers send to this host's hardware address for a third host. So where this agent turned forwarding on, a
//! table of our own drops whatever does not bear the relay's mark. A host that was a router before stays one, and so
//! does a host that somebody makes a router later.
//!
//! The table also remembers, in the kernel, what each setting was before, and which instances need the settings: a
//! process that is killed leaves both to the next one, and a reboot ends the table together with the settings.

mod ledger;

use super::nfnl::{Family, Link, NfnlError};
use super::nft::signed::Signed;
use super::nft::{self, NftError};
use super::sysctl::{self, Prepared, Wanted};
use crate::fnv::fnv1a;
use ledger::{Ledger, Need};
use tokio::sync::Mutex;

/// The name of the table. One table for all instances and all agents of this host.
pub const TABLE: &str = "keepcall-router";
const WHAT: &str = "the guard against strangers' packets";
/// The table's sets: what was before, and who needs it.
const SETS: [&str; 2] = ["before", "needs"];

/// Why the settings stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// The table cannot be written, so no setting is changed: what strangers send would be forwarded.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The table cannot be read.
    #[error("cannot read {WHAT} from nftables: {0}")]
    Unread(#[from] NfnlError),
}

/// The settings of this host for its instances, in the network namespace of the thread that uses it first.
#[derive(Debug, Default)]
pub struct Router {
    /// Tells this agent's needs from those of another agent on this host.
    owner: u64,
    link: Link,
    // What this process asked for. It is the truth if somebody deletes the table.
    own: Mutex<Ledger>,
}

impl Router {
    /// The settings of the agent of `node` in `cluster`. Changes nothing yet.
    #[must_use]
    pub fn new(cluster: &str, node: &str) -> Self {
        Self { owner: fnv1a(format!("{cluster}/{node}").as_bytes()), ..Self::default() }
    }

    /// Brings the settings for `instance` on `interface` into force; `calls`: with those of the relay.
    ///
    /// # Errors
    /// See [`RouterError`]. The instance is remembered, and [`Router::look`] tries again.
    pub async fn prepare(&self, instance: &str, interface: &str, calls: bool) -> Result<Prepared, RouterError> {
        let need = Need { instance: instance.to_owned(), interface: interface.to_owned(), calls, owner: self.owner };
        self.own.lock().await.needs.insert(need);
        self.look().await
    }

    /// Repairs what others changed: the table, and settings that are off again. Lifts the guard of a family for which
    /// somebody made this host a router.
    ///
    /// # Errors
    /// See [`RouterError`].
    pub async fn look(&self) -> Result<Prepared, RouterError> {
        let mut own = self.own.lock().await;
        if own.needs.is_empty() {
            return Ok(Prepared::default());
        }
        let mut now = self.merged(&own).await?;
        let wanted: Vec<Wanted> = own.needs.iter().flat_map(settings).collect();
        let lifted = now.lift(sysctl::read);
        now.note(&wanted, sysctl::read);
        // First the guard and the memory, then the settings: a process that dies between the two has opened nothing.
        self.write(&now).await?;
        own.before = now.before;
        let mut done = Prepared::of(&wanted);
        for (name, value) in lifted {
            done.set(&name, &value);
        }
        Ok(done)
    }

    /// Puts back what no other instance of this host needs, if it is still as this agent set it.
    ///
    /// # Errors
    /// See [`RouterError`].
    pub async fn release(&self, instance: &str) -> Result<Prepared, RouterError> {
        let mut own = self.own.lock().await;
        let mut now = self.merged(&own).await?;
        let others = |need: &Need| need.owner != self.owner || need.instance != instance;
        own.needs.retain(others);
        now.needs.retain(others);
        let needed: Vec<Wanted> = now.needs.iter().flat_map(settings).collect();
        let mut done = Prepared::default();
        for (name, value) in now.give_up(&needed) {
            // Somebody else's later choice stays.
            if sysctl::read(&name).as_deref() == Some(ledger::set_to(&name)) {
                done.set(&name, &value);
            }
        }
        // The guard goes last: until here, forwarding may still be on.
        self.write(&now).await?;
        own.before = now.before;
        Ok(done)
    }

    /// The kernel's memory with this process's own needs; this process's memory alone if there is no table.
    async fn merged(&self, own: &Ledger) -> Result<Ledger, RouterError> {
        if self.link.table(Family::Inet, TABLE).await?.is_none() {
            return Ok(own.clone());
        }
        let mut there = Ledger::default();
        for set in SETS {
            match self.link.list_own(Family::Inet, TABLE, set).await {
                Ok(found) => there.read(found.iter().map(|one| one.comment.as_str())),
                Err(NfnlError::Gone) => {}
                Err(e) => return Err(e.into()),
            }
        }
        // Of this agent, a former process may have had other instances.
        there.needs.retain(|need| need.owner != self.owner);
        there.needs.extend(own.needs.iter().cloned());
        Ok(there)
    }

    /// Makes the table hold `now`; without needs there is no table. Runs `nft` only for a difference, because a run
    /// holds the lock that the kernel lease needs.
    async fn write(&self, now: &Ledger) -> Result<(), RouterError> {
        if now.needs.is_empty() {
            if self.link.table(Family::Inet, TABLE).await?.is_some() {
                nft::run(WHAT, &nft::without(TABLE)).await?;
            }
            return Ok(());
        }
        let rules = Signed::new(&now.table(TABLE, SETS));
        if !rules.is_in_force(&self.link.rules(Family::Inet, TABLE).await?) {
            nft::run(WHAT, &(nft::without(TABLE) + rules.text())).await?;
        }
        Ok(())
    }
}

/// What an instance needs.
fn settings(need: &Need) -> Vec<Wanted> {
    let mut all = sysctl::address_settings(&need.interface);
    if need.calls {
        all.extend(sysctl::relay_settings(&need.interface));
    }
    all
}
