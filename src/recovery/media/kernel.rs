//! The kernel relay: forwards the audio of recovered calls inside the kernel, on the VIP ports that the phones already use.
//!
//! It is armed on the backups before anything happens: where the VIP is not, no packet reaches the rules, and when the VIP
//! comes nothing has to be installed. Flows are keyed by sender and port of ours together, so a new call of the new server on a
//! port of the same range is untouched. A server that handles its own calls has no flows here.

use super::table::{self, Elements, MAX_FLOWS};
use crate::calls::model::Flow;
use crate::vip::nft::{self, NftError};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex as Shared, PoisonError};
use tokio::sync::Mutex;

/// Elements in one question to nft: some 100 bytes each, and one argument of a program holds 128 KiB.
const KEYS_AT_ONCE: usize = 500;

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
    /// nft's answer was not understood.
    #[error("cannot read the counters of the kernel relay: {0}")]
    Counters(#[from] serde_json::Error),
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
    // Held across a run of nft: what the maps hold and what is noted here never part.
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
    // How many flows speak from a port of ours to a phone.
    local: HashMap<Key, u32>,
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
        nft::run(&self.what, &nft::without(&self.table)).await?;
        *state = State::default();
        Ok(())
    }

    /// What each flow of these calls has forwarded. nft reads the whole table even for a few elements (1.0.6 does: 13 ms at 100
    /// calls, 90 ms at 1,000, 1.8 s at 10,000), so not a thing to do in a loop; changes do not wait for it.
    ///
    /// # Errors
    /// nft refused.
    pub async fn counts_of(&self, calls: &[&str]) -> Result<BTreeMap<String, Vec<FlowCount>>, RelayError> {
        let mut questions = Vec::new();
        {
            let state = self.state.lock().await;
            if !state.installed {
                return Ok(BTreeMap::new());
            }
            let flows = calls.iter().filter_map(|call| state.calls.get(*call)).flatten();
            let (v4, v6): (Vec<&Flow>, Vec<&Flow>) = flows.partition(|flow| flow.at.is_ipv4());
            for (map, flows) in [("flow4", v4), ("flow6", v6)] {
                for some in flows.chunks(KEYS_AT_ONCE) {
                    let keys: Vec<String> = some.iter().map(|flow| table::key(flow.from, flow.at)).collect();
                    questions.push((map, format!("{{ {} }}", keys.join(", "))));
                }
            }
        }
        let mut all = BTreeMap::new();
        for (map, keys) in questions {
            let text = nft::ask(&self.what, &["get", "element", "inet", &self.table, map, &keys]).await?;
            self.state.lock().await.count(&text, &mut all)?;
        }
        Ok(all)
    }

    /// What each flow of every call has forwarded; as costly as [`KernelRelay::counts_of`].
    ///
    /// # Errors
    /// nft refused.
    pub async fn counts(&self) -> Result<BTreeMap<String, Vec<FlowCount>>, RelayError> {
        let mut all = BTreeMap::new();
        if !self.state.lock().await.installed {
            return Ok(all);
        }
        for map in ["flow4", "flow6"] {
            let text = nft::ask(&self.what, &["list", "map", "inet", &self.table, map]).await?;
            self.state.lock().await.count(&text, &mut all)?;
        }
        Ok(all)
    }

    async fn apply(&self, state: &mut State, change: &Change) -> Result<(), RelayError> {
        let script = if state.installed {
            change.script(&self.table, self.tag)
        } else {
            let mut all = Elements::default();
            for (_, slot, flow) in state.slots.values() {
                all.flow(flow, table::mark(self.tag, *slot), true);
                all.local(flow);
            }
            table::whole(&self.table, self.tag, &self.vips) + &all.script("add", &self.table)
        };
        if !script.is_empty() {
            // Until nft has answered it is not known what is in force (it may time out, or this future be dropped): then the
            // next change writes the whole table instead of relying on it.
            state.installed = false;
            nft::run(&self.what, &script).await?;
        }
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

/// What a change takes out and puts in. In a script all that goes out comes first.
#[derive(Debug, Default)]
struct Change {
    out: BTreeMap<Key, (u16, Flow)>,
    put: BTreeMap<Key, (u16, Flow)>,
    local_out: BTreeMap<Key, Flow>,
    local_put: BTreeMap<Key, Flow>,
}

impl Change {
    fn script(&self, table: &str, tag: u8) -> String {
        let (mut out, mut put) = (Elements::default(), Elements::default());
        // What goes out and comes in again unchanged stays, and keeps its counter.
        for (key, (slot, flow)) in &self.out {
            if self.put.get(key) != Some(&(*slot, *flow)) {
                out.flow(flow, table::mark(tag, *slot), false);
            }
        }
        for (key, (slot, flow)) in &self.put {
            if self.out.get(key) != Some(&(*slot, *flow)) {
                put.flow(flow, table::mark(tag, *slot), true);
            }
        }
        for (key, flow) in &self.local_out {
            if !self.local_put.contains_key(key) {
                out.local(flow);
            }
        }
        for (key, flow) in &self.local_put {
            if !self.local_out.contains_key(key) {
                put.local(flow);
            }
        }
        out.script("delete", table) + &put.script("add", table)
    }
}

impl State {
    /// Adds the counts in nft's answer to `all`.
    fn count(&self, answer: &[u8], all: &mut BTreeMap<String, Vec<FlowCount>>) -> Result<(), RelayError> {
        for (key, packets, bytes) in counts_in(answer)? {
            if let Some((call, _, flow)) = self.slots.get(&key) {
                all.entry(call.clone()).or_default().push(FlowCount { flow: *flow, packets, bytes });
            }
        }
        Ok(())
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
        if let Some(count) = self.local.get_mut(&speaks) {
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
            let count = self.local.entry(speaks).or_insert(0);
            *count += 1;
            if *count == 1 {
                change.local_put.insert(speaks, *flow);
            }
            self.calls.entry(call.to_owned()).or_default().push(*flow);
        }
        Ok(())
    }
}

/// Key, packets and bytes of each element in an answer of nft: JSON, or the text that `get element` answers in spite of `-j`
/// (nftables 1.0.6).
fn counts_in(answer: &[u8]) -> Result<Vec<(Key, u64, u64)>, RelayError> {
    if answer.first() != Some(&b'{') {
        let text = String::from_utf8_lossy(answer);
        return Ok(text.split(['{', '}', ',', '\n']).filter_map(count_in_text).collect());
    }
    let json: serde_json::Value = serde_json::from_slice(answer)?;
    let sets = json["nftables"].as_array().into_iter().flatten();
    let elements = sets.flat_map(|s| s["map"]["elem"].as_array().or_else(|| s["set"]["elem"].as_array())).flatten();
    Ok(elements.filter_map(count_of).collect())
}

/// `10.0.0.1 . 4000 . 10.0.0.9 . 10000 counter packets 7 bytes 700 : 0x6b010000`
fn count_in_text(element: &str) -> Option<(Key, u64, u64)> {
    let words: Vec<&str> = element.split_whitespace().collect();
    let [ip, ".", port, ".", our_ip, ".", our_port, "counter", "packets", packets, "bytes", bytes, ..] = words[..] else {
        return None;
    };
    let from = SocketAddr::new(ip.parse().ok()?, port.parse().ok()?);
    let at = SocketAddr::new(our_ip.parse().ok()?, our_port.parse().ok()?);
    Some(((from, at), packets.parse().ok()?, bytes.parse().ok()?))
}

/// Key, packets and bytes of an element of a flow map in nft's JSON.
fn count_of(element: &serde_json::Value) -> Option<(Key, u64, u64)> {
    let element = &element.get(0)?["elem"];
    let parts = element["val"]["concat"].as_array()?;
    let address = |at: usize| -> Option<SocketAddr> {
        let ip: IpAddr = parts.get(at)?.as_str()?.parse().ok()?;
        Some(SocketAddr::new(ip, u16::try_from(parts.get(at + 1)?.as_u64()?).ok()?))
    };
    let counter = &element["counter"];
    Some(((address(0)?, address(2)?), counter["packets"].as_u64()?, counter["bytes"].as_u64()?))
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
