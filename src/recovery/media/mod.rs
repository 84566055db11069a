//! What forwards the audio of a recovered call.

pub mod kernel;
mod table;
