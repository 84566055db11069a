//! What goes into the recovery of calls, and what comes out of it.

use super::permitted::Ground;
use crate::calls::model::{CallEvent, Flow};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What the engine is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The instance whose calls these are.
    pub instance: String,
    /// This node, as it is written into stored calls.
    pub node: String,
    /// The instance's addresses.
    pub vips: Vec<IpAddr>,
    /// Where the relay may deliver.
    pub ground: Ground,
    /// UDP port of the agent's own SIP socket on each VIP.
    pub recovery_port: u16,
    /// Recoveries under way at one time; at least one.
    pub window: usize,
}

/// How a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Delivered to the agent's own socket: it is the agent's to answer.
    RecoveryPort,
    /// Seen on the server's port: the server gets it as well.
    Overheard,
    /// The server says that it sent or received it.
    Reported,
}

/// What the driver is to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send one datagram.
    Send {
        /// Our address and port; may be the server's, then it takes a raw socket.
        from: SocketAddr,
        /// The receiver.
        to: SocketAddr,
        /// One SIP message.
        payload: Vec<u8>,
    },
    /// Store, or remove from the store.
    Store(CallEvent),
    /// The relay paths of a call: replace what was there; empty removes the call from the relay.
    Flows {
        /// [`Call::id`](crate::calls::model::Call::id).
        call: String,
        /// All its paths.
        flows: Vec<Flow>,
    },
    /// The recovery of a call has ended; exactly one for each call given to [`Engine::start`](super::engine::Engine::start).
    Outcome {
        /// [`Call::id`](crate::calls::model::Call::id).
        call: String,
        /// How it ended.
        outcome: Outcome,
        /// Parties that accepted the re-INVITE.
        reinvited: u32,
        /// From the first re-INVITE to the last final answer.
        answered_after: Duration,
    },
}

/// How the recovery of a call ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Both parties accepted; the call is carried on.
    Recovered,
    /// A party no longer knew the call; the other was sent BYE.
    Gone,
    /// A party refused the re-INVITE and the call is carried on as it was; or (without a code) no re-INVITE was possible.
    Refused {
        /// The SIP status, if a phone refused.
        code: Option<u16>,
        /// Why, in words.
        reason: String,
    },
    /// A party did not answer; both were sent BYE.
    Unreachable,
    /// The other party is not known: the one that is was sent BYE.
    Unpaired,
    /// A party hung up while the recovery was under way.
    HungUp,
    /// Its audio is relayed, and no SIP is sent: the mode says so.
    Relayed,
    /// Nothing is done: the mode says so.
    Left,
}

/// Where a call is that was taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallState {
    /// In the queue.
    Waiting,
    /// Its re-INVITEs are under way.
    Recovering,
    /// Both parties have answered; the agent carries it.
    Carried,
    /// Its audio is relayed, and no SIP is sent.
    Relayed,
    /// It has ended; late packets are still answered.
    Over,
}

/// A call as `status` and `calls` show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallStatus {
    /// [`Call::id`](crate::calls::model::Call::id).
    pub call: String,
    /// Where it is.
    pub state: CallState,
    /// Whether it is an emergency call.
    pub emergency: bool,
    /// Relay paths in place.
    pub flows: usize,
    /// How the recovery ended, once it has.
    pub outcome: Option<Outcome>,
}
