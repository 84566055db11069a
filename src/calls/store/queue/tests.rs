use super::super::tests::a_call;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn put(id: &str, epoch: u64) -> CallEvent {
    CallEvent::Put(Box::new(Call { id: id.into(), epoch, ..a_call() }))
}

fn gone(id: &str) -> CallEvent {
    CallEvent::Delete { id: id.into(), reason: "BYE" }
}

fn all(q: &mut Queue) -> Vec<InFlight> {
    q.take(usize::MAX, |_| true)
}

fn ids(batch: &[InFlight]) -> Vec<String> {
    batch.iter().map(|t| if t.change == Change::Delete { format!("-{}", t.id) } else { t.id.clone() }).collect()
}

#[test]
fn the_newest_state_of_each_call_wins() {
    let mut q = Queue::new(10);
    for e in [put("a", 1), put("b", 1), put("a", 2), gone("b"), put("c", 1)] {
        assert!(q.push(e));
    }
    let batch = all(&mut q);
    assert_eq!(ids(&batch), ["a", "-b", "c"], "before etcd was read, b may be there");
    assert!(matches!(&batch[0].change, Change::Put(c) if c.epoch == 2));
    assert_eq!(q.len(), 3, "in flight counts as not written");
    // Call c ended while the batch was in flight. A failed batch must not bring it back.
    q.push(gone("c"));
    q.ended(batch, End::Doubt);
    let batch = all(&mut q);
    assert_eq!(ids(&batch), ["a", "-b", "-c"]);
    q.ended(batch, End::Written);
    assert_eq!(q.len(), 0);
}

#[test]
fn what_never_left_goes_without_a_trace() {
    let mut q = Queue::new(10);
    q.seen_all(["old"].into_iter(), true);
    for e in [put("a", 1), gone("a"), put("old", 2), gone("old"), put("b", 1)] {
        q.push(e);
    }
    assert_eq!(q.len(), 2);
    let batch = all(&mut q);
    assert_eq!(ids(&batch), ["-old", "b"]);
    // Certainly not sent: the delete removes b as well. In doubt it would not.
    q.push(gone("b"));
    q.ended(batch, End::Nothing);
    assert_eq!(ids(&all(&mut q)), ["-old"]);
    q.ended(Vec::new(), End::Written);
    // Short calls during an etcd outage do not add up.
    for n in 0..100_000 {
        q.push(put(&n.to_string(), 1));
        q.push(gone(&n.to_string()));
    }
    assert!(q.len() == 0 && q.order.len() < 1000, "{} places", q.order.len());
}

#[test]
fn what_was_forgotten_in_flight_does_not_come_back() {
    let mut q = Queue::new(10);
    q.push(put("a", 1));
    let batch = all(&mut q);
    q.push(put("b", 1));
    assert_eq!(q.clear(), 2);
    // Learnt in the next mastership, while the old write is still in flight.
    q.push(put("c", 2));
    q.ended(batch, End::Doubt);
    assert_eq!(ids(&all(&mut q)), ["c"]);
}

#[test]
fn batches_and_the_queue_are_bounded_and_emergency_calls_come_in_all_the_same() {
    let mut q = Queue::new(100);
    for n in 0..200 {
        assert!(q.push(put(&format!("p{n}"), 1)));
    }
    assert!(!q.push(put("more", 1)));
    assert!(q.push(put("p7", 2)), "a known call always has room");
    assert!(q.push(gone("old")), "an end has room when puts have not");
    let help = Call { id: "help".into(), emergency: true, ..a_call() };
    assert!(q.push(CallEvent::Put(Box::new(help))));
    assert_eq!((q.dropped, q.puts), (2, 200));
    let mut seen = Vec::new();
    let mut sizes = Vec::new();
    for most in [usize::MAX, 5] {
        let batch = q.take(most, |_| true);
        sizes.push(batch.len());
        seen.extend(ids(&batch));
        q.ended(batch, End::Written);
    }
    let mut room = 2;
    let batch = q.take(usize::MAX, |_| {
        room -= 1;
        room >= 0
    });
    sizes.push(batch.len());
    seen.extend(ids(&batch));
    q.shorten(batch, 0);
    assert_eq!(ids(&q.take(usize::MAX, |_| false)), ["p133"], "one is always taken");
    seen.extend(ids(&all(&mut q)));
    assert_eq!(sizes, [MAX_OPS, 5, 2]);
    assert!(seen.contains(&"help".to_owned()) && !seen.contains(&"p199".to_owned()), "the newest other one made room");
}

/// An event between two batches, or during one.
#[derive(Clone, Debug)]
enum Happening {
    Put(u8),
    Delete(u8),
    /// A batch of at most this many changes, the events meanwhile, and its end: written, not, in doubt and done, in
    /// doubt and not.
    Batch(u8, Vec<Self>, u8),
    /// The watch reports the content of etcd.
    Heard,
    /// A full read from some time ago arrives now.
    Snapshot,
}

fn happening() -> impl Strategy<Value = Happening> {
    let change = prop_oneof![
        (0..6u8).prop_map(Happening::Put),
        (0..6u8).prop_map(Happening::Delete),
        Just(Happening::Heard),
        Just(Happening::Snapshot)
    ];
    let batch = (1..4u8, prop::collection::vec(change.clone(), 0..4), 0..4u8)
        .prop_map(|(n, meanwhile, end)| Happening::Batch(n, meanwhile, end));
    prop_oneof![4 => change, 2 => batch]
}

struct World {
    q: Queue,
    etcd: BTreeMap<String, u64>,
    /// Result of a read that has not arrived yet.
    read: Vec<String>,
    truth: BTreeMap<String, u64>,
    version: u64,
}

impl World {
    fn happen(&mut self, h: &Happening) {
        match h {
            Happening::Put(n) => {
                self.version += 1;
                self.truth.insert(n.to_string(), self.version);
                self.q.push(put(&n.to_string(), self.version));
            }
            Happening::Delete(n) => {
                // A table reports the end only of what it has reported before.
                if self.truth.remove(&n.to_string()).is_some() {
                    self.q.push(gone(&n.to_string()));
                }
            }
            Happening::Heard => {
                let now: Vec<String> = self.etcd.keys().cloned().collect();
                now.iter().for_each(|id| self.q.seen(id));
            }
            Happening::Snapshot => {
                let before = std::mem::replace(&mut self.read, self.etcd.keys().cloned().collect());
                self.q.seen_all(before.iter().map(String::as_str), false);
            }
            Happening::Batch(most, meanwhile, end) => {
                let batch = self.q.take(usize::from(*most), |_| true);
                meanwhile.iter().for_each(|h| self.happen(h));
                if *end % 2 == 0 {
                    for taken in &batch {
                        match &taken.change {
                            Change::Put(call) => self.etcd.insert(taken.id.clone(), call.epoch),
                            Change::Delete => self.etcd.remove(&taken.id),
                        };
                    }
                }
                self.q.ended(batch, [End::Written, End::Nothing, End::Doubt, End::Doubt][usize::from(*end)]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_in_the_end_etcd_has_the_newest_state(before in prop::collection::btree_set(0..6u8, 0..4), story in prop::collection::vec(happening(), 0..40)) {
        let etcd: BTreeMap<String, u64> = before.iter().map(|n| (n.to_string(), 0)).collect();
        let mut w = World { q: Queue::new(10), truth: etcd.clone(), read: etcd.keys().cloned().collect(), etcd, version: 0 };
        story.iter().for_each(|h| w.happen(h));
        for _ in 0..10 {
            w.happen(&Happening::Batch(3, Vec::new(), 0));
        }
        prop_assert_eq!(w.q.len(), 0);
        prop_assert_eq!(w.q.puts, 0);
        prop_assert_eq!(&w.etcd, &w.truth);
    }
}
