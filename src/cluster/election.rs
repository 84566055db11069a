//! Decides which node may hold an instance's addresses, and until when. Pure: time, messages and etcd's answers come
//! in, actions go out.
//!
//! The rules, their reasons and the safety argument are in `docs/election-proof.md`. In short: an ack is a promise not
//! to contend for `hold`. A master holds until the latest deadline that such promises give (or, without a successor,
//! its lease). It lowers that deadline before it gives any other node a right. A new ticket voids a transaction of
//! unknown outcome before the node promises again.
//!
//! Order of calls: any `handle_*` or setter, then `poll_action` until `None`. Publish [`Election::hold`] *before*
//! executing the actions: a lowered deadline must be in force when a transaction leaves. Then wait for input or until
//! [`Election::next_deadline`].

#[cfg(test)]
mod explore;
mod machine;
mod outcome;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
mod types;

pub use machine::Election;
pub use outcome::Outcome;
pub use types::{
    Action, Candidate, Cause, Commit, Failure, HoldKind, Inherited, Kind, LeaseState, MasterChange, Message,
    ReportedSettings, Request, Role, Settings,
};
