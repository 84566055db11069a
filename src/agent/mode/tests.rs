use super::{MAX_VALUE, ModeKeys, Picture, see};
use crate::config::Mode;
use crate::etcd::{KeyValue, WatchEvent};
use tokio::sync::watch;

fn kv(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: value.as_bytes().to_vec(), mod_revision: 1, create_revision: 1, lease: 0 }
}

fn value(mode: &str) -> String {
    format!(r#"{{"schema":1,"mode":"{mode}","by":"a","at_ms":5,"from_the_future":true}}"#)
}

struct Scene {
    tell: watch::Sender<Picture>,
    keys: ModeKeys,
}

impl Scene {
    fn new(configured: Mode) -> Self {
        Self { tell: watch::channel(Picture::new(configured)).0, keys: ModeKeys::new("c", "sip") }
    }

    fn see(&self, event: WatchEvent) -> Option<Mode> {
        see(&self.tell, &self.keys, "sip", event);
        self.tell.borrow().mode()
    }

    fn snapshot(&self, entries: Vec<KeyValue>) -> Option<Mode> {
        self.see(WatchEvent::Snapshot { revision: 1, change: 0, entries })
    }
}

const SET: &str = "/keepcall/c/instances/sip/mode";

#[test]
fn what_is_set_goes_before_the_configuration_until_it_is_deleted() {
    let scene = Scene::new(Mode::Full);
    assert_eq!(scene.tell.borrow().mode(), None, "the operator may have said observe");
    assert_eq!(scene.snapshot(Vec::new()), Some(Mode::Full));
    assert_eq!(scene.see(WatchEvent::Put(kv(SET, &value("observe")))), Some(Mode::Observe));
    assert_eq!(scene.snapshot(vec![kv(SET, &value("audio"))]), Some(Mode::Audio));
    let status = scene.tell.borrow().status(&[]);
    assert_eq!((status.source.as_str(), status.set_by.as_deref(), status.set_ms), ("etcd", Some("a"), Some(5)));
    assert_eq!(scene.see(WatchEvent::Delete { key: SET.to_owned(), revision: 9 }), Some(Mode::Full));
    // A reconnected watch shows the deletion only by the missing key.
    scene.snapshot(vec![kv(SET, &value("audio"))]);
    assert_eq!(scene.snapshot(Vec::new()), Some(Mode::Full));
}

#[test]
fn what_cannot_be_read_changes_nothing_and_is_told() {
    let long = format!("{}{}", value("full"), " ".repeat(MAX_VALUE));
    let bad = [
        "nonsense",
        "{}",
        r#"{"schema":1,"mode":"everything","by":"a","at_ms":5}"#,
        r#"{"schema":2,"mode":"full","by":"a","at_ms":5}"#,
        r#"{"schema":1,"mode":"full","by":"","at_ms":5}"#,
        r#"{"schema":1,"mode":"full","by":"a","at_ms":-1}"#,
        &long,
    ];
    for bad in bad {
        let scene = Scene::new(Mode::Audio);
        assert_eq!(scene.snapshot(vec![kv(SET, bad)]), Some(Mode::Audio), "{bad:.40}");
        assert!(scene.tell.borrow().status(&[]).problem.is_some());
        scene.see(WatchEvent::Put(kv(SET, &value("observe"))));
        assert!(scene.tell.borrow().status(&[]).problem.is_none());
        assert_eq!(scene.see(WatchEvent::Put(kv(SET, bad))), Some(Mode::Observe), "{bad:.40}");
        assert_eq!(scene.snapshot(vec![kv(SET, bad)]), Some(Mode::Observe), "{bad:.40}");
    }
}

#[test]
fn nodes_that_obey_another_mode_or_tell_of_none_are_told_of() {
    let scene = Scene::new(Mode::Full);
    let node = |name: &str, mode: &str| kv(&format!("/keepcall/c/instances/sip/modes/{name}"), &value(mode));
    scene.snapshot(vec![node("a", "full"), node("b", "observe"), kv("/keepcall/c/instances/sip/modes/d", "nonsense")]);
    let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let status = scene.tell.borrow().status(&names(&["a", "b", "c", "d"]));
    let told: Vec<_> = status.nodes.iter().map(|n| (n.node.as_str(), n.mode)).collect();
    assert_eq!(told, [("a", Some(Mode::Full)), ("b", Some(Mode::Observe)), ("c", None), ("d", None)]);
    assert!(status.mixed().unwrap().contains("b uses observe"), "{:?}", status.mixed());
    assert!(!status.mixed().unwrap().contains('c'), "an older release does what full does: {:?}", status.mixed());
    assert_eq!(scene.tell.borrow().status(&names(&["a", "c"])).mixed(), None);
    scene.see(WatchEvent::Put(kv(SET, &value("observe"))));
    let mixed = scene.tell.borrow().status(&names(&["a", "b", "c", "d"])).mixed().unwrap();
    assert!(mixed.contains("a uses full") && mixed.contains("no mode reported by c and d"), "{mixed}");
}
