use super::is_orphaned;
use crate::calls::model::Call;
use crate::recovery::permitted::Ground;
use crate::recovery::plan::tests::simple;

fn ground() -> Ground {
    Ground::of(&["10.9.0.100".parse().unwrap()])
}

fn call() -> Call {
    Call { confirmed_ms: 1000, ..simple("RTP/AVP 0", "RTP/AVP 0") }
}

#[test]
fn a_call_is_dead_only_with_its_process_and_its_ports() {
    assert!(is_orphaned(&call(), 1001, &ground(), |_| false));
    assert!(!is_orphaned(&call(), 1000, &ground(), |_| false), "the present process answered it");
    assert!(!is_orphaned(&call(), u64::MAX, &ground(), |_| true), "somebody still has its ports");
    for port in [10_000, 10_002] {
        assert!(!is_orphaned(&call(), u64::MAX, &ground(), |at| at.port() == port), "one leg's port is enough: {port}");
    }
}

#[test]
fn a_call_whose_audio_does_not_pass_the_server_lives_on() {
    let elsewhere = Ground::of(&["192.0.2.77".parse().unwrap()]);
    assert!(!is_orphaned(&call(), u64::MAX, &elsewhere, |_| false));
}

#[test]
fn a_call_that_the_agent_carries_is_not_the_servers() {
    let mut carried = call();
    carried.legs[1].carried = true;
    assert!(!is_orphaned(&carried, u64::MAX, &ground(), |_| false));
}
