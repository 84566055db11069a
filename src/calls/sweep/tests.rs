use super::*;
use crate::calls::model::Call;
use crate::calls::table::script::{A, B, Dialog, Lab};
use std::collections::BTreeSet;

fn stored(ids: &[String]) -> Stored {
    let mut lab = Lab::new();
    lab.b2bua(&Dialog::new("in", A, false, "1", "2"), &Dialog::new("out", B, true, "1", "2"));
    let call = lab.calls().remove(0);
    let mut stored = Stored::new(100_000);
    ids.iter().for_each(|id| {
        stored.put(Box::new(Call { id: id.clone(), ..call.clone() }));
    });
    stored
}

/// The verdicts on each call over `hours`, with a look every minute.
fn over(
    sweep: &mut Sweep,
    stored: &Stored,
    carried: &BTreeSet<&str>,
    from: Time,
    hours: u64,
) -> BTreeSet<(u64, Verdict)> {
    (0..hours * 60)
        .flat_map(|m| {
            let found = sweep.look(stored, |id| carried.contains(id), from + Duration::from_secs(60 * m));
            found.into_iter().map(move |v| (m, v))
        })
        .collect()
}

#[test]
fn a_call_without_a_carrier_is_adopted_and_removed_only_after_more_than_a_day() {
    let ids = ["carried".to_owned(), "orphan".to_owned()];
    let (stored, carried, start) = (stored(&ids), BTreeSet::from(["carried"]), Time::from_millis(5));
    let mut sweep = Sweep::default();
    let all = over(&mut sweep, &stored, &carried, start, 30);
    assert!(all.iter().all(|(_, v)| matches!(v, Verdict::Adopt(id) | Verdict::Remove(id) if id == "orphan")));
    let first = |want: fn(&Verdict) -> bool| all.iter().find(|(_, v)| want(v)).map(|(m, _)| *m);
    assert_eq!(first(|v| matches!(v, Verdict::Adopt(_))), Some(2));
    assert_eq!(first(|v| matches!(v, Verdict::Remove(_))), Some(25 * 60));
}

#[test]
fn a_carrier_in_between_begins_the_wait_anew() {
    let (stored, none, start) = (stored(&["x".to_owned()]), BTreeSet::new(), Time::from_millis(5));
    let hour = |h: u64| start + Duration::from_secs(3600 * h);
    let mut sweep = Sweep::default();
    assert!(!over(&mut sweep, &stored, &none, start, 24).iter().any(|(_, v)| matches!(v, Verdict::Remove(_))));
    assert!(sweep.look(&stored, |_| true, hour(24)).is_empty());
    assert!(!over(&mut sweep, &stored, &none, hour(24), 24).iter().any(|(_, v)| matches!(v, Verdict::Remove(_))));
    // The sweep forgets a call that is no longer stored.
    sweep.look(&super::Stored::new(1), |_| false, hour(48));
    assert!(sweep.orphans.is_empty());
}

#[test]
fn one_look_is_bounded_and_all_get_their_turn() {
    let ids: Vec<String> = (0..3 * PER_LOOK + 5).map(|n| format!("c{n:06}")).collect();
    let stored = stored(&ids);
    let mut sweep = Sweep::default();
    let mut adopted = BTreeSet::new();
    for minute in 0..400 {
        let found = sweep.look(&stored, |id| adopted.contains(id), Time::from_millis(60_000 * minute));
        assert!(found.len() <= ADOPTIONS);
        for v in found {
            let Verdict::Adopt(id) = v else { panic!("{v:?}") };
            adopted.insert(id);
        }
    }
    assert_eq!(adopted.len(), ids.len());
}
