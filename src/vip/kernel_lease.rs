//! The right to answer for the addresses, in the kernel: the host answers for them only while an element with a time limit lives
//! in a set of nftables.
//!
//! An agent that is killed or frozen cannot remove its addresses. So rules of our own drop what comes to an address, and what
//! leaves from it (ARP, neighbour discovery, IP), unless the address is in the set; and the agent puts it there for as long as
//! its right lasts, again and again. Whatever becomes of the agent, the host falls silent when the right runs out. What others
//! say of the address is let through, so a backup learns where it is, and talks to it like any client.
//!
//! Three tables of one name: at the interface (`netdev`, ingress and egress; Linux 5.16), which also stops raw frames; and, as a
//! second barrier on all interfaces (Linux answers for an address on any of them) and in place of the first where it cannot be
//! had, in address resolution (`arp`) and the IP layer (`inet`). Nobody else's tables are touched.
//!
//! Time: the kernel counts an element's time from the moment in which it handles the request, and this process may be stopped
//! between computing a time and asking for it, or wait for another program's change of nftables. So each hold needs a *guard*,
//! an element that no rule asks and that lives for milliseconds: it is set first, then the clock is read, and the transaction
//! with the hold also deletes the guard. If the guard has run out by then the kernel refuses all of it; else the hold was
//! handled within the guard's time, which was taken off. So no stall makes a hold outlast the right. (A kernel without time of
//! its own, a suspended host or a paused virtual machine, also does not count it.)

mod guards;
mod rules;

use super::nfnl::{Batch, Data, Family, Nfnl, NfnlError};
use super::nft::{self, NftError};
use crate::clock;
use crate::time::Time;
use guards::Guards;
use rules::{ARP, Chain, INET, Kind, NETDEV, Plan};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::{info, warn};

/// What is left of a right that is shorter is not worth holding for.
const SHORTEST: Duration = Duration::from_millis(1);

const WITHOUT_NETDEV: [Kind; 2] = [INET, ARP];
const ALL: [Kind; 3] = [NETDEV, INET, ARP];

/// By what a host is kept from answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// At the interface, and in the IP layer and address resolution.
    Netdev,
    /// In the IP layer and address resolution only. Raw frames, which the agent alone sends, are not stopped.
    Fallback,
}

/// Why the kernel lease is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum KernelLeaseError {
    /// No such interface.
    #[error("there is no interface {name}; there are: {}", there.join(", "))]
    NoInterface {
        /// The name that was asked for.
        name: String,
        /// The interfaces that exist.
        there: Vec<String>,
    },
    /// nft did not make the tables.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The tables are not there.
    #[error("the nftables tables `{table}` are gone; they are put back. If it stays so, restart the agent")]
    Gone {
        /// Their name.
        table: String,
    },
    /// The kernel did not take a hold.
    #[error("nftables does not take the hold of the addresses: {source}")]
    Kernel {
        /// What it said.
        #[from]
        source: NfnlError,
    },
    /// The kernel was busy for too long.
    #[error(
        "nftables was busy for too long for the hold of the addresses; see which program changes it for more than {} ms at a time \
         (`nft monitor`)", guards::LONGEST.as_millis()
    )]
    Busy,
}

/// What [`KernelLease::install`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// By what the host is kept from answering.
    pub enforcement: Enforcement,
    /// Whether there were tables of a predecessor.
    pub found: bool,
    /// The epoch of a predecessor's hold that still runs, and when it ends (or a little before).
    pub left: Option<(u64, Time)>,
}

/// The kernel lease of one instance. Belongs to the network namespace of the threads that use it.
#[derive(Debug)]
pub struct KernelLease {
    instance: String,
    table: String,
    interface: String,
    addresses: Vec<IpAddr>,
    netdev: bool,
    now: Mutex<Now>,
    // Held while the tables are made. A hold never waits for that.
    making: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Now {
    socket: Option<Nfnl>,
    // What was asked for last.
    wish: Option<(u64, Time)>,
    // No hold of this epoch or an earlier one is taken.
    let_go: u64,
    guards: Guards,
    // Whether the kernel has confirmed that nothing is held, and was not asked for anything since.
    silent: bool,
    // Whether rules at the interface were possible at first.
    capable: bool,
    // `None` while there are no tables of ours.
    enforcement: Option<Enforcement>,
}

impl KernelLease {
    /// The lease of the addresses of `instance` on `interface`. Touches nothing.
    #[must_use]
    pub fn new(instance: &str, interface: &str, addresses: &[IpAddr]) -> Self {
        Self {
            instance: instance.to_owned(),
            table: nft::table_name("lease", instance),
            interface: interface.to_owned(),
            addresses: addresses.to_vec(),
            netdev: true,
            now: Mutex::default(),
            making: tokio::sync::Mutex::default(),
        }
    }

    /// The same without the table at the interface: as on a kernel before Linux 5.16.
    #[must_use]
    pub const fn without_netdev(mut self) -> Self {
        self.netdev = false;
        self
    }

    /// Makes the tables, or takes over those of a predecessor; what it holds goes on. From here on the host does not answer for
    /// the addresses unless they are held.
    ///
    /// # Errors
    /// As in [`KernelLeaseError`]; then nothing has changed.
    pub async fn install(&self) -> Result<Installed, KernelLeaseError> {
        let _making = self.making.lock().await;
        // nft's own words for it would be mistaken for those of an old kernel.
        if !self.has_interface() {
            let all = nix::net::if_::if_nameindex();
            let names =
                |all: nix::net::if_::Interfaces| all.iter().map(|i| i.name().to_string_lossy().into_owned()).collect();
            return Err(KernelLeaseError::NoInterface {
                name: self.interface.clone(),
                there: all.map(names).unwrap_or_default(),
            });
        }
        let (enforcement, found, _) = self.make(self.netdev).await?;
        self.lock().capable = enforcement == Enforcement::Netdev;
        match enforcement {
            Enforcement::Netdev => info!(
                instance = self.instance,
                "the kernel keeps this host from answering for the addresses without a right (netdev tables `{}`)",
                self.table
            ),
            Enforcement::Fallback => warn!(
                instance = self.instance,
                "the kernel keeps this host from answering for the addresses without a right, by arp and inet tables `{}` only: it \
                 has no nftables hook for what leaves an interface (Linux 5.16)",
                self.table
            ),
        }
        let left = self.left()?;
        if left.is_none() {
            // A right to other addresses is not this process's, which would not know of it when it changes the record.
            self.end()?;
        }
        Ok(Installed { enforcement, found, left })
    }

    /// Makes the tables anew if somebody deleted one, or a chain went with its interface; whether that was so. What is held is
    /// held from the first moment.
    ///
    /// # Errors
    /// As in [`KernelLeaseError`].
    pub async fn put_back(&self) -> Result<bool, KernelLeaseError> {
        let _making = self.making.lock().await;
        if self.enforcement().is_none() {
            return Ok(false);
        }
        // To try what cannot be would delete a table each time, which looks like somebody's doing again.
        let netdev = self.lock().capable && self.has_interface();
        self.make(netdev).await.map(|(.., changed)| changed)
    }

    /// Holds the addresses under `epoch` until `until` and no longer, whatever was before: in one transaction, which is in force
    /// when this returns. It blocks for some ten microseconds, or until other programs' changes of nftables are over.
    ///
    /// # Errors
    /// As in [`KernelLeaseError`]. Then what was in force before still is, up to its own end.
    pub fn renew(&self, epoch: u64, until: Time) -> Result<(), KernelLeaseError> {
        let mut now = self.lock();
        now.wish = (epoch > now.let_go).then_some((epoch, until));
        self.put(&mut now)
    }

    /// Ends the hold at once.
    ///
    /// # Errors
    /// As in [`KernelLeaseError`].
    pub fn end(&self) -> Result<(), KernelLeaseError> {
        let mut now = self.lock();
        now.wish = None;
        self.put(&mut now)
    }

    /// Ends the hold at once, and takes no other one under this epoch or an earlier one until [`KernelLease::allow`].
    ///
    /// # Errors
    /// As in [`KernelLeaseError`].
    pub fn let_go(&self, epoch: u64) -> Result<(), KernelLeaseError> {
        let mut now = self.lock();
        now.let_go = now.let_go.max(epoch);
        // A newer hold is another matter.
        now.wish = now.wish.filter(|(held, _)| *held > epoch);
        self.put(&mut now)
    }

    /// Takes back what [`KernelLease::let_go`] forbids.
    pub fn allow(&self) {
        self.lock().let_go = 0;
    }

    /// Whether the kernel has confirmed the end of the last hold.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        let now = self.lock();
        now.silent && now.enforcement.is_some()
    }

    /// What the kernel says is held: the epoch, and when it ends (or a little before). Nothing, unless it holds all our addresses and
    /// no other: a process before this one that had others held a right to those.
    ///
    /// # Errors
    /// As in [`KernelLeaseError`].
    pub fn left(&self) -> Result<Option<(u64, Time)>, KernelLeaseError> {
        let mut now = self.lock();
        // Read before asking: what the kernel says is left was left at that time or later.
        let asked = clock::now();
        let (mut left, mut held) = (None, BTreeSet::new());
        for set in Plan::told() {
            let socket = open(&mut now.socket)?;
            for element in socket.list(Family::Inet, &self.table, set).map_err(|e| self.explain(e))? {
                let epoch = element.comment.strip_prefix("epoch ").and_then(|n| n.parse::<u64>().ok());
                // Anything else was put there by others, who keep no right.
                let (Some(epoch), Some(expires)) = (epoch, element.expires) else { continue };
                let one = (epoch, asked + expires);
                left = Some(left.map_or(one, |least: (u64, Time)| if one.1 < least.1 { one } else { least }));
                held.insert(element.key);
            }
        }
        let ours: BTreeSet<Vec<u8>> =
            self.addresses.iter().map(|ip| Data::new().then_ip(*ip).as_bytes().to_vec()).collect();
        Ok(left.filter(|(_, until)| *until > asked && held == ours))
    }

    /// By what the host is kept from answering; `None` while there are no tables of this process.
    #[must_use]
    pub fn enforcement(&self) -> Option<Enforcement> {
        self.lock().enforcement
    }

    /// The families of the tables that there are.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let kinds: &[Kind] = if self.enforcement() == Some(Enforcement::Netdev) { &ALL } else { &WITHOUT_NETDEV };
        kinds.iter().map(|kind| kind.family).collect()
    }

    /// The name of the tables.
    #[must_use]
    pub fn table_name(&self) -> &str {
        &self.table
    }

    /// Deletes the tables: from here on nothing keeps the host from answering for an address that it has.
    ///
    /// # Errors
    /// nftables refused.
    pub async fn remove(&self) -> Result<(), KernelLeaseError> {
        let _making = self.making.lock().await;
        let what = self.what();
        // A kernel without the family netdev has no such table either.
        if nft::run(&what, &self.plan().without(&ALL)).await.is_err() {
            nft::run(&what, &self.plan().without(&WITHOUT_NETDEV)).await?;
        }
        let mut now = self.lock();
        (now.enforcement, now.wish) = (None, None);
        Ok(())
    }

    /// Makes what is not there as it should be: by what the host is kept from answering now, whether there was a table before,
    /// and whether anything was changed.
    async fn make(&self, netdev: bool) -> Result<(Enforcement, bool, bool), KernelLeaseError> {
        let (plan, what) = (self.plan(), self.what());
        let mut there = self.chains().await?;
        let found = !there.is_empty();
        let intact = |there: &[Chain], kinds: &[Kind]| kinds.iter().all(|kind| plan.intact(kind, there));
        if netdev && intact(&there, &ALL) {
            self.lock().enforcement = Some(Enforcement::Netdev);
            return Ok((Enforcement::Netdev, found, false));
        }
        // Sets first, then what is held, then the rules that ask: the addresses are answered for throughout.
        let mut kinds: &[Kind] = if netdev { &ALL } else { &WITHOUT_NETDEV };
        let mut made = nft::run(&what, &plan.sets(kinds)).await;
        if made.is_err() && found {
            // Sets of another make under our name. They cannot be kept, so the host is silent until the next hold.
            warn!(instance = self.instance, "the tables `{}` are of another make and are replaced", self.table);
            let _ = nft::run(&what, &(plan.without(kinds) + &plan.sets(kinds))).await;
            there = self.chains().await?;
            made = nft::run(&what, &plan.sets(kinds)).await;
        }
        if made.is_err() && netdev {
            kinds = &WITHOUT_NETDEV;
            made = nft::run(&what, &plan.sets(kinds)).await;
        }
        made?;
        let mut enforcement = if kinds.len() == ALL.len() { Enforcement::Netdev } else { Enforcement::Fallback };
        self.hold_in(enforcement);
        if enforcement == Enforcement::Netdev
            && let Err(e) = nft::run(&what, &plan.chains(&ALL, &there)).await
        {
            info!(instance = self.instance, "no rules at the interface: {e}");
            enforcement = Enforcement::Fallback;
        }
        let mut changed = true;
        if enforcement == Enforcement::Fallback {
            changed = !intact(&there, &WITHOUT_NETDEV);
            if changed {
                nft::run(&what, &plan.chains(&WITHOUT_NETDEV, &there)).await?;
            }
            // Only now: what was there at the interface did its work up to here.
            if there.iter().any(|c| c.family == NETDEV.word) || netdev {
                let _ = nft::run(&what, &plan.without(&[NETDEV])).await;
            }
            self.lock().enforcement = Some(enforcement);
        }
        Ok((enforcement, found, changed))
    }

    /// Puts what was asked for last into sets that were just made.
    fn hold_in(&self, enforcement: Enforcement) {
        let mut now = self.lock();
        now.enforcement = Some(enforcement);
        // Without a wish of this process, a predecessor's hold goes on.
        if now.wish.is_some()
            && let Err(e) = self.put(&mut now)
        {
            warn!(instance = self.instance, "the addresses are not answered for until the next heartbeat: {e}");
        }
    }

    /// Brings the kernel to what was asked for last.
    fn put(&self, now: &mut Now) -> Result<(), KernelLeaseError> {
        let plan = self.plan();
        let kinds: &[Kind] = if now.enforcement == Some(Enforcement::Netdev) { &ALL } else { &WITHOUT_NETDEV };
        now.silent = false;
        let (wish, socket) = (now.wish, open(&mut now.socket)?);
        let mut commit = |batch: Batch| socket.commit(batch);
        let at = clock::now();
        let left = wish.map_or(Duration::ZERO, |(_, until)| until.since(at));
        for (number, guard) in now.guards.now(at, left) {
            // With nothing worth holding left, silence is what is asked for.
            let Some((epoch, until)) = wish.filter(|(_, until)| until.since(clock::now()) >= guard + SHORTEST) else {
                commit(plan.end(kinds)).map_err(|e| self.explain(e))?;
                now.silent = true;
                return Ok(());
            };
            commit(plan.guard(guard)).map_err(|e| self.explain(e))?;
            // After the guard began and not before: see above.
            let began = clock::now();
            let timeout = until.since(began).saturating_sub(guard);
            if timeout < SHORTEST {
                continue;
            }
            match commit(plan.hold(kinds, epoch, timeout)) {
                Ok(()) => return Ok(()),
                // A guard lives for half its time at least, so this is not about the guard.
                Err(NfnlError::Gone) if clock::now().since(began) < guard / 4 => {
                    return Err(self.explain(NfnlError::Gone));
                }
                Err(NfnlError::Gone) => now.guards.ran_out(number, clock::now()),
                Err(e) => return Err(e.into()),
            }
        }
        Err(KernelLeaseError::Busy)
    }

    /// Our chains that exist.
    async fn chains(&self) -> Result<Vec<Chain>, KernelLeaseError> {
        let json = nft::ask(&self.what(), &["list", "chains"]).await?;
        let all = json["nftables"].as_array().into_iter().flatten().map(|entry| &entry["chain"]);
        let ours = all.filter(|chain| chain["table"] == self.table.as_str()).filter_map(|chain| {
            Some(Chain { family: chain["family"].as_str()?.to_owned(), name: chain["name"].as_str()?.to_owned() })
        });
        Ok(ours.collect())
    }

    fn has_interface(&self) -> bool {
        nix::net::if_::if_nametoindex(self.interface.as_str()).is_ok()
    }

    fn plan(&self) -> Plan<'_> {
        Plan { table: &self.table, interface: &self.interface, addresses: &self.addresses }
    }

    fn what(&self) -> String {
        format!("the kernel lease of instance {}", self.instance)
    }

    fn explain(&self, error: NfnlError) -> KernelLeaseError {
        match error {
            NfnlError::Gone => KernelLeaseError::Gone { table: self.table.clone() },
            other => other.into(),
        }
    }

    /// No code panics while it holds the lock, and what it guards is whole after each statement.
    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(socket: &mut Option<Nfnl>) -> Result<&mut Nfnl, NfnlError> {
    if socket.is_none() {
        *socket = Some(Nfnl::open()?);
    }
    // Filled just above.
    socket.as_mut().ok_or(NfnlError::Stopping)
}

#[cfg(test)]
mod tests;
