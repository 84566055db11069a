//! Holds the shape of the house: which room may import which, which files may touch the world, and how long a file may be.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// For each room, the rooms that it may import. Data flows from left to right in `docs/architecture.md`; nobody imports
/// `agent`, and only `agent` and `main` import `control`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // Only with the cargo feature for tests.
    ("faults", &[]),
    ("time", &[]),
    ("clock", &["time"]),
    ("config", &[]),
    ("sip", &[]),
    ("etcd", &["config", "time", "clock"]),
    ("cluster", &["config", "etcd", "time", "clock"]),
    ("health", &["config", "sip", "time", "clock"]),
    ("vip", &["config", "time", "clock"]),
    ("calls", &["config", "faults", "sip", "etcd", "time", "clock"]),
    ("recovery", &["calls", "config", "sip", "vip", "time", "clock"]),
    ("control", &["config", "calls", "cluster", "health", "recovery", "time", "clock"]),
    ("agent", &["calls", "clock", "cluster", "config", "control", "etcd", "faults", "health", "recovery", "sip", "time", "vip"]),
];

/// The only files that may do I/O or read a clock. Whatever is not named here is pure: values in, actions out.
const DRIVERS: &[&str] = &[
    "agent/",
    "clock.rs",
    "config/load.rs",
    "config/load/",
    "calls/capture.rs",
    "calls/capture/",
    "calls/hep/listener.rs",
    "calls/hep/listener/",
    "calls/inspect.rs",
    "calls/inspect/file.rs",
    "calls/server/driver.rs",
    "calls/server/driver/",
    "calls/store.rs",
    "calls/store/",
    "cluster/driver.rs",
    "cluster/driver/",
    "cluster/lease.rs",
    "cluster/store.rs",
    "control/",
    "etcd/changes.rs",
    "etcd/client.rs",
    "etcd/endpoint.rs",
    "etcd/probe.rs",
    "etcd/spread.rs",
    "etcd/watch.rs",
    "faults.rs",
    "health/monitor.rs",
    "health/options.rs",
    "health/process.rs",
    "health/sys.rs",
    "main.rs",
    "recovery/media/kernel.rs",
    "recovery/media/kernel/",
    "vip/",
];

/// What a pure file must not name.
const IMPURE: &[&str] = &[
    "tokio",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "socket2",
    "nix::",
    "libc::",
    "Instant::now",
    "SystemTime",
    "clock::",
    "std::fs",
    "std::process",
    "std::thread",
    "getrandom",
];

fn sources() -> Vec<PathBuf> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let mut out = Vec::new();
    walk(&root().join("src"), &mut out);
    assert!(out.len() > 20, "found only {} source files: is this the right folder?", out.len());
    out
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn name(path: &Path) -> String {
    path.strip_prefix(root().join("src")).unwrap().to_string_lossy().into_owned()
}

/// Tests, and what only tests are made of: the simulation and the exploration of the election.
fn is_test(name: &str) -> bool {
    let proofs = ["cluster/election/sim/", "cluster/election/explore/"];
    name.ends_with("tests.rs") || name.contains("/tests/") || proofs.iter().any(|p| name.starts_with(p))
}

/// The code lines of a file: without comments, and without what comes after an inline `mod tests {`.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .enumerate()
        .take_while(|(_, l)| !l.trim_start().starts_with("mod tests {"))
        .filter(|(_, l)| !l.trim_start().starts_with("//"))
        .map(|(i, l)| (i + 1, l.to_owned()))
        .collect()
}

fn room(name: &str) -> &str {
    let first = name.split('/').next().unwrap();
    first.strip_suffix(".rs").unwrap_or(first)
}

#[test]
fn rooms_import_only_what_comes_before_them() {
    let allowed: BTreeMap<_, _> = MAY_IMPORT.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for path in sources() {
        let name = name(&path);
        let room = room(&name);
        if matches!(room, "lib" | "main") || is_test(&name) {
            continue;
        }
        let may =
            allowed.get(room).unwrap_or_else(|| panic!("room {room} ({name}) is not in MAY_IMPORT: say what it may import"));
        for (line, text) in code(&path) {
            for part in text.split("crate::").skip(1) {
                let to: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !allowed.contains_key(to.as_str()) {
                    continue;
                }
                seen += 1;
                if to != room && !may.contains(&to.as_str()) {
                    wrong.push(format!("{name}:{line}: {room} must not import {to}"));
                }
            }
        }
    }
    assert!(seen > 20, "saw only {seen} imports between rooms: the search is broken");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn decisions_touch_neither_socket_nor_clock() {
    let mut wrong = Vec::new();
    let mut pure = 0;
    for path in sources() {
        let name = name(&path);
        if is_test(&name) || DRIVERS.iter().any(|d| name.starts_with(d)) {
            continue;
        }
        pure += 1;
        for (line, text) in code(&path) {
            for word in IMPURE {
                if text.contains(word) {
                    wrong.push(format!("{name}:{line}: a pure file names {word}"));
                }
            }
        }
    }
    assert!(pure > 15, "only {pure} pure files found: the list of drivers is too wide");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_driver_exists() {
    for driver in DRIVERS.iter().filter(|d| d.ends_with(".rs")) {
        let stem = driver.trim_end_matches(".rs");
        let (file, folder) = (root().join("src").join(driver), root().join("src").join(stem));
        assert!(file.exists() || folder.exists(), "{driver} is named as a driver but does not exist");
    }
}

#[test]
fn no_file_is_longer_than_800_lines() {
    let long: Vec<String> = sources()
        .iter()
        .map(|p| (name(p), fs::read_to_string(p).unwrap().lines().count()))
        .filter(|(_, lines)| *lines > 800)
        .map(|(name, lines)| format!("{name} has {lines} lines: split it by idea"))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}
