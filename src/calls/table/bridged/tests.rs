use super::super::script::{A, B, Dialog, Lab, Phone, Server};
use crate::calls::model::{Call, CallEvent, Pairing};
use crate::pbx::ConnectedKind;
use crate::pbx::bridges::{BridgeKind, Fact, application};

fn inbound(n: u32) -> Dialog {
    Dialog::new(&format!("in{n}"), A, false, "1", "2")
}

fn outbound(n: u32) -> Dialog {
    Dialog::new(&format!("out{n}"), B, true, "1", "2")
}

fn pairs(calls: &[Call]) -> Vec<String> {
    let mut all: Vec<_> =
        calls.iter().map(|c| c.legs.iter().map(|l| l.call_id.lossy()).collect::<Vec<_>>().join("+")).collect();
    all.sort();
    all
}

impl Lab {
    fn told(&mut self, facts: impl IntoIterator<Item = Fact>) -> &mut Self {
        for fact in facts {
            self.table.handle_fact(&fact, self.now);
        }
        self
    }

    fn connected(&mut self) -> &mut Self {
        self.told([Fact::Begin, Fact::Complete])
    }

    /// A channel for each of these Call-IDs, with the same name.
    fn channels(&mut self, call_ids: &[&str]) -> &mut Self {
        self.told(call_ids.iter().flat_map(|c| {
            [
                Fact::Channel { channel: (*c).into(), is_sip: true },
                Fact::Dialog { channel: (*c).into(), call_id: c.as_bytes().to_vec() },
            ]
        }))
    }

    fn enter(&mut self, bridge: &str, channels: &[&str]) -> &mut Self {
        self.told(channels.iter().map(|c| Fact::Enter { bridge: bridge.into(), channel: (*c).into() }))
    }

    fn leave(&mut self, bridge: &str, channels: &[&str]) -> &mut Self {
        self.told(channels.iter().map(|c| Fact::Leave { bridge: bridge.into(), channel: (*c).into() }))
    }

    fn is(&self, expected: &[&str]) {
        assert_eq!(pairs(&self.calls()), expected);
    }

    fn only_put(&mut self) -> Call {
        match self.events().as_slice() {
            [CallEvent::Put(call)] => Call::clone(call),
            other => panic!("{other:?}"),
        }
    }

    fn other_end(&self, n: usize) -> Option<(ConnectedKind, String)> {
        self.calls()[n].other_end.clone().map(|e| (e.kind, e.name))
    }
}

#[test]
fn bridges_tell_apart_what_evidence_cannot() {
    let mut lab = Lab::new();
    let (i0, i1, o0, o1) = (inbound(0), inbound(1), outbound(0), outbound(1));
    lab.connected().channels(&["in0", "in1", "out0", "out1"]);
    lab.invited(&i0).invited(&i1).invited(&o0).invited(&o1).picked_up(&o0).picked_up(&o1).picked_up(&i0).picked_up(&i1);
    assert_eq!(lab.calls().len(), 0);
    lab.wait_ms(20).enter("x", &["out1", "in0"]).enter("y", &["in1", "out0"]);
    lab.is(&["in0+out1", "in1+out0"]);
    assert!(lab.calls().iter().all(|c| c.pairing == Some(Pairing::Bridge) && c.confidence == Some(100)));
    assert_eq!(lab.events().len(), 2, "each was told once, as it is");
    lab.wait_ms(5000);
    assert_eq!(lab.events(), []);
}

#[test]
fn the_word_of_the_server_comes_before_evidence_and_corrects_it() {
    // The server did not report yet, so evidence decides first: these two fit by everything visible.
    let mut lab = Lab::new();
    let (i, o, other) = (inbound(0), outbound(0), Dialog::new("in9", A, false, "7", "8"));
    lab.b2bua(&i, &o).answered(&other).wait_ms(1001);
    lab.is(&["in0+out0", "in9"]);
    let wrong = lab.calls()[0].id.clone();
    lab.events();
    lab.told([Fact::Begin]).channels(&["in0", "out0", "in9"]).enter("x", &["in9", "out0"]);
    lab.is(&["in0+out0", "in9"]);
    lab.told([Fact::Complete]);
    lab.is(&["in9+out0"]);
    let events = lab.events();
    assert!(events.iter().any(|e| matches!(e, CallEvent::Delete { id, .. } if *id == wrong)), "{events:?}");
    // The leg left over talks to nobody, and is reported so after a while.
    lab.wait_ms(1001).is(&["in0", "in9+out0"]);
    assert_eq!(lab.other_end(0), Some((ConnectedKind::Nobody, String::new())));
}

#[test]
fn the_same_pair_by_evidence_is_confirmed_in_place() {
    let mut lab = Lab::new();
    lab.b2bua(&inbound(0), &outbound(0));
    let before = lab.only_put();
    assert_eq!((before.pairing, before.confidence), (Some(Pairing::Evidence), Some(85)));
    lab.told([Fact::Begin]).channels(&["in0", "out0"]).enter("x", &["in0", "out0"]).told([Fact::Complete]);
    let after = lab.only_put();
    assert_eq!((after.id, after.pairing, after.confidence), (before.id, Some(Pairing::Bridge), Some(100)));
    // A lost connection changes nothing.
    lab.told([Fact::Lost]).wait_ms(10_000).is(&["in0+out0"]);
    assert_eq!(lab.events(), []);
}

#[test]
fn a_leg_that_the_server_joins_to_nobody_is_not_paired_by_evidence() {
    let mut lab = Lab::new();
    lab.connected().channels(&["in0", "out0"]).b2bua(&inbound(0), &outbound(0)).wait_ms(30_000);
    lab.is(&["in0", "out0"]);
    assert_eq!(lab.other_end(0), Some((ConnectedKind::Nobody, String::new())));
    // Evidence decides for legs that the server does not report, after a while. Here both are unreported.
    let mut lab = Lab::new();
    lab.connected().b2bua(&inbound(0), &outbound(0)).wait_ms(999);
    assert_eq!(lab.calls().len(), 0);
    lab.wait_ms(2).is(&["in0+out0"]);
    assert_eq!(lab.events().len(), 1);
}

#[test]
fn a_transfer_joins_who_is_left_and_a_hangup_is_no_transfer() {
    for same_direction in [false, true] {
        let mut lab = Lab::new();
        let (i0, o0) = (inbound(0), outbound(0));
        // The second call of the transferring party: to another phone, or from one.
        let second = if same_direction {
            Dialog::new("in5", A, false, "5", "1")
        } else {
            Dialog::new("out5", B, true, "1", "5")
        };
        let first = Dialog::new("in1", A, false, "1", "5");
        lab.connected().channels(&["in0", "out0", "in1", "in5", "out5"]);
        lab.b2bua(&i0, &o0).enter("x", &["in0", "out0"]);
        lab.answered(&first).answered(&second).enter("y", &[&first.call_id, &second.call_id]);
        let mut expected = ["in0+out0".to_owned(), format!("in1+{}", second.call_id)];
        expected.sort();
        assert_eq!(pairs(&lab.calls()), expected);
        lab.events();
        // Attended transfer of in0's party to the second phone: in0 replaces the transferring party in that bridge.
        lab.leave("y", &["in1"]).leave("x", &["out0"]).enter("y", &["in0"]);
        let joined = format!("in0+{}", second.call_id);
        assert_eq!(pairs(&lab.calls()), std::slice::from_ref(&joined));
        lab.hung_up(&first, Server, 2).hung_up(&o0, Server, 2).wait_ms(1500);
        assert_eq!(pairs(&lab.calls()), [joined]);
        let n = lab.events().len();
        assert_eq!(n, 3, "two calls are no more, one is");
        // BYE of one, then the server's report, then BYE to the other: only the end is reported.
        lab.hung_up(&i0, Phone, 2)
            .leave("y", &["in0", &second.call_id])
            .wait_ms(50)
            .hung_up(&second, Server, 2)
            .wait_ms(5000);
        assert_eq!(lab.events().len(), 1);
    }
}

#[test]
fn conferences_queues_and_announcements_are_named_and_stay_single() {
    let mut lab = Lab::new();
    lab.connected().channels(&["in0", "out0", "in1", "in2"]);
    lab.b2bua(&inbound(0), &outbound(0)).enter("x", &["in0", "out0"]).is(&["in0+out0"]);
    // A third leg joins the bridge of two.
    let (third, waiting) = (Dialog::new("in1", A, false, "3", "4"), Dialog::new("in2", A, false, "5", "6"));
    lab.answered(&third).enter("x", &["in1"]).wait_ms(1001).is(&["in0", "in1", "out0"]);
    assert!((0..3).all(|n| lab.other_end(n) == Some((ConnectedKind::Conference, String::new()))));
    // It leaves again, into a conference room where it is alone.
    lab.told([Fact::Bridge { bridge: "room".into(), kind: BridgeKind::Conference("4711".into()) }])
        .enter("room", &["in1"]);
    lab.is(&["in0+out0", "in1"]);
    assert_eq!(lab.other_end(1), Some((ConnectedKind::Conference, "4711".into())));
    lab.answered(&waiting)
        .told([Fact::Runs { channel: "in2".into(), application: application("Queue", "sales,t,,,30") }]);
    lab.wait_ms(1001).is(&["in0+out0", "in1", "in2"]);
    assert_eq!(lab.other_end(2), Some((ConnectedKind::Queue, "sales".into())));
    lab.told([Fact::Runs { channel: "in2".into(), application: application("Playback", "hello-world") }]);
    assert_eq!(lab.other_end(2), Some((ConnectedKind::Application, "Playback".into())));
    // A lost connection forgets none of it, except a leg between two bridges.
    lab.told([Fact::Lost]).wait_ms(2000).is(&["in0+out0", "in1", "in2"]);
    assert_eq!(lab.other_end(2), Some((ConnectedKind::Application, "Playback".into())));
}

#[test]
fn channel_pairs_inside_the_server_are_followed() {
    let mut lab = Lab::new();
    lab.connected().channels(&["in0", "out0"]);
    lab.told([
        Fact::Linked { one: "l1;1".into(), other: "l1;2".into() },
        Fact::Linked { one: "l2;1".into(), other: "l2;2".into() },
    ]);
    lab.b2bua(&inbound(0), &outbound(0));
    lab.enter("a", &["in0", "l1;1"]).enter("b", &["l1;2", "l2;1"]).is(&[]);
    lab.enter("c", &["l2;2", "out0"]).is(&["in0+out0"]);
    assert_eq!(lab.calls()[0].pairing, Some(Pairing::Bridge));
    // Optimised away: one leg moves into the other's bridge.
    lab.events();
    lab.enter("c", &["in0"]).leave("c", &["l2;2"]).leave("a", &["in0", "l1;1"]);
    lab.told(["l1;1", "l1;2", "l2;1", "l2;2"].map(|c| Fact::Gone { channel: c.into() }));
    lab.wait_ms(3000).is(&["in0+out0"]);
    let last = lab.calls()[0].clone();
    assert_eq!((last.pairing, last.confidence), (Some(Pairing::Bridge), Some(100)));
}

#[test]
fn the_last_fact_before_a_lost_connection_holds_only_while_its_leg_lives() {
    let mut lab = Lab::new();
    lab.connected()
        .channels(&["in0", "out0"])
        .b2bua(&inbound(0), &outbound(0))
        .enter("x", &["in0", "out0"])
        .told([Fact::Lost]);
    // The callee transfers the caller while the server reports nothing. Evidence may decide for the rest.
    lab.hung_up(&outbound(0), Phone, 1).answered(&Dialog::new("out7", B, true, "1", "7"));
    lab.is(&["in0+out7"]);
    assert_eq!(lab.calls()[0].pairing, Some(Pairing::Evidence));
}
