//! The calls of one instance. Feeds the wire, the store and the clock into the tracker and the recovery engine, and
//! carries out their decisions.
//!
//! Roles: a *standby* follows the stored calls and arms the relay for each, but sends nothing. A *master* learns and
//! stores the local server's calls, and recovers and carries the former master's calls. The instance's mode may limit
//! all of this (`obey.rs`).

mod carry;
mod early;
mod follow;
mod former;
mod obey;
mod orphans;
mod told;

use super::calls_error::CallsError;
use super::calls_setup::Setup;
use super::footing::Footing;
use super::history;
use super::mode::Picture;
use super::not_learnt::NotLearnt;
use super::part::{Activity, Turn};
use super::relay::Relay;
use super::sockets::{Datagram, RecoverySockets};
use super::takeover::Takeover;
use super::tap::{self, Tap};
use crate::calls::custody::{Custody, LocalServer, Role};
use crate::calls::model::Call;
use crate::calls::store::{Store, StoreEvent, StoreHandle, StoreSettings};
use crate::calls::table::{Table, TableSettings};
use crate::config::Mode;
use crate::hep::intake::ReportedMessage;
use crate::os::clock;
use crate::pbx::former_calls::FormerCalls;
use crate::recovery::engine::{Engine, Origin, Settings};
use crate::recovery::handed_on::HandedOn;
use crate::recovery::media::kernel::KernelRelay;
use crate::recovery::permitted::Ground;
use crate::time::Time;
use crate::vip::rawudp::RawUdp;
use crate::wire::Packet;
use crate::wire::capture::Captured;
use early::Early;
use follow::View;
use former::Proof;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

/// Longest wait of a restart for call writes.
const PARK: Duration = Duration::from_millis(250);
/// Longest wait of the re-INVITEs for the relay to be armed, and then for the fence to open. It is shorter than the
/// instance's own wait, after which the instance opens the fence in any case.
const ARMED: Duration = Duration::from_millis(900);
/// How often the capture's loss counters are checked.
const LOSSES_EVERY: Duration = Duration::from_secs(1);
/// Wire messages handled in one go: some tenths of a millisecond, so that no other event waits long.
const HEARD: usize = 64;

/// An event for the calls of an instance.
#[derive(Debug)]
pub(super) enum Event {
    Input(tap::Input),
    Received(Datagram),
    Stored(StoreEvent),
    /// The mode or its source changed.
    Mode,
    Deadline,
}

/// The calls of one instance.
pub(super) struct CallsSide {
    instance: String,
    /// Where the instance's audio may come from and go to.
    ground: Ground,
    /// The calls in etcd, and who has each of them.
    custody: Custody,
    /// What the local server still believes in after the addresses have gone.
    former: FormerCalls,
    proof: Proof,
    footing: Arc<Footing>,
    table: Table,
    engine: Engine,
    store: StoreHandle,
    store_events: mpsc::Receiver<StoreEvent>,
    /// The relayed audio of calls that the server, a proxy, carries.
    handed_on: HandedOn,
    /// Calls whose packets the engine wants to know.
    uncounted: Vec<String>,
    not_learnt: NotLearnt,
    losses_at: Time,
    lost: u64,
    modes: watch::Receiver<Picture>,
    /// The mode in force; `None` until it is known. Until then this node follows no stored calls, so it acts on none.
    mode: Option<Mode>,
    /// Calls of this takeover that are not in the forecast yet.
    untold: Vec<Call>,
    /// What came while this node was not the master.
    early: Early<tap::Input>,
    ears: Tap,
    sockets: RecoverySockets,
    raw: RawUdp,
    relay: Arc<Relay>,
    takeover: Option<Takeover>,
    node: String,
    history: history::Writer,
    turn: Turn,
}

impl CallsSide {
    /// Opens everything that one run of the part needs. The tables of a former run or process stay in force, together
    /// with the audio of its calls, until this run knows the right contents.
    pub(super) async fn open(setup: &Setup, turn: &Turn) -> Result<Self, CallsError> {
        let Setup { node, instance, sip, footing, .. } = setup;
        let vips: Vec<IpAddr> = instance.addresses.iter().map(ipnet::IpNet::addr).collect();
        let sockets = RecoverySockets::start(&footing.port).map_err(CallsError::Ports)?;
        let ears = Tap::open(instance, sip, &vips, footing.hep.as_ref())?;
        let raw = RawUdp::open(&instance.interface)?;
        let ground = footing.ground.clone();
        let relay = KernelRelay::new(&instance.name, &ground);
        let table = Table::new(TableSettings {
            instance: instance.name.clone(),
            node: node.name.clone(),
            vips: vips.clone(),
            sip_ports: sip.ports.clone(),
            advertised: ground.advertised.clone(),
            pair_header: sip.pair_header.clone(),
            emergency: sip.emergency.clone(),
            max_calls: sip.max_calls,
        });
        let mut engine = Engine::new(
            Settings {
                instance: instance.name.clone(),
                node: node.name.clone(),
                vips,
                ground: ground.clone(),
                recovery_port: sip.recovery_port,
                window: sip.window,
                rtp_timeout: sip.rtp_timeout,
                max_carried: Some(sip.max_carried).filter(|most| !most.is_zero()),
                #[cfg(test)]
                fault: None,
            },
            seed()?,
        );
        // Observe only, until the mode is known.
        engine.set_mode(Mode::Observe, clock::now());
        let mut modes = setup.modes.clone();
        modes.mark_changed();
        let settings = StoreSettings {
            cluster: node.cluster.clone(),
            instance: instance.name.clone(),
            max_calls: sip.max_calls,
            cluster_key: footing.key.clone(),
            accepted_keys: footing.accepted_keys.clone(),
            encrypt: sip.encrypt,
            accept_plain: sip.accepts_plain(),
        };
        let (relay, (store, store_events)) = {
            // Their tasks run in the core runtime, where nothing depends on this run.
            let _core = footing.core.enter();
            (Arc::new(Relay::start(&instance.name, relay)), Store::start(setup.etcd.clone(), settings))
        };
        // The licence keeps a run that was given up from connecting.
        turn.licence.act(|| footing.connect(&relay, &store));
        Ok(Self {
            instance: instance.name.clone(),
            custody: Custody::new(&node.name, sip.max_calls, setup.inherited || turn.number > 0),
            former: FormerCalls::default(),
            proof: Proof { cluster: setup.cluster.clone(), instance: instance.name.clone(), node: node.name.clone() },
            footing: Arc::clone(footing),
            table,
            engine,
            store,
            store_events,
            handed_on: HandedOn::default(),
            uncounted: Vec::new(),
            not_learnt: NotLearnt::default(),
            losses_at: Time::ZERO,
            lost: 0,
            modes,
            mode: None,
            untold: Vec::new(),
            early: Early::default(),
            ears,
            ground,
            sockets,
            raw,
            relay,
            takeover: None,
            node: node.name.clone(),
            history: setup.history.clone(),
            turn: turn.clone(),
        })
    }

    /// The next event. Dropping the wait loses nothing.
    ///
    /// # Errors
    /// An event source has ended, so no further event would come.
    pub(super) async fn next(&mut self) -> Result<Event, String> {
        let deadlines = [
            self.engine.next_deadline(),
            self.table.next_deadline(),
            self.custody.next_deadline(),
            self.former.next_deadline(),
        ];
        let deadline = deadlines.into_iter().flatten().fold(Time::FAR, Time::min);
        Ok(tokio::select! {
            input = self.ears.next() => Event::Input(input),
            Some(datagram) = self.sockets.next() => Event::Received(datagram),
            Ok(()) = self.modes.changed() => Event::Mode,
            event = self.store_events.recv(), if self.mode.is_some() => match event {
                Some(event) => Event::Stored(event),
                None => return Err("the task that follows the stored calls has ended".to_owned()),
            },
            () = tokio::time::sleep_until(clock::tokio_at(deadline)) => Event::Deadline,
        })
    }

    pub(super) async fn handle(&mut self, event: Event) {
        let now = clock::now();
        match event {
            Event::Input(tap::Input::Fact(fact)) if self.custody.role() == Role::Backup => {
                self.former.handle_fact(&fact, now);
            }
            // Without the addresses this node ignores the server's traffic, unless it is about to take the calls over.
            Event::Input(input) if self.custody.role() == Role::Backup => {
                if let tap::Input::Message(Captured { payload, .. })
                | tap::Input::Reported(ReportedMessage { payload, .. }) = &input
                {
                    let bytes = payload.len();
                    self.early.keep(input, bytes, now);
                }
            }
            Event::Input(first) => {
                // One pass through the loop costs as much as several messages.
                let (mut heard, mut n) = (Some(first), 0);
                while let Some(one) = heard {
                    self.hear(one, now);
                    n += 1;
                    heard = if n < HEARD { self.ears.more() } else { None };
                }
            }
            Event::Received(datagram) => {
                if self.custody.role() == Role::Master && self.turn.begins(hash(&datagram.payload)) {
                    self.turn.pulse.does(Activity::Recovery);
                    self.engine.handle_packet(&datagram.packet(), Origin::RecoveryPort, now);
                    self.turn.ends();
                }
            }
            Event::Stored(first) => self.follow(first, now),
            Event::Mode => self.obey(now),
            Event::Deadline => {
                self.turn.pulse.does(Activity::Recovery);
                self.custody.handle_timeout(&View { table: &self.table, engine: &self.engine }, now);
                self.act(now);
                self.engine.handle_timeout(now);
                self.turn.pulse.does(Activity::Learning);
                self.table.handle_timeout(now);
                self.former.handle_timeout(now);
            }
        }
        self.settle_former().await;
        self.look_for_losses(now);
        if let Some(why) = self.not_learnt.news(self.table.counters(), now) {
            warn!(
                instance = self.instance,
                "some legs are not learnt, or only in part: {why}; the calls themselves are not affected"
            );
        }
        self.carry_out().await;
        self.tell_forecast();
    }

    /// Dropped messages may have begun calls. After a loss a single leg may have a partner that the tracker never saw.
    fn look_for_losses(&mut self, now: Time) {
        if self.custody.role() != Role::Master || now < self.losses_at {
            return;
        }
        self.losses_at = now + LOSSES_EVERY;
        let capture = self.ears.capture_counts().map_or(0, |c| c.dropped);
        let lost = capture + self.ears.hep_counts().map_or(0, |h| h.dropped);
        // A reopened capture counts from zero.
        if lost > self.lost {
            self.table.handle_loss(now);
        }
        self.lost = lost;
    }

    fn hear(&mut self, input: tap::Input, now: Time) {
        let (packet, origin) = match &input {
            tap::Input::Message(s) => {
                (Packet { src: s.src, dst: s.dst, transport: s.transport, payload: &s.payload }, Origin::Overheard)
            }
            tap::Input::Reported(r) => {
                (Packet { src: r.src, dst: r.dst, transport: r.transport, payload: &r.payload }, Origin::Reported)
            }
            tap::Input::Rtp(seen) => {
                self.turn.pulse.does(Activity::Learning);
                return self.hear_rtp(seen, now);
            }
            tap::Input::Fact(fact) => {
                self.turn.pulse.does(Activity::Learning);
                return self.table.handle_fact(fact, now);
            }
        };
        if !self.turn.begins(hash(packet.payload)) {
            return;
        }
        self.turn.pulse.does(Activity::Recovery);
        if !self.engine.handle_packet(&packet, origin, now) {
            self.turn.pulse.does(Activity::Learning);
            self.table.handle_packet(&packet, clock::unix_ms(), now);
        }
        self.turn.ends();
    }

    fn hear_rtp(&mut self, seen: &Captured, now: Time) {
        self.table.handle_rtp(seen.src, seen.dst, &seen.payload, now);
        if let Some(news) = self.table.poll_unbelieved(now) {
            warn!(instance = self.instance, "{news}");
        }
    }

    /// Takes over the calls of the former master: this node now holds the addresses. `waits` is absent if the server
    /// already speaks. Otherwise its sender reports the armed relay, and its receiver waits until the server may speak.
    ///
    /// `resumed`: this node was the last master, and no other node took over since. Its server may still have its
    /// calls.
    pub(super) async fn take(
        &mut self,
        epoch: u64,
        resumed: bool,
        takeover: Takeover,
        waits: Option<(oneshot::Sender<()>, oneshot::Receiver<()>)>,
    ) {
        let now = clock::now();
        self.former.handle_taken();
        self.table.clear();
        self.table.set_epoch(epoch);
        self.ears.ask_server(true);
        self.takeover = Some(takeover);
        // A run that was given up must not become the writer again.
        self.turn.licence.act(|| self.store.write_as(epoch));
        self.custody.take(epoch, resumed, now);
        self.act(now);
        for input in self.early.take(now) {
            self.hear(input, now);
        }
        // Audio first. The relay is nearly always armed already, so this seldom waits.
        let messages = self.decide();
        let armed = tokio::time::timeout(ARMED, self.relay.settled()).await.is_ok();
        if let Some(takeover) = self.takeover.as_mut().filter(|_| armed) {
            takeover.mark("relay", clock::now());
        }
        if let Some((armed, opened)) = waits {
            let _ = armed.send(());
            let _ = tokio::time::timeout(ARMED, opened).await;
        }
        self.send(messages).await;
        self.tell_forecast();
        if let Some(takeover) = &self.takeover {
            takeover.save();
        }
        self.custody.settle_own(&View { table: &self.table, engine: &self.engine });
        self.act(clock::now());
        self.carry_out().await;
        self.tell_forecast();
    }

    /// What the checks say of the local server.
    pub(super) async fn server_is(&mut self, server: LocalServer) {
        self.custody.handle_server(server, &View { table: &self.table, engine: &self.engine });
        self.act(clock::now());
        self.carry_out().await;
        self.tell_forecast();
    }

    fn expect(&mut self, mut calls: Vec<Call>, now: Time) {
        calls.retain(|c| !self.turn.passes_over(hash(c.id.as_bytes())));
        self.turn.pulse.does(Activity::Recovery);
        if let Some(takeover) = &mut self.takeover {
            takeover.expect(calls.len());
        }
        self.untold.extend(calls.iter().cloned());
        self.engine.start(calls, self.custody.epoch(), now);
    }

    /// Brings all known calls into etcd before a planned handover drops the addresses.
    pub(super) async fn flush(&mut self, within: Duration) {
        self.carry_out().await;
        if let Err(e) = self.store.flush(within).await {
            warn!(instance = self.instance, "some calls were not stored before the handover: {e}");
        }
    }

    /// Enters the standby role after the addresses are gone. The server is already off the wire. Arms the relay for
    /// every call that may come back here.
    pub(super) fn drop_role(&mut self) {
        self.server_is_former(clock::now());
        self.untold.clear();
        self.engine.stop();
        self.handed_on.clear();
        self.uncounted.clear();
        self.table.clear();
        self.ears.ask_server(false);
        if let Some(takeover) = self.takeover.take() {
            takeover.save();
        }
        // Pending writes belong to a finished mastership.
        while self.engine.poll_action().is_some() {}
        while self.table.poll_event().is_some() {}
        self.store.stop_writing();
        self.custody.drop_role();
        self.act(clock::now());
    }

    /// Ends for a restart: stores only data that the next process on this host could not know.
    pub(super) async fn park(&mut self) {
        self.flush(PARK).await;
        if let Some(takeover) = &self.takeover {
            takeover.save();
        }
    }
}

/// A hash that distinguishes messages, for this process only.
fn hash(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    // Zero means "no message".
    hasher.finish().max(1)
}

/// The seed for branches and tags, because the engine draws no randomness itself. Anybody who guessed them could answer
/// in a phone's name.
fn seed() -> Result<u64, CallsError> {
    getrandom::u64().map_err(CallsError::Random)
}
