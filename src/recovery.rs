//! Keeps calls after a takeover: plan -> media, re-INVITEs -> B2BUA.

mod audio;
mod b2bua;
mod call;
pub mod deed;
pub mod engine;
mod evidence;
pub mod handed_on;
mod kept;
mod localize;
pub mod media;
pub mod orphaned;
pub mod outlook;
pub mod permitted;
pub mod plan;
pub mod recoverability;
mod reinvite;
mod request;
mod rng;
mod streams;
pub mod tally;
mod transaction;
pub mod types;
mod uac;
