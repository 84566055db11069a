//! The handle that the rest of the program holds: each request, and to how many members it may go. `spread.rs` sends it there.

pub(super) mod changes;
pub(super) mod spread;
pub(super) mod watch;

use super::endpoint::{Access, Endpoint, EndpointHealth};
use super::error::EtcdError;
use super::identity::{Header, Identity};
use super::types::{Compare, KeyValue, Lease, Op, TxnReply};
use crate::{clock, config};
use changes::Changes;
use etcd_client::{Client, CompareOp, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse};
use spread::Spread;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use watch::WatchEvent;

/// A handle on etcd; clones share the connections.
///
/// Reads, lease calls and watches go on to the next endpoint after any failure of a member; small ones also when it is slow to
/// answer. A write goes on only if it was certainly not sent; otherwise it fails with an error whose
/// [`EtcdError::is_definite`] is false. From the first call on, every endpoint is tried now and then, so that a dead one is
/// known before it is needed.
#[derive(Clone)]
pub struct Etcd(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) access: Access,
    pub(super) timeout: Duration,
    lease_ttl: Duration,
    /// Index of the endpoint that answered last.
    pub(super) current: AtomicUsize,
    /// Why the last call was not served, by whichever endpoint.
    pub(super) trouble: Mutex<Option<String>>,
    /// Why the last write was refused, if etcd takes none at all; reads go on meanwhile.
    pub(super) full: Mutex<Option<String>>,
    /// Whether the endpoints are being probed.
    pub(super) probing: AtomicBool,
    /// Which etcd it is.
    pub(super) identity: Mutex<Identity>,
    /// One at a time finds out which it is, at the start.
    pub(super) settling: tokio::sync::Mutex<()>,
    pub(super) changes: tokio::sync::watch::Sender<Changes>,
}

/// Most bytes of one answer. All calls of a full instance fit; the library's own limit of 4 MiB does not hold a thousand.
const MAX_ANSWER: usize = 256 << 20;

impl Etcd {
    /// Reads the password and certificates. Nothing is sent yet, so etcd may be down.
    ///
    /// # Errors
    /// [`EtcdError::Config`] if a file cannot be read or settings do not fit together.
    pub fn connect(cfg: &config::Etcd) -> Result<Self, EtcdError> {
        if cfg.endpoints.is_empty() {
            return Err(EtcdError::Config(
                "`endpoints` is empty; name at least one, as \"http://127.0.0.1:2379\"".into(),
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
            trouble: Mutex::new(None),
            full: Mutex::new(None),
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

    /// How each endpoint did last.
    #[must_use]
    pub fn health(&self) -> Vec<EndpointHealth> {
        self.0.endpoints.iter().map(Endpoint::health).collect()
    }

    /// Why the last call failed, if it did: no member served it, or etcd did not let this node in, or it takes no writes. Else the
    /// alarm that a member tells of.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let get = |m: &Mutex<Option<String>>| m.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let alarm = || self.0.endpoints.iter().find_map(Endpoint::alarm);
        get(&self.0.trouble).or_else(|| get(&self.0.full)).or_else(alarm)
    }

    /// All keys with this prefix, read linearizably, and the revision of the read.
    ///
    /// # Errors
    /// As [`Etcd`] says; a read is tried at every endpoint.
    pub async fn get_prefix(&self, prefix: &str) -> Result<(i64, Vec<KeyValue>), EtcdError> {
        // Not at two members at once: this may be the state of thousands of calls.
        self.call(Spread::InTurn, |c| async move {
            let mut c = c.kv_client().max_decoding_message_size(MAX_ANSWER);
            let mut r = c.get(prefix, Some(GetOptions::new().with_prefix())).await?;
            let revision = r.header().map_or(0, etcd_client::ResponseHeader::revision);
            Ok((linear(r.header()), (revision, r.take_kvs().into_iter().map(key_value).collect())))
        })
        .await
    }

    /// One key, read linearizably.
    ///
    /// # Errors
    /// As [`Etcd`] says.
    pub async fn get(&self, key: &str) -> Result<Option<KeyValue>, EtcdError> {
        self.call(Spread::Hedged, |mut c| async move {
            let mut r = c.get(key, None).await?;
            Ok((linear(r.header()), r.take_kvs().into_iter().next().map(key_value)))
        })
        .await
    }

    /// Sets a key, bound to `lease` (0: to none).
    ///
    /// # Errors
    /// As [`Etcd`] says; not repeated after a time-out.
    pub async fn put(&self, key: &str, value: &[u8], lease: i64) -> Result<(), EtcdError> {
        self.call(Spread::Once, |mut c| async move {
            let r = c.put(key, value, Some(PutOptions::new().with_lease(lease))).await?;
            Ok((linear(r.header()), ()))
        })
        .await
    }

    /// Deletes a key; no error if there is none.
    ///
    /// # Errors
    /// As [`Etcd`] says; not repeated after a time-out.
    pub async fn delete(&self, key: &str) -> Result<(), EtcdError> {
        self.call(Spread::Once, |mut c| async move {
            let r = c.delete(key, None).await?;
            Ok((linear(r.header()), ()))
        })
        .await
    }

    /// If all `compares` hold, does `then`, else `or_else`. etcd takes at most 128 operations by default.
    ///
    /// # Errors
    /// As [`Etcd`] says; not repeated after a time-out.
    pub async fn txn(&self, compares: Vec<Compare>, then: Vec<Op>, or_else: Vec<Op>) -> Result<TxnReply, EtcdError> {
        Ok(self.transact(Spread::Once, build(compares, then, or_else)).await?.0)
    }

    /// The same for a transaction that undoes its own conditions, so that a second copy of it changes nothing: if the first
    /// member is slow to answer, copies go to others. The second value says whether another copy may still be done **if**
    /// the conditions hold once more; only the caller knows whether they can.
    ///
    /// Such a transaction may be done and yet be answered as "the conditions did not hold": that is its second copy. What
    /// `or_else` read tells the two apart.
    ///
    /// # Errors
    /// As [`Etcd`] says, with the whole of it in doubt if one copy is.
    pub async fn txn_guarded(
        &self,
        compares: Vec<Compare>,
        then: Vec<Op>,
        or_else: Vec<Op>,
    ) -> Result<(TxnReply, bool), EtcdError> {
        self.transact(Spread::Guarded, build(compares, then, or_else)).await
    }

    /// Reads several keys and prefixes at one revision, linearizably.
    ///
    /// # Errors
    /// As [`Etcd`] says; tried at every endpoint.
    pub async fn read(&self, ops: Vec<Op>) -> Result<TxnReply, EtcdError> {
        let reads = ops.into_iter().filter(|o| matches!(o, Op::Get(_) | Op::GetPrefix(_)));
        let txn = Txn::new().and_then(reads.map(operation).collect::<Vec<_>>());
        Ok(self.transact(Spread::Hedged, txn).await?.0)
    }

    async fn transact(&self, spread: Spread, txn: Txn) -> Result<(TxnReply, bool), EtcdError> {
        let txn = &txn;
        self.call_counted(spread, |mut c| async move {
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

    /// A new lease with the configured time to live.
    ///
    /// # Errors
    /// As [`Etcd`] says. A repeated request may leave a lease behind that runs out by itself.
    pub async fn grant(&self) -> Result<Lease, EtcdError> {
        // Whole seconds, rounded up: a shorter lease than configured would break what the configuration check has proved.
        let ttl = i64::try_from(self.0.lease_ttl.as_millis().div_ceil(1000).max(1)).unwrap_or(i64::MAX);
        let sent = clock::now();
        self.call(Spread::InTurn, |mut c| async move {
            let r = c.lease_grant(ttl, None).await?;
            let lease = Lease { id: r.id(), ttl: Duration::from_secs(u64::try_from(r.ttl()).unwrap_or(0)), sent };
            Ok((local(r.header()), lease))
        })
        .await
    }

    /// Renews a lease: on success it lives for its granted time from the moment at which the call was made.
    ///
    /// # Errors
    /// [`EtcdError::LeaseGone`] if etcd does not know it any more; else as [`Etcd`] says.
    pub async fn keep_alive(&self, id: i64) -> Result<(), EtcdError> {
        // A stream for each renewal: it costs one small frame more, and there is no stream that can die unseen.
        let gone = self
            .call(Spread::Hedged, |mut c| async move {
                match c.lease_keep_alive(id).await {
                    // The library keeps the header to itself; probes look at others.
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

    /// Ends a lease; the keys bound to it go with it. A lease that is gone already is no error.
    ///
    /// # Errors
    /// As [`Etcd`] says.
    pub async fn revoke(&self, id: i64) -> Result<(), EtcdError> {
        let r = self
            .call(Spread::InTurn, |mut c| async move {
                let r = c.lease_revoke(id).await?;
                Ok((local(r.header()), ()))
            })
            .await;
        match r {
            Err(EtcdError::Refused { message }) if message.contains("lease not found") => Ok(()),
            r => r,
        }
    }

    /// Follows all keys with this prefix: first a snapshot, then each change; after any trouble a snapshot again. Must be
    /// called inside a tokio runtime. The watch ends when the receiver is dropped.
    #[must_use]
    pub fn watch(&self, prefix: &str) -> mpsc::Receiver<WatchEvent> {
        watch::start(self.clone(), prefix.to_owned())
    }

    /// Opens one stream at the first endpoint that accepts it. Returns also which one that is.
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
        let stream = self.call(Spread::InTurn, open).await?;
        Ok((stream, self.0.current.load(Ordering::Relaxed) % self.0.endpoints.len()))
    }

    /// A stream of this endpoint died: other calls should go elsewhere first.
    pub(super) fn report(&self, endpoint: usize, why: &str) {
        if let Some(e) = self.0.endpoints.get(endpoint) {
            e.bad(why, clock::now());
        }
    }
}

/// The header of an answer to a linearizable request.
pub(super) fn linear(h: Option<&etcd_client::ResponseHeader>) -> Option<Header> {
    h.map(|h| Header { cluster: h.cluster_id(), revision: Some(h.revision()) })
}

/// The header of an answer that a member gives out of what it has, which may be behind.
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
