use super::scene::{Scene, inbound, outbound};

fn tags(s: &Scene) -> Vec<String> {
    s.all_up().iter().map(|t| t.leg.remote_tag.lossy()).collect()
}

#[test]
fn each_early_dialog_has_its_own_tag_target_routes_and_answer() {
    let mut s = outbound();
    s.play(
        "S> INVITE 1 sdp=offer
         P> 100 INVITE 1
         P> 183 INVITE 1 tag=one contact=sip:one@h rr=sip:p1;lr sdp=early1
         P> 180 INVITE 1 tag=two contact=sip:two@h rr=sip:p2;lr
         P> 183 INVITE 1 tag=three sdp=early3
         P> 200 INVITE 1 tag=two contact=sip:two@h rr=sip:p2;lr sdp=answer2
         S> ACK 1 tag=two",
    );
    let leg = s.leg();
    assert_eq!((leg.remote_tag.lossy(), leg.remote.lossy()), ("two".into(), "<sip:callee@example.org>;tag=two".into()));
    assert_eq!((s.target(), s.routes()), ("sip:two@h".to_owned(), vec!["<sip:p2;lr>".to_owned()]));
    assert_eq!(s.session(), ("offer".into(), "answer2".into()));
    assert!(s.gaps().is_empty());
    s.wait(33_000);
    assert_eq!(s.tracker.legs().count(), 1, "the other branches are gone");
    assert_eq!(s.told().iter().filter(|w| **w == "ended: another branch of the fork answered").count(), 2);
}

#[test]
fn two_branches_that_both_answer_are_both_up_until_one_is_hung_up() {
    let mut s = outbound();
    s.play(
        "S> INVITE 1 sdp=offer
         P> 180 INVITE 1 tag=one
         P> 200 INVITE 1 tag=one sdp=a1
         S> ACK 1 tag=one
         P> 200 INVITE 1 tag=two sdp=a2
         S> ACK 1 tag=two",
    );
    assert_eq!(tags(&s), ["one", "two"]);
    let sessions: Vec<_> = s.all_up().iter().map(|t| t.leg.sdp_received.as_ref().unwrap().body.lossy()).collect();
    assert_eq!(sessions, [super::scene::sdp("a1"), super::scene::sdp("a2")]);
    s.play(
        "S> BYE 2 tag=two
         P> 200 BYE 2 tag=two
         wait 40000",
    );
    assert_eq!(tags(&s), ["one"]);
}

#[test]
fn a_branch_that_rings_after_another_answered_does_not_stay() {
    let mut s = outbound();
    s.play(
        "S> INVITE 1 sdp=offer
         P> 200 INVITE 1 tag=one sdp=a1
         S> ACK 1 tag=one
         P> 180 INVITE 1 tag=two
         wait 33000",
    );
    assert_eq!((tags(&s), s.tracker.legs().count()), (vec!["one".to_owned()], 1));
}

#[test]
fn a_proxy_in_the_middle_forks_on_both_of_its_sides() {
    // The server forwards one INVITE to two phones. Both sides have the Call-ID and tags of the two ends.
    let mut s = inbound();
    s.play(
        "P> INVITE 1 sdp=offer
         S> 100 INVITE 1",
    );
    s.calls_out = true;
    s.play(
        "S> INVITE 1 sdp=offer branch=b1 at=10.0.0.2:5060 rr=sip:10.0.0.100;lr
         S> INVITE 1 sdp=offer branch=b2 at=10.0.0.3:5060 rr=sip:10.0.0.100;lr
         P> 180 INVITE 1 tag=b1 branch=b1 at=10.0.0.2:5060 rr=sip:10.0.0.100;lr
         P> 180 INVITE 1 tag=b2 branch=b2 at=10.0.0.3:5060 rr=sip:10.0.0.100;lr",
    );
    s.calls_out = false;
    s.play(
        "S> 180 INVITE 1 tag=b1
         S> 180 INVITE 1 tag=b2",
    );
    assert_eq!(s.tracker.legs().count(), 4);
    s.calls_out = true;
    s.play(
        "P> 200 INVITE 1 tag=b2 branch=b2 at=10.0.0.3:5060 rr=sip:10.0.0.100;lr sdp=answer
         S> CANCEL 1 branch=b1 at=10.0.0.2:5060
         P> 487 INVITE 1 tag=b1 branch=b1 at=10.0.0.2:5060",
    );
    s.calls_out = false;
    s.play("S> 200 INVITE 1 tag=b2 sdp=answer rr=sip:10.0.0.100;lr");
    s.play("P> ACK 1 tag=b2");
    s.calls_out = true;
    s.play("S> ACK 1 tag=b2 at=10.0.0.3:5060");
    s.wait(33_000);
    let up = s.all_up();
    let [caller, callee] = up[..] else { panic!("{}", up.len()) };
    assert_eq!((caller.leg.remote_tag.lossy(), caller.leg.local_tag.lossy()), ("b2".into(), "c".into()));
    assert_eq!(caller.leg.remote_addr.to_string(), "10.0.0.3:5060");
    assert_eq!((callee.leg.remote_tag.lossy(), callee.leg.local_tag.lossy()), ("c".into(), "b2".into()));
    assert_eq!(s.tracker.legs().count(), 2);
}

#[test]
fn a_199_of_a_branch_that_nobody_saw_opens_none() {
    for up in [false, true] {
        let mut s = outbound();
        s.play("S> INVITE 1 sdp=offer");
        s.play(if up { "P> 200 INVITE 1 tag=one sdp=a1" } else { "P> 180 INVITE 1 tag=one" });
        for _ in 0..2 {
            s.play("P> 199 INVITE 1 tag=two");
            assert_eq!(s.tracker.legs().count(), 1, "{up}");
        }
    }
}

#[test]
fn a_199_ends_a_branch_that_rings_after_another_answered() {
    let mut s = outbound();
    s.play(
        "S> INVITE 1 sdp=offer
         P> 200 INVITE 1 tag=one sdp=a1
         S> ACK 1 tag=one
         P> 180 INVITE 1 tag=two
         P> 199 INVITE 1 tag=two
         P> 199 INVITE 1 tag=two",
    );
    assert_eq!((tags(&s), s.tracker.legs().count()), (vec!["one".to_owned()], 1));
}

#[test]
fn a_199_leaves_a_dialog_alone_whose_start_was_not_seen() {
    // The phone sends a request in a second dialog of the same INVITE. Its start was not seen.
    let mut s = inbound();
    s.up().play("P> reINVITE 2 tag=two sdp=offer2");
    let legs = |s: &Scene| s.tracker.legs().map(|t| t.leg.local_tag.lossy()).collect::<Vec<_>>();
    assert_eq!(legs(&s), ["e", "two"]);
    for _ in 0..2 {
        s.play("S> 199 INVITE 1 tag=two");
        assert_eq!(legs(&s), ["e", "two"]);
    }
}

#[test]
fn a_branch_that_comes_after_another_has_agreed_reliably_answers_the_first_offer() {
    let mut s = outbound();
    s.play(
        "S> INVITE 1 sdp=offer
         P> 183 INVITE 1 tag=one rseq=1 sdp=a1
         S> PRACK 2 tag=one rack=1
         P> 200 PRACK 2 tag=one
         S> UPDATE 3 tag=one sdp=offer3
         P> 200 UPDATE 3 tag=one sdp=a3
         P> 183 INVITE 1 tag=two rseq=1 sdp=a2
         P> 200 INVITE 1 tag=two
         S> ACK 1 tag=two",
    );
    assert_eq!(s.session(), ("offer".into(), "a2".into()));
    assert_eq!(s.cseqs(), (Some(1), None), "PRACK and UPDATE were of the other dialog");
    s.play("P> 200 INVITE 1 tag=one");
    let one = s.all_up()[0];
    assert_eq!(one.leg.sdp_sent.as_ref().unwrap().body.lossy(), super::scene::sdp("offer3"));
    assert_eq!(one.leg.local_cseq, Some(3));
}

#[test]
fn a_branch_that_refuses_early_leaves_the_others() {
    let mut s = outbound();
    s.play(
        "S> INVITE 1 sdp=offer
         P> 180 INVITE 1 tag=one
         P> 180 INVITE 1 tag=two
         P> 199 INVITE 1 tag=one
         P> 199 INVITE 1 tag=two
         P> 180 INVITE 1 tag=three
         P> 200 INVITE 1 tag=three sdp=answer",
    );
    assert_eq!((tags(&s), s.session()), (vec!["three".to_owned()], ("offer".into(), "answer".into())));
    s.wait(33_000);
    assert_eq!(s.tracker.legs().count(), 1);
}

#[test]
fn a_late_offer_is_each_branch_s_own() {
    let mut s = outbound();
    s.play(
        "S> INVITE 1
         P> 200 INVITE 1 tag=one sdp=o1
         S> ACK 1 tag=one sdp=a1
         P> 200 INVITE 1 tag=two sdp=o2
         S> ACK 1 tag=two sdp=a2",
    );
    let all: Vec<_> =
        s.all_up().iter().map(|t| (t.leg.partial, t.leg.sdp_received.as_ref().unwrap().body.lossy())).collect();
    assert_eq!(all, [(false, super::scene::sdp("o1")), (false, super::scene::sdp("o2"))]);
}

#[test]
fn branches_beyond_the_limit_are_not_learnt() {
    let mut s = outbound();
    s.play("S> INVITE 1 sdp=offer");
    for n in 0..100 {
        s.play(&format!("P> 180 INVITE 1 tag=t{n}"));
    }
    assert_eq!(s.tracker.legs().count(), 32);
    assert_eq!(s.tracker.counters.not_learnt, 68);
}

#[test]
fn redirection_and_serial_search_end_one_branch_and_begin_another() {
    let mut s = outbound();
    s.play(
        "S> INVITE 1 sdp=offer
         P> 302 INVITE 1
         S> nACK 1
         S> INVITE 2 sdp=offer at=10.0.0.2:5060
         P> 180 INVITE 2 at=10.0.0.2:5060
         P> 200 INVITE 2 sdp=answer at=10.0.0.2:5060
         S> ACK 2 at=10.0.0.2:5060",
    );
    assert_eq!((s.leg().remote_addr.to_string(), s.leg().local_cseq), ("10.0.0.2:5060".into(), Some(2)));
    assert_eq!(s.tracker.legs().count(), 1);
}
