//! What the cluster room tells people.

use super::election::{Candidate, HoldKind, Role};
use super::settings::Difference;
use crate::etcd::EndpointHealth;
use serde::{Deserialize, Serialize};

/// The whole picture, as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Each instance that this node takes part in.
    pub instances: Vec<InstanceStatus>,
    /// Each node that is known.
    pub nodes: Vec<NodeStatus>,
    /// Each etcd endpoint.
    pub etcd: Vec<EndpointHealth>,
    /// Automatic changes of master are paused, and why.
    pub paused: Option<String>,
    /// Settings of other nodes that differ from this node's.
    pub differences: Vec<Difference>,
    /// Datagrams that were not accepted, since the start.
    pub rejected_datagrams: u64,
    /// The longest that the election's thread was to run and did not, since the start, in milliseconds.
    pub longest_late_ms: u64,
    /// The longest that it took for one round, which waits for nobody but the kernel.
    pub longest_round_ms: u64,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its name.
    pub name: String,
    /// This node's part.
    pub role: Role,
    /// The master by the record.
    pub master: Option<String>,
    /// The armed successor.
    pub successor: Option<String>,
    /// The epoch; 0 if there is no record.
    pub epoch: u64,
    /// When the master changed, in milliseconds since 1970.
    pub since_ms: u64,
    /// Why it changed.
    pub reason: String,
    /// What this node's hold stands on, if it holds.
    pub hold: Option<HoldKind>,
    /// By which hold promises count now, in milliseconds: the master's, by the record. 0 if it is not known.
    pub promise_ms: u64,
    /// How long the hold lasts without another promise, in milliseconds.
    pub remaining_ms: u64,
    /// The members.
    pub members: Vec<String>,
    /// The other nodes, with what speaks against each as the next master (meaningful on the master).
    pub candidates: Vec<Candidate>,
    /// After too many quick changes of master: milliseconds until the next one that can wait; 0 if it need not.
    pub held_down_ms: u64,
    /// What a person must repair, if anything.
    pub problem: Option<String>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Where its heartbeats go.
    pub address: Option<String>,
    /// Its fitness as last heard; `None` if it was never heard.
    pub fit: Option<bool>,
    /// Its summary; of this node only.
    pub summary: String,
    /// Milliseconds since it was last heard; `None` if never.
    pub last_heard_ms: Option<u64>,
    /// Its priority, if it was heard.
    pub priority: Option<u16>,
    /// Whether it is this node.
    #[serde(rename = "self")]
    pub me: bool,
}
