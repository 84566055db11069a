//! The agent's interface to an instance's calls. They run in a part that may fail, so every request has a time-out.

use super::calls::CallsSide;
use super::calls_setup::Setup;
use super::footing::Footing;
#[cfg(feature = "faults")]
use super::part::Activity;
use super::part::{Beats, Parts, Turn, Work};
use super::takeover::Takeover;
use crate::calls::custody::LocalServer;
use crate::control::api;
use crate::pbx::driver::ServerStatus;
use crate::sync::Locked as _;
use crate::vip::fence::Fence;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{error, warn};

/// Longest wait of a handover for call writes. The right to the addresses ends soon after anyway.
const FLUSH: Duration = Duration::from_millis(250);
/// Longest wait of the re-INVITEs and of the fence for the relay to be armed. Audio comes first, but neither a hung
/// firewall nor a hung part may cost the calls.
const ARMED: Duration = Duration::from_secs(1);
/// Longest wait for an answer, and for the part's end.
const PATIENCE: Duration = Duration::from_secs(1);
/// Orders that may wait: far more than the role changes during one order.
const ORDERS: usize = 64;

/// A request of the instance to its calls.
pub(super) enum Order {
    /// The health of the local server.
    Server(LocalServer),
    /// This node now holds the addresses.
    Take {
        epoch: u64,
        resumed: bool,
        takeover: Box<Takeover>,
        armed: oneshot::Sender<()>,
        opened: oneshot::Receiver<()>,
    },
    /// The addresses are gone.
    Drop,
    /// Before a handover: store all known calls in etcd.
    Flush(oneshot::Sender<()>),
    /// End, and leave everything for the next process.
    Park(oneshot::Sender<()>),
    /// End. Answers with the phones that stay blocked for the local server.
    Stop(oneshot::Sender<Vec<SocketAddr>>),
    /// For `status`.
    Counts(oneshot::Sender<Counts>),
    /// For `calls`.
    Rows(oneshot::Sender<Vec<api::CallRow>>),
}

/// The calls' part of the status.
pub(super) type Counts = (api::CallCounts, Option<ServerStatus>);

/// The state that every run needs, and the channel to the current run.
#[derive(Default)]
struct Line {
    orders: Option<mpsc::Sender<Order>>,
    /// A take order that no run has received yet.
    missed: Option<Order>,
    /// The epoch in which this node holds the addresses.
    held: Option<u64>,
    server: LocalServer,
}

/// The calls of one instance, as a supervised part.
pub(super) struct CallsPart {
    instance: String,
    line: Arc<Mutex<Line>>,
    footing: Arc<Footing>,
    mending: JoinHandle<()>,
    supervisor: JoinHandle<()>,
}

impl CallsPart {
    /// Starts the part and its supervisor.
    pub(super) fn start(setup: Setup, parts: &Parts, beats: Beats) -> Self {
        let (instance, footing) = (setup.instance.name.clone(), Arc::clone(&setup.footing));
        let line = Arc::<Mutex<Line>>::default();
        let (of_run, to_cut) = (Arc::clone(&line), Arc::clone(&footing));
        let setup = Arc::new(setup);
        let work = move |turn| -> Work { Box::pin(run(Arc::clone(&setup), turn, Arc::clone(&of_run))) };
        let supervisor = parts.supervise(&format!("calls of {instance}"), beats, work, move || to_cut.cut());
        let mending = tokio::spawn(Arc::clone(&footing).mend());
        Self { instance, line, footing, mending, supervisor }
    }

    pub(super) fn fence(&self) -> &Fence {
        &self.footing.fence
    }

    /// Sends an order to the current run. Without a run, or with a full queue, the order is dropped. The next run
    /// starts from the state that `note` sets, and gets a missed take order.
    fn tell(&self, order: Order, note: impl FnOnce(&mut Line)) {
        let mut line = self.line.locked();
        note(&mut line);
        let missed = match &line.orders {
            Some(orders) => orders.try_send(order).err().map(mpsc::error::TrySendError::into_inner),
            None => Some(order),
        };
        if let Some(take @ Order::Take { .. }) = missed {
            line.missed = Some(take);
        }
    }

    async fn ask<T>(&self, within: Duration, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.tell(order(reply), |_| {});
        tokio::time::timeout(within, answer).await.ok()?.ok()
    }

    pub(super) fn server_is(&self, server: LocalServer) {
        self.tell(Order::Server(server), |line| line.server = server);
    }

    /// Recovers the former master's calls, then lets the server speak. This node now holds the addresses.
    ///
    /// `resumed`: this node was the last master, and no other node took over since. Its server may still have its
    /// calls.
    pub(super) async fn take(&self, epoch: u64, resumed: bool, takeover: Takeover) {
        let (tell_armed, armed) = oneshot::channel();
        let (tell_opened, opened) = oneshot::channel();
        let order = Order::Take { epoch, resumed, takeover: Box::new(takeover), armed: tell_armed, opened };
        self.tell(order, |line| line.held = Some(epoch));
        if tokio::time::timeout(ARMED, armed).await.is_err() {
            warn!(instance = self.instance, "the audio relay was not armed within {ARMED:?}; continuing without it");
        }
        // The server comes second. Its silence until now costs new calls one retransmission at most.
        if let Err(e) = self.fence().open().await {
            error!(
                instance = self.instance,
                epoch, "cannot open the fence, so the server's ports are still closed: {e}"
            );
        }
        let _ = tell_opened.send(());
    }

    /// Brings all known calls into etcd before a planned handover drops the addresses.
    pub(super) async fn flush(&self) {
        if self.ask(FLUSH * 2, Order::Flush).await.is_none() {
            warn!(
                instance = self.instance,
                "some calls may not have been stored before the handover: the part that handles calls does not answer"
            );
        }
    }

    pub(super) fn drop_role(&self) {
        self.tell(Order::Drop, |line| (line.held, line.missed) = (None, None));
    }

    /// Requests the counts. The caller awaits the answer elsewhere.
    pub(super) fn counts(&self) -> impl Future<Output = Option<Counts>> + Send + use<> {
        self.ask_later(Order::Counts)
    }

    pub(super) fn rows(&self) -> impl Future<Output = Option<Vec<api::CallRow>>> + Send + use<> {
        self.ask_later(Order::Rows)
    }

    fn ask_later<T: Send + 'static>(
        &self,
        order: fn(oneshot::Sender<T>) -> Order,
    ) -> impl Future<Output = Option<T>> + Send + use<T> {
        let (reply, answer) = oneshot::channel();
        self.tell(order(reply), |_| {});
        async { tokio::time::timeout(PATIENCE, answer).await.ok()?.ok() }
    }

    /// Ends for a restart: the next process on this host continues.
    pub(super) async fn park(&self) {
        self.mending.abort();
        if self.ask(PATIENCE, Order::Park).await.is_none() {
            warn!(
                instance = self.instance,
                "some calls may not have been stored before the restart: the part that handles calls does not answer"
            );
        }
        self.supervisor.abort();
    }

    /// Ends: removes our own tables, but keeps the phones of moved calls blocked for the server, which still believes
    /// in those calls.
    pub(super) async fn stop(&self) -> Vec<String> {
        self.mending.abort();
        let relay = self.footing.relay();
        let phones = self.ask(PATIENCE, Order::Stop).await.unwrap_or_default();
        self.supervisor.abort();
        let mut errors = Vec::new();
        let cleared = match relay {
            Some(relay) => relay.clear().await,
            None => self.footing.clear_relay().await,
        };
        errors.extend(cleared.err().map(|e| e.to_string()));
        let left = if phones.is_empty() { self.fence().removed().await } else { self.fence().left(&phones).await };
        errors.extend(left.err().map(|e| e.to_string()));
        errors
    }
}

/// One run, on its own thread.
async fn run(setup: Arc<Setup>, turn: Turn, line: Arc<Mutex<Line>>) -> Result<(), String> {
    let mut calls = CallsSide::open(&setup, &turn).await.map_err(|e| e.to_string())?;
    let (orders, mut queue) = mpsc::channel(ORDERS);
    let (missed, held, server) = {
        let mut line = line.locked();
        line.orders = Some(orders);
        (line.missed.take(), line.held, line.server)
    };
    calls.server_is(server).await;
    match (missed, held) {
        (Some(take), _) => obey(&mut calls, take).await,
        (None, Some(epoch)) => calls.take(epoch, true, setup.story(epoch, turn.after.as_deref()), None).await,
        (None, None) => {}
    }
    loop {
        // In a flood the capture ring is never empty, so no await on this thread would yield. Without this yield
        // neither the heartbeat nor any other task here would run, and the watchdog would give the run up.
        tokio::task::yield_now().await;
        // A run that returns after the watchdog gave it up must stop here.
        if turn.licence.act(|| ()).is_none() {
            return Ok(());
        }
        #[cfg(feature = "faults")]
        for (part, doing) in [("learning", Activity::Learning), ("recovery", Activity::Recovery)] {
            turn.pulse.does(doing);
            crate::faults::point(part);
        }
        #[cfg(feature = "faults")]
        let tick = tokio::time::sleep(Duration::from_millis(100));
        #[cfg(not(feature = "faults"))]
        let tick = std::future::pending::<()>();
        tokio::select! {
            biased;
            order = queue.recv() => match order {
                Some(Order::Stop(done)) => {
                    let _ = done.send(calls.stored_phones());
                    return Ok(());
                }
                Some(Order::Park(done)) => {
                    calls.park().await;
                    let _ = done.send(());
                    return Ok(());
                }
                Some(order) => obey(&mut calls, order).await,
                None => return Ok(()),
            },
            event = calls.next() => calls.handle(event?).await,
            () = tick => {}
        }
    }
}

async fn obey(calls: &mut CallsSide, order: Order) {
    match order {
        Order::Server(server) => calls.server_is(server).await,
        Order::Take { epoch, resumed, takeover, armed, opened } => {
            calls.take(epoch, resumed, *takeover, Some((armed, opened))).await;
        }
        Order::Drop => calls.drop_role(),
        Order::Flush(done) => {
            calls.flush(FLUSH).await;
            let _ = done.send(());
        }
        Order::Counts(reply) => {
            let _ = reply.send((calls.counts().await, calls.server_status()));
        }
        Order::Rows(reply) => {
            let _ = reply.send(calls.rows());
        }
        // `run` handles both and returns.
        Order::Stop(_) | Order::Park(_) => {}
    }
}
