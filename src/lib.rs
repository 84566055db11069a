//! keepcall moves a floating IP between SIP or media servers and keeps the active calls.
//!
//! `docs/architecture.md` describes the modules and the data flow. In each module the decisions are pure (values in,
//! actions out), and thin drivers do the I/O.

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
