//! The state of an agent, its calls and its history, as they are told.

use super::{
    CaptureCounters, CheckStatus, ConnectedTo, Difference, Forecast, HepCounts, Learning, MediaCounters, ModeStatus,
    ServerStatus,
};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// The state of the cluster as one agent sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the cluster.
    pub cluster: String,
    /// The agent's own node.
    pub node: String,
    /// The agent's version.
    pub version: String,
    /// The arbiter.
    pub etcd: EtcdStatus,
    /// Automatic changes of master are paused: on which node that was asked for, and why.
    #[serde(default)]
    pub paused: Option<String>,
    /// The instances that this agent takes part in.
    pub instances: Vec<InstanceStatus>,
    /// Every node that was heard of, this one included.
    pub nodes: Vec<NodeStatus>,
    /// Settings of other nodes that differ from those of this one.
    #[serde(default)]
    pub differences: Vec<Difference>,
    /// The parts of this agent that may fail without the rest.
    #[serde(default)]
    pub parts: Vec<PartStatus>,
    /// How long the election stood still at most.
    #[serde(default)]
    pub election: ElectionStatus,
}

/// A part of the agent that may fail without the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PartStatus {
    /// `calls of` an instance, or `command line`.
    pub name: String,
    /// `running`, `restarting`, or `off`: then it failed too often, and stays so until the agent is restarted.
    pub state: String,
    /// How often it was started again.
    pub restarts: u32,
    /// Wall-clock milliseconds since 1970 of the last failure, or of the start.
    pub since_ms: u64,
    /// How it failed last.
    pub why: Option<String>,
    /// Messages on which it failed, and which are passed over since.
    pub passed_over: usize,
    /// The longest that it did not come back from something since it was started last, as the watchdog saw it: half a second at least.
    pub longest_stall_ms: u64,
}

/// How long the election stood still at most, since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ElectionStatus {
    /// The longest that its thread was to run and was not let run.
    pub longest_late_ms: u64,
    /// The longest that it was at work, or in the kernel, in one go.
    pub longest_round_ms: u64,
}

/// Health of etcd as seen from this agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EtcdStatus {
    /// Whether the last request was answered by some endpoint.
    pub healthy: bool,
    /// Why not: no endpoint answered, or etcd did not let this node in.
    #[serde(default)]
    pub error: Option<String>,
    /// Each endpoint of the configuration.
    pub endpoints: Vec<EndpointStatus>,
    /// etcd was found to be another one than before: restored from a backup, emptied, or exchanged. The last time since the start of
    /// the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<EtcdChange>,
}

/// A moment at which etcd was found to be another one than before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdChange {
    /// What was found.
    pub what: String,
    /// Wall-clock milliseconds since 1970.
    pub at_ms: u64,
    /// How often that was since the start of the agent.
    pub count: u64,
}

/// Health of one etcd endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// As in the configuration.
    pub url: String,
    /// Whether its last answer was good.
    pub healthy: bool,
    /// What went wrong last, if it is not.
    pub error: Option<String>,
    /// The alarm that it tells of, with the cure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<String>,
}

/// The state of one instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its name.
    pub name: String,
    /// Its virtual addresses with prefix lengths.
    pub addresses: Vec<String>,
    /// What this node is to it, in lower case: `master`, `backup`, or a state between.
    pub role: String,
    /// The master, if there is one.
    pub master: Option<String>,
    /// Wall-clock milliseconds since 1970 at which it became master; 0 if there is none.
    pub since_ms: u64,
    /// Why it became master.
    pub reason: String,
    /// Rises with every change of master.
    pub epoch: u64,
    /// The backup that is armed to take over fast.
    pub successor: Option<String>,
    /// What this node's right to hold the addresses rests on, if it is master.
    pub hold: Option<HoldStatus>,
    /// By which `hold` promises count now, in milliseconds: the master's. 0 if it is not known.
    #[serde(default)]
    pub promise_ms: u64,
    /// The nodes that the master has admitted.
    pub members: Vec<String>,
    /// The master changed too often: milliseconds until the next change that can wait; 0 if it need not.
    #[serde(default)]
    pub held_down_ms: u64,
    /// What this node needs for it and has not: it is not elected until that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
    /// Other hosts that answer for its addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<Conflict>,
    /// How far the agent may go with calls; `None` if the agent is older, or the instance has no calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ModeStatus>,
    /// Counts of calls.
    pub calls: CallCounts,
    /// The connection to the server itself, which tells of its bridges; `None` if it is not asked: not configured, or this node is
    /// not master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerStatus>,
    /// The checks of the local server.
    pub checks: Vec<CheckStatus>,
}

/// A right to answer for the virtual addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldStatus {
    /// `paired`, `failsafe`, `solo`, or `inherited` for an instant after a restart.
    pub kind: String,
    /// Milliseconds until it ends, if nothing renews it.
    pub remaining_ms: u64,
}

/// A host that answers for an address of ours, and is not this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// The host's hardware address.
    pub mac: String,
}

/// How many calls there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCounts {
    /// In etcd.
    pub stored: usize,
    /// Learnt from the local server's traffic.
    pub tracked: usize,
    /// Carried on by this agent after a takeover.
    pub carried: usize,
    /// How storing them goes, and what is stored that is not used.
    #[serde(default)]
    pub store: StoreCounts,
    /// What was captured of the server's traffic since the capture was opened; `None` while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureCounters>,
    /// What became of the sampled RTP packets.
    #[serde(default)]
    pub media: MediaCounters,
    /// What the server reported by HEP; `None` if that is not configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hep: Option<HepCounts>,
    /// What the audio relay does not forward; `None` from an older agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayCounts>,
    /// What is kept of the local server's dialogs, and what was not learnt; `None` on a backup, which learns nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning: Option<Learning>,
}

/// What the audio relay of an instance does not forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayCounts {
    /// Stored calls that have audio which may not be relayed; `calls` says why.
    pub refused_calls: usize,
    /// Packets of relayed calls that were dropped: neither RTP, RTCP, STUN nor DTLS, nor UDPTL where T.38 was agreed.
    pub not_media: u64,
    /// Fragments, and packets with other headers before UDP.
    pub parts: u64,
    /// Packets that would have ended on this host.
    pub this_host: u64,
}

/// How storing calls goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreCounts {
    /// Calls whose newest state is not known to be in etcd.
    pub waiting: usize,
    /// Changes that were not stored, since the start of the agent.
    pub dropped: u64,
    /// Stored values that are no calls, or of a newer version.
    pub unreadable: usize,
    /// Stored values that are not encrypted, and are refused for that.
    pub plain_refused: usize,
    /// Stored values that are refused because somebody without this cluster's key made, changed, moved or put back them.
    pub foreign_refused: usize,
    /// Stored calls that are used although they are not encrypted, or under a former key.
    pub outdated: usize,
}

/// The state of one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Where its agent hears heartbeats.
    pub address: Option<SocketAddr>,
    /// Whether it is fit to be master.
    pub fit: bool,
    /// Why it is, or is not.
    pub summary: String,
    /// Milliseconds since it was last heard; `None` if it never was.
    pub last_heard_ms: Option<u64>,
    /// Higher is preferred among equally healthy nodes.
    pub priority: u16,
    /// Whether it is the node that answers.
    #[serde(rename = "self")]
    pub is_self: bool,
}

/// Who could take an instance over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidates {
    /// The instance.
    pub instance: String,
    /// Its master now.
    pub master: Option<String>,
    /// The epoch now.
    pub epoch: u64,
    /// Every other node, the best candidate first.
    pub candidates: Vec<Candidate>,
}

/// One node that could take over, or could not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The node.
    pub node: String,
    /// Its priority.
    pub priority: u16,
    /// Reasons why it cannot take over; empty if it can.
    pub against: Vec<String>,
}

/// A switchover that was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switchover {
    /// The instance.
    pub instance: String,
    /// The master before.
    pub from: Option<String>,
    /// The master now.
    pub to: String,
    /// The epoch now.
    pub epoch: u64,
    /// Milliseconds from the request to the new master's claim.
    pub took_ms: u64,
}

/// A call in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRow {
    /// Its name in etcd.
    pub id: String,
    /// Its instance.
    pub instance: String,
    /// The node that wrote it.
    pub node: String,
    /// The epoch that it was written in.
    pub epoch: u64,
    /// `up` (stored, the server carries it), `recovering`, `carried` (the agent carries it), `relayed` (the agent relays its audio and
    /// says nothing), or how its recovery ended.
    pub state: String,
    /// Wall-clock milliseconds since 1970 at which it was confirmed.
    pub confirmed_ms: u64,
    /// Whether it is an emergency call.
    pub emergency: bool,
    /// How its legs were paired; `None` for a single leg.
    pub pairing: Option<String>,
    /// How certain the pairing is, from 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<u8>,
    /// What a single leg is connected to, if the server tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_end: Option<ConnectedTo>,
    /// Its legs.
    pub legs: Vec<LegRow>,
    /// Why audio of it would not be relayed, if some may not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_relayed: Option<String>,
}

/// A leg of a call in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegRow {
    /// Call-ID.
    pub call_id: String,
    /// `inbound` or `outbound`, as the server sees it.
    pub direction: String,
    /// How its SIP travels: `udp`, `tcp`, `tls` or `ws`.
    #[serde(default)]
    pub transport: String,
    /// URI of the server's side.
    pub local: String,
    /// URI of the phone's side.
    pub remote: String,
    /// Where the phone's SIP really comes from.
    pub remote_addr: Option<SocketAddr>,
    /// Where the phone receives audio, if it has told.
    pub media: Option<SocketAddr>,
    /// Where its audio really comes from, if that was seen to be another address.
    #[serde(default)]
    pub media_source: Option<SocketAddr>,
    /// Codecs in force, by name.
    pub codecs: Vec<String>,
    /// Why a takeover would not re-INVITE this party, if it would not: what is not known of the dialog, or its transport.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
}

/// One change of master.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The instance.
    pub instance: String,
    /// Its epoch since then.
    pub epoch: u64,
    /// The new master.
    pub master: String,
    /// The master before.
    pub previous: Option<String>,
    /// `first`, `fast`, `slow`, `handover`, `resumed` or `restarted`; `conflict` tells of another host that answers for an address
    /// while `master` holds it, and `part` that the master's part that has the calls failed and was started again.
    pub cause: String,
    /// Why, in words.
    pub reason: String,
    /// Wall-clock milliseconds since 1970.
    pub at_ms: u64,
    /// When each step was done, in the order of time.
    pub phases: Vec<Phase>,
    /// How the calls came through.
    pub calls: Outcomes,
    /// What was to be done with the calls in the mode that was in force (the first), and what each mode above it would have done.
    /// Empty in entries of older releases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forecast: Vec<Forecast>,
}

/// A step of a takeover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// `detected`, `committed`, `address`, `announced`, `relay`, `first-reinvite`, `last-reinvite` or `settled`.
    pub name: String,
    /// Wall-clock microseconds since 1970.
    pub unix_us: u64,
}

/// How the calls of a takeover came through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcomes {
    /// All that were stored.
    pub total: usize,
    /// Both parties took the re-INVITE.
    pub recovered: usize,
    /// A party had hung up meanwhile.
    pub gone: usize,
    /// A party refused the re-INVITE.
    pub refused: usize,
    /// A party did not answer.
    pub unreachable: usize,
    /// The second leg was not known.
    pub unpaired: usize,
    /// Its audio is relayed, and no SIP was sent: the mode was `audio`.
    pub relayed: usize,
    /// Nothing was done: the mode was `observe`, or `audio` and there is no audio to relay.
    pub left: usize,
}
