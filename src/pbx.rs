//! Clients of the server itself. Its reports of channels and bridges pair legs exactly.
//!
//! [`ami`] is for Asterisk, [`esl`] for FreeSWITCH. Both are pure, and so is [`former_calls`], which hangs up what a
//! former master's server still believes in. [`driver`] has the socket.

pub mod ami;
mod blocks;
pub mod bridges;
mod connected_to;
pub mod driver;
pub mod esl;
pub mod former_calls;
mod questions;
pub mod request;

pub use connected_to::{ConnectedKind, ConnectedTo};

use crate::pbx::bridges::Fact;
use crate::pbx::request::Request;
use crate::time::Time;

/// Most channels that a client follows. Channels beyond it stay unknown.
const MAX_CHANNELS: usize = 200_000;

/// Why a connection to a server was given up. It is made again after a pause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another protocol than expected.
    #[error("the other end is not {0}; check address and port")]
    Foreign(&'static str),
    /// Name or secret is wrong, or this host is not permitted.
    #[error("the server refused the login ({0}); check name, secret and permitted addresses")]
    Login(String),
    /// The login lacks a permission.
    #[error("the login lacks a permission ({0}); {1}")]
    Permission(String, &'static str),
    /// A line or message longer than any in the protocol.
    #[error("the server sent a message that is too long")]
    TooLong,
    /// Answer time-out.
    #[error("the server does not answer")]
    Silent,
    /// The server announced the end of the connection.
    #[error("the server ended the connection")]
    Bye,
}

/// A server's protocol on one connection: bytes in, bytes and facts out.
pub trait Dialect: Send {
    /// Handles bytes from the server.
    ///
    /// # Errors The connection is unusable.
    fn handle_bytes(&mut self, bytes: &[u8], now: Time) -> Result<(), Refusal>;
    /// Handles what is due.
    ///
    /// # Errors The connection is unusable.
    fn handle_timeout(&mut self, now: Time) -> Result<(), Refusal>;
    /// When `handle_timeout` is due.
    fn next_deadline(&self) -> Time;
    /// Asks about one channel, or hangs it up. The answer comes as a fact.
    fn request(&mut self, request: Request, now: Time);
    /// The next bytes for the server.
    fn poll_send(&mut self) -> Option<Vec<u8>>;
    /// The next fact.
    fn poll_fact(&mut self) -> Option<Fact>;
    /// Whether the server's full state was requested and has arrived.
    fn is_ready(&self) -> bool;
}
