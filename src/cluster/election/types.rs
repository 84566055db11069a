//! The values that go in and out of an election.

use crate::cluster::record::{Record, Terms};
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What does not change while the agent runs.
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
    /// How long it must have been better.
    pub preempt_delay: Duration,
    /// So many automatic changes of master may follow each other quickly; after that, those that can wait do.
    pub flap_budget: u32,
    /// Changes further apart than this do not count as quick. Also the longest wait.
    pub flap_window: Duration,
    /// The instance's virtual addresses on this node.
    pub vips: BTreeSet<IpAddr>,
    /// What this node says of its settings with each message.
    pub told: Told,
    /// A rule that is left out, to prove that the tests would notice.
    #[cfg(test)]
    pub(crate) fault: Option<Fault>,
}

/// Rules that a test can switch off.
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
    PairedUnvouched,
    NoClaimWait,
    EpochAgain,
    FirstDeaf,
    FirstBlind,
    AckNoRecord,
    OldVouch,
    FirstForgetful,
    RestoredBelieved,
    PauseForgotten,
    ForgetLiving,
    // Of the driver; the simulation plays its part.
    ReturnUnseen,
    LeaseNoDrift,
    LeaseFromReply,
    SlowUncompared,
    KernelLate,
    AdoptFull,
    CopyRefusal,
    FirstCopied,
    // Of nodes with unlike settings.
    OwnHold,
    OwnWait,
    TermsEarly,
    ClaimTerms,
    StrangerTakes,
    StrangerArmed,
}

/// What a node says of its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// What it counts by, if the record does not say less.
    pub terms: Terms,
    /// Digest of the instance's virtual addresses there.
    pub vips: u64,
    /// Digest of all other settings that should be equal on every node.
    pub others: u64,
}

/// A lease of this node, as the driver knows it. The node's key is bound to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseState {
    /// etcd's number of the lease.
    pub id: i64,
    /// Until when it certainly lives: *send* time of the last good renewal + granted time, less the drift.
    pub until: Time,
}

/// What an election says to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which message.
    pub kind: Kind,
    /// The sender's epoch (of a `Beat`: the one it holds under).
    pub epoch: u64,
    /// Whether the sender's server is fit.
    pub fit: bool,
    /// The sender's priority.
    pub priority: u16,
    /// Of the sender's settings; `None` from an older release.
    pub told: Option<Told>,
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
        /// The sender's lease is valid, and since it was granted it read the record with the heartbeat's sender as master.
        vouch: bool,
    },
    /// To the old master: the handover's record is mine, and my sign of life is in etcd.
    Claimed,
    /// To the new master: I have let go.
    Go,
}

/// Something to ask of etcd. Each request is answered by `handle_reply` or `handle_failure` with its number, once.
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

/// A transaction on the record. All compares must hold; either way a view is read in the same transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The record's revision must be this; 0: there must be none.
    pub base: i64,
    /// This node's ticket must have this value.
    pub ticket: String,
    /// These nodes' keys must not exist.
    pub nodes_gone: Vec<String>,
    /// The last registrations of these nodes must have these revisions: none of them came back and went again meanwhile.
    pub runs: Vec<(String, i64)>,
    /// `alive` must not exist.
    pub alive_gone: bool,
    /// The cluster must not be paused: nobody asked for this change of master.
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
    /// It was certainly not done, and will not be.
    Definite,
    /// It may have been done, or may still be.
    InDoubt,
}

/// Why a node became master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// There was no master before.
    First,
    /// The armed successor heard nothing for `hold`.
    Fast,
    /// The master's lease ran out.
    Slow,
    /// The old master handed over.
    Handover {
        /// Why it did.
        reason: String,
    },
    /// This node was master all along, and its right had run out for a while.
    Resumed,
    /// This node holds all along: its agent was restarted while the right of the process before still ran.
    Restarted,
}

/// Why a master wants another one in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Operator,
    Stop,
    Unfit,
    Preempt,
    /// The record's addresses are not ours.
    Settings,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // Lives until it is carried out; a box would only cost an allocation.
pub enum Action {
    /// Send to a node.
    Send {
        /// Its name.
        to: Arc<str>,
        /// The message.
        message: Message,
    },
    /// Ask etcd.
    Store {
        /// Number to answer with.
        id: u64,
        /// The request.
        request: Request,
    },
    /// Hold the addresses from now on, until [`super::Election::hold`] says otherwise.
    Take {
        /// The epoch.
        epoch: u64,
        /// Why.
        cause: Cause,
        /// The master before.
        previous: Option<String>,
        /// When the need was seen.
        detected: Time,
        /// When etcd's answer arrived.
        committed: Time,
    },
    /// Let go of the addresses now, and say `released`.
    Drop {
        /// The epoch that was held.
        epoch: u64,
        /// Why, for people.
        reason: String,
        /// Whether the next master waits for `released` (so that state can be flushed first).
        handover: bool,
    },
    /// The role or the record changed; status is worth a look.
    Changed,
    /// The answer to `switchover`: the new epoch, or why not.
    Switched(Result<u64, Vec<Candidate>>),
    /// The answer to `forget`: done, or why not.
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

/// This node's part in an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Has not read the record yet, or there is none.
    Unknown,
    /// Another node is master.
    Backup,
    /// Is master, and holds the addresses.
    Master,
    /// Is master by the record, and must not hold the addresses now.
    Waiting,
    /// Is master, and hands over.
    Leaving,
}

/// What a hold stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HoldKind {
    /// The successor's acks.
    Paired,
    /// The acks of all members, while etcd cannot be asked.
    Failsafe,
    /// The lease; there is no successor.
    Solo,
    /// What the process before this one held; nothing of its own yet.
    Inherited,
}

/// What a process finds of the right of the process before it on the same host: the kernel still lets the host answer.
///
/// The kernel's deadline is the only memory of a right. It never is later than the right itself, because it is lowered before
/// a transaction leaves that would shorten the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    /// The epoch under which it was held.
    pub epoch: u64,
    /// Until when the kernel lets the host answer.
    pub until: Time,
}
