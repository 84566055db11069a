//! The program's handle on etcd: defines each request and the number of members it may go to. `spread.rs` sends it.

pub(super) mod changes;
pub(super) mod spread;
pub(super) mod trouble;
pub(super) mod watch;

use super::endpoint::{Access, Endpoint, EndpointHealth};
use super::error::EtcdError;
use super::identity::{Header, Identity};
use super::types::{Compare, KeyValue, Lease, Op, TxnReply};
use crate::config;
use crate::os::clock;
use crate::sync::Locked as _;
use changes::Changes;
use etcd_client::{Client, CompareOp, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse};
use spread::Spread;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use trouble::{Needs, Troubles};
use watch::WatchEvent;

/// A handle on etcd; clones share the connections.
///
/// After any failure of a member, reads, lease calls and watches go to the next endpoint. Small ones also do so when
/// the member is slow. A write goes on only if it was certainly not sent. Otherwise it fails with an error whose
/// [`EtcdError::is_definite`] is false. From the first call on, a probe checks every endpoint at intervals, so that a
/// dead one is known before it is needed.
#[derive(Clone)]
pub struct Etcd(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) access: Access,
    pub(super) timeout: Duration,
    lease_ttl: Duration,
    /// Index of the endpoint with the last answer.
    pub(super) current: AtomicUsize,
    /// Why calls fail, at any endpoint.
    pub(super) troubles: Mutex<Troubles>,
    /// Whether the endpoints are being probed.
    pub(super) probing: AtomicBool,
    /// The identity of this etcd.
    pub(super) identity: Mutex<Identity>,
    /// At the start, one call at a time determines the identity.
    pub(super) settling: tokio::sync::Mutex<()>,
    pub(super) changes: tokio::sync::watch::Sender<Changes>,
}

/// Largest answer in bytes. All calls of a full instance fit; the library's own limit of 4 MiB does not hold a
/// thousand.
const MAX_ANSWER: usize = 256 << 20;

impl Etcd {
    /// Reads the password and certificates. It sends nothing, so etcd may be down.
    ///
    /// # Errors
    /// [`EtcdError::Config`] if a file is unreadable or settings conflict.
    pub fn connect(cfg: &config::Etcd) -> Result<Self, EtcdError> {
        if cfg.endpoints.is_empty() {
            return Err(EtcdError::Config(
                "`endpoints` is empty; write at least one, like \"http://127.0.0.1:2379\"".into(),
            ));
        }
        for url in &cfg.endpoints {
            if !url.starts_with("http://") && !url.starts_with("https://") {
                return Err(EtcdError::Config(format!("endpoint '{url}' must start with http:// or https://")));
            }
        }
        Ok(Self(Arc::new(Inner {
            endpoints: cfg.endpoints.iter().map(|u| Endpoint::new(u)).collect(),
            access: Access::new(cfg)?,
            timeout: cfg.timeout,
            lease_ttl: cfg.lease_ttl,
            current: AtomicUsize::new(0),
            troubles: Mutex::default(),
            probing: AtomicBool::new(false),
            identity: Mutex::new(Identity::new(cfg.endpoints.len())),
            settling: tokio::sync::Mutex::default(),
            changes: tokio::sync::watch::Sender::default(),
        })))
    }

    /// Deadline of one call to one member.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// State of each endpoint after its last call.
    #[must_use]
    pub fn health(&self) -> Vec<EndpointHealth> {
        self.0.endpoints.iter().map(Endpoint::health).collect()
    }

    /// Why the last call failed, if it did, or why etcd refuses this node's reads or writes. Otherwise a member's alarm.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let alarm = || self.0.endpoints.iter().find_map(Endpoint::alarm);
        self.0.troubles.locked().told().or_else(alarm)
    }

    /// Reads all keys with this prefix linearizably, with the revision of the read.
    ///
    /// # Errors
    /// See [`Etcd`]; a read is tried at every endpoint.
    pub async fn get_prefix(&self, prefix: &str) -> Result<(i64, Vec<KeyValue>), EtcdError> {
        // Not at two members at once: this may be the state of thousands of calls.
        self.call(Needs::Read, Spread::InTurn, |c| async move {
            let mut c = c.kv_client().max_decoding_message_size(MAX_ANSWER);
            let mut r = c.get(prefix, Some(GetOptions::new().with_prefix())).await?;
            let revision = r.header().map_or(0, etcd_client::ResponseHeader::revision);
            Ok((linear(r.header()), (revision, r.take_kvs().into_iter().map(key_value).collect())))
        })
        .await
    }

    /// Reads one key linearizably.
    ///
    /// # Errors
    /// See [`Etcd`].
    pub async fn get(&self, key: &str) -> Result<Option<KeyValue>, EtcdError> {
        self.call(Needs::Read, Spread::Hedged, |mut c| async move {
            let mut r = c.get(key, None).await?;
            Ok((linear(r.header()), r.take_kvs().into_iter().next().map(key_value)))
        })
        .await
    }

    /// Sets a key, bound to `lease` (0: no lease).
    ///
    /// # Errors
    /// See [`Etcd`]; not repeated after a time-out.
    pub async fn put(&self, key: &str, value: &[u8], lease: i64) -> Result<(), EtcdError> {
        self.call(Needs::Write, Spread::Once, |mut c| async move {
            let r = c.put(key, value, Some(PutOptions::new().with_lease(lease))).await?;
            Ok((linear(r.header()), ()))
        })
        .await
    }

    /// Deletes a key; a missing key is no error.
    ///
    /// # Errors
    /// See [`Etcd`]; not repeated after a time-out.
    pub async fn delete(&self, key: &str) -> Result<(), EtcdError> {
        self.call(Needs::Write, Spread::Once, |mut c| async move {
            let r = c.delete(key, None).await?;
            Ok((linear(r.header()), ()))
        })
        .await
    }

    /// Executes `then` if all `compares` hold, otherwise `or_else`. etcd takes at most 128 operations by default.
    ///
    /// # Errors
    /// See [`Etcd`]; not repeated after a time-out.
    pub async fn txn(&self, compares: Vec<Compare>, then: Vec<Op>, or_else: Vec<Op>) -> Result<TxnReply, EtcdError> {
        Ok(self.transact(Needs::Write, Spread::Once, build(compares, then, or_else)).await?.0)
    }

    /// As [`Etcd::txn`], for a transaction that invalidates its own conditions, so that a second copy changes nothing.
    /// If the first member is slow, copies go to others. The second value says whether another copy may still succeed
    /// **if** the conditions hold once more; only the caller knows whether they can.
    ///
    /// Such a transaction may succeed and still be answered as "the conditions did not hold", by its second copy. The
    /// reads of `or_else` tell the two apart.
    ///
    /// # Errors
    /// See [`Etcd`]; the whole transaction is in doubt if one copy is.
    pub async fn txn_guarded(
        &self,
        compares: Vec<Compare>,
        then: Vec<Op>,
        or_else: Vec<Op>,
    ) -> Result<(TxnReply, bool), EtcdError> {
        self.transact(Needs::Write, Spread::Guarded, build(compares, then, or_else)).await
    }

    /// Reads several keys and prefixes linearizably, at one revision.
    ///
    /// # Errors
    /// See [`Etcd`]; tried at every endpoint.
    pub async fn read(&self, ops: Vec<Op>) -> Result<TxnReply, EtcdError> {
        let reads = ops.into_iter().filter(|o| matches!(o, Op::Get(_) | Op::GetPrefix(_)));
        let txn = Txn::new().and_then(reads.map(operation).collect::<Vec<_>>());
        Ok(self.transact(Needs::Read, Spread::Hedged, txn).await?.0)
    }

    async fn transact(&self, needs: Needs, spread: Spread, txn: Txn) -> Result<(TxnReply, bool), EtcdError> {
        let txn = &txn;
        self.call_counted(needs, spread, |mut c| async move {
            let r = c.txn(txn.clone()).await?;
            let reads = r
                .op_responses()
                .into_iter()
                .filter_map(|op| match op {
                    TxnOpResponse::Get(mut g) => Some(g.take_kvs().into_iter().map(key_value).collect()),
                    _ => None,
                })
                .collect();
            let revision = r.header().map_or(0, etcd_client::ResponseHeader::revision);
            Ok((linear(r.header()), TxnReply { succeeded: r.succeeded(), revision, reads }))
        })
        .await
    }

    /// Grants a lease with the configured time to live.
    ///
    /// # Errors
    /// See [`Etcd`]. A repeated request may leave an extra lease, which expires.
    pub async fn grant(&self) -> Result<Lease, EtcdError> {
        // Whole seconds, rounded up: a shorter lease would break what the configuration check has proved.
        let ttl = i64::try_from(self.0.lease_ttl.as_millis().div_ceil(1000).max(1)).unwrap_or(i64::MAX);
        let sent = clock::now();
        self.call(Needs::Lease, Spread::InTurn, |mut c| async move {
            let r = c.lease_grant(ttl, None).await?;
            let lease = Lease { id: r.id(), ttl: Duration::from_secs(u64::try_from(r.ttl()).unwrap_or(0)), sent };
            Ok((local(r.header()), lease))
        })
        .await
    }

    /// Renews a lease: on success it lives for its granted time from the moment of the call.
    ///
    /// # Errors
    /// [`EtcdError::LeaseGone`] if etcd no longer knows the lease; otherwise see [`Etcd`].
    pub async fn keep_alive(&self, id: i64) -> Result<(), EtcdError> {
        // One stream per renewal: it costs one small extra frame, and no stream can die unseen.
        let gone = self
            .call(Needs::Lease, Spread::Hedged, |mut c| async move {
                match c.lease_keep_alive(id).await {
                    // The library hides this header; probes check others.
                    Ok(_) => Ok((None, false)),
                    Err(etcd_client::Error::LeaseKeepAliveError(m)) if m.contains("lease not found") => {
                        Ok((None, true))
                    }
                    Err(e) => Err(e),
                }
            })
            .await?;
        if gone { Err(EtcdError::LeaseGone { id }) } else { Ok(()) }
    }

    /// Revokes a lease and deletes its keys. A missing lease is no error.
    ///
    /// # Errors
    /// See [`Etcd`].
    pub async fn revoke(&self, id: i64) -> Result<(), EtcdError> {
        let r = self
            .call(Needs::Lease, Spread::InTurn, |mut c| async move {
                let r = c.lease_revoke(id).await?;
                Ok((local(r.header()), ()))
            })
            .await;
        match r {
            Err(EtcdError::Refused { message }) if message.contains("lease not found") => Ok(()),
            r => r,
        }
    }

    /// Watches all keys with this prefix: a snapshot first, then each change, and another snapshot after any error.
    /// Call it inside a tokio runtime. The watch ends when the receiver is dropped.
    #[must_use]
    pub fn watch(&self, prefix: &str) -> mpsc::Receiver<WatchEvent> {
        watch::start(self.clone(), prefix.to_owned())
    }

    /// Opens one stream at the first endpoint that accepts it, and returns that endpoint's index too.
    pub(super) async fn open_watch(
        &self,
        prefix: &str,
        from: i64,
    ) -> Result<(etcd_client::WatchStream, usize), EtcdError> {
        let options = etcd_client::WatchOptions::new().with_prefix().with_start_revision(from).with_progress_notify();
        let options = &options;
        let open = |c: Client| async move {
            let stream =
                c.watch_client().max_decoding_message_size(MAX_ANSWER).watch(prefix, Some(options.clone())).await?;
            Ok((None, stream))
        };
        // etcd takes the stream at once, and says on it what it refuses.
        let stream = self.call(Needs::Lease, Spread::InTurn, open).await?;
        Ok((stream, self.0.current.load(Ordering::Relaxed) % self.0.endpoints.len()))
    }

    /// Reports a dead stream of this endpoint: other calls should try another endpoint first.
    pub(super) fn report(&self, endpoint: usize, why: &str) {
        if let Some(e) = self.0.endpoints.get(endpoint) {
            e.bad(why, clock::now());
        }
    }
}

/// Header of a linearizable answer.
pub(super) fn linear(h: Option<&etcd_client::ResponseHeader>) -> Option<Header> {
    h.map(|h| Header { cluster: h.cluster_id(), revision: Some(h.revision()) })
}

/// Header of an answer from a member's local state, which may lag.
pub(super) fn local(h: Option<&etcd_client::ResponseHeader>) -> Option<Header> {
    h.map(|h| Header { cluster: h.cluster_id(), revision: None })
}

fn key_value(kv: etcd_client::KeyValue) -> KeyValue {
    KeyValue {
        mod_revision: kv.mod_revision(),
        create_revision: kv.create_revision(),
        lease: kv.lease(),
        key: String::from_utf8_lossy(kv.key()).into_owned(),
        value: kv.value().to_vec(),
    }
}

pub(super) fn key_value_ref(kv: &etcd_client::KeyValue) -> KeyValue {
    key_value(kv.clone())
}

fn build(compares: Vec<Compare>, then: Vec<Op>, or_else: Vec<Op>) -> Txn {
    Txn::new()
        .when(compares.into_iter().map(compare).collect::<Vec<_>>())
        .and_then(then.into_iter().map(operation).collect::<Vec<_>>())
        .or_else(or_else.into_iter().map(operation).collect::<Vec<_>>())
}

fn compare(c: Compare) -> etcd_client::Compare {
    use etcd_client::Compare as C;
    match c {
        Compare::ModRevision(key, rev) => C::mod_revision(key, CompareOp::Equal, rev),
        Compare::Missing(key) => C::create_revision(key, CompareOp::Equal, 0),
        Compare::Value(key, value) => C::value(key, CompareOp::Equal, value),
        Compare::Lease(key, lease) => C::lease(key, CompareOp::Equal, lease),
    }
}

fn operation(op: Op) -> TxnOp {
    match op {
        Op::Put { key, value, lease } => TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease))),
        Op::Delete(key) => TxnOp::delete(key, None),
        Op::DeletePrefix(prefix) => TxnOp::delete(prefix, Some(DeleteOptions::new().with_prefix())),
        Op::Get(key) => TxnOp::get(key, None),
        Op::GetPrefix(prefix) => TxnOp::get(prefix, Some(GetOptions::new().with_prefix())),
    }
}
