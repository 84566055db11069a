//! Tables of ours in nftables that somebody deletes, put back.

use super::CallsSide;
use crate::time::Time;
use crate::vip::nft::watch::TableWatch;
use std::time::Duration;
use tracing::warn;

/// Pause before tables that could not be put back are tried again.
const AGAIN: Duration = Duration::from_secs(1);

impl CallsSide {
    /// Puts back those of our tables that somebody deleted.
    pub(super) async fn mend(&mut self, now: Time) {
        self.mend_at = Time::FAR;
        for (what, done) in [
            ("the fence of the server's ports", self.fence.renew().await.map_err(|e| e.to_string())),
            ("the audio relay", self.relay.renew().await.map_err(|e| e.to_string())),
        ] {
            match done {
                Ok(false) => {}
                Ok(true) => warn!(
                    instance = self.instance,
                    "somebody deleted {what} from nftables; it was put back. `nft flush ruleset` does that: let the firewall's reload \
                     delete its own tables only"
                ),
                Err(e) => {
                    warn!(instance = self.instance, "{what} could not be put back: {e}; trying again");
                    self.mend_at = now + AGAIN;
                }
            }
        }
    }
}

/// The next news of deleted tables.
pub(super) async fn deleted(tables: Option<&mut TableWatch>) -> std::io::Result<Option<Vec<String>>> {
    match tables {
        Some(tables) => tables.next().await,
        None => std::future::pending().await,
    }
}
