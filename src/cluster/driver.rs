//! The agent's handle on the cluster. Its loop is in `driver/event_loop.rs`.

mod enforcer;
mod event_loop;
mod holds;

pub use enforcer::{Enforcer, NoEnforcer};

use super::election::{Candidate, Inherited, MasterChange};
use super::heartbeat::Codec;
use super::lease;
use super::record::{NodeEntry, SCHEMA};
use super::settings::describe;
use super::status::ClusterStatus;
use crate::config::{Config, KeyFault};
use crate::etcd::{Etcd, Keys};
use crate::os::{clock, priority};
use crate::sync::Locked as _;
use crate::time::Time;
use holds::Holds;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Queue of events for the agent. When it is full, events wait in the loop and `Changed` is dropped.
const EVENTS: usize = 256;
/// Queue of commands; people send them.
const COMMANDS: usize = 16;
/// Timeout of `switchover` for the new record: several etcd time-outs.
const SWITCH_TIME: Duration = Duration::from_secs(5);
/// Timeout of `park`: a renewal and a transaction, with room for a slow etcd.
const PARK_TIME: Duration = Duration::from_secs(2);
/// Total timeout of `stop`.
const STOP_TIME: Duration = Duration::from_secs(8);

/// The local server's health, for one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitness {
    /// Whether the server can do its work.
    pub fit: bool,
    /// A higher priority wins among equally fit nodes.
    pub priority: u16,
    /// Summary in words, for status.
    pub summary: String,
}

/// Events for the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterEvent {
    /// Hold the addresses, for as long as [`Cluster::holds`] allows.
    Take {
        /// The instance.
        instance: String,
        /// How this node became its master.
        change: MasterChange,
    },
    /// Drop the addresses now, then call [`Cluster::released`].
    Drop {
        /// The instance.
        instance: String,
        /// The epoch that was held.
        epoch: u64,
        /// The reason, for display.
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

/// Why the cluster could not start.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The key cannot be read.
    #[error(
        "cannot read the cluster key {path}: {source}; make a key with `head -c 32 /dev/urandom > {path}` and copy \
         it to every node"
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The key can be guessed.
    #[error("{path} {fault}; {}", .fault.cure(.path))]
    WeakKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        fault: KeyFault,
    },
    /// The heartbeat socket cannot be bound.
    #[error("cannot listen for heartbeats on {address}: {source}; {}", bind_advice(.source))]
    Bind {
        /// The configured address and port.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// The system returned no random numbers.
    #[error("cannot get random numbers from the kernel: {0}")]
    Random(String),
    /// The election's thread cannot be started.
    #[error(
        "cannot start the election thread: {0}; check the limits on processes and memory (`ulimit -a`, `TasksMax=`)"
    )]
    Thread(std::io::Error),
}

fn read_key(file: &Path) -> Result<Vec<u8>, ClusterError> {
    let path = file.to_owned();
    match std::fs::read(file) {
        Err(source) => Err(ClusterError::Key { path, source }),
        Ok(key) => match KeyFault::of(&key) {
            Some(fault) => Err(ClusterError::WeakKey { path, fault }),
            None => Ok(key),
        },
    }
}

fn bind_advice(e: &std::io::Error) -> &'static str {
    match e.kind() {
        std::io::ErrorKind::AddrNotAvailable => {
            "`address` in [node] must be an address of this host (see `ip address`), not a VIP"
        }
        std::io::ErrorKind::AddrInUse => {
            "another program has this port (perhaps a running agent); find the program with `ss -lunp`, or set \
             `port` in [node]"
        }
        _ => "check `address` and `port` in [node]",
    }
}

/// Why a switchover failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwitchoverError {
    /// This node has no such instance.
    #[error("this node has no instance '{0}'; `keepcall status` lists the instances")]
    UnknownInstance(String),
    /// Only the master can hand over.
    #[error(
        "this node is not the master of the instance; {}", match .master { Some(m) => format!(
            "run the command on {m}"), None => "no node is master".to_owned() })]
    NotMaster {
        /// The master, if known.
        master: Option<String>,
    },
    /// No node may take over, or the requested node may not.
    #[error("no node can take over: {}", reasons(.candidates))]
    NoCandidate {
        /// Each node and the reason against it.
        candidates: Vec<Candidate>,
    },
    /// etcd did not confirm the switchover in time.
    #[error("etcd did not confirm the switchover within {SWITCH_TIME:?}; check etcd with `keepcall status`")]
    Timeout,
    /// The agent is stopping.
    #[error("the agent is stopping")]
    Stopping,
}

fn reasons(c: &[Candidate]) -> String {
    if c.is_empty() {
        return "the cluster has no other node".to_owned();
    }
    c.iter().map(|c| format!("{} {}", c.node, c.against.as_deref().unwrap_or("may"))).collect::<Vec<_>>().join("; ")
}

/// Why `stop` was not clean. Every hold was dropped all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// A step took too long.
    #[error("stopping took longer than {STOP_TIME:?}; the node's lease in etcd expires without further action")]
    Timeout,
}

/// Why a member was not forgotten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForgetError {
    /// This node has no such instance.
    #[error("this node has no instance '{0}'; `keepcall status` lists the instances")]
    UnknownInstance(String),
    /// The master refused.
    #[error("{0}")]
    Refused(String),
    /// etcd did not confirm the removal in time.
    #[error("etcd did not confirm the removal within {SWITCH_TIME:?}; check etcd with `keepcall status`")]
    Timeout,
    /// The agent is stopping.
    #[error("the agent is stopping")]
    Stopping,
}

enum Command {
    Forget(String, String, oneshot::Sender<Result<(), ForgetError>>),
    Park(oneshot::Sender<bool>),
    Switchover(String, Option<String>, oneshot::Sender<Result<u64, SwitchoverError>>),
    Stop(oneshot::Sender<()>),
}

/// Newest reports of the agent; bounded by the number of instances.
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
    /// Tells that there is a new status.
    status_news: Notify,
    etcd: Etcd,
    commands: mpsc::Sender<Command>,
    rounds: AtomicU64,
}

/// Handle on all instances of this node. Clones share it.
#[derive(Clone)]
pub struct Cluster(Arc<Shared>);

impl Cluster {
    /// Binds the heartbeat socket and starts. etcd may be down: the cluster retries until it answers. `enforcer`
    /// receives each hold. `inherited` lists, for each instance, the hold that an earlier process left in force.
    ///
    /// The election runs on its own thread, in real time if the system permits. Requests to etcd stay in the caller's
    /// runtime. If that runtime ends without [`Cluster::stop`], the thread ends too, and the holds expire.
    ///
    /// # Errors
    /// The key, the socket or the thread is unavailable.
    pub async fn start(
        cfg: &Config,
        etcd: Etcd,
        enforcer: Box<dyn Enforcer>,
        inherited: Vec<(String, Inherited)>,
    ) -> Result<(Self, mpsc::Receiver<ClusterEvent>), ClusterError> {
        ElectionResources::open(cfg)?.start(cfg, etcd, enforcer, inherited, true).await
    }
}

/// Host resources of the election, acquired before any change to the host. Only one agent can have them.
pub struct ElectionResources {
    key: Vec<u8>,
    /// Other accepted keys, during a change of key.
    others: Vec<Vec<u8>>,
    socket: std::net::UdpSocket,
    boot: u64,
}

impl ElectionResources {
    /// Reads the keys and binds the heartbeat socket.
    ///
    /// # Errors
    /// The resource that is unavailable.
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

    /// Starts as [`Cluster::start`] does. `ready` allows the election of instances before [`Cluster::set_ready`].
    ///
    /// # Errors
    /// The thread cannot be started.
    #[allow(clippy::unused_async)] // Called inside the runtime, in which etcd is asked.
    pub async fn start(
        self,
        cfg: &Config,
        etcd: Etcd,
        enforcer: Box<dyn Enforcer>,
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
            status_news: Notify::new(),
            etcd,
            commands,
            rounds: AtomicU64::new(0),
        });
        let codec = Codec::new(&key, &cfg.node.cluster, &cfg.node.name, boot).accepting(&others);
        let lease_task = tokio::spawn(keep);
        let setup = event_loop::Setup {
            address,
            codec,
            keys,
            boot,
            lease: lease_rx,
            name,
            register_again: again,
            lease_task,
            events,
            commands: command_rx,
            enforced: enforcer::Enforced::new(enforcer),
            // Requests to etcd and their timers run with etcd's connections, at ordinary priority.
            outside: tokio::runtime::Handle::current(),
            ready,
        };
        let event_loop = event_loop::EventLoop::new(cfg, Arc::clone(&shared), setup, inherited);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClusterError::Thread)?;
        let run = move || {
            if let Err(e) = priority::raise() {
                tracing::warn!(
                    "the election runs without real-time priority ({e}), so heartbeats may be late on a loaded host; \
                     give the agent CAP_SYS_NICE (the systemd unit does)"
                );
            }
            runtime.block_on(event_loop.run(socket));
        };
        std::thread::Builder::new().name("election".into()).spawn(run).map_err(ClusterError::Thread)?;
        Ok((Cluster(shared), event_rx))
    }
}

impl Cluster {
    /// Sets whether this node has everything it needs to hold an instance's addresses. Without that it is never
    /// elected.
    pub fn set_ready(&self, instance: &str, ready: bool) {
        self.0.inbox.locked().ready.insert(instance.to_owned(), ready);
        self.0.news.notify_one();
    }

    /// Counts the rounds of the election's thread. The count rises at least every 250 ms, unless the thread hangs.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.0.rounds.load(Relaxed)
    }

    /// Sets the local server's health. A change takes effect at once.
    pub fn set_fitness(&self, instance: &str, f: Fitness) {
        self.0.inbox.locked().fitness.insert(instance.to_owned(), f);
        self.0.news.notify_one();
    }

    /// Confirms that the addresses held under `epoch` are down.
    pub fn released(&self, instance: &str, epoch: u64) {
        self.0.inbox.locked().released.insert(instance.to_owned(), epoch);
        self.0.news.notify_one();
    }

    /// Whether this node may answer for the addresses now, under this epoch.
    #[must_use]
    pub fn holds(&self, instance: &str, epoch: u64) -> bool {
        self.holds_until(instance, epoch).is_some()
    }

    /// End of this node's right to the addresses without further promises; `None` if it has no right now.
    #[must_use]
    pub fn holds_until(&self, instance: &str, epoch: u64) -> Option<Time> {
        let held = self.0.holds.get(instance);
        held.filter(|(e, until)| *e == epoch && clock::now() < *until).map(|h| h.1)
    }

    /// Current status, normally at most a few tens of milliseconds old.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        let mut s = self.0.status.locked().clone();
        s.etcd = self.0.etcd.health();
        s
    }

    /// What `found` makes of the first status that has it, the present one included; `None` if none has it in time.
    pub async fn find_status<T>(
        &self,
        within: Duration,
        found: impl Fn(ClusterStatus) -> Option<T> + Send,
    ) -> Option<T> {
        let look = async {
            loop {
                let mut news = std::pin::pin!(self.0.status_news.notified());
                // From here on no news is missed.
                news.as_mut().enable();
                if let Some(found) = found(self.status()) {
                    return found;
                }
                news.await;
            }
        };
        tokio::time::timeout(within, look).await.ok()
    }

    /// Hands an instance over to `to`, or to the best candidate. Returns the new epoch once etcd has it. The addresses
    /// follow within milliseconds.
    ///
    /// # Errors
    /// Names each node and the reason against it, or another obstacle.
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

    /// Removes a permanently lost node from an instance's members. Only the master can do this.
    ///
    /// # Errors
    /// The reason for the refusal.
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

    /// Ends this process and keeps its holds for the next process on this host. Holds move onto the lease, so that they
    /// last for seconds, and no address is released. Returns whether every instance finished in time. If not, its hold
    /// expires at the normal end of a hold.
    pub async fn park(self) -> bool {
        let (tx, rx) = oneshot::channel();
        if self.0.commands.send(Command::Park(tx)).await.is_err() {
            return false;
        }
        // A dropped sender means that the loop has ended.
        tokio::time::timeout(PARK_TIME * 2, rx).await.is_ok_and(|r| r.unwrap_or(false))
    }

    /// Hands over where possible, drops the other holds, waits until its promises run out, and leaves. Meanwhile the
    /// agent must keep answering `Drop` events with `released`.
    ///
    /// # Errors
    /// The stop took too long. Every hold was dropped all the same.
    pub async fn stop(self) -> Result<(), StopError> {
        let (tx, rx) = oneshot::channel();
        if self.0.commands.send(Command::Stop(tx)).await.is_err() {
            return Ok(());
        }
        // A dropped sender means that the loop has ended.
        tokio::time::timeout(STOP_TIME, rx).await.map(|_| ()).map_err(|_| StopError::Timeout)
    }
}
