//! `keepcall inspect`: shows what was learnt from a capture. The learning itself is handed in.

use super::output::{Output, complain, table};
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
            complain(&e.to_string());
            return FAILED;
        }
    }
    OK
}

/// A report as people read it: single values as lines, lists of objects as tables.
pub(super) fn render(report: &Value) -> String {
    let mut text = String::new();
    let Value::Object(fields) = report else { return format!("{}\n", flat(report)) };
    // Writing to a String cannot fail.
    for (name, value) in fields.iter().filter(|(_, v)| !is_rows(v)) {
        let _ = writeln!(text, "{name}: {}", flat(value));
    }
    for (name, value) in fields.iter().filter(|(_, v)| is_rows(v)) {
        let Value::Array(rows) = value else { continue };
        let mut columns: Vec<&str> = Vec::new();
        for key in rows.iter().filter_map(Value::as_object).flat_map(|o| o.keys()) {
            if !columns.contains(&key.as_str()) {
                columns.push(key);
            }
        }
        let row = |r: &Value| columns.iter().map(|c| r.get(c).map_or_else(|| "-".to_owned(), flat)).collect();
        let _ = write!(text, "\n{name} ({}):\n{}", rows.len(), table(&columns, rows.iter().map(row).collect()));
    }
    text
}

/// A list of objects, which is shown as a table.
fn is_rows(value: &Value) -> bool {
    matches!(value, Value::Array(rows) if !rows.is_empty() && rows.iter().all(Value::is_object))
}

/// Any value in one line.
fn flat(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(s) => s.clone(),
        Value::Array(items) => items.iter().map(flat).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => fields.iter().map(|(k, v)| format!("{k}={}", flat(v))).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}
