use super::*;
use crate::calls::model::CallEvent;
use crate::calls::table::Table;
use crate::calls::table::script::{A, Dialog, Phone, Server};

#[test]
fn few_packets_are_sampled_and_never_more_than_one_core_feels() {
    for legs in [0, 1, 20, 100, 2000, 20_000] {
        let all = u32::try_from(legs.max(1)).unwrap() * PACKETS;
        assert!(all / one_in(legs, true) <= MOST + 1, "{legs} legs: one in {}", one_in(legs, true));
        assert!(all / one_in(legs, false) <= SETTLED.max(PACKETS) + 1);
        assert!(one_in(legs, false) >= one_in(legs, true));
    }
}

/// The server's RTP address in the scripts, and the phone's own.
const HERE: &str = "10.0.0.1:4000";
const NAT: &str = "198.51.100.7:61000";
const STRANGER: &str = "192.0.2.66:9";

fn sources_told(lab: &mut crate::calls::table::script::Lab) -> Vec<Vec<Option<SocketAddr>>> {
    let told = lab.events().into_iter().filter_map(|e| match e {
        CallEvent::Put(call) => Some(call.legs[0].rtp_sources.clone()),
        CallEvent::Delete { .. } => None,
    });
    told.collect()
}

fn sample(table: &mut Table, src: &str, times: usize, now: Time) {
    for _ in 0..times {
        table.handle_rtp(src.parse().unwrap(), HERE.parse().unwrap(), now);
    }
}

#[test]
fn a_source_counts_when_three_samples_in_a_row_agree() {
    let mut lab = crate::calls::table::script::Lab::new();
    lab.answered(&Dialog::new("in", A, false, "1000", "2000")).wait_ms(1100);
    assert_eq!(sources_told(&mut lab), [vec![]]);
    assert!(lab.table.wants_one_in().is_some());

    let now = lab.now;
    sample(&mut lab.table, NAT, 2, now);
    sample(&mut lab.table, STRANGER, 1, now);
    sample(&mut lab.table, NAT, 2, now);
    assert_eq!(sources_told(&mut lab), [] as [Vec<_>; 0], "interrupted");
    sample(&mut lab.table, NAT, 10, now);
    assert_eq!(sources_told(&mut lab), [vec![Some(NAT.parse().unwrap())]], "once");

    // The phone's NAT gives it another port; then it is seen where it says it is.
    lab.wait_ms(5000);
    let now = lab.now;
    sample(&mut lab.table, "198.51.100.7:61002", 3, now);
    assert_eq!(sources_told(&mut lab), [vec![Some("198.51.100.7:61002".parse().unwrap())]]);
    sample(&mut lab.table, HERE, 3, now);
    assert_eq!(sources_told(&mut lab), [vec![None]]);
}

#[test]
fn what_was_seen_is_forgotten_with_the_call_and_with_a_new_description() {
    let mut lab = crate::calls::table::script::Lab::new();
    let d = Dialog::new("in", A, false, "1000", "2000");
    lab.answered(&d).wait_ms(1100);
    let now = lab.now;
    sample(&mut lab.table, NAT, 3, now);
    lab.events();
    // The phone describes itself anew, at the same place (it holds the call, say): what was seen is still so.
    lab.see(d.request(Phone, "INVITE", 2, "X-In-Dialog: 1\r\n", "held"))
        .see(d.response(Server, 200, "INVITE", 2, "", "answer"))
        .see(d.request(Phone, "ACK", 2, "", ""));
    assert_eq!(sources_told(&mut lab), [vec![Some(NAT.parse().unwrap())]]);
    // At another place: what was seen before says nothing of it.
    lab.see(d.request(Phone, "INVITE", 3, "X-In-Dialog: 1\r\n", "moved:4002"))
        .see(d.response(Server, 200, "INVITE", 3, "", "answer"))
        .see(d.request(Phone, "ACK", 3, "", ""));
    assert_eq!(sources_told(&mut lab), [vec![]]);
    lab.hung_up(&d, Phone, 4).wait_ms(40_000);
    lab.events();
    let now = lab.now;
    sample(&mut lab.table, NAT, 3, now);
    assert_eq!(sources_told(&mut lab), [] as [Vec<_>; 0]);
    assert_eq!(lab.table.wants_one_in(), None, "without calls nothing is sampled");
}
