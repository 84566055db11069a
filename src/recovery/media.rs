//! Forwards the audio of recovered calls.

pub mod kernel;
mod planner;
mod present;
mod table;
