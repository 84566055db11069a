//! The protocol between command line and agent: one JSON line with a [`Request`], one with a [`Reply`].
//!
//! Plain data: the agent maps its own state into these values, and `--json` prints them unchanged. Fields are only ever
//! added, and readers ignore unknown fields, so that a command line and an agent of different versions work together.

mod status;

use serde::{Deserialize, Serialize};

use crate::calls::latching::MediaCounters;
use crate::calls::tracker::Learning;
use crate::cluster::settings::Difference;
use crate::config::Mode;
use crate::health::CheckStatus;
use crate::hep::intake::Counters as HepCounts;
use crate::pbx::ConnectedTo;
use crate::pbx::driver::ServerStatus;
use crate::pbx::former_calls::Former;
use crate::recovery::deed::Forecast;
use crate::recovery::tally::Tally;
use crate::wire::capture::CaptureCounters;
pub use status::{
    CallCounts, CallRow, Candidate, Candidates, Conflict, ElectionStatus, EndpointStatus, EtcdChange, EtcdStatus,
    HistoryEntry, HoldStatus, InstanceStatus, LegRow, NodeStatus, Outcomes, PartStatus, Phase, RelayCounts, Status,
    StoreCounts, Switchover,
};

/// A question or an order to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The state of everything; answered by [`Reply::Status`].
    Status,
    /// The nodes that could become master, and the reasons against the others; answered by [`Reply::Candidates`].
    Candidates {
        /// Name of the instance; may be absent if the agent has only one.
        instance: Option<String>,
    },
    /// Hand the instance over; answered by [`Reply::Switchover`] once done, or by [`Reply::Error`].
    Switchover {
        /// Name of the instance; may be absent if the agent has only one.
        instance: Option<String>,
        /// The node to hand over to; the best candidate if absent.
        to: Option<String>,
    },
    /// Pause automatic changes of master in the whole cluster; answered by [`Reply::Paused`].
    Pause {
        /// The reason shown in the status; may be empty.
        reason: String,
    },
    /// End the pause; answered by [`Reply::Paused`].
    Resume,
    /// Remove a node that is gone for good from an instance's members; answered by [`Reply::Forgot`].
    Forget {
        /// Name of the instance; may be absent if the agent has only one.
        instance: Option<String>,
        /// The node.
        node: String,
    },
    /// Show or change what agents may do with an instance's calls, in the whole cluster; answered by [`Reply::Mode`].
    Mode {
        /// Name of the instance; may be absent if the agent has only one.
        instance: Option<String>,
        /// The change; absent to show only.
        #[serde(default)]
        change: Option<ModeChange>,
    },
    /// The stored or carried calls; answered by [`Reply::Calls`].
    Calls {
        /// Only the calls of this instance.
        instance: Option<String>,
    },
    /// Changes of master, newest first; answered by [`Reply::History`].
    History {
        /// Only the changes of this instance.
        instance: Option<String>,
        /// Most entries to return.
        limit: usize,
    },
}

/// The agent's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Candidates`].
    Candidates(Candidates),
    /// To [`Request::Switchover`].
    Switchover(Switchover),
    /// To [`Request::Pause`] and [`Request::Resume`].
    Paused(PauseState),
    /// To [`Request::Forget`].
    Forgot(Forgot),
    /// To [`Request::Mode`].
    Mode(ModeReply),
    /// To [`Request::Calls`].
    Calls(Vec<CallRow>),
    /// To [`Request::History`].
    History(Vec<HistoryEntry>),
    /// The request cannot be met.
    Error(ApiError),
}

/// Whether the cluster is paused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseState {
    /// Whether automatic changes of master are paused now.
    pub paused: bool,
    /// Whether they were paused before.
    pub before: bool,
}

/// A node removed from the members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgot {
    /// The instance.
    pub instance: String,
    /// The node.
    pub node: String,
}

/// A change of the mode in etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModeChange {
    /// This mode applies from now on, on every node.
    Set(Mode),
    /// The mode in etcd is removed: each node follows its configuration.
    Configured,
}

/// The mode of an instance, possibly just changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeReply {
    /// The instance.
    pub instance: String,
    /// The current mode.
    pub now: ModeStatus,
    /// Calls that this node carries or relays after a takeover.
    pub carried: usize,
}

/// What agents may do with the calls of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModeStatus {
    /// The mode in force on this node; `None` until etcd says whether a mode was set. Until then calls wait.
    pub mode: Option<Mode>,
    /// `configuration`, or `etcd` if `keepcall mode` set it.
    pub source: String,
    /// The node on which it was set.
    pub set_by: Option<String>,
    /// When it was set, in wall-clock milliseconds since 1970.
    pub set_ms: Option<u64>,
    /// The mode in force on each node, as reported by that node.
    pub nodes: Vec<NodeMode>,
    /// Why the mode in etcd cannot be read; the previous mode then stays in force.
    pub problem: Option<String>,
}

/// The mode in force on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeMode {
    /// The node.
    pub node: String,
    /// Its mode; `None` if it reports none: an older release, which does everything.
    pub mode: Option<Mode>,
}

impl ModeStatus {
    /// The nodes with another mode than this node, in words; `None` if all agree.
    #[must_use]
    pub fn mixed(&self) -> Option<String> {
        let mode = self.mode?;
        let mut parts: Vec<String> = self
            .nodes
            .iter()
            .filter_map(|n| n.mode.filter(|m| *m != mode).map(|m| format!("{} uses {m}", n.node)))
            .collect();
        // An older release does what `full` does.
        let silent: Vec<&str> = self.nodes.iter().filter(|n| n.mode.is_none()).map(|n| n.node.as_str()).collect();
        if !silent.is_empty() && mode != Mode::Full {
            parts.push(format!("no mode reported by {}: an older release works as in mode full", silent.join(" and ")));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// Why a request cannot be met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// What stood in the way.
    pub message: String,
    /// What to do about it; may be empty.
    #[serde(default)]
    pub advice: String,
    /// Its kind, for exit codes.
    #[serde(default)]
    pub kind: ErrorKind,
}

/// Kinds of [`ApiError`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Tried, and failed.
    #[default]
    Failed,
    /// The request makes no sense to this agent: an unknown instance or node.
    Invalid,
    /// Not tried: no node is a candidate, or the requested node is none.
    Refused,
}
