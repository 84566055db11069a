//! A call whose one party has hung up.

use super::super::script::{A, B, Dialog, Lab, Phone, Server};
use crate::calls::model::{Call, CallEvent, LegState};

fn pair() -> (Dialog, Dialog) {
    (Dialog::new("in", A, false, "1001", "1002"), Dialog::new("out", B, true, "1001", "1002"))
}

fn put(events: &[CallEvent]) -> &Call {
    let [.., CallEvent::Put(call)] = events else { panic!("{events:?}") };
    call
}

#[test]
fn the_store_remembers_who_hung_up_until_the_other_party_has_heard_of_it() {
    for second in [false, true] {
        let mut lab = Lab::new();
        let (i, o) = pair();
        lab.b2bua(&i, &o);
        lab.events();
        let (first, other) = if second { (&o, &i) } else { (&i, &o) };
        lab.hung_up(first, Phone, 2);
        let events = lab.events();
        let states: Vec<LegState> = put(&events).legs.iter().map(|l| l.state).collect();
        let mut expected = [LegState::Ended, LegState::Confirmed];
        if second {
            expected.reverse();
        }
        assert_eq!((states.as_slice(), lab.calls().len()), (&expected[..], 1));
        lab.see(other.request(Server, "BYE", 2, "", ""));
        assert!(!lab.events().iter().any(|e| matches!(e, CallEvent::Delete { .. })), "nobody has answered yet");
        lab.see(other.response(Phone, 200, "BYE", 2, "", ""));
        assert!(matches!(lab.events().as_slice(), [.., CallEvent::Delete { reason: "BYE", .. }]));
        lab.wait_ms(60_000);
        assert_eq!((lab.events(), lab.calls().len()), (vec![], 0));
    }
}

#[test]
fn a_bye_of_the_server_or_a_transfer_says_nothing_of_the_other_party() {
    for transfer in [false, true] {
        let mut lab = Lab::new();
        let (i, o) = pair();
        lab.b2bua(&i, &o);
        lab.events();
        if transfer {
            lab.see(o.request(Phone, "REFER", 2, "Refer-To: <sip:1003@example.org>\r\n", ""))
                .see(o.response(Server, 202, "REFER", 2, "", ""))
                .hung_up(&o, Phone, 3);
        } else {
            lab.hung_up(&o, Server, 2);
        }
        let events = lab.events();
        assert!(matches!(events.last(), Some(CallEvent::Delete { .. })), "{transfer} {events:?}");
    }
}
