//! What forwards the audio of a recovered call.

pub mod kernel;
mod planner;
mod present;
mod table;
