use super::{Gone, Target, first, group_of, members};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

struct Killed(Child);
impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sleeper() -> Killed {
    Killed(Command::new("sleep").arg("600").spawn().unwrap())
}

fn pid(child: &Killed) -> i32 {
    i32::try_from(child.0.id()).unwrap()
}

#[test]
fn a_process_is_found_by_the_name_that_the_kernel_knows() {
    let directory = tempfile::tempdir().unwrap();
    let name = format!("kc{}", std::process::id());
    let program = directory.path().join(&name);
    std::fs::copy("/bin/sleep", &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let target = Target::Name(name);
    assert!(matches!(target.find(), Err(Gone::NoName(_))));
    let mut older = Killed(Command::new(&program).arg("600").spawn().unwrap());
    assert_eq!(until(|| target.find().ok()), pid(&older));
    let younger = Killed(Command::new(&program).arg("600").spawn().unwrap());
    assert!(until(|| target.is(pid(&younger)).then_some(true)));
    assert_eq!(target.find().unwrap(), pid(&older), "of several, the oldest");
    older.0.kill().unwrap();
    // The unreaped older process is now a zombie: the living one counts.
    assert_eq!(until(|| target.find().ok().filter(|p| *p != pid(&older))), pid(&younger));
}

/// The first `Some` within a minute.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not come to pass within 60 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn pidfiles_that_lie_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pid");
    let target = Target::Pidfile(path.clone());
    assert!(matches!(target.find(), Err(Gone::NoPidfile(_))));
    for text in ["", "x", "-4", "0"] {
        std::fs::write(&path, text).unwrap();
        assert!(matches!(target.find(), Err(Gone::NoNumber(_))), "{text:?}");
    }
    let mut child = sleeper();
    std::fs::write(&path, format!("{}\n", child.0.id())).unwrap();
    assert_eq!(target.find().unwrap(), pid(&child));
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    assert!(matches!(target.find(), Err(Gone::Stale(..))));
    assert!(matches!(Target::Pidfile(PathBuf::from("/proc")).find(), Err(Gone::Unreadable(..))));
}

#[test]
fn a_unit_is_found_in_nested_slices_with_the_groups_inside_it() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let group = root.join("system.slice/system-pbx.slice/pbx@1.service");
    std::fs::create_dir_all(group.join("inner")).unwrap();
    std::fs::write(group.join("cgroup.procs"), "").unwrap();
    let child = sleeper();
    std::fs::write(group.join("inner/cgroup.procs"), format!("{}\n", child.0.id())).unwrap();
    assert_eq!(group_of(root, "pbx@1.service"), Some(group.clone()));
    assert_eq!(group_of(root, "other.service"), None);
    assert_eq!(members(&group), [pid(&child)]);
}

#[test]
fn the_process_that_started_the_others_is_the_one() {
    let child = sleeper();
    let own = i32::try_from(std::process::id()).unwrap();
    assert_eq!(first([pid(&child), own].into_iter()), Some(own), "the child's parent is in the set");
    assert_eq!(first([pid(&child)].into_iter()), Some(pid(&child)));
    assert_eq!(first(std::iter::empty()), None);
}

#[test]
fn without_systemd_a_unit_is_refused_with_advice() {
    let error = Target::Unit("kc-none.service".to_owned()).find().unwrap_err();
    let booted = std::path::Path::new("/run/systemd/system").exists();
    assert_eq!(error.to_string().contains("systemd does not run on this host"), !booted, "{error}");
}
