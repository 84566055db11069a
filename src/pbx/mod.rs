//! Clients of the server itself: what it tells of its channels and bridges pairs legs exactly.
//!
//! [`ami`] speaks to Asterisk, [`esl`] to FreeSWITCH; both are pure. [`driver`] has the socket.

pub mod ami;
mod blocks;
pub mod bridges;
mod connected_to;
pub mod driver;
pub mod esl;

pub use connected_to::{ConnectedKind, ConnectedTo};

use crate::pbx::bridges::Fact;
use crate::time::Time;

/// Why a connection to a server is given up. It is made again after a pause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What came is not the protocol that was expected.
    #[error("what answers there does not speak {0}; check address and port")]
    Foreign(&'static str),
    /// Name or secret is wrong, or this host is not permitted.
    #[error("the server refused the login ({0}); check name, secret and the permitted addresses")]
    Login(String),
    /// The login lacks a permission.
    #[error("the server does not permit what is asked ({0}); {1}")]
    Permission(String, &'static str),
    /// A line or message is longer than any that the protocol has.
    #[error("the server sent a message that is too long")]
    TooLong,
    /// No answer in time.
    #[error("the server does not answer")]
    Silent,
    /// The server said that it ends the connection.
    #[error("the server ended the connection")]
    Bye,
}

/// One connection's worth of a server's protocol: bytes in, bytes and facts out.
pub trait Dialect: Send {
    /// Handles bytes from the server.
    ///
    /// # Errors
    /// The connection is of no use any more.
    fn handle_bytes(&mut self, bytes: &[u8], now: Time) -> Result<(), Refusal>;
    /// Handles what is due.
    ///
    /// # Errors
    /// The connection is of no use any more.
    fn handle_timeout(&mut self, now: Time) -> Result<(), Refusal>;
    /// When `handle_timeout` is due.
    fn next_deadline(&self) -> Time;
    /// The next bytes for the server.
    fn poll_send(&mut self) -> Option<Vec<u8>>;
    /// The next fact.
    fn poll_fact(&mut self) -> Option<Fact>;
    /// Whether the server was asked for everything that it had, and has answered.
    fn is_ready(&self) -> bool;
}
