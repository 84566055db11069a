//! keepcall moves a floating IP between SIP or media servers and keeps the active calls.
//!
//! Each module is a room with one concern. In each room the decisions are pure (values in, actions out), and thin
//! drivers do the I/O. `docs/architecture.md` has the reasons, and `tests/architecture/` holds the order below: a room
//! imports only rooms above it, and of these only the ones that it names there.
//!
//! - [`time`]: the instant that decisions receive
//! - [`os`]: system calls behind safe functions; all `unsafe` code
//! - [`budget`]: memory that strangers can fill, counted in bytes
//! - [`config`]: TOML to checked, typed values
//! - [`sip`]: messages, URIs and session descriptions as bytes with typed views
//! - [`wire`]: frames of this host, and the SIP messages in them
//! - [`hep`]: a SIP server's own copy of its messages
//! - [`pbx`]: AMI and ESL, a server's report of its bridges
//! - [`etcd`]: the client: deadlines, watches that reopen, which etcd answers
//! - [`cluster`]: who is master: the election, its heartbeat, and their driver
//! - [`health`]: whether the local server works
//! - [`vip`]: the addresses: kernel lease, announcements, fence
//! - [`calls`]: messages to legs, legs to calls, calls to etcd
//! - [`recovery`]: calls after a takeover: plan, relay, re-INVITEs, B2BUA
//! - [`inspect`]: a capture file as keepcall would see it
//! - [`control`]: the control socket, the command line, text for people
//! - [`agent`]: the loop of each instance, which joins the rooms

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

pub mod agent;
pub mod budget;
pub mod calls;
pub mod cluster;
pub mod config;
pub mod control;
pub mod etcd;
#[cfg(feature = "faults")]
mod faults;
mod fnv;
pub mod health;
pub mod hep;
pub mod inspect;
pub mod os;
pub mod pbx;
pub mod recovery;
pub mod sip;
mod sync;
pub mod time;
pub mod vip;
pub mod wire;
