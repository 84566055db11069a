//! Holds the shape of the house: which room may import which, which files may touch the world, and how long a file may
//! be. The source is parsed, so that `use` trees, `super::` and re-exports count as what they are.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod rules;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tree::Module;

/// For each room, the rooms it may import. Data flows from left to right in `docs/architecture.md`. No room imports
/// `agent`, and only `agent` and `main` import `control`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // Only with the test feature.
    ("faults", &["sync"]),
    ("budget", &[]),
    ("fnv", &[]),
    ("sync", &[]),
    ("time", &[]),
    ("os", &["time"]),
    ("config", &["os"]),
    ("sip", &[]),
    ("wire", &["sip", "time", "os"]),
    ("hep", &["budget", "config", "faults", "sip", "time", "os", "wire", "sync"]),
    ("pbx", &["faults", "time", "os", "sync"]),
    ("etcd", &["config", "time", "os", "sync"]),
    ("cluster", &["config", "etcd", "time", "os", "sync"]),
    ("health", &["config", "sip", "time", "os"]),
    ("vip", &["config", "fnv", "time", "os", "sync"]),
    ("calls", &["budget", "config", "faults", "sip", "etcd", "pbx", "time", "os", "wire", "sync"]),
    ("recovery", &["calls", "config", "fnv", "sip", "vip", "time", "os", "wire", "sync"]),
    ("inspect", &["calls", "hep", "recovery", "sip", "time", "wire"]),
    ("control", &["config", "calls", "cluster", "health", "hep", "inspect", "pbx", "recovery", "time", "os", "wire"]),
    (
        "agent",
        &[
            "calls", "cluster", "config", "control", "etcd", "faults", "health", "hep", "os", "pbx", "recovery", "sip",
            "sync", "time", "vip", "wire",
        ],
    ),
];

/// The only files that may do I/O or read a clock. Every other file is pure: values in, actions out.
const DRIVERS: &[&str] = &[
    "agent.rs",
    "agent/",
    "config/load.rs",
    "config/load/",
    "calls/store.rs",
    "calls/store/",
    "cluster/driver.rs",
    "cluster/driver/",
    "cluster/lease.rs",
    "cluster/store.rs",
    "control.rs",
    "control/",
    "etcd/client.rs",
    "etcd/client/",
    "etcd/endpoint.rs",
    "etcd/probe.rs",
    "faults.rs",
    "health/monitor.rs",
    "health/options.rs",
    "health/probe.rs",
    "health/process.rs",
    "hep/listener.rs",
    "hep/listener/",
    "inspect.rs",
    "inspect/source.rs",
    "main.rs",
    "os.rs",
    "os/",
    "pbx/driver.rs",
    "pbx/driver/",
    "recovery/media/kernel.rs",
    "recovery/media/kernel/",
    "vip.rs",
    "vip/",
    "wire/capture.rs",
    "wire/capture/",
];

/// Names that a pure file must not use.
const IMPURE: &[&[&str]] = &[
    &["tokio"],
    &["socket2"],
    &["nix"],
    &["libc"],
    &["getrandom"],
    &["os"],
    &["std", "fs"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "env"],
    &["UdpSocket"],
    &["TcpStream"],
    &["TcpListener"],
    &["UnixStream"],
    &["Instant"],
    &["SystemTime"],
];

/// Names that only the room `os` may use: there, each has a safe interface.
const RAW: &[&str] = &["unsafe", "unsafe_code", "libc"];

/// Most lines in one file: one idea.
const LONGEST: usize = 500;
/// A room with this part of all lines is more than one room.
const BIGGEST: f64 = 0.2;

/// Tests, and their own material: the simulation and the exploration of the election.
fn is_test(file: &str) -> bool {
    let proofs = ["cluster/election/sim", "cluster/election/explore"];
    let proof = |p: &&str| file.strip_prefix(*p).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'));
    file.ends_with("tests.rs") || file.contains("/tests/") || proofs.iter().any(proof)
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The program without its tests, `lib.rs` and `main.rs`.
fn program() -> Vec<Module> {
    let all: Vec<Module> = tree::read(&src()).into_iter().filter(|m| !is_test(&m.file) && !m.path.is_empty()).collect();
    assert!(all.len() > 200, "found only {} files: is this the right folder?", all.len());
    all
}

fn may_import() -> BTreeMap<&'static str, &'static [&'static str]> {
    MAY_IMPORT.iter().copied().collect()
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} in all:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn rooms_import_only_what_comes_before_them() {
    none(&rules::imports(&program(), &may_import()));
}

#[test]
fn no_two_rooms_may_import_each_other() {
    let may = may_import();
    let both = may.iter().flat_map(|(a, to)| to.iter().map(move |b| (*a, *b))).filter(|(a, b)| may[b].contains(a));
    assert_eq!(both.count(), 0);
}

#[test]
fn decisions_touch_neither_socket_nor_clock() {
    none(&rules::purity(&program(), DRIVERS, IMPURE));
}

#[test]
fn only_one_room_calls_the_system_raw() {
    let all = tree::read(&src());
    none(&rules::raw(&all, "os", RAW));
    // Without raw calls there the rule would look in the wrong place.
    assert!(!rules::raw(&all, "no room/", RAW).is_empty());
}

#[test]
fn each_driver_exists() {
    for driver in DRIVERS {
        assert!(src().join(driver).exists(), "{driver} is named as a driver but does not exist");
    }
}

#[test]
fn a_module_with_parts_is_a_file_beside_their_folder() {
    none(&rules::mod_files(&tree::read(&src())));
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let wrong: Vec<String> =
        rules::circles(&program()).into_iter().map(|c| c.into_iter().collect::<Vec<_>>().join(", ")).collect();
    none(&wrong);
}

#[test]
fn a_file_is_one_idea() {
    none(&rules::too_long(&tree::read(&src()), LONGEST));
}

#[test]
fn no_room_is_a_house() {
    none(&rules::too_big(&tree::read(&src()), BIGGEST));
}

/// Each rule, with source that breaks it.
mod each_rule_can_fail {
    use super::*;

    fn modules(files: &[(&str, &str)]) -> Vec<Module> {
        files.iter().map(|(file, text)| Module::parse(file, text)).collect()
    }

    fn may() -> BTreeMap<&'static str, &'static [&'static str]> {
        [("a", &["b"][..]), ("b", &[][..]), ("c", &[][..])].into()
    }

    #[test]
    fn an_import_however_it_is_written() {
        for text in [
            "use crate::c::X;",
            "use crate::{b, c::{self, X}};",
            "use super::super::c::X;",
            "fn f() { crate::c::g(); }",
            "fn f(x: &crate::c::X) {}",
            "fn f() { println!(\"{}\", crate::c::X); }",
            "mod inner { use super::super::super::c::X; }",
            "use crate::c; fn f() { c::g() }",
        ] {
            assert!(!rules::imports(&modules(&[("a/x.rs", text)]), &may()).is_empty(), "{text}");
        }
        for text in [
            "use crate::b::X;",
            "use super::y;",
            "#[cfg(test)] mod tests { use crate::c::X; }",
            "#[cfg(test)] use crate::c::X;",
        ] {
            assert_eq!(rules::imports(&modules(&[("a/x.rs", text)]), &may()), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_room_that_hands_on_or_is_not_listed() {
        assert!(!rules::imports(&modules(&[("a/x.rs", "pub use crate::b::X;")]), &may()).is_empty());
        assert!(!rules::imports(&modules(&[("d/x.rs", "")]), &may()).is_empty());
    }

    #[test]
    fn a_pure_file_that_does_io() {
        for text in [
            "use tokio::net;",
            "use std::{fs, net};",
            "fn f() { std::time::Instant::now(); }",
            "use std::time::Instant; fn f() { Instant::now(); }",
            "use crate::os::clock;",
            "fn f() { assert!(std::fs::read(\"x\").is_ok()); }",
        ] {
            assert!(!rules::purity(&modules(&[("a/x.rs", text)]), &["b/"], IMPURE).is_empty(), "{text}");
        }
        assert_eq!(rules::purity(&modules(&[("b/x.rs", "use tokio::net;")]), &["b/"], IMPURE), [""; 0]);
        assert_eq!(
            rules::purity(&modules(&[("a/x.rs", "use std::time::Duration; use std::net::IpAddr;")]), &[], IMPURE),
            [""; 0]
        );
    }

    #[test]
    fn a_raw_call_outside_its_room() {
        for text in [
            "fn f() { unsafe { g() } }",
            "unsafe fn f() {}",
            "unsafe impl Send for X {}",
            "#![allow(unsafe_code)]",
            "#[allow(unsafe_code)] fn f() {}",
            "#[cfg(test)] mod tests { fn f() { unsafe { g() } } }",
            "fn f() { println!(\"{}\", unsafe { g() }); }",
            "fn f() { libc::getpid(); }",
            "use libc::getpid;",
            "const N: i32 = { use ::libc as c; c::ENOENT };",
        ] {
            assert!(!rules::raw(&modules(&[("a/x.rs", text)]), "os", RAW).is_empty(), "{text}");
            assert_eq!(rules::raw(&modules(&[("os/x.rs", text)]), "os", RAW), [""; 0], "{text}");
        }
        for text in ["// unsafe\nfn f() {}", "/// libc\nfn f() {}", "fn f() { g(\"unsafe\") }"] {
            assert_eq!(rules::raw(&modules(&[("a/x.rs", text)]), "os", RAW), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_module_in_a_mod_file() {
        assert_eq!(rules::mod_files(&modules(&[("a/mod.rs", ""), ("a.rs", ""), ("a/model.rs", "")])).len(), 1);
    }

    #[test]
    fn a_circle_of_two_and_of_three() {
        let two = modules(&[("a/x.rs", "use super::y::Y;"), ("a/y.rs", "use super::x::X;"), ("a.rs", "mod x; mod y;")]);
        assert_eq!(rules::circles(&two).len(), 1);
        let three = modules(&[
            ("a/x.rs", "use super::y;"),
            ("a/y.rs", "use crate::a::z::Z;"),
            ("a/z.rs", "fn f() { super::x::f() }"),
        ]);
        assert_eq!(rules::circles(&three).len(), 1);
        let family = modules(&[
            ("a.rs", "use x::X;"),
            ("a/x.rs", "use super::A; use super::y::Y;"),
            ("a/y.rs", "use super::A;"),
        ]);
        assert!(rules::circles(&family).is_empty());
    }

    #[test]
    fn a_long_file_and_a_big_room() {
        let long = "\n".repeat(501);
        assert_eq!(rules::too_long(&modules(&[("a/x.rs", &long), ("b/x.rs", "")]), LONGEST).len(), 1);
        let rooms: Vec<Module> =
            "abcdef".chars().map(|r| Module::parse(&format!("{r}/x.rs"), &"\n".repeat(10))).collect();
        assert!(rules::too_big(&rooms, BIGGEST).is_empty());
        assert_eq!(rules::too_big(&modules(&[("a/x.rs", &long), ("b/x.rs", "\n\n")]), BIGGEST).len(), 1);
    }
}
