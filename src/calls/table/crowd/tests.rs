use crate::calls::model::{Call, Gap};
use crate::calls::table::Table;
use crate::calls::table::script::{B, Dialog, Lab, Phone, Server, settings};

fn flood(lab: &mut Lab, count: std::ops::Range<usize>, callee: &str) {
    for n in count {
        let phone = format!("198.51.{}.{}:5060", n / 250 % 250, n % 250 + 1);
        lab.invited(&Dialog::new(&format!("flood-{n}"), &phone, false, "1000", callee));
    }
}

fn partnerless(calls: &[Call]) -> Vec<bool> {
    calls
        .iter()
        .filter(|c| c.legs.len() == 1)
        .map(|c| c.legs[0].gaps.contains(Gap::Partner) && c.legs[0].partial)
        .collect()
}

const WAITING: usize = 500;

#[test]
fn half_a_call_whose_other_half_gave_way_is_marked_and_keeps_no_mark_once_it_is_whole() {
    let mut lab = Lab::new();
    let (i, o) =
        (Dialog::new("in", "203.0.113.1:5060", false, "1000", "2000"), Dialog::new("out", B, true, "1000", "2000"));
    lab.invited(&i);
    flood(&mut lab, 0..WAITING + 10, "9");
    lab.invited(&o).picked_up(&o).wait_ms(2000);
    let calls = lab.calls();
    assert_eq!(partnerless(&calls), [true], "{calls:?}");
    // The other half is answered. It is known only in part, which is recorded, and the two pair by their media.
    lab.picked_up(&i).wait_ms(2000);
    let calls = lab.calls();
    assert!(calls.len() == 1 && calls[0].legs.len() == 2, "{calls:?}");
    let gaps = |n: usize| calls[0].legs[n].gaps;
    assert!(gaps(0).contains(Gap::Description) && !gaps(0).contains(Gap::Partner) && gaps(1).is_empty());
    // A call that is learnt completely meanwhile pairs like any other.
    let mut other = Lab::new();
    flood(&mut other, 0..WAITING + 10, "9");
    let (i, o) =
        (Dialog::new("in2", "203.0.113.1:5060", false, "1001", "2001"), Dialog::new("out2", B, true, "1001", "2001"));
    other.b2bua(&i, &o).wait_ms(2000);
    let calls = other.calls();
    assert!(calls.len() == 1 && calls[0].legs.iter().all(|l| l.gaps.is_empty()), "{calls:?}");
}

#[test]
fn who_was_single_before_the_crowd_is_marked_and_who_comes_after_it_is_not() {
    let mut lab = Lab::new();
    lab.answered(&Dialog::new("ivr", "203.0.113.1:5060", false, "1", "100")).wait_ms(2000);
    assert_eq!(partnerless(&lab.calls()), [false]);
    lab.events();
    flood(&mut lab, 0..WAITING + 1, "9");
    assert_eq!(partnerless(&lab.calls()), [true], "its next leg may have been one of those that were not learnt");
    assert_eq!(lab.events().len(), 1, "it is stored once, however many there are");
    flood(&mut lab, 1000..2000, "9");
    assert_eq!(lab.events().len(), 0);
    lab.wait_ms(301_000).wait_ms(1);
    lab.answered(&Dialog::new("later", "203.0.113.1:5060", false, "1", "100")).wait_ms(2000);
    let mut marks = partnerless(&lab.calls());
    marks.sort_unstable();
    assert_eq!(marks, [false, true]);
}

#[test]
fn invites_that_look_like_the_call_do_not_part_it() {
    let mut lab = Lab::new();
    let (i, o) =
        (Dialog::new("in", "203.0.113.1:5060", false, "1000", "2000"), Dialog::new("out", B, true, "1000", "2000"));
    flood(&mut lab, 0..200, "2000");
    lab.b2bua(&i, &o).wait_ms(2000);
    let calls = lab.calls();
    assert!(calls.len() == 1 && calls[0].legs.len() == 2, "{calls:?}");
    // If unanswered calls leave the partner open, the leg is marked as missing its partner.
    let mut lab = Lab::new();
    lab.invited(&i).picked_up(&i).wait_ms(500);
    flood(&mut lab, 0..200, "2000");
    lab.invited(&o).picked_up(&o).wait_ms(2000);
    let calls = lab.calls();
    assert!(calls.iter().any(|c| c.legs.len() == 2) || partnerless(&calls).contains(&true), "{calls:?}");
}

#[test]
fn no_half_of_a_stored_call_is_taken_up() {
    let mut lab = Lab::new();
    let (i, o) =
        (Dialog::new("in", "203.0.113.1:5060", false, "1000", "2000"), Dialog::new("out", B, true, "1000", "2000"));
    lab.b2bua(&i, &o);
    let call = lab.calls().remove(0);
    let mut next = Lab::new();
    next.table = Table::new(crate::calls::table::TableSettings { max_calls: 1, ..settings() });
    next.answered(&Dialog::new("one", "203.0.113.2:5060", false, "1", "2")).wait_ms(2000);
    next.table.adopt(&call, next.now);
    assert_eq!(next.calls().len(), 1);
    next.see(Dialog::new("one", "203.0.113.2:5060", false, "1", "2").request(Server, "BYE", 9, "", ""));
    next.see(Dialog::new("one", "203.0.113.2:5060", false, "1", "2").response(Phone, 200, "BYE", 9, "", ""));
    next.table.adopt(&call, next.now);
    assert_eq!(next.calls().len(), 1);
    assert_eq!(next.calls()[0].legs.len(), 2);
}
