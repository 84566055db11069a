//! Calls learnt from HEP reports of real servers, and the sockets that receive them.

mod asterisk;
mod kamailio;
mod phone;
mod sockets;
mod watch;
mod websocket;
