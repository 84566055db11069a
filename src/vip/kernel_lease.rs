//! Keeps the right to the addresses in the kernel: the host answers for an address only while a timed element lives in
//! an nftables set.
//!
//! A killed or frozen agent cannot remove its addresses. So our rules drop every packet to or from an address (ARP,
//! neighbour discovery, IP) unless the address is in the set. The agent refreshes the set element again and again, each
//! time only up to the end of its right. Whatever happens to the agent, the host falls silent when the right runs out.
//! Packets from other hosts about the address pass, so a standby learns where the address is and talks to it like any
//! client.
//!
//! Three tables share one name. The first works at the interface (`netdev`, ingress and egress; Linux 5.16) and also
//! stops raw frames. The other two work in address resolution (`arp`) and in the IP layer (`inet`). They are a second
//! barrier on all interfaces, because Linux answers for an address on any of them, and they replace the first table
//! where the kernel lacks it. Foreign tables stay untouched.
//!
//! Time: the kernel counts an element's timeout from the moment it handles the request. But this process may stall
//! between computing the timeout and sending it, or wait for another program's nftables change. So each hold needs a
//! *guard*: an element that no rule looks up and that lives for milliseconds. The agent sets the guard, then reads the
//! clock, and the transaction with the hold also deletes the guard. If the guard has expired by then, the kernel
//! refuses the whole transaction. Otherwise the kernel handled the hold within the guard's lifetime, and the hold is
//! shorter by that lifetime. So no stall makes a hold outlast the right. (While the kernel's own time stands still, on
//! a suspended host or in a paused virtual machine, the timeout stands still too.)

mod guards;
mod rules;

use super::nfnl::{Batch, Data, Family, Nfnl, NfnlError};
use super::nft::{self, NftError};
use crate::os::{clock, interface};
use crate::sync::Locked as _;
use crate::time::Time;
use guards::Guards;
use rules::{ARP, Chain, INET, Kind, NETDEV, Plan};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tracing::{info, warn};

/// A shorter remainder of a right is not worth a hold.
const SHORTEST: Duration = Duration::from_millis(1);

const WITHOUT_NETDEV: [Kind; 2] = [INET, ARP];
const ALL: [Kind; 3] = [NETDEV, INET, ARP];

/// Where the kernel stops the host from answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// At the interface, and in the IP layer and address resolution.
    Netdev,
    /// In the IP layer and address resolution only. Raw frames pass, but only the agent sends them.
    Fallback,
}

/// Why the kernel lease failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelLeaseError {
    /// No such interface.
    #[error("there is no interface {name}; there are: {}", there.join(", "))]
    NoInterface {
        /// The requested name.
        name: String,
        /// The interfaces that exist.
        there: Vec<String>,
    },
    /// nft failed to build the tables.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The tables are missing.
    #[error(
        "the nftables tables `{table}` are missing; the agent restores them. If the fault stays, restart the agent"
    )]
    Gone {
        /// The name of the tables.
        table: String,
    },
    /// The kernel refused a hold.
    #[error("nftables refused the hold: {source}")]
    Kernel {
        /// The kernel's error.
        #[from]
        source: NfnlError,
    },
    /// The kernel was busy for too long.
    #[error(
        "nftables was busy for too long to change the hold; find the program that changes nftables for more than {} \
         ms at a time (`nft monitor`)", guards::LONGEST.as_millis()
    )]
    Busy,
}

/// The result of [`KernelLease::install`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Where the kernel stops the host from answering.
    pub enforcement: Enforcement,
    /// Whether a predecessor left tables.
    pub found: bool,
    /// The epoch of a predecessor's running hold, and its end (or a little earlier).
    pub left: Option<(u64, Time)>,
}

/// The kernel lease of one instance, in the network namespace of the threads that use it.
#[derive(Debug)]
pub struct KernelLease {
    instance: String,
    table: String,
    interface: String,
    addresses: Vec<IpAddr>,
    netdev: bool,
    now: Mutex<Now>,
    // Held while nft builds the tables. A hold never waits for it.
    making: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Now {
    socket: Option<Nfnl>,
    // The last requested hold.
    wish: Option<(u64, Time)>,
    // Holds of this epoch or an earlier one are refused.
    let_go: u64,
    guards: Guards,
    // Whether the kernel has confirmed that it holds nothing, with no request since.
    silent: bool,
    // Whether the kernel accepted interface rules at installation.
    capable: bool,
    // `None` while our tables are missing.
    enforcement: Option<Enforcement>,
}

impl KernelLease {
    /// The lease of the addresses of `instance` on `interface`. Changes nothing yet.
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

    /// The same lease without the table at the interface, as on a kernel before Linux 5.16.
    #[must_use]
    pub const fn without_netdev(mut self) -> Self {
        self.netdev = false;
        self
    }

    /// Builds the tables, or takes over a predecessor's tables together with its hold. From here on the host answers
    /// for the addresses only while they are held.
    ///
    /// # Errors
    /// As in [`KernelLeaseError`]. After an error nothing has changed.
    pub async fn install(&self) -> Result<Installed, KernelLeaseError> {
        let _making = self.making.lock().await;
        // nft's error text for a missing interface would look like that of an old kernel.
        if !self.has_interface() {
            return Err(KernelLeaseError::NoInterface { name: self.interface.clone(), there: interface::names() });
        }
        let (enforcement, found, _) = self.make(self.netdev).await?;
        self.lock().capable = enforcement == Enforcement::Netdev;
        match enforcement {
            Enforcement::Netdev => info!(
                instance = self.instance,
                "kernel lease ready: without a hold, the kernel silences the addresses on this host (netdev tables \
                 `{}`)",
                self.table
            ),
            Enforcement::Fallback => warn!(
                instance = self.instance,
                "kernel lease ready: without a hold, the kernel silences the addresses on this host, but with arp \
                 and inet tables `{}` only: this kernel has no nftables egress hook (Linux 5.16 has)",
                self.table
            ),
        }
        let left = self.left()?;
        if left.is_none() {
            // A right to other addresses is not this process's right, and this process would not notice when it changes
            // the record.
            self.end()?;
        }
        Ok(Installed { enforcement, found, left })
    }

    /// Rebuilds the tables if somebody deleted one, or if a chain disappeared with its interface. Returns whether
    /// anything changed. The hold is in force from the first moment.
    ///
    /// # Errors
    /// As in [`KernelLeaseError`].
    pub async fn put_back(&self) -> Result<bool, KernelLeaseError> {
        let _making = self.making.lock().await;
        if self.enforcement().is_none() {
            return Ok(false);
        }
        // On a kernel without netdev hooks each try would delete a table again, which would look like another deletion
        // by somebody else.
        let netdev = self.lock().capable && self.has_interface();
        self.make(netdev).await.map(|(.., changed)| changed)
    }

    /// Holds the addresses under `epoch` until `until` and no longer, whatever was in force before. One transaction
    /// does it, and it is in force when this returns. The call blocks for some ten microseconds, or until other
    /// programs' nftables changes are over.
    ///
    /// # Errors
    /// As in [`KernelLeaseError`]. The former hold then stays in force until its own end.
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

    /// Ends the hold at once, and refuses holds of this epoch or an earlier one until [`KernelLease::allow`].
    ///
    /// # Errors
    /// As in [`KernelLeaseError`].
    pub fn let_go(&self, epoch: u64) -> Result<(), KernelLeaseError> {
        let mut now = self.lock();
        now.let_go = now.let_go.max(epoch);
        // A hold of a newer epoch stays.
        now.wish = now.wish.filter(|(held, _)| *held > epoch);
        self.put(&mut now)
    }

    /// Lifts the refusal of [`KernelLease::let_go`].
    pub fn allow(&self) {
        self.lock().let_go = 0;
    }

    /// Whether the kernel has confirmed the end of the last hold.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        let now = self.lock();
        now.silent && now.enforcement.is_some()
    }

    /// The hold in the kernel: its epoch, and its end (or a little earlier). `None` unless the kernel holds exactly our
    /// addresses: a predecessor with other addresses had the right to those.
    ///
    /// # Errors
    /// As in [`KernelLeaseError`].
    pub fn left(&self) -> Result<Option<(u64, Time)>, KernelLeaseError> {
        let mut now = self.lock();
        // Read the clock before the query: the remaining times that the kernel reports count from then or later.
        let asked = clock::now();
        let (mut left, mut held) = (None, BTreeSet::new());
        for set in Plan::told() {
            let socket = open(&mut now.socket)?;
            for element in socket.list(Family::Inet, &self.table, set).map_err(|e| self.explain(e))? {
                let epoch = element.comment.strip_prefix("epoch ").and_then(|n| n.parse::<u64>().ok());
                // Any other element is foreign and keeps no right.
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

    /// Where the kernel stops the host from answering; `None` while this process has no tables.
    #[must_use]
    pub fn enforcement(&self) -> Option<Enforcement> {
        self.lock().enforcement
    }

    /// The families of the existing tables.
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

    /// Deletes the tables. From here on the kernel lets the host answer for any address it has.
    ///
    /// # Errors
    /// nftables refused.
    pub async fn remove(&self) -> Result<(), KernelLeaseError> {
        let _making = self.making.lock().await;
        let what = self.what();
        // A kernel without the netdev family has no such table either.
        if nft::run(&what, &self.plan().without(&ALL)).await.is_err() {
            nft::run(&what, &self.plan().without(&WITHOUT_NETDEV)).await?;
        }
        let mut now = self.lock();
        (now.enforcement, now.wish) = (None, None);
        Ok(())
    }

    /// Repairs missing or outdated tables. Returns where the kernel now stops the host from answering, whether a table
    /// existed before, and whether anything changed.
    async fn make(&self, netdev: bool) -> Result<(Enforcement, bool, bool), KernelLeaseError> {
        let (plan, what) = (self.plan(), self.what());
        let mut there = self.chains().await?;
        let found = !there.is_empty();
        let intact = |there: &[Chain], kinds: &[Kind]| kinds.iter().all(|kind| plan.intact(kind, there));
        if netdev && intact(&there, &ALL) {
            self.lock().enforcement = Some(Enforcement::Netdev);
            return Ok((Enforcement::Netdev, found, false));
        }
        // The sets come first, then the hold, then the rules that look it up. So the host answers for the addresses
        // throughout.
        let mut kinds: &[Kind] = if netdev { &ALL } else { &WITHOUT_NETDEV };
        let mut made = nft::run(&what, &plan.sets(kinds)).await;
        if made.is_err() && found {
            // The sets under our name come from a different build and cannot stay, so the host is silent until the next
            // hold.
            warn!(
                instance = self.instance,
                "another build of keepcall made the tables `{}`; replacing them", self.table
            );
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
            info!(instance = self.instance, "cannot add rules at the interface: {e}");
            enforcement = Enforcement::Fallback;
        }
        let mut changed = true;
        if enforcement == Enforcement::Fallback {
            changed = !intact(&there, &WITHOUT_NETDEV);
            if changed {
                nft::run(&what, &plan.chains(&WITHOUT_NETDEV, &there)).await?;
            }
            // Deleted only now, because the interface table has worked until this point.
            if there.iter().any(|c| c.family == NETDEV.word) || netdev {
                let _ = nft::run(&what, &plan.without(&[NETDEV])).await;
            }
            self.lock().enforcement = Some(enforcement);
        }
        Ok((enforcement, found, changed))
    }

    /// Puts the last requested hold into new sets.
    fn hold_in(&self, enforcement: Enforcement) {
        let mut now = self.lock();
        now.enforcement = Some(enforcement);
        // Without a request of this process, a predecessor's hold continues.
        if now.wish.is_some()
            && let Err(e) = self.put(&mut now)
        {
            warn!(
                instance = self.instance,
                "cannot set the hold, so this host does not answer for the addresses until the next heartbeat: {e}"
            );
        }
    }

    /// Brings the kernel to the last requested hold.
    fn put(&self, now: &mut Now) -> Result<(), KernelLeaseError> {
        let plan = self.plan();
        let kinds: &[Kind] = if now.enforcement == Some(Enforcement::Netdev) { &ALL } else { &WITHOUT_NETDEV };
        now.silent = false;
        let (wish, socket) = (now.wish, open(&mut now.socket)?);
        let mut commit = |batch: Batch| socket.commit(batch);
        let at = clock::now();
        let left = wish.map_or(Duration::ZERO, |(_, until)| until.since(at));
        for (number, guard) in now.guards.now(at, left) {
            // If the remainder is too short for a hold, the request becomes silence.
            let Some((epoch, until)) = wish.filter(|(_, until)| until.since(clock::now()) >= guard + SHORTEST) else {
                commit(plan.end(kinds)).map_err(|e| self.explain(e))?;
                now.silent = true;
                return Ok(());
            };
            commit(plan.guard(guard)).map_err(|e| self.explain(e))?;
            // Read the clock after the guard starts, never before (see the module's text on time).
            let began = clock::now();
            let timeout = until.since(began).saturating_sub(guard);
            if timeout < SHORTEST {
                continue;
            }
            match commit(plan.hold(kinds, epoch, timeout)) {
                Ok(()) => return Ok(()),
                // A guard lives for at least half its time, so the guard is not the missing element.
                Err(NfnlError::Gone) if clock::now().since(began) < guard / 4 => {
                    return Err(self.explain(NfnlError::Gone));
                }
                Err(NfnlError::Gone) => now.guards.ran_out(number, clock::now()),
                Err(e) => return Err(e.into()),
            }
        }
        Err(KernelLeaseError::Busy)
    }

    /// Our existing chains.
    async fn chains(&self) -> Result<Vec<Chain>, KernelLeaseError> {
        let json = nft::ask(&self.what(), &["list", "chains"]).await?;
        let all = json["nftables"].as_array().into_iter().flatten().map(|entry| &entry["chain"]);
        let ours = all.filter(|chain| chain["table"] == self.table.as_str()).filter_map(|chain| {
            Some(Chain { family: chain["family"].as_str()?.to_owned(), name: chain["name"].as_str()?.to_owned() })
        });
        Ok(ours.collect())
    }

    fn has_interface(&self) -> bool {
        interface::index(&self.interface).is_some()
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

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.locked()
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
