use super::scene::{inbound, outbound};
use crate::calls::model::Gap;

#[test]
fn a_late_offer_counts_with_the_answer_in_ack_also_when_the_2xx_is_repeated() {
    let mut s = outbound();
    s.play(
        "S> INVITE 1
         P> 200 INVITE 1 sdp=offer",
    );
    assert_eq!((s.session(), s.gaps()), (("-".into(), "-".into()), vec![Gap::Description]));
    s.told();
    s.play(
        "P> 200 INVITE 1 sdp=offer
         S> ACK 1 sdp=answer
         S> ACK 1 sdp=answer",
    );
    assert_eq!((s.session(), s.gaps()), (("answer".into(), "offer".into()), vec![]));
    assert_eq!(s.told(), ["changed"]);
}

#[test]
fn a_late_offer_in_a_re_invite_leaves_the_session_in_doubt_until_the_ack() {
    let mut s = inbound();
    s.up().play(
        "S> reINVITE 1
         P> 200 INVITE 1 sdp=new-offer",
    );
    assert_eq!((s.session(), s.gaps()), (("answer".into(), "offer".into()), vec![Gap::Description]));
    s.play("S> ACK 1 sdp=new-answer");
    assert_eq!((s.session(), s.gaps()), (("new-answer".into(), "new-offer".into()), vec![]));
}

#[test]
fn every_way_of_rfc_6337_to_exchange_descriptions_counts() {
    for (name, script, session) in [
        ("answer in 2xx", "S> INVITE 1 sdp=o\nP> 183 INVITE 1\nP> 200 INVITE 1 sdp=a\nS> ACK 1", ("o", "a")),
        (
            "preview, then the answer",
            "S> INVITE 1 sdp=o\nP> 183 INVITE 1 sdp=a\nP> 200 INVITE 1 sdp=a\nS> ACK 1",
            ("o", "a"),
        ),
        ("preview only", "S> INVITE 1 sdp=o\nP> 183 INVITE 1 sdp=a\nP> 200 INVITE 1\nS> ACK 1", ("o", "a")),
        ("offer in 2xx", "S> INVITE 1\nP> 200 INVITE 1 sdp=o\nS> ACK 1 sdp=a", ("a", "o")),
        (
            "answer in reliable 1xx, repeated in 2xx",
            "S> INVITE 1 sdp=o\nP> 183 INVITE 1 rseq=1 sdp=a\nS> PRACK 2 rack=1\nP> 200 PRACK 2\nP> 200 INVITE 1 sdp=other\nS> ACK 1",
            ("o", "a"),
        ),
        (
            "offer in reliable 1xx, answer in PRACK",
            "S> INVITE 1\nP> 183 INVITE 1 rseq=1 sdp=o\nS> PRACK 2 rack=1 sdp=a\nP> 200 PRACK 2\nP> 200 INVITE 1\nS> ACK 1",
            ("a", "o"),
        ),
        (
            "second offer in PRACK",
            "S> INVITE 1 sdp=o\nP> 183 INVITE 1 rseq=1 sdp=a\nS> PRACK 2 rack=1 sdp=o2\nP> 200 PRACK 2 sdp=a2\nP> 200 INVITE 1\nS> ACK 1",
            ("o2", "a2"),
        ),
        (
            "UPDATE of the caller before the answer",
            "S> INVITE 1 sdp=o\nP> 183 INVITE 1 rseq=1 sdp=a\nS> PRACK 2 rack=1\nP> 200 PRACK 2\nS> UPDATE 3 sdp=o3\nP> 200 UPDATE 3 sdp=a3\nP> 200 INVITE 1\nS> ACK 1",
            ("o3", "a3"),
        ),
        (
            "UPDATE of the callee before the answer",
            "S> INVITE 1 sdp=o\nP> 183 INVITE 1 rseq=1 sdp=a\nS> PRACK 2 rack=1\nP> 200 PRACK 2\nP> UPDATE 1 sdp=o3\nS> 200 UPDATE 1 sdp=a3\nP> 200 INVITE 1\nS> ACK 1",
            ("a3", "o3"),
        ),
        (
            "late offer in 1xx, a new one by UPDATE",
            "S> INVITE 1\nP> 183 INVITE 1 rseq=1 sdp=o\nS> PRACK 2 rack=1 sdp=a\nP> 200 PRACK 2\nS> UPDATE 3 sdp=o2\nP> 200 UPDATE 3 sdp=a2\nP> 200 INVITE 1\nS> ACK 1",
            ("o2", "a2"),
        ),
        (
            "second reliable 1xx without news",
            "S> INVITE 1 sdp=o\nP> 183 INVITE 1 rseq=1 sdp=a\nS> PRACK 2 rack=1\nP> 200 PRACK 2\nP> 180 INVITE 1 rseq=2\nS> PRACK 3 rack=1\nP> 200 PRACK 3\nP> 200 INVITE 1\nS> ACK 1",
            ("o", "a"),
        ),
        ("no descriptions at all", "S> INVITE 1\nP> 200 INVITE 1\nS> ACK 1", ("-", "-")),
    ] {
        let mut s = outbound();
        s.play(script);
        assert_eq!(s.session(), (session.0.into(), session.1.into()), "{name}");
        assert!(s.gaps().is_empty(), "{name}: {:?}", s.gaps());
        // The same with the sides exchanged, and each message twice.
        let mut s = inbound();
        for line in script.lines() {
            let line =
                if let Some(rest) = line.strip_prefix('S') { format!("P{rest}") } else { format!("S{}", &line[1..]) };
            s.play(&line).play(&line);
        }
        assert_eq!(s.session(), (session.1.into(), session.0.into()), "{name}");
        assert!(s.gaps().is_empty() && s.tracker.legs().all(|t| t.offers.pending.is_empty()), "{name}");
    }
}

#[test]
fn an_offer_that_is_refused_leaves_the_session_as_it_was() {
    for code in [488, 491, 500, 504, 401, 422, 606] {
        for method in ["reINVITE", "UPDATE"] {
            for by in ["S", "P"] {
                let mut s = outbound();
                s.up();
                let other = if by == "S" { "P" } else { "S" };
                s.play(&format!(
                    "{by}> {method} 7 sdp=new contact=sip:new@h\n{other}> {code} {method} 7\n{by}> nACK 7"
                ));
                assert_eq!(s.session(), ("offer".into(), "answer".into()), "{by} {method} {code}");
                assert_eq!((s.target(), s.gaps()), ("sip:phone@10.0.0.1:5060".into(), vec![]), "{by} {method} {code}");
                assert_eq!(s.cseqs(), if by == "S" { (Some(7), None) } else { (Some(1), Some(7)) });
            }
        }
    }
}

#[test]
fn an_offer_that_is_accepted_is_in_force_from_its_answer_on() {
    for (method, ack) in [("reINVITE", true), ("UPDATE", false)] {
        for by in ["S", "P"] {
            let mut s = inbound();
            s.up();
            let other = if by == "S" { "P" } else { "S" };
            s.play(&format!("{by}> {method} 7 sdp=o7"));
            assert_eq!(s.session(), ("answer".into(), "offer".into()));
            s.play(&format!("{other}> 200 {method} 7 sdp=a7"));
            let now = if by == "S" { ("o7", "a7") } else { ("a7", "o7") };
            assert_eq!(s.session(), (now.0.into(), now.1.into()), "{by} {method}");
            if ack {
                s.play(&format!("{by}> ACK 7"));
            }
            assert!(s.all_up()[0].offers.pending.is_empty());
        }
    }
}

#[test]
fn glare_ends_neither_session_nor_dialog() {
    let mut s = outbound();
    s.up().play(
        "S> reINVITE 2 sdp=mine
         P> reINVITE 1 sdp=theirs
         P> 491 INVITE 2
         S> 491 INVITE 1
         S> nACK 2
         P> nACK 1",
    );
    assert_eq!((s.session(), s.cseqs()), (("offer".into(), "answer".into()), (Some(2), Some(1))));
    s.play(
        "P> reINVITE 2 sdp=again
         S> 200 INVITE 2 sdp=agreed
         P> ACK 2",
    );
    assert_eq!(s.session(), ("agreed".into(), "again".into()));
}

#[test]
fn a_re_invite_that_is_cancelled_leaves_the_session() {
    let mut s = inbound();
    s.up().play(
        "P> reINVITE 2 sdp=video
         S> 100 INVITE 2
         P> CANCEL 2
         S> 200 CANCEL 2
         S> 487 INVITE 2
         P> nACK 2
         wait 60000",
    );
    assert_eq!((s.session(), s.gaps()), (("answer".into(), "offer".into()), vec![]));
}

#[test]
fn a_re_invite_that_is_refused_takes_back_what_it_had_changed() {
    let mut s = inbound();
    s.up().play(
        "P> reINVITE 2 sdp=o2
         S> 183 INVITE 2 rseq=1 sdp=a2",
    );
    assert_eq!(s.session(), ("a2".into(), "o2".into()), "agreed by a reliable response");
    s.play(
        "P> PRACK 3 rack=2
         S> 200 PRACK 3
         P> UPDATE 4 sdp=o4
         S> 200 UPDATE 4 sdp=a4",
    );
    assert_eq!(s.session(), ("a4".into(), "o4".into()));
    s.play(
        "S> 488 INVITE 2
         P> nACK 2",
    );
    assert_eq!((s.session(), s.gaps()), (("answer".into(), "offer".into()), vec![]));
    // An accepted one stays.
    s.play(
        "P> reINVITE 5 sdp=o5
         S> 183 INVITE 5 rseq=2 sdp=a5
         P> PRACK 6 rack=5
         S> 200 PRACK 6
         S> 200 INVITE 5
         P> ACK 5",
    );
    assert_eq!(s.session(), ("a5".into(), "o5".into()));
}

#[test]
fn refused_updates_in_an_early_dialog_leave_what_was_agreed() {
    let mut s = outbound();
    s.play(
        "S> INVITE 1 sdp=o
         P> 183 INVITE 1 rseq=1 sdp=a
         S> PRACK 2 rack=1
         P> 200 PRACK 2
         S> UPDATE 3 sdp=o3
         P> 504 UPDATE 3
         P> UPDATE 1 sdp=o4
         S> 491 UPDATE 1
         P> 200 INVITE 1
         S> ACK 1",
    );
    assert_eq!((s.session(), s.cseqs()), (("o".into(), "a".into()), (Some(3), Some(1))));
}

#[test]
fn a_description_that_is_too_large_or_coded_is_a_gap_until_the_next_exchange() {
    let mut s = inbound();
    let huge = "x".repeat(20_000);
    s.play(&format!("P> INVITE 1 sdp={huge}\nS> 200 INVITE 1 sdp=answer\nP> ACK 1"));
    assert_eq!(s.gaps(), [Gap::Description]);
    s.play(
        "P> reINVITE 2 sdp=small
         S> 200 INVITE 2 sdp=answer",
    );
    assert_eq!((s.session(), s.gaps()), (("answer".into(), "small".into()), vec![]));
}
