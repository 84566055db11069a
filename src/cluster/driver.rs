//! The handle that the agent holds. The loop behind it is in `driver/worker.rs`.

mod holds;
mod keeper;
mod realtime;
mod worker;

pub use keeper::{Keeper, NoKeeper};

use super::election::{Candidate, Cause, Inherited};
use super::heartbeat::Codec;
use super::lease;
use super::record::{Keys, NodeEntry, SCHEMA};
use super::settings::describe;
use super::status::ClusterStatus;
use crate::clock;
use crate::config::Config;
use crate::etcd::Etcd;
use crate::time::Time;
use holds::Holds;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Events that may wait for the agent; what does not fit waits in the loop, and `Changed` is dropped.
const EVENTS: usize = 256;
/// Commands that may wait: they come from people.
const COMMANDS: usize = 16;
/// How long `switchover` waits for the new record: several etcd time-outs.
const SWITCH_TIME: Duration = Duration::from_secs(5);
/// How long `park` may take: a renewal and a transaction, with room for an etcd that is slow.
const PARK_TIME: Duration = Duration::from_secs(2);
/// How long `stop` may take in all.
const STOP_TIME: Duration = Duration::from_secs(8);
/// The shortest key: as long as the hash, so that guessing it is no easier than forging a MAC.
const MIN_KEY: usize = 32;

/// The local server's health, for one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitness {
    /// Whether the server can do its work.
    pub fit: bool,
    /// Higher is preferred among equally fit nodes.
    pub priority: u16,
    /// In words, for status.
    pub summary: String,
}

/// What the agent must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterEvent {
    /// Hold the addresses, for as long as [`Cluster::holds`] says.
    Take {
        /// The instance.
        instance: String,
        /// The epoch.
        epoch: u64,
        /// Why this node.
        cause: Cause,
        /// The master before.
        previous: Option<String>,
        /// When the need was seen.
        detected: Time,
        /// When etcd confirmed it.
        committed: Time,
    },
    /// Let go of the addresses now, then call [`Cluster::released`].
    Drop {
        /// The instance.
        instance: String,
        /// The epoch that was held.
        epoch: u64,
        /// Why, for people.
        reason: String,
        /// The next master waits: flush call state first.
        handover: bool,
    },
    /// Status changed.
    Changed {
        /// The instance.
        instance: String,
    },
}

/// Why the cluster room could not start.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The key cannot be read.
    #[error(
        "cannot read the cluster key {path}: {source}; make one with `head -c 32 /dev/urandom > {path}` and copy it to every node"
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The key is too short.
    #[error(
        "the cluster key {path} has {len} bytes; at least {MIN_KEY} are needed: `head -c 32 /dev/urandom > {path}`"
    )]
    ShortKey {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// The heartbeat socket.
    #[error("cannot listen for heartbeats on {address}: {source}; {}", bind_advice(.source))]
    Bind {
        /// The configured address and port.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// No random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
    /// No thread.
    #[error(
        "cannot start the election's thread: {0}; see the limits of processes and memory (`ulimit -a`, `TasksMax=`)"
    )]
    Thread(std::io::Error),
}

fn read_key(file: &Path) -> Result<Vec<u8>, ClusterError> {
    let path = file.to_owned();
    match std::fs::read(file) {
        Err(source) => Err(ClusterError::Key { path, source }),
        Ok(key) if key.len() < MIN_KEY => Err(ClusterError::ShortKey { path, len: key.len() }),
        Ok(key) => Ok(key),
    }
}

fn bind_advice(e: &std::io::Error) -> &'static str {
    match e.kind() {
        std::io::ErrorKind::AddrNotAvailable => {
            "`address` in [node] must be an address of this host (see `ip address`), not a VIP"
        }
        std::io::ErrorKind::AddrInUse => {
            "another program has this port (an agent that already runs?); see `ss -lunp`, or set `port` in [node]"
        }
        _ => "check `address` and `port` in [node]",
    }
}

/// Why a switchover did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwitchoverError {
    /// No such instance here.
    #[error("this node takes no part in an instance named '{0}'")]
    UnknownInstance(String),
    /// Only the master can hand over.
    #[error("this node is not master of it; {}", match .master { Some(m) => format!("run it on {m}"), None => "nobody is".to_owned() })]
    NotMaster {
        /// The master, if known.
        master: Option<String>,
    },
    /// Nobody may take over, or not the one that was asked for.
    #[error("no node can take over: {}", reasons(.candidates))]
    NoCandidate {
        /// Each node and the reason against it.
        candidates: Vec<Candidate>,
    },
    /// etcd did not confirm it in time.
    #[error("etcd did not confirm the switchover within {SWITCH_TIME:?}; see `keepcall status`")]
    Timeout,
    /// The agent stops.
    #[error("the agent is stopping")]
    Stopping,
}

fn reasons(c: &[Candidate]) -> String {
    if c.is_empty() {
        return "there is no other node".to_owned();
    }
    c.iter().map(|c| format!("{} {}", c.node, c.against.as_deref().unwrap_or("may"))).collect::<Vec<_>>().join("; ")
}

/// Why `stop` was not clean. Everything was let go all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// Something took too long.
    #[error("stopping took longer than {STOP_TIME:?}; the node's lease in etcd runs out by itself")]
    Timeout,
}

/// Why a member was not forgotten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForgetError {
    /// No such instance here.
    #[error("this node takes no part in an instance named '{0}'")]
    UnknownInstance(String),
    /// The master refused.
    #[error("{0}")]
    Refused(String),
    /// etcd did not confirm it in time.
    #[error("etcd did not confirm it within {SWITCH_TIME:?}; see `keepcall status`")]
    Timeout,
    /// The agent stops.
    #[error("the agent is stopping")]
    Stopping,
}

enum Command {
    Forget(String, String, oneshot::Sender<Result<(), ForgetError>>),
    Park(oneshot::Sender<bool>),
    Switchover(String, Option<String>, oneshot::Sender<Result<u64, SwitchoverError>>),
    Stop(oneshot::Sender<()>),
}

/// The newest value of what the agent reports; bounded by the number of instances.
#[derive(Default)]
struct Inbox {
    ready: HashMap<String, bool>,
    fitness: HashMap<String, Fitness>,
    released: HashMap<String, u64>,
}

struct Shared {
    inbox: Mutex<Inbox>,
    news: Notify,
    holds: Holds,
    status: Mutex<ClusterStatus>,
    etcd: Etcd,
    commands: mpsc::Sender<Command>,
    rounds: AtomicU64,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `None` while another thread has it.
fn try_lock<T>(m: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match m.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// A handle on this node's part in all its instances. Clones share it.
#[derive(Clone)]
pub struct Cluster(Arc<Shared>);

impl Cluster {
    /// Binds the heartbeat socket and starts. etcd may be down: then it is tried until it answers. `keeper` is told each hold;
    /// `inherited` is what it finds in force of a process before this one, for each instance.
    ///
    /// The election runs on a thread of its own, in real time where the system permits it; what asks etcd stays in the caller's
    /// runtime. When that runtime ends without [`Cluster::stop`], the thread ends too, and what is held runs out.
    ///
    /// # Errors
    /// The key, the socket or the thread cannot be had.
    pub async fn start(
        cfg: &Config,
        etcd: Etcd,
        keeper: Box<dyn Keeper>,
        inherited: Vec<(String, Inherited)>,
    ) -> Result<(Self, mpsc::Receiver<ClusterEvent>), ClusterError> {
        Opened::open(cfg)?.start(cfg, etcd, keeper, inherited, true).await
    }
}

/// What of this host the election needs, had before anything is touched: only one agent can have it.
pub struct Opened {
    key: Vec<u8>,
    /// Other keys that are accepted, during a change of key.
    others: Vec<Vec<u8>>,
    socket: std::net::UdpSocket,
    boot: u64,
}

impl Opened {
    /// Reads the keys and binds the heartbeat socket.
    ///
    /// # Errors
    /// What cannot be had.
    pub fn open(cfg: &Config) -> Result<Self, ClusterError> {
        let key = read_key(&cfg.node.key_file)?;
        let others = cfg.node.accept_key_files.iter().map(|f| read_key(f)).collect::<Result<Vec<_>, _>>()?;
        let address = SocketAddr::new(cfg.node.address, cfg.node.port);
        let bind = |source| ClusterError::Bind { address, source };
        let socket = std::net::UdpSocket::bind(address).map_err(bind)?;
        socket.set_nonblocking(true).map_err(bind)?;
        let boot = getrandom::u64().map_err(|e| ClusterError::Random(e.to_string()))?;
        Ok(Self { key, others, socket, boot })
    }

    /// As [`Cluster::start`]. `ready`: whether instances may be elected before [`Cluster::set_ready`] says so.
    ///
    /// # Errors
    /// The thread cannot be had.
    #[allow(clippy::unused_async)] // Called inside the runtime, in which etcd is asked.
    pub async fn start(
        self,
        cfg: &Config,
        etcd: Etcd,
        keeper: Box<dyn Keeper>,
        inherited: Vec<(String, Inherited)>,
        ready: bool,
    ) -> Result<(Cluster, mpsc::Receiver<ClusterEvent>), ClusterError> {
        let Self { key, others, socket, boot } = self;
        let address = SocketAddr::new(cfg.node.address, cfg.node.port);
        let keys = Keys::new(&cfg.node.cluster);
        let entry = NodeEntry {
            schema: SCHEMA,
            name: cfg.node.name.clone(),
            address,
            boot,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            settings: Some(describe(cfg).bounded()),
        };
        let (lease_tx, lease_rx) = watch::channel(None);
        let (name_tx, name) = watch::channel(lease::Name::Unknown);
        let again = Arc::new(Notify::new());
        let keep = lease::keep(
            etcd.clone(),
            keys.clone(),
            entry,
            cfg.timing.drift,
            Arc::clone(&again),
            lease::Reports { lease: lease_tx, name: name_tx },
        );
        let (commands, command_rx) = mpsc::channel(COMMANDS);
        let (events, event_rx) = mpsc::channel(EVENTS);
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            news: Notify::new(),
            holds: Holds::new(cfg.instances.iter().map(|i| i.name.as_str())),
            status: Mutex::default(),
            etcd,
            commands,
            rounds: AtomicU64::new(0),
        });
        let codec = Codec::new(&key, &cfg.node.cluster, &cfg.node.name, boot).accepting(&others);
        let lease_task = tokio::spawn(keep);
        let parts = worker::Parts {
            socket: address,
            codec,
            keys,
            boot,
            lease: lease_rx,
            name,
            again,
            lease_task,
            events,
            commands: command_rx,
            kept: keeper::Kept::new(keeper),
            // Requests to etcd and their timers live where etcd's connections do, at ordinary priority.
            outside: tokio::runtime::Handle::current(),
            ready,
        };
        let worker = worker::Worker::new(cfg, Arc::clone(&shared), parts, inherited);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClusterError::Thread)?;
        let run = move || {
            if let Err(e) = realtime::raise() {
                tracing::warn!(
                    "the election runs without real-time priority ({e}): on a loaded host heartbeats may come late; give the agent \
                     CAP_SYS_NICE (the systemd unit does)"
                );
            }
            runtime.block_on(worker.run(socket));
        };
        std::thread::Builder::new().name("election".into()).spawn(run).map_err(ClusterError::Thread)?;
        Ok((Cluster(shared), event_rx))
    }
}

impl Cluster {
    /// Tells whether this node has all that it needs to hold the addresses of an instance. Without, it is never elected.
    pub fn set_ready(&self, instance: &str, ready: bool) {
        lock(&self.0.inbox).ready.insert(instance.to_owned(), ready);
        self.0.news.notify_one();
    }

    /// How often the election's thread has come around: at least once in a while, or it no longer turns.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.0.rounds.load(Relaxed)
    }

    /// Tells the local server's health. A change takes effect at once.
    pub fn set_fitness(&self, instance: &str, f: Fitness) {
        lock(&self.0.inbox).fitness.insert(instance.to_owned(), f);
        self.0.news.notify_one();
    }

    /// The addresses that were held under `epoch` are down.
    pub fn released(&self, instance: &str, epoch: u64) {
        lock(&self.0.inbox).released.insert(instance.to_owned(), epoch);
        self.0.news.notify_one();
    }

    /// Whether this node may answer for the addresses at this moment, under this epoch.
    #[must_use]
    pub fn holds(&self, instance: &str, epoch: u64) -> bool {
        self.holds_until(instance, epoch).is_some()
    }

    /// Until when this node may answer for the addresses, if nothing more is heard; `None` if it may not now.
    #[must_use]
    pub fn holds_until(&self, instance: &str, epoch: u64) -> Option<Time> {
        let held = self.0.holds.get(instance);
        held.filter(|(e, until)| *e == epoch && clock::now() < *until).map(|h| h.1)
    }

    /// The picture as of now, a few milliseconds old at most.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        let mut s = lock(&self.0.status).clone();
        s.etcd = self.0.etcd.health();
        s
    }

    /// Hands an instance over: to `to`, or to the best candidate. Returns the new epoch once etcd has it; the addresses
    /// follow within milliseconds.
    ///
    /// # Errors
    /// Names each node and the reason against it, or what else stood in the way.
    pub async fn switchover(&self, instance: &str, to: Option<String>) -> Result<u64, SwitchoverError> {
        let (tx, rx) = oneshot::channel();
        let command = Command::Switchover(instance.to_owned(), to, tx);
        self.0.commands.send(command).await.map_err(|_| SwitchoverError::Stopping)?;
        match tokio::time::timeout(SWITCH_TIME, rx).await {
            Ok(Ok(r)) => r,
            Ok(Err(_)) => Err(SwitchoverError::Stopping),
            Err(_) => Err(SwitchoverError::Timeout),
        }
    }

    /// Takes a node that is gone for good out of an instance's members. Only the master can.
    ///
    /// # Errors
    /// Why it was not done.
    pub async fn forget(&self, instance: &str, node: &str) -> Result<(), ForgetError> {
        let (tx, rx) = oneshot::channel();
        let command = Command::Forget(instance.to_owned(), node.to_owned(), tx);
        self.0.commands.send(command).await.map_err(|_| ForgetError::Stopping)?;
        match tokio::time::timeout(SWITCH_TIME, rx).await {
            Ok(Ok(r)) => r,
            Ok(Err(_)) => Err(ForgetError::Stopping),
            Err(_) => Err(ForgetError::Timeout),
        }
    }

    /// Ends this process's part and keeps what is held, for the next process on this host: rights are rested on the lease, so
    /// that they last for seconds, and nothing is released. Whether that was done for every instance in time; if not, what is
    /// held runs out at the end of a hold.
    pub async fn park(self) -> bool {
        let (tx, rx) = oneshot::channel();
        if self.0.commands.send(Command::Park(tx)).await.is_err() {
            return false;
        }
        // A dropped sender means that the loop has ended.
        tokio::time::timeout(PARK_TIME * 2, rx).await.is_ok_and(|r| r.unwrap_or(false))
    }

    /// Hands over what can be handed over, lets go of the rest, keeps its promises until they run out, and leaves. The agent
    /// must go on answering `Drop` events with `released` meanwhile.
    ///
    /// # Errors
    /// If it took too long; everything was let go all the same.
    pub async fn stop(self) -> Result<(), StopError> {
        let (tx, rx) = oneshot::channel();
        if self.0.commands.send(Command::Stop(tx)).await.is_err() {
            return Ok(());
        }
        // A dropped sender means that the loop has ended.
        tokio::time::timeout(STOP_TIME, rx).await.map(|_| ()).map_err(|_| StopError::Timeout)
    }
}
