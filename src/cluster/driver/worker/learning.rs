//! Learns about the other nodes from changes of etcd's keys: their names, addresses and differing settings.

use super::{Hint, MAX_WARNED, Worker};
use crate::cluster::election::Election;
use crate::cluster::record::{Alive, read_node};
use crate::etcd::WatchEvent;

impl Worker {
    pub(super) fn hint(&mut self, h: Hint) {
        let nodes = match h {
            Hint::Instance(i) => return self.with(i, Election::hint),
            Hint::Nodes(n) => n,
        };
        match nodes {
            WatchEvent::Snapshot { entries, .. } => {
                let nodes = self.p.keys.nodes();
                entries
                    .iter()
                    .filter(|kv| kv.key.starts_with(&nodes))
                    .for_each(|kv| self.learn_node(&kv.key, &kv.value));
            }
            WatchEvent::Put(kv) if kv.key == self.p.keys.paused() => {}
            WatchEvent::Put(kv) => {
                self.learn_node(&kv.key, &kv.value);
                if kv.key == self.p.keys.node(&self.me) && self.p.lease.borrow().is_some_and(|l| l.id != kv.lease) {
                    self.p.again.notify_one();
                }
            }
            // Keep the address: the node may be reachable without its lease.
            WatchEvent::Delete { key, .. } => {
                if key == self.p.keys.node(&self.me) && self.p.lease.borrow().is_some() && self.stopping.is_none() {
                    self.p.again.notify_one();
                }
            }
        }
        self.each(Election::hint);
    }

    fn learn_node(&mut self, key: &str, value: &[u8]) {
        match read_node(key, value) {
            Ok(n) if n.name != self.me && self.p.keys.node(&n.name) == key => {
                self.p.codec.registered(&n.name, n.boot);
                let changes = self.unlike.learn(&n);
                self.tell(&changes);
                self.peers.insert(n.name, n.address);
            }
            Ok(_) => {}
            Err(why) => return self.warn_of(key, why),
        }
        self.warned.remove(key);
    }

    /// Warns once about a key's value, until the value changes.
    pub(super) fn warn_of(&mut self, key: &str, why: String) {
        let full = self.warned.len() >= MAX_WARNED && !self.warned.contains_key(key);
        if !full && self.warned.insert(key.to_owned(), why.clone()).as_ref() != Some(&why) {
            tracing::warn!("{why}");
        }
    }

    pub(super) fn check_alive(&mut self, i: usize, alive: Option<Alive>) {
        let key = self.p.keys.alive(&self.all[i].name);
        match alive {
            // A living master replaces this value at once. Without one, the value blocks every slow takeover.
            Some(a) if a.epoch == 0 || a.lease == 0 => {
                let why = format!(
                    "the value of {key} in etcd was not written by a master (not an epoch, or not bound to a lease), \
                     and blocks the slow takeover; if no master is running, remove the key with `etcdctl del {key}`"
                );
                self.warn_of(&key, why);
            }
            _ => drop(self.warned.remove(&key)),
        }
    }

    /// Learns members' addresses from the record, for nodes without a key.
    pub(super) fn learn_addresses(&mut self, i: usize) {
        let Some(r) = self.all[i].election.record() else { return };
        for (n, a) in &r.addresses {
            if *n != self.me {
                self.peers.entry(n.clone()).or_insert(*a);
            }
        }
    }
}
