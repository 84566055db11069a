//! Why this node cannot learn or keep an instance's calls.

use super::sockets::RecoveryPortError;
use super::tap::TapError;
use crate::recovery::media::kernel::RelayError;
use crate::vip::nft::NftError;
use crate::vip::rawudp::RawUdpError;
use std::path::PathBuf;

/// Why this node cannot learn or keep calls.
#[derive(Debug, thiserror::Error)]
pub enum CallsError {
    /// Listening to the server failed.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The encryption key of stored calls is unreadable.
    #[error("cannot read the cluster key {}: {error}", file.display())]
    Key {
        /// The `key_file`.
        file: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// Reading from the bound ports failed.
    #[error("cannot receive on the recovery port: {0}")]
    Ports(#[source] std::io::Error),
    /// The system provides no random numbers.
    #[error("cannot get random numbers from the kernel: {0}")]
    Random(getrandom::Error),
    /// The recovery port is not available.
    #[error(transparent)]
    RecoveryPort(#[from] RecoveryPortError),
    /// The raw socket for the server's port failed.
    #[error(transparent)]
    Raw(#[from] RawUdpError),
    /// Setting up the fence failed.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// Setting up the relay failed.
    #[error(transparent)]
    Relay(#[from] RelayError),
}
