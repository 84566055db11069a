//! The keys and values of the election in etcd. Values are JSON with a schema number; what cannot be read is never guessed.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// The schema that this version writes. A value with a higher number comes from a newer version and is left alone.
pub const SCHEMA: u32 = 1;

/// The highest epoch that is read. No epoch is above the revision that etcd had when it was written, which is an i64 and rises by one
/// with each change: a higher one was made by hand or is damaged, and would leave no room for the next.
pub(super) const MAX_EPOCH: u64 = 1 << 62;

/// The longest value that is read. A record with 100 members is below 10 kB; more is not ours.
const MAX_VALUE: usize = 64 * 1024;

/// `instances/<i>/record`: who is master. Changed only by transactions that compare its revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Schema of this value.
    pub schema: u32,
    /// Rises with every change of master.
    pub epoch: u64,
    /// The node that may hold the addresses.
    pub master: String,
    /// The one backup that is armed to take over fast.
    pub successor: Option<String>,
    /// The nodes that may ever take over; admitted by the master.
    pub members: Vec<String>,
    /// Wall clock at the change of master, in milliseconds since 1970; for people only.
    pub since_ms: u64,
    /// Why the master changed, for people.
    pub reason: String,
    /// The old master, while it hands over to `master` and has perhaps not let go yet.
    #[serde(default)]
    pub handover: Option<String>,
    /// How many automatic changes of master followed each other, each within the flap window of the one before.
    #[serde(default)]
    pub flaps: u32,
    /// Where the members' heartbeats go, so that they can be reached while etcd cannot.
    #[serde(default)]
    pub addresses: BTreeMap<String, SocketAddr>,
}

/// `nodes/<node>`, bound to the node's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// Schema of this value.
    pub schema: u32,
    /// The node's name, as in the key.
    pub name: String,
    /// Where its heartbeats arrive.
    pub address: SocketAddr,
    /// Random number of this run of the agent.
    pub boot: u64,
    /// The agent's version.
    pub version: String,
}

/// `paused`: while the key is there, with whatever value, nothing changes the master by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Schema of this value.
    pub schema: u32,
    /// The node on which it was asked for.
    pub by: String,
    /// Why, in the operator's words.
    pub reason: String,
    /// Wall-clock milliseconds since 1970.
    pub at_ms: u64,
}

/// `instances/<i>/alive`, bound to the master's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alive {
    /// The epoch that it was put for; 0 if the value could not be read.
    pub epoch: u64,
    /// The lease that it is bound to.
    pub lease: i64,
}

/// What the record key held at a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// There is no record: no master was ever elected, or someone deleted it.
    Missing,
    /// A record.
    Good {
        /// Revision of its last change.
        revision: i64,
        /// The record; shared, because it is looked at with every heartbeat.
        record: Arc<Record>,
    },
    /// Something that this version cannot read. The instance stays as it is.
    Unreadable {
        /// Revision of its last change.
        revision: i64,
        /// What is wrong and how to repair it.
        why: String,
    },
}

/// One linearizable read of all that an election looks at, at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The store's revision at the read.
    pub revision: i64,
    /// The record.
    pub record: Recorded,
    /// The master's sign of life.
    pub alive: Option<Alive>,
    /// The nodes whose keys exist.
    pub nodes: BTreeSet<String>,
    /// The revision of each node's last registration; it stays when the node's key goes.
    pub runs: BTreeMap<String, i64>,
    /// The reader's own ticket.
    pub ticket: Option<String>,
    /// Automatic changes of master are paused in the whole cluster: the value of the key that says so.
    pub paused: Option<String>,
}

/// Builds the keys of one cluster.
#[derive(Clone, Debug)]
pub struct Keys {
    root: String,
}

impl Keys {
    /// Keys under `/keepcall/<cluster>/`.
    #[must_use]
    pub fn new(cluster: &str) -> Self {
        Self { root: format!("/keepcall/{cluster}/") }
    }
    /// The key that pauses the cluster.
    #[must_use]
    pub fn paused(&self) -> String {
        format!("{}paused", self.root)
    }
    /// Prefix of all node keys.
    #[must_use]
    pub fn nodes(&self) -> String {
        format!("{}nodes/", self.root)
    }
    /// Key of one node.
    #[must_use]
    pub fn node(&self, name: &str) -> String {
        format!("{}nodes/{name}", self.root)
    }
    /// Prefix of what each node writes whenever it registers.
    #[must_use]
    pub fn runs(&self) -> String {
        format!("{}runs/", self.root)
    }
    /// What one node writes whenever it registers, in the same transaction as its key; not bound to a lease. A key that came back
    /// and went again leaves this behind.
    #[must_use]
    pub fn run(&self, name: &str) -> String {
        format!("{}runs/{name}", self.root)
    }
    /// Key of an instance's record.
    #[must_use]
    pub fn record(&self, instance: &str) -> String {
        format!("{}instances/{instance}/record", self.root)
    }
    /// Key of an instance's sign of life.
    #[must_use]
    pub fn alive(&self, instance: &str) -> String {
        format!("{}instances/{instance}/alive", self.root)
    }
    /// Key of a node's ticket for an instance.
    #[must_use]
    pub fn ticket(&self, instance: &str, node: &str) -> String {
        format!("{}instances/{instance}/tickets/{node}", self.root)
    }
}

#[derive(Deserialize)]
struct SchemaOnly {
    schema: u32,
}

fn decode<T: for<'a> Deserialize<'a>>(value: &[u8]) -> Result<T, String> {
    if value.len() > MAX_VALUE {
        return Err(format!("it is {} bytes long, more than {MAX_VALUE}", value.len()));
    }
    let SchemaOnly { schema } = serde_json::from_slice(value).map_err(|e| format!("it is not one of ours ({e})"))?;
    if schema > SCHEMA {
        return Err(format!("it has schema {schema}, and this version reads up to {SCHEMA}: upgrade keepcall on this node"));
    }
    serde_json::from_slice(value).map_err(|e| e.to_string())
}

/// Reads the value of a record key.
#[must_use]
pub fn read_record(key: &str, value: &[u8], revision: i64) -> Recorded {
    let sane = |r: Record| {
        let e = r.epoch;
        (1..=MAX_EPOCH).contains(&e).then_some(r).ok_or_else(|| format!("its epoch {e} is not one that keepcall has written"))
    };
    match decode::<Record>(value).and_then(sane) {
        Ok(record) => Recorded::Good { revision, record: Arc::new(record) },
        Err(e) => Recorded::Unreadable {
            revision,
            why: format!(
                "the value of {key} in etcd cannot be used: {e}; nobody takes over until it is repaired. To start afresh, stop the \
                 agents of this cluster, run `etcdctl del {key}`, and start them"
            ),
        },
    }
}

/// Reads the value of a node key.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read_node(key: &str, value: &[u8]) -> Result<NodeEntry, String> {
    decode(value)
        .map_err(|e| format!("the value of {key} in etcd cannot be used: {e}; the node's agent writes it again when it restarts"))
}

/// Why the cluster is paused, in words, whatever the key holds: its presence is what counts.
#[must_use]
pub fn describe_pause(value: &str) -> String {
    match decode::<Paused>(value.as_bytes()) {
        Ok(p) if p.reason.is_empty() => format!("paused on {}", p.by),
        Ok(p) => format!("paused on {}: {}", p.by, p.reason),
        Err(e) => format!("paused by a value that cannot be read: {e}"),
    }
}

/// Reads the value of an `alive` key: the epoch in decimal.
#[must_use]
pub fn read_alive(value: &[u8], lease: i64) -> Alive {
    let epoch = std::str::from_utf8(value).ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    Alive { epoch, lease }
}

/// The JSON of a value.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // These types hold only strings, numbers and maps with string keys, which always have a JSON form.
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
