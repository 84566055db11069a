//! The record of the election, change by change, as etcd keeps it: the truth about who was master.

use crate::agent::INSTANCE;
use crate::etcd::Etcd;
use crate::lan::Lan;
use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine as _;
use serde_json::Value;
use std::collections::BTreeMap;

/// Name of the cluster in the chaos.
pub(crate) const CLUSTER: &str = "chaos";
/// More changes of the record in one round mean that something is wrong. Each change costs a request to etcd.
const MOST_CHANGES: usize = 300;

/// Masters by epoch, since the start.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// Revision of the last change that was read.
    revision: i64,
    /// The master of each epoch.
    pub(crate) masters: BTreeMap<u64, String>,
}

impl Story {
    /// Reads the changes since the last call. Each epoch must have one master, and epochs must rise.
    pub(crate) fn read_on(&mut self, lan: &Lan, etcd: &Etcd) -> Result<()> {
        let mut new = Vec::new();
        let mut at = 0;
        while let Some((revision, epoch, master)) = read(lan, etcd, at)? {
            if revision <= self.revision {
                break;
            }
            ensure!(new.len() < MOST_CHANGES, "the record changed more than {MOST_CHANGES} times in one round");
            new.push((revision, epoch, master));
            at = revision - 1;
            if at == 0 {
                break;
            }
        }
        for (revision, epoch, master) in new.into_iter().rev() {
            let top = self.masters.last_key_value().map(|(e, m)| (*e, m.clone()));
            match top {
                Some((last, _)) if epoch < last => {
                    bail!("the record went back from epoch {last} to {epoch} at revision {revision}")
                }
                Some((last, one)) if epoch == last && one != master => {
                    bail!("epoch {epoch} had two masters, {one} and {master}, at revision {revision}")
                }
                Some((last, _)) if epoch > last + 1 => {
                    bail!("the record went from epoch {last} to {epoch} at revision {revision}")
                }
                _ => {}
            }
            self.masters.insert(epoch, master);
            self.revision = revision;
        }
        Ok(())
    }

    /// The masters from this epoch on, in order. A node is listed again if it became master again after another node.
    pub(crate) fn since(&self, epoch: u64) -> Vec<&str> {
        let mut all: Vec<&str> = self.masters.range(epoch..).map(|(_, m)| m.as_str()).collect();
        all.dedup();
        all
    }

    /// The history of an agent must agree with the record.
    pub(crate) fn agrees_with(&self, history: &[Value]) -> Result<(), String> {
        for entry in history {
            let (epoch, master) = (entry["epoch"].as_u64().unwrap_or(0), entry["master"].as_str().unwrap_or("?"));
            // An earlier entry is older than the first record that was read, and a later one has not been read yet.
            if self.masters.get(&epoch).is_some_and(|m| m != master) {
                return Err(format!(
                    "the history names {master} as master of epoch {epoch}, the record names {:?}",
                    self.masters.get(&epoch)
                ));
            }
        }
        Ok(())
    }
}

/// Whether the hosts that spoke for the VIP are among the masters in this order. A host that spoke without being
/// master, or again after the next master, is not.
/// speaks again after the next one, is not.
pub(crate) fn in_order(spoke: &[&str], masters: &[&str]) -> bool {
    let mut rest = masters.iter();
    spoke.iter().all(|s| rest.any(|m| m == s))
}

/// Revision, epoch and master of the record at a revision (0: now). `None` without a record.
fn read(lan: &Lan, etcd: &Etcd, at: i64) -> Result<Option<(i64, u64, String)>> {
    let key = format!("/keepcall/{CLUSTER}/instances/{INSTANCE}/record");
    let rev = format!("--rev={at}");
    let text = etcd.ctl(lan, &["get", &key, &rev, "--write-out=json"])?;
    let reply: Value = serde_json::from_str(&text)?;
    let Some(kv) = reply["kvs"].get(0) else { return Ok(None) };
    let value = base64::engine::general_purpose::STANDARD.decode(kv["value"].as_str().unwrap_or_default())?;
    let record: Value = serde_json::from_slice(&value).context("the record is not JSON")?;
    let revision = kv["mod_revision"].as_i64();
    match (revision, record["epoch"].as_u64(), record["master"].as_str()) {
        (Some(r), Some(e), Some(m)) => Ok(Some((r, e, m.to_owned()))),
        _ => Err(anyhow!("the record cannot be read: {record}")),
    }
}

#[cfg(test)]
mod tests {
    use super::in_order;

    #[test]
    fn only_masters_may_speak_and_only_in_their_turn() {
        let masters = ["a", "b", "c", "a"];
        for spoke in [&["a", "b"][..], &["a", "c", "a"], &["b"], &[]] {
            assert!(in_order(spoke, &masters), "{spoke:?}");
        }
        for spoke in [&["a", "b", "a", "b"][..], &["c", "b"], &["d"], &["a", "b", "c", "a", "c"]] {
            assert!(!in_order(spoke, &masters), "{spoke:?}");
        }
    }
}
