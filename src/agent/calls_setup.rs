//! The inputs of a run of an instance's calls.

use super::footing::Footing;
use super::history;
use super::mode::Picture;
use super::takeover::Takeover;
use crate::cluster::Cluster;
use crate::config;
use crate::etcd::Etcd;
use std::sync::Arc;
use tokio::sync::watch;

/// The inputs of one run of the part.
pub(super) struct Setup {
    pub(super) node: config::Node,
    pub(super) instance: config::Instance,
    pub(super) sip: config::Sip,
    pub(super) etcd: Etcd,
    pub(super) cluster: Cluster,
    pub(super) modes: watch::Receiver<Picture>,
    pub(super) history: history::Writer,
    pub(super) footing: Arc<Footing>,
    /// A former process left its tables in force.
    pub(super) inherited: bool,
}

impl Setup {
    /// The history record of a run that follows a failed one while this node is master.
    pub(super) fn story(&self, epoch: u64, after: Option<&str>) -> Takeover {
        let reason = format!("the part that handles calls failed and was restarted: {}", after.unwrap_or("unknown"));
        Takeover::here(&self.instance.name, &self.node.name, epoch, "part", reason, self.history.clone())
    }
}
