//! The virtual addresses: adding, announcing and removing them, and fencing the server of a standby.

pub mod address;
pub mod announce;
pub mod conflict;
pub mod fence;
pub mod forward;
pub mod kernel_lease;
pub mod nfnl;
pub mod nft;
pub mod rawudp;
pub mod removals;
pub mod router;
pub mod sysctl;
