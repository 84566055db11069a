//! An agent's handling of HEP and of the wire, without the rest of the agent.

use keepcall::calls::model::{Call, CallEvent};
use keepcall::calls::table::{Table, TableSettings};
use keepcall::config::HepAddress;
use keepcall::hep::intake::{Counters, Key, Rules};
use keepcall::hep::listener::{Listener, own_addresses};
use keepcall::os::clock;
use keepcall::sip::Transport;
use keepcall::wire::Packet;
use keepcall::wire::capture::Capture;
use lab::netns::LONG;
use std::net::IpAddr;

/// Listens to one server.
pub(crate) struct Watch {
    pub(crate) listener: Listener,
    capture: Option<Capture>,
    pub(crate) table: Table,
    pub(crate) puts: Vec<Call>,
    pub(crate) deleted: usize,
    /// Messages from the wire.
    pub(crate) seen: usize,
}

impl Watch {
    /// Whether a call of two legs is up, and nothing of it is missing. Several processes of a server report, so a report
    /// may come before the one that completes the leg.
    pub(crate) fn has_whole_call(&self) -> bool {
        self.table.calls().any(|c| c.legs.len() == 2 && c.legs.iter().all(|l| !l.partial))
    }

    /// Watches the server at `vip`; `wire` adds a capture. Runs in the server's host.
    pub(crate) fn open(vip: &str, listen: &str, key: Option<&str>, wire: bool) -> Self {
        let vip: IpAddr = vip.parse().unwrap();
        let mut server = own_addresses();
        server.retain(|ip| *ip != vip);
        let from = key.is_none().then(|| vec![vip, "127.0.0.1".parse().unwrap()]);
        let rules =
            Rules { key: key.map(|k| Key::new(k.as_bytes())), from, vips: vec![vip], server, sip_ports: vec![5060] };
        let settings = TableSettings {
            instance: "main".to_owned(),
            node: "a".to_owned(),
            vips: vec![vip],
            sip_ports: vec![5060],
            advertised: keepcall::sip::advertised::Advertised::default(),
            pair_header: None,
            emergency: Vec::new(),
            max_calls: 100,
        };
        let listen: HepAddress = listen.parse().unwrap();
        Self {
            listener: Listener::open("main", &[listen], rules).unwrap(),
            capture: wire.then(|| Capture::open("eth0", &[5060]).unwrap()),
            table: Table::new(settings),
            puts: Vec::new(),
            deleted: 0,
            seen: 0,
        }
    }

    /// Learns until `done`.
    pub(crate) async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = tokio::time::Instant::now() + LONG;
        while !done(self) {
            let due = self.table.next_deadline().map_or(end, |at| clock::tokio_at(at).min(end));
            tokio::select! {
                r = self.listener.next() => {
                    let packet = Packet { src: r.src, dst: r.dst, transport: r.transport, payload: &r.payload };
                    self.table.handle_packet(&packet, clock::unix_ms(), clock::now());
                }
                seen = wire(self.capture.as_mut()) => {
                    let (src, dst, payload) = seen;
                    self.seen += 1;
                    let packet = Packet { src, dst, transport: Transport::Udp, payload: &payload };
                    self.table.handle_packet(&packet, clock::unix_ms(), clock::now());
                }
                () = tokio::time::sleep_until(due) => self.table.handle_timeout(clock::now()),
            }
            while let Some(event) = self.table.poll_event() {
                match event {
                    CallEvent::Put(call) => self.puts.push(*call),
                    CallEvent::Delete { .. } => self.deleted += 1,
                }
            }
            if tokio::time::Instant::now() >= end {
                let (hep, known) = (self.listener.counters(), self.table.counters());
                panic!("{what} did not come; {hep:?}; {known:?}; legs {:#?}", self.table.legs().collect::<Vec<_>>());
            }
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        self.listener.counters()
    }
}

async fn wire(capture: Option<&mut Capture>) -> (std::net::SocketAddr, std::net::SocketAddr, Vec<u8>) {
    match capture {
        Some(capture) => {
            let seen = capture.next().await.unwrap();
            (seen.src, seen.dst, seen.payload)
        }
        None => std::future::pending().await,
    }
}
