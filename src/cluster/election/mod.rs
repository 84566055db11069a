//! Who may hold an instance's addresses, and until when. Pure: time, messages and etcd's answers come in, actions go out.
//!
//! The rules, their reasons and the safety argument are in `docs/election.md`. In short: an ack is a
//! promise not to contend for `hold`; a master holds until the latest deadline that such promises (or, without a
//! successor, its lease) give; it lowers that deadline before it gives anyone else a right; and a transaction whose outcome
//! is unknown is voided by a new ticket before the node promises anything again.
//!
//! Order of calls: any `handle_*` or setter, then `poll_action` until `None`, then publish [`Election::hold`] *before*
//! the actions are carried out (a lowered deadline must be in force when a transaction leaves), then wait for input or until
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
    Action, Candidate, Cause, Commit, Failure, HoldKind, Inherited, Kind, LeaseState, Message, Request, Role, Settings,
    Told,
};
