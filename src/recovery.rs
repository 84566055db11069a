//! Keeps calls after a takeover: plan -> media, re-INVITEs -> B2BUA.

mod audio;
mod b2bua;
mod call;
pub mod deed;
mod delayed;
pub mod engine;
mod evidence;
pub mod handed_on;
mod heard;
mod hung_up;
mod kept;
mod late;
pub mod media;
pub mod outlook;
pub mod permitted;
pub mod plan;
mod probe;
pub mod recoverability;
mod reinvite;
mod request;
mod rng;
mod transaction;
pub mod types;
mod uac;
