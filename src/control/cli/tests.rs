use super::{REFUSED, USAGE, calls, history, status, switchover};
use crate::calls::latching::MediaCounters;
use crate::calls::tracker::Learning;
use crate::calls::tracker::{Counters, Load};
use crate::control::api::*;
use crate::health::CheckState;
use crate::health::CheckStatus;
use crate::hep::intake::Counters as HepCounts;
use crate::pbx::ConnectedKind;
use crate::pbx::ConnectedTo;
use crate::pbx::driver::ServerStatus;
use crate::pbx::former_calls::Former;
use crate::recovery::tally::{LostCalls, Tally};
use crate::wire::capture::CaptureCounters;
use crate::wire::path::PathCounters;

fn candidates() -> Candidates {
    let one = |node: &str, against: &[&str]| Candidate {
        node: node.to_owned(),
        priority: 100,
        against: against.iter().map(|a| (*a).to_owned()).collect(),
    };
    Candidates {
        instance: "pbx".to_owned(),
        master: Some("a".to_owned()),
        epoch: 7,
        candidates: vec![one("b", &["not heard for 3s"]), one("c", &[])],
        calls: Some(Tally { total: 5, kept: 4, audio: 1, ..Tally::default() }),
    }
}

fn losing() -> Tally {
    let reasons = vec![
        LostCalls { calls: 2, why: "in a conference of the server".to_owned(), cure: None },
        LostCalls { calls: 1, why: "half known".to_owned(), cure: Some("use HEP".to_owned()) },
    ];
    Tally { total: 120, kept: 117, lost: 3, lost_emergency: 1, reasons, ..Tally::default() }
}

#[test]
fn a_switchover_that_costs_calls_says_so_and_asks_again() {
    let c = candidates();
    let text = switchover::render(&c);
    assert!(text.ends_with("all 5 calls would be kept, 1 of them with audio only\n"), "{text}");
    assert_eq!(switchover::questions(&c, "c"), ["hand pbx over to c?"]);
    let c = Candidates { calls: Some(losing()), ..c };
    let text = switchover::render(&c);
    assert!(
        text.ends_with(
            "3 of 120 calls would be lost, 1 of them an emergency call: 2 (in a conference of the server), 1 (half \
             known)\n  = use HEP\n"
        ),
        "{text}"
    );
    let questions = switchover::questions(&c, "c");
    assert_eq!(questions[1..], ["this ends the audio of 3 calls. Hand over all the same?"]);
    // An older agent does not tell.
    let old = Candidates { calls: None, ..c };
    assert_eq!(switchover::questions(&old, "c").len(), 1);
}

#[test]
fn only_a_node_with_nothing_against_it_is_chosen() {
    let c = candidates();
    assert_eq!(switchover::choose(&c, None).unwrap(), "c");
    assert_eq!(switchover::choose(&c, Some("c")).unwrap(), "c");
    assert_eq!(switchover::choose(&c, Some("a")).unwrap_err().1, REFUSED);
    let (why, code) = switchover::choose(&c, Some("b")).unwrap_err();
    assert!(code == REFUSED && why.contains("not heard for 3s"), "{why}");
    assert_eq!(switchover::choose(&c, Some("z")).unwrap_err().1, USAGE);
    let none = Candidates { candidates: c.candidates[..1].to_vec(), ..c.clone() };
    assert_eq!(switchover::choose(&none, None).unwrap_err().1, REFUSED);
    let text = switchover::render(&c);
    assert!(
        text.contains("master a, epoch 7") && text.contains("not heard for 3s") && text.contains("can take over"),
        "{text}"
    );
}

#[test]
fn the_status_shows_master_nodes_checks_and_calls() {
    let text = status::render(&Status {
        cluster: "demo".to_owned(),
        election: ElectionStatus { longest_late_ms: 0, longest_round_ms: 977 },
        node: "a".to_owned(),
        etcd: EtcdStatus {
            error: None,
            healthy: true,
            changed: Some(EtcdChange { what: "etcd went back".to_owned(), at_ms: 0, count: 1 }),
            endpoints: vec![EndpointStatus {
                url: "http://e".to_owned(),
                error: Some("refused".to_owned()),
                alarm: Some("alarm NOSPACE".to_owned()),
                ..EndpointStatus::default()
            }],
        },
        instances: vec![InstanceStatus {
            promise_ms: 1000,
            held_down_ms: 75_000,
            warnings: vec!["the firewall chain \u{1b}[2J inet f x".to_owned()],
            name: "pbx".to_owned(),
            master: Some("a".to_owned()),
            hold: Some(HoldStatus { kind: "paired".to_owned(), remaining_ms: 312 }),
            server: Some(ServerStatus {
                protocol: "ami".to_owned(),
                address: "127.0.0.1:5038".to_owned(),
                connected: false,
                since_ms: 0,
                error: Some("login refused".to_owned()),
            }),
            checks: vec![CheckStatus {
                name: "options".to_owned(),
                state: CheckState::Failed,
                ..CheckStatus::default()
            }],
            calls: CallCounts {
                stored: 41,
                tracked: 42,
                carried: 43,
                takeover: Some(losing()),
                capture: Some(CaptureCounters {
                    seen: 81,
                    dropped: 82,
                    path: PathCounters { forged: 83, ..PathCounters::default() },
                    ..CaptureCounters::default()
                }),
                former: Some(Former { left: 84, unknown: 85, error: Some("set `write = call\u{1b}".to_owned()) }),
                media: MediaCounters { samples: 61, foreign: 62, doubtful: 63, believed: 64 },
                store: StoreCounts { plain_refused: 31, foreign_refused: 32, outdated: 33, ..StoreCounts::default() },
                hep: Some(HepCounts { received: 71, dropped: 72, ..HepCounts::default() }),
                relay: Some(RelayCounts { refused_calls: 65, not_media: 66, ..RelayCounts::default() }),
                learning: Some(Learning {
                    load: Load { unanswered: 91, ..Load::default() },
                    counters: Counters { not_learnt: 92, gave_way: 92, ..Counters::default() },
                }),
            },
            ..InstanceStatus::default()
        }],
        nodes: [None, Some(400_000), Some(3)]
            .map(|last_heard_ms| NodeStatus {
                last_heard_ms,
                summary: "evil \x1b[2J".to_owned(),
                ..NodeStatus::default()
            })
            .into(),
        ..Status::default()
    });
    for part in [
        "http://e: refused",
        "alarm NOSPACE",
        "pbx: WARNING: the firewall chain .[2J inet f x",
        "etcd went back",
        "still believes in 84 channels",
        "85 channels",
        "set `write = call.",
        "31 stored calls are refused, because they are not encrypted",
        "accept_key_files",
        "33 stored calls",
        "paired 312ms",
        "FAILED",
        "not heard",
        "SILENT",
        "NOT fit",
        "41",
        "42",
        "43",
        "HEP OF",
        "GAVE WAY",
        "91",
        "92",
        "127.0.0.1:5038",
        "NOT connected",
        "login refused",
        "71",
        "72",
        "NOT RELAYED OF",
        "65",
        "66",
        "61",
        "62",
        "63",
        "64",
        "83",
        "never",
        "evil .[2J",
        "STALLED for up to 977 ms",
        "is possible in 1m 15s\n",
        "at a takeover now, 3 of 120 calls would be lost",
        "  = use HEP\n",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(!text.contains('\x1b'));
}

#[test]
fn history_shows_steps_after_the_first() {
    let phase = |name: &str, unix_us| Phase { name: name.to_owned(), unix_us };
    let text = history::render(&[HistoryEntry {
        master: "b".to_owned(),
        previous: Some("a".to_owned()),
        at_ms: 1_700_000_000_123,
        phases: vec![phase("detected", 5_000_000), phase("committed", 5_012_345)],
        calls: Outcomes { total: 10, recovered: 9, gone: 1, one_way: 2, silent: 1, ..Outcomes::default() },
        ..HistoryEntry::default()
    }]);
    for part in [
        "a -> b",
        "2023-11-14T22:13:20.123Z",
        "committed +12.3 ms",
        "9 of 10 recovered (2 with audio of one party only, 1 without audio in the first seconds), 1 gone",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn calls_show_both_parties() {
    let leg = |direction: &str, remote: &str| LegRow {
        direction: direction.to_owned(),
        remote: remote.to_owned(),
        local: "sip:pbx".to_owned(),
        ..LegRow::default()
    };
    let call = CallRow { legs: vec![leg("outbound", "sip:bob"), leg("inbound", "sip:alice")], ..CallRow::default() };
    let text = calls::render(std::slice::from_ref(&call));
    let (alice, bob) = (text.find("sip:alice").unwrap(), text.find("sip:bob").unwrap());
    assert!(alice < bob, "{text}");
    let single = CallRow { legs: vec![leg("inbound", "sip:alice")], ..CallRow::default() };
    assert!(!text.contains("not recovered"), "nothing stands in the way");
    let mut half = call.clone();
    half.legs[0].obstacle = Some("its route set was not seen\x1b[2J".into());
    let text = calls::render(&[half]);
    assert!(
        text.contains("not recovered at a takeover:") && text.contains(": its route set was not seen.[2J"),
        "{text}"
    );
    let lost = CallRow { takeover: "lost".to_owned(), not_kept: Some("one leg".to_owned()), ..call.clone() };
    assert!(calls::render(&[lost]).contains("lost at a takeover:\n  : one leg"));
    let silent = CallRow { silent: Some("no audio of sip:bob".to_owned()), ..call.clone() };
    let text = calls::render(&[silent]);
    assert!(text.contains("not heard in the first seconds after the takeover:\n  : no audio of sip:bob"), "{text}");
    let refused = CallRow { not_relayed: Some("the audio goes to a place of SIP".to_owned()), ..call.clone() };
    assert!(calls::render(&[refused]).contains("not relayed at a takeover:\n  : the audio goes to a place of SIP"));
    assert!(calls::render(std::slice::from_ref(&single)).contains("(sip:pbx)"));
    let shown = |call: CallRow| calls::render(&[call]);
    let how = |pairing: &str, confidence| CallRow { pairing: Some(pairing.to_owned()), confidence, ..call.clone() };
    assert!(shown(how("evidence", Some(85))).contains("evidence 85"));
    assert!(!shown(how("bridge", Some(100))).contains("100"));
    let end = ConnectedTo { kind: ConnectedKind::Conference, name: "4711".to_owned() };
    assert!(shown(CallRow { other_end: Some(end), ..single }).contains("(conference 4711)"));
}

#[test]
fn requests_and_replies_survive_json() {
    let request = Request::Switchover { instance: None, to: Some("b".to_owned()) };
    let text = serde_json::to_string(&request).unwrap();
    assert_eq!(text, r#"{"switchover":{"instance":null,"to":"b"}}"#);
    assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
    assert_eq!(serde_json::from_str::<Request>("\"status\"").unwrap(), Request::Status);
    let error: Reply = serde_json::from_str(r#"{"error":{"message":"no","from_the_future":1}}"#).unwrap();
    assert_eq!(
        error,
        Reply::Error(ApiError { message: "no".to_owned(), advice: String::new(), kind: ErrorKind::Failed })
    );
}
