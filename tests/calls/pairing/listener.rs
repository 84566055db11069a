//! The part of the agent under test, on a host of the lab: the wire, the server's own reports, and the table.

use anyhow::{Context, Result};
use keepcall::calls::model::{Call, CallEvent};
use keepcall::calls::table::{Table, TableSettings};
use keepcall::os::clock;
use keepcall::pbx::bridges::Fact;
use keepcall::pbx::driver::{Login, Server, ServerStatus};
use keepcall::sip::Transport;
use keepcall::wire::Packet;
use keepcall::wire::capture::{Capture, Captured};
use lab::lan::{Host, VIP4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

struct Shared {
    table: Table,
    events: Vec<CallEvent>,
    status: Option<ServerStatus>,
}

enum Input {
    Packet(Captured),
    Fact(Fact),
    Login(Option<Login>),
    Nothing,
}

/// Listens until it is dropped.
pub(crate) struct Listener {
    shared: Arc<Mutex<Shared>>,
    logins: mpsc::UnboundedSender<Option<Login>>,
    _stop: oneshot::Sender<()>,
}

impl Listener {
    pub(crate) fn start(host: &Host) -> Result<Self> {
        let table = Table::new(TableSettings {
            instance: "i".into(),
            node: "n".into(),
            vips: vec![VIP4.into()],
            sip_ports: vec![5060],
            advertised: keepcall::sip::advertised::Advertised::default(),
            pair_header: None,
            emergency: Vec::new(),
            max_calls: 1000,
        });
        let shared = Arc::new(Mutex::new(Shared { table, events: Vec::new(), status: None }));
        let (logins, mut wanted) = mpsc::unbounded_channel::<Option<Login>>();
        let (stop, mut stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (me, host) = (shared.clone(), host.clone());
        std::thread::spawn(move || {
            host.enter(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let mut capture = Capture::open("eth0", &[5060])?;
                    let _ = ready.send(());
                    let mut server: Option<Server> = None;
                    loop {
                        let fact = async {
                            match &mut server {
                                Some(s) => s.next().await,
                                None => std::future::pending().await,
                            }
                        };
                        let heard = tokio::select! {
                            seen = capture.next() => Input::Packet(seen?),
                            fact = fact => Input::Fact(fact),
                            login = wanted.recv() => Input::Login(login.flatten()),
                            () = tokio::time::sleep(Duration::from_millis(20)) => Input::Nothing,
                            _ = &mut stopped => return Ok(()),
                        };
                        let now = clock::now();
                        // Under one lock: a reader of the table also sees the events that led to it.
                        let mut shared = lock(&me);
                        match heard {
                            Input::Packet(Captured { src, dst, payload, .. }) => {
                                let packet = Packet { src, dst, transport: Transport::Udp, payload: &payload };
                                shared.table.handle_packet(&packet, clock::unix_ms(), now);
                            }
                            Input::Fact(fact) => shared.table.handle_fact(&fact, now),
                            Input::Login(login) => server = login.map(Server::start),
                            Input::Nothing => {}
                        }
                        shared.table.handle_timeout(now);
                        while let Some(event) = shared.table.poll_event() {
                            shared.events.push(event);
                        }
                        shared.status = server.as_ref().map(Server::status);
                    }
                })
            })
        });
        is_ready.recv_timeout(Duration::from_secs(10)).context("the capture did not open")?;
        Ok(Self { shared, logins, _stop: stop })
    }

    /// Connects to the server, or disconnects.
    pub(crate) fn login(&self, login: Option<Login>) {
        let _ = self.logins.send(login);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        lock(&self.shared).table.calls().collect()
    }

    pub(crate) fn status(&self) -> Option<ServerStatus> {
        lock(&self.shared).status.clone()
    }

    /// The events since the last look.
    pub(crate) fn events(&self) -> Vec<CallEvent> {
        std::mem::take(&mut lock(&self.shared).events)
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
