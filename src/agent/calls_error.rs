//! Why an instance's calls cannot be learnt or kept.

use super::sockets::RecoveryPortError;
use super::tap::TapError;
use crate::recovery::media::kernel::RelayError;
use crate::vip::nft::NftError;
use crate::vip::rawudp::RawUdpError;
use std::path::PathBuf;

/// Why calls cannot be learnt or kept on this node.
#[derive(Debug, thiserror::Error)]
pub enum CallsError {
    /// The server cannot be listened to.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The key that stored calls may be encrypted with cannot be read.
    #[error("cannot read the cluster's key {}: {error}", file.display())]
    Key {
        /// The `key_file`.
        file: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The ports that are bound cannot be read.
    #[error("cannot read the recovery port: {0}")]
    Ports(#[source] std::io::Error),
    /// No random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// The recovery port cannot be had.
    #[error(transparent)]
    RecoveryPort(#[from] RecoveryPortError),
    /// The server's port cannot be spoken from.
    #[error(transparent)]
    Raw(#[from] RawUdpError),
    /// The fence cannot be set up.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The relay cannot be set up.
    #[error(transparent)]
    Relay(#[from] RelayError),
}
