//! What custody decides, and what it tells.

#[cfg(doc)]
use super::Custody;
use crate::calls::model::{Call, CallEvent};

/// What to do with stored calls.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The local server has the call: the tracker follows it.
    Adopt(Call),
    /// The former master's calls, or those of the local server that works no more: the engine recovers them.
    Recover(Vec<Call>),
    /// The local server's process ended, and no other node took over: the tracker gives these calls up, and the engine
    /// recovers them.
    RecoverOrphans(Vec<String>),
    /// Write the call, or remove it.
    Store(CallEvent),
    /// On a standby the relay carries exactly the stored flows of these calls; nothing for those that are gone.
    Arm(Vec<String>),
    /// The local server carries the audio of these calls itself: the relay lets go of them.
    Release(Vec<String>),
    /// The relay's contents are known, so the table of a former process may go.
    TakeRelay,
    /// Every former call is known, so a request for an unknown call may be refused.
    Complete,
    /// Read all stored calls again.
    ReadAgain,
    /// Find out which calls confirmed before `since_ms` (wall-clock milliseconds since 1970) the server has lost, and
    /// answer with [`Custody::handle_orphans`].
    FindOrphans {
        /// The start of the present process, or the end of the former one.
        since_ms: u64,
    },
    /// Tell the operator.
    Tell(News),
}

/// What an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Stored calls of the local server were found after this node became master again.
    OwnCalls {
        /// Their number.
        calls: usize,
        /// Whether the server works, so that it still has them.
        working: bool,
    },
    /// Somebody else deleted or changed this call, which is active here. It is stored again.
    PutBack {
        /// [`Call::id`].
        call: String,
    },
    /// etcd was replaced or restored.
    Replaced {
        /// Calls of ours that it lacks.
        missing: usize,
        /// Calls of former times that it holds.
        former: usize,
    },
    /// Calls that nobody carries any more are removed.
    Abandoned {
        /// Their number.
        calls: usize,
    },
    /// etcd has more calls than this node keeps.
    LeftOut {
        /// Their number.
        calls: usize,
    },
}
