//! What differs between this node's settings and those of the others, as they tell it: kept current, and each change told once.

use super::{ADDRESSES, Described, Difference, UNTOLD};
use crate::cluster::election::Told;
use crate::cluster::record::NodeEntry;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes that are followed: far above any cluster, and it bounds what etcd's content can cost.
const MAX_NODES: usize = 64;
/// A change of what differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A setting differs from now on, or has other values.
    Differs(Difference),
    /// It does no more.
    Agrees(Difference),
}

/// What another node told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct There {
    /// By its key in etcd: its version, and its settings.
    entry: Option<(String, Option<Described>)>,
    /// By its messages, for each instance; `None`: it sends messages that tell nothing.
    told: BTreeMap<String, Option<Told>>,
}

/// Follows the settings of all other nodes.
#[derive(Debug)]
pub struct Unlike {
    ours: Described,
    /// For each instance what this node itself tells.
    told: BTreeMap<String, Told>,
    version: &'static str,
    nodes: BTreeMap<String, There>,
    found: BTreeSet<Difference>,
}

impl Unlike {
    /// Of a node with these settings, which tells `told` of its instances.
    #[must_use]
    pub fn new(ours: Described, told: BTreeMap<String, Told>, version: &'static str) -> Self {
        Self { ours, told, version, nodes: BTreeMap::new(), found: BTreeSet::new() }
    }

    /// What differs now, by node.
    pub fn differences(&self) -> impl Iterator<Item = &Difference> {
        self.found.iter()
    }

    /// The key of another node was read. What changed by that.
    pub fn learn(&mut self, entry: &NodeEntry) -> Vec<Change> {
        let value = Some((entry.version.clone(), entry.settings.clone()));
        match self.of(&entry.name) {
            Some(there) if there.entry != value => there.entry = value,
            _ => return Vec::new(),
        }
        self.compare()
    }

    /// A message of another node came. What changed by that.
    pub fn heard(&mut self, node: &str, instance: &str, told: Option<Told>) -> Vec<Change> {
        match self.of(node) {
            Some(there) if there.told.get(instance) != Some(&told) => {
                there.told.insert(instance.to_owned(), told);
            }
            _ => return Vec::new(),
        }
        self.compare()
    }

    fn of(&mut self, node: &str) -> Option<&mut There> {
        let room = self.nodes.len() < MAX_NODES || self.nodes.contains_key(node);
        room.then(|| self.nodes.entry(node.to_owned()).or_default())
    }

    fn compare(&mut self) -> Vec<Change> {
        let found: BTreeSet<Difference> = self.nodes.iter().flat_map(|(node, there)| self.at(node, there)).collect();
        let gone = self.found.difference(&found).cloned().map(Change::Agrees);
        let new = found.difference(&self.found).cloned().map(Change::Differs);
        // Another value of a setting is one change, not two.
        let same = |d: &Difference| {
            found.iter().any(|f| (&f.node, &f.instance, &f.setting) == (&d.node, &d.instance, &d.setting))
        };
        let changes = gone.filter(|c| !matches!(c, Change::Agrees(d) if same(d))).chain(new).collect();
        self.found = found;
        changes
    }

    fn at(&self, node: &str, there: &There) -> Vec<Difference> {
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
        } else if there.told.values().any(Option::is_none) {
            let hold = self.ours.node.get("timing.hold").cloned().unwrap_or_default();
            all.push(one(None, "timing.hold", hold, UNTOLD, false));
        }
        // Heartbeats tell as long as etcd does not, though only that something differs.
        for (instance, told) in &there.told {
            let (Some(told), Some(ours)) = (told, self.told.get(instance)) else { continue };
            let named =
                |setting: &str| all.iter().any(|d| d.setting == setting && d.instance.as_ref() == Some(instance));
            let value = |setting: &str| {
                self.ours.instances.get(instance).and_then(|n| n.get(setting)).cloned().unwrap_or_default()
            };
            if told.vips != ours.vips && !named(ADDRESSES) {
                all.push(one(Some(instance), ADDRESSES, value(ADDRESSES), UNTOLD, true));
            }
            if told.others != ours.others && settings.is_none_or(|s| !s.instances.contains_key(instance)) {
                all.push(one(Some(instance), "settings", "others".to_owned(), UNTOLD, false));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests;
