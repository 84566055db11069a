//! To which members a call goes, and when: in order, at once after a failure, and to a second one while the first is slow.

use super::{Etcd, Inner};
use crate::clock;
use crate::etcd::error::{EtcdError, Failure, classify};
use crate::etcd::identity::Header;
use crate::time::Time;
use etcd_client::Client;
use futures::stream::{FuturesUnordered, StreamExt as _};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// When a call that may go to two members goes to the next one. A healthy member on an ordinary disk answers in less; a
/// master's hold at the default timing has room for several.
const HEDGE: Duration = Duration::from_millis(40);
/// When it is sent again to members that have it already: what a member forwards to a leader that has just died is lost, and
/// the member waits for it in vain while a new leader is there.
const AGAIN: Duration = Duration::from_millis(250);
/// How a call may be spread over the members.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::etcd) enum Spread {
    /// To the next one only if it was certainly not sent before: a write.
    Once,
    /// To the next one after any failure of a member.
    InTurn,
    /// Also while a member is slow to answer, and again to the same ones later on; the first answer counts.
    Hedged,
    /// The same for a write that is done once at most, however many copies of it arrive.
    Guarded,
}

/// What became of the copies of one call.
#[derive(Default)]
pub(in crate::etcd) struct Tally {
    /// Each endpoint that failed, and why.
    tried: Vec<(String, String)>,
    tls: Option<EtcdError>,
    /// The first failure that leaves it open whether the call was done.
    in_doubt: Option<EtcdError>,
}

impl Tally {
    /// The error of the whole, once nothing is under way any more.
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
    pub(in crate::etcd) async fn call<T, F, Fut>(&self, spread: Spread, f: F) -> Result<T, EtcdError>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<(Option<Header>, T), etcd_client::Error>>,
    {
        Ok(self.call_counted(spread, f).await?.0)
    }

    /// The answer, and whether another copy of the call may still be done.
    pub(in crate::etcd) async fn call_counted<T, F, Fut>(&self, spread: Spread, f: F) -> Result<(T, bool), EtcdError>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<(Option<Header>, T), etcd_client::Error>>,
    {
        self.probe();
        self.0.settle().await;
        let result = self.spread(spread, f).await;
        let trouble = match &result {
            // These are answers to the request, and no sign of trouble.
            Ok(_) | Err(EtcdError::Refused { .. } | EtcdError::LeaseGone { .. } | EtcdError::Changed) => None,
            Err(e) => Some(e.to_string()),
        };
        if matches!(spread, Spread::Once | Spread::Guarded) {
            match &result {
                Ok(_) => *self.0.full.lock().unwrap_or_else(PoisonError::into_inner) = None,
                Err(EtcdError::Full { .. }) => {
                    self.0.full.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&trouble)
                }
                Err(_) => {}
            }
        }
        *self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
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
        // The newest copy: the one that the next copy waits for.
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
                            // The member works; it is the request or the configuration that does not.
                            inner.endpoints[i].good(clock::now());
                            // Said by one member of a write that another may have done, it proves nothing.
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
                    // Copies of later rounds are still under way.
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
    /// Endpoints in the order to try: the last good one and its successors, members that just failed or are slow at the end.
    fn order(&self, now: Time) -> Vec<usize> {
        let n = self.endpoints.len();
        let start = self.current.load(Ordering::Relaxed);
        let mut order: Vec<usize> = (0..n).map(|i| (start + i) % n).collect();
        // The sort is stable: each half keeps its order.
        order.sort_by_key(|&i| self.endpoints[i].shunned(now));
        order
    }

    /// Notes that a member failed; whether the call may have been done all the same.
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
                // It is not the member's fault. The next call finds out first.
                let why = "it is not known yet whether it belongs to the same cluster as the others".to_owned();
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

    /// One try, and a second one with a fresh client if the token was no longer known. A time-out is in doubt, with no text.
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
