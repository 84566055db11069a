//! Decides which calls of the local server died with its process. Pure.
//!
//! A check may watch the wrong process (a wrapper, a worker). And a server that is being replaced keeps its calls until
//! they end. So the end of a process alone proves nothing. A call is dead if, besides, nobody has its audio's ports any
//! more: servers open them for each call. A call whose audio does not pass the server lives on without it.

use super::permitted::Ground;
use super::plan;
use crate::calls::model::Call;
use std::net::SocketAddr;

/// Whether the server has lost this call. `since_ms`: calls confirmed before this moment (wall-clock milliseconds since
/// 1970) were those of a process that has ended. `is_bound`: whether some process receives UDP at an address of ours.
#[must_use]
pub fn is_orphaned(call: &Call, since_ms: u64, ground: &Ground, is_bound: impl Fn(SocketAddr) -> bool) -> bool {
    if call.confirmed_ms >= since_ms || call.legs.iter().any(|leg| leg.carried) {
        return false;
    }
    let anchors = call.legs.iter().filter_map(|leg| plan::anchors(leg, ground)).flatten().flatten();
    let mut ports = anchors.map(|(at, _)| at).filter(|at| at.port() != 0).peekable();
    ports.peek().is_some() && !ports.any(is_bound)
}

#[cfg(test)]
mod tests;
