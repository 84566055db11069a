//! Tracks differences between this node's settings and those that other nodes report. Each change is reported once.

use super::{ADDRESSES, Described, Difference, UNTOLD};
use crate::cluster::election::ReportedSettings;
use crate::cluster::record::NodeEntry;
use std::collections::{BTreeMap, BTreeSet};

/// Limit on tracked nodes: far above any cluster, and it bounds the cost of etcd's content.
const MAX_NODES: usize = 64;
/// A change in the set of differences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A setting differs from now on, or has other values.
    Differs(Difference),
    /// The setting no longer differs.
    Agrees(Difference),
}

/// What another node reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OtherNode {
    /// From its key in etcd: its version and its settings.
    entry: Option<(String, Option<Described>)>,
    /// From its messages, for each instance; `None` means messages without settings.
    reported: BTreeMap<String, Option<ReportedSettings>>,
}

/// Tracks the settings of all other nodes.
#[derive(Debug)]
pub struct Unlike {
    ours: Described,
    /// What this node itself reports for each instance.
    reported: BTreeMap<String, ReportedSettings>,
    version: &'static str,
    nodes: BTreeMap<String, OtherNode>,
    found: BTreeSet<Difference>,
}

impl Unlike {
    /// Creates the tracker of a node with these settings. `reported`: what it reports for each of its instances.
    #[must_use]
    pub fn new(ours: Described, reported: BTreeMap<String, ReportedSettings>, version: &'static str) -> Self {
        Self { ours, reported, version, nodes: BTreeMap::new(), found: BTreeSet::new() }
    }

    /// Current differences, ordered by node.
    pub fn differences(&self) -> impl Iterator<Item = &Difference> {
        self.found.iter()
    }

    /// Takes in another node's key and returns the resulting changes.
    pub fn learn(&mut self, entry: &NodeEntry) -> Vec<Change> {
        let value = Some((entry.version.clone(), entry.settings.clone()));
        match self.of(&entry.name) {
            Some(there) if there.entry != value => there.entry = value,
            _ => return Vec::new(),
        }
        self.compare()
    }

    /// Takes in a message from another node and returns the resulting changes.
    pub fn heard(&mut self, node: &str, instance: &str, reported: Option<ReportedSettings>) -> Vec<Change> {
        match self.of(node) {
            Some(there) if there.reported.get(instance) != Some(&reported) => {
                there.reported.insert(instance.to_owned(), reported);
            }
            _ => return Vec::new(),
        }
        self.compare()
    }

    fn of(&mut self, node: &str) -> Option<&mut OtherNode> {
        let room = self.nodes.len() < MAX_NODES || self.nodes.contains_key(node);
        room.then(|| self.nodes.entry(node.to_owned()).or_default())
    }

    fn compare(&mut self) -> Vec<Change> {
        let found: BTreeSet<Difference> = self.nodes.iter().flat_map(|(node, there)| self.at(node, there)).collect();
        let gone = self.found.difference(&found).cloned().map(Change::Agrees);
        let new = found.difference(&self.found).cloned().map(Change::Differs);
        // A new value of a setting is one change, not two.
        let same = |d: &Difference| {
            found.iter().any(|f| (&f.node, &f.instance, &f.setting) == (&d.node, &d.instance, &d.setting))
        };
        let changes = gone.filter(|c| !matches!(c, Change::Agrees(d) if same(d))).chain(new).collect();
        self.found = found;
        changes
    }

    fn at(&self, node: &str, there: &OtherNode) -> Vec<Difference> {
        let one = |instance: Option<&String>, setting: &str, here: String, there: &str, excludes: bool| Difference {
            node: node.to_owned(),
            instance: instance.cloned(),
            setting: setting.to_owned(),
            here,
            there: there.to_owned(),
            excludes,
        };
        let mut all = Vec::new();
        let settings = there.entry.as_ref().and_then(|e| e.1.as_ref());
        if let Some((version, _)) = there.entry.as_ref().filter(|e| e.0 != self.version) {
            all.push(one(None, "version", self.version.to_owned(), version, false));
        }
        if let Some(settings) = settings {
            all.extend(self.ours.differences(node, settings));
        } else if there.reported.values().any(Option::is_none) {
            let hold = self.ours.node.get("timing.hold").cloned().unwrap_or_default();
            all.push(one(None, "timing.hold", hold, UNTOLD, false));
        }
        // While etcd lacks the values, heartbeats still show that a setting differs, though not which.
        for (instance, reported) in &there.reported {
            let (Some(reported), Some(ours)) = (reported, self.reported.get(instance)) else { continue };
            let named =
                |setting: &str| all.iter().any(|d| d.setting == setting && d.instance.as_ref() == Some(instance));
            let value = |setting: &str| {
                self.ours.instances.get(instance).and_then(|n| n.get(setting)).cloned().unwrap_or_default()
            };
            if reported.vips != ours.vips && !named(ADDRESSES) {
                all.push(one(Some(instance), ADDRESSES, value(ADDRESSES), UNTOLD, true));
            }
            if reported.others != ours.others && settings.is_none_or(|s| !s.instances.contains_key(instance)) {
                all.push(one(Some(instance), "settings", "others".to_owned(), UNTOLD, false));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests;
