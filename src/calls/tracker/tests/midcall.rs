use super::scene::{Scene, inbound, outbound, settings};
use crate::calls::model::Gap::{Description, LocalCseq, RemoteTarget, RouteSet};
use crate::calls::tracker::Tracker;

#[test]
fn a_re_invite_of_the_server_tells_everything() {
    let mut s = inbound();
    s.play("S> reINVITE 40 uri=sip:phone@192.168.1.5 route=sip:p1;lr,sip:p2;lr sdp=offer at=10.0.0.9:5060");
    assert_eq!(s.gaps(), [Description]);
    assert_eq!(s.told(), ["started", "confirmed"]);
    s.play("P> 200 INVITE 40 sdp=answer at=10.0.0.9:5060 contact=sip:phone@192.168.1.5 se=600;refresher=uac\nS> ACK 40 at=10.0.0.9:5060");
    let leg = s.leg();
    assert!(!leg.partial && leg.obstacle().is_none());
    assert_eq!(
        (leg.local.lossy(), leg.remote.lossy()),
        ("<sip:callee@example.org>;tag=e".into(), "<sip:caller@example.org>;tag=c".into())
    );
    assert_eq!((leg.local_tag.lossy(), leg.remote_tag.lossy()), ("e".into(), "c".into()));
    assert_eq!((s.cseqs(), s.target()), ((Some(40), None), "sip:phone@192.168.1.5".into()));
    assert_eq!(
        (s.routes(), s.session()),
        (vec!["<sip:p1;lr>".into(), "<sip:p2;lr>".into()], ("offer".into(), "answer".into()))
    );
    assert_eq!((leg.remote_addr.to_string(), leg.session_timer.is_some()), ("10.0.0.9:5060".into(), true));
    assert_eq!(s.tracker.counters.joined, 1);
}

#[test]
fn a_re_invite_of_the_phone_tells_all_but_the_server_s_own_number() {
    let mut s = outbound();
    s.play("P> reINVITE 7 sdp=offer");
    assert!(!s.is_up(), "anybody can say that");
    assert_eq!(s.told(), [] as [&str; 0]);
    s.play("S> 200 INVITE 7 sdp=answer\nP> ACK 7");
    assert_eq!((s.gaps(), s.cseqs()), (vec![LocalCseq], (None, Some(7))));
    assert_eq!((s.session(), s.target()), (("answer".into(), "offer".into()), "sip:phone@10.0.0.1:5060".into()));
    assert!(s.leg().obstacle().unwrap().contains("CSeq"));
    s.play("S> OPTIONS 33");
    assert_eq!((s.gaps(), s.cseqs()), (vec![], (Some(33), Some(7))));
}

#[test]
fn behind_proxies_the_route_set_waits_for_a_request_of_the_server() {
    let mut s = outbound();
    s.play(
        "P> reINVITE 7 sdp=offer vias=2 rr=sip:p1;lr\nS> 200 INVITE 7 sdp=answer vias=2 rr=sip:p1;lr\nP> ACK 7 vias=2",
    );
    assert_eq!(s.gaps(), [LocalCseq, RouteSet], "a proxy need not record-route every request");
    s.play("S> INFO 5 route=sip:p1;lr,sip:p2;lr");
    assert_eq!((s.gaps(), s.routes()), (vec![], vec!["<sip:p1;lr>".to_owned(), "<sip:p2;lr>".to_owned()]));
}

#[test]
fn a_strict_router_is_understood() {
    let mut s = outbound();
    s.play("S> INFO 7 uri=sip:strict@p1 route=sip:p2,sip:phone@192.168.1.5");
    assert_eq!(
        (s.target(), s.routes()),
        ("sip:phone@192.168.1.5".into(), vec!["<sip:strict@p1>".to_owned(), "<sip:p2>".to_owned()])
    );
}

#[test]
fn small_signs_of_a_call_make_a_partial_leg() {
    for (script, gaps) in [
        ("P> INFO 5\nS> 200 INFO 5", vec![LocalCseq, RemoteTarget, Description]),
        ("S> INFO 5", vec![Description]),
        ("P> UPDATE 5\nS> 200 UPDATE 5", vec![LocalCseq, Description]),
        ("P> UPDATE 5 sdp=o\nS> 200 UPDATE 5 sdp=a", vec![LocalCseq]),
        ("S> 200 INVITE 5 sdp=a", vec![LocalCseq, RemoteTarget, RouteSet, Description]),
        ("S> 200 INVITE 5 sdp=a\nP> ACK 5", vec![LocalCseq, RemoteTarget, Description]),
        ("S> 200 INVITE 5 sdp=o\nP> ACK 5 sdp=a", vec![LocalCseq, RemoteTarget]),
        ("P> 200 INVITE 5 sdp=a\nS> ACK 5", vec![Description]),
        ("P> 200 INVITE 5 sdp=o\nS> ACK 5 sdp=a", vec![]),
    ] {
        let mut s = outbound();
        s.play(script).play(script);
        assert_eq!(s.gaps(), gaps, "{script}");
        s.play("P> BYE 90\nS> 200 BYE 90");
        assert!(!s.is_up(), "{script}");
        assert!(s.told().last().unwrap().starts_with("ended"));
    }
}

#[test]
fn what_only_a_phone_says_is_no_call() {
    for script in [
        "P> reINVITE 5 sdp=o",
        "P> INFO 5\nS> 481 INFO 5",
        "P> reINVITE 5 sdp=o\nS> 481 INVITE 5\nP> nACK 5",
        "P> 200 INVITE 5 sdp=o",
        "P> BYE 5\nS> 481 BYE 5",
        "P> NOTIFY 5\nS> 200 NOTIFY 5",
        "P> SUBSCRIBE 5\nS> 200 SUBSCRIBE 5",
        "P> OPTIONS 5\nS> 200 OPTIONS 5",
        "P> ACK 5",
        "S> ACK 5 sdp=a",
        "S> 180 INVITE 5",
    ] {
        let mut s = outbound();
        s.play(script);
        assert!(!s.is_up(), "{script}");
        s.wait(33_000);
        assert_eq!((s.tracker.legs().count(), s.told()), (0, vec![]), "{script}");
        s.wait(400_000);
        assert_eq!(s.tracker.next_deadline(), None, "{script}");
    }
}

#[test]
fn invented_dialogs_take_few_places_and_for_a_short_time() {
    let mut s = inbound();
    s.tracker = Tracker::new(crate::calls::tracker::TrackerSettings { max_legs: 800, ..settings() });
    for n in 0..5000 {
        s.call_id = format!("flood-{n}");
        s.play("P> reINVITE 1 sdp=o").play("P> 200 INVITE 2 sdp=o").play("P> BYE 3");
    }
    assert_eq!(s.tracker.legs().count(), 100, "an eighth of the places");
    s.call_id = "real".into();
    s.up();
    assert!(s.is_up(), "a real call still finds its place");
    s.wait(33_000);
    assert_eq!(s.tracker.legs().count(), 1);
    s.call_id = "joined".into();
    s.play("S> INFO 5");
    assert_eq!(s.all_up().len(), 2);
}

#[test]
fn an_adopted_call_that_was_partial_stays_so_by_its_reason() {
    let mut s = outbound();
    s.play("P> reINVITE 7 sdp=offer\nS> 200 INVITE 7 sdp=answer\nP> ACK 7");
    let mut leg = s.leg().clone();
    let mut next = outbound();
    next.tracker.adopt(leg.clone().into(), 0, false, next.now);
    assert_eq!(next.gaps(), [LocalCseq]);
    next.play("S> INFO 9");
    assert_eq!(next.gaps(), []);
    // A record of an older version has no reason, so nothing clears it.
    leg.gaps = crate::calls::model::Gaps::default();
    let mut next = outbound();
    next.tracker.adopt(leg.into(), 0, false, next.now);
    next.play("S> reINVITE 9 sdp=o\nP> 200 INVITE 9 sdp=a\nS> ACK 9");
    assert_eq!(next.gaps(), [crate::calls::model::Gap::Other]);
}

#[test]
fn an_adopted_call_is_not_begun_anew_by_a_repeated_invite() {
    let mut s = inbound();
    s.up();
    let leg = s.leg().clone();
    let mut next: Scene = inbound();
    next.tracker.adopt(leg.clone().into(), 0, false, next.now);
    next.up();
    assert_eq!((next.told(), next.leg(), next.tracker.legs().count()), (vec![], &leg, 1));
}
