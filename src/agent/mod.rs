//! The agent: starts every room, hands each instance what concerns it, and leaves in order.
//!
//! Tasks: this one (cluster events, the command line's requests, signals); one for each instance (`instance.rs`), which owns
//! everything of it; the drivers' own tasks. All of them end with the process; only an instance has something to undo, and it
//! is asked to before this returns.

mod answers;
mod calls_side;
mod ears;
mod history;
mod hooks;
mod instance;
mod keeper;
mod mode;
mod pause;
mod relay;
mod restart;
mod rows;
mod sampler;
mod sockets;
mod sys;
mod takeover;
mod wishes;

pub use calls_side::CallsError;
pub use sockets::RecoveryPortError;

use crate::clock;
use crate::cluster::{Cluster, ClusterError, ClusterEvent};
use crate::config::Config;
use crate::control::server::{self, ServeError};
use crate::etcd::{Etcd, EtcdError};
use crate::health::Monitor;
use crate::time::Time;
use crate::vip::address::{AddressError, AddressMonitor, Addresses};
use crate::vip::announce::{AnnounceError, Announcer};
use crate::vip::kernel_lease::KernelLeaseError;
use crate::vip::sysctl;
use calls_side::CallsSide;
use instance::{Instance, Order};
use keeper::Leases;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

/// Orders that may wait for an instance: far more than the election gives in the time that an instance needs for one.
const ORDERS: usize = 64;
/// How long a clean stop may take in all: a handover, then a hold until the node's own key may go.
const STOP: Duration = Duration::from_secs(10);

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// etcd's settings cannot be used.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// The election cannot start.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The control socket cannot be opened.
    #[error(transparent)]
    Control(#[from] ServeError),
    /// The addresses of an instance cannot be managed.
    #[error("instance {instance:?}: {source}")]
    Address {
        /// The instance.
        instance: String,
        /// What went wrong.
        source: AddressError,
    },
    /// The kernel cannot be made to keep this host from answering without a right.
    #[error("instance {instance:?}: {source}")]
    Lease {
        /// The instance.
        instance: String,
        /// What went wrong.
        source: KernelLeaseError,
    },
    /// The addresses of an instance cannot be announced.
    #[error("instance {instance:?}: {source}")]
    Announce {
        /// The instance.
        instance: String,
        /// What went wrong.
        source: AnnounceError,
    },
    /// The calls of an instance cannot be learnt or kept.
    #[error("instance {instance:?}: {source}")]
    Calls {
        /// The instance.
        instance: String,
        /// What went wrong.
        source: CallsError,
    },
    /// The process cannot listen to signals.
    #[error("cannot listen to signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// The orders' ends of the instances, by name.
type Instances = BTreeMap<String, mpsc::Sender<Order>>;
/// What is known of the modes of the instances that have calls, by name.
type Modes = BTreeMap<String, watch::Receiver<mode::Picture>>;

/// Runs the agent until SIGTERM or SIGINT, or, with the addresses left for the next process, until SIGUSR2.
///
/// # Errors
/// See [`AgentError`]: only what can be known at the start. etcd that does not answer is no error; it is tried again.
pub async fn run(config: Config) -> Result<(), AgentError> {
    sys::one_heap();
    if let Err(e) = sys::lock_memory() {
        warn!(
            "memory is not locked ({e}): on a host that swaps, the address may move; give the agent CAP_IPC_LOCK (the systemd unit does)"
        );
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::Signals)?;
    let mut restart_signal = signal(SignalKind::user_defined2()).map_err(AgentError::Signals)?;
    // Without a handler SIGHUP kills the process, and with it the calls that it carries.
    let mut hang_up = signal(SignalKind::hangup()).map_err(AgentError::Signals)?;

    let etcd = Etcd::connect(&config.etcd)?;
    // The control socket and the heartbeat port are what only one agent can have. They come before anything is touched: an
    // agent that is started a second time by mistake must not take the addresses from the one that holds them.
    let (socket, mut requests) = server::serve(&config.control).await?;
    // The kernel's tables come before all else, and leave what is held as it is: an agent that runs is not disturbed, and what a
    // predecessor held is known before the election begins.
    let (leases, inherited) = Leases::install(&config).await?;
    let found = inherited.clone();
    let (cluster, mut events) = match Cluster::start(&config, etcd.clone(), Box::new(leases.clone()), inherited).await {
        Ok(started) => started,
        Err(e) => {
            leases.undo().await;
            return Err(e.into());
        }
    };
    // Not what ran out before the election looked at it: of that it says nothing more.
    let now = clock::now();
    let kept: BTreeSet<String> = found.into_iter().filter(|(_, right)| right.until > now).map(|(name, _)| name).collect();
    let mut instances = Instances::new();
    let modes = follow_modes(&config, &etcd);
    let mut tasks = Vec::new();
    let built = async {
        let addresses = open_addresses(&config, &kept).await?;
        for instance in &config.instances {
            let (orders, queue) = mpsc::channel(ORDERS);
            let inherited = kept.contains(&instance.name);
            let built = build(&config, instance, &cluster, &etcd, &addresses, &leases, &modes, inherited).await?;
            tasks.push(tokio::spawn(built.run(queue)));
            instances.insert(instance.name.clone(), orders);
        }
        Ok::<_, AgentError>(addresses)
    };
    let addresses = match built.await {
        Ok(addresses) => addresses,
        Err(e) => {
            // What was set up before the failure is undone, and etcd forgets this node at once.
            leave(&config, None, cluster, events, instances).await;
            match Addresses::open() {
                Ok(addresses) => leases.remove(&config, &addresses).await,
                Err(e) => warn!("the tables of nftables stay: {e}"),
            }
            return Err(e);
        }
    };
    // Ended when it is dropped: these have nothing to undo.
    let mut tasks_of_agent = tokio::task::JoinSet::new();
    let answers = answers::Answers::new(&config, cluster.clone(), etcd.clone(), instances.clone(), modes);
    tasks_of_agent.spawn(leases.clone().mend());
    for instance in instances.keys() {
        let served = wishes::serve(etcd.clone(), config.node.cluster.clone(), instance.clone(), answers.clone());
        tasks_of_agent.spawn(served);
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    info!(node = config.node.name, cluster = config.node.cluster, "keepcall {} is up", env!("CARGO_PKG_VERSION"));

    // While systemd is asked whether this is a restart, everything goes on.
    let mut asked: Option<JoinHandle<bool>> = None;
    let restart = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => pass_on(&config, Some(&addresses), &instances, event).await,
            answer = answered(asked.as_mut()) => break answer,
            _ = terminate.recv() => {
                asked.get_or_insert_with(|| tokio::spawn(restart::is_asked_for()));
            }
            _ = interrupt.recv() => break false,
            _ = restart_signal.recv() => break true,
            _ = hang_up.recv() => {
                warn!("SIGHUP is ignored: the configuration is read at the start only; restart the agent to use a new one");
            }
            Some((request, reply)) = requests.recv() => answers.clone().answer(request, reply),
        }
    };
    if restart {
        info!("this is a restart: the addresses stay, for the next process to take up");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        restart::park(&config, &addresses, cluster, events, instances).await;
        drop(socket);
        return Ok(());
    }

    info!("stopping: handing over, then releasing the addresses");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    leave(&config, Some(&addresses), cluster, events, instances).await;
    // Nobody may put back what is removed now.
    tasks_of_agent.shutdown().await;
    leases.remove(&config, &addresses).await;
    drop(socket);
    for task in tasks {
        let _ = tokio::time::timeout(Duration::from_secs(1), task).await;
    }
    Ok(())
}

/// The answer of a task, once one was started.
async fn answered(task: Option<&mut JoinHandle<bool>>) -> bool {
    match task {
        Some(task) => task.await.unwrap_or(false),
        None => std::future::pending().await,
    }
}

/// Opens the address driver and removes what a dead predecessor left: nothing may answer for an address without a right. Those of
/// the instances in `kept` are held still.
async fn open_addresses(config: &Config, kept: &BTreeSet<String>) -> Result<Arc<Addresses>, AgentError> {
    let any = config.instances.first().map(|i| i.name.clone()).unwrap_or_default();
    let addresses = Addresses::open().map_err(|source| AgentError::Address { instance: any.clone(), source })?;
    let held = config.instances.iter().filter(|i| kept.contains(&i.name));
    let keep: Vec<_> = held.flat_map(|i| i.addresses.iter().map(|a| (i.interface.as_str(), *a))).collect();
    let stale = addresses.remove_stale(&keep).await.map_err(|source| AgentError::Address { instance: any, source })?;
    for (interface, prefix) in stale {
        warn!(interface, %prefix, "removed an address that a keepcall before this one left behind");
    }
    for instance in config.instances.iter().filter(|i| !kept.contains(&i.name)) {
        let error = |source| AgentError::Address { instance: instance.name.clone(), source };
        let ips: Vec<_> = instance.addresses.iter().map(ipnet::IpNet::addr).collect();
        let left = addresses.present(&instance.interface, &ips).await.map_err(error)?;
        for prefix in &left {
            warn!(instance = instance.name, %prefix, "removing the virtual address: it is here although no agent holds it");
        }
        addresses.remove(&instance.interface, &left).await.map_err(error)?;
    }
    Ok(Arc::new(addresses))
}

/// Begins to follow the mode of each instance that has calls.
fn follow_modes(config: &Config, etcd: &Etcd) -> Modes {
    let node = &config.node;
    let with_calls = config.instances.iter().filter(|i| i.sip.is_some());
    with_calls.map(|i| (i.name.clone(), mode::follow(etcd.clone(), &node.cluster, &i.name, &node.name, i.mode))).collect()
}

#[allow(clippy::too_many_arguments)] // what an instance is made of
async fn build(
    config: &Config,
    instance: &crate::config::Instance,
    cluster: &Cluster,
    etcd: &Etcd,
    addresses: &Arc<Addresses>,
    leases: &Leases,
    modes: &Modes,
    inherited: bool,
) -> Result<Instance, AgentError> {
    let name = instance.name.clone();
    let mut prepared = vec![sysctl::for_address(&instance.interface)];
    if instance.sip.is_some() {
        prepared.push(sysctl::for_relay(&instance.interface));
        match sysctl::forward_drops().await {
            Ok(chains) => chains.iter().for_each(|chain| warn!(instance = name, "{chain}")),
            Err(e) => warn!(instance = name, "it is not known whether others drop forwarded audio: {e}"),
        }
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
    let watched: Vec<_> = instance.addresses.iter().map(|p| (instance.interface.clone(), *p)).collect();
    let monitor = AddressMonitor::open(&watched).map_err(|source| AgentError::Address { instance: name.clone(), source })?;
    let ips: Vec<_> = instance.addresses.iter().map(ipnet::IpNet::addr).collect();
    let announcer =
        Announcer::open(&instance.interface, &ips).map_err(|source| AgentError::Announce { instance: name.clone(), source })?;
    let calls = match (&instance.sip, modes.get(&instance.name)) {
        (Some(sip), Some(mode)) => Some(
            CallsSide::open(config, instance, sip, etcd.clone(), mode.clone(), inherited)
                .await
                .map_err(|source| AgentError::Calls { instance: name.clone(), source })?,
        ),
        _ => None,
    };
    Ok(Instance {
        verdict: Monitor::start(&instance.checks),
        config: instance.clone(),
        node: config.node.clone(),
        cluster: cluster.clone(),
        addresses: Arc::clone(addresses),
        announcer: Arc::new(announcer),
        monitor,
        calls,
        hooks: hooks::Hooks::start(name.clone()),
        history: history::Writer::start(etcd.clone(), &config.node.cluster, &name),
        lease: leases.of(&name),
        restarted: inherited,
        held: None,
        refresh_at: Time::FAR,
        announcing: None,
        put_back: None,
        put_back_at: None,
    })
}

async fn pass_on(config: &Config, addresses: Option<&Addresses>, instances: &Instances, event: ClusterEvent) {
    // The end of a right does not wait for what the instance is doing: the addresses go now, and the order makes sure of it.
    if let ClusterEvent::Drop { instance, handover: false, .. } = &event
        && let Some(addresses) = addresses
        && let Some(it) = config.instances.iter().find(|i| i.name == *instance)
        && let Err(e) = addresses.remove(&it.interface, &it.addresses).await
    {
        error!(instance, "the addresses could not be removed at once: {e}");
    }
    let (instance, order) = match event {
        ClusterEvent::Take { instance, epoch, cause, previous, detected, committed } => {
            (instance, Order::Take { epoch, cause, previous, detected, committed })
        }
        ClusterEvent::Drop { instance, epoch, reason, handover } => (instance, Order::Drop { epoch, reason, handover }),
        ClusterEvent::Changed { .. } => return,
    };
    if let Some(orders) = instances.get(&instance)
        && orders.send(order).await.is_err()
    {
        error!(instance, "the instance's task is gone; the agent should be restarted");
    }
}

/// Hands over or releases: the addresses first, then the lease, then the own tables. Collects what fails and goes on.
async fn leave(
    config: &Config,
    addresses: Option<&Addresses>,
    cluster: Cluster,
    mut events: mpsc::Receiver<ClusterEvent>,
    instances: Instances,
) {
    let mut stopping = tokio::spawn(cluster.stop());
    let limit = tokio::time::sleep(STOP);
    tokio::pin!(limit);
    loop {
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Some(event) => pass_on(config, addresses, &instances, event).await,
                None => break,
            },
            stopped = &mut stopping => {
                if let Ok(Err(e)) = stopped {
                    warn!("leaving the cluster was not complete: {e}");
                }
                break;
            }
            () = &mut limit => {
                warn!("leaving the cluster took longer than {STOP:?}; going on without");
                break;
            }
        }
    }
    while let Ok(event) = events.try_recv() {
        pass_on(config, addresses, &instances, event).await;
    }
    for (name, orders) in instances {
        let (done, errors) = oneshot::channel();
        if orders.send(Order::Stop(done)).await.is_ok()
            && let Ok(errors) = errors.await
        {
            for e in errors {
                error!(instance = name, "not undone: {e}");
            }
        }
    }
}
