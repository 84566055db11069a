use super::scene::{Scene, inbound, outbound, sdp};
use crate::sip::sdp::Sdp;

/// Both descriptions as they were on the wire.
fn bodies(s: &Scene) -> (String, String) {
    let leg = s.leg();
    (leg.sdp_sent.as_ref().unwrap().body.lossy(), leg.sdp_received.as_ref().unwrap().body.lossy())
}

#[test]
fn holds_of_either_side_and_their_end_are_in_force_byte_for_byte() {
    for (hold, held) in [("sendonly", "recvonly"), ("inactive", "inactive"), ("recvonly", "sendonly"), ("zero", "zero")]
    {
        for by in ["P", "S"] {
            for method in ["reINVITE", "UPDATE"] {
                let mut s = inbound();
                let other = if by == "P" { "S" } else { "P" };
                s.up().play(&format!(
                    "{by}> {method} 2 sdp=hold~v2~{hold}
                     {other}> 200 {method} 2 sdp=held~v2~{held}
                     {by}> ACK 2"
                ));
                let (ours, theirs) = (sdp(&format!("held~v2~{held}")), sdp(&format!("hold~v2~{hold}")));
                let expected = if by == "P" { (ours, theirs) } else { (theirs, ours) };
                assert_eq!(bodies(&s), expected, "{by} {method} {hold}");
                s.play(&format!(
                    "{by}> {method} 3 sdp=resume~v3~sendrecv
                     {other}> 200 {method} 3 sdp=resumed~v3
                     {by}> ACK 3"
                ));
                let versions =
                    [&bodies(&s).0, &bodies(&s).1].map(|b| Sdp::parse(b.as_bytes()).unwrap().origin().unwrap().version);
                assert_eq!(versions, [3, 3], "each side goes on with its own o= line");
                assert!(s.gaps().is_empty());
            }
        }
    }
}

#[test]
fn each_direction_keeps_its_own_version() {
    let mut s = outbound();
    s.up().play(
        "P> reINVITE 1 sdp=a~v2
         S> 200 INVITE 1 sdp=o~v1
         P> ACK 1
         P> reINVITE 2 sdp=a~v3
         S> 200 INVITE 2 sdp=o~v1
         P> ACK 2",
    );
    assert_eq!(bodies(&s), (sdp("o~v1"), sdp("a~v3")));
}

#[test]
fn codecs_video_and_fax_come_and_go() {
    let mut s = outbound();
    s.up();
    let mut cseq = 1;
    for (offer, answer) in [
        ("o~v2~g722", "a~v2~g722"),
        ("o~v3~video", "a~v3~video"),
        ("o~v4~t38", "a~v4~t38"),
        ("o~v5", "a~v5"),
        ("o~v6~p4100", "a~v6~p4200"),
    ] {
        cseq += 1;
        s.play(&format!("S> reINVITE {cseq} sdp={offer}\nP> 200 INVITE {cseq} sdp={answer}\nS> ACK {cseq}"));
        assert_eq!(bodies(&s), (sdp(offer), sdp(answer)));
    }
    // A fax offer that the other side rejects.
    s.play("S> reINVITE 7 sdp=o~v7~t38\nP> 488 INVITE 7\nS> nACK 7");
    assert_eq!(bodies(&s), (sdp("o~v6~p4100"), sdp("a~v6~p4200")));
}

#[test]
fn a_refresh_without_a_description_or_with_the_same_changes_nothing() {
    let mut s = outbound();
    s.up();
    s.told();
    s.play(
        "S> UPDATE 2
         P> 200 UPDATE 2
         S> reINVITE 3 sdp=offer
         P> 200 INVITE 3 sdp=answer
         S> ACK 3
         S> reINVITE 4 sdp=offer
         P> 200 INVITE 4
         S> ACK 4",
    );
    assert_eq!((s.session(), s.gaps()), (("offer".into(), "answer".into()), vec![]));
    assert_eq!(s.told(), ["changed"; 3], "once for each CSeq");
}
