//! Watches for firewall rules that would stop relayed audio, and tells of them once, before a takeover needs the relay.

use crate::config;
use crate::vip::forward::{self, Obstacle};
use crate::vip::nfnl::Link;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

/// Shortest pause between two looks: an operator who applies the cure sees the warning go.
const EACH: Duration = Duration::from_secs(5);
/// A look may take this part of all time: a host of containers has thousands of rules.
const SHARE: u32 = 200;

/// The obstacles of one instance.
pub(super) struct Obstacles {
    now: watch::Receiver<Vec<Obstacle>>,
    task: JoinHandle<()>,
}

impl Obstacles {
    pub(super) fn watch(instance: &config::Instance) -> Self {
        let (tell, now) = watch::channel(Vec::new());
        Self { now, task: tokio::spawn(look(instance.clone(), tell)) }
    }

    /// For `status`.
    pub(super) fn words(&self) -> Vec<String> {
        self.now.borrow().iter().map(ToString::to_string).collect()
    }
}

impl Drop for Obstacles {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(instance: config::Instance, tell: watch::Sender<Vec<Obstacle>>) {
    let has = |v6: bool| instance.addresses.iter().any(|net| net.addr().is_ipv6() == v6);
    let (link, name) = (Link::default(), &instance.name);
    let (mut told, mut failed) = (BTreeSet::new(), false);
    loop {
        let started = Instant::now();
        match forward::obstacles(&link, &instance.interface, has(false), has(true)).await {
            Ok(found) => {
                failed = false;
                for new in found.iter().filter(|o| !told.contains(*o)) {
                    warn!(instance = name, "{new}");
                }
                if found.is_empty() && !told.is_empty() {
                    info!(instance = name, "no firewall chain stops relayed audio any more");
                }
                told = found.iter().cloned().collect();
                tell.send_replace(found);
            }
            Err(e) => {
                if !std::mem::replace(&mut failed, true) {
                    warn!(instance = name, "cannot check whether other firewall rules stop relayed audio: {e}");
                }
            }
        }
        tokio::time::sleep(EACH.max(started.elapsed() * SHARE)).await;
    }
}
