//! What forwards the audio of a recovered call.
