//! Opens what one instance needs, in the order that `readiness.rs` names, until all of it is there; then the instance runs. The other
//! instances of this agent are not disturbed, and this one is not elected meanwhile.

use super::{Instance, Order, Summary};
use crate::agent::calls_part::CallsPart;
use crate::agent::calls_setup::Setup;
use crate::agent::footing::Footing;
use crate::agent::part::{Beats, Parts};
use crate::agent::readiness::Waiting;
use crate::agent::{AgentError, history, hooks, mode};
use crate::clock;
use crate::cluster::{Cluster, Fitness};
use crate::config::{self, Config};
use crate::etcd::Etcd;
use crate::health::Monitor;
use crate::time::Time;
use crate::vip::address::Addresses;
use crate::vip::announce::Announcer;
use crate::vip::conflict::watch::ConflictWatch;
use crate::vip::kernel_lease::KernelLease;
use crate::vip::sysctl;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

/// After a restart the server lives, and what its predecessor let go of is there in a moment: that alone moves no address.
const RESTARTED: Duration = Duration::from_secs(1);

/// An instance that does not run yet.
pub(in crate::agent) struct Starting {
    pub(in crate::agent) config: Arc<Config>,
    pub(in crate::agent) instance: config::Instance,
    pub(in crate::agent) cluster: Cluster,
    pub(in crate::agent) etcd: Etcd,
    pub(in crate::agent) addresses: Arc<Addresses>,
    pub(in crate::agent) lease: Option<Arc<KernelLease>>,
    /// How far the agent may go with its calls; `None` if it has none.
    pub(in crate::agent) mode: Option<watch::Receiver<mode::Picture>>,
    /// What may fail without the rest, and who looks after it.
    pub(in crate::agent) parts: Parts,
    pub(in crate::agent) beats: Beats,
    /// A process before this one held the addresses, and its right still ran when this one began.
    pub(in crate::agent) inherited: bool,
}

impl Starting {
    /// Runs until the instance has ended. `tried`: told after the first try, whatever came of it.
    pub(in crate::agent) async fn run(self, mut orders: mpsc::Receiver<Order>, tried: oneshot::Sender<()>) {
        let mut tried = Some(tried);
        let mut waiting = Waiting::default();
        // The order to take, if it came before everything was there: of a right that a process before this one left.
        let mut take = None;
        let instance = loop {
            match self.open().await {
                Ok(instance) => break instance,
                Err(e) => self.lacks(&e.to_string(), &mut waiting),
            }
            // Nobody may be waiting any more.
            let _ = tried.take().map(|tried| tried.send(()));
            loop {
                tokio::select! {
                    biased;
                    order = orders.recv() => match order {
                        Some(order @ Order::Take { .. }) => take = Some(order),
                        Some(Order::Drop { epoch, .. }) => {
                            take = None;
                            self.release(Some(epoch)).await;
                            self.cluster.released(&self.instance.name, epoch);
                        }
                        Some(Order::Summary(reply)) => {
                            let not_ready = waiting.why().map(str::to_owned);
                            let _ = reply.send(Summary { not_ready, ..Summary::default() });
                        }
                        Some(Order::Calls(reply)) => drop(reply.send(Vec::new())),
                        Some(Order::Park(done)) => {
                            let _ = done.send(());
                            return;
                        }
                        Some(Order::Stop(done)) => {
                            let _ = done.send(self.release(None).await);
                            return;
                        }
                        None => return,
                    },
                    () = tokio::time::sleep_until(clock::tokio_at(waiting.next())) => break,
                }
            }
        };
        if waiting.why().is_some() {
            info!(instance = self.instance.name, "ready: everything that was missing is there");
        }
        let _ = tried.take().map(|tried| tried.send(()));
        instance.run(take, orders).await;
    }

    fn lacks(&self, why: &str, waiting: &mut Waiting) {
        let (name, now) = (&self.instance.name, clock::now());
        if waiting.failed(why, now) {
            warn!(instance = name, "not ready, and not elected until it is; trying again: {why}");
        }
        if !self.inherited || waiting.lasts(now) > RESTARTED {
            let summary = format!("not ready: {why}");
            self.cluster.set_fitness(name, Fitness { fit: false, priority: self.config.node.priority, summary });
        }
    }

    /// Ends what a process before this one left: the host no longer answers, then the addresses go.
    async fn release(&self, epoch: Option<u64>) -> Vec<String> {
        let ended =
            self.lease.as_ref().filter(|lease| lease.enforcement().is_some()).map_or(Ok(()), |lease| match epoch {
                Some(epoch) => lease.let_go(epoch),
                None => lease.end(),
            });
        let removed = self.addresses.remove(&self.instance.interface, &self.instance.addresses).await;
        let errors: Vec<String> =
            ended.err().map(|e| e.to_string()).into_iter().chain(removed.err().map(|e| e.to_string())).collect();
        for e in &errors {
            error!(instance = self.instance.name, "release is not complete: {e}");
        }
        errors
    }

    async fn open(&self) -> Result<Instance, AgentError> {
        let (it, name) = (&self.instance, self.instance.name.clone());
        let ips: Vec<IpAddr> = it.addresses.iter().map(ipnet::IpNet::addr).collect();
        if let Some(lease) = self.lease.as_ref().filter(|lease| lease.enforcement().is_none()) {
            let error = |source| AgentError::Lease { instance: name.clone(), source };
            // This process holds nothing: what was left was not there to be seen when its election began.
            if lease.install().await.map_err(error)?.left.is_some() {
                lease.end().map_err(error)?;
            }
        }
        if !self.inherited {
            self.remove_left(&ips).await.map_err(|source| AgentError::Address { instance: name.clone(), source })?;
        }
        let watched: Vec<_> = it.addresses.iter().map(|p| (it.interface.clone(), *p)).collect();
        let monitor =
            self.addresses.watch(&watched).map_err(|source| AgentError::Address { instance: name.clone(), source })?;
        let announcer = Announcer::open(&it.interface, &ips)
            .map_err(|source| AgentError::Announce { instance: name.clone(), source })?;
        let conflicts = ConflictWatch::open(&it.interface, &ips)
            .map_err(|source| AgentError::Neighbours { instance: name.clone(), source })?;
        let history = history::Writer::start(self.etcd.clone(), &self.config.node.cluster, &name);
        let calls = match (&it.sip, &self.mode) {
            (Some(sip), Some(modes)) => {
                let footing = Footing::open(&self.config, it, sip, self.inherited)
                    .await
                    .map_err(|source| AgentError::Calls { instance: name.clone(), source })?;
                let setup = Setup {
                    node: self.config.node.clone(),
                    instance: it.clone(),
                    sip: sip.clone(),
                    etcd: self.etcd.clone(),
                    modes: modes.clone(),
                    history: history.clone(),
                    footing: Arc::new(footing),
                    inherited: self.inherited,
                };
                Some(CallsPart::start(setup, &self.parts, self.beats.clone()))
            }
            _ => None,
        };
        set_kernel(it);
        if it.sip.is_some() {
            match sysctl::forward_drops().await {
                Ok(chains) => chains.iter().for_each(|chain| warn!(instance = name, "{chain}")),
                Err(e) => warn!(instance = name, "it is not known whether others drop forwarded audio: {e}"),
            }
        }
        Ok(Instance {
            verdict: Monitor::start(&it.checks),
            config: it.clone(),
            node: self.config.node.clone(),
            cluster: self.cluster.clone(),
            addresses: Arc::clone(&self.addresses),
            announcer: Arc::new(announcer),
            monitor,
            conflicts,
            calls,
            hooks: hooks::Hooks::start(name.clone()),
            history,
            lease: self.lease.clone(),
            missing: None,
            restarted: self.inherited,
            held: None,
            refresh_at: Time::FAR,
            announcing: None,
            put_back: None,
            put_back_at: None,
            absent: None,
        })
    }

    /// Nothing may answer for an address without a right.
    async fn remove_left(&self, ips: &[IpAddr]) -> Result<(), crate::vip::address::AddressError> {
        let left = self.addresses.present(&self.instance.interface, ips).await?;
        for prefix in &left {
            let instance = &self.instance.name;
            warn!(instance, %prefix, "removing the virtual address: it is here although no agent holds it");
        }
        self.addresses.remove(&self.instance.interface, &left).await
    }
}

/// Brings about the kernel's settings that an instance needs on its interface, which has them anew each time it comes.
pub(in crate::agent) fn set_kernel(instance: &config::Instance) {
    let name = &instance.name;
    let mut prepared = vec![sysctl::for_address(&instance.interface)];
    if instance.sip.is_some() {
        prepared.push(sysctl::for_relay(&instance.interface));
    }
    for done in prepared {
        for change in done.changes {
            info!(instance = name, "set {} from {} to {}", change.name, change.from, change.to);
        }
        for warning in done.warnings {
            warn!(instance = name, "{warning}");
        }
        for e in done.errors {
            warn!(instance = name, "{e}");
        }
    }
}
