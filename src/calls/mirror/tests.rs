use super::*;
use crate::calls::table::script::{A, B, Dialog, Lab};

fn call(id: &str, ms: u64, emergency: bool) -> Call {
    let mut lab = Lab::new();
    lab.b2bua(&Dialog::new("in", A, false, "1", "2"), &Dialog::new("out", B, true, "1", "2"));
    Call { id: id.into(), confirmed_ms: ms, emergency, ..lab.calls().remove(0) }
}

#[test]
fn what_has_no_room_is_left_out_and_read_again_when_there_is_some() {
    let mut s = Stored::new(16);
    for n in 0..16 {
        assert!(s.put(Box::new(call(&format!("c{n:02}"), n, false))));
    }
    assert!(!s.put(Box::new(call("late", 99, false))));
    assert!(s.put(Box::new(call("c07", 99, false))), "a known call always has room");
    for n in 0..3 {
        assert_eq!(s.put(Box::new(call(&format!("sos{n}"), 0, true))), n < 2, "an eighth more for emergency calls");
    }
    assert_eq!((s.len(), s.left_out()), (18, 2));
    for n in 0..3 {
        assert!(!s.wants_reading());
        s.remove(&format!("c{n:02}"));
    }
    assert!(!s.wants_reading());
    s.remove("c03");
    assert!(s.wants_reading());
    s.remove("late");
    s.remove("sos2");
    assert!(!s.wants_reading(), "they are gone");
}

#[test]
fn of_too_many_at_once_emergency_calls_and_the_oldest_are_kept() {
    let mut s = Stored::new(2);
    s.put(Box::new(call("gone", 0, false)));
    let gone = s.replace(
        vec![call("new", 9, false), call("old", 1, false), call("sos", 10, true), call("older", 0, false)],
        |_| false,
    );
    assert_eq!(gone.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["gone"]);
    assert_eq!(s.ids().collect::<Vec<_>>(), ["older", "sos"]);
    assert_eq!(s.left_out(), 2);
}

#[test]
fn a_full_read_keeps_the_memory_of_what_did_not_change() {
    let mut s = Stored::new(4);
    let (same, changed) = (call("same", 1, false), call("changed", 1, false));
    s.put(Box::new(same.clone()));
    s.put(Box::new(changed.clone()));
    let read = |c: &Call| serde_json::from_slice::<Call>(&serde_json::to_vec(c).unwrap()).unwrap();
    s.replace(vec![read(&same), Call { epoch: 9, ..read(&changed) }], |_| false);
    assert!(s.get("same").unwrap().legs[0].is_same(&same.legs[0]));
    assert!(s.get("changed").unwrap().epoch == 9 && !s.get("changed").unwrap().legs[0].is_same(&changed.legs[0]));
}

#[test]
fn what_is_to_be_kept_stays_though_a_read_does_not_tell_it() {
    let mut s = Stored::new(10);
    for id in ["a", "b", "c"] {
        s.put(Box::new(call(id, 1, false)));
    }
    let gone = s.replace(vec![call("d", 1, false)], |id| id == "b");
    let gone: Vec<&str> = gone.iter().map(|c| c.id.as_str()).collect();
    assert_eq!((gone, s.ids().collect::<Vec<_>>()), (vec!["a", "c"], vec!["b", "d"]));
}

#[test]
fn what_an_etcd_of_former_times_holds_changes_nothing_that_is_known() {
    let known = || {
        let mut s = Stored::new(10);
        s.put(Box::new(call("lost", 1, false)));
        s.put(Box::new(call("older", 7, false)));
        s.put(Box::new(call("same", 1, false)));
        s
    };
    let told = || vec![call("older", 3, false), call("same", 1, false), call("ended", 1, false)];
    for add in [false, true] {
        let mut s = known();
        let (missing, unknown) = s.compare(told(), add);
        assert_eq!((missing, unknown), (vec!["lost".to_owned(), "older".to_owned()], vec!["ended".to_owned()]));
        assert_eq!(
            (s.get("older").map(|c| c.confirmed_ms), s.contains("ended"), s.contains("lost")),
            (Some(7), add, true)
        );
    }
}
