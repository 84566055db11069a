use super::Monitor;
use crate::config::{Check, Process, SipOptions};
use crate::health::{CheckState, CheckStatus, Verdict};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use tokio::sync::watch::Receiver;

struct Killed(Child);
impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sleeper(pidfile: &Path) -> Killed {
    let child = Killed(Command::new("sleep").arg("600").spawn().unwrap());
    std::fs::write(pidfile, child.0.id().to_string()).unwrap();
    child
}

fn check(name: &str, interval: Duration, fatal: bool) -> Check {
    let timeout = interval / 2;
    Check { name: name.to_owned(), interval, timeout, rise: 2, fall: 3, fatal, sip_options: None, process: None }
}

fn process(pidfile: &Path, interval: Duration) -> Check {
    let process = Process { pidfile: Some(pidfile.to_owned()), name: None, unit: None };
    Check { process: Some(process), ..check("process", interval, true) }
}

async fn until(verdict: &mut Receiver<Verdict>, what: &str, mut holds: impl FnMut(&Verdict) -> bool) -> Verdict {
    let wait = verdict.wait_for(|v| holds(v));
    let seen = tokio::time::timeout(Duration::from_secs(60), wait).await.map(|v| v.unwrap().clone());
    seen.unwrap_or_else(|_| panic!("never {what}"))
}

fn signal(child: &Killed, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(child.0.id()).unwrap()), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_a_process_is_told_at_once_and_not_by_polling() {
    let directory = tempfile::tempdir().unwrap();
    let pidfile = directory.path().join("pid");
    let mut took = Vec::new();
    for _ in 0..5 {
        let child = sleeper(&pidfile);
        // With an hour between two looks, only the kernel's event can report the death.
        let mut verdict = Monitor::start(&[process(&pidfile, Duration::from_secs(3600))]);
        until(&mut verdict, "fit", |v| v.fit).await;
        let killed = Instant::now();
        signal(&child, nix::sys::signal::Signal::SIGKILL);
        let v = until(&mut verdict, "unfit", |v| !v.fit).await;
        took.push(killed.elapsed());
        assert_eq!(v.checks[0].state, CheckState::Failed);
        assert!(v.summary.contains("has ended"), "{}", v.summary);
    }
    took.sort();
    eprintln!("from kill(2) to the verdict: {took:?}");
    // Without load it takes some 200 microseconds. Polling, or a missed event in any round, would take an hour.
    assert!(took[0] < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_is_dead_and_good_again_when_it_runs() {
    let directory = tempfile::tempdir().unwrap();
    let pidfile = directory.path().join("pid");
    let child = sleeper(&pidfile);
    let mut verdict = Monitor::start(&[process(&pidfile, Duration::from_millis(20))]);
    until(&mut verdict, "fit", |v| v.fit).await;
    signal(&child, nix::sys::signal::Signal::SIGSTOP);
    let v = until(&mut verdict, "unfit", |v| !v.fit).await;
    assert!(v.summary.contains("is stopped"), "{}", v.summary);
    signal(&child, nix::sys::signal::Signal::SIGCONT);
    until(&mut verdict, "fit again", |v| v.fit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_is_followed_even_beside_the_zombie_of_the_old_one() {
    let directory = tempfile::tempdir().unwrap();
    let pidfile = directory.path().join("pid");
    let old = sleeper(&pidfile);
    let mut verdict = Monitor::start(&[process(&pidfile, Duration::from_millis(20))]);
    until(&mut verdict, "fit", |v| v.fit).await;
    // Left unreaped: it stays a zombie.
    signal(&old, nix::sys::signal::Signal::SIGKILL);
    until(&mut verdict, "unfit", |v| !v.fit).await;
    let new = sleeper(&pidfile);
    until(&mut verdict, "fit again", |v| v.fit).await;
    signal(&new, nix::sys::signal::Signal::SIGKILL);
    until(&mut verdict, "unfit again", |v| !v.fit).await;
}

#[tokio::test]
async fn a_check_that_is_not_fatal_fails_without_making_the_node_unfit() {
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = SipOptions { target: closed, uri: None, codes: vec!["2xx".to_owned()] };
    let mut minor = Check { sip_options: Some(options), ..check("minor", Duration::from_secs(1), false) };
    minor.fall = 1;
    let verdict = Monitor::start(std::slice::from_ref(&minor));
    // Within the grace after the start the state stays unknown, and no receiver is woken: poll until the probe is
    // there.
    let deadline = Instant::now() + Duration::from_secs(60);
    // A probe that waited longer for the processor than for the answer only reports that no answer came.
    while verdict.borrow().checks[0].last.as_ref().is_none_or(|p| !p.detail.contains("port unreachable")) {
        assert!(Instant::now() < deadline, "never probed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let v = verdict.borrow().clone();
    assert!(
        v.fit && v.checks[0].last.as_ref().is_some_and(|p| !p.ok && p.detail.contains("port unreachable")),
        "{v:?}"
    );
}

#[test]
fn failures_count_against_a_node_by_whether_they_are_fatal() {
    let status = |fatal, state| CheckStatus { name: "c".to_owned(), fatal, state, ..CheckStatus::default() };
    for (fatal, state, fit) in [
        (true, CheckState::Good, true),
        (true, CheckState::Failed, false),
        (true, CheckState::Unknown, false),
        (false, CheckState::Failed, true),
        (false, CheckState::Unknown, true),
    ] {
        assert_eq!(Verdict::of(vec![status(fatal, state)]).fit, fit, "fatal {fatal} {state:?}");
    }
}

#[tokio::test]
async fn a_node_is_not_fit_before_its_fatal_checks_have_spoken() {
    let directory = tempfile::tempdir().unwrap();
    let verdict = Monitor::start(&[process(&directory.path().join("none"), Duration::from_millis(20))]);
    let first = verdict.borrow().clone();
    assert!(!first.fit && first.summary.contains("waiting"), "{first:?}");
    assert!(Verdict::of(Vec::new()).fit);
}

#[test]
fn a_verdict_is_decided_by_fatal_checks_only() {
    let check = |state, fatal| CheckStatus { state, fatal, ..CheckStatus::default() };
    use CheckState::{Failed, Good, Unknown};
    for (checks, decided) in [
        (vec![], Some(true)),
        (vec![check(Unknown, true)], None),
        (vec![check(Good, true), check(Unknown, true)], None),
        (vec![check(Failed, true), check(Unknown, true)], Some(false)),
        (vec![check(Good, true), check(Unknown, false), check(Failed, false)], Some(true)),
    ] {
        assert_eq!(Verdict::of(checks.clone()).decided(), decided, "{checks:?}");
    }
}
