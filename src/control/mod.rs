//! The control socket, the command line and what people read.

pub mod api;
