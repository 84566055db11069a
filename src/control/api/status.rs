//! The state of an agent, its calls and its history, as sent to the command line.

use super::{
    CaptureCounters, CheckStatus, ConnectedTo, Difference, Forecast, Former, HepCounts, Learning, MediaCounters,
    ModeStatus, ServerStatus, Tally,
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
    /// Automatic changes of master are paused: the node that asked for the pause, and the reason.
    #[serde(default)]
    pub paused: Option<String>,
    /// The instances of this agent.
    pub instances: Vec<InstanceStatus>,
    /// Every node heard from, this one included.
    pub nodes: Vec<NodeStatus>,
    /// Settings of other nodes that differ from this node's.
    #[serde(default)]
    pub differences: Vec<Difference>,
    /// The parts of this agent that may fail on their own.
    #[serde(default)]
    pub parts: Vec<PartStatus>,
    /// The longest stalls of the election.
    #[serde(default)]
    pub election: ElectionStatus,
}

/// A part of the agent that may fail on its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PartStatus {
    /// `calls of` an instance, or `command line`.
    pub name: String,
    /// `running`, `restarting`, or `off`: it failed too often, and stays off until the agent restarts.
    pub state: String,
    /// Number of restarts.
    pub restarts: u32,
    /// Wall-clock milliseconds since 1970 of the last failure, or of the start.
    pub since_ms: u64,
    /// Its last failure.
    pub why: Option<String>,
    /// Messages that made it fail; it has skipped them since.
    pub passed_over: usize,
    /// Its longest stall since its last start, as the watchdog saw it: half a second at least.
    pub longest_stall_ms: u64,
}

/// The longest stalls of the election since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ElectionStatus {
    /// The longest time its thread was ready and did not get the processor.
    pub longest_late_ms: u64,
    /// The longest round: at work, or in the kernel, without a break.
    pub longest_round_ms: u64,
}

/// Health of etcd as seen from this agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EtcdStatus {
    /// Whether some endpoint answered the last request.
    pub healthy: bool,
    /// Why not: no endpoint answered, or etcd refused this node.
    #[serde(default)]
    pub error: Option<String>,
    /// The endpoints of the configuration.
    pub endpoints: Vec<EndpointStatus>,
    /// The last time since the agent's start that etcd turned out to be another one: restored from a backup, emptied,
    /// or replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<EtcdChange>,
}

/// A moment at which etcd turned out to be another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdChange {
    /// What was found.
    pub what: String,
    /// Wall-clock milliseconds since 1970.
    pub at_ms: u64,
    /// How often this has happened since the agent's start.
    pub count: u64,
}

/// Health of one etcd endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// As in the configuration.
    pub url: String,
    /// Whether its last answer was good.
    pub healthy: bool,
    /// Its last error, if it is not healthy.
    pub error: Option<String>,
    /// Its alarm, with the cure.
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
    /// This node's role, in lower case: `master`, `backup`, or a state between.
    pub role: String,
    /// The master, if there is one.
    pub master: Option<String>,
    /// Wall-clock milliseconds since 1970 at which the master took over; 0 without a master.
    pub since_ms: u64,
    /// Why that node became master.
    pub reason: String,
    /// Rises with every change of master.
    pub epoch: u64,
    /// The backup that is armed to take over fast.
    pub successor: Option<String>,
    /// The basis of this node's hold on the addresses, if it is master.
    pub hold: Option<HoldStatus>,
    /// The `hold` that promises use now, in milliseconds: the master's. 0 if unknown.
    #[serde(default)]
    pub promise_ms: u64,
    /// The nodes admitted by the master.
    pub members: Vec<String>,
    /// The master changed too often: milliseconds until the next change that can wait; 0 if there is no wait.
    #[serde(default)]
    pub held_down_ms: u64,
    /// What this node lacks for the instance; until then it is not elected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
    /// Other hosts that answer for its addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<Conflict>,
    /// What the agent may do with calls; `None` if the agent is older, or the instance has no calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ModeStatus>,
    /// Counts of calls.
    pub calls: CallCounts,
    /// The connection to the server itself, for its bridges; `None` without one: not configured, or this node is not
    /// master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerStatus>,
    /// The checks of the local server.
    pub checks: Vec<CheckStatus>,
    /// What would harm its calls on this host, each with its cure; empty from an older agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A hold on the virtual addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldStatus {
    /// `paired`, `failsafe`, `solo`, or `inherited` for an instant after a restart.
    pub kind: String,
    /// Milliseconds until it ends, unless renewed.
    pub remaining_ms: u64,
}

/// Another host that answers for an address of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// The host's hardware address.
    pub mac: String,
}

/// Counts of calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCounts {
    /// In etcd.
    pub stored: usize,
    /// Learnt from the local server's traffic.
    pub tracked: usize,
    /// Carried by this agent after a takeover.
    pub carried: usize,
    /// What a takeover now would leave of the stored calls; `None` from an older agent, or while the mode is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takeover: Option<Tally>,
    /// Storing of calls, and stored calls that are not used.
    #[serde(default)]
    pub store: StoreCounts,
    /// Packets captured from the server since the capture opened; `None` without a capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureCounters>,
    /// Counts of the sampled RTP packets.
    #[serde(default)]
    pub media: MediaCounters,
    /// HEP reports of the server; `None` if not configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hep: Option<HepCounts>,
    /// What the server of this backup still believes in; `None` from an older agent, while it is not known, or on a
    /// master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<Former>,
    /// Traffic the audio relay does not forward; `None` from an older agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayCounts>,
    /// The tracked dialogs of the local server, and what was not learnt; `None` on a backup, which learns nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning: Option<Learning>,
}

/// Traffic that the audio relay of an instance does not forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayCounts {
    /// Stored calls with audio that may not be relayed; `calls` says why.
    pub refused_calls: usize,
    /// Dropped packets of relayed calls: neither RTP, RTCP, STUN nor DTLS, nor UDPTL where T.38 was agreed.
    pub not_media: u64,
    /// Fragments, and packets with other headers before UDP.
    pub parts: u64,
    /// Packets that would have ended on this host.
    pub this_host: u64,
}

/// Counts of the storing of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreCounts {
    /// Calls whose newest state is not confirmed in etcd.
    pub waiting: usize,
    /// Changes that were not stored, since the agent's start.
    pub dropped: u64,
    /// Stored values that are no calls, or of a newer version.
    pub unreadable: usize,
    /// Stored values refused because they are not encrypted.
    pub plain_refused: usize,
    /// Stored values refused because somebody without this cluster's key made, changed, moved or put back them.
    pub foreign_refused: usize,
    /// Stored calls in use although they are not encrypted, or under a former key.
    pub outdated: usize,
}

/// The state of one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Where its agent receives heartbeats.
    pub address: Option<SocketAddr>,
    /// Whether it is fit for master.
    pub fit: bool,
    /// Why it is fit, or why not.
    pub summary: String,
    /// Milliseconds since its last heartbeat; `None` if it was never heard.
    pub last_heard_ms: Option<u64>,
    /// Higher is preferred among equally healthy nodes.
    pub priority: u16,
    /// Whether this is the answering node.
    #[serde(rename = "self")]
    pub is_self: bool,
}

/// The nodes that could take over an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidates {
    /// The instance.
    pub instance: String,
    /// Its current master.
    pub master: Option<String>,
    /// The current epoch.
    pub epoch: u64,
    /// Every other node, the best candidate first.
    pub candidates: Vec<Candidate>,
    /// What a takeover now would leave of the calls; `None` from an older agent, or if the agent does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<Tally>,
}

/// A node that could take over, or the reasons against it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The node.
    pub node: String,
    /// Its priority.
    pub priority: u16,
    /// Reasons why it cannot take over; empty if it can.
    pub against: Vec<String>,
}

/// A completed switchover.
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
    /// Its key in etcd.
    pub id: String,
    /// Its instance.
    pub instance: String,
    /// The node that wrote it.
    pub node: String,
    /// The epoch in which it was written.
    pub epoch: u64,
    /// `up` (stored, the server carries it), `recovering`, `carried` (the agent carries it), `relayed` (the agent
    /// relays its audio and sends no SIP), or the outcome of its recovery.
    pub state: String,
    /// Wall-clock milliseconds since 1970 of its confirmation.
    pub confirmed_ms: u64,
    /// Whether it is an emergency call.
    pub emergency: bool,
    /// How its legs were paired; `None` for a single leg.
    pub pairing: Option<String>,
    /// How certain the pairing is, from 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<u8>,
    /// What a single leg is connected to, if the server says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_end: Option<ConnectedTo>,
    /// Its legs.
    pub legs: Vec<LegRow>,
    /// Why some of its audio would not be relayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_relayed: Option<String>,
    /// What a takeover would leave of it: `kept`, `audio` (the parties hear each other, and nothing else works), `lost`,
    /// `doubtful` (an uncertain pair) or `over` (a party has hung up). Empty from an agent of an older release, or while
    /// the mode is not known.
    #[serde(default)]
    pub takeover: String,
    /// Why it would not be kept, or what of a kept call would not work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_kept: Option<String>,
    /// Whose audio was missing when the relay counted it, in the first seconds after the takeover that recovered the
    /// call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent: Option<String>,
}

/// A leg of a call in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegRow {
    /// Call-ID.
    pub call_id: String,
    /// `inbound` or `outbound`, as the server sees it.
    pub direction: String,
    /// Transport of its SIP: `udp`, `tcp`, `tls` or `ws`.
    #[serde(default)]
    pub transport: String,
    /// URI of the server's side.
    pub local: String,
    /// URI of the phone's side.
    pub remote: String,
    /// The real source of the phone's SIP.
    pub remote_addr: Option<SocketAddr>,
    /// Where the phone receives audio, if known.
    pub media: Option<SocketAddr>,
    /// The real source of its audio, if different.
    #[serde(default)]
    pub media_source: Option<SocketAddr>,
    /// Names of the codecs in force.
    pub codecs: Vec<String>,
    /// Why a takeover would not re-INVITE this party: an incompletely known dialog, or its transport.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
}

/// One change of master.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The instance.
    pub instance: String,
    /// The epoch that began with it.
    pub epoch: u64,
    /// The new master.
    pub master: String,
    /// The master before.
    pub previous: Option<String>,
    /// `first`, `fast`, `slow`, `handover`, `resumed` or `restarted`. Also `conflict`: another host answers for an
    /// address that `master` holds; and `part`: the master's part with the calls failed and was restarted.
    pub cause: String,
    /// Why, in words.
    pub reason: String,
    /// Wall-clock milliseconds since 1970.
    pub at_ms: u64,
    /// Time of each step, in order.
    pub phases: Vec<Phase>,
    /// Outcome of the calls.
    pub calls: Outcomes,
    /// What the mode in force (the first) was to do with the calls, and what each mode above it would have done. Empty
    /// in entries of older releases.
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

/// Outcome of the calls of a takeover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcomes {
    /// All stored calls.
    pub total: usize,
    /// Both parties accepted the re-INVITE.
    pub recovered: usize,
    /// A party hung up, or was gone for certain.
    pub gone: usize,
    /// A party refused the re-INVITE.
    pub refused: usize,
    /// A party did not answer. What is left of the call goes on.
    pub unreachable: usize,
    /// The second leg was unknown. The call is left alone.
    pub unpaired: usize,
    /// The new server, a proxy, carries them.
    pub proxied: usize,
    /// The audio is relayed without SIP: the mode was `audio`, or no correct request could be sent.
    pub relayed: usize,
    /// Left alone: the mode was `observe`, or there was nothing to relay.
    pub left: usize,
    /// Recovered calls of which the relay counted audio of one party only in the first seconds, and nobody was on hold.
    pub one_way: usize,
    /// Recovered calls of which it counted none, and nobody was on hold.
    pub silent: usize,
}
