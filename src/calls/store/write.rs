//! Writes pending changes in batches, as the only writer that etcd names.
//!
//! The writer's key holds the epoch of the master that may write calls. Each transaction compares the revision of that
//! key. Naming a writer puts the key, even if it already has that value. The naming therefore voids every write sent
//! before it, however late it arrives: a write of a former master that was frozen, a write of a former process on this
//! host, and a write of this process without an answer. After a write in doubt the node names itself again before it
//! writes anything else. A node that is not named never writes.

use super::State;
use super::queue::{Change, End, MAX_OPS, Taken};
use super::seal::NONCE;
use super::value::{Coder, MAX_EPOCH, Stamp};
use crate::calls::model::Leg;
use crate::etcd::{Compare, Etcd, EtcdError, Op, TxnReply};
use crate::sync::Locked as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

/// How long changes are collected before a write. With two round trips to etcd, one of which may have just begun, this
/// stays well under the 50 ms by which the stored state may lag. It is long enough to merge one step of a call into one
/// write.
const COLLECT: Duration = Duration::from_millis(20);
/// Pause after a failed write: the first and the longest. Each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_millis(500);
/// Most bytes of values in one transaction. etcd refuses requests over 1.5 MiB by default, and keys and framing need
/// some.
const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// Estimate of a call's size in bytes without its descriptions, before it is encoded.
const FRAME: usize = 4096;

enum Step {
    /// Nothing to do until the bell rings.
    Idle,
    /// Continue at once.
    Done,
    /// Retry after a pause.
    Failed,
}

struct Writer {
    etcd: Etcd,
    state: Arc<Mutex<State>>,
    coder: Arc<Coder>,
    key: String,
    /// The version of `State::writing` for which this node is named, and the revision of the naming.
    named: Option<(u64, i64)>,
    /// Most changes in the next transaction.
    most: usize,
    /// Consecutive transactions that found another revision of the writer's key.
    misses: u32,
    /// Values encoded so far: the count of the next stamp.
    count: u64,
}

pub(super) async fn run(
    etcd: Etcd,
    state: Arc<Mutex<State>>,
    coder: Arc<Coder>,
    key: String,
    mut rung: mpsc::Receiver<()>,
    done: watch::Sender<u64>,
) {
    let mut writer = Writer { etcd, state, coder, key, named: None, most: MAX_OPS, misses: 0, count: 0 };
    let mut pause = FIRST_PAUSE;
    loop {
        let open = rung.recv().await.is_some();
        loop {
            let step = writer.step(open).await;
            done.send_modify(|n| *n += 1);
            match step {
                Step::Idle => break,
                Step::Done => pause = FIRST_PAUSE,
                // Nobody waits any more, and the backups keep what is stored.
                Step::Failed if !open => break,
                Step::Failed => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                }
            }
        }
        if !open {
            return;
        }
    }
}

impl Writer {
    async fn step(&mut self, collect: bool) -> Step {
        let (epoch, version) = {
            let state = self.state.locked();
            let Some(epoch) = state.writing else { return Step::Idle };
            (epoch, state.version)
        };
        let revision = match self.named {
            Some((v, revision)) if v == version => revision,
            _ => match self.name(epoch).await {
                Ok(Some(revision)) => {
                    self.named = Some((version, revision));
                    let mut state = self.state.locked();
                    if version == state.version {
                        state.refused_now = false;
                    }
                    revision
                }
                Ok(None) => return self.refused(version),
                Err(e) => return self.failed(&e),
            },
        };
        if self.state.locked().queue.len() == 0 {
            return Step::Idle;
        }
        if collect {
            tokio::time::sleep(COLLECT).await;
        }
        let batch = {
            let mut state = self.state.locked();
            if state.version != version {
                return Step::Done;
            }
            // An estimate, so that little is encoded in vain.
            let mut bytes = 0;
            state.queue.take(self.most, |c| {
                bytes += guess(c);
                bytes <= MAX_BATCH_BYTES
            })
        };
        let Some((batch, ops)) = self.encode(batch, revision) else { return Step::Failed };
        if batch.is_empty() {
            return Step::Done;
        }
        let compares = vec![Compare::ModRevision(self.key.clone(), revision)];
        let result = self.etcd.txn(compares, ops, Vec::new()).await;
        self.settle(batch, result)
    }

    /// Names this node as the writer, which voids all earlier writes. Returns the revision, or `None` if a later epoch
    /// is named.
    async fn name(&self, epoch: u64) -> Result<Option<i64>, EtcdError> {
        let there = self.etcd.get(&self.key).await?;
        let named = there.as_ref().map(|kv| {
            std::str::from_utf8(&kv.value).ok().and_then(|text| text.parse::<u64>().ok()).filter(|e| *e <= MAX_EPOCH)
        });
        match named {
            Some(Some(named)) if named > epoch => return Ok(None),
            Some(None) => warn!(key = self.key, "the value of this key in etcd is not an epoch; writing the key again"),
            _ => {}
        }
        let compare = Compare::ModRevision(self.key.clone(), there.map_or(0, |kv| kv.mod_revision));
        let put = Op::Put { key: self.key.clone(), value: epoch.to_string().into_bytes(), lease: 0 };
        // A duplicate of this transaction finds another revision and does nothing.
        let (reply, _) = self.etcd.txn_guarded(vec![compare], vec![put], Vec::new()).await?;
        if reply.succeeded {
            return Ok(Some(reply.revision));
        }
        // Either another node was quicker, or this was the answer to a duplicate. The current value decides.
        let there = self.etcd.get(&self.key).await?;
        match there {
            Some(kv) if kv.value == epoch.to_string().as_bytes() => Ok(Some(kv.mod_revision)),
            _ => Err(EtcdError::Refused { message: "somebody else changed the writer's key at the same time".into() }),
        }
    }

    /// Encodes as much of the batch as fits and returns the rest to the queue. `None` if nothing can be encoded at
    /// present.
    fn encode(&mut self, batch: Vec<Taken>, named: i64) -> Option<(Vec<Taken>, Vec<Op>)> {
        let (mut fits, mut ops, mut values, mut bytes) = (Vec::with_capacity(batch.len()), Vec::new(), Vec::new(), 0);
        let mut rest = batch.into_iter();
        let mut back = Vec::new();
        for taken in rest.by_ref() {
            let key = self.coder.key(&taken.id);
            self.count += 1;
            let stamp = Stamp(named, self.count);
            let value = match &taken.change {
                Change::Delete => None,
                Change::Put(call) => {
                    let mut nonce = None;
                    if self.coder.encrypts {
                        let mut random = [0; NONCE];
                        if let Err(e) = getrandom::fill(&mut random) {
                            self.state.locked().status.last_error =
                                Some(format!("cannot encrypt calls: the kernel gives no random bytes: {e}"));
                            back.push(taken);
                            break;
                        }
                        nonce = Some(random);
                    }
                    match self.coder.encode(call, stamp, nonce) {
                        Some(value) => Some(value),
                        None => {
                            self.state.locked().status.dropped += 1;
                            continue;
                        }
                    }
                }
            };
            bytes += value.as_ref().map_or(0, Vec::len);
            if bytes > MAX_BATCH_BYTES && !fits.is_empty() {
                back.push(taken);
                break;
            }
            values.push((value.clone().unwrap_or_default(), stamp));
            ops.push(match value {
                None => Op::Delete(key),
                Some(value) => Op::Put { key, value, lease: 0 },
            });
            fits.push(taken);
        }
        back.extend(rest);
        let mut state = self.state.locked();
        state.queue.shorten(back, fits.len());
        for (taken, (value, stamp)) in fits.iter().zip(values) {
            state.echo.sending(taken, value, stamp);
        }
        (!fits.is_empty() || state.status.last_error.is_none()).then_some((fits, ops))
    }

    /// Books the result of a batch.
    fn settle(&mut self, mut batch: Vec<Taken>, result: Result<TxnReply, EtcdError>) -> Step {
        let mut state = self.state.locked();
        match result {
            Ok(reply) if reply.succeeded => {
                if state.status.last_error.take().is_some() {
                    info!("storing calls again");
                }
                state.status.written += batch.len() as u64;
                state.queue.ended(batch, End::Written);
                self.most = (self.most * 2).min(MAX_OPS);
                self.misses = 0;
                Step::Done
            }
            // Another node, a person, or a late naming of this node changed the key. The next naming finds out.
            Ok(_) => {
                state.echo.unsent(&batch);
                state.queue.ended(batch, End::Nothing);
                self.named = None;
                self.misses += 1;
                if self.misses > 1 { Step::Failed } else { Step::Done }
            }
            Err(EtcdError::Refused { message }) if batch.len() == 1 => {
                // etcd would refuse it for ever, and it would block all other changes.
                warn!(call = batch[0].id, %message, "etcd refused to store this call; dropping the change");
                state.status.dropped += 1;
                batch.clear();
                state.queue.ended(batch, End::Nothing);
                Step::Done
            }
            Err(e) => {
                let end = if e.is_definite() { End::Nothing } else { End::Doubt };
                match end {
                    End::Doubt => self.named = None,
                    End::Nothing | End::Written => state.echo.unsent(&batch),
                }
                if end == End::Doubt || matches!(e, EtcdError::Refused { .. }) {
                    // The batch may be too large for this etcd.
                    self.most = (batch.len() / 2).max(1);
                }
                state.queue.ended(batch, end);
                drop(state);
                self.failed(&e)
            }
        }
    }

    fn failed(&self, e: &EtcdError) -> Step {
        let mut state = self.state.locked();
        if state.status.last_error.is_none() {
            warn!(error = %e, "cannot store calls; keeping the newest state of each and trying again");
        }
        state.status.last_error = Some(e.to_string());
        Step::Failed
    }

    fn refused(&self, version: u64) -> Step {
        let mut state = self.state.locked();
        if version != state.version {
            return Step::Done;
        }
        state.status.refused += 1;
        if !state.refused_now {
            let changes = state.queue.len();
            warn!(
                changes,
                "this node may no longer write the calls of the instance: etcd names another node as the writer"
            );
        }
        state.refused_now = true;
        Step::Failed
    }
}

fn guess(change: &Change) -> usize {
    let descriptions = |leg: &Leg| leg.sdp_sent.iter().chain(&leg.sdp_received).map(|s| s.body.len()).sum::<usize>();
    match change {
        Change::Put(call) => FRAME + 2 * call.legs.iter().map(|leg| descriptions(leg)).sum::<usize>(),
        Change::Delete => 0,
    }
}
