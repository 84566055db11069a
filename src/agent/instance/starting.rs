//! Opens everything that one instance needs, in the order of `readiness.rs`, and retries until it succeeds. Then the
//! instance runs. Until then the instance is not elected, and the agent's other instances are not disturbed.

use super::{Instance, Order, Summary};
use crate::agent::calls_part::CallsPart;
use crate::agent::calls_setup::Setup;
use crate::agent::footing::Footing;
use crate::agent::obstacles::Obstacles;
use crate::agent::part::{Beats, Parts};
use crate::agent::readiness::Waiting;
use crate::agent::{AgentError, history, hooks, kernel_settings, mode};
use crate::cluster::{Cluster, Fitness};
use crate::config::{self, Config};
use crate::etcd::Etcd;
use crate::health::Monitor;
use crate::os::clock;
use crate::time::Time;
use crate::vip::address::Addresses;
use crate::vip::announce::Announcer;
use crate::vip::conflict::watch::ConflictWatch;
use crate::vip::kernel_lease::KernelLease;
use crate::vip::router::Router;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

/// Grace after a restart. The server still runs, and the predecessor releases its resources in a moment, so this delay
/// alone must not move an address.
const RESTARTED: Duration = Duration::from_secs(1);

/// An instance before its start.
pub(in crate::agent) struct Starting {
    pub(in crate::agent) config: Arc<Config>,
    pub(in crate::agent) instance: config::Instance,
    pub(in crate::agent) cluster: Cluster,
    pub(in crate::agent) etcd: Etcd,
    pub(in crate::agent) addresses: Arc<Addresses>,
    pub(in crate::agent) lease: Option<Arc<KernelLease>>,
    pub(in crate::agent) router: Arc<Router>,
    /// The mode for its calls; `None` for an instance without calls.
    pub(in crate::agent) mode: Option<watch::Receiver<mode::Picture>>,
    /// The parts that may fail on their own, and their watchdog.
    pub(in crate::agent) parts: Parts,
    pub(in crate::agent) beats: Beats,
    /// A former process held the addresses, and its right was still valid when this process started.
    pub(in crate::agent) inherited: bool,
}

impl Starting {
    /// Runs until the instance has ended. `tried` fires after the first try, whatever its result.
    pub(in crate::agent) async fn run(self, mut orders: mpsc::Receiver<Order>, tried: oneshot::Sender<()>) {
        let mut tried = Some(tried);
        let mut waiting = Waiting::default();
        // A take order that came before the instance was ready, for a right that a former process left.
        let mut take = None;
        let instance = loop {
            match self.open().await {
                Ok(instance) => break instance,
                Err(e) => self.lacks(&e.to_string(), &mut waiting),
            }
            // The receiver may have given up waiting.
            let _ = tried.take().map(|tried| tried.send(()));
            loop {
                tokio::select! {
                    biased;
                    order = orders.recv() => match order {
                        Some(order @ Order::Take(_)) => take = Some(order),
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
                            let mut errors = self.release(None).await;
                            errors.extend(kernel_settings::put_back(&self.router, &self.instance.name).await);
                            let _ = done.send(errors);
                            return;
                        }
                        None => return,
                    },
                    () = tokio::time::sleep_until(clock::tokio_at(waiting.next())) => break,
                }
            }
        };
        if waiting.why().is_some() {
            info!(instance = self.instance.name, "ready: nothing is missing any more");
        }
        let _ = tried.take().map(|tried| tried.send(()));
        instance.run(take, orders).await;
    }

    fn lacks(&self, why: &str, waiting: &mut Waiting) {
        let (name, now) = (&self.instance.name, clock::now());
        if waiting.failed(why, now) {
            warn!(instance = name, "not ready, and not elected until ready; retrying: {why}");
        }
        if !self.inherited || waiting.lasts(now) > RESTARTED {
            let summary = format!("not ready: {why}");
            self.cluster.set_fitness(name, Fitness { fit: false, priority: self.config.node.priority, summary });
        }
    }

    /// Ends a former process's hold: first the host stops answering, then the addresses go.
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
            error!(instance = self.instance.name, "cannot release everything: {e}");
        }
        errors
    }

    async fn open(&self) -> Result<Instance, AgentError> {
        let (it, name) = (&self.instance, self.instance.name.clone());
        let ips: Vec<IpAddr> = it.addresses.iter().map(ipnet::IpNet::addr).collect();
        if let Some(lease) = self.lease.as_ref().filter(|lease| lease.enforcement().is_none()) {
            let error = |source| AgentError::Lease { instance: name.clone(), source };
            // The hold appeared too late for this process's election, so this process has no right to it.
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
                    cluster: self.cluster.clone(),
                    modes: modes.clone(),
                    history: history.clone(),
                    footing: Arc::new(footing),
                    inherited: self.inherited,
                };
                Some(CallsPart::start(setup, &self.parts, self.beats.clone()))
            }
            _ => None,
        };
        kernel_settings::set(&self.router, it).await;
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
            obstacles: it.sip.as_ref().map(|_| Obstacles::watch(it)),
            router: Arc::clone(&self.router),
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

    /// Removes leftover addresses: no host may answer for an address without a right.
    async fn remove_left(&self, ips: &[IpAddr]) -> Result<(), crate::vip::address::AddressError> {
        let left = self.addresses.present(&self.instance.interface, ips).await?;
        for prefix in &left {
            let instance = &self.instance.name;
            warn!(instance, %prefix, "removing a virtual address that no agent on this host holds");
        }
        self.addresses.remove(&self.instance.interface, &left).await
    }
}
