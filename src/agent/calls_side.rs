//! The calls of one instance: what the wire, the store and the clock say goes to tracker and recovery engine, and what these
//! decide is carried out.
//!
//! Roles: as *backup* the stored calls are followed and the relay is armed for each; nothing is sent. As *master* the local
//! server's traffic is learnt and stored, and the calls of the master before are recovered and carried.

use super::ears::{self, Ears, EarsError};
use super::relay::Relay;
use super::rows;
use super::sockets::{Datagram, RecoveryPortError, RecoverySockets};
use super::takeover::Takeover;
use crate::calls::model::{Call, CallEvent, Flow, Packet};
use crate::calls::store::{Keep, Store, StoreEvent, StoreHandle, StoreSettings};
use crate::calls::stored::Stored;
use crate::calls::sweep::{self, Sweep, Verdict};
use crate::calls::table::{Table, TableSettings};
use crate::clock;
use crate::config;
use crate::control::api;
use crate::etcd::Etcd;
use crate::recovery::engine::{Action, CallState, CallStatus, Engine, Heard, Settings};
use crate::recovery::media::kernel::{KernelRelay, RelayError};
use crate::recovery::plan;
use crate::time::Time;
use crate::vip::fence::Fence;
use crate::vip::nft::NftError;
use crate::vip::nft::watch::TableWatch;
use crate::vip::rawudp::{RawUdp, RawUdpError};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

/// Longest time that a handover waits for stored calls to be written. The right to hold the addresses ends soon after anyway.
const FLUSH: Duration = Duration::from_millis(250);
/// Pause before tables that could not be put back are tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Least time between two warnings, and between two tries to read, of calls that found no room here.
const LEFT_OUT_EVERY: Duration = Duration::from_secs(60);
/// From the news that a table of ours may be gone until it is looked for: our own changes replace tables, too.
const MEND: Duration = Duration::from_millis(100);
/// Longest time that re-INVITEs wait for the relay to be armed: audio comes first, but a firewall that hangs must not cost the calls.
const ARMED: Duration = Duration::from_secs(1);
/// Events of the store that are handled in one go, so that a thousand calls make one change of the relay.
const BATCH: usize = 1024;
/// Messages of the wire that are handled in one go: some tenths of a millisecond, so that nothing else waits for long.
const HEARD: usize = 64;

/// One SIP message: our address, the receiver's, and the bytes.
type Message = (SocketAddr, SocketAddr, Vec<u8>);

/// When it was told, and tried again, that not all stored calls are kept.
#[derive(Default)]
struct LeftOut {
    told: Option<Time>,
    read: Option<Time>,
}

impl LeftOut {
    fn is_news(&mut self, left_out: usize, now: Time) -> bool {
        left_out > 0 && due(&mut self.told, now)
    }

    fn may_read(&mut self, now: Time) -> bool {
        due(&mut self.read, now)
    }
}

/// At most once in a while.
fn due(last: &mut Option<Time>, now: Time) -> bool {
    let due = last.is_none_or(|at| now.since(at) >= LEFT_OUT_EVERY);
    if due {
        *last = Some(now);
    }
    due
}

/// Whether the instance's addresses are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Backup,
    Master,
}

/// Why calls cannot be learnt or kept on this node.
#[derive(Debug, thiserror::Error)]
pub enum CallsError {
    /// The server cannot be listened to.
    #[error(transparent)]
    Ears(#[from] EarsError),
    /// The key that stored calls may be encrypted with cannot be read.
    #[error("cannot read the cluster's key {}: {error}", file.display())]
    Key {
        /// The `key_file`.
        file: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The recovery port cannot be had.
    #[error(transparent)]
    RecoveryPort(#[from] RecoveryPortError),
    /// The server's port cannot be spoken from.
    #[error(transparent)]
    Raw(#[from] RawUdpError),
    /// The fence cannot be set up.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The relay cannot be set up.
    #[error(transparent)]
    Relay(#[from] RelayError),
}

/// Something that happened to the calls of an instance.
#[derive(Debug)]
pub(super) enum Event {
    Heard(ears::Heard),
    Received(Datagram),
    Stored(StoreEvent),
    /// Tables of nftables were deleted: these, or `None` if it is not known which.
    TablesGone(Option<Vec<String>>),
    TablesUnwatched(std::io::Error),
    Deadline,
}

/// The calls of one instance.
pub(super) struct CallsSide {
    instance: String,
    vips: Vec<IpAddr>,
    role: Role,
    table: Table,
    engine: Engine,
    store: StoreHandle,
    store_events: mpsc::Receiver<StoreEvent>,
    /// What etcd holds, by call id: on a backup, what a takeover would recover.
    stored: Stored,
    left_out: LeftOut,
    sweep: Sweep,
    ears: Ears,
    sockets: RecoverySockets,
    raw: RawUdp,
    fence: Fence,
    /// `None` if the system does not tell of deleted tables.
    tables: Option<TableWatch>,
    mend_at: Time,
    /// When the master looks next for stored calls that nobody carries.
    sweep_at: Time,
    relay: Relay,
    takeover: Option<Takeover>,
    epoch: u64,
    node: String,
    /// Whether the stored calls have been read.
    synced: bool,
    /// Whether the local server works; `None` while its checks have not decided.
    server: Option<bool>,
    /// The stored calls of the local server are neither adopted nor recovered yet; see [`CallsSide::settle_own`].
    own_open: bool,
    /// The relay's table is a predecessor's, who may have carried other calls than are stored now.
    inherited: bool,
}

impl CallsSide {
    /// `inherited`: a process before this one left while this node was master, and its right still runs. Then its tables stay
    /// in force, with the audio of the calls that it carried, until this process knows what they should be.
    pub(super) async fn open(
        config: &config::Config,
        instance: &config::Instance,
        sip: &config::Sip,
        etcd: Etcd,
        inherited: bool,
    ) -> Result<Self, CallsError> {
        let node = &config.node;
        let vips: Vec<IpAddr> = instance.addresses.iter().map(ipnet::IpNet::addr).collect();
        // What can fail for reasons of this host comes first, so that a refused start leaves nothing behind.
        let sockets = RecoverySockets::open(&vips, sip.recovery_port)?;
        let ears = Ears::open(config, instance, sip, &vips)?;
        let raw = RawUdp::open(&instance.interface)?;
        let relay = KernelRelay::new(&instance.name, &vips)?;
        let fence = Fence::new(&instance.name, &sip.ports, sip.media_ports);
        // Until this node is master, its server stays off the wire. After a restart it is master, as long as it does not hear
        // otherwise; and then this is closed with the right.
        if !inherited {
            relay.clear().await?;
            fence.closed().await?;
        }
        let table = Table::new(TableSettings {
            instance: instance.name.clone(),
            node: node.name.clone(),
            vips: vips.clone(),
            sip_ports: sip.ports.clone(),
            pair_header: sip.pair_header.clone(),
            emergency: sip.emergency.clone(),
            max_calls: sip.max_calls,
        });
        let engine = Engine::new(
            Settings {
                instance: instance.name.clone(),
                node: node.name.clone(),
                vips: vips.clone(),
                recovery_port: sip.recovery_port,
                window: sip.window,
            },
            seed(),
        );
        let tables = match TableWatch::open() {
            Ok(watch) => Some(watch),
            Err(e) => {
                warn!(instance = instance.name, "tables of nftables that somebody deletes will not be put back: {e}");
                None
            }
        };
        let key = |file: &PathBuf| std::fs::read(file).map_err(|error| CallsError::Key { file: file.clone(), error });
        let (store, store_events) = Store::start(
            etcd,
            StoreSettings {
                cluster: node.cluster.clone(),
                instance: instance.name.clone(),
                max_calls: sip.max_calls,
                cluster_key: key(&node.key_file)?,
                accepted_keys: node.accept_key_files.iter().map(key).collect::<Result<_, _>>()?,
                encrypt: sip.encrypt,
                accept_plain: sip.accepts_plain(),
            },
        );
        Ok(Self {
            instance: instance.name.clone(),
            role: Role::Backup,
            table,
            engine,
            store,
            store_events,
            stored: Stored::new(sip.max_calls),
            left_out: LeftOut::default(),
            sweep: Sweep::default(),
            ears,
            vips,
            sockets,
            raw,
            fence,
            tables,
            mend_at: Time::FAR,
            sweep_at: Time::FAR,
            relay: Relay::start(&instance.name, relay),
            takeover: None,
            epoch: 0,
            node: node.name.clone(),
            synced: false,
            server: None,
            own_open: false,
            inherited,
        })
    }

    /// The next thing that happens. Nothing is lost when the wait is dropped.
    pub(super) async fn next(&mut self) -> Event {
        let own = self.mend_at.min(self.sweep_at);
        let deadlines = [self.engine.next_deadline(), self.table.next_deadline()];
        let deadline = deadlines.into_iter().flatten().fold(own, Time::min);
        tokio::select! {
            heard = self.ears.next() => Event::Heard(heard),
            Some(datagram) = self.sockets.next() => Event::Received(datagram),
            Some(event) = self.store_events.recv() => Event::Stored(event),
            gone = deleted(self.tables.as_mut()) => match gone {
                Ok(names) => Event::TablesGone(names),
                Err(e) => Event::TablesUnwatched(e),
            },
            () = tokio::time::sleep_until(clock::tokio_at(deadline)) => Event::Deadline,
        }
    }

    pub(super) async fn handle(&mut self, event: Event) {
        let now = clock::now();
        match event {
            // Without the addresses the server's traffic is none of this node's business.
            Event::Heard(_) if self.role == Role::Backup => {}
            Event::Heard(first) => {
                // Each time around costs as much as some messages do.
                let (mut heard, mut n) = (Some(first), 0);
                while let Some(one) = heard {
                    self.hear(one, now);
                    n += 1;
                    heard = if n < HEARD { self.ears.more() } else { None };
                }
            }
            Event::Received(datagram) => {
                if self.role == Role::Master {
                    self.engine.handle_packet(&datagram.packet(), Heard::RecoveryPort, now);
                }
            }
            Event::Stored(first) => self.follow(first).await,
            Event::TablesGone(names) => {
                let own = [self.fence.table_name(), self.relay.table_name()];
                if names.is_none_or(|names| names.iter().any(|n| own.contains(&n.as_str()))) {
                    self.mend_at = now + MEND;
                }
            }
            Event::TablesUnwatched(e) => {
                warn!(instance = self.instance, "tables of nftables that somebody deletes are no longer put back: {e}");
                self.tables = None;
            }
            Event::Deadline => {
                if self.mend_at <= now {
                    self.mend(now).await;
                }
                if self.sweep_at <= now {
                    self.sweep_at = now + sweep::EVERY;
                    self.sweep(now);
                }
                self.engine.handle_timeout(now);
                self.table.handle_timeout(now);
            }
        }
        self.carry_out().await;
    }

    fn hear(&mut self, heard: ears::Heard, now: Time) {
        match heard {
            ears::Heard::Message(seen) => {
                let packet = Packet { src: seen.src, dst: seen.dst, transport: seen.transport, payload: &seen.payload };
                if !self.engine.handle_packet(&packet, Heard::Overheard, now) {
                    self.table.handle_packet(&packet, clock::unix_ms(), now);
                }
            }
            ears::Heard::Reported(r) => {
                let packet = Packet { src: r.src, dst: r.dst, transport: r.transport, payload: &r.payload };
                if !self.engine.handle_packet(&packet, Heard::Reported, now) {
                    self.table.handle_packet(&packet, clock::unix_ms(), now);
                }
            }
            ears::Heard::Rtp(seen) => self.table.handle_rtp(seen.src, seen.dst, now),
            ears::Heard::Told(fact) => self.table.handle_fact(&fact, now),
        }
    }

    /// What keeps the local server off the wire.
    pub(super) fn fence(&self) -> &Fence {
        &self.fence
    }

    /// The addresses are here: let the server speak, and recover what the master before had.
    ///
    /// `resumed`: this node was master before, and nobody took over meanwhile. Then its server may still have its calls.
    pub(super) async fn take(&mut self, epoch: u64, resumed: bool, takeover: Takeover) {
        let now = clock::now();
        self.role = Role::Master;
        self.epoch = epoch;
        self.own_open = resumed;
        self.table.clear();
        self.table.set_epoch(epoch);
        self.ears.ask_server(true);
        self.takeover = Some(takeover);
        self.store.write_as(epoch);
        self.sweep.clear();
        self.sweep_at = now + sweep::EVERY;
        let lost: Vec<Call> = self.stored.values().filter(|c| !(resumed && self.is_own(c))).cloned().collect();
        info!(instance = self.instance, calls = lost.len(), "recovering calls");
        self.expect(lost, now);
        // Audio first: nearly always it was armed before, and this is no wait.
        let messages = self.decide();
        if tokio::time::timeout(ARMED, self.relay.settled()).await.is_err() {
            warn!(instance = self.instance, "the relay is not armed within {ARMED:?}; going on without");
        }
        if let Some(takeover) = &mut self.takeover {
            takeover.mark("relay", clock::now());
        }
        // Then the server, whose silence until now costs new calls a retransmission at most.
        if let Err(e) = self.fence.open().await {
            error!(instance = self.instance, epoch, "the server's ports are still closed: {e}");
        }
        self.send(messages).await;
        if let Some(takeover) = &self.takeover {
            takeover.save();
        }
        self.settle_own().await;
    }

    /// What the checks say of the local server; `None` while they have not decided.
    pub(super) async fn server_is(&mut self, working: Option<bool>) {
        self.server = working;
        self.settle_own().await;
    }

    /// After a master came back: the calls that its server had before. If the server works, it has them still, and they are
    /// learnt again; else they are recovered. Until both the calls and the server's health are known, their audio goes on by
    /// the relay, if it was armed.
    async fn settle_own(&mut self) {
        let (true, true, Some(working)) = (self.own_open && self.role == Role::Master, self.synced, self.server) else { return };
        self.own_open = false;
        // What the server has begun since is in the table already.
        let learnt: BTreeSet<String> = self.table.calls().map(|c| c.id).collect();
        let own: Vec<Call> = self.stored.values().filter(|c| self.is_own(c) && !learnt.contains(&c.id)).cloned().collect();
        info!(instance = self.instance, calls = own.len(), working, "calls of the local server from before");
        let now = clock::now();
        if working {
            for call in &own {
                self.table.adopt(call, now);
            }
            self.relay.set(own.iter().map(|c| (c.id.clone(), Vec::new())).collect());
        } else {
            self.expect(own, now);
        }
        self.carry_out().await;
    }

    /// Whether a stored call is the local server's, and not one that an agent carries.
    fn is_own(&self, call: &Call) -> bool {
        call.node == self.node && call.legs.iter().all(|l| !l.carried)
    }

    /// Whether a call that is read only now, as master, was a master's before: it is to be recovered too.
    fn is_late(&self, call: &Call) -> bool {
        let before = call.epoch < self.epoch || !self.synced;
        before && !self.stored.contains(&call.id) && !(self.own_open && self.is_own(call))
    }

    fn expect(&mut self, calls: Vec<Call>, now: Time) {
        if let Some(takeover) = &mut self.takeover {
            takeover.expect(calls.len());
        }
        self.engine.start(calls, self.epoch, now);
    }

    /// Before a planned handover: what is known must be in etcd before the addresses go.
    pub(super) async fn flush(&mut self) {
        self.carry_out().await;
        if let Err(e) = self.store.flush(FLUSH).await {
            warn!(instance = self.instance, "not every call was stored before the handover: {e}");
        }
    }

    /// The addresses are gone: the server is off the wire already; arm the relay for all that may come back here.
    pub(super) async fn drop_role(&mut self) {
        self.role = Role::Backup;
        self.sweep_at = Time::FAR;
        self.engine.stop();
        self.table.clear();
        self.ears.ask_server(false);
        if let Some(takeover) = self.takeover.take() {
            takeover.save();
        }
        // What was still to be written is of a master that is no more.
        while self.engine.poll_action().is_some() {}
        while self.table.poll_event().is_some() {}
        self.store.stop_writing();
        self.arm_all();
    }

    /// Looks for stored calls that nobody carries any more.
    fn sweep(&mut self, now: Time) {
        // Until the calls from before have gone to tracker or engine, nobody has them.
        if self.role != Role::Master || !self.synced || self.own_open {
            return;
        }
        let learnt: HashSet<&str> = self.table.ids().collect();
        let carried = |id: &str| learnt.contains(id) || self.engine.carries(id);
        let verdicts = self.sweep.look(&self.stored, carried, now);
        let removed = verdicts.iter().filter(|v| matches!(v, Verdict::Remove(_))).count();
        if removed > 0 {
            info!(instance = self.instance, calls = removed, "stored calls that nobody carries any more are removed");
        }
        for verdict in verdicts {
            match verdict {
                Verdict::Adopt(id) => self.stored.get(&id).into_iter().for_each(|call| self.table.adopt(call, now)),
                Verdict::Remove(id) => self.store.apply(CallEvent::Delete { id, reason: "nobody carries it any more" }),
            }
        }
    }

    /// Puts back those of our tables that somebody deleted.
    async fn mend(&mut self, now: Time) {
        self.mend_at = Time::FAR;
        for (what, done) in [
            ("the fence of the server's ports", self.fence.renew().await.map_err(|e| e.to_string())),
            ("the audio relay", self.relay.renew().await.map_err(|e| e.to_string())),
        ] {
            match done {
                Ok(false) => {}
                Ok(true) => warn!(
                    instance = self.instance,
                    "somebody deleted {what} from nftables; it was put back. `nft flush ruleset` does that: let the firewall's reload \
                     delete its own tables only"
                ),
                Err(e) => {
                    warn!(instance = self.instance, "{what} could not be put back: {e}; trying again");
                    self.mend_at = now + AGAIN;
                }
            }
        }
    }

    /// Stores a call again that somebody else deleted or overwrote, if it is still up here.
    fn put_back(&mut self, id: &str) -> bool {
        let up = self.store_again(id);
        if up {
            warn!(instance = self.instance, call = id, "somebody deleted or changed this call in etcd; it is stored again");
        }
        up
    }

    /// Stores a call again, if it is still up here.
    fn store_again(&mut self, id: &str) -> bool {
        let call = match self.table.get(id) {
            Some(call) => Some(Box::new(call)),
            None if self.engine.carries(id) => self.stored.get(id).cloned().map(Box::new),
            None => None,
        };
        let Some(call) = call else { return false };
        self.store.apply(CallEvent::Put(call));
        true
    }

    /// Leaves so that the next process on this host goes on: only what it could not know is brought to etcd.
    pub(super) async fn park(&mut self) {
        self.flush().await;
        if let Some(takeover) = &self.takeover {
            takeover.save();
        }
    }

    /// Leaves: own tables away, but phones of calls that moved stay closed to the server that still believes in them.
    pub(super) async fn stop(&mut self) -> Vec<String> {
        let mut errors = Vec::new();
        if let Err(e) = self.relay.clear().await {
            errors.push(e.to_string());
        }
        let phones: Vec<_> = self.stored.values().flat_map(rows::phones).collect();
        let left = if phones.is_empty() { self.fence.removed().await } else { self.fence.left(&phones).await };
        if let Err(e) = left {
            errors.push(e.to_string());
        }
        errors
    }

    pub(super) fn counts(&self) -> api::CallCounts {
        let carried = self.engine.status().iter().filter(|c| c.state != CallState::Over).count();
        api::CallCounts {
            stored: self.stored.len(),
            tracked: self.table.ids().count(),
            carried,
            store: {
                let s = self.store.status();
                api::StoreCounts {
                    waiting: s.pending,
                    dropped: s.dropped,
                    unreadable: s.bad_values.saturating_sub(s.plain_refused + s.foreign_refused),
                    plain_refused: s.plain_refused,
                    foreign_refused: s.foreign_refused,
                    outdated: s.outdated,
                }
            },
            capture: self.ears.capture_counts(),
            hep: self.ears.hep_counts(),
        }
    }

    /// The stored calls as `calls` shows them.
    /// How the connection to the server is; `None` if it is not asked for its bridges now.
    pub(super) fn server_status(&self) -> Option<api::ServerStatus> {
        self.ears.server_status()
    }

    pub(super) fn rows(&self) -> Vec<api::CallRow> {
        let carried: BTreeMap<String, CallStatus> = self.engine.status().into_iter().map(|s| (s.call.clone(), s)).collect();
        self.stored.values().map(|call| rows::row(call, carried.get(&call.id))).collect()
    }

    async fn follow(&mut self, first: StoreEvent) {
        let mut events = vec![first];
        while events.len() < BATCH {
            match self.store_events.try_recv() {
                Ok(event) => events.push(event),
                Err(_) => break,
            }
        }
        let mut changed = Vec::new();
        let mut late = Vec::new();
        for event in events {
            match event {
                StoreEvent::Put { call, own } => {
                    let id = call.id.clone();
                    let foreign = self.role == Role::Master && !own;
                    if foreign && self.is_late(&call) {
                        late.push((*call).clone());
                    }
                    let spoiled = foreign && self.table.get(&id).is_some_and(|ours| ours.legs != call.legs);
                    self.stored.put(call);
                    if spoiled {
                        self.put_back(&id);
                    }
                    changed.push(id);
                }
                StoreEvent::Delete { id, own } => {
                    if self.role == Role::Backup || own || !self.put_back(&id) {
                        self.stored.remove(&id);
                        changed.push(id);
                    }
                }
                // A backup keeps what it knew: the master writes it again, and if there is none it is the best there is.
                StoreEvent::Spoiled { id } => {
                    if self.role == Role::Master {
                        self.put_back(&id);
                    }
                }
                StoreEvent::Synced { calls, keep: Keep::All } if self.synced => changed.extend(self.compare(calls)),
                StoreEvent::Synced { calls, keep } => {
                    changed.extend(self.stored.ids().map(str::to_owned));
                    changed.extend(calls.iter().map(|c| c.id.clone()));
                    if self.role == Role::Master {
                        late.extend(calls.iter().filter(|c| self.is_late(c)).cloned());
                    }
                    self.synced = true;
                    let gone = self.stored.replace(calls, |id| keep.has(id));
                    if self.role == Role::Master {
                        for call in gone {
                            let id = call.id.clone();
                            self.stored.put(call);
                            if !self.put_back(&id) {
                                self.stored.remove(&id);
                            }
                        }
                    }
                }
            }
        }
        match self.role {
            Role::Backup => self.arm(changed),
            Role::Master if late.is_empty() => {}
            Role::Master => {
                self.expect(late, clock::now());
                self.carry_out().await;
            }
        }
        let left_out = self.stored.left_out();
        if self.left_out.is_news(left_out, clock::now()) {
            warn!(
                instance = self.instance,
                left_out,
                "etcd holds more calls than this node keeps: those left out would not be recovered by it; raise max_calls"
            );
        }
        if self.stored.wants_reading() && self.left_out.may_read(clock::now()) {
            self.store.read_again();
        }
        if self.inherited && self.synced {
            self.inherited = false;
            self.relay.refresh();
        }
        self.settle_own().await;
    }

    /// etcd is another one than before, and holds other calls than this node knows. The calls that changed here.
    fn compare(&mut self, calls: Vec<Call>) -> Vec<String> {
        // Until the calls from before have gone to tracker or engine, nobody knows which of those in etcd are up.
        let sure = self.role == Role::Master && !self.own_open;
        let (missing, unknown) = self.stored.compare(calls, !sure);
        if sure {
            warn!(
                instance = self.instance,
                missing = missing.len(),
                former = unknown.len(),
                "etcd is another one: calls that are up are stored again, and calls of former times are removed"
            );
            for id in missing {
                if !self.store_again(&id) {
                    self.stored.remove(&id);
                }
            }
            for id in unknown {
                self.store.apply(CallEvent::Delete { id, reason: "of an etcd of former times" });
            }
            return Vec::new();
        }
        unknown
    }

    fn arm_all(&self) {
        let all = self.stored.ids().map(str::to_owned).collect();
        self.arm(all);
    }

    /// Makes the relay of a backup carry exactly what is stored of these calls.
    fn arm(&self, ids: Vec<String>) {
        let flows = ids
            .into_iter()
            .map(|id| {
                let flows = self.stored.get(&id).map(|call| plan::flows_of(call, &self.vips));
                let flows = match flows {
                    Some(Ok(flows)) => flows,
                    Some(Err(e)) => {
                        debug!(call = id, "its audio cannot be relayed as it is: {e}");
                        Vec::new()
                    }
                    None => Vec::new(),
                };
                (id, flows)
            })
            .collect();
        self.relay.set(flows);
    }

    /// Carries out all that tracker and engine have decided.
    async fn carry_out(&mut self) {
        let messages = self.decide();
        self.send(messages).await;
    }

    /// Hands on what tracker and engine have decided, but for the messages that are to be sent.
    fn decide(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut flows: Vec<(String, Vec<Flow>)> = Vec::new();
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Send { from, to, payload } => messages.push((from, to, payload)),
                Action::Store(event) => self.store.apply(event),
                Action::Flows { call, flows: new } => flows.push((call, new)),
                Action::Outcome { call, outcome, .. } => {
                    info!(instance = self.instance, call, ?outcome, "call settled");
                    if let Some(takeover) = &mut self.takeover {
                        takeover.outcome(&outcome);
                    }
                }
            }
        }
        while let Some(event) = self.table.poll_event() {
            self.store.apply(event);
        }
        self.relay.set(flows);
        self.ears.sample(if self.role == Role::Master { self.table.wants_one_in() } else { None });
        messages
    }

    async fn send(&mut self, messages: Vec<Message>) {
        for (from, to, payload) in messages {
            if let Some(takeover) = &mut self.takeover
                && payload.starts_with(b"INVITE ")
            {
                takeover.invited(clock::now());
            }
            let sent = match self.sockets.send(from, to, &payload).await {
                Ok(true) => Ok(()),
                Ok(false) => self.raw.send(from, to, &payload).map_err(|e| e.to_string()),
                Err(e) => Err(e.to_string()),
            };
            // SIP retransmits; a lasting failure ends as an unreachable party.
            if let Err(e) = sent {
                debug!(instance = self.instance, "a SIP message was not sent: {e}");
            }
        }
    }
}

async fn deleted(tables: Option<&mut TableWatch>) -> std::io::Result<Option<Vec<String>>> {
    match tables {
        Some(tables) => tables.next().await,
        None => std::future::pending().await,
    }
}

/// Randomness for branches and tags; the engine itself draws none.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Without the system's randomness the clock still tells two starts apart.
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => clock::unix_us(),
    }
}
