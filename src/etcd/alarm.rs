//! Alarms that a member reports about itself. Pure.

/// Describes the alarm in a member's status, with the cure; `None` without one.
pub(super) fn describe(errors: &[String]) -> Option<String> {
    let found = |word: &str| errors.iter().any(|e| e.contains(word));
    if found("CORRUPT") {
        return Some(
            "alarm CORRUPT: the data of one member differ from the other members' data, and etcd refuses requests. \
             Find the member with `etcdctl alarm list` and `etcdctl endpoint hashkv`, remove it, add it again with \
             an empty data directory, then run `etcdctl alarm disarm`"
                .to_owned(),
        );
    }
    if found("NOSPACE") {
        return Some(
            "alarm NOSPACE: etcd refuses all writes. Remove old revisions (`etcdctl compact`, `etcdctl defrag`) or \
             raise --quota-backend-bytes, then run `etcdctl alarm disarm`"
                .to_owned(),
        );
    }
    // An alarm kind of a later etcd, in its own words: \"memberID:... alarm:...\".
    errors.iter().find(|e| e.contains("alarm:")).map(|e| format!("etcd alarm: {e}; see `etcdctl alarm list`"))
}

#[cfg(test)]
mod tests {
    use super::describe;

    #[test]
    fn each_alarm_is_told_with_its_cure_and_other_troubles_are_not_alarms() {
        let told = |e: &str| describe(&[e.to_owned()]);
        assert!(told("memberID:10276657743932975437 alarm:NOSPACE ").is_some_and(|t| t.contains("alarm disarm")));
        assert!(told("memberID:1 alarm:CORRUPT ").is_some_and(|t| t.contains("hashkv")));
        assert!(told("memberID:1 alarm:TOMORROW ").is_some_and(|t| t.contains("TOMORROW")));
        assert_eq!(told("etcdserver: no leader"), None);
        assert_eq!(describe(&[]), None);
    }
}
