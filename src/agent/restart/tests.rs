use super::*;

#[test]
fn only_a_restart_of_this_unit_is_one() {
    let jobs = "  1234 keepcall.service     restart running\n99 other.service restart waiting\n";
    assert!(restarts(jobs, "keepcall.service"));
    assert!(!restarts("1234 keepcall.service stop running\n99 other.service restart waiting\n", "keepcall.service"));
    assert!(!restarts("No jobs running.\n", "keepcall.service"));
    assert!(!restarts("", "keepcall.service"));
}
