//! `docs/inspect.md` lists every field of the JSON, and nothing else.

use super::build::{Hop, Shot, audio, file, paced, rtp};
use super::*;
use serde_json::Value;
use std::collections::BTreeSet;

/// Objects with free keys.
const OPEN: [&str; 3] = ["other_requests", "counters", "traffic.unread"];
/// Objects with the same fields as a listed one.
const LIKE: [&str; 2] = [".remote", ".sent"];

fn fields(value: &Value, at: &str, out: &mut BTreeSet<String>) {
    let like = LIKE.iter().any(|l| at.ends_with(&format!("media[]{l}")));
    match value {
        Value::Object(all) if !OPEN.contains(&at) && !like => {
            for (name, value) in all {
                fields(value, &if at.is_empty() { name.clone() } else { format!("{at}.{name}") }, out);
            }
        }
        Value::Array(all) if all.iter().any(Value::is_object) => {
            all.iter().for_each(|v| fields(v, &format!("{at}[]"), out))
        }
        _ => {
            out.insert(at.to_owned());
        }
    }
}

/// A report that contains every object once.
fn full() -> Value {
    let (a, s, b) = ("10.0.0.1:5060", "10.0.0.100:5060", "10.0.0.2:5060");
    let more = "Session-Expires: 1800;refresher=uas\r\nSupported: timer\r\n";
    let hop = |id: &str, from: &str, to: &str| Hop { more: more.into(), ..Hop::new(id, from, to, "1000", "2000") };
    let (i, o) = (hop("in", a, s), hop("out", s, b));
    let mut shots: Vec<Shot> = vec![i.invite(&audio("10.0.0.1:4000", "")), i.answer(100, "")];
    shots.extend(o.up(&audio("10.0.0.100:9002", ""), &audio("10.0.0.2:4002", "")));
    shots.extend([i.answer(200, &audio("10.0.0.100:9000", "")), i.ack()]);
    for (phone, server) in [("10.0.0.1:4000", "10.0.0.100:9000"), ("10.0.0.2:4002", "10.0.0.100:9002")] {
        shots.extend(rtp(phone, server, 3));
        shots.extend(rtp(server, phone, 3));
    }
    // A call that would be lost.
    shots.extend(hop("alone", a, s).up(&audio("10.0.0.1:4010", ""), &audio("10.0.0.100:9010", "")));
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), file(&paced(shots, 80))).unwrap();
    serde_json::to_value(inspect(path.path(), &InspectSettings::default()).unwrap()).unwrap()
}

#[test]
fn the_document_lists_every_field_and_no_other() {
    let mut told = BTreeSet::new();
    fields(&full(), "", &mut told);
    // What is absent or empty in one place is an object in another.
    let all = told.clone();
    told.retain(|f| !all.iter().any(|o| o.strip_prefix(f.as_str()).is_some_and(|o| o.starts_with(['.', '[']))));
    let document = include_str!("../../../docs/inspect.md");
    let table = document.split("| field | type | meaning |").nth(1).unwrap();
    let listed: BTreeSet<String> =
        table.lines().filter_map(|l| l.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name.to_owned()).collect();
    let missing: Vec<_> = told.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&told).collect();
    assert!(missing.is_empty() && gone.is_empty(), "not in the document: {missing:#?}, not in the output: {gone:#?}");
    assert!(document.contains(&format!("while `schema` is {SCHEMA}")));
}
