//! The agent: starts every module, routes events to the instances, and shuts down in order.
//!
//! Tasks: this task (cluster events, signals), one task per instance (`instance.rs`) with its addresses, and the
//! drivers' own tasks. The calls of an instance and the control socket have their own threads and may fail (`part.rs`).
//! All tasks end with the process. Only an instance has something to undo, and it does so before `run` returns.

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
mod kernel_leases;
mod kernel_settings;
mod mode;
mod not_learnt;
mod obstacles;
mod part;
mod pause;
mod readiness;
mod relay;
mod requests;
mod restart;
mod rivals;
mod sampler;
mod sockets;
mod takeover;
mod tap;

pub use calls_error::CallsError;
pub use sockets::RecoveryPortError;

use crate::cluster::{Cluster, ClusterError, ClusterEvent, ElectionResources};
use crate::config::{Config, ConfigError, Problem};
use crate::control::server::{self, Asked, ServeError};
use crate::etcd::{Etcd, EtcdError};
use crate::os::{clock, memory};
use crate::vip::address::{AddressError, Addresses};
use crate::vip::announce::AnnounceError;
use crate::vip::kernel_lease::KernelLeaseError;
use crate::vip::router::Router;
use instance::Order;
use instance::starting::Starting;
use kernel_leases::Leases;
use part::{Beats, Parts};
use readiness::Waiting;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

/// Orders that may wait for an instance: far more than the election sends while an instance handles one.
const ORDERS: usize = 64;
/// Time limit of a clean stop: a handover, then a hold until the node's own key may go.
const STOP: Duration = Duration::from_secs(10);

/// How long the start waits for the first try of every instance. A hung nftables alone may take ten seconds.
const FIRST_TRY: Duration = Duration::from_secs(10);

/// Why the agent could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file in the configuration is missing or unusable.
    #[error("{0}")]
    Files(String),
    /// The etcd settings are unusable.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// The election failed to start.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The control socket failed to open.
    #[error(transparent)]
    Control(#[from] ServeError),
    /// The address driver failed.
    #[error(transparent)]
    Addresses(AddressError),
    /// The addresses of an instance failed.
    #[error("instance {instance:?}: {source}")]
    Address {
        /// The instance.
        instance: String,
        /// The cause.
        source: AddressError,
    },
    /// The kernel lease of an instance failed, so this host might answer without a right.
    #[error("instance {instance:?}: {source}")]
    Lease {
        /// The instance.
        instance: String,
        /// The cause.
        source: KernelLeaseError,
    },
    /// Announcing an instance's addresses failed.
    #[error("instance {instance:?}: {source}")]
    Announce {
        /// The instance.
        instance: String,
        /// The cause.
        source: AnnounceError,
    },
    /// Listening to the neighbours of an instance failed.
    #[error(
        "instance {instance:?}: cannot listen to ARP and neighbour discovery: {source}; give the agent CAP_NET_RAW"
    )]
    Neighbours {
        /// The instance.
        instance: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The election has ended unexpectedly.
    #[error("the election has ended, and the agent holds no address without it; see the log lines above")]
    ElectionEnded,
    /// Learning or keeping an instance's calls failed.
    #[error("instance {instance:?}: {source}")]
    Calls {
        /// The instance.
        instance: String,
        /// The cause.
        source: CallsError,
    },
    /// Serving the control socket failed.
    #[error("cannot serve the control socket: {0}")]
    Socket(#[source] std::io::Error),
    /// The watchdog thread failed to start.
    #[error(
        "cannot start the watchdog thread: {0}; check the limits on processes and memory (`ulimit -a`, `TasksMax=`)"
    )]
    Watchdog(#[source] std::io::Error),
    /// Signal handling failed to start.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// The control socket and its requests.
type Control = (server::Socket, server::Serving, mpsc::Receiver<Asked>);

/// The instances' order channels, by name.
type Instances = BTreeMap<String, mpsc::Sender<Order>>;
/// The mode of each instance with calls, by name.
type Modes = BTreeMap<String, watch::Receiver<mode::Picture>>;

/// Runs the agent until SIGTERM or SIGINT. SIGUSR2 also ends it, but leaves the addresses for the next process. `files`
/// checks whether the files in the configuration are usable now.
///
/// # Errors
/// The permanent failures in [`AgentError`]. Anything missing on this host or in etcd is retried.
pub async fn run(config: Config, files: impl Fn() -> Result<(), ConfigError> + Send + Sync) -> Result<(), AgentError> {
    memory::one_heap();
    part::listen_to_panics();
    // Loading the program may take a while on a cold disk, so do it now and not during a takeover.
    if let Err(e) = memory::lock_memory().and_then(|()| memory::load_program()) {
        warn!(
            "cannot lock memory ({e}), so swapping may cause a takeover; give the agent CAP_IPC_LOCK (the systemd \
             unit does)"
        );
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::Signals)?;
    let mut restart_signal = signal(SignalKind::user_defined2()).map_err(AgentError::Signals)?;
    // Without a handler SIGHUP kills the process, and the calls it carries with it.
    let mut hang_up = signal(SignalKind::hangup()).map_err(AgentError::Signals)?;

    // Change nothing on this host until everything for this node is available.
    let mut control = None;
    let mut waiting = Waiting::default();
    let (etcd, opened) = loop {
        match open(&config, &files, &mut control).await {
            Ok(had) => break had,
            Err(e) => {
                if waiting.failed(&e.to_string(), clock::now()) {
                    warn!("not ready, retrying: {e}");
                }
            }
        }
        // systemd waits at most a minute and a half for READY, and would then start the agent anew.
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
    // From here on its own part serves the socket.
    drop((serving, requests));
    let socket = Arc::new(socket);
    // The kernel's tables come first and keep any hold in force. So a running agent is not disturbed, and the
    // predecessor's holds are known before the election begins.
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
    // Skip rights that ran out before the election started: the election will not report their end.
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
            // Undo everything set up before the failure, and make etcd forget this node at once.
            leave(&config, None, cluster, events, instances).await;
            match Addresses::open() {
                Ok(addresses) => leases.remove(&config, &addresses).await,
                Err(e) => warn!("cannot remove the nftables tables of the kernel lease: {e}"),
            }
            return Err(AgentError::Addresses(source));
        }
    };
    let (shared, router) = (Arc::new(config.clone()), Arc::new(Router::new(&config.node.cluster, &config.node.name)));
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
            router: Arc::clone(&router),
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
    // One hung instance must not keep the election's orders from the others.
    let _ = tokio::time::timeout(FIRST_TRY, futures::future::join_all(tried)).await;
    // Dropping the set ends these tasks; they have nothing to undo.
    let mut tasks_of_agent = tokio::task::JoinSet::new();
    let answers =
        requests::Answers::new(&config, cluster.clone(), etcd.clone(), instances.clone(), modes, parts.clone());
    tasks_of_agent.spawn(watched(control_part::start(Arc::clone(&socket), answers.clone(), &parts, beats.clone())));
    tasks_of_agent.spawn(leases.clone().mend());
    tasks_of_agent.spawn(async move { kernel_settings::keep(&router).await });
    let (cluster_name, node_name) = (config.node.cluster.clone(), config.node.name.clone());
    tasks_of_agent.spawn(history::note_changes(etcd.clone(), cluster.clone(), cluster_name, node_name));
    for instance in instances.keys() {
        let served =
            requests::forwarded::serve(etcd.clone(), config.node.cluster.clone(), instance.clone(), answers.clone());
        tasks_of_agent.spawn(served);
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    info!(node = config.node.name, cluster = config.node.cluster, "keepcall {} is up", env!("CARGO_PKG_VERSION"));

    // Everything continues while systemd answers whether this is a restart.
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
                warn!(
                    "SIGHUP is ignored: the agent reads the configuration only at its start; restart the agent to \
                     use a new configuration"
                );
            }
        }
    };
    if restart {
        info!("this is a restart: the addresses stay for the next process");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        restart::park(&config, &addresses, cluster, events, instances).await;
        socket.close();
        return Ok(());
    }

    info!("stopping: handing over, then removing the addresses");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    leave(&config, Some(&addresses), cluster, events, instances).await;
    // From here on no task may restore what is removed.
    tasks_of_agent.shutdown().await;
    leases.remove(&config, &addresses).await;
    socket.close();
    for task in tasks {
        let _ = tokio::time::timeout(Duration::from_secs(1), task).await;
    }
    if election_ended { Err(AgentError::ElectionEnded) } else { Ok(()) }
}

/// Opens everything that must exist before the agent changes this host. Only one agent can have the control socket and
/// the heartbeat port, so a second agent, started by mistake, cannot take the addresses from the first. Once open, the
/// control socket stays open.
async fn open(
    config: &Config,
    files: &(impl Fn() -> Result<(), ConfigError> + Sync),
    control: &mut Option<Control>,
) -> Result<(Etcd, ElectionResources), AgentError> {
    if control.is_none() {
        let socket = server::open(&config.control).await?;
        let (serving, requests) = socket.serve().map_err(AgentError::Socket)?;
        *control = Some((socket, serving, requests));
    }
    files().map_err(|e| AgentError::Files(in_words(&e)))?;
    Ok((Etcd::connect(&config.etcd)?, ElectionResources::open(config)?))
}

/// The problems alone, without their positions in the file.
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

/// Waits for a part's supervisor, and aborts it when the wait is dropped.
async fn watched(supervisor: JoinHandle<()>) {
    let _ = tokio_util::task::AbortOnDropHandle::new(supervisor).await;
}

/// The result of a task once it has started; waits for ever before that.
async fn answered(task: Option<&mut JoinHandle<bool>>) -> bool {
    match task {
        Some(task) => task.await.unwrap_or(false),
        None => std::future::pending().await,
    }
}

/// Opens the address driver. Removes every address that a dead predecessor or an older configuration left, except for
/// the addresses of the instances in `kept`, which still hold them.
async fn open_addresses(config: &Config, kept: &BTreeSet<String>) -> Result<Arc<Addresses>, AddressError> {
    let addresses = Addresses::open()?;
    let held = config.instances.iter().filter(|i| kept.contains(&i.name));
    let keep: Vec<_> = held.flat_map(|i| i.addresses.iter().map(|a| (i.interface.as_str(), *a))).collect();
    for (interface, prefix) in addresses.remove_stale(&keep).await? {
        warn!(interface, %prefix, "removed an address that an earlier keepcall process left behind");
    }
    Ok(Arc::new(addresses))
}

/// Starts to follow the mode of each instance with calls.
fn follow_modes(config: &Config, etcd: &Etcd) -> Modes {
    let node = &config.node;
    let with_calls = config.instances.iter().filter(|i| i.sip.is_some());
    with_calls
        .map(|i| (i.name.clone(), mode::follow(etcd.clone(), &node.cluster, &i.name, &node.name, i.mode)))
        .collect()
}

async fn pass_on(config: &Config, addresses: Option<&Addresses>, instances: &Instances, event: ClusterEvent) {
    // The end of a right does not wait for the instance's current work: the addresses go now, and the order repeats the
    // removal.
    if let ClusterEvent::Drop { instance, handover: false, .. } = &event
        && let Some(addresses) = addresses
        && let Some(it) = config.instances.iter().find(|i| i.name == *instance)
        && let Err(e) = addresses.remove(&it.interface, &it.addresses).await
    {
        error!(instance, "cannot remove the addresses at once: {e}");
    }
    let (instance, order) = match event {
        ClusterEvent::Take { instance, change } => (instance, Order::Take(change)),
        ClusterEvent::Drop { instance, epoch, reason, handover } => (instance, Order::Drop { epoch, reason, handover }),
        ClusterEvent::Changed { .. } => return,
    };
    if let Some(orders) = instances.get(&instance)
        && orders.send(order).await.is_err()
    {
        error!(instance, "the task of the instance has ended; restart the agent");
    }
}

/// Hands over or releases: passes on the last drops while this node leaves the cluster, then stops every instance.
/// Failures are logged and do not stop the rest.
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
                    warn!("cannot leave the cluster cleanly: {e}");
                }
                break;
            }
            () = &mut limit => {
                warn!("leaving the cluster took longer than {STOP:?}; stopping all the same");
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
                error!(instance = name, "cannot undo everything: {e}");
            }
        }
    }
}
