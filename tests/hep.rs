//! Calls learnt from HEP reports of real servers, and the sockets that receive them.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail by panicking, as the tests do

#[path = "hep/asterisk.rs"]
mod asterisk;
#[path = "hep/kamailio.rs"]
mod kamailio;
#[path = "hep/phone.rs"]
mod phone;
#[path = "hep/sockets.rs"]
mod sockets;
#[path = "hep/watch.rs"]
mod watch;
#[path = "hep/websocket.rs"]
mod websocket;
