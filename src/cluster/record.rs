//! Values of the election in etcd (`etcd/keys.rs` has the keys). They are JSON with a schema number. An unreadable value is never guessed.

use super::settings::Described;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Schema that this version writes. A value with a higher number comes from a newer version and stays untouched.
pub const SCHEMA: u32 = 1;

/// Highest accepted epoch. No epoch exceeds etcd's revision at the time of the write, and the revision is an i64 that
/// rises by one with each change. A higher epoch was made by hand or is damaged, and leaves no room for the next.
pub const MAX_EPOCH: u64 = 1 << 62;
/// Most members of a record: as many peers as an election keeps.
const MAX_MEMBERS: usize = 64;
/// End of the year 9999 in milliseconds since 1970. A clock never wrote a later time.
const MAX_MS: u64 = 253_402_300_799_999;

/// Longest value that is read. A record with 100 members is below 10 kB; a longer value is not ours.
const MAX_VALUE: usize = 64 * 1024;

/// No lease lasts this long, so no hold does. An agent never writes a longer hold into a record.
const MAX_HOLD: Duration = Duration::from_secs(24 * 3600);
/// Upper limit of a plausible clock drift; the configuration allows a fifth.
const MAX_DRIFT_PPM: u32 = 1_000_000;

/// `instances/<i>/record`: who is master. Only transactions that compare its revision change it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Schema of this value.
    pub schema: u32,
    /// Rises with every change of master.
    pub epoch: u64,
    /// The node that may hold the addresses.
    pub master: String,
    /// The one standby that is armed for fast takeover.
    pub successor: Option<String>,
    /// Nodes that may take over, admitted by the master.
    pub members: Vec<String>,
    /// Wall clock at the change of master, in milliseconds since 1970; for display only.
    pub since_ms: u64,
    /// Why the master changed, for display.
    pub reason: String,
    /// The old master, while it hands over to `master` and may still hold the addresses.
    #[serde(default)]
    pub handover: Option<String>,
    /// Number of consecutive automatic changes of master, each within the flap window of the previous one.
    #[serde(default)]
    pub flaps: u32,
    /// Heartbeat addresses of the members, so that they stay reachable while etcd is not.
    #[serde(default)]
    pub addresses: BTreeMap<String, SocketAddr>,
    /// Terms of the promises under this record; `None` if an older release wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
    /// Virtual addresses of the instance; empty if an older release wrote the record.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub vips: BTreeSet<IpAddr>,
}

/// Hold and drift that a promise counts by. The record states the most that its master counts by, and every contender
/// waits by it. So nodes with different settings never count one promise differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// `hold`, in nanoseconds.
    pub hold_ns: u64,
    /// `drift`, in millionths, rounded up.
    pub drift_ppm: u32,
}

impl Terms {
    /// Builds the terms of a node with these settings.
    #[must_use]
    pub fn new(hold: Duration, drift: f64) -> Self {
        let hold_ns = u64::try_from(hold.as_nanos()).unwrap_or(u64::MAX);
        // An out-of-range float becomes the end of the range. The configuration rejects such values.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let drift_ppm = (drift * 1e6).ceil() as u32;
        Self { hold_ns, drift_ppm }
    }

    /// Duration of a promise.
    #[must_use]
    pub const fn hold(self) -> Duration {
        Duration::from_nanos(self.hold_ns)
    }

    /// Largest difference in rate between two clocks, as a fraction.
    #[must_use]
    pub fn drift(self) -> f64 {
        f64::from(self.drift_ppm) / 1e6
    }

    /// Takes the longer hold and the greater drift of the two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { hold_ns: self.hold_ns.max(other.hold_ns), drift_ppm: self.drift_ppm.max(other.drift_ppm) }
    }

    fn is_sane(self) -> bool {
        self.hold() <= MAX_HOLD && self.drift_ppm <= MAX_DRIFT_PPM
    }
}

/// `nodes/<node>`, bound to the node's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// Schema of this value.
    pub schema: u32,
    /// The node's name, as in the key.
    pub name: String,
    /// Address that receives the node's heartbeats.
    pub address: SocketAddr,
    /// Random number of this run of the agent.
    pub boot: u64,
    /// The agent's version.
    pub version: String,
    /// Settings that should be equal on every node; `None` from an older release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Described>,
}

/// `paused`: while this key exists, whatever its value, no automatic change of master happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Schema of this value.
    pub schema: u32,
    /// Node on which the operator requested the pause.
    pub by: String,
    /// The operator's reason.
    pub reason: String,
    /// Wall-clock milliseconds since 1970.
    pub at_ms: u64,
}

/// `instances/<i>/alive`, bound to the master's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alive {
    /// Epoch of the put; 0 if the value is unreadable.
    pub epoch: u64,
    /// Lease that the key is bound to.
    pub lease: i64,
}

/// Content of the record key at a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// No record: no master was ever elected, or someone deleted it.
    Missing,
    /// A record.
    Good {
        /// Revision of its last change.
        revision: i64,
        /// The record; shared, because every heartbeat reads it.
        record: Arc<Record>,
    },
    /// A value that this version cannot read. The instance stays as it is.
    Unreadable {
        /// Revision of its last change.
        revision: i64,
        /// The fault and its repair.
        why: String,
    },
}

/// One linearizable read of all that an election needs, at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// The store's revision at the read.
    pub revision: i64,
    /// The record.
    pub record: Recorded,
    /// The master's sign of life.
    pub alive: Option<Alive>,
    /// Nodes with an existing key.
    pub nodes: BTreeSet<String>,
    /// Revision of each node's last registration; it outlives the node's key.
    pub runs: BTreeMap<String, i64>,
    /// The reader's own ticket.
    pub ticket: Option<String>,
    /// The ticket replaced an earlier one: of this process, or of a process with the same name before it.
    pub rewritten: bool,
    /// The value of the pause key, if automatic changes of master are paused in the whole cluster.
    pub paused: Option<String>,
}

#[derive(Deserialize)]
struct SchemaOnly {
    schema: u32,
}

fn decode<T: for<'a> Deserialize<'a>>(value: &[u8]) -> Result<T, String> {
    if value.len() > MAX_VALUE {
        return Err(format!("the value has {} bytes; the limit is {MAX_VALUE}", value.len()));
    }
    let SchemaOnly { schema } =
        serde_json::from_slice(value).map_err(|e| format!("keepcall did not write the value ({e})"))?;
    if schema > SCHEMA {
        return Err(format!(
            "the value has schema {schema}, and this release reads up to {SCHEMA}: upgrade keepcall on this node"
        ));
    }
    serde_json::from_slice(value).map_err(|e| e.to_string())
}

/// Checks a node name by the rule of the configuration.
fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Rejects a record that no master writes, even if its JSON is valid.
fn check(r: Record) -> Result<Record, String> {
    let names =
        std::iter::once(&r.master).chain(&r.successor).chain(&r.handover).chain(&r.members).chain(r.addresses.keys());
    if r.epoch == 0 || r.epoch > MAX_EPOCH {
        return Err(format!("epoch {} is out of range", r.epoch));
    }
    if r.members.len().max(r.addresses.len()) > MAX_MEMBERS {
        return Err(format!("the record has more than {MAX_MEMBERS} members"));
    }
    if r.since_ms > MAX_MS {
        return Err(format!("since_ms {} is not a valid time", r.since_ms));
    }
    if let Some(t) = r.terms.filter(|t| !t.is_sane()) {
        return Err(format!("a hold of {:?} and a drift of {} are outside the allowed ranges", t.hold(), t.drift()));
    }
    if let Some(name) = names.into_iter().find(|n| !is_name(n)) {
        return Err(format!("{name:?} is not a valid node name"));
    }
    Ok(r)
}

/// Reads the value of a record key.
#[must_use]
pub fn read_record(key: &str, value: &[u8], revision: i64) -> Recorded {
    match decode::<Record>(value).and_then(check) {
        Ok(record) => Recorded::Good { revision, record: Arc::new(record) },
        Err(e) => Recorded::Unreadable {
            revision,
            why: format!(
                "cannot use the value of {key} in etcd: {e}; no node takes over until the value is repaired. To \
                 start afresh, stop the agents of this cluster, run `etcdctl del {key}`, and start the agents"
            ),
        },
    }
}

/// Reads the value of a node key.
///
/// # Errors
/// What is wrong with the value, in words.
pub fn read_node(key: &str, value: &[u8]) -> Result<NodeEntry, String> {
    let good = |n: NodeEntry| {
        if !is_name(&n.name) {
            return Err(format!("{:?} is not a valid node name", n.name));
        }
        if n.address.port() == 0 || n.address.ip().is_unspecified() || n.address.ip().is_multicast() {
            return Err(format!("cannot send heartbeats to {}", n.address));
        }
        Ok(n)
    };
    decode(value).and_then(good).map_err(|e| {
        format!("cannot use the value of {key} in etcd: {e}; the node's agent writes the value again at its next start")
    })
}

/// Says in words why the cluster is paused. Any value counts: only the presence of the key matters.
#[must_use]
pub fn describe_pause(value: &str) -> String {
    match decode::<Paused>(value.as_bytes()) {
        Ok(p) if p.reason.is_empty() => format!("paused on {}", p.by),
        Ok(p) => format!("paused on {}: {}", p.by, p.reason),
        Err(e) => format!("paused by a value that cannot be read ({e}); `keepcall resume` removes the value"),
    }
}

/// Reads the value of an `alive` key: the epoch in decimal.
#[must_use]
pub fn read_alive(value: &[u8], lease: i64) -> Alive {
    let epoch = std::str::from_utf8(value).ok().and_then(|s| s.parse().ok()).filter(|e| *e <= MAX_EPOCH).unwrap_or(0);
    Alive { epoch, lease }
}

/// Encodes a value as JSON.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // These types hold only strings, numbers and maps with string keys, which always have a JSON form.
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
