use crate::calls::model::Call;
use crate::calls::table::script::{A, B, Dialog, Lab, Phone, Server};

const C: &str = "10.0.0.3:5080";

fn inbound(n: u32, callee: &str) -> Dialog {
    Dialog::new(&format!("in{n}"), A, false, "alice", callee)
}

fn outbound(n: u32, phone: &str, callee: &str) -> Dialog {
    Dialog::new(&format!("out{n}"), phone, true, "alice", callee)
}

fn pairs(calls: &[Call]) -> Vec<String> {
    let name = |c: &Call| c.legs.iter().map(|l| l.call_id.lossy()).collect::<Vec<_>>().join("+");
    let mut all: Vec<_> = calls.iter().map(name).collect();
    all.sort();
    all
}

/// The phone of `d` sends a REFER with this target, and the server answers it with `code`.
fn refer(lab: &mut Lab, d: &Dialog, to: &str, code: u16) {
    let more = format!("X-In-Dialog: 1\r\nRefer-To: <{to}>\r\n");
    lab.see(d.request(Phone, "REFER", 2, &more, "")).see(d.response(Server, code, "REFER", 2, "", ""));
}

/// Alice talks to Bob.
fn call(lab: &mut Lab) -> (Dialog, Dialog) {
    let (i, o) = (inbound(0, "bob"), outbound(0, B, "bob"));
    lab.b2bua(&i, &o).wait_ms(600_000);
    (i, o)
}

#[test]
fn after_a_blind_transfer_the_party_that_stayed_talks_to_the_target() {
    for leaves_first in [true, false] {
        let mut lab = Lab::new();
        let (i, _) = call(&mut lab);
        refer(&mut lab, &i, "sip:carol@example.org", 202);
        let target = outbound(1, C, "carol");
        lab.invited(&target).ringing(&target);
        if leaves_first {
            lab.hung_up(&i, Phone, 3).wait_ms(30_000).picked_up(&target);
        } else {
            lab.picked_up(&target).hung_up(&i, Server, 1);
        }
        lab.wait_ms(2000);
        assert_eq!(pairs(&lab.calls()), ["out0+out1"], "{leaves_first}");
        assert_eq!(lab.calls()[0].confidence, Some(90));
    }
}

#[test]
fn the_called_party_may_transfer_too() {
    let mut lab = Lab::new();
    let (_, o) = call(&mut lab);
    refer(&mut lab, &o, "sip:+1-555-0100123@example.org", 202);
    let target = outbound(1, C, "0015550100123");
    lab.invited(&target).hung_up(&o, Server, 2).wait_ms(5_000).picked_up(&target).wait_ms(2000);
    assert_eq!(pairs(&lab.calls()), ["in0+out1"]);
}

#[test]
fn after_an_attended_transfer_the_parties_that_stayed_are_the_pair() {
    for other_first in [true, false] {
        let mut lab = Lab::new();
        let (i, _) = call(&mut lab);
        let (second, carol) = (inbound(2, "carol"), outbound(2, C, "carol"));
        lab.b2bua(&second, &carol).wait_ms(60_000);
        let to = "sip:carol@example.org?Replaces=in2%3Bto-tag%3Dt-in2%3Bfrom-tag%3Df-in2";
        refer(&mut lab, &i, to, 202);
        if other_first {
            lab.hung_up(&second, Server, 1).hung_up(&i, Phone, 3);
        } else {
            lab.hung_up(&i, Phone, 3).hung_up(&second, Server, 1);
        }
        lab.wait_ms(2000);
        assert_eq!(pairs(&lab.calls()), ["out0+out2"], "{other_first}");
        assert_eq!(lab.calls()[0].confidence, Some(95));
    }
}

#[test]
fn a_refused_transfer_and_a_stranger_to_the_target_join_nobody() {
    // Refused: the phone hangs up later, and somebody else is called at that number.
    let mut lab = Lab::new();
    let (i, _) = call(&mut lab);
    refer(&mut lab, &i, "sip:carol@example.org", 603);
    let target = Dialog::new("out1", C, true, "zoe", "carol");
    lab.answered(&target).hung_up(&i, Phone, 3).wait_ms(2000);
    assert_eq!(pairs(&lab.calls()), ["out0", "out1"]);
    // Carol was called long before the REFER.
    let mut lab = Lab::new();
    lab.answered(&target);
    let (i, _) = call(&mut lab);
    refer(&mut lab, &i, "sip:carol@example.org", 202);
    lab.hung_up(&i, Phone, 3).wait_ms(2000);
    assert_eq!(pairs(&lab.calls()), ["out0", "out1"]);
    // Two calls to Carol since the REFER.
    let mut lab = Lab::new();
    let (i, _) = call(&mut lab);
    refer(&mut lab, &i, "sip:carol@example.org", 202);
    let others = ["zoe", "yan"].map(|caller| Dialog::new(&format!("to-{caller}"), C, true, caller, "carol"));
    lab.answered(&others[0]).answered(&others[1]).hung_up(&i, Phone, 3).wait_ms(2000);
    assert_eq!(pairs(&lab.calls()), ["out0", "to-yan", "to-zoe"]);
}

#[test]
fn a_transfer_that_takes_too_long_is_forgotten() {
    let mut lab = Lab::new();
    let (i, _) = call(&mut lab);
    refer(&mut lab, &i, "sip:carol@example.org", 202);
    lab.hung_up(&i, Phone, 3).wait_ms(200_000);
    let late = Dialog::new("out1", C, true, "zoe", "carol");
    lab.answered(&late).wait_ms(2000);
    assert!(!pairs(&lab.calls()).contains(&"out0+out1".to_owned()), "{:?}", pairs(&lab.calls()));
}
