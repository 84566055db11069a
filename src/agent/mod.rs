//! The agent: starts every room, hands each instance what concerns it, and leaves in order.
//!
//! Tasks: this one (cluster events, signals); one for each instance (`instance.rs`), which owns its addresses; the drivers' own tasks.
//! The calls of an instance and the command line have threads of their own, and may fail (`part.rs`).
//! All of them end with the process; only an instance has something to undo, and it
//! is asked to before this returns.

mod call_view;
mod calls;
mod calls_error;
mod calls_part;
mod calls_setup;
mod control_part;
mod footing;
mod ground;
mod history;
mod hooks;
mod instance;
mod keeper;
mod mode;
mod not_learnt;
mod part;
mod pause;
mod readiness;
mod relay;
mod requests;
mod restart;
mod rivals;
mod sampler;
mod sockets;
mod sys;
mod takeover;
mod tap;

pub use calls_error::CallsError;
pub use sockets::RecoveryPortError;

use crate::clock;
use crate::cluster::{Cluster, ClusterError, ClusterEvent, Opened};
use crate::config::{Config, ConfigError, Problem};
use crate::control::server::{self, Asked, ServeError};
use crate::etcd::{Etcd, EtcdError};
use crate::vip::address::{AddressError, Addresses};
use crate::vip::announce::AnnounceError;
use crate::vip::kernel_lease::KernelLeaseError;
use instance::Order;
use instance::starting::Starting;
use keeper::Leases;
use part::{Beats, Parts};
use readiness::Waiting;
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

/// How long the start waits for the first try of every instance. nftables alone may take ten seconds, when it hangs.
const FIRST_TRY: Duration = Duration::from_secs(10);

/// Why the agent could not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file that the configuration names is not there, or not usable.
    #[error("{0}")]
    Files(String),
    /// etcd's settings cannot be used.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// The election cannot start.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The control socket cannot be opened.
    #[error(transparent)]
    Control(#[from] ServeError),
    /// No addresses can be managed.
    #[error(transparent)]
    Addresses(AddressError),
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
    /// What the neighbours say of the addresses of an instance cannot be heard.
    #[error("instance {instance:?}: cannot hear ARP and neighbour discovery: {source}; the agent needs CAP_NET_RAW")]
    Neighbours {
        /// The instance.
        instance: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The election has ended although nobody asked it to.
    #[error("the election has ended, and nothing may be held without it; see the log before this")]
    ElectionEnded,
    /// The calls of an instance cannot be learnt or kept.
    #[error("instance {instance:?}: {source}")]
    Calls {
        /// The instance.
        instance: String,
        /// What went wrong.
        source: CallsError,
    },
    /// The control socket cannot be served.
    #[error("cannot serve the control socket: {0}")]
    Socket(#[source] std::io::Error),
    /// Nothing can look after the parts that may fail.
    #[error(
        "cannot start the watchdog's thread: {0}; see the limits of processes and memory (`ulimit -a`, `TasksMax=`)"
    )]
    Watchdog(#[source] std::io::Error),
    /// The process cannot listen to signals.
    #[error("cannot listen to signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// The control socket, and what is asked there.
type Control = (server::Socket, server::Serving, mpsc::Receiver<Asked>);

/// The orders' ends of the instances, by name.
type Instances = BTreeMap<String, mpsc::Sender<Order>>;
/// What is known of the modes of the instances that have calls, by name.
type Modes = BTreeMap<String, watch::Receiver<mode::Picture>>;

/// Runs the agent until SIGTERM or SIGINT, or, with the addresses left for the next process, until SIGUSR2. `files`: whether the files
/// that the configuration names are usable now.
///
/// # Errors
/// See [`AgentError`]: what no waiting helps against. What is missing on this host, or in etcd, is tried again.
pub async fn run(config: Config, files: impl Fn() -> Result<(), ConfigError> + Send + Sync) -> Result<(), AgentError> {
    sys::one_heap();
    part::listen_to_panics();
    // Reading it may take a while on a cold disk: better now than at a takeover.
    if let Err(e) = sys::lock_memory().and_then(|()| sys::load_program()) {
        warn!(
            "memory is not locked ({e}): on a host that swaps, the address may move; give the agent CAP_IPC_LOCK (the systemd unit does)"
        );
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::Signals)?;
    let mut restart_signal = signal(SignalKind::user_defined2()).map_err(AgentError::Signals)?;
    // Without a handler SIGHUP kills the process, and with it the calls that it carries.
    let mut hang_up = signal(SignalKind::hangup()).map_err(AgentError::Signals)?;

    // Until all that the node needs is there, nothing is touched.
    let mut control = None;
    let mut waiting = Waiting::default();
    let (etcd, opened) = loop {
        match open(&config, &files, &mut control).await {
            Ok(had) => break had,
            Err(e) => {
                if waiting.failed(&e.to_string(), clock::now()) {
                    warn!("not ready, trying again: {e}");
                }
            }
        }
        // systemd waits for no longer than a minute and a half, and would begin anew.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        let again = clock::tokio_at(waiting.next());
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = restart_signal.recv() => return Ok(()),
                _ = hang_up.recv() => {}
                (request, reply) = asked(control.as_mut()) => drop(reply.send(requests::not_ready(&config, &request, &waiting))),
                () = tokio::time::sleep_until(again) => break,
            }
        }
    };
    let Some((socket, serving, requests)) = control else { return Ok(()) };
    // From here on a part of its own serves it.
    drop((serving, requests));
    let socket = Arc::new(socket);
    // The kernel's tables come before all else, and leave what is held as it is: an agent that runs is not disturbed, and what a
    // predecessor held is known before the election begins.
    let (leases, inherited) = Leases::install(&config).await;
    let found = inherited.clone();
    let started = opened.start(&config, etcd.clone(), Box::new(leases.clone()), inherited, false).await;
    let (cluster, mut events) = match started {
        Ok(started) => started,
        Err(e) => {
            leases.undo().await;
            return Err(e.into());
        }
    };
    // Not what ran out before the election looked at it: of that it says nothing more.
    let now = clock::now();
    let kept: BTreeSet<String> =
        found.into_iter().filter(|(_, right)| right.until > now).map(|(name, _)| name).collect();
    let mut instances = Instances::new();
    let modes = follow_modes(&config, &etcd);
    let (parts, beats) = (Parts::default(), Beats::default());
    let of_election = cluster.clone();
    part::watch(beats.clone(), move || of_election.rounds()).map_err(AgentError::Watchdog)?;
    let mut tasks = Vec::new();
    let addresses = match open_addresses(&config, &kept).await {
        Ok(addresses) => addresses,
        Err(source) => {
            // What was set up before the failure is undone, and etcd forgets this node at once.
            leave(&config, None, cluster, events, instances).await;
            match Addresses::open() {
                Ok(addresses) => leases.remove(&config, &addresses).await,
                Err(e) => warn!("the tables of nftables stay: {e}"),
            }
            return Err(AgentError::Addresses(source));
        }
    };
    let shared = Arc::new(config.clone());
    let mut tried = Vec::new();
    for instance in &config.instances {
        let (orders, queue) = mpsc::channel(ORDERS);
        let starting = Starting {
            config: Arc::clone(&shared),
            instance: instance.clone(),
            cluster: cluster.clone(),
            etcd: etcd.clone(),
            addresses: Arc::clone(&addresses),
            lease: leases.of(&instance.name),
            mode: modes.get(&instance.name).cloned(),
            parts: parts.clone(),
            beats: beats.clone(),
            inherited: kept.contains(&instance.name),
        };
        let (tell, told) = oneshot::channel();
        tasks.push(tokio::spawn(starting.run(queue, tell)));
        tried.push(told);
        instances.insert(instance.name.clone(), orders);
    }
    // One that hangs must not keep the others from being told what the election says.
    let _ = tokio::time::timeout(FIRST_TRY, futures::future::join_all(tried)).await;
    // Ended when it is dropped: these have nothing to undo.
    let mut tasks_of_agent = tokio::task::JoinSet::new();
    let answers =
        requests::Answers::new(&config, cluster.clone(), etcd.clone(), instances.clone(), modes, parts.clone());
    tasks_of_agent.spawn(watched(control_part::start(Arc::clone(&socket), answers.clone(), &parts, beats.clone())));
    tasks_of_agent.spawn(leases.clone().mend());
    let (cluster_name, node_name) = (config.node.cluster.clone(), config.node.name.clone());
    tasks_of_agent.spawn(history::note_changes(etcd.clone(), cluster.clone(), cluster_name, node_name));
    for instance in instances.keys() {
        let served =
            requests::forwarded::serve(etcd.clone(), config.node.cluster.clone(), instance.clone(), answers.clone());
        tasks_of_agent.spawn(served);
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    info!(node = config.node.name, cluster = config.node.cluster, "keepcall {} is up", env!("CARGO_PKG_VERSION"));

    // While systemd is asked whether this is a restart, everything goes on.
    let mut asked: Option<JoinHandle<bool>> = None;
    let mut election_ended = false;
    let restart = loop {
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Some(event) => pass_on(&config, Some(&addresses), &instances, event).await,
                None => {
                    election_ended = true;
                    break false;
                }
            },
            answer = answered(asked.as_mut()) => break answer,
            _ = terminate.recv() => {
                asked.get_or_insert_with(|| tokio::spawn(restart::is_asked_for()));
            }
            _ = interrupt.recv() => break false,
            _ = restart_signal.recv() => break true,
            _ = hang_up.recv() => {
                warn!("SIGHUP is ignored: the configuration is read at the start only; restart the agent to use a new one");
            }
        }
    };
    if restart {
        info!("this is a restart: the addresses stay, for the next process to take up");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        restart::park(&config, &addresses, cluster, events, instances).await;
        socket.close();
        return Ok(());
    }

    info!("stopping: handing over, then releasing the addresses");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    leave(&config, Some(&addresses), cluster, events, instances).await;
    // Nobody may put back what is removed now.
    tasks_of_agent.shutdown().await;
    leases.remove(&config, &addresses).await;
    socket.close();
    for task in tasks {
        let _ = tokio::time::timeout(Duration::from_secs(1), task).await;
    }
    if election_ended { Err(AgentError::ElectionEnded) } else { Ok(()) }
}

/// What must be there before anything of this host is touched. The control socket and the heartbeat port are what only one agent can
/// have: an agent that is started a second time by mistake must not take the addresses from the one that holds them. The control
/// socket, once it was had, is kept.
async fn open(
    config: &Config,
    files: &(impl Fn() -> Result<(), ConfigError> + Sync),
    control: &mut Option<Control>,
) -> Result<(Etcd, Opened), AgentError> {
    if control.is_none() {
        let socket = server::open(&config.control).await?;
        let (serving, requests) = socket.serve().map_err(AgentError::Socket)?;
        *control = Some((socket, serving, requests));
    }
    files().map_err(|e| AgentError::Files(in_words(&e)))?;
    Ok((Etcd::connect(&config.etcd)?, Opened::open(config)?))
}

/// The problems alone, without their places in the file.
fn in_words(error: &ConfigError) -> String {
    let ConfigError::Invalid { problems, .. } = error else { return error.to_string() };
    let one = |p: &Problem| p.help.as_ref().map_or_else(|| p.message.clone(), |help| format!("{}: {help}", p.message));
    problems.iter().map(one).collect::<Vec<_>>().join("; ")
}

async fn asked(control: Option<&mut Control>) -> Asked {
    if let Some((.., requests)) = control
        && let Some(asked) = requests.recv().await
    {
        return asked;
    }
    std::future::pending().await
}

/// Waits for a part's supervisor, and ends it when it is no longer waited for.
async fn watched(supervisor: JoinHandle<()>) {
    let _ = tokio_util::task::AbortOnDropHandle::new(supervisor).await;
}

/// The answer of a task, once one was started.
async fn answered(task: Option<&mut JoinHandle<bool>>) -> bool {
    match task {
        Some(task) => task.await.unwrap_or(false),
        None => std::future::pending().await,
    }
}

/// Opens the address driver and removes what a dead predecessor left on interfaces or for instances that are no longer configured. What
/// is held still, by the instances in `kept`, stays; of the others each sees to its own.
async fn open_addresses(config: &Config, kept: &BTreeSet<String>) -> Result<Arc<Addresses>, AddressError> {
    let addresses = Addresses::open()?;
    let held = config.instances.iter().filter(|i| kept.contains(&i.name));
    let keep: Vec<_> = held.flat_map(|i| i.addresses.iter().map(|a| (i.interface.as_str(), *a))).collect();
    for (interface, prefix) in addresses.remove_stale(&keep).await? {
        warn!(interface, %prefix, "removed an address that a keepcall before this one left behind");
    }
    Ok(Arc::new(addresses))
}

/// Begins to follow the mode of each instance that has calls.
fn follow_modes(config: &Config, etcd: &Etcd) -> Modes {
    let node = &config.node;
    let with_calls = config.instances.iter().filter(|i| i.sip.is_some());
    with_calls
        .map(|i| (i.name.clone(), mode::follow(etcd.clone(), &node.cluster, &i.name, &node.name, i.mode)))
        .collect()
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
