//! The kernel's settings for the instances: set at the start of each, kept while the agent runs, and put back at its
//! clean stop.

use crate::config;
use crate::vip::router::{Router, RouterError};
use crate::vip::sysctl::Prepared;
use std::time::Duration;
use tracing::{info, warn};

/// Pause between two looks. Meanwhile a firewall's reload may have removed the guard, so it is short; a look is some
/// system calls.
const EACH: Duration = Duration::from_secs(1);

/// Applies the settings for an instance's interface. Every new interface needs them again.
pub(super) async fn set(router: &Router, instance: &config::Instance) {
    let name = &instance.name;
    let done = router.prepare(name, &instance.interface, instance.sip.is_some()).await;
    tell(Some(name), &words(&done));
}

/// Puts back the settings that no other instance of this host needs. Returns the failures.
pub(super) async fn put_back(router: &Router, instance: &str) -> Vec<String> {
    match router.release(instance).await {
        Ok(done) => {
            for change in &done.changes {
                info!(instance, "put {} back from {} to {}", change.name, change.from, change.to);
            }
            done.errors.iter().map(ToString::to_string).collect()
        }
        Err(e) => vec![format!("cannot put the kernel's settings back: {e}")],
    }
}

/// Keeps the settings. Never ends.
pub(super) async fn keep(router: &Router) {
    let mut last = Vec::new();
    loop {
        tokio::time::sleep(EACH).await;
        let now = words(&router.look().await);
        // Two programs that undo each other are one piece of news.
        if !now.is_empty() && now != last {
            tell(None, &now);
            last = now;
        }
    }
}

/// What to tell, and whether it is a failure.
fn words(done: &Result<Prepared, RouterError>) -> Vec<(bool, String)> {
    match done {
        Ok(done) => {
            let changes =
                done.changes.iter().map(|c| (false, format!("changed {} from {} to {}", c.name, c.from, c.to)));
            changes.chain(done.errors.iter().map(|e| (true, e.to_string()))).collect()
        }
        Err(e) => vec![(
            true,
            format!(
                "cannot guard this host against strangers' packets, so no setting is changed and \
                                       recovered calls may have no audio: {e}; retrying every second"
            ),
        )],
    }
}

fn tell(instance: Option<&str>, words: &[(bool, String)]) {
    for (failure, text) in words {
        if *failure { warn!(instance, "{text}") } else { info!(instance, "{text}") }
    }
}
