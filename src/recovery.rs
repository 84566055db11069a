//! Keeps calls after a takeover: plan -> media, re-INVITEs -> B2BUA.

mod b2bua;
mod call;
pub mod deed;
pub mod engine;
pub mod media;
pub mod permitted;
pub mod plan;
pub mod recoverability;
mod reinvite;
mod relayed;
mod request;
mod rng;
mod transaction;
pub mod types;
mod uac;
