//! The rules; each is a function from modules to violations.

use super::tree::{Module, Name};
use std::collections::{BTreeMap, BTreeSet};

/// The room of a path: its first part.
pub(crate) fn room(path: &[String]) -> &str {
    path.first().map_or("", String::as_str)
}

/// A room imports only its allowed rooms, and re-exports nothing from another room.
pub(crate) fn imports(modules: &[Module], may: &BTreeMap<&str, &[&str]>) -> Vec<String> {
    let mut wrong = Vec::new();
    for m in modules {
        let from = room(&m.path);
        let Some(allowed) = may.get(from) else {
            wrong.push(format!("{}: the room {from} has no line that says what it may import", m.file));
            continue;
        };
        for n in m.names.iter().filter(|n| n.own) {
            let to = room(&n.path);
            if to == from || !may.contains_key(to) {
                continue;
            }
            if !allowed.contains(&to) {
                wrong.push(format!("{}:{}: {from} must not import {to} ({})", m.file, n.line, n.text()));
            } else if n.again {
                wrong.push(format!(
                    "{}:{}: {from} hands on what is {to}'s ({}): import it from there",
                    m.file,
                    n.line,
                    n.text()
                ));
            }
        }
    }
    wrong
}

/// A file that is no driver names nothing of the outside world.
pub(crate) fn purity(modules: &[Module], drivers: &[&str], impure: &[&[&str]]) -> Vec<String> {
    let is_driver = |m: &Module| drivers.iter().any(|d| m.file.starts_with(d));
    let names = |n: &Name, what: &[&str]| {
        let starts = n.path.len() >= what.len() && n.path.iter().zip(what).all(|(a, b)| a == b);
        // An outside type by its own name, whatever its path.
        let ends = what.len() == 1 && n.path.iter().any(|p| p == what[0]);
        starts || (ends && !n.own)
    };
    let mut wrong = Vec::new();
    for m in modules.iter().filter(|m| !is_driver(m)) {
        for n in &m.names {
            if let Some(what) = impure.iter().find(|w| names(n, w)) {
                wrong.push(format!("{}:{}: a pure file names {} ({})", m.file, n.line, what.join("::"), n.text()));
            }
        }
    }
    wrong
}

/// Only the room `allowed` uses the words `raw`, in tests and attributes as well.
pub(crate) fn raw(modules: &[Module], allowed: &str, raw: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    for m in modules.iter().filter(|m| room(&m.path) != allowed) {
        for (line, word) in m.words.iter().filter(|(_, word)| raw.contains(&word.as_str())) {
            wrong.push(format!("{}:{line}: {word} belongs into {allowed}", m.file));
        }
    }
    wrong
}

/// The module of a path: its longest prefix that is a module.
fn module_of<'a>(path: &[String], all: &BTreeSet<&'a [String]>) -> Option<&'a [String]> {
    (1..=path.len()).rev().find_map(|n| all.get(&path[..n]).copied())
}

/// Modules that import each other, directly or through others. A module and its submodules belong together and may.
pub(crate) fn circles(modules: &[Module]) -> Vec<BTreeSet<String>> {
    let all: BTreeSet<&[String]> = modules.iter().map(|m| &m.path[..]).filter(|p| !p.is_empty()).collect();
    let mut edges: BTreeMap<&[String], BTreeSet<&[String]>> = BTreeMap::new();
    for m in modules {
        for n in m.names.iter().filter(|n| n.own) {
            let Some(to) = module_of(&n.path, &all) else { continue };
            if !to.starts_with(&m.path) && !m.path.starts_with(to) {
                edges.entry(&m.path).or_default().insert(to);
            }
        }
    }
    let reach = |from: &'_ [String]| {
        let (mut seen, mut todo): (BTreeSet<&[String]>, Vec<&[String]>) = (BTreeSet::new(), vec![from]);
        while let Some(at) = todo.pop() {
            for to in edges.get(at).into_iter().flatten() {
                if seen.insert(to) {
                    todo.push(to);
                }
            }
        }
        seen.into_iter().map(<[String]>::to_vec).collect::<BTreeSet<_>>()
    };
    let reached: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = edges.keys().map(|k| (k.to_vec(), reach(k))).collect();
    let mut circles: BTreeSet<BTreeSet<String>> = BTreeSet::new();
    for (at, to) in &reached {
        let circle: BTreeSet<String> =
            to.iter().filter(|t| reached.get(*t).is_some_and(|back| back.contains(at))).map(|t| t.join("::")).collect();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

/// Modules in the other of the two styles, `a/mod.rs`: a tree in one style is read without looking twice.
pub(crate) fn mod_files(modules: &[Module]) -> Vec<String> {
    let wrong = modules.iter().filter(|m| m.file.rsplit('/').next() == Some("mod.rs"));
    wrong.map(|m| format!("{}: name it after its folder", m.file)).collect()
}

/// Files longer than one idea.
pub(crate) fn too_long(modules: &[Module], most: usize) -> Vec<String> {
    modules
        .iter()
        .filter(|m| m.lines > most)
        .map(|m| format!("{} has {} lines: split it by idea", m.file, m.lines))
        .collect()
}

/// Rooms with at least `part` of all lines.
pub(crate) fn too_big(modules: &[Module], part: f64) -> Vec<String> {
    let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
    for m in modules {
        *lines.entry(room(&m.path)).or_default() += m.lines;
    }
    let all: usize = lines.values().sum();
    lines
        .into_iter()
        .filter(|(_, n)| *n as f64 >= part * all as f64)
        .map(|(r, n)| format!("{r} has {n} of {all} lines: it is more than one room"))
        .collect()
}
