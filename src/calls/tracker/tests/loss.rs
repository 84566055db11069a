use super::scene::{Scene, inbound, outbound};
use crate::calls::model::Gap;

const OUT: &str = "S> INVITE 1 sdp=offer
     P> 180 INVITE 1 rr=sip:p2;lr,sip:p1;lr
     P> 200 INVITE 1 sdp=answer rr=sip:p2;lr,sip:p1;lr
     S> ACK 1 uri=sip:phone@10.0.0.1:5060 route=sip:p1;lr,sip:p2;lr";
const IN: &str = "P> INVITE 1 sdp=offer rr=sip:p1;lr,sip:p2;lr vias=3
     S> 180 INVITE 1
     S> 200 INVITE 1 sdp=answer rr=sip:p1;lr,sip:p2;lr vias=3
     P> ACK 1 vias=3";

/// The script without the messages of these numbers.
fn without(script: &str, lost: &[usize]) -> String {
    script.lines().enumerate().filter(|(n, _)| !lost.contains(n)).map(|(_, l)| l.trim()).collect::<Vec<_>>().join("\n")
}

fn known(s: &Scene) -> (Vec<String>, String) {
    (s.routes(), s.target())
}

#[test]
fn what_one_lost_message_costs() {
    use Gap::{Description, LocalCseq, RemoteTarget, RouteSet};
    // A lost INVITE of a call to the phone costs only the offer. The server's ACK has the rest.
    for (lost, out, inb) in [
        (0, vec![Description], vec![LocalCseq, RemoteTarget, RouteSet, Description]),
        (1, vec![], vec![]),
        (2, vec![Description], vec![Description]),
        (3, vec![], vec![]),
    ] {
        let mut whole = outbound();
        whole.play(OUT);
        let mut s = outbound();
        s.play(&without(OUT, &[lost]));
        assert_eq!(s.gaps(), out, "lost {lost}");
        assert_eq!((known(&s), s.cseqs()), (known(&whole), whole.cseqs()), "lost {lost}");
        assert_eq!(
            (s.leg().local.lossy(), s.leg().remote.lossy()),
            (whole.leg().local.lossy(), whole.leg().remote.lossy())
        );
        let mut s = inbound();
        s.play(&without(IN, &[lost]));
        assert_eq!(s.gaps(), inb, "lost {lost}");
        assert_eq!(
            (s.leg().local.lossy(), s.leg().remote.lossy()),
            ("<sip:callee@example.org>;tag=e".into(), "<sip:caller@example.org>;tag=c".into())
        );
        if lost > 0 {
            assert_eq!(known(&s), (vec!["<sip:p1;lr>".into(), "<sip:p2;lr>".into()], "sip:phone@10.0.0.1:5060".into()));
            assert_eq!(s.cseqs(), (None, Some(1)));
        }
        s.play("P> BYE 2 vias=3\nS> 200 BYE 2");
        assert!(!s.is_up());
    }
}

#[test]
fn only_the_ack_of_a_2xx_confirms() {
    let mut s = outbound();
    s.play(&without(OUT, &[1, 2]));
    assert_eq!(
        (s.gaps(), s.routes()),
        (vec![Gap::Description], vec!["<sip:p1;lr>".to_owned(), "<sip:p2;lr>".to_owned()])
    );
    assert_eq!(s.leg().remote_tag.lossy(), "e");
    // A late 2xx, a copy that came by a slower way, fills the gap.
    s.play("P> 200 INVITE 1 sdp=answer rr=sip:p2;lr,sip:p1;lr se=600;refresher=uas");
    assert_eq!((s.gaps(), s.session()), (vec![], ("offer".into(), "answer".into())));
    assert_eq!(s.leg().session_timer.map(|t| t.interval_s), Some(600));
    let mut s = outbound();
    s.play("S> INVITE 1 sdp=offer\nP> 183 INVITE 1 rseq=1 sdp=answer\nS> PRACK 2 rack=1\nS> ACK 1");
    assert_eq!((s.gaps(), s.session()), (vec![], ("offer".into(), "answer".into())), "the answer was seen before");
}

#[test]
fn lost_parts_of_a_bye_leave_no_ghost() {
    // A claim from the phone's side alone is less certain.
    for (script, ms) in
        [("P> BYE 2", 3_601_000), ("S> 200 BYE 2", 0), ("S> BYE 1", 33_000), ("P> 200 BYE 1", 3_601_000)]
    {
        let mut s = inbound();
        s.up().play(script).wait(ms / 2);
        assert_eq!(s.is_up(), ms > 0, "{script}");
        s.wait(ms / 2 + 1);
        assert!(!s.is_up(), "{script}");
    }
}

#[test]
fn a_request_that_was_lost_is_counted_by_its_response() {
    let mut s = inbound();
    s.up().play("P> 200 INFO 7\nS> 200 OPTIONS 5");
    assert_eq!(s.cseqs(), (Some(7), Some(5)));
    // The request itself may be late.
    s.play("S> INFO 7\nP> OPTIONS 5");
    assert_eq!(s.cseqs(), (Some(7), Some(5)));
}

#[test]
fn a_re_invite_of_which_a_part_was_lost_leaves_the_session_unknown_until_the_next() {
    for (script, gap) in [
        ("S> 200 INVITE 2 sdp=a2\nP> ACK 2", true),
        ("P> reINVITE 2 sdp=o2\nP> ACK 2", true),
        ("P> reINVITE 2 sdp=o2\nS> 200 INVITE 2 sdp=a2", false),
        ("S> reINVITE 2\nS> ACK 2 sdp=a2", true),
        ("P> 200 UPDATE 2 sdp=a2", true),
        ("P> 200 UPDATE 2", false),
        ("P> UPDATE 2 sdp=o2\nwait 40000\nS> INFO 1", true),
        ("P> reINVITE 2 sdp=o2\nwait 40000\nS> INFO 1", true),
        ("P> reINVITE 2 sdp=o2\nS> 180 INVITE 2\nwait 40000\nS> INFO 1", false),
    ] {
        let mut s = inbound();
        s.up().play(script);
        assert_eq!(s.gaps().contains(&Gap::Description), gap, "{script}");
        s.play("P> reINVITE 9 sdp=o9\nS> 200 INVITE 9 sdp=a9\nP> ACK 9");
        assert_eq!((s.gaps(), s.session()), (vec![], ("a9".into(), "o9".into())), "{script}");
    }
    // Time alone drops the offer of an idle leg.
    let mut s = inbound();
    s.up().play("P> UPDATE 2 sdp=o2\nwait 301000");
    assert_eq!(s.gaps(), [Gap::Description]);
}

#[test]
fn messages_that_overtake_each_other_change_nothing() {
    for script in [OUT, IN] {
        let out = script.starts_with('S');
        let scene = || if out { outbound() } else { inbound() };
        let mut whole = scene();
        whole.play(script);
        let lines: Vec<&str> = script.lines().collect();
        for order in [
            [1, 0, 2, 3],
            [0, 2, 1, 3],
            [0, 1, 3, 2],
            [2, 0, 1, 3],
            [0, 3, 1, 2],
            [0, 3, 2, 1],
            [2, 3, 0, 1],
            [2, 1, 0, 3],
        ] {
            let mut s = scene();
            order.iter().for_each(|n| {
                s.play(lines[*n]);
            });
            assert_eq!(s.leg(), whole.leg(), "{order:?} {script}");
            assert_eq!(s.tracker.legs().count(), 1);
            assert_eq!(s.tracker.counters.confirmed, 1);
        }
    }
}

#[test]
fn a_later_exchange_is_not_undone_by_an_earlier_that_was_overtaken() {
    let mut s = inbound();
    s.up().play(
        "P> reINVITE 3 sdp=o3
         P> reINVITE 2 sdp=o2
         S> 200 INVITE 3 sdp=a3
         S> 200 INVITE 2 sdp=a2
         P> ACK 3
         P> ACK 2",
    );
    assert_eq!((s.session(), s.cseqs()), (("a3".into(), "o3".into()), (None, Some(3))));
}
