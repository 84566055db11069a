use super::queue::MAX_OPS;
use super::*;
use crate::calls::model::SCHEMA;
use crate::calls::table::script::{A, B, Dialog, Lab};
use std::collections::BTreeMap;
use std::time::Instant;

fn a_call() -> Call {
    let mut lab = Lab::new();
    lab.b2bua(&Dialog::new("in", A, false, "1", "2"), &Dialog::new("out", B, true, "1", "2"));
    lab.calls().remove(0)
}

fn call(id: &str, epoch: u64) -> Call {
    Call { id: id.into(), epoch, ..a_call() }
}

fn put(id: &str, epoch: u64) -> CallEvent {
    CallEvent::Put(Box::new(call(id, epoch)))
}

fn gone(id: &str) -> CallEvent {
    CallEvent::Delete { id: id.into(), reason: "BYE" }
}

fn ids(batch: &[(String, Change)]) -> Vec<String> {
    batch.iter().map(|(id, c)| if *c == Change::Delete { format!("-{id}") } else { id.clone() }).collect()
}

#[test]
fn the_newest_state_of_each_call_wins() {
    let mut q = Queue::new(10);
    for e in [put("a", 1), put("b", 1), put("a", 2), gone("b"), put("c", 1)] {
        assert!(q.push(e));
    }
    let batch = q.take(|_| 1);
    assert_eq!(ids(&batch), ["a", "-b", "c"]);
    assert!(matches!(&batch[0].1, Change::Put(c) if c.epoch == 2));
    assert_eq!(q.len(), 3, "in flight counts as not written");
    // While it was under way c ended; a failed batch must not bring it back.
    q.push(gone("c"));
    q.put_back(batch);
    assert_eq!(ids(&q.take(|_| 1)), ["a", "-b", "-c"]);
    q.done();
    assert_eq!(q.len(), 0);
}

#[test]
fn what_was_forgotten_in_flight_does_not_come_back() {
    let mut q = Queue::new(10);
    q.push(put("a", 1));
    let batch = q.take(|_| 1);
    q.push(put("b", 1));
    assert_eq!(q.clear(), 2);
    // Learnt under the next right, while the old write is still under way.
    q.push(put("c", 2));
    q.put_back(batch);
    assert_eq!(ids(&q.take(|_| 1)), ["c"]);
    q.push(put("d", 2));
    q.put_back(vec![("c".into(), Change::Delete)]);
    assert_eq!(ids(&q.take(|_| 1)), ["-c", "d"], "only what was forgotten is left out");
}

#[test]
fn batches_and_the_queue_are_bounded() {
    let mut q = Queue::new(200);
    for n in 0..200 {
        assert!(q.push(put(&format!("p{n}"), 1)));
    }
    assert!(!q.push(put("more", 1)));
    assert!(q.push(put("p7", 2)), "a known call always has room");
    assert!(q.push(gone("old")), "an end has room when puts have not");
    assert_eq!(q.dropped, 1);
    assert_eq!(q.take(|_| 1).len(), MAX_OPS);
    assert_eq!(q.take(|_| super::queue::MAX_BATCH_BYTES / 2).len(), 2);
    assert_eq!(q.take(|_| usize::MAX / 2).len(), 1, "one is always taken");
}

#[test]
fn only_calls_that_belong_to_their_key_are_read() {
    let p = prefix("c", "main");
    let good = Call { id: "abc".into(), instance: "main".into(), ..a_call() };
    let json = |c: &Call| serde_json::to_vec(c).unwrap();
    let read = |key: &str, value: &[u8]| value::decode(&p, "main", &format!("{p}{key}"), value);
    assert_eq!(read("abc", &json(&good)), Ok(good.clone()));
    let newer = json(&Call { schema: SCHEMA + 1, ..good.clone() });
    let no_legs = Call { legs: Vec::new(), ..good.clone() };
    let elsewhere = Call { instance: "other".into(), ..good.clone() };
    let cases: [(&str, Vec<u8>, BadValue); 9] = [
        ("abd", json(&good), BadValue::Mismatch),
        ("abc", json(&elsewhere), BadValue::Mismatch),
        ("abc", newer, BadValue::Schema(SCHEMA + 1)),
        ("abc", br#"{"schema":99}"#.to_vec(), BadValue::Schema(99)),
        ("abc", json(&no_legs), BadValue::Content),
        ("abc", b"\xff{".to_vec(), BadValue::Content),
        ("abc", br#"{"schema":1}"#.to_vec(), BadValue::Content),
        ("", json(&good), BadValue::Key),
        ("a/b", json(&good), BadValue::Key),
    ];
    for (key, value, why) in cases {
        assert_eq!(read(key, &value), Err(why));
    }
    assert_eq!(value::decode(&p, "main", "elsewhere", &json(&good)), Err(BadValue::Key));
}

#[path = "../../../tests/common/mod.rs"]
mod common;

use common::{EtcdServer, LONG};

fn client(server: &EtcdServer) -> Etcd {
    Etcd::connect(&toml::from_str(&server.patient()).unwrap()).unwrap()
}

/// Follows events until `good`; what a follower then knows.
async fn follow_until(
    events: &mut mpsc::Receiver<StoreEvent>,
    known: &mut BTreeMap<String, u64>,
    good: impl Fn(&BTreeMap<String, u64>) -> bool,
) {
    let end = Instant::now() + LONG;
    while !good(known) {
        let left = end.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, events.recv()).await.expect("the follower must come to know it").unwrap() {
            StoreEvent::Put(c) => {
                known.insert(c.id.clone(), c.epoch);
            }
            StoreEvent::Spoiled { .. } => {}
            StoreEvent::Delete { id } => {
                known.remove(&id);
            }
            StoreEvent::Synced(all) => *known = all.into_iter().map(|c| (c.id, c.epoch)).collect(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_master_writes_the_others_follow_through_an_outage() {
    let mut server = EtcdServer::start();
    let etcd = client(&server);
    let (master, _own) = Store::start(etcd.clone(), "c", "main", 1000);
    let (backup, mut events) = Store::start(client(&server), "c", "main", 1000);
    for n in 0..300 {
        master.apply(put(&format!("call-{n}"), 1));
    }
    master.flush(LONG).await.unwrap();
    let mut known = BTreeMap::new();
    follow_until(&mut events, &mut known, |k| k.len() == 300).await;
    assert_eq!(etcd.get_prefix(&prefix("c", "main")).await.unwrap().1.len(), 300);

    // Garbage beside the calls is skipped, counted, and left where it is.
    let junk = format!("{}junk", prefix("c", "main"));
    server.must(&["put", &junk, "{not json"]);
    master.apply(gone("call-0"));
    follow_until(&mut events, &mut known, |k| k.len() == 299).await;
    assert_eq!(backup.status().bad_values, 1);
    // The backup may hear of a write before the master hears that it is done.
    master.flush(LONG).await.unwrap();

    server.stop();
    master.apply(put("call-1", 2));
    master.apply(put("call-1", 3));
    master.apply(gone("call-2"));
    let late = master.flush(Duration::from_millis(300)).await.unwrap_err();
    // Three if the first state of call-1 was just being tried when the newer one came.
    assert!(matches!(late, FlushError::Late { pending: 2..=3, .. }), "{late:?}");
    server.restart();
    master.flush(LONG).await.unwrap();
    follow_until(&mut events, &mut known, |k| k.get("call-1") == Some(&3) && !k.contains_key("call-2")).await;
    assert!(etcd.get(&junk).await.unwrap().is_some());
    let status = master.status();
    assert_eq!((status.pending, status.dropped, status.refused, status.last_error), (0, 0, 0, None));
    server.must(&["del", &junk]);
    master.apply(gone("call-3"));
    follow_until(&mut events, &mut known, |k| !k.contains_key("call-3")).await;
    assert_eq!(backup.status().bad_values, 0, "what is no longer there is no longer counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_replaced_writes_nothing() {
    let server = EtcdServer::start();
    let etcd = client(&server);
    let (old, _events) = Store::start(etcd.clone(), "c", "main", 10);
    old.guard(vec![Compare::Missing("/new-master".into())]);
    old.apply(put("a", 1));
    old.flush(LONG).await.unwrap();
    server.must(&["put", "/new-master", "x"]);
    old.apply(put("a", 2));
    old.apply(put("b", 2));
    assert!(matches!(old.flush(LONG).await, Err(FlushError::Refused)));
    let stored = etcd.get_prefix(&prefix("c", "main")).await.unwrap().1;
    assert_eq!(stored.len(), 1);
    assert_eq!(serde_json::from_slice::<Call>(&stored[0].value).unwrap().epoch, 1);
    assert!(old.is_refused() && old.status().refused > 0);
    assert_eq!(old.forget_pending(), 2);
    // With a new right it writes again.
    old.guard(Vec::new());
    assert!(!old.is_refused());
    old.apply(put("b", 3));
    old.flush(LONG).await.unwrap();
    assert_eq!(etcd.get_prefix(&prefix("c", "main")).await.unwrap().1.len(), 2);
}
