//! `keepcall inspect`: shows what was learnt from a capture. The learning itself is handed in.

use super::output::{Output, complain, moment, printable, table};
use super::{FAILED, OK};
use serde_json::Value;
use std::fmt::{Display, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;

/// Arguments of `keepcall inspect`.
#[derive(Clone, Debug, clap::Args)]
pub struct InspectArgs {
    /// Capture of the server's SIP (pcap or pcapng)
    pub file: PathBuf,
    /// The server's address in the capture; several are possible [default: found out from the traffic]
    #[arg(long = "vip", value_name = "IP")]
    pub vips: Vec<IpAddr>,
    /// UDP port of the server's SIP; several are possible [default: found out from the traffic]
    #[arg(long = "port", value_name = "PORT")]
    pub ports: Vec<u16>,
    /// The report as one JSON object on one line
    #[arg(long)]
    json: bool,
}

/// Shows the report that `learn` makes of the capture; returns the exit code.
pub fn inspect<E: Display>(args: &InspectArgs, learn: impl FnOnce(&InspectArgs) -> Result<Value, E>) -> u8 {
    let mut out = Output::new();
    match learn(args) {
        Ok(report) if args.json => out.json(&report),
        Ok(report) => out.text(&render(&report)),
        Err(e) => {
            if args.json {
                out.json(&serde_json::json!({ "error": { "message": e.to_string() } }));
            }
            complain(&e.to_string());
            return FAILED;
        }
    }
    OK
}

/// A report as people read it: single values as lines, then a block for each call.
pub(super) fn render(report: &Value) -> String {
    let mut text = String::new();
    let Value::Object(fields) = report else { return format!("{}\n", flat(report)) };
    // Writing to a String cannot fail.
    for (name, value) in fields.iter().filter(|(name, _)| *name != "calls") {
        let value = match (name.strip_suffix("_ms"), value.as_u64()) {
            (Some(_), Some(ms)) => moment(ms),
            _ => flat(value),
        };
        let name = name.strip_suffix("_ms").unwrap_or(name).replace('_', " ");
        let _ = writeln!(text, "{name}: {}", printable(&value));
    }
    let calls = fields.get("calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let _ = writeln!(text, "calls: {}", calls.len());
    for call in calls {
        text.push_str(&block(call));
    }
    text
}

/// One call: what became of it, each party, and what would stand in the way of its recovery.
fn block(call: &Value) -> String {
    let word = |name: &str| call.get(name).map_or_else(|| "-".to_owned(), flat);
    let time = |name: &str| call.get(name).and_then(Value::as_u64).map_or_else(|| "-".to_owned(), moment);
    let end =
        if call["up"] == true { "up at the end".to_owned() } else { format!("ended {} ({})", time("ended_ms"), word("ended")) };
    let emergency = if call["emergency"] == true { ", EMERGENCY" } else { "" };
    let pairing = if call["pairing"].is_null() { "single leg".to_owned() } else { format!("paired by {}", word("pairing")) };
    let head = format!("call {}: answered {}, {end}, {pairing}{emergency}", word("id"), time("confirmed_ms"));
    let mut text = format!("\n{}\n", printable(&head));
    let list = |name: &str| call.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let rows = list("legs").into_iter().map(|leg| {
        let word = |name: &str| leg.get(name).map_or_else(|| "-".to_owned(), flat);
        vec![
            format!("   {}", word("direction")),
            word("remote"),
            word("remote_addr"),
            media(&leg["media_received"]),
            format!("{} / {}", word("local_cseq"), word("remote_cseq")),
            word("route_set"),
            word("call_id"),
        ]
    });
    let header = ["   LEG", "PHONE", "SIP FROM", "MEDIA", "CSEQ SERVER / PHONE", "ROUTE SET", "CALL-ID"];
    text.push_str(&table(&header, rows.collect()));
    let obstacles = list("obstacles");
    let verdict = if obstacles.is_empty() { "yes".to_owned() } else { format!("no: {}", flat(&Value::Array(obstacles))) };
    let _ = writeln!(text, "   could be recovered: {}", printable(&verdict));
    text
}

/// The streams of a description: kind, address, port and codecs of each.
fn media(streams: &Value) -> String {
    let one = |m: &Value| {
        let word = |name: &str| m.get(name).map_or_else(|| "-".to_owned(), flat);
        format!("{} {}:{} {}", word("kind"), word("address"), word("port"), word("codecs").replace(", ", " "))
    };
    let all: Vec<String> = streams.as_array().into_iter().flatten().map(one).collect();
    if all.is_empty() { "-".to_owned() } else { all.join("; ") }
}

/// Any value in one line.
fn flat(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::String(s) => s.clone(),
        Value::Array(items) => items.iter().map(flat).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => fields.iter().map(|(k, v)| format!("{k}={}", flat(v))).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}
