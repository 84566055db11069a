use super::*;
use proptest::prelude::*;

fn s(text: &str) -> String {
    text.to_owned()
}

fn channel(told: &mut ServerReports, name: &str) {
    told.handle(&Fact::Channel { channel: s(name), is_sip: true });
    told.handle(&Fact::Dialog { channel: s(name), call_id: name.as_bytes().to_vec() });
}

fn enter(told: &mut ServerReports, bridge: &str, name: &str) -> Vec<Box<[u8]>> {
    told.handle(&Fact::Enter { bridge: s(bridge), channel: s(name) })
}

fn live() -> ServerReports {
    let mut told = ServerReports::default();
    told.handle(&Fact::Begin);
    told.handle(&Fact::Complete);
    told
}

#[test]
fn a_new_picture_replaces_the_old_one_as_a_whole() {
    let mut told = live();
    channel(&mut told, "a");
    channel(&mut told, "b");
    enter(&mut told, "x", "a");
    assert_eq!(enter(&mut told, "x", "b"), [b"a".to_vec().into(), b"b".to_vec().into()]);
    assert_eq!(told.place(b"a"), Place::With(b"b"));
    told.handle(&Fact::Lost);
    assert!(!told.is_live());
    assert_eq!(told.place(b"a"), Place::With(b"b"));
    told.handle(&Fact::Begin);
    channel(&mut told, "c");
    assert_eq!((told.place(b"a"), told.place(b"c")), (Place::With(b"b"), Place::Unknown));
    assert_eq!(told.handle(&Fact::Complete).len(), 3);
    assert_eq!((told.place(b"a"), told.place(b"b")), (Place::Unknown, Place::Unknown));
    assert!(matches!(told.place(b"c"), Place::At(ConnectedTo { kind: ConnectedKind::Nobody, .. })));
}

#[test]
fn late_news_of_a_bridge_that_was_left_changes_nothing() {
    let mut told = live();
    for name in ["a", "b", "c"] {
        channel(&mut told, name);
    }
    enter(&mut told, "x", "a");
    enter(&mut told, "x", "b");
    enter(&mut told, "y", "a");
    enter(&mut told, "y", "c");
    assert_eq!(told.handle(&Fact::Leave { bridge: s("x"), channel: s("a") }), Vec::<Box<[u8]>>::new());
    assert_eq!(told.place(b"a"), Place::With(b"c"));
    told.handle(&Fact::BridgeGone { bridge: s("x") });
    assert_eq!(told.place(b"c"), Place::With(b"a"));
    assert!(matches!(told.place(b"b"), Place::At(ConnectedTo { kind: ConnectedKind::Nobody, .. })));
}

#[test]
fn a_call_id_of_two_channels_names_neither() {
    let mut told = live();
    channel(&mut told, "a");
    channel(&mut told, "b");
    enter(&mut told, "x", "a");
    enter(&mut told, "x", "b");
    told.handle(&Fact::Dialog { channel: s("c"), call_id: b"b".to_vec() });
    assert_eq!((told.place(b"a"), told.place(b"b")), (Place::Unknown, Place::Unknown));
    told.handle(&Fact::Gone { channel: s("c") });
    assert_eq!((told.place(b"a"), told.place(b"b")), (Place::With(b"b"), Place::With(b"a")));
}

#[test]
fn who_is_no_sip_dialog_is_elsewhere_and_who_has_not_named_it_is_unknown() {
    let mut told = live();
    channel(&mut told, "a");
    enter(&mut told, "x", "a");
    told.handle(&Fact::Channel { channel: s("dahdi"), is_sip: false });
    enter(&mut told, "x", "dahdi");
    assert!(matches!(told.place(b"a"), Place::At(ConnectedTo { kind: ConnectedKind::Elsewhere, .. })));
    told.handle(&Fact::Gone { channel: s("dahdi") });
    told.handle(&Fact::Channel { channel: s("p"), is_sip: true });
    enter(&mut told, "x", "p");
    assert_eq!(told.place(b"a"), Place::Unknown);
}

#[test]
fn a_ring_of_links_ends() {
    let mut told = live();
    channel(&mut told, "a");
    for (bridge, here, there) in [("x", "l1", "l2"), ("y", "l3", "l4")] {
        told.handle(&Fact::Linked { one: s(here), other: s(there) });
        enter(&mut told, bridge, here);
    }
    enter(&mut told, "y", "l2");
    enter(&mut told, "x", "l4");
    enter(&mut told, "x", "a");
    assert!(matches!(told.place(b"a"), Place::At(ConnectedTo { kind: ConnectedKind::Conference, .. })));
}

#[test]
fn applications_that_only_join_parties_are_none() {
    for name in ["Dial", "AppDial", "bridge", "", "Answer"] {
        assert_eq!(application(name, "x"), None, "{name}");
    }
    let kind = |name: &str, data: &str| application(name, data).map(|e| (e.kind, e.name)).unwrap();
    assert_eq!(kind("conference", "3000@default+flags{mute}"), (ConnectedKind::Conference, s("3000")));
    assert_eq!(kind("callcenter", "support@default"), (ConnectedKind::Queue, s("support@default")));
    assert_eq!(kind("VoiceMail", "100@default,u"), (ConnectedKind::Voicemail, s("")));
    assert_eq!(kind("Queue", "a\nb"), (ConnectedKind::Queue, s("ab")));
}

proptest! {
    /// For any facts in any order: places are mutual between two dialogs, and every change of a place is reported for
    /// both.
    #[test]
    fn who_is_with_whom_is_mutual_and_every_change_is_told(
        script in proptest::collection::vec((0..8_u8, 0..6_usize, 0..6_usize), 1..200)
    ) {
        let names = ["a", "b", "c", "d", "l1", "l2"];
        let bridges = ["x", "y", "z"];
        let mut told = live();
        let mut places = std::collections::HashMap::new();
        for (what, i, j) in script {
            let (one, other, bridge) = (s(names[i]), s(names[j]), s(bridges[j % 3]));
            let fact = match what {
                0 => Fact::Gone { channel: one },
                1 => Fact::Dialog { channel: s(names[i % 4]), call_id: names[i % 4].as_bytes().to_vec() },
                2 => Fact::Leave { bridge, channel: one },
                3 if i != j => Fact::Linked { one, other },
                4 => Fact::BridgeGone { bridge },
                5 => Fact::Bridge { bridge, kind: if i < 3 { BridgeKind::Talk } else { BridgeKind::Conference(s("k")) } },
                _ => Fact::Enter { bridge, channel: one },
            };
            let changed = told.handle(&fact);
            for name in &names[..4] {
                let id = name.as_bytes();
                let place = format!("{:?}", told.place(id));
                if let Place::With(other) = told.place(id) {
                    prop_assert_ne!(other, id);
                }
                let before = places.insert(*name, place.clone());
                prop_assert!(
                    before.is_none_or(|b| b == place) || changed.iter().any(|c| c.as_ref() == id),
                    "{} became {} by {:?}, and was not told", name, place, fact
                );
            }
        }
    }
}
