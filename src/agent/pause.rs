//! The pause of the whole cluster: one key in etcd. Every automatic change of master requires that the key is absent.

use crate::cluster::record::{Paused, SCHEMA, encode};
use crate::control::api::{ApiError, ErrorKind, PauseState};
use crate::etcd::{Etcd, EtcdError, Keys};
use crate::os::clock;

/// Length limit of the reason: it goes into one line of `status`.
const MAX_REASON: usize = 200;

/// Pauses automatic changes of master. On a repeated pause the newer reason counts.
pub(super) async fn pause(etcd: &Etcd, cluster: &str, by: &str, reason: &str) -> Result<PauseState, ApiError> {
    let key = Keys::new(cluster).paused();
    let reason: String = reason.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
    let value = Paused { schema: SCHEMA, by: by.to_owned(), reason, at_ms: clock::unix_ms() };
    let before = etcd.get(&key).await.map_err(failed)?.is_some();
    etcd.put(&key, &encode(&value), 0).await.map_err(failed)?;
    Ok(PauseState { paused: true, before })
}

/// Ends the pause.
pub(super) async fn resume(etcd: &Etcd, cluster: &str) -> Result<PauseState, ApiError> {
    let key = Keys::new(cluster).paused();
    let before = etcd.get(&key).await.map_err(failed)?.is_some();
    etcd.delete(&key).await.map_err(failed)?;
    Ok(PauseState { paused: false, before })
}

fn failed(e: EtcdError) -> ApiError {
    ApiError {
        message: format!("etcd did not confirm the change of the pause: {e}"),
        advice: "the change may or may not be in force; check etcd with `keepcall status`, and try again".to_owned(),
        kind: ErrorKind::Failed,
    }
}
