//! Forwards a switchover, or another request that only the master can serve, to the master through etcd. The answer
//! comes back the same way.
//!
//! `instances/<i>/wishes/<id>` holds the request, under a lease that nobody renews. A request that the master does not
//! take up within seconds disappears, so it cannot act minutes later. The master deletes the key in a transaction
//! before it acts, so no request runs twice. `instances/<i>/answers/<id>` holds the answer, also under such a lease.

use super::Answers;
use crate::control::api::{ApiError, ErrorKind, Reply, Request};
use crate::etcd::{Compare, Etcd, EtcdError, KeyValue, Keys, Op, WatchEvent};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tracing::{info, warn};

/// Schema of a request. The master ignores other numbers.
const SCHEMA: u32 = 1;
/// Size limit of a request: a name or two.
const MAX_WISH: usize = 16 * 1024;
/// Time limits of the master for a question, and for a handover that settles. Both have a margin and fit into the
/// command line's own wait.
const QUESTION: Duration = Duration::from_secs(5);
const SWITCHOVER: Duration = Duration::from_secs(12);

/// Tries when etcd does not answer. With etcd's usual time-out of a second they last as long as the client waits.
const TRIES: usize = 3;

#[derive(Debug, Serialize, Deserialize)]
struct Wish {
    schema: u32,
    /// The requesting node.
    from: String,
    request: Request,
}

/// Asks the master of `instance`.
pub(in crate::agent) async fn ask(
    etcd: &Etcd,
    cluster: &str,
    instance: &str,
    me: &str,
    master: &str,
    request: Request,
) -> Result<Reply, ApiError> {
    let failed = |why: String| ApiError {
        message: format!("this node is not the master, and cannot forward the request to the master, {master}: {why}"),
        advice: format!("run the command on {master}"),
        kind: ErrorKind::Failed,
    };
    let patience = if matches!(request, Request::Switchover { .. }) { SWITCHOVER } else { QUESTION };
    let nonce = getrandom::u64().map_err(|e| failed(e.to_string()))?;
    let id = format!("{me}-{nonce:016x}");
    let value = serde_json::to_vec(&Wish { schema: SCHEMA, from: me.to_owned(), request })
        .map_err(|e| failed(e.to_string()))?;
    let answer_key = format!("{}{id}", Keys::new(cluster).answers(instance));
    let mut news = etcd.watch(&answer_key);
    let lease = etcd.grant().await.map_err(|e| failed(e.to_string()))?.id;
    let put = etcd.put(&format!("{}{id}", Keys::new(cluster).wishes(instance)), &value, lease).await;
    let waited = async {
        while let Some(event) = news.recv().await {
            let found = match event {
                WatchEvent::Snapshot { entries, .. } => entries.into_iter().find(|kv| kv.key == answer_key),
                WatchEvent::Put(kv) => Some(kv).filter(|kv| kv.key == answer_key),
                WatchEvent::Delete { .. } => None,
            };
            if let Some(kv) = found {
                return serde_json::from_slice::<Reply>(&kv.value).map_err(|e| format!("cannot read its answer ({e})"));
            }
        }
        Err("the watch on etcd ended".to_owned())
    };
    let reply = match put {
        Ok(()) => tokio::time::timeout(patience, waited)
            .await
            .unwrap_or_else(|_| Err(format!("the master did not answer within {patience:?}"))),
        Err(e) => Err(e.to_string()),
    };
    // Revoking the lease also deletes a request that the master did not take. If this fails, the lease runs out by
    // itself.
    let _ = etcd.revoke(lease).await;
    reply.map_err(failed)
}

/// Serves other nodes' requests while this node is master, one after the other. Ends with the process.
pub(in crate::agent) async fn serve(etcd: Etcd, cluster: String, instance: String, local: Answers) {
    let prefix = Keys::new(&cluster).wishes(&instance);
    let mut news = etcd.watch(&prefix);
    while let Some(event) = news.recv().await {
        let found = match event {
            WatchEvent::Snapshot { entries, .. } => entries,
            WatchEvent::Put(kv) => vec![kv],
            WatchEvent::Delete { .. } => Vec::new(),
        };
        for kv in found {
            let Some(id) = kv.key.strip_prefix(&prefix).map(str::to_owned) else { continue };
            if !local.is_master(&instance) {
                continue;
            }
            let answer_key = format!("{}{id}", Keys::new(&cluster).answers(&instance));
            if let Err(e) = fulfil(&etcd, &instance, &kv, &answer_key, &local).await {
                warn!(instance, "cannot answer the request of another node: {e}");
            }
        }
    }
}

async fn fulfil(
    etcd: &Etcd,
    instance: &str,
    kv: &KeyValue,
    answer_key: &str,
    local: &Answers,
) -> Result<(), EtcdError> {
    let wish = Some(&kv.value).filter(|v| v.len() <= MAX_WISH).and_then(|v| serde_json::from_slice::<Wish>(v).ok());
    let Some(wish) = wish.filter(|w| w.schema == SCHEMA && asks_for(&w.request) == Some(instance)) else {
        warn!(key = ?kv.key, "cannot read the request in etcd; remove it with `etcdctl del {}`", kv.key);
        return Ok(());
    };
    let reply = match take_up(etcd, kv).await? {
        MayServe::Yes => {
            if matches!(wish.request, Request::Switchover { .. }) {
                info!(instance, from = wish.from, "another node forwarded a switchover");
            }
            local.make_here(wish.request).await.unwrap_or_else(Reply::Error)
        }
        // Most likely an earlier try took the request and its answer was lost. But the client may also have withdrawn
        // it.
        MayServe::Perhaps => Reply::Error(ApiError {
            message: "etcd did not tell the master in time whether the request is still wanted, so the master did not \
                 carry it out"
                .to_owned(),
            advice: "run the command again".to_owned(),
            kind: ErrorKind::Failed,
        }),
        MayServe::No => return Ok(()),
    };
    let value = serde_json::to_vec(&reply).unwrap_or_default();
    // Writing the answer twice is harmless: the key is unique, and the client reads it once.
    for _ in 1..TRIES {
        match answer(etcd, answer_key, &value).await {
            Err(e) => warn!(instance, "cannot write the answer for another node to etcd yet: {e}"),
            done => return done,
        }
    }
    answer(etcd, answer_key, &value).await
}

async fn answer(etcd: &Etcd, key: &str, value: &[u8]) -> Result<(), EtcdError> {
    let lease = etcd.grant().await?.id;
    etcd.put(key, value, lease).await
}

/// Whether this node may serve a request.
enum MayServe {
    Yes,
    Perhaps,
    No,
}

/// Deletes a request. The node that deletes it may serve it.
async fn take_up(etcd: &Etcd, kv: &KeyValue) -> Result<MayServe, EtcdError> {
    let mut doubt = false;
    for tried in 1.. {
        let only_once = vec![Compare::ModRevision(kv.key.clone(), kv.mod_revision)];
        match etcd.txn(only_once, vec![Op::Delete(kv.key.clone())], Vec::new()).await {
            Ok(done) if done.succeeded => return Ok(MayServe::Yes),
            Ok(_) if doubt => return Ok(MayServe::Perhaps),
            Ok(_) => break,
            Err(e) if tried >= TRIES => return Err(e),
            Err(e) => doubt |= !e.is_definite(),
        }
    }
    Ok(MayServe::No)
}

/// The instance in a request that another node may send.
fn asks_for(request: &Request) -> Option<&str> {
    match request {
        Request::Candidates { instance } | Request::Switchover { instance, .. } | Request::Forget { instance, .. } => {
            instance.as_deref()
        }
        _ => None,
    }
}
