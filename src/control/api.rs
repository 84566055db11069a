//! What the command line and the agent say to each other: one JSON line with a [`Request`], one with a [`Reply`].
//!
//! Plain data: the agent maps its own state into these values, and `--json` prints them as they are. Fields are only ever
//! added, and readers ignore what they do not know, so that a command line and an agent of different versions understand
//! each other.

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
use crate::recovery::deed::Forecast;
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
    /// Who could become master, and why others could not; answered by [`Reply::Candidates`].
    Candidates {
        /// Name of the instance; may be absent if the agent has only one.
        instance: Option<String>,
    },
    /// Hand the instance over; answered by [`Reply::Switchover`] when it is done, or [`Reply::Error`].
    Switchover {
        /// Name of the instance; may be absent if the agent has only one.
        instance: Option<String>,
        /// The node to hand over to; the best candidate if absent.
        to: Option<String>,
    },
    /// Pause automatic changes of master in the whole cluster; answered by [`Reply::Paused`].
    Pause {
        /// Why, for those who look at the status; may be empty.
        reason: String,
    },
    /// End the pause; answered by [`Reply::Paused`].
    Resume,
    /// Take a node that is gone for good out of an instance's members; answered by [`Reply::Forgot`].
    Forget {
        /// Name of the instance; may be absent if the agent has only one.
        instance: Option<String>,
        /// The node.
        node: String,
    },
    /// Show or change how far the agents may go with an instance's calls, in the whole cluster; answered by [`Reply::Mode`].
    Mode {
        /// Name of the instance; may be absent if the agent has only one.
        instance: Option<String>,
        /// What to change; nothing if absent.
        #[serde(default)]
        change: Option<ModeChange>,
    },
    /// The calls that are stored or carried; answered by [`Reply::Calls`].
    Calls {
        /// Only those of this instance.
        instance: Option<String>,
    },
    /// Changes of master, newest first; answered by [`Reply::History`].
    History {
        /// Only those of this instance.
        instance: Option<String>,
        /// At most so many entries.
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
    /// Whether they were before.
    pub before: bool,
}

/// A node that was taken out of the members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgot {
    /// The instance.
    pub instance: String,
    /// The node.
    pub node: String,
}

/// What becomes of the mode that is set in etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModeChange {
    /// This one counts from now on, on every node.
    Set(Mode),
    /// None is set any more: each node obeys its configuration.
    Configured,
}

/// The mode of an instance, as it is or was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeReply {
    /// The instance.
    pub instance: String,
    /// How it is now.
    pub now: ModeStatus,
    /// Calls that this node carries or relays after a takeover.
    pub carried: usize,
}

/// How far agents may go with the calls of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModeStatus {
    /// What this node obeys; `None` while etcd has not told what was set: then calls wait.
    pub mode: Option<Mode>,
    /// `configuration`, or `etcd` if it was set by `keepcall mode`.
    pub source: String,
    /// The node on which it was set.
    pub set_by: Option<String>,
    /// When it was set, in wall-clock milliseconds since 1970.
    pub set_ms: Option<u64>,
    /// What each node says that it obeys.
    pub nodes: Vec<NodeMode>,
    /// Why what is in etcd cannot be read; then what was in force stays.
    pub problem: Option<String>,
}

/// The mode that a node obeys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeMode {
    /// The node.
    pub node: String,
    /// Its mode; `None` if it tells of none: an older release, which does all.
    pub mode: Option<Mode>,
}

impl ModeStatus {
    /// In words, which nodes do not obey this node's mode; `None` if all do.
    #[must_use]
    pub fn mixed(&self) -> Option<String> {
        let mode = self.mode?;
        let mut parts: Vec<String> = self
            .nodes
            .iter()
            .filter_map(|n| n.mode.filter(|m| *m != mode).map(|m| format!("{} obeys {m}", n.node)))
            .collect();
        // What an older release does is what `full` does.
        let silent: Vec<&str> = self.nodes.iter().filter(|n| n.mode.is_none()).map(|n| n.node.as_str()).collect();
        if !silent.is_empty() && mode != Mode::Full {
            parts.push(format!("{} told of no mode: an older release does all", silent.join(" and ")));
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
    /// Of what kind it is, for exit codes.
    #[serde(default)]
    pub kind: ErrorKind,
}

/// Kinds of [`ApiError`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// It was tried, and failed.
    #[default]
    Failed,
    /// The request makes no sense to this agent: an unknown instance or node.
    Invalid,
    /// It was not tried: no node is a candidate, or the one that was asked for is none.
    Refused,
}
