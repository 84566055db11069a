//! Keeping calls: plan -> media, re-INVITEs -> bridge.

mod bridge;
mod call;
pub mod deed;
pub mod engine;
pub mod fate;
pub mod media;
mod outgoing;
pub mod permitted;
pub mod plan;
mod reinvite;
mod relayed;
mod request;
mod rng;
mod transaction;
pub mod types;
