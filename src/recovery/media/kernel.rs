//! The kernel relay: forwards the audio of recovered calls inside the kernel, on the VIP ports that the phones already use.
//!
//! It is armed on the backups before anything happens: where the VIP is not, no packet reaches the rules, and when the VIP
//! comes nothing has to be installed. Flows are keyed by sender and port of ours together, so a new call of the new server on a
//! port of the same range is untouched. A server that handles its own calls has no flows here.
//!
//! The table is made by one run of nft; after that, flows come and go over netlink, each change in one transaction.

use super::table::{self, Elements, MAX_FLOWS};
use crate::calls::model::Flow;
use crate::vip::nfnl::{Batch, Data, Family, Found, Link, NfnlError};
use crate::vip::nft::{self, NftError};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex as Shared, PoisonError};
use tokio::sync::Mutex;
use tracing::warn;

/// Why the relay did not take flows.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// nftables refused; what was in force before still is.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// A flow that cannot be forwarded.
    #[error("cannot forward {} to {} for call {call}: {why}", flow.from, flow.to)]
    Impossible {
        /// The call.
        call: String,
        /// The flow.
        flow: Box<Flow>,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The table is full.
    #[error("no room for the audio of call {call}: {MAX_FLOWS} flows are forwarded already")]
    Full {
        /// The first call that found no room.
        call: String,
    },
    /// More instances in one process than marks can tell apart.
    #[error("too many instances: the marks of the kernel relay tell 255 apart")]
    TooManyInstances,
    /// The elements of the table could not be changed; the next change of any call tries again.
    #[error("nftables did not take the flows of {what}: {source}")]
    Flows {
        /// The relay of which instance.
        what: String,
        /// What the kernel said.
        source: NfnlError,
    },
    /// The counters could not be read.
    #[error("cannot read the counters of {what}: {source}")]
    Counters {
        /// The relay of which instance.
        what: String,
        /// What the kernel said.
        source: NfnlError,
    },
}

/// What one flow has forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowCount {
    /// The flow.
    pub flow: Flow,
    /// Packets since it was set.
    pub packets: u64,
    /// Bytes of these packets, IP headers included.
    pub bytes: u64,
}

/// The relay of one instance.
#[derive(Debug)]
pub struct KernelRelay {
    table: String,
    what: String,
    vips: Vec<IpAddr>,
    tag: u8,
    link: Link,
    // Of its own, so that changes do not wait until thousands of counters are read.
    counters: Link,
    // Held across a change: what the maps hold and what is noted here never part.
    state: Mutex<State>,
}

type Key = (SocketAddr, SocketAddr);

/// What is wanted; in force as well if `installed`.
#[derive(Debug, Default)]
struct State {
    // Whether the table in the kernel is ours; before that, what a predecessor left may be in force, and is replaced whole by
    // the first change, so that audio which it forwards does not stop in between.
    installed: bool,
    calls: BTreeMap<String, Vec<Flow>>,
    // Sender and port of ours -> the call that has it, and the flow's number.
    slots: HashMap<Key, (String, u16, Flow)>,
    // How many flows speak from a port of ours to a phone, and one of them.
    local: HashMap<Key, (u32, Flow)>,
    free: Vec<u16>,
    used: usize,
}

impl KernelRelay {
    /// The relay of `instance` for its addresses. Touches nothing until the first change.
    ///
    /// # Errors
    /// More than 255 instances.
    pub fn new(instance: &str, vips: &[IpAddr]) -> Result<Self, RelayError> {
        Ok(Self {
            table: nft::table_name("relay", instance),
            what: format!("the audio relay of instance {instance}"),
            vips: vips.to_vec(),
            tag: tag_of(instance).ok_or(RelayError::TooManyInstances)?,
            link: Link::default(),
            counters: Link::default(),
            state: Mutex::new(State::default()),
        })
    }

    /// Forwards exactly `flows` for `call`; none removes it. A port of ours and a sender that another call had go to this one:
    /// the newer knowledge wins.
    ///
    /// # Errors
    /// As in [`RelayError`]. If it is the call that is refused, nothing is forwarded for it; if nftables refused, what was in
    /// force before still is, and the next change of any call tries again to bring about all that was asked for.
    pub async fn set(&self, call: &str, flows: &[Flow]) -> Result<(), RelayError> {
        self.set_many([(call, flows)]).await?.pop().map_or(Ok(()), Err)
    }

    /// [`KernelRelay::set`] for many calls, in one transaction. A call that is refused (impossible flows, or no room) does not
    /// keep the others from being set; nothing is forwarded for it, and it is in the list that is returned.
    ///
    /// # Errors
    /// nftables refused; as for [`KernelRelay::set`].
    pub async fn set_many<'a>(
        &self,
        calls: impl IntoIterator<Item = (&'a str, &'a [Flow])>,
    ) -> Result<Vec<RelayError>, RelayError> {
        let mut state = self.state.lock().await;
        let mut change = Change::default();
        let mut refused = Vec::new();
        for (call, flows) in calls {
            state.remove(call, &mut change);
            let checked = flows.iter().try_for_each(|flow| self.check(call, flow));
            if let Err(e) = checked.and_then(|()| state.insert(call, flows, &mut change)) {
                // What fitted before the table was full: half a call is none.
                state.remove(call, &mut change);
                refused.push(e);
            }
        }
        self.apply(&mut state, &change).await.map(|()| refused)
    }

    /// Forwards nothing more for `call`.
    ///
    /// # Errors
    /// nftables refused; as for [`KernelRelay::set`].
    pub async fn remove(&self, call: &str) -> Result<(), RelayError> {
        self.set(call, &[]).await
    }

    /// Puts the table back if somebody deleted it; whether that was so.
    ///
    /// # Errors
    /// nftables refused.
    pub async fn renew(&self) -> Result<bool, RelayError> {
        let mut state = self.state.lock().await;
        if !state.installed || nft::exists(&self.what, &self.table).await? {
            return Ok(false);
        }
        state.installed = false;
        self.apply(&mut state, &Change::default()).await.map(|()| true)
    }

    /// The name of its table.
    #[must_use]
    pub fn table_name(&self) -> &str {
        &self.table
    }

    /// Removes the whole table.
    ///
    /// # Errors
    /// nftables refused; then nothing changed.
    pub async fn clear(&self) -> Result<(), RelayError> {
        let mut state = self.state.lock().await;
        self.link.idle().await;
        nft::run(&self.what, &nft::without(&self.table)).await?;
        *state = State::default();
        Ok(())
    }

    /// What each flow of these calls has forwarded. Changes do not wait for it.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn counts_of(&self, calls: &[&str]) -> Result<BTreeMap<String, Vec<FlowCount>>, RelayError> {
        let (v4, v6): (Vec<Flow>, Vec<Flow>) = {
            let state = self.state.lock().await;
            if !state.installed {
                return Ok(BTreeMap::new());
            }
            calls.iter().filter_map(|call| state.calls.get(*call)).flatten().copied().partition(|flow| flow.at.is_ipv4())
        };
        let mut all = BTreeMap::new();
        for (map, flows) in [(table::flow_map(true), v4), (table::flow_map(false), v6)] {
            let keys: Vec<Data> = flows.iter().map(|flow| table::key(flow.from, flow.at)).collect();
            let found = self.counters.get(Family::Inet, &self.table, map, keys).await.map_err(|e| self.uncounted(e))?;
            self.state.lock().await.count(&found, &mut all);
        }
        Ok(all)
    }

    /// What each flow of every call has forwarded. Changes do not wait for it.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn counts(&self) -> Result<BTreeMap<String, Vec<FlowCount>>, RelayError> {
        let mut all = BTreeMap::new();
        if !self.state.lock().await.installed {
            return Ok(all);
        }
        for v4 in [true, false] {
            let listed = self.counters.list(Family::Inet, &self.table, table::flow_map(v4)).await;
            self.state.lock().await.count(&listed.map_err(|e| self.uncounted(e))?, &mut all);
        }
        Ok(all)
    }

    fn uncounted(&self, source: NfnlError) -> RelayError {
        RelayError::Counters { what: self.what.clone(), source }
    }

    async fn apply(&self, state: &mut State, change: &Change) -> Result<(), RelayError> {
        if state.installed {
            let batch = change.batch(&self.table, self.tag);
            if batch.is_empty() {
                return Ok(());
            }
            // Until the kernel has answered it is not known what is in force (this future may be dropped): then the next
            // change writes the whole table instead of relying on it.
            state.installed = false;
            match self.link.commit(batch).await {
                Ok(()) => {
                    state.installed = true;
                    return Ok(());
                }
                // Somebody flushed the ruleset, most likely.
                Err(e) => warn!("{} is made anew, since it could not be changed: {e}", self.what),
            }
        }
        self.install(state).await
    }

    /// Makes the table, and puts in all that is wanted and nothing else.
    async fn install(&self, state: &mut State) -> Result<(), RelayError> {
        self.link.idle().await;
        let whole = table::whole(&self.table, self.tag, &self.vips);
        if let Err(e) = nft::run(&self.what, &whole).await {
            // Of another version of this program, perhaps.
            warn!("the table of {} that is there cannot be taken over, and is replaced: {e}", self.what);
            nft::run(&self.what, &(nft::without(&self.table) + &whole)).await?;
        }
        let mut batch = Batch::new(Family::Inet, &self.table);
        table::flush(&mut batch);
        let slots = state.slots.values();
        let all = Elements {
            flows: slots.map(|(_, slot, flow)| (*flow, table::mark(self.tag, *slot))).collect(),
            local: state.local.values().map(|(_, flow)| *flow).collect(),
        };
        all.add(&mut batch);
        self.link.commit(batch).await.map_err(|source| RelayError::Flows { what: self.what.clone(), source })?;
        state.installed = true;
        Ok(())
    }

    fn check(&self, call: &str, flow: &Flow) -> Result<(), RelayError> {
        let v4 = flow.at.is_ipv4();
        let ends = [flow.from, flow.at, flow.to, flow.source];
        let nowhere = |a: &SocketAddr| a.port() == 0 || a.ip().is_unspecified() || a.ip().is_multicast() || a.ip().is_loopback();
        let why = if ends.iter().any(|a| a.is_ipv4() != v4) {
            "its ends are not all IPv4 or all IPv6"
        } else if ends.iter().any(nowhere) {
            "an end is no address that packets can come from or go to"
        } else if !self.vips.contains(&flow.at.ip()) || !self.vips.contains(&flow.source.ip()) {
            "it does not pass a virtual address of this instance"
        } else if self.vips.contains(&flow.to.ip()) {
            "it would come back to this host"
        } else {
            return Ok(());
        };
        Err(RelayError::Impossible { call: call.to_owned(), flow: Box::new(*flow), why })
    }
}

/// What a change takes out and puts in. In a transaction all that goes out comes first.
#[derive(Debug, Default)]
struct Change {
    out: BTreeMap<Key, (u16, Flow)>,
    put: BTreeMap<Key, (u16, Flow)>,
    local_out: BTreeMap<Key, Flow>,
    local_put: BTreeMap<Key, Flow>,
}

impl Change {
    fn batch(&self, table: &str, tag: u8) -> Batch {
        let (out, put) = self.parts(tag);
        let mut batch = Batch::new(Family::Inet, table);
        out.delete(&mut batch);
        put.add(&mut batch);
        batch
    }

    /// What is taken out of the kernel, and what is put in.
    fn parts(&self, tag: u8) -> (Elements, Elements) {
        // What goes out and comes in again unchanged stays, and keeps its counter.
        let flows = |these: &BTreeMap<Key, (u16, Flow)>, others: &BTreeMap<Key, (u16, Flow)>| {
            let parted = these.iter().filter(|(key, what)| others.get(key) != Some(what));
            parted.map(|(_, (slot, flow))| (*flow, table::mark(tag, *slot))).collect::<Vec<_>>()
        };
        let local = |these: &BTreeMap<Key, Flow>, others: &BTreeMap<Key, Flow>| {
            these.iter().filter(|(key, _)| !others.contains_key(key)).map(|(_, flow)| *flow).collect::<Vec<_>>()
        };
        let out = Elements { flows: flows(&self.out, &self.put), local: local(&self.local_out, &self.local_put) };
        let put = Elements { flows: flows(&self.put, &self.out), local: local(&self.local_put, &self.local_out) };
        (out, put)
    }
}

impl State {
    /// Adds the counts that were read to `all`.
    fn count(&self, found: &[Found], all: &mut BTreeMap<String, Vec<FlowCount>>) {
        for one in found {
            if let Some((call, _, flow)) = table::ends(&one.key).and_then(|key| self.slots.get(&key)) {
                all.entry(call.clone()).or_default().push(FlowCount { flow: *flow, packets: one.packets, bytes: one.bytes });
            }
        }
    }

    fn remove(&mut self, call: &str, change: &mut Change) {
        for flow in self.calls.remove(call).unwrap_or_default() {
            self.take((flow.from, flow.at), change);
        }
    }

    fn take(&mut self, key: Key, change: &mut Change) {
        let Some((_, slot, flow)) = self.slots.remove(&key) else { return };
        self.free.push(slot);
        // What the same change put in was never in the kernel.
        if change.put.remove(&key).is_none() {
            change.out.insert(key, (slot, flow));
        }
        let speaks = (flow.source, flow.to);
        if let Some((count, _)) = self.local.get_mut(&speaks) {
            *count -= 1;
            if *count == 0 {
                self.local.remove(&speaks);
                if change.local_put.remove(&speaks).is_none() {
                    change.local_out.insert(speaks, flow);
                }
            }
        }
    }

    fn insert(&mut self, call: &str, flows: &[Flow], change: &mut Change) -> Result<(), RelayError> {
        for flow in flows {
            let key = (flow.from, flow.at);
            if let Some((owner, ..)) = self.slots.get(&key) {
                let owner = owner.clone();
                self.take(key, change);
                let left = self.calls.entry(owner.clone()).or_default();
                left.retain(|f| (f.from, f.at) != key);
                if left.is_empty() {
                    self.calls.remove(&owner);
                }
            }
            // The number that this very flow had until now, so that an unchanged flow stays as it is.
            let before = change.out.get(&key).filter(|(_, f)| f == flow).map(|(slot, _)| *slot);
            let slot = match before.and_then(|slot| self.free.iter().rposition(|s| *s == slot)) {
                Some(at) => self.free.swap_remove(at),
                None => match self.free.pop() {
                    Some(slot) => slot,
                    None => {
                        let slot = u16::try_from(self.used).map_err(|_| RelayError::Full { call: call.to_owned() })?;
                        self.used += 1;
                        slot
                    }
                },
            };
            self.slots.insert(key, (call.to_owned(), slot, *flow));
            change.put.insert(key, (slot, *flow));
            let speaks = (flow.source, flow.to);
            let (count, _) = self.local.entry(speaks).or_insert((0, *flow));
            *count += 1;
            if *count == 1 {
                change.local_put.insert(speaks, *flow);
            }
            self.calls.entry(call.to_owned()).or_default().push(*flow);
        }
        Ok(())
    }
}

/// A number for each instance of this process, so that the marks of two instances never meet.
fn tag_of(instance: &str) -> Option<u8> {
    static TAGS: Shared<BTreeMap<String, u8>> = Shared::new(BTreeMap::new());
    let mut tags = TAGS.lock().unwrap_or_else(PoisonError::into_inner);
    let next = u8::try_from(tags.len() + 1).ok();
    if let Some(tag) = tags.get(instance) {
        return Some(*tag);
    }
    tags.insert(instance.to_owned(), next?);
    next
}

#[cfg(test)]
mod tests;
