//! Turns an election's requests into etcd transactions, and the replies into views.

use super::election::{Commit, Failure, Request};
use super::record::{Recorded, View, encode, read_alive, read_record};
use crate::etcd::{Compare, Etcd, EtcdError, Keys, Op, TxnReply};

/// Executes a request. `Err` holds the error and what it means for the election.
pub(super) async fn ask(
    etcd: &Etcd,
    keys: &Keys,
    instance: &str,
    me: &str,
    request: Request,
) -> Result<(bool, View), (Failure, EtcdError)> {
    let (record, ticket) = (keys.record(instance), keys.ticket(instance, me));
    let reads = vec![
        Op::Get(record.clone()),
        Op::Get(keys.alive(instance)),
        Op::GetPrefix(keys.nodes()),
        Op::Get(ticket.clone()),
        Op::Get(keys.paused()),
        Op::GetPrefix(keys.runs()),
    ];
    let reply = match request {
        Request::Read => etcd.read(reads).await,
        Request::Ticket(value) => {
            let mut then = vec![Op::Put { key: ticket, value: value.into_bytes(), lease: 0 }];
            then.extend(reads);
            etcd.txn(Vec::new(), then, Vec::new()).await
        }
        Request::Commit(c) => {
            let (compares, mut then) = commit(keys, instance, record, ticket, &c);
            then.extend(reads.clone());
            if c.may_be_copied() {
                // A lost etcd member must not cost a takeover a time-out.
                let reply = etcd.txn_guarded(compares, then, reads).await;
                return match reply {
                    Ok((r, copies)) => settled(&c, r.succeeded, copies, view(keys, instance, &r)),
                    Err(e) => Err(failed(e)),
                };
            }
            etcd.txn(compares, then, reads).await
        }
    };
    match reply {
        Ok(r) => Ok((r.succeeded, view(keys, instance, &r))),
        Err(e) => Err(failed(e)),
    }
}

fn failed(e: EtcdError) -> (Failure, EtcdError) {
    (if e.is_definite() { Failure::Definite } else { Failure::InDoubt }, e)
}

/// What the reply to one copy of a commit says about the commit. `copies`: other copies may still arrive at etcd.
fn settled(c: &Commit, succeeded: bool, copies: bool, view: View) -> Result<(bool, View), (Failure, EtcdError)> {
    c.outcome(succeeded, copies, &view).answer(view).map_err(|failure| {
        let message = "one etcd member refused the change, and another member has not answered yet".to_owned();
        (failure, EtcdError::Refused { message })
    })
}

fn commit(keys: &Keys, instance: &str, record: String, ticket: String, c: &Commit) -> (Vec<Compare>, Vec<Op>) {
    let alive = keys.alive(instance);
    let mut compares =
        vec![Compare::ModRevision(record.clone(), c.base), Compare::Value(ticket, c.ticket.clone().into_bytes())];
    compares.extend(c.automatic.then(|| Compare::Missing(keys.paused())));
    compares.extend(c.alive_gone.then(|| Compare::Missing(alive.clone())));
    compares.extend(c.nodes_gone.iter().map(|n| Compare::Missing(keys.node(n))));
    compares.extend(c.runs.iter().map(|(n, revision)| Compare::ModRevision(keys.run(n), *revision)));
    let mut then = vec![Op::Put { key: record, value: encode(&*c.record), lease: 0 }];
    match c.alive {
        Some(lease) => then.push(Op::Put { key: alive, value: c.record.epoch.to_string().into_bytes(), lease }),
        None if c.drop_alive => then.push(Op::Delete(alive)),
        None => {}
    }
    (compares, then)
}

fn view(keys: &Keys, instance: &str, r: &TxnReply) -> View {
    let first = |i: usize| r.reads.get(i).and_then(|kvs| kvs.first());
    let (prefix, runs) = (keys.nodes(), keys.runs());
    let run = |key: &str, revision: i64| key.strip_prefix(&runs).map(|n| (n.to_owned(), revision));
    View {
        revision: r.revision,
        record: first(0)
            .map_or(Recorded::Missing, |kv| read_record(&keys.record(instance), &kv.value, kv.mod_revision)),
        alive: first(1).map(|kv| read_alive(&kv.value, kv.lease)),
        nodes: r
            .reads
            .get(2)
            .into_iter()
            .flatten()
            .filter_map(|kv| kv.key.strip_prefix(&prefix).map(str::to_owned))
            .collect(),
        runs: r.reads.get(5).into_iter().flatten().filter_map(|kv| run(&kv.key, kv.mod_revision)).collect(),
        ticket: first(3).map(|kv| String::from_utf8_lossy(&kv.value).into_owned()),
        rewritten: first(3).is_some_and(|kv| kv.create_revision != kv.mod_revision),
        paused: first(4).map(|kv| String::from_utf8_lossy(&kv.value).into_owned()),
    }
}
