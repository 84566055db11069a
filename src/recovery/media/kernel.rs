//! The kernel relay: forwards the audio of recovered calls inside the kernel, on the VIP ports that the phones already use.
//!
//! It is armed on the backups before anything happens: where the VIP is not, no packet reaches the rules, and when the VIP
//! comes nothing has to be installed. Flows are keyed by sender and port of ours together, so a new call of the new server on a
//! port of the same range is untouched. A server that handles its own calls has no flows here.
//!
//! The table is made by one run of nft, unless a predecessor left it as it should be; after that, flows come and go over netlink, in
//! pieces that the planner makes: see there.

mod tags;

use super::planner::{self, Action, NoRoom, Piece, Planner};
use super::present::Present;
use super::table::{self, SETS, Why};
use crate::calls::model::Flow;
use crate::recovery::permitted::{Ground, Refusal};
use crate::vip::nfnl::{Batch, Data, Family, Found, Link, NfnlError};
use crate::vip::nft::signed::Signed;
use crate::vip::nft::{self, NftError};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tracing::warn;

/// Of all relays of this process, only one changes nftables at a time, and rests after it: together they never keep the kernel's
/// lock for more than half of the time, and a renewal of a kernel lease waits for one piece at most.
static BUDGET: Mutex<()> = Mutex::const_new(());
/// A rest is as long as the piece was, in these bounds: at least enough for several renewals (each takes some ten microseconds), and
/// at most what a busy machine would make of it.
const REST: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(20));
/// A change that took less needs no rest if nothing else waits: one call.
const SHORT: Duration = Duration::from_millis(1);

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
        why: Refusal,
    },
    /// The table is full.
    #[error("no room for the audio of call {call}: {} flows are forwarded already", planner::MOST)]
    Full {
        /// The call that found no room.
        call: String,
    },
    /// A call with more streams than any telephone has.
    #[error("the audio of call {call} is not forwarded: it has more than {} flows", planner::MOST_OF_A_CALL)]
    TooMany {
        /// The call.
        call: String,
    },
    /// More instances in one process than marks can tell apart.
    #[error("too many instances: the marks of the kernel relay tell 255 apart")]
    TooManyInstances,
    /// The elements of the table could not be changed; what is wanted is kept, and tried again with the next change.
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

/// Packets of flows that were not forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedPackets {
    /// Not RTP, RTCP, STUN or DTLS, nor UDPTL where it was agreed.
    pub payload: u64,
    /// Fragments, and what has other headers before UDP.
    pub parts: u64,
    /// To this host or to everybody in a network.
    pub this_host: u64,
}

/// What is wanted for a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The call.
    pub call: String,
    /// All its flows; none removes it.
    pub flows: Vec<Flow>,
    /// Whether it comes before all calls that are none.
    pub emergency: bool,
}

/// The relay of one instance.
#[derive(Debug)]
pub struct KernelRelay {
    instance: String,
    table: String,
    what: String,
    ground: Ground,
    link: Link,
    // Of its own, so that changes do not wait until thousands of counters are read.
    counters: Link,
    // Held across a change: what the maps hold and what is noted here never part.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    planner: Planner,
    // Whether the last change was refused, and none has succeeded since.
    refused: bool,
}

impl KernelRelay {
    /// The relay of `instance` on its ground. Touches nothing until the first change.
    #[must_use]
    pub fn new(instance: &str, ground: &Ground) -> Self {
        Self {
            instance: instance.to_owned(),
            table: nft::table_name("relay", instance),
            what: format!("the audio relay of instance {instance}"),
            ground: ground.clone(),
            link: Link::ahead(),
            counters: Link::default(),
            state: Mutex::default(),
        }
    }

    /// The same with all in one transaction, as it was once: what the benchmark compares with.
    #[must_use]
    pub fn unbroken(mut self) -> Self {
        self.state.get_mut().planner = Planner::unbroken();
        self
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

    /// [`KernelRelay::set`] for many calls, piece by piece. A call that is refused (impossible flows, or no room) does not
    /// keep the others from being set; nothing is forwarded for it, and it is in the list that is returned.
    ///
    /// # Errors
    /// nftables refused; as for [`KernelRelay::set`].
    pub async fn set_many<'a>(
        &self,
        calls: impl IntoIterator<Item = (&'a str, &'a [Flow])>,
    ) -> Result<Vec<RelayError>, RelayError> {
        let wish =
            |(call, flows): (&str, &[Flow])| Wish { call: call.to_owned(), flows: flows.to_vec(), emergency: false };
        let wishes: Vec<Wish> = calls.into_iter().map(wish).collect();
        let refused = self.want(wishes).await;
        while self.step().await? {}
        Ok(refused)
    }

    /// Forwards nothing more for `call`.
    ///
    /// # Errors
    /// nftables refused; as for [`KernelRelay::set`].
    pub async fn remove(&self, call: &str) -> Result<(), RelayError> {
        self.set(call, &[]).await
    }

    /// Notes what is wanted; [`KernelRelay::step`] brings it about. The calls that are refused are returned: nothing is wanted for
    /// them.
    pub async fn want(&self, wishes: impl IntoIterator<Item = Wish>) -> Vec<RelayError> {
        let mut state = self.state.lock().await;
        let mut refused = Vec::new();
        for Wish { call, flows, emergency } in wishes {
            let checked = flows.iter().try_for_each(|flow| self.check(&call, flow));
            let flows = if checked.is_ok() { &flows[..] } else { &[] };
            let room = state.planner.handle_set(&call, flows, emergency).map_err(|full| match full {
                NoRoom::Table => RelayError::Full { call: call.clone() },
                NoRoom::Call => RelayError::TooMany { call },
            });
            refused.extend(checked.and(room).err());
        }
        refused
    }

    /// Brings a piece of what is wanted into force, and rests; whether there is more. If this is dropped, the next step looks first
    /// at what the kernel has.
    ///
    /// # Errors
    /// nftables refused, twice; as for [`KernelRelay::set`].
    pub async fn step(&self) -> Result<bool, RelayError> {
        let _budget = BUDGET.lock().await;
        let mut state = self.state.lock().await;
        let Some(action) = state.planner.poll_action() else { return Ok(false) };
        let started = Instant::now();
        match action {
            Action::Read => {
                let (present, tag) = self.install(state.refused).await?;
                state.planner.handle_present(present, tag);
            }
            Action::Commit(piece) => match self.link.commit(piece.batch(&self.table)).await {
                Ok(()) => {
                    state.planner.handle_done(started.elapsed());
                    state.refused = false;
                }
                Err(source) => {
                    state.planner.handle_unknown();
                    if std::mem::replace(&mut state.refused, true) {
                        return Err(RelayError::Flows { what: self.what.clone(), source });
                    }
                    // Somebody flushed the ruleset, most likely.
                    warn!("{} is looked at anew, since it could not be changed: {source}", self.what);
                }
            },
        }
        let (more, took) = (!state.planner.is_settled(), started.elapsed());
        drop(state);
        if more || took > SHORT {
            tokio::time::sleep(took.clamp(REST.0, REST.1)).await;
        }
        Ok(more)
    }

    /// Whether somebody deleted the table. Then [`KernelRelay::step`] puts it back with all that is wanted.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub async fn is_deleted(&self) -> Result<bool, RelayError> {
        let mut state = self.state.lock().await;
        if !state.planner.is_known() || self.is_there().await? {
            return Ok(false);
        }
        state.planner.handle_unknown();
        Ok(true)
    }

    /// The name of its table.
    #[must_use]
    pub fn table_name(&self) -> &str {
        &self.table
    }

    /// Removes the whole table. Nothing is forwarded from the first moment on.
    ///
    /// # Errors
    /// nftables refused.
    pub async fn clear(&self) -> Result<(), RelayError> {
        let _budget = BUDGET.lock().await;
        let mut state = self.state.lock().await;
        self.link.idle().await;
        if self.is_there().await? {
            self.empty().await;
        }
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
            calls.iter().flat_map(|call| state.planner.flows(call)).partition(|flow| flow.at.is_ipv4())
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
        if !self.state.lock().await.planner.is_known() {
            return Ok(all);
        }
        for v4 in [true, false] {
            let listed = self.counters.list(Family::Inet, &self.table, table::flow_map(v4)).await;
            self.state.lock().await.count(&listed.map_err(|e| self.uncounted(e))?, &mut all);
        }
        Ok(all)
    }

    /// Packets of flows that were not forwarded, since the table was made.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn refused(&self) -> Result<RefusedPackets, RelayError> {
        let found = self.reasons().await.map_err(|e| self.uncounted(e))?;
        let of = |why: Why| found.iter().filter(|one| one.key == why.key().as_bytes()).map(|one| one.packets).sum();
        Ok(RefusedPackets { payload: of(Why::Payload), parts: of(Why::Part), this_host: of(Why::ThisHost) })
    }

    async fn reasons(&self) -> Result<Vec<Found>, NfnlError> {
        self.counters.get(Family::Inet, &self.table, table::REFUSED, Why::ALL.map(Why::key).to_vec()).await
    }

    fn uncounted(&self, source: NfnlError) -> RelayError {
        RelayError::Counters { what: self.what.clone(), source }
    }

    fn unchanged(&self, source: NfnlError) -> RelayError {
        RelayError::Flows { what: self.what.clone(), source }
    }

    async fn is_there(&self) -> Result<bool, RelayError> {
        let handle = self.counters.table(Family::Inet, &self.table).await.map_err(|e| self.unchanged(e))?;
        Ok(handle.is_some())
    }

    /// Makes the table with its rules, and tells what its sets hold: what a predecessor left goes on. `anew`: also if all of it seems
    /// to be there.
    async fn install(&self, anew: bool) -> Result<(Present, u8), RelayError> {
        self.link.idle().await;
        let (mut present, mut whole) =
            if self.is_there().await? { self.present().await? } else { (Present::default(), false) };
        let tag = tags::of(&self.instance, present.tag).ok_or(RelayError::TooManyInstances)?;
        if present.tag.is_some_and(|before| before != tag) {
            warn!("the marks of {} are another instance's now; its flows are made anew", self.what);
            self.empty().await;
            (present, whole) = (Present::default(), false);
        }
        let rules = table::rules(&self.table, tag, &self.ground.vips);
        if whole && !anew && self.is_in_force(&rules).await {
            return Ok((present, tag));
        }
        let script = table::renewed(&self.table, &rules);
        if let Err(e) = nft::run(&self.what, &script).await {
            // Of another version of this program, perhaps.
            warn!("the table of {} that is there cannot be taken over, and is replaced: {e}", self.what);
            self.empty().await;
            nft::run(&self.what, &(nft::without(&self.table) + &script)).await?;
            present = Present::default();
        }
        Ok((present, tag))
    }

    /// Whether rules and reasons are there as they should be; if that cannot be read, they are not.
    async fn is_in_force(&self, rules: &Signed) -> bool {
        self.reasons().await.is_ok_and(|found| found.len() == Why::ALL.len())
            && self.counters.rules(Family::Inet, &self.table).await.is_ok_and(|there| rules.is_in_force(&there))
    }

    /// What the sets hold, and whether all of them are there.
    async fn present(&self) -> Result<(Present, bool), RelayError> {
        let (sets, whole) = self.listed().await?;
        // Half a second of work with 10,000 calls, which would keep other tasks of this thread waiting.
        let sorted = tokio::task::spawn_blocking(move || Present::of(&sets)).await;
        Ok((sorted.map_err(|_| self.unchanged(NfnlError::Stopping))?, whole))
    }

    /// The elements of each of [`SETS`], and whether all of these are there.
    async fn listed(&self) -> Result<(Vec<Vec<Found>>, bool), RelayError> {
        let (mut sets, mut whole) = (Vec::new(), true);
        for (set, ..) in SETS {
            match self.counters.list_own(Family::Inet, &self.table, set).await {
                Ok(found) => sets.push(found),
                // A set that another version of this program has not made.
                Err(NfnlError::Gone) => {
                    sets.push(Vec::new());
                    whole = false;
                }
                Err(e) => return Err(self.unchanged(e)),
            }
        }
        Ok((sets, whole))
    }

    /// Takes all out of a table that is there: its rules at once, its elements in pieces. To delete the table with them would keep
    /// the kernel's lock for a tenth of a second.
    async fn empty(&self) {
        if let Err(e) = self.emptied().await {
            warn!("the table of {} is deleted with all that is in it: {e}", self.what);
        }
    }

    async fn emptied(&self) -> Result<(), RelayError> {
        nft::run(&self.what, &format!("flush table inet {}\n", self.table)).await?;
        let (sets, _) = self.listed().await?;
        let all = sets
            .iter()
            .enumerate()
            .flat_map(|(set, found)| found.iter().map(move |one| (set, Data::new().then(&one.key))));
        let mut planner = Planner::default();
        planner.handle_present(Present { strays: all.collect(), ..Present::default() }, 0);
        while let Some(Action::Commit(piece)) = planner.poll_action() {
            let started = Instant::now();
            self.link.commit(piece.batch(&self.table)).await.map_err(|e| self.unchanged(e))?;
            planner.handle_done(started.elapsed());
            tokio::time::sleep(started.elapsed().clamp(REST.0, REST.1)).await;
        }
        Ok(())
    }

    /// Whoever asks has asked the ground before; what reaches the kernel is judged once more.
    fn check(&self, call: &str, flow: &Flow) -> Result<(), RelayError> {
        let refused = |why| RelayError::Impossible { call: call.to_owned(), flow: Box::new(*flow), why };
        self.ground.permits(flow).map_err(refused)
    }
}

impl Piece {
    fn batch(&self, table: &str) -> Batch {
        let mut batch = Batch::new(Family::Inet, table);
        for (set, key) in &self.strays {
            if let Some((name, ..)) = SETS.get(*set) {
                batch.delete(name, key);
            }
        }
        self.out.delete(&mut batch);
        self.put.add(&mut batch);
        batch
    }
}

impl State {
    /// Adds the counts that were read to `all`.
    fn count(&self, found: &[Found], all: &mut BTreeMap<String, Vec<FlowCount>>) {
        for one in found {
            if let Some((call, flow)) = table::ends(&one.key).and_then(|key| self.planner.flow(key)) {
                all.entry(call.to_owned()).or_default().push(FlowCount {
                    flow,
                    packets: one.packets,
                    bytes: one.bytes,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
