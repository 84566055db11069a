//! The kernel relay: forwards the audio of recovered calls inside the kernel, on the VIP ports that the phones already
//! use.
//!
//! The relay is armed on the standbys in advance. Without the VIP no packet reaches the rules, and when the VIP arrives
//! nothing has to be installed. A flow's key is its sender together with our port, so a new call of the new server on a
//! port in the same range is untouched. A server that handles its own calls has no flows here.
//!
//! One run of nft creates the table, unless a predecessor left it in the right form. After that, flows are added and
//! removed over netlink, in pieces made by the planner (see there).

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

/// Only one relay of this process changes nftables at a time, and it rests afterwards. Together the relays hold the
/// kernel's lock for at most half of the time, and a lease renewal waits for one piece at most.
static BUDGET: Mutex<()> = Mutex::const_new(());
/// Bounds of the rest, which lasts as long as the piece did. The minimum leaves time for several renewals (some ten
/// microseconds each). The maximum covers a piece slowed by a busy machine.
const REST: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(20));
/// A shorter change, such as a single call, needs no rest if nothing else waits.
const SHORT: Duration = Duration::from_millis(1);

/// Reasons why the relay refused flows.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// nftables refused. The previous state remains in force.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// A flow cannot be forwarded.
    #[error("cannot forward {} to {} for call {call}: {why}", flow.from, flow.to)]
    Impossible {
        /// The call.
        call: String,
        /// The flow.
        flow: Box<Flow>,
        /// The reason for the refusal.
        why: Refusal,
    },
    /// The table is full.
    #[error("no room for the audio of call {call}: the relay already forwards {} flows", planner::MOST)]
    Full {
        /// The call without room.
        call: String,
    },
    /// The call has more streams than any telephone.
    #[error(
        "the relay does not forward the audio of call {call}: the call has more than {} flows",
        planner::MOST_OF_A_CALL
    )]
    TooMany {
        /// The call.
        call: String,
    },
    /// More instances in one process than the marks can distinguish.
    #[error("too many instances: the relay has packet marks for 255 in one process")]
    TooManyInstances,
    /// The table's elements could not be changed. The request is kept and retried with the next change.
    #[error("cannot change the flows of {what} in nftables: {source}")]
    Flows {
        /// Name of the relay and its instance.
        what: String,
        /// Error from the kernel.
        source: NfnlError,
    },
    /// The counters could not be read.
    #[error("cannot read the counters of {what}: {source}")]
    Counters {
        /// Name of the relay and its instance.
        what: String,
        /// Error from the kernel.
        source: NfnlError,
    },
}

/// Traffic forwarded by one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowCount {
    /// The flow.
    pub flow: Flow,
    /// Packets since the flow was added.
    pub packets: u64,
    /// Bytes of these packets, with IP headers.
    pub bytes: u64,
}

/// Packets of flows that were dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedPackets {
    /// Neither RTP, RTCP, STUN or DTLS, nor agreed UDPTL.
    pub payload: u64,
    /// Fragments, and packets with other headers before UDP.
    pub parts: u64,
    /// Addressed to this host or a broadcast address.
    pub this_host: u64,
}

/// A request for the flows of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The call.
    pub call: String,
    /// All its flows. An empty list removes the call.
    pub flows: Vec<Flow>,
    /// Emergency calls precede all other calls.
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
    // A separate link, so that reading thousands of counters does not delay changes.
    counters: Link,
    // Locked during a change, so that the maps and this record always agree.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    planner: Planner,
    // The last change was refused, and none has succeeded since.
    refused: bool,
}

impl KernelRelay {
    /// The relay of `instance` on its ground. Leaves nftables alone until the first change.
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

    /// The same relay with a single transaction for everything, as in earlier versions. The benchmark compares with it.
    #[must_use]
    pub fn unbroken(mut self) -> Self {
        self.state.get_mut().planner = Planner::unbroken();
        self
    }

    /// Forwards exactly `flows` for `call`. An empty list removes the call. If another call had the same sender and
    /// port of ours, this call takes them over, because its knowledge is newer.
    ///
    /// # Errors
    /// See [`RelayError`]. If the call itself is refused, none of its flows is forwarded. If nftables refused, the
    /// previous state remains in force, and the next change of any call retries every request.
    pub async fn set(&self, call: &str, flows: &[Flow]) -> Result<(), RelayError> {
        self.set_many([(call, flows)]).await?.pop().map_or(Ok(()), Err)
    }

    /// [`KernelRelay::set`] for many calls, piece by piece. A refused call (impossible flows, or no room) does not stop
    /// the others. None of its flows is forwarded, and the returned list contains its error.
    ///
    /// # Errors
    /// nftables refused: see [`KernelRelay::set`].
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

    /// Stops forwarding for `call`.
    ///
    /// # Errors
    /// nftables refused: see [`KernelRelay::set`].
    pub async fn remove(&self, call: &str) -> Result<(), RelayError> {
        self.set(call, &[]).await
    }

    /// Records requests for [`KernelRelay::step`] to carry out. Returns an error for each refused call, which then has
    /// no flows.
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

    /// Brings one piece of the requests into force, then rests. Returns whether more is left. If this future is
    /// dropped, the next step first reads the kernel's state.
    ///
    /// # Errors
    /// nftables refused twice: see [`KernelRelay::set`].
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
                    // Most likely the ruleset was flushed.
                    warn!("cannot change {}; reading the table again: {source}", self.what);
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

    /// Whether the table was deleted by somebody else. If so, [`KernelRelay::step`] restores it with all requested
    /// flows.
    ///
    /// # Errors
    /// The kernel's state could not be read.
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

    /// Removes the whole table. Forwarding stops at once.
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

    /// Traffic forwarded by each flow of these calls. Reading does not delay changes.
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

    /// Traffic forwarded by each flow of every call. Reading does not delay changes.
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

    /// Packets of flows that were dropped since the table was created.
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

    /// Creates the table with its rules and reads its sets. A predecessor's flows continue. `anew` renews the rules
    /// even if everything seems to be in place.
    async fn install(&self, anew: bool) -> Result<(Present, u8), RelayError> {
        self.link.idle().await;
        let (mut present, mut whole) =
            if self.is_there().await? { self.present().await? } else { (Present::default(), false) };
        let tag = tags::of(&self.instance, present.tag).ok_or(RelayError::TooManyInstances)?;
        if present.tag.is_some_and(|before| before != tag) {
            warn!("another instance uses the packet marks of {}; adding the flows again with new marks", self.what);
            self.empty().await;
            (present, whole) = (Present::default(), false);
        }
        let rules = table::rules(&self.table, tag, &self.ground.vips);
        if whole && !anew && self.is_in_force(&rules).await {
            return Ok((present, tag));
        }
        let script = table::renewed(&self.table, &rules);
        if let Err(e) = nft::run(&self.what, &script).await {
            // Possibly the table of another version of this program.
            warn!("cannot continue with the existing table of {}; replacing the table: {e}", self.what);
            self.empty().await;
            nft::run(&self.what, &(nft::without(&self.table) + &script)).await?;
            present = Present::default();
        }
        Ok((present, tag))
    }

    /// Whether the rules and drop reasons are in place. False if they cannot be read.
    async fn is_in_force(&self, rules: &Signed) -> bool {
        self.reasons().await.is_ok_and(|found| found.len() == Why::ALL.len())
            && self.counters.rules(Family::Inet, &self.table).await.is_ok_and(|there| rules.is_in_force(&there))
    }

    /// The contents of the sets, and whether all sets exist.
    async fn present(&self) -> Result<(Present, bool), RelayError> {
        let (sets, whole) = self.listed().await?;
        // This takes half a second with 10,000 calls and would block other tasks on this thread.
        let sorted = tokio::task::spawn_blocking(move || Present::of(&sets)).await;
        Ok((sorted.map_err(|_| self.unchanged(NfnlError::Stopping))?, whole))
    }

    /// The elements of each of [`SETS`], and whether all sets exist.
    async fn listed(&self) -> Result<(Vec<Vec<Found>>, bool), RelayError> {
        let (mut sets, mut whole) = (Vec::new(), true);
        for (set, ..) in SETS {
            match self.counters.list_own(Family::Inet, &self.table, set).await {
                Ok(found) => sets.push(found),
                // A set unknown to the version that created the table.
                Err(NfnlError::Gone) => {
                    sets.push(Vec::new());
                    whole = false;
                }
                Err(e) => return Err(self.unchanged(e)),
            }
        }
        Ok((sets, whole))
    }

    /// Empties an existing table: the rules at once, the elements in pieces. Deleting the table with its elements would
    /// hold the kernel's lock for a tenth of a second.
    async fn empty(&self) {
        if let Err(e) = self.emptied().await {
            warn!("cannot empty the table of {} first; deleting the table with all flows: {e}", self.what);
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

    /// Callers have already checked the ground. Check once more before a flow reaches the kernel.
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
    /// Adds the counts in `found` to `all`.
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
