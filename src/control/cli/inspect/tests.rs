use super::*;
use crate::inspect::report::{Certainty, Chosen, Lost, RtpTotals, Summary, Traffic};

#[test]
fn a_report_can_be_read() {
    let report: Report = Report {
        schema: 1,
        server: Chosen { addresses: vec!["10.0.0.9".parse().unwrap()], ports: vec![5060], certainty: Certainty::Given },
        servers: Vec::new(),
        first_ms: Some(1_700_000_000_123),
        last_ms: Some(1_700_000_001_000),
        calls: Vec::new(),
        legs_left_out: 0,
        other_requests: std::collections::BTreeMap::new(),
        traffic: Traffic::default(),
        rtp: RtpTotals::default(),
        counters: crate::calls::tracker::Counters::default(),
        summary: Summary {
            answered: 3,
            kept: 2,
            audio_only: 0,
            elsewhere: 0,
            lost: vec![Lost { calls: 1, why: "no".to_owned() }],
        },
        notes: vec!["evil \x1b[2J".to_owned()],
        truncated: Some("the file ends".to_owned()),
    };
    let text = render(&report, false);
    for part in [
        "server: 10.0.0.9 port 5060 (given)",
        "2023-11-14T22:13:20.123Z",
        "calls: 0",
        "if the server failed: of 3 answered calls 2 would be kept; the rest: 1: no",
        "note: evil .[2J",
        "not read to its end: the file ends",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains('\x1b') && find(&report, "1").is_none());
}
