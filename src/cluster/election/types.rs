//! Inputs and outputs of an election.

use crate::cluster::record::{Record, Terms};
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Settings that stay fixed while the agent runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node's name.
    pub me: String,
    /// Random number of this run of the agent.
    pub boot: u64,
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// How long an ack binds its sender.
    pub hold: Duration,
    /// How far two clocks may differ in rate, as a fraction.
    pub drift: f64,
    /// Whether a better node takes over from a working master.
    pub preempt: bool,
    /// How long the node must have been better.
    pub preempt_delay: Duration,
    /// Number of quick automatic changes of master in a row; beyond it, deferrable changes wait.
    pub flap_budget: u32,
    /// Changes further apart than this do not count as quick. Also the longest wait.
    pub flap_window: Duration,
    /// The instance's virtual addresses on this node.
    pub vips: BTreeSet<IpAddr>,
    /// This node's settings, as it sends them with each message.
    pub reported: ReportedSettings,
    /// A disabled rule, to prove that the tests notice.
    #[cfg(test)]
    pub(crate) fault: Option<Fault>,
}

/// Rules that a test can disable.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    AckInDoubt,
    NoLowering,
    NoRestartSilence,
    NoSlowWait,
    GoEarly,
    ReceiveTime,
    AckOldEpoch,
    SlowBlind,
    KeepInherited,
    StaleVouch,
    NoDrift,
    TicketKept,
    FailsafeSome,
    SoloArmed,
    SoloUnread,
    PairedUnvouched,
    NoClaimWait,
    EpochAgain,
    FirstDeaf,
    FirstBlind,
    AckNoRecord,
    OldVouch,
    FirstForgetful,
    GapForgotten,
    RestoredBelieved,
    PauseForgotten,
    ForgetLiving,
    // Rules of the driver; the simulation plays its part.
    ReturnUnseen,
    LeaseNoDrift,
    LeaseFromReply,
    SlowUncompared,
    KernelLate,
    AdoptFull,
    CopyRefusal,
    FirstCopied,
    // Rules for nodes with different settings.
    OwnHold,
    OwnWait,
    TermsEarly,
    ClaimTerms,
    StrangerTakes,
    StrangerArmed,
}

/// A node's settings, as it reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportedSettings {
    /// Terms that the node counts by, unless the record names a shorter hold.
    pub terms: Terms,
    /// Digest of the instance's virtual addresses on that node.
    pub vips: u64,
    /// Digest of all other settings that should be equal on every node.
    pub others: u64,
}

/// This node's lease, as the driver knows it. The node's key is bound to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseState {
    /// etcd's lease number.
    pub id: i64,
    /// Certain end of its life: *send* time of the last good renewal + granted time, less the drift.
    pub until: Time,
}

/// A message from an election to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The kind of message.
    pub kind: Kind,
    /// The sender's epoch (in a `Beat`: the epoch of its hold).
    pub epoch: u64,
    /// Whether the sender's server is fit.
    pub fit: bool,
    /// The sender's priority.
    pub priority: u16,
    /// The sender's settings; `None` from an older release.
    pub reported: Option<ReportedSettings>,
}

/// The kinds of [`Message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The master's heartbeat.
    Beat {
        /// Its number in this run of the agent.
        beat: u64,
        /// The sender's run.
        boot: u64,
    },
    /// "I will not contend from now for the hold that the record names."
    Ack {
        /// The number of the heartbeat.
        beat: u64,
        /// The run of the heartbeat's sender.
        boot: u64,
        /// The sender's lease is valid. Since its grant, the sender has read the record with the heartbeat's sender as
        /// master.
        vouch: bool,
    },
    /// To the old master: I am master in the handover's record, and my `alive` key is in etcd.
    Claimed,
    /// To the new master: I have let go.
    Go,
}

/// A request to etcd. `handle_reply` or `handle_failure` answers each request once, by its number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // Lives for one transaction; a box would only cost an allocation.
pub enum Request {
    /// Read a view.
    Read,
    /// Put this node's ticket and read a view, in one transaction.
    Ticket(String),
    /// Change the record.
    Commit(Commit),
}

/// A transaction on the record. All compares must hold. In either case the transaction also reads a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Required revision of the record; 0 requires that no record exists.
    pub base: i64,
    /// Required value of this node's ticket.
    pub ticket: String,
    /// Nodes whose keys must not exist.
    pub nodes_gone: Vec<String>,
    /// Required revisions of these nodes' last registrations: no node came back and went away again meanwhile.
    pub runs: Vec<(String, i64)>,
    /// `alive` must not exist.
    pub alive_gone: bool,
    /// The cluster must not be paused: no operator requested this change of master.
    pub automatic: bool,
    /// The new record; the driver fills in the members' addresses.
    pub record: Arc<Record>,
    /// `Some(lease)`: put `alive` with it; `None`: delete `alive` if `drop_alive`.
    pub alive: Option<i64>,
    /// Delete `alive`: the record makes another node master, and our lease must not speak for it.
    pub drop_alive: bool,
}

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The request was certainly not executed, and never will be.
    Definite,
    /// The request may have been executed, or still may be.
    InDoubt,
}

/// Why a node became master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// No master existed before.
    First,
    /// The armed successor heard no heartbeat for `hold`.
    Fast,
    /// The master's lease ran out.
    Slow,
    /// The old master handed over.
    Handover {
        /// The reason for the handover.
        reason: String,
    },
    /// This node stayed master, but its right had lapsed for a while.
    Resumed,
    /// This node kept holding: its agent restarted while the previous process's right still ran.
    Restarted,
}

/// A change of master to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterChange {
    /// The new epoch.
    pub epoch: u64,
    /// Why this node became master.
    pub cause: Cause,
    /// The previous master.
    pub previous: Option<String>,
    /// When this node detected the need.
    pub detected: Time,
    /// When etcd's answer confirmed it.
    pub committed: Time,
}

/// Why a master wants another master in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandoverReason {
    Operator,
    Stop,
    Unfit,
    Preempt,
    /// The record's addresses are not ours.
    Settings,
}

/// Actions, to execute in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // Lives until it is carried out; a box would only cost an allocation.
pub enum Action {
    /// Send a message to a node.
    Send {
        /// Its name.
        to: Arc<str>,
        /// The message.
        message: Message,
    },
    /// Ask etcd.
    Store {
        /// Number for the answer.
        id: u64,
        /// The request.
        request: Request,
    },
    /// Hold the addresses from now on, until [`super::Election::hold`] says otherwise.
    Take(MasterChange),
    /// Drop the addresses now, and confirm with `released`.
    Drop {
        /// The epoch that was held.
        epoch: u64,
        /// The reason, for display.
        reason: String,
        /// Whether the next master waits for `released` (which leaves time to flush state first).
        handover: bool,
    },
    /// The role or the record changed: refresh the status.
    Changed,
    /// The answer to `switchover`: the new epoch, or the reasons against it.
    Switched(Result<u64, Vec<Candidate>>),
    /// The answer to `forget`: done, or the reason against it.
    Forgot(Result<(), String>),
}

/// A node, as a possible next master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name.
    pub node: String,
    /// Why it may not take over; `None` if it may.
    pub against: Option<String>,
}

/// This node's role in an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The record is unread or missing.
    Unknown,
    /// Another node is master.
    Backup,
    /// This node is master and holds the addresses.
    Master,
    /// This node is master by the record, but must not hold the addresses now.
    Waiting,
    /// This node was master and is handing over.
    Leaving,
}

/// The basis of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HoldKind {
    /// The successor's acks.
    Paired,
    /// The acks of all members, while etcd is unusable.
    Failsafe,
    /// The lease, without a successor.
    Solo,
    /// The previous process's hold, before any right of our own.
    Inherited,
}

/// The right that a process inherits from the previous process on the same host: the kernel still lets the host answer.
///
/// The kernel's deadline is the only memory of a right. It is never later than the right itself, because it is lowered
/// before a transaction leaves that would shorten the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// The epoch of the hold.
    pub epoch: u64,
    /// The kernel lets the host answer until this time.
    pub until: Time,
}
