//! Chooses the members for a call: in order, the next at once after a failure, and a second one while the first is
//! slow.

use super::trouble::Needs;
use super::{Etcd, Inner};
use crate::etcd::error::{EtcdError, Failure, classify};
use crate::etcd::identity::Header;
use crate::os::clock;
use crate::sync::Locked as _;
use crate::time::Time;
use etcd_client::Client;
use futures::stream::{FuturesUnordered, StreamExt as _};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Wait before a hedged call goes to the next member. A healthy member on an ordinary disk answers sooner, and a
/// master's hold at the default timing has room for several waits.
const HEDGE: Duration = Duration::from_millis(40);
/// Wait before a call goes again to members that already have it: a request forwarded to a leader that has just died is
/// lost, and its member waits in vain although a new leader exists.
const AGAIN: Duration = Duration::from_millis(250);
/// How a call may spread over the members.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::etcd) enum Spread {
    /// To the next member only if it was certainly not sent before: a write.
    Once,
    /// To the next member after any failure of one.
    InTurn,
    /// Also while a member is slow, and later again to the same members; the first answer counts.
    Hedged,
    /// As `Hedged`, for a write that succeeds at most once, however many copies arrive.
    Guarded,
}

/// Outcome of a call's copies.
#[derive(Default)]
pub(in crate::etcd) struct Tally {
    /// Each failed endpoint with its error.
    tried: Vec<(String, String)>,
    tls: Option<EtcdError>,
    /// First failure that leaves the call's outcome open.
    in_doubt: Option<EtcdError>,
}

impl Tally {
    /// The error of the whole call, once no copy is in flight.
    fn error(self, spread: Spread) -> EtcdError {
        match (self.in_doubt, self.tls) {
            (Some(e), _) if spread == Spread::Once => e,
            (Some(_), _) if spread == Spread::Guarded => EtcdError::Unanswered { tried: self.tried },
            (_, Some(tls)) if self.tried.len() == 1 => tls,
            _ => EtcdError::Unreachable { tried: self.tried },
        }
    }
}

impl Etcd {
    pub(in crate::etcd) async fn call<T, F, Fut>(&self, needs: Needs, spread: Spread, f: F) -> Result<T, EtcdError>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<(Option<Header>, T), etcd_client::Error>>,
    {
        Ok(self.call_counted(needs, spread, f).await?.0)
    }

    /// Returns the answer, and whether another copy of the call may still succeed.
    pub(in crate::etcd) async fn call_counted<T, F, Fut>(
        &self,
        needs: Needs,
        spread: Spread,
        f: F,
    ) -> Result<(T, bool), EtcdError>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<(Option<Header>, T), etcd_client::Error>>,
    {
        self.probe();
        self.0.settle().await;
        let result = self.spread(spread, f).await;
        self.0.troubles.locked().outcome(needs, result.as_ref().err());
        result
    }

    async fn spread<T, F, Fut>(&self, spread: Spread, f: F) -> Result<(T, bool), EtcdError>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<(Option<Header>, T), etcd_client::Error>>,
    {
        let (f, inner) = (&f, &*self.0);
        let mut next = inner.order(clock::now()).into_iter();
        let ask = |i: usize| async move { (i, inner.attempt(i, f).await) };
        let (hedge, again) = (HEDGE.min(inner.timeout / 4), AGAIN.min(inner.timeout / 2));
        let hedged = matches!(spread, Spread::Hedged | Spread::Guarded);
        let last = clock::now() + inner.timeout;
        // By then every copy of the first round has had its time.
        let end = hedged.then(|| last + hedge * u32::try_from(inner.endpoints.len() + 1).unwrap_or(1));
        let mut tally = Tally::default();
        let mut open = FuturesUnordered::new();
        // The newest copy, on whose answer the next copy waits.
        let mut newest = None;
        let mut go_on = true;
        loop {
            if go_on {
                newest = next.next();
                open.extend(newest.map(ask));
            }
            let fresh_ones = next.len() > 0;
            let wait = tokio::time::sleep(if fresh_ones { hedge } else { again });
            tokio::select! {
                biased;
                answer = open.next() => {
                    let Some((i, result)) = answer else { return Err(tally.error(spread)) };
                    match result {
                        Ok(t) => {
                            inner.endpoints[i].good(clock::now());
                            inner.current.store(i, Ordering::Relaxed);
                            return Ok((t, !open.is_empty() || tally.in_doubt.is_some()));
                        }
                        Err(Failure::Final(e)) => {
                            // The member works; the request or the configuration is at fault.
                            inner.endpoints[i].good(clock::now());
                            // One member's answer proves nothing about a write that another may have executed.
                            if spread == Spread::Guarded && (!open.is_empty() || tally.in_doubt.is_some()) {
                                tally.tried.push((inner.endpoints[i].url.clone(), e.to_string()));
                                return Err(EtcdError::Unanswered { tried: tally.tried });
                            }
                            return Err(e);
                        }
                        Err(other) => {
                            let in_doubt = inner.note(i, other, &mut tally);
                            go_on = spread != Spread::Once || !in_doubt;
                            if !go_on {
                                return Err(tally.error(spread));
                            }
                        }
                    }
                }
                () = tokio::time::sleep_until(clock::tokio_at(end.unwrap_or(Time::FAR))), if end.is_some() => {
                    // Copies of later rounds are still in flight.
                    if tally.in_doubt.is_none() {
                        tally.in_doubt = Some(EtcdError::Unanswered { tried: tally.tried.clone() });
                    }
                    return Err(tally.error(spread));
                }
                () = wait, if hedged && (fresh_ones || clock::now() < last) => {
                    newest.iter().for_each(|&i| inner.endpoints[i].slow());
                    if !fresh_ones {
                        next = inner.order(clock::now()).into_iter();
                    }
                    go_on = true;
                }
            }
        }
    }
}

impl Inner {
    /// Endpoints in order of attempts: the last good one and its successors, then members that just failed or are slow.
    fn order(&self, now: Time) -> Vec<usize> {
        let n = self.endpoints.len();
        let start = self.current.load(Ordering::Relaxed);
        let mut order: Vec<usize> = (0..n).map(|i| (start + i) % n).collect();
        // The sort is stable, so each half keeps its order.
        order.sort_by_key(|&i| self.endpoints[i].shunned(now));
        order
    }

    /// Records a member's failure. Returns whether the call may have been executed all the same.
    pub(in crate::etcd) fn note(&self, i: usize, failure: Failure, tally: &mut Tally) -> bool {
        let e = &self.endpoints[i];
        let (why, in_doubt) = match failure {
            Failure::Tls(why) => {
                tally.tls.get_or_insert_with(|| EtcdError::Tls { endpoint: e.url.clone(), why: why.clone() });
                (why, None)
            }
            Failure::InDoubt(why) => {
                let err = if why.is_empty() {
                    EtcdError::Timeout { endpoint: e.url.clone(), after: self.timeout }
                } else {
                    EtcdError::Broken { endpoint: e.url.clone(), why: why + e.hint(&self.access) }
                };
                (err.to_string(), Some(err))
            }
            Failure::NotSent(why) | Failure::Unserved(why) | Failure::StaleToken(why) => (why, None),
            Failure::Unsettled => {
                // This is not the member's fault; the next call determines the cluster first.
                let why =
                    "not checked yet whether this endpoint belongs to the same etcd cluster as the others".to_owned();
                tally.in_doubt.get_or_insert(EtcdError::Broken { endpoint: e.url.clone(), why: why.clone() });
                tally.tried.push((e.url.clone(), why));
                return true;
            }
            Failure::Final(err) => (err.to_string(), None),
        };
        e.bad(&why, clock::now());
        tally.tried.retain(|(url, _)| *url != e.url);
        tally.tried.push((e.url.clone(), why));
        let doubtful = in_doubt.is_some();
        if let Some(err) = in_doubt {
            tally.in_doubt.get_or_insert(err);
        }
        doubtful
    }

    /// Makes one attempt, and a second one with a fresh client after an invalid token. A time-out is in doubt, with no
    /// text.
    pub(in crate::etcd) async fn attempt<T, F, Fut>(&self, i: usize, f: &F) -> Result<T, Failure>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<(Option<Header>, T), etcd_client::Error>>,
    {
        let (e, user) = (&self.endpoints[i], self.access.user.as_deref());
        let mut fresh = false;
        loop {
            let (number, client) = e.client(&self.access).await?;
            let sent = self.identity().send(i);
            match tokio::time::timeout(self.timeout, f(client)).await {
                Err(_) => return Err(Failure::InDoubt(String::new())),
                Ok(Ok((header, t))) => return self.judge(i, sent, header).map(|()| t),
                Ok(Err(err)) => match classify(&err, user) {
                    Failure::StaleToken(_) if !fresh => {
                        fresh = true;
                        e.forget_client(number).await;
                    }
                    other => return Err(other),
                },
            }
        }
    }
}
