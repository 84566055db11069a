//! Names the one node that may write the calls of an instance, by its epoch, in a key that every write compares.

use crate::calls::store::StoreHandle;
use crate::etcd::{Compare, Etcd, EtcdError, Op};
use std::time::Duration;
use tracing::{debug, warn};

/// Pause before etcd is asked again.
const RETRY: Duration = Duration::from_secs(1);

pub(super) fn key(cluster: &str, instance: &str) -> String {
    format!("/keepcall/{cluster}/instances/{instance}/writer")
}

/// Tries until the key names `epoch` or a later one. What stands there and is no epoch is written over.
pub(super) async fn name(etcd: Etcd, store: StoreHandle, key: String, epoch: u64) {
    loop {
        match attempt(&etcd, &key, epoch).await {
            Ok(true) => return store.guard(vec![Compare::Value(key, value(epoch))]),
            Ok(false) => {}
            Err(e) => debug!("the writer of calls is not named yet: {e}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn value(epoch: u64) -> Vec<u8> {
    epoch.to_string().into_bytes()
}

/// Whether it is settled that this epoch, or a later one, writes.
async fn attempt(etcd: &Etcd, key: &str, epoch: u64) -> Result<bool, EtcdError> {
    let there = etcd.get(key).await?;
    let named = there.as_ref().map(|kv| std::str::from_utf8(&kv.value).ok().and_then(|text| text.parse::<u64>().ok()));
    match named {
        // A later master writes; the guard on our own epoch keeps this node from it until it is told.
        Some(Some(named)) if named >= epoch => return Ok(true),
        Some(None) => warn!(key, "the value of this key in etcd is not an epoch; it is written again"),
        _ => {}
    }
    let revision = there.map_or(0, |kv| kv.mod_revision);
    let put = Op::Put { key: key.to_owned(), value: value(epoch), lease: 0 };
    let done = etcd.txn(vec![Compare::ModRevision(key.to_owned(), revision)], vec![put], Vec::new()).await?;
    Ok(done.succeeded)
}
