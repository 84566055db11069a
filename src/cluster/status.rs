//! The cluster's status for display.

use super::election::{Candidate, HoldKind, Role};
use super::settings::Difference;
use crate::etcd::EndpointHealth;
use serde::{Deserialize, Serialize};

/// The whole cluster, as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Each instance that this node takes part in.
    pub instances: Vec<InstanceStatus>,
    /// Each known node.
    pub nodes: Vec<NodeStatus>,
    /// Each etcd endpoint.
    pub etcd: Vec<EndpointHealth>,
    /// The reason, if automatic changes of master are paused.
    pub paused: Option<String>,
    /// Settings of other nodes that differ from this node's.
    pub differences: Vec<Difference>,
    /// Rejected datagrams since the start.
    pub rejected_datagrams: u64,
    /// Longest time the election's thread was ready to run but not scheduled, since the start, in milliseconds.
    pub longest_late_ms: u64,
    /// Longest round of the election since the start, in milliseconds; a round waits only for the kernel.
    pub longest_round_ms: u64,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its name.
    pub name: String,
    /// This node's role.
    pub role: Role,
    /// The master, as the record names it.
    pub master: Option<String>,
    /// The armed successor.
    pub successor: Option<String>,
    /// The epoch; 0 if there is no record.
    pub epoch: u64,
    /// When the master changed, in milliseconds since 1970.
    pub since_ms: u64,
    /// Why it changed.
    pub reason: String,
    /// What this node's hold rests on, if it holds.
    pub hold: Option<HoldKind>,
    /// The hold by which promises count now, in milliseconds: the master's, from the record. 0 if unknown.
    pub promise_ms: u64,
    /// Remaining time of the hold without another promise, in milliseconds.
    pub remaining_ms: u64,
    /// The members.
    pub members: Vec<String>,
    /// The other nodes, with what bars each from being the next master (meaningful on the master).
    pub candidates: Vec<Candidate>,
    /// Hold-down after too many quick changes of master: milliseconds until the next deferrable change; 0 without one.
    pub held_down_ms: u64,
    /// The fault that needs manual repair, if any.
    pub problem: Option<String>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Address that receives its heartbeats.
    pub address: Option<String>,
    /// Its fitness in the last message; `None` if no message arrived yet.
    pub fit: Option<bool>,
    /// Its summary; only this node has one.
    pub summary: String,
    /// Milliseconds since its last message; `None` if no message arrived yet.
    pub last_heard_ms: Option<u64>,
    /// Its priority, if a message arrived.
    pub priority: Option<u16>,
    /// True for this node.
    #[serde(rename = "self")]
    pub me: bool,
}
