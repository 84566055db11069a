use super::*;

const A: u64 = 0xa;
const B: u64 = 0xb;

fn at(ms: u64) -> Time {
    Time::ZERO + Duration::from_millis(ms)
}

/// Sends a request and answers it at once.
fn answer(it: &mut Identity, endpoint: usize, cluster: u64, revision: i64, ms: u64) -> Verdict {
    let sent = it.send(endpoint);
    it.handle_header(endpoint, sent, Header { cluster, revision: Some(revision) }, at(ms))
}

/// Three endpoints of cluster A at revision 100.
fn three() -> Identity {
    let mut it = Identity::new(3);
    assert_eq!(answer(&mut it, 0, A, 100, 0), Verdict::Unsettled);
    assert_eq!(answer(&mut it, 1, A, 100, 0), Verdict::Good);
    for i in [0, 2] {
        assert_eq!(answer(&mut it, i, A, 100, 0), Verdict::Good);
    }
    it
}

#[test]
fn a_restored_or_wiped_store_is_noticed_by_the_first_answer() {
    for (endpoints, now) in [(1, 7), (3, 7), (3, 99)] {
        let mut it = if endpoints == 1 { Identity::new(1) } else { three() };
        assert_eq!(answer(&mut it, 0, A, 100, 0), Verdict::Good);
        let stale = it.send(0);
        assert_eq!(answer(&mut it, 0, A, now, 500), Verdict::Changed(Change::WentBack { before: 100, now }));
        // An answer to an earlier request no longer counts, whatever it says.
        let header = Header { cluster: A, revision: Some(200) };
        assert_eq!(it.handle_header(0, stale, header, at(501)), Verdict::Stale);
        // From now on this is etcd; the other members' answers are no further change.
        for i in 0..endpoints {
            assert_eq!(answer(&mut it, i, A, now, 600), Verdict::Good);
        }
    }
}

#[test]
fn answers_that_cross_each_other_are_no_sign() {
    let mut it = three();
    let early = it.send(0);
    assert_eq!(answer(&mut it, 1, A, 140, 1), Verdict::Good);
    assert_eq!(it.handle_header(0, early, Header { cluster: A, revision: Some(120) }, at(2)), Verdict::Good);
    // A member that may lag is not judged by its revision.
    let sent = it.send(2);
    assert_eq!(it.handle_header(2, sent, Header { cluster: A, revision: None }, at(3)), Verdict::Good);
}

#[test]
fn a_member_of_another_cluster_is_named_and_not_used_until_it_is_most_of_them() {
    let mut it = three();
    assert!(
        matches!(answer(&mut it, 2, B, 5_000, 10), Verdict::Stranger(why) if why.contains("another etcd cluster (b)"))
    );
    assert_eq!(answer(&mut it, 0, A, 101, 20), Verdict::Good);
    assert!(matches!(answer(&mut it, 2, B, 5_001, 30), Verdict::Stranger(_)));
    assert_eq!(answer(&mut it, 1, B, 5_002, 40), Verdict::Changed(Change::OtherCluster { before: A, now: B }));
    assert_eq!(answer(&mut it, 2, B, 5_003, 50), Verdict::Good);
    assert!(matches!(answer(&mut it, 0, A, 102, 60), Verdict::Stranger(_)));
}

#[test]
fn a_member_that_comes_back_to_its_cluster_is_used_again() {
    let mut it = three();
    assert!(matches!(answer(&mut it, 2, B, 3, 10), Verdict::Stranger(_)));
    assert_eq!(answer(&mut it, 2, A, 100, 20), Verdict::Good);
}

#[test]
fn at_the_start_most_of_those_that_answer_are_right_and_a_foreign_one_is_not() {
    let mut it = Identity::new(3);
    assert_eq!(answer(&mut it, 0, B, 900, 0), Verdict::Unsettled);
    assert_eq!(answer(&mut it, 1, A, 10, 0), Verdict::Unsettled);
    assert_eq!(answer(&mut it, 2, A, 10, 0), Verdict::Good);
    assert!(matches!(answer(&mut it, 0, B, 901, 0), Verdict::Stranger(_)));
    // Only one member answers at all.
    let mut it = Identity::new(3);
    it.settle();
    assert!(!it.is_settled(), "nobody answered");
    assert_eq!(answer(&mut it, 1, A, 10, 0), Verdict::Unsettled);
    it.settle();
    assert_eq!(answer(&mut it, 1, A, 10, 0), Verdict::Good);
    // A tie: the order of the configuration decides.
    let mut it = Identity::new(2);
    assert_eq!(answer(&mut it, 1, B, 10, 0), Verdict::Unsettled);
    assert_eq!(answer(&mut it, 0, A, 10, 0), Verdict::Unsettled);
    it.settle();
    assert_eq!(answer(&mut it, 0, A, 10, 0), Verdict::Good);
}

#[test]
fn one_member_with_less_data_than_the_others_is_not_used_and_not_believed() {
    let mut it = three();
    assert_eq!(answer(&mut it, 0, A, 150, 1_000), Verdict::Good);
    // It never went beyond 100.
    assert!(matches!(answer(&mut it, 2, A, 110, 1_100), Verdict::Behind(why) if why.contains("110")));
    assert_eq!(answer(&mut it, 1, A, 151, 1_200), Verdict::Good);
    assert!(matches!(answer(&mut it, 2, A, 111, 2_000), Verdict::Behind(_)));
    // It is believed once no other member can contradict it.
    let verdict = answer(&mut it, 2, A, 111, 1_200 + 3_000);
    assert_eq!(verdict, Verdict::Changed(Change::WentBack { before: 151, now: 111 }));
}

/// Each answer is judged by what was known at its request; linearizability promises no more.
#[test]
fn no_order_of_honest_answers_is_a_sign_and_every_step_back_is_one() {
    use proptest::prelude::*;
    proptest!(|(steps in proptest::collection::vec((0_usize..3, 0_i64..4, any::<bool>()), 1..80), back in 1_i64..50)| {
        let mut it = three();
        let (mut truth, mut open) = (100, Vec::new());
        for (n, (endpoint, grows, answered)) in steps.into_iter().enumerate() {
            truth += grows;
            // The member answers with the truth of some moment after the request; the answer may be late.
            let request = (endpoint, it.send(endpoint), truth);
            open.push(request);
            if answered && let Some((e, sent, revision)) = open.pop() {
                let header = Header { cluster: A, revision: Some(revision) };
                prop_assert_eq!(it.handle_header(e, sent, header, at(n as u64)), Verdict::Good);
            }
        }
        for (e, sent, revision) in open {
            let header = Header { cluster: A, revision: Some(revision) };
            prop_assert_eq!(it.handle_header(e, sent, header, at(1_000)), Verdict::Good);
        }
        let all = truth + 1;
        prop_assert_eq!(answer(&mut it, 1, A, all, 1_001), Verdict::Good);
        let verdict = answer(&mut it, 1, A, all - back, 1_002);
        prop_assert_eq!(verdict, Verdict::Changed(Change::WentBack { before: all, now: all - back }));
    });
}
