use super::*;
use proptest::prelude::*;

const OURS: [(&[u8], &[u8]); 3] = [(b"one", b"t1"), (b"two", b"t2"), (b"shared", b"t3")];

fn at(ms: u64) -> Time {
    Time::from_millis(1_000_000 + ms)
}

fn dialog(channel: &str, call_id: &str) -> Fact {
    Fact::Dialog { channel: channel.into(), call_id: call_id.into() }
}

fn tag(channel: &str, tag: Option<&str>) -> Fact {
    let name = format!("PJSIP/{channel}");
    Fact::Answer(Answer::Tag { channel: channel.into(), name, tag: tag.map(|t| t.into()) })
}

fn gone(channel: &str) -> Fact {
    Fact::Gone { channel: channel.into() }
}

fn asks(channel: &str) -> Action {
    Action::Ask(Request::Tag { channel: channel.into() })
}

fn hangs(channel: &str) -> Action {
    Action::Ask(Request::HangUp { channel: channel.into(), name: format!("PJSIP/{channel}") })
}

fn all(former: &mut FormerCalls) -> Vec<Action> {
    std::iter::from_fn(|| former.poll_action()).collect()
}

fn tell(former: &mut FormerCalls, ms: u64, facts: &[Fact]) -> Vec<Action> {
    facts.iter().for_each(|fact| former.handle_fact(fact, at(ms)));
    all(former)
}

fn started() -> FormerCalls {
    let mut former = FormerCalls::default();
    former.handle_dropped(OURS, at(0));
    former.handle_timeout(at(0));
    assert_eq!(all(&mut former), [Action::Confirm]);
    former.handle_confirmed(true, at(0));
    assert_eq!(all(&mut former), [Action::Connect]);
    former
}

#[test]
fn nothing_happens_before_it_is_confirmed() {
    let mut former = FormerCalls::default();
    former.handle_dropped(OURS, at(0));
    for s in 0..5 {
        former.handle_timeout(at(s * 1000));
        assert_eq!(all(&mut former), [Action::Confirm]);
        former.handle_confirmed(false, at(s * 1000));
        assert_eq!(tell(&mut former, s * 1000, &[Fact::Begin, dialog("a", "one"), Fact::Complete]), []);
    }
    assert_eq!(former.status(), None);
    let mut without = FormerCalls::default();
    without.handle_dropped([], at(0));
    assert_eq!(without.next_deadline(), None);
}

#[test]
fn own_channels_are_hung_up_one_by_one_until_a_new_list_has_none() {
    let mut former = started();
    let list = [Fact::Begin, dialog("a", "one"), dialog("b", "two"), dialog("x", "foreign"), Fact::Complete];
    assert_eq!(tell(&mut former, 0, &list), [asks("a")]);
    assert_eq!(tell(&mut former, 1, &[tag("a", Some("t1"))]), [asks("b")]);
    assert_eq!(tell(&mut former, 2, &[tag("b", Some("t2"))]), [Action::Tell(News::Begun), hangs("a")]);
    assert_eq!(former.status().unwrap().left, 2);
    assert_eq!(tell(&mut former, 3, &[Fact::Answer(Answer::Ending { channel: "a".into() })]), []);
    assert_eq!(tell(&mut former, 4, &[gone("a")]), [], "the pace holds");
    assert_eq!(former.next_deadline(), Some(at(52)));
    former.handle_timeout(at(52));
    assert_eq!(all(&mut former), [hangs("b")]);
    assert_eq!(tell(&mut former, 60, &[gone("b")]), []);
    assert_eq!(former.status().unwrap().left, 0);
    former.handle_timeout(at(1060));
    assert_eq!(all(&mut former), [Action::Confirm, Action::Connect]);
    let end = tell(&mut former, 1070, &[Fact::Begin, dialog("x", "foreign"), Fact::Complete]);
    assert_eq!(end, [Action::Disconnect, Action::Tell(News::Done)]);
    assert_eq!((former.next_deadline(), former.status()), (None, Some(Former::default())));
}

#[test]
fn the_other_instances_end_of_a_shared_call_lives_and_an_unknown_tag_is_left_alone() {
    let mut former = started();
    let list = [Fact::Begin, dialog("a", "shared"), dialog("b", "shared"), dialog("c", "one"), Fact::Complete];
    assert_eq!(tell(&mut former, 0, &list), [asks("a")]);
    assert_eq!(tell(&mut former, 0, &[tag("a", Some("theirs"))]), [asks("b")]);
    assert_eq!(tell(&mut former, 0, &[tag("b", Some("t3"))]), [asks("c")]);
    assert_eq!(tell(&mut former, 0, &[tag("c", None)]), [Action::Tell(News::Begun), hangs("b")]);
    assert_eq!(tell(&mut former, 9, &[gone("b")]), []);
    assert_eq!(former.status(), Some(Former { left: 0, unknown: 1, error: None }));
}

#[test]
fn a_stop_is_immediate() {
    let mut former = started();
    former.handle_fact(&Fact::Begin, at(0));
    former.handle_fact(&dialog("a", "one"), at(0));
    former.handle_fact(&Fact::Complete, at(0));
    former.handle_fact(&tag("a", Some("t1")), at(0));
    former.handle_taken();
    assert_eq!(all(&mut former), [Action::Disconnect], "what was decided before is not done");
    assert_eq!(tell(&mut former, 1, &[Fact::Complete, tag("a", Some("t1"))]), []);
    former.handle_confirmed(true, at(2));
    former.handle_timeout(at(5000));
    assert_eq!((all(&mut former), former.next_deadline(), former.status()), (vec![], None, None));
}

#[test]
fn a_denied_hang_up_is_told_and_not_repeated() {
    let mut former = started();
    tell(&mut former, 0, &[Fact::Begin, dialog("a", "one"), Fact::Complete]);
    tell(&mut former, 0, &[tag("a", Some("t1"))]);
    tell(&mut former, 1, &[Fact::Answer(Answer::Denied { error: "write = call".into() })]);
    former.handle_timeout(at(900));
    assert_eq!(all(&mut former), []);
    assert_eq!(former.status(), Some(Former { left: 1, unknown: 0, error: Some("write = call".into()) }));
}

#[test]
fn a_channel_that_stays_is_tried_three_times_and_then_only_counted() {
    let mut former = started();
    let (mut now, mut hung, mut looks, mut left) = (0, 0, 0, 0);
    let mut todo = VecDeque::from([Action::Connect]);
    while now < 3_600_000 {
        while let Some(action) = todo.pop_front() {
            let facts = match action {
                Action::Confirm => {
                    former.handle_confirmed(true, at(now));
                    vec![]
                }
                Action::Connect => {
                    looks += 1;
                    vec![Fact::Begin, dialog("a", "one"), Fact::Complete]
                }
                Action::Ask(Request::Tag { .. }) => vec![tag("a", Some("t1"))],
                Action::Ask(Request::HangUp { .. }) => {
                    hung += 1;
                    vec![Fact::Answer(Answer::Ending { channel: "a".into() })]
                }
                Action::Tell(News::Left(_)) => {
                    left += 1;
                    vec![]
                }
                Action::Tell(_) | Action::Disconnect => vec![],
            };
            todo.extend(tell(&mut former, now, &facts));
        }
        now += 100;
        former.handle_timeout(at(now));
        todo.extend(all(&mut former));
    }
    assert_eq!((hung, left, former.status().unwrap().left), (3, 1, 1));
    assert!((10..60).contains(&looks), "{looks}");
}

#[test]
fn names_that_could_be_more_than_a_name_are_not_sent() {
    for bad in ["", "/PJSIP/", "PJSIP/a\r\nAction: x", "PJSIP/\u{7}", "PJSIP/\u{fffd}", &"x".repeat(300)] {
        assert!(!is_safe(bad), "{bad:?}");
    }
    assert!(is_safe("PJSIP/p1-0000000a"));
}

fn any_fact() -> impl Strategy<Value = Fact> {
    let (channel, id) = (prop::sample::select(vec!["a", "b", "c"]), prop::sample::select(vec!["one", "shared", "no"]));
    let value = prop::sample::select(vec![None, Some("t1"), Some("t3"), Some("theirs")]);
    prop_oneof![
        1 => Just(Fact::Begin),
        3 => Just(Fact::Complete),
        1 => Just(Fact::Lost),
        4 => (channel.clone(), id).prop_map(|(c, i)| dialog(c, i)),
        6 => (channel.clone(), value).prop_map(|(c, t)| tag(c, t)),
        1 => channel.clone().prop_map(gone),
        1 => channel.clone().prop_map(|c| Fact::Answer(Answer::Ending { channel: c.into() })),
        1 => channel.prop_map(|c| Fact::Answer(Answer::Missing { channel: c.into() })),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Fact(Fact),
    Wait(u64),
    Confirmed(bool),
    Taken,
    Dropped,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => any_fact().prop_map(Step::Fact),
        3 => (1_u64..3000).prop_map(Step::Wait),
        2 => prop::bool::weighted(0.8).prop_map(Step::Confirmed),
        1 => Just(Step::Taken),
        1 => Just(Step::Dropped),
    ]
}

proptest! {
    /// Whatever comes: only channels whose present dialog is a leg are hung up, one at a time, and nothing after a stop.
    #[test]
    fn no_other_channel_is_ever_hung_up(steps in prop::collection::vec(any_step(), 1..200)) {
        let (mut former, mut now, mut may, mut last) = (FormerCalls::default(), 0, false, None);
        let mut dialogs = BTreeMap::<String, (Vec<u8>, Option<Vec<u8>>)>::new();
        for step in steps {
            match &step {
                Step::Fact(fact) => {
                    match fact {
                        Fact::Begin => dialogs.clear(),
                        Fact::Dialog { channel, call_id } => {
                            dialogs.insert(channel.clone(), (call_id.clone(), None));
                        }
                        Fact::Answer(Answer::Tag { channel, tag: Some(tag), .. }) => {
                            if let Some(d) = dialogs.get_mut(channel) {
                                d.1.get_or_insert(tag.clone());
                            }
                        }
                        Fact::Gone { channel } => {
                            dialogs.remove(channel);
                        }
                        _ => {}
                    }
                    former.handle_fact(fact, at(now));
                }
                Step::Wait(ms) => {
                    now += ms;
                    former.handle_timeout(at(now));
                }
                Step::Confirmed(yes) => {
                    may = *yes;
                    former.handle_confirmed(*yes, at(now));
                }
                Step::Taken => {
                    may = false;
                    former.handle_taken();
                }
                Step::Dropped => former.handle_dropped(OURS, at(now)),
            }
            let mut hung = 0;
            for action in all(&mut former) {
                if let Action::Ask(Request::HangUp { channel, name }) = action {
                    hung += 1;
                    prop_assert!(may, "hung up without leave");
                    let (call_id, Some(tag)) = &dialogs[&channel] else { panic!("no tag") };
                    prop_assert!(OURS.contains(&(call_id.as_slice(), tag.as_slice())));
                    prop_assert_eq!(name, format!("PJSIP/{channel}"));
                    prop_assert!(last.is_none_or(|last| now >= last + 50));
                    last = Some(now);
                }
            }
            prop_assert!(hung <= 1);
        }
    }
}
