use super::scene::{Scene, inbound, outbound};

fn over(s: &mut Scene, why: &str) {
    assert!(!s.is_up());
    assert_eq!(s.tracker.legs().count(), 0);
    assert_eq!(s.told().last().map(String::as_str), Some(format!("ended: {why}").as_str()));
}

#[test]
fn a_2xx_that_crosses_a_cancel_makes_a_call() {
    let mut s = inbound();
    s.play(
        "P> INVITE 1 sdp=offer
         S> 180 INVITE 1
         P> CANCEL 1
         S> 200 INVITE 1 sdp=answer
         S> 200 CANCEL 1 tag=other
         P> ACK 1
         wait 60000",
    );
    assert_eq!((s.session(), s.gaps()), (("answer".into(), "offer".into()), vec![]));
    s.play("P> BYE 2\nS> 200 BYE 2");
    over(&mut s, "BYE");
}

#[test]
fn a_cancel_ends_the_call_with_487_or_after_64_t1() {
    let mut s = outbound();
    s.play("S> INVITE 1 sdp=o\nP> 180 INVITE 1\nS> CANCEL 1\nP> 200 CANCEL 1\nP> 487 INVITE 1\nS> nACK 1");
    over(&mut s, "refused or cancelled");
    let mut s = outbound();
    s.play("S> INVITE 1 sdp=o\nP> 180 INVITE 1\nS> CANCEL 1\nwait 31000");
    assert_eq!(s.tracker.legs().count(), 1);
    s.wait(2000);
    over(&mut s, "cancelled");
}

#[test]
fn bye_ends_the_call_however_it_is_answered_but_by_a_challenge() {
    for code in [200, 202, 481, 408, 500, 603] {
        let mut s = outbound();
        s.up().play(&format!("S> BYE 9\nP> {code} BYE 9"));
        over(&mut s, "BYE");
        // The phone's BYE counts if the server accepts it. Otherwise the call goes on.
        let mut s = outbound();
        s.up().play(&format!("P> BYE 9\nS> {code} BYE 9"));
        if code >= 500 {
            assert!(s.is_up(), "{code}");
            s.wait(3_601_000);
            over(&mut s, "the phone sent BYE, and silence since");
        } else {
            over(&mut s, "BYE");
        }
    }
    for code in [401, 407] {
        let mut s = outbound();
        s.up().play(&format!("P> BYE 1\nS> {code} BYE 1\nwait 40000"));
        assert!(s.is_up(), "{code}");
        s.play("P> BYE 2\nS> 200 BYE 2");
        over(&mut s, "BYE");
    }
    let mut s = outbound();
    s.up().play("S> BYE 2\nwait 31000\nS> BYE 2");
    assert!(s.is_up());
    s.wait(2000);
    over(&mut s, "nobody answered the BYE");
}

#[test]
fn both_may_hang_up_at_once() {
    let mut s = inbound();
    s.up().play("P> BYE 2\nS> BYE 1\nP> 200 BYE 1");
    over(&mut s, "BYE");
    s.play("S> 200 BYE 2\nP> BYE 2\nS> 481 BYE 2\nP> INFO 3\nS> 481 INFO 3");
    assert_eq!((s.told(), s.tracker.counters.unknown_dialog), (vec![], 0));
}

#[test]
fn a_bye_in_an_early_dialog_ends_that_dialog_only() {
    let mut s = outbound();
    s.play(
        "S> INVITE 1 sdp=o
         P> 180 INVITE 1 tag=one
         P> 180 INVITE 1 tag=two
         S> BYE 2 tag=one
         P> 200 BYE 2 tag=one",
    );
    assert_eq!(s.tracker.legs().count(), 1);
    s.play("P> 200 INVITE 1 tag=two sdp=a\nS> ACK 1 tag=two");
    assert_eq!(s.leg().remote_tag.lossy(), "two");
}

#[test]
fn who_does_not_know_the_dialog_ends_it() {
    for code in [408, 481] {
        for method in ["reINVITE", "UPDATE"] {
            for by in ["P", "S"] {
                let mut s = outbound();
                let other = if by == "P" { "S" } else { "P" };
                s.up().play(&format!("{by}> {method} 5 sdp=x\n{other}> {code} {method} 5"));
                over(&mut s, "the other party no longer knows the dialog (408 or 481)");
            }
        }
    }
}

#[test]
fn lesser_doubts_end_the_call_unless_it_shows_life() {
    for (request, code) in [
        ("INFO", 481),
        ("MESSAGE", 481),
        ("INFO", 408),
        ("OPTIONS", 481),
        ("reINVITE", 404),
        ("UPDATE", 482),
        ("reINVITE", 604),
    ] {
        let mut s = outbound();
        s.up().play(&format!("S> {request} 2\nP> {code} {request} 2\nwait 31000"));
        assert!(s.is_up());
        s.wait(2000);
        over(&mut s, "a party answered that the dialog does not exist");
        let mut s = outbound();
        s.up().play(&format!("S> {request} 2\nP> {code} {request} 2\nS> INFO 3\nP> 200 INFO 3\nwait 60000"));
        assert!(s.is_up(), "{request} {code}");
    }
    // Subscriptions have lives of their own (RFC 5057), and a busy phone still knows the dialog.
    for (request, code) in [
        ("NOTIFY", 481),
        ("SUBSCRIBE", 481),
        ("REFER", 481),
        ("REFER", 603),
        ("INFO", 415),
        ("INFO", 500),
        ("MESSAGE", 405),
        ("reINVITE", 480),
        ("PRACK", 400),
    ] {
        let mut s = outbound();
        s.up().play(&format!("S> {request} 2\nP> {code} {request} 2\nwait 60000"));
        assert!(s.is_up(), "{request} {code}");
    }
}

#[test]
fn every_request_but_ack_and_cancel_counts_up_its_side_alone() {
    let mut s = inbound();
    s.up();
    assert_eq!(s.cseqs(), (None, Some(1)));
    let methods = ["INFO", "MESSAGE", "OPTIONS", "NOTIFY", "UPDATE", "REFER", "SUBSCRIBE", "PUBLISH", "WHATEVER"];
    for (n, method) in (2..).zip(methods) {
        s.play(&format!("P> {method} {n}\nS> 200 {method} {n}"));
        assert_eq!(s.cseqs(), (None, Some(n)), "{method}");
    }
    for (n, method) in (101..).zip(methods) {
        s.play(&format!("S> {method} {n}\nP> 200 {method} {n}"));
        assert_eq!(s.cseqs(), (Some(n), Some(10)), "{method}");
    }
    s.play("P> ACK 1\nP> CANCEL 1\nS> ACK 50\nP> INFO 4");
    assert_eq!(s.cseqs(), (Some(109), Some(10)));
    // Sent again with credentials.
    s.play("S> INFO 110\nP> 407 INFO 110\nS> INFO 111\nP> 200 INFO 111\nP> reINVITE 20 sdp=x\nS> 401 INVITE 20\nP> nACK 20");
    assert_eq!(s.cseqs(), (Some(111), Some(20)));
    s.play("P> reINVITE 21 sdp=x\nS> 200 INVITE 21 sdp=y\nP> ACK 21");
    assert_eq!((s.cseqs(), s.session()), ((Some(111), Some(21)), ("y".into(), "x".into())));
}

#[test]
fn a_transfer_is_noted_and_ends_nothing() {
    let mut s = outbound();
    s.up().play(
        "P> REFER 1 h=Refer-To:<sip:third@example.org>
         S> 202 REFER 1
         S> NOTIFY 2 h=Event:refer h=Subscription-State:active
         P> 200 NOTIFY 2
         S> NOTIFY 3 h=Event:refer h=Subscription-State:terminated;reason=noresource
         P> 481 NOTIFY 3
         wait 60000",
    );
    let referred = s.all_up()[0].referred.clone().unwrap();
    assert_eq!((referred.by_phone, referred.to.lossy()), (true, "sip:third@example.org".into()));
    assert_eq!(s.cseqs(), (Some(3), Some(1)));
    // Attended: the new leg names the one that it replaces.
    let mut attended = inbound();
    attended.tracker = s.tracker;
    attended.call_id = "second".into();
    attended.play("P> INVITE 1 ftag=x sdp=o h=Replaces:call;to-tag=c;from-tag=e");
    let new = attended.tracker.legs().find(|t| t.leg.call_id.0[..] == *b"second").unwrap();
    let replaces = new.clues.replaces.as_deref().unwrap();
    assert_eq!((&replaces.local_tag[..], &replaces.remote_tag[..]), (&b"c"[..], &b"e"[..]));
    let old = attended.tracker.replaced(new).unwrap();
    assert_eq!(attended.tracker.get(old).unwrap().leg.call_id.lossy(), "call");
    // A refused REFER counts for nothing, and outside of a dialog it makes no leg.
    let mut s = outbound();
    s.up().play("P> REFER 1 h=Refer-To:<sip:third@example.org>\nS> 603 REFER 1");
    assert_eq!(s.all_up()[0].referred, None);
    let mut s = inbound();
    s.play("P> REFER 1 tag=z h=Refer-To:<sip:third@example.org>\nS> 202 REFER 1 tag=z");
    assert_eq!(s.tracker.legs().count(), 0);
}

#[test]
fn an_ack_of_a_refusal_that_was_not_seen_ends_the_call_soon() {
    let mut s = outbound();
    s.play("S> INVITE 1 sdp=o\nP> 180 INVITE 1\nS> nACK 1\nwait 33000");
    over(&mut s, "refused or cancelled");
    // Some phones send the ACK of a 2xx with the INVITE's branch; then the 2xx decides.
    let mut s = outbound();
    s.play("S> INVITE 1 sdp=o\nS> nACK 1\nP> 200 INVITE 1 sdp=a\nwait 60000");
    assert_eq!(s.session(), ("o".into(), "a".into()));
    let mut s = outbound();
    s.play("S> INVITE 1\nP> 200 INVITE 1 sdp=o\nS> nACK 1 sdp=a");
    assert_eq!((s.session(), s.gaps()), (("a".into(), "o".into()), vec![]));
    // The same for a re-INVITE: a refusal keeps the session and a 2xx changes it, although the ACK was seen first.
    let mut s = outbound();
    s.up().play("P> reINVITE 2 sdp=x\nP> nACK 2\nwait 40000\nP> INFO 3");
    assert_eq!((s.session(), s.gaps()), (("offer".into(), "answer".into()), vec![]));
    let mut s = outbound();
    s.up().play("P> reINVITE 2 sdp=x\nP> nACK 2\nS> 200 INVITE 2 sdp=y");
    assert_eq!((s.session(), s.gaps()), (("y".into(), "x".into()), vec![]));
}
