use super::*;

#[test]
fn glare_waits_as_the_owner_of_the_call_id_decides_and_ends() {
    let mut t = Tries::default();
    assert_eq!(t.judge(491, None, None, Direction::Outbound), Step::Later(2100, 4000));
    assert_eq!(t.judge(491, None, None, Direction::Inbound), Step::Later(0, 2000));
    for _ in 2..MAX_GLARE {
        assert!(matches!(t.judge(491, None, None, Direction::Inbound), Step::Later(..)));
    }
    assert_eq!(t.judge(491, None, None, Direction::Inbound), Step::Settle(Verdict::Refused(491)));
}

#[test]
fn a_low_cseq_is_raised_once() {
    let mut t = Tries::default();
    assert_eq!(t.judge(500, None, None, Direction::Inbound), Step::Again(CSEQ_GAP));
    assert_eq!(t.judge(500, None, None, Direction::Inbound), Step::Settle(Verdict::Refused(500)));
    assert_eq!(t.judge(500, Some(3), None, Direction::Inbound), Step::Later(3000, 3500));
    assert_eq!(t.judge(500, Some(3), None, Direction::Inbound), Step::Settle(Verdict::Refused(500)));
    assert_eq!(Tries::default().judge(503, Some(600), None, Direction::Inbound), Step::Settle(Verdict::Refused(503)));
}

#[test]
fn only_a_lost_dialog_ends_the_call() {
    let judge = |code| Tries::default().judge(code, None, None, Direction::Inbound);
    assert_eq!(judge(481), Step::Settle(Verdict::Gone));
    assert_eq!(judge(408), Step::Settle(Verdict::Unreachable));
    for code in [302, 401, 407, 422, 486, 488, 503, 603] {
        assert_eq!(judge(code), Step::Settle(Verdict::Refused(code)));
    }
    let mut t = Tries::default();
    assert_eq!(t.judge(422, None, Some(1800), Direction::Inbound), Step::Again(1));
    assert_eq!(t.min_se, Some(1800));
}

#[test]
fn timers_follow_the_role() {
    assert_eq!(timer(1800, true), (Some(Duration::from_secs(900)), Duration::from_secs(1800)));
    assert_eq!(timer(1800, false), (None, Duration::from_secs(1768)));
    assert_eq!(timer(90, false), (None, Duration::from_secs(60)));
}
