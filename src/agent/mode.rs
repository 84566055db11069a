//! The mode of an instance. The configuration sets it per node, and `keepcall mode` overrides it for the whole cluster,
//! in etcd.
//!
//! `instances/<i>/mode` holds the override; without it each node obeys its configuration. `instances/<i>/modes/<node>`
//! holds the mode that a node obeys, so that `status` can show nodes that disagree. Neither key has a lease: the
//! operator's override outlasts restarts.

use crate::config::Mode;
use crate::control::api::{ModeStatus, NodeMode};
use crate::etcd::{Etcd, EtcdError, KeyValue, Keys, WatchEvent};
use crate::os::clock;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{info, warn};

/// Schema of both values. A value with another number is from another release and is not read.
const SCHEMA: u32 = 1;
/// Size limit of a value: a mode, a name and a time.
const MAX_VALUE: usize = 4 * 1024;
/// Limit of nodes with a known mode. A cluster has a handful; more are a mistake.
const MAX_NODES: usize = 256;
/// Pause before the next try of a failed report.
const AGAIN: Duration = Duration::from_secs(2);

/// The operator's override, or the mode that a node obeys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Value {
    schema: u32,
    mode: Mode,
    /// The node where the operator set the mode; in a report, the node itself.
    by: String,
    /// Wall-clock milliseconds since 1970.
    at_ms: u64,
}

/// Why a value is unreadable.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("the value has {0} bytes, which is too long")]
    Long(usize),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("the value has schema {0} of another release")]
    Schema(u32),
    #[error("the value names no node that set it")]
    Nobody,
}

fn read(value: &[u8]) -> Result<Value, Unreadable> {
    if value.len() > MAX_VALUE {
        return Err(Unreadable::Long(value.len()));
    }
    let value: Value = serde_json::from_slice(value)?;
    match value {
        Value { schema, .. } if schema != SCHEMA => Err(Unreadable::Schema(schema)),
        Value { by, .. } if by.trim().is_empty() => Err(Unreadable::Nobody),
        value => Ok(value),
    }
}

/// The known state of an instance's mode. Pure.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    configured: Mode,
    /// The override, its node and its time.
    set: Option<(Mode, String, u64)>,
    /// Why the override is unreadable.
    problem: Option<String>,
    nodes: BTreeMap<String, Mode>,
    /// Whether etcd has delivered the override. Until then nothing happens to any call, because the operator may have
    /// set "observe".
    known: bool,
}

impl Picture {
    fn new(configured: Mode) -> Self {
        Self { configured, set: None, problem: None, nodes: BTreeMap::new(), known: false }
    }

    /// The mode to obey; `None` until the override is known.
    pub(super) fn mode(&self) -> Option<Mode> {
        self.known.then(|| self.set.as_ref().map_or(self.configured, |s| s.0))
    }

    /// An unreadable value leaves the former mode in force.
    fn see_set(&mut self, value: &[u8]) {
        match read(value) {
            Ok(Value { mode, by, at_ms, .. }) => (self.set, self.problem) = (Some((mode, by, at_ms)), None),
            Err(e) => self.problem = Some(e.to_string()),
        }
    }

    fn see_node(&mut self, node: &str, value: &[u8]) {
        match read(value) {
            Ok(value) if self.nodes.len() < MAX_NODES || self.nodes.contains_key(node) => {
                self.nodes.insert(node.to_owned(), value.mode);
            }
            _ => drop(self.nodes.remove(node)),
        }
    }

    /// For `status`: the source of the mode, and the mode of each of `nodes`. A node without a report runs an older
    /// release.
    pub(super) fn status(&self, nodes: &[String]) -> ModeStatus {
        let mode = self.mode();
        let told = nodes.iter().map(|n| NodeMode { node: n.clone(), mode: self.nodes.get(n).copied() });
        ModeStatus {
            mode,
            source: if self.set.is_some() { "etcd" } else { "configuration" }.to_owned(),
            set_by: self.set.as_ref().map(|s| s.1.clone()),
            set_ms: self.set.as_ref().map(|s| s.2),
            nodes: told.collect(),
            problem: self.problem.clone(),
        }
    }
}

/// The etcd keys of an instance's modes.
struct ModeKeys {
    set: String,
    nodes: String,
}

impl ModeKeys {
    fn new(cluster: &str, instance: &str) -> Self {
        let keys = Keys::new(cluster);
        Self { nodes: keys.modes(instance), set: keys.mode(instance) }
    }
}

/// Follows the mode of `instance`, and reports this node's mode in etcd. Ends with the process.
pub(super) fn follow(
    etcd: Etcd,
    cluster: &str,
    instance: &str,
    node: &str,
    configured: Mode,
) -> watch::Receiver<Picture> {
    let keys = ModeKeys::new(cluster, instance);
    let (tell, picture) = watch::channel(Picture::new(configured));
    let (instance, node) = (instance.to_owned(), node.to_owned());
    tokio::spawn(async move {
        // One watch covers both, because the override's key is a prefix of the report keys.
        let mut news = etcd.watch(&keys.set);
        let mut reported = false;
        loop {
            tokio::select! {
                event = news.recv() => match event {
                    Some(event) => see(&tell, &keys, &instance, event),
                    None => return,
                },
                () = tokio::time::sleep(AGAIN), if !reported => {}
            }
            let (mode, told) = {
                let picture = tell.borrow();
                (picture.mode(), picture.nodes.get(&node).copied())
            };
            let Some(mode) = mode else { continue };
            reported = told == Some(mode) || report(&etcd, &keys, &node, mode).await.is_ok();
        }
    });
    picture
}

fn see(tell: &watch::Sender<Picture>, keys: &ModeKeys, instance: &str, event: WatchEvent) {
    let before = tell.borrow().clone();
    tell.send_modify(|picture| match event {
        WatchEvent::Snapshot { entries, .. } => {
            picture.nodes.clear();
            if !entries.iter().any(|kv| kv.key == keys.set) {
                (picture.set, picture.problem) = (None, None);
            }
            entries.iter().for_each(|kv| see_key(picture, keys, kv));
            picture.known = true;
        }
        WatchEvent::Put(kv) => see_key(picture, keys, &kv),
        WatchEvent::Delete { key, .. } if key == keys.set => (picture.set, picture.problem) = (None, None),
        WatchEvent::Delete { key, .. } => {
            if let Some(node) = key.strip_prefix(&keys.nodes) {
                picture.nodes.remove(node);
            }
        }
    });
    let now = tell.borrow();
    if let Some(problem) = now.problem.as_ref().filter(|p| before.problem.as_ref() != Some(*p)) {
        warn!(
            instance,
            key = keys.set,
            "cannot read the mode in etcd: {problem}; the previous mode stays in force. Set the mode again with \
             `keepcall mode {instance} MODE`"
        );
    }
    if let Some(mode) = now.mode().filter(|_| now.mode() != before.mode()) {
        let by =
            now.set.as_ref().map_or_else(|| "the configuration".to_owned(), |s| format!("`keepcall mode` on {}", s.1));
        info!(instance, %mode, by, "mode");
    }
}

fn see_key(picture: &mut Picture, keys: &ModeKeys, kv: &KeyValue) {
    if kv.key == keys.set {
        picture.see_set(&kv.value);
    } else if let Some(node) = kv.key.strip_prefix(&keys.nodes) {
        picture.see_node(node, &kv.value);
    }
}

async fn report(etcd: &Etcd, keys: &ModeKeys, node: &str, mode: Mode) -> Result<(), EtcdError> {
    put(etcd, &format!("{}{node}", keys.nodes), node, mode).await
}

async fn put(etcd: &Etcd, key: &str, by: &str, mode: Mode) -> Result<(), EtcdError> {
    let value = Value { schema: SCHEMA, mode, by: by.to_owned(), at_ms: clock::unix_ms() };
    etcd.put(key, &serde_json::to_vec(&value).unwrap_or_default(), 0).await
}

/// Sets the mode for the whole cluster. With `None` each node obeys its configuration again.
pub(super) async fn set(
    etcd: &Etcd,
    cluster: &str,
    instance: &str,
    by: &str,
    mode: Option<Mode>,
) -> Result<(), EtcdError> {
    let keys = ModeKeys::new(cluster, instance);
    match mode {
        Some(mode) => put(etcd, &keys.set, by, mode).await,
        None => etcd.delete(&keys.set).await.map(drop),
    }
}

#[cfg(test)]
mod tests;
