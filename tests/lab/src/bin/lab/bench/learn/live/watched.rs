//! What arrives in etcd, and when, as a watch sees it. The times include the way to the watcher.

use super::super::figures::Figures;
use super::super::memory::settings;
use super::super::traffic::{Places, Traffic};
use super::signalling::Left;
use anyhow::{Result, anyhow};
use keepcall::calls::model::CallEvent;
use keepcall::calls::table::Table;
use keepcall::etcd::{Etcd, WatchEvent};
use keepcall::sip::Transport;
use keepcall::time::Time;
use keepcall::wire::Packet;
use lab::lan::Host;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::oneshot;

/// A change of one call: the id, whether the call exists now, and the time of arrival.
type Change = (String, bool, Instant);

/// Watches until [`Self::end`] is called.
pub(super) struct Watched {
    stop: oneshot::Sender<()>,
    deletes: Arc<AtomicUsize>,
    thread: JoinHandle<Result<Vec<Change>>>,
}

/// All changes, in order.
pub(super) struct Captured(Vec<Change>);

/// What the changes tell.
pub(super) struct Report {
    /// Puts and deletes.
    pub(super) writes: usize,
    /// Milliseconds from the message that made or ended a call to the arrival of the change.
    pub(super) lag: Figures,
    /// Calls that never arrived or never went; and changes of unknown calls.
    pub(super) missing: usize,
    pub(super) unknown: usize,
}

impl Watched {
    pub(super) fn start(host: &Host, endpoints: &[String], prefix: &str) -> Result<Self> {
        let (stop, mut stopped) = oneshot::channel();
        let deletes = Arc::new(AtomicUsize::new(0));
        let (host, prefix, counted) = (host.clone(), prefix.to_owned(), Arc::clone(&deletes));
        let config = serde_json::from_value(json!({ "endpoints": endpoints }))?;
        let thread = std::thread::spawn(move || {
            host.enter(move || {
                tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async move {
                    let mut changes = Vec::new();
                    let mut watch = Etcd::connect(&config)?.watch(&prefix);
                    loop {
                        let event = tokio::select! {
                            event = watch.recv() => event.ok_or_else(|| anyhow!("the watch ended"))?,
                            _ = &mut stopped => return Ok(changes),
                        };
                        let now = Instant::now();
                        let id = |key: &str| key.strip_prefix(&prefix).unwrap_or(key).to_owned();
                        match event {
                            WatchEvent::Snapshot { entries, .. } if entries.is_empty() && changes.is_empty() => {}
                            WatchEvent::Snapshot { .. } => return Err(anyhow!("the watch was interrupted")),
                            WatchEvent::Put(kv) => changes.push((id(&kv.key), true, now)),
                            WatchEvent::Delete { key, .. } => {
                                changes.push((id(&key), false, now));
                                counted.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                })
            })
        });
        Ok(Self { stop, deletes, thread })
    }

    pub(super) fn deletes(&self) -> usize {
        self.deletes.load(Ordering::Relaxed)
    }

    pub(super) fn end(self) -> Result<Captured> {
        // If the watch has failed already, the join returns the error.
        let _ = self.stop.send(());
        Ok(Captured(self.thread.join().map_err(|_| anyhow!("the watching thread died"))??))
    }
}

impl Captured {
    /// A table here gets the same messages, and shows which message makes and ends each call.
    pub(super) fn report(&self, traffic: &Traffic, left: &Left, places: &Places) -> Result<Report> {
        let mut table = Table::new(settings(places.server));
        let (mut made, mut over) = (HashMap::new(), HashMap::new());
        for (n, (sent, payload)) in traffic.messages().enumerate() {
            let now = Time::ZERO + sent.at;
            table.handle_timeout(now);
            table.handle_packet(&Packet { src: sent.src, dst: sent.dst, transport: Transport::Udp, payload }, 0, now);
            while let Some(event) = table.poll_event() {
                match event {
                    CallEvent::Put(call) => drop(made.entry(call.id).or_insert(n)),
                    CallEvent::Delete { id, .. } => drop(over.insert(id, n)),
                }
            }
        }
        let mut report = Report { writes: self.0.len(), lag: Figures::default(), missing: 0, unknown: 0 };
        for (id, there, at) in &self.0 {
            // Of several puts, the first is that of the call's start.
            let cause = if *there { made.remove(id) } else { over.remove(id) };
            match cause.and_then(|n| left.at(n)) {
                Some(sent) => report.lag.add(at.saturating_duration_since(sent).as_secs_f64() * 1000.0),
                None if *there && over.contains_key(id) => {}
                None => report.unknown += 1,
            }
        }
        report.missing = made.len() + over.len();
        Ok(report)
    }
}
