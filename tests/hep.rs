//! Calls learnt from HEP reports of real servers, and the sockets that receive them.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking, as the tests do

#[path = "hep/asterisk.rs"]
mod asterisk;
#[path = "../src/hep/tests/encode.rs"]
mod encode;
#[path = "hep/kamailio.rs"]
mod kamailio;
mod netns;
#[path = "hep/phone.rs"]
mod phone;
#[path = "hep/sockets.rs"]
mod sockets;
#[path = "hep/watch.rs"]
mod watch;
#[path = "hep/websocket.rs"]
mod websocket;
