//! The calls of one instance: what the wire, the store and the clock say goes to tracker and recovery engine, and what these
//! decide is carried out.
//!
//! Roles: as *backup* the stored calls are followed and the relay is armed for each; nothing is sent. As *master* the local
//! server's traffic is learnt and stored, and the calls of the master before are recovered and carried; or as much of that as the
//! instance's mode allows (`obey.rs`).

mod carry;
mod follow;
mod obey;
mod tables;

use super::ears::{self, Ears, EarsError};
use super::mode::Picture;
use super::not_learnt::NotLearnt;
use super::relay::Relay;
use super::rows;
use super::sockets::{Datagram, RecoveryPortError, RecoverySockets};
use super::takeover::Takeover;
use crate::calls::capture::Seen;
use crate::calls::model::{Call, Packet};
use crate::calls::store::{Store, StoreEvent, StoreHandle, StoreSettings};
use crate::calls::stored::Stored;
use crate::calls::sweep::{self, Sweep};
use crate::calls::table::{Table, TableSettings};
use crate::clock;
use crate::config::{self, Mode};
use crate::control::api;
use crate::etcd::Etcd;
use crate::recovery::engine::{CallState, CallStatus, Engine, Heard, Settings};
use crate::recovery::media::kernel::{KernelRelay, RelayError};
use crate::time::Time;
use crate::vip::fence::Fence;
use crate::vip::nft::NftError;
use crate::vip::nft::watch::TableWatch;
use crate::vip::rawudp::{RawUdp, RawUdpError};
use follow::LeftOut;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tracing::{error, warn};

/// Longest time that a handover waits for stored calls to be written. The right to hold the addresses ends soon after anyway.
const FLUSH: Duration = Duration::from_millis(250);
/// From the news that a table of ours may be gone until it is looked for: our own changes replace tables, too.
const MEND: Duration = Duration::from_millis(100);
/// Longest time that re-INVITEs wait for the relay to be armed: audio comes first, but a firewall that hangs must not cost the calls.
const ARMED: Duration = Duration::from_secs(1);
/// How often it is looked whether messages were lost before they came here.
const LOSSES_EVERY: Duration = Duration::from_secs(1);
/// Messages of the wire that are handled in one go: some tenths of a millisecond, so that nothing else waits for long.
const HEARD: usize = 64;

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
    /// No random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
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
    /// What is known of the mode changed.
    Mode,
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
    not_learnt: NotLearnt,
    losses_at: Time,
    lost: u64,
    modes: watch::Receiver<Picture>,
    /// The mode in force; `None` until it is known. Nothing is followed, and so nothing done with a call, before that.
    mode: Option<Mode>,
    /// Calls of this takeover that history does not speak of yet.
    untold: Vec<Call>,
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
        mut modes: watch::Receiver<Picture>,
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
        let mut engine = Engine::new(
            Settings {
                instance: instance.name.clone(),
                node: node.name.clone(),
                vips: vips.clone(),
                recovery_port: sip.recovery_port,
                window: sip.window,
            },
            seed()?,
        );
        // Until more is known to be allowed.
        engine.set_mode(Mode::Observe, clock::now());
        modes.mark_changed();
        let tables = match TableWatch::open() {
            Ok(watch) => Some(watch),
            Err(e) => {
                warn!(instance = instance.name, "tables of nftables that somebody deletes will not be put back: {e}");
                None
            }
        };
        let (store, store_events) = Store::start(
            etcd,
            StoreSettings {
                cluster: node.cluster.clone(),
                instance: instance.name.clone(),
                max_calls: sip.max_calls,
                cluster_key: std::fs::read(&node.key_file)
                    .map_err(|error| CallsError::Key { file: node.key_file.clone(), error })?,
                encrypt: sip.encrypt,
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
            not_learnt: NotLearnt::default(),
            losses_at: Time::ZERO,
            lost: 0,
            modes,
            mode: None,
            untold: Vec::new(),
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
            Ok(()) = self.modes.changed() => Event::Mode,
            Some(event) = self.store_events.recv(), if self.mode.is_some() => Event::Stored(event),
            gone = tables::deleted(self.tables.as_mut()) => match gone {
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
            Event::Mode => self.obey(now),
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
        self.look_for_losses(now);
        if let Some(why) = self.not_learnt.news(self.table.counters(), now) {
            warn!(
                instance = self.instance,
                "legs of calls that are not learnt, or not whole: {why}; calls that are up are not affected"
            );
        }
        self.carry_out().await;
    }

    /// Messages that the kernel threw away may have begun calls: then nobody knows that a single leg has no partner.
    fn look_for_losses(&mut self, now: Time) {
        if self.role != Role::Master || now < self.losses_at {
            return;
        }
        self.losses_at = now + LOSSES_EVERY;
        let capture = self.ears.capture_counts().map_or(0, |c| c.dropped);
        let lost = capture + self.ears.hep_counts().map_or(0, |h| h.dropped);
        // A capture that was opened anew counts from zero.
        if lost > self.lost {
            self.table.handle_loss(now);
        }
        self.lost = lost;
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
            ears::Heard::Rtp(seen) => self.hear_rtp(&seen, now),
            ears::Heard::Told(fact) => self.table.handle_fact(&fact, now),
        }
    }

    fn hear_rtp(&mut self, seen: &Seen, now: Time) {
        self.table.handle_rtp(seen.src, seen.dst, &seen.payload, now);
        if let Some(news) = self.table.poll_unbelieved(now) {
            warn!(instance = self.instance, "{news}");
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
        self.tell_forecast();
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

    fn expect(&mut self, calls: Vec<Call>, now: Time) {
        if let Some(takeover) = &mut self.takeover {
            takeover.expect(calls.len());
        }
        self.untold.extend(calls.iter().cloned());
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
        self.untold.clear();
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
        // Where nothing was recovered, there is nothing to keep the server away from.
        let relays = self.mode.is_some_and(Mode::relays);
        let phones: Vec<_> = self.stored.values().filter(|_| relays).flat_map(rows::phones).collect();
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
            capture: self.ears.capture_counts(),
            media: self.table.media_counters(),
            hep: self.ears.hep_counts(),
            learning: (self.role == Role::Master).then(|| self.table.learning()),
        }
    }

    /// How the connection to the server is; `None` if it is not asked for its bridges now.
    pub(super) fn server_status(&self) -> Option<api::ServerStatus> {
        self.ears.server_status()
    }

    /// The stored calls as `calls` shows them.
    pub(super) fn rows(&self) -> Vec<api::CallRow> {
        let carried: BTreeMap<String, CallStatus> = self.engine.status().into_iter().map(|s| (s.call.clone(), s)).collect();
        self.stored.values().map(|call| rows::row(call, carried.get(&call.id))).collect()
    }
}

/// Randomness for branches and tags; the engine itself draws none. Whoever could guess them could answer in a phone's name.
fn seed() -> Result<u64, CallsError> {
    getrandom::u64().map_err(CallsError::Random)
}
