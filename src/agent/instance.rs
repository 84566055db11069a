//! One group of addresses and its calls: the loop that joins election, health, VIP, calls and recovery.
//!
//! [`Instance::run`] handles every event of an instance, one after the other, so no state here is shared.

mod addresses;
pub(super) mod starting;

use super::calls_part::CallsPart;
use super::history;
use super::hooks::Hooks;
use super::kernel_settings;
use super::obstacles::Obstacles;
use super::takeover::Takeover;
use crate::calls::custody::LocalServer;
use crate::cluster::{Cause, Cluster, Fitness, MasterChange};
use crate::config;
use crate::control::api;
use crate::health::CheckStatus;
use crate::health::Verdict;
use crate::os::clock;
use crate::pbx::driver::ServerStatus;
use crate::time::Time;
use crate::vip::address::{AddressMonitor, Addresses, LIFETIME};
use crate::vip::announce::{Announced, Announcer, Announcing, Pace};
use crate::vip::conflict::watch::ConflictWatch;
use crate::vip::fence::FenceState;
use crate::vip::kernel_lease::KernelLease;
use crate::vip::router::Router;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

/// Pause before an address is restored a second time, so that a fight with a network manager stays slow.
const PUT_BACK_PAUSE: Duration = Duration::from_secs(1);
/// How often the addresses get a fresh lifetime: several times per lifetime, so that one failed refresh does no harm.
const REFRESH: Duration = LIFETIME.checked_div(4).expect("four is not zero");

/// A request of the agent to an instance.
#[derive(Debug)]
pub(super) enum Order {
    /// The election made this node master: add the addresses.
    Take(MasterChange),
    /// This node's right ends: drop the addresses at once.
    Drop { epoch: u64, reason: String, handover: bool },
    /// For `status`.
    Summary(oneshot::Sender<Summary>),
    /// For `calls`.
    Calls(oneshot::Sender<Vec<api::CallRow>>),
    /// Stop: drop the addresses and remove our own tables. Answers with the failures.
    Stop(oneshot::Sender<Vec<String>>),
    /// End, and leave addresses and tables for the next process on this host.
    Park(oneshot::Sender<()>),
}

/// An instance's part of the status.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) not_ready: Option<String>,
    /// Why addresses are missing on this master.
    pub(super) absent: Option<String>,
    pub(super) checks: Vec<CheckStatus>,
    pub(super) conflicts: Vec<api::Conflict>,
    pub(super) calls: api::CallCounts,
    pub(super) server: Option<ServerStatus>,
    /// What would harm calls, each with its cure.
    pub(super) warnings: Vec<String>,
}

/// One instance on this node.
pub(super) struct Instance {
    pub(super) config: config::Instance,
    pub(super) node: config::Node,
    pub(super) cluster: Cluster,
    pub(super) addresses: Arc<Addresses>,
    pub(super) announcer: Arc<Announcer>,
    pub(super) monitor: AddressMonitor,
    pub(super) conflicts: ConflictWatch,
    pub(super) verdict: watch::Receiver<Verdict>,
    pub(super) calls: Option<CallsPart>,
    /// Foreign firewall rules that would stop its audio; `None` without calls.
    pub(super) obstacles: Option<Obstacles>,
    pub(super) router: Arc<Router>,
    pub(super) hooks: Hooks,
    pub(super) history: history::Writer,
    /// The kernel lease that lets the host answer; every instance has one.
    pub(super) lease: Option<Arc<KernelLease>>,
    /// When the held addresses get their next lifetime.
    pub(super) refresh_at: Time,
    /// Why this node cannot run the instance now (its interface disappeared).
    pub(super) missing: Option<String>,
    /// A former process held the addresses, and its right was still valid when this process started.
    pub(super) restarted: bool,
    /// The epoch in which this node holds the addresses; `None` while it does not hold them.
    pub(super) held: Option<u64>,
    pub(super) announcing: Option<Announcing>,
    /// When removed addresses were last restored.
    pub(super) put_back: Option<Time>,
    /// When the next restore is due.
    pub(super) put_back_at: Option<Time>,
    /// Why held addresses are missing.
    pub(super) absent: Option<String>,
}

impl Instance {
    /// Runs until [`Order::Stop`], [`Order::Park`], or the end of the agent. `take` is a take order from before the
    /// start.
    pub(super) async fn run(mut self, take: Option<Order>, mut orders: mpsc::Receiver<Order>) {
        self.report_fitness().await;
        if let Some(take) = take {
            self.obey(take).await;
        }
        loop {
            tokio::select! {
                // Biased: the end of a right comes before everything else.
                biased;
                order = orders.recv() => match order {
                    Some(Order::Stop(done)) => {
                        let errors = self.stop().await;
                        let _ = done.send(errors);
                        return;
                    }
                    Some(Order::Park(done)) => {
                        if let Some(calls) = &self.calls {
                            calls.park().await;
                        }
                        let _ = done.send(());
                        return;
                    }
                    Some(order) => self.obey(order).await,
                    None => {
                        self.stop().await;
                        return;
                    }
                },
                // A closed channel means that there are no checks and no news. The pattern then disables this arm, so
                // the loop does not spin.
                Ok(()) = self.verdict.changed() => self.report_fitness().await,
                event = self.monitor.next() => match event {
                    Some(event) => self.address_event(event).await,
                    None => self.watch_again().await,
                },
                action = self.conflicts.next() => self.rival(action),
                () = tokio::time::sleep_until(clock::tokio_at(self.put_back_at.unwrap_or(Time::FAR))) => self.put_back().await,
                () = tokio::time::sleep_until(clock::tokio_at(self.refresh_at)) => self.refresh().await,
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Take(change) => self.take(change).await,
            Order::Drop { epoch, reason, handover } => self.drop_right(epoch, &reason, handover).await,
            Order::Summary(reply) => {
                let (not_ready, absent, conflicts) = (self.missing.clone(), self.absent.clone(), self.rivals());
                let checks = self.verdict.borrow().checks.clone();
                let warnings = self.obstacles.as_ref().map(Obstacles::words).unwrap_or_default();
                let counts = self.calls.as_ref().map(CallsPart::counts);
                // The calls' part may hang, so this answer must not block the loop.
                tokio::spawn(async move {
                    let (calls, server) = match counts {
                        Some(counts) => counts.await.unwrap_or_default(),
                        None => Default::default(),
                    };
                    let _ = reply.send(Summary { not_ready, absent, checks, conflicts, calls, server, warnings });
                });
            }
            Order::Calls(reply) => {
                let rows = self.calls.as_ref().map(CallsPart::rows);
                tokio::spawn(async move {
                    let rows = match rows {
                        Some(rows) => rows.await.unwrap_or_default(),
                        None => Vec::new(),
                    };
                    let _ = reply.send(rows);
                });
            }
            // `run` handles both and returns.
            Order::Stop(_) | Order::Park(_) => {}
        }
    }

    async fn report_fitness(&mut self) {
        let verdict = self.verdict.borrow_and_update().clone();
        if let Some(calls) = &self.calls {
            calls.server_is(self.local_server(&verdict));
        }
        self.cluster.set_ready(&self.config.name, self.missing.is_none());
        if let Some(why) = &self.missing {
            let (priority, summary) = (self.node.priority, format!("not ready: {why}"));
            self.cluster.set_fitness(&self.config.name, Fitness { fit: false, priority, summary });
            return;
        }
        // The former process's verdict on the server stays valid until the checks decide.
        if self.restarted && verdict.decided().is_none() {
            return;
        }
        self.cluster.set_fitness(
            &self.config.name,
            Fitness { fit: verdict.fit, priority: self.node.priority, summary: verdict.summary },
        );
    }

    fn local_server(&self, verdict: &Verdict) -> LocalServer {
        let status = self.cluster.status();
        let candidates = status.instances.iter().find(|i| i.name == self.config.name).map(|i| i.candidates.as_slice());
        let none_fit = candidates.unwrap_or_default().iter().all(|c| c.against.is_some());
        LocalServer {
            working: verdict.decided(),
            since_ms: verdict.server_since_ms(),
            stays: none_fit || status.paused.is_some(),
        }
    }

    async fn take(&mut self, change: MasterChange) {
        let MasterChange { epoch, cause, previous, detected, committed } = change;
        let name = self.config.name.clone();
        // The order may have waited while this process stalled, so check the right again now.
        if !self.cluster.holds(&name, epoch) {
            warn!(instance = name, epoch, "the hold ended before this node added the addresses");
            return;
        }
        let entry = api::HistoryEntry {
            instance: name.clone(),
            epoch,
            master: self.node.name.clone(),
            previous: previous.clone(),
            cause: word(&cause).to_owned(),
            reason: reason(&cause),
            at_ms: clock::unix_ms(),
            ..api::HistoryEntry::default()
        };
        let mut takeover = Takeover::new(entry, self.history.clone());
        takeover.mark("detected", detected);
        takeover.mark("committed", committed);

        if let Some(lease) = &self.lease {
            lease.allow();
        }
        // The addresses and their announcement come first: nothing may delay them after the commit.
        let added = self.addresses.add(&self.config.interface, &self.config.addresses).await;
        takeover.mark("address", clock::now());
        self.held = Some(epoch);
        let (announced, announcing) = self.announce();
        takeover.mark("announced", clock::now());
        // The conflict probe follows the announcement, and nothing waits for an answer.
        self.conflicts.taken();
        self.refresh_at = clock::now() + REFRESH;
        self.announcing = Some(announcing);
        self.absent = None;
        if let Err(e) = added {
            error!(instance = name, epoch, "cannot add all addresses: {e}; retrying");
            self.lacks(format!(
                "not all of the addresses are on {}: {e}; retrying every second",
                self.config.interface
            ));
        }
        for e in &announced.errors {
            warn!(instance = name, "cannot send an announcement: {e}");
        }
        info!(instance = name, epoch, previous, cause = word(&cause), "master: the addresses are on this host");
        if let Some(calls) = &self.calls {
            calls.take(epoch, matches!(cause, Cause::Resumed | Cause::Restarted), takeover).await;
        } else {
            takeover.save();
        }
        if cause != Cause::Restarted {
            self.hooks.run(self.config.hooks.on_master.as_ref(), environment("master", epoch));
        }
    }

    async fn drop_right(&mut self, epoch: u64, reason: &str, handover: bool) {
        let name = self.config.name.clone();
        if self.held.is_none() {
            // This process added nothing, but a former process's addresses must still go.
            for e in self.release().await {
                error!(instance = name, epoch, "cannot release everything: {e}");
            }
            self.cluster.released(&name, epoch);
            return;
        }
        if handover && let Some(calls) = &self.calls {
            // Neither step may outlast the right, because another node may hold the addresses after it. The fence
            // closes before the addresses go, so that the server is silent once the next master may speak.
            let cluster = self.cluster.clone();
            let prepare = async {
                calls.flush().await;
                calls.fence().closed().await
            };
            tokio::select! {
                // The release retries a failed step and reports it.
                _ = prepare => {}
                () = until_lost(&cluster, &name, epoch) => {
                    warn!(instance = name, "the hold ended before the calls were handed over");
                }
            }
        }
        self.announcing = None;
        let mut errors = self.close_fence().await;
        // The other node may take the addresses once this host stops answering for them. It need not wait for the
        // remaining steps, unless the kernel did not confirm the silence.
        let silent = self
            .lease
            .as_ref()
            .is_some_and(|lease| if handover { lease.let_go(epoch).is_ok() } else { lease.is_silent() });
        if silent {
            self.cluster.released(&name, epoch);
        }
        errors.extend(self.release().await);
        if !silent {
            self.cluster.released(&name, epoch);
        }
        for e in errors {
            error!(instance = name, epoch, "cannot release everything: {e}");
        }
        info!(instance = name, epoch, reason, "backup: the addresses are off this host");
        if let Some(calls) = &self.calls {
            calls.drop_role();
        }
        self.hooks.run(self.config.hooks.on_backup.as_ref(), environment("backup", epoch));
    }

    /// Removes the addresses and closes the fence at the same time. A failure does not stop the other step.
    async fn release(&mut self) -> Vec<String> {
        self.announcing = None;
        self.held = None;
        self.conflicts.dropped();
        (self.put_back_at, self.absent) = (None, None);
        self.refresh_at = Time::FAR;
        let removal = self.addresses.remove(&self.config.interface, &self.config.addresses);
        let (removed, mut errors) = tokio::join!(removal, self.close_fence());
        if let Err(e) = removed {
            errors.push(e.to_string());
        }
        errors
    }

    /// Closes the fence if it is not closed.
    async fn close_fence(&self) -> Vec<String> {
        let Some(calls) = &self.calls else { return Vec::new() };
        if calls.fence().state().await == FenceState::Closed {
            return Vec::new();
        }
        calls.fence().closed().await.err().map(|e| e.to_string()).into_iter().collect()
    }

    async fn stop(&mut self) -> Vec<String> {
        // The election is over, so end here any hold that it could not end.
        let ended = self.lease.as_ref().map_or(Ok(()), |lease| lease.end());
        let mut errors = self.release().await;
        errors.extend(ended.err().map(|e| e.to_string()));
        if let Some(calls) = &self.calls {
            errors.extend(calls.stop().await);
        }
        // Last: without `promote_secondaries` the removal of one address may take others along.
        errors.extend(kernel_settings::put_back(&self.router, &self.config.name).await);
        errors
    }

    fn announce(&self) -> (Announced, Announcing) {
        let (cluster, name, held) = (self.cluster.clone(), self.config.name.clone(), self.held);
        self.announcer
            .start_while(pace(&self.config.announce), move || held.is_some_and(|epoch| cluster.holds(&name, epoch)))
    }

    fn announce_again(&mut self) {
        let (announced, announcing) = self.announce();
        for e in &announced.errors {
            warn!(instance = self.config.name, "cannot send an announcement: {e}");
        }
        self.announcing = Some(announcing);
    }
}

/// Returns when this node no longer holds the instance. It polls often, because each heartbeat moves the end of the
/// right.
async fn until_lost(cluster: &Cluster, instance: &str, epoch: u64) {
    while cluster.holds(instance, epoch) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

const fn pace(config: &config::Announce) -> Pace {
    Pace { burst: config.burst, interval: config.interval, refreshes: config.refreshes }
}

fn environment(role: &str, epoch: u64) -> Vec<(&'static str, String)> {
    vec![("KEEPCALL_ROLE", role.to_owned()), ("KEEPCALL_EPOCH", epoch.to_string())]
}

/// The cause as one word for history.
const fn word(cause: &Cause) -> &'static str {
    match cause {
        Cause::First => "first",
        Cause::Fast => "fast",
        Cause::Slow => "slow",
        Cause::Handover { .. } => "handover",
        Cause::Resumed => "resumed",
        Cause::Restarted => "restarted",
    }
}

fn reason(cause: &Cause) -> String {
    match cause {
        Cause::First => "there was no master".to_owned(),
        Cause::Fast => "the master was silent for the whole hold".to_owned(),
        Cause::Slow => "the master's lease in etcd expired".to_owned(),
        Cause::Handover { reason } => reason.clone(),
        Cause::Resumed => "this node was already the master".to_owned(),
        Cause::Restarted => "the agent was restarted during its hold".to_owned(),
    }
}
