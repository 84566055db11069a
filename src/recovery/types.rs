//! Inputs and outputs of the recovery engine.

use super::heard::Hearing;
use super::permitted::Ground;
use crate::calls::model::{Call, CallEvent, Flow};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Fixed settings of the engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The instance that owns the calls.
    pub instance: String,
    /// This node's name in stored calls.
    pub node: String,
    /// The instance's addresses.
    pub vips: Vec<IpAddr>,
    /// The addresses the relay may forward to.
    pub ground: Ground,
    /// UDP port of the agent's own SIP socket on each VIP.
    pub recovery_port: u16,
    /// Most recoveries at one time, at least one.
    pub window: usize,
    /// Silence that counts as the end of a party's audio.
    pub rtp_timeout: Duration,
    /// Longest time that a call is carried after a takeover. `None`: as long as its parties talk.
    pub max_carried: Option<Duration>,
    /// A disabled rule, to prove that the tests notice.
    #[cfg(test)]
    pub(crate) fault: Option<Fault>,
}

/// Rules that a test can disable.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The first doubt ends the call.
    DoubtIsEvidence,
    /// Audio is no sign of life.
    AudioIgnored,
    /// Emergency calls are ended like others.
    EmergencyEnded,
    /// A call whose audio cannot pass is called recovered.
    DeafRecovered,
    /// The relay's paths end with the first answer that is no 2xx.
    PathsDropped,
    /// A message belongs to a dialog by its Call-ID alone.
    TagsIgnored,
    /// A response belongs to our request whatever its branch.
    BranchIgnored,
    /// RTCP counts as audio.
    RtcpIsAudio,
    /// A media server at an address that nobody is known to have is believed to live on.
    ForeignHeard,
}

impl Settings {
    /// Whether this rule is disabled.
    #[cfg(test)]
    pub(crate) fn lacks(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

/// How a packet arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Received on the agent's own socket. The agent must answer it.
    RecoveryPort,
    /// Captured on the server's port. The server receives it as well.
    Overheard,
    /// The server reported that it sent or received the packet.
    Reported,
}

/// Instructions to the driver, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send one datagram.
    Send {
        /// Our address and port. The server's port needs a raw socket.
        from: SocketAddr,
        /// Destination.
        to: SocketAddr,
        /// One SIP message.
        payload: Vec<u8>,
    },
    /// Writes to the store or deletes from it.
    Store(CallEvent),
    /// Replaces the relay paths of a call. An empty list removes the call from the relay.
    Flows {
        /// [`Call::id`](crate::calls::model::Call::id).
        call: String,
        /// All paths of the call.
        flows: Vec<Flow>,
    },
    /// The new server carries this call. Follow it like the server's own calls.
    HandOn {
        /// The call.
        call: Box<Call>,
        /// Its relay paths, which an action before this one has set. Empty if nothing of it is relayed.
        flows: Vec<Flow>,
    },
    /// Read the packet counters of a call's relay paths, and hand them to
    /// [`Engine::handle_counts`](super::engine::Engine::handle_counts).
    Count {
        /// [`Call::id`](crate::calls::model::Call::id).
        call: String,
    },
    /// The recovery of a call has ended. Exactly one for each new call given to
    /// [`Engine::start`](super::engine::Engine::start).
    Outcome {
        /// [`Call::id`](crate::calls::model::Call::id).
        call: String,
        /// The result.
        outcome: Outcome,
        /// Parties that accepted the re-INVITE.
        reinvited: u32,
        /// Time from the first re-INVITE to the last final response.
        answered_after: Duration,
        /// What the parties hear of each other now, if the call goes on.
        hearing: Option<Hearing>,
    },
    /// The first seconds of a recovered call are over. Exactly one follows each [`Outcome::Recovered`].
    Listened {
        /// [`Call::id`](crate::calls::model::Call::id).
        call: String,
        /// Whose audio the relay has counted.
        counted: Counted,
    },
}

/// Whose audio the relay has counted in the first seconds of a recovered call. No audio may be silence suppression, a
/// muted microphone, or a path that is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counted {
    /// Both parties'.
    Both,
    /// Only that of the party of this leg, 0 or 1.
    Only(usize),
    /// Nobody's.
    Neither,
    /// Not both, and a party is on hold.
    OnHold,
    /// The audio does not pass the relay.
    NotOurs,
    /// The counters could not be read, or the call has ended meanwhile.
    Unknown,
}

/// Result of a call's recovery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Both parties accepted, and the call is carried on.
    Recovered,
    /// A party was gone for certain, and the other was sent BYE: it did not know the call, twice, and its audio had
    /// stopped. Or no audio passed the relay for a minute, and no signalling was possible.
    Gone,
    /// A party refused the re-INVITE and the call is carried on as it was, or (without a code) no re-INVITE was
    /// possible, or the audio has no way.
    Refused {
        /// The SIP status, if a phone refused.
        code: Option<u16>,
        /// The reason, in words.
        reason: String,
    },
    /// A party did not answer, or did not know the call. What is left of the call goes on: its audio, and the other
    /// party's dialog.
    Unreachable,
    /// Only one party is known, and the call is left alone.
    Unpaired,
    /// A party hung up during the recovery.
    HungUp,
    /// The new server carries the call, because it is a proxy.
    Proxied,
    /// The audio is relayed and no SIP is sent: the mode forbids it, or none can be sent.
    Relayed,
    /// The call was left alone: the mode forbids more, or nothing can be done.
    Left,
}

/// State of a call after a takeover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallState {
    /// In the queue.
    Waiting,
    /// Its re-INVITEs are pending.
    Recovering,
    /// Both parties have answered, and the agent carries the call.
    Carried,
    /// The audio is relayed without any signalling.
    Relayed,
    /// Nothing can be done for the call, but it has not ended.
    Left,
    /// The call has ended. Late packets are still answered.
    Over,
}

/// A call as shown by `status` and `calls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallStatus {
    /// [`Call::id`](crate::calls::model::Call::id).
    pub call: String,
    /// State of the call.
    pub state: CallState,
    /// The call is an emergency call.
    pub emergency: bool,
    /// Number of relay paths in place.
    pub flows: usize,
    /// Result of the recovery, once it has ended.
    pub outcome: Option<Outcome>,
    /// Whose audio the relay has counted in the first seconds, if it was recovered.
    #[serde(default)]
    pub counted: Option<Counted>,
}
