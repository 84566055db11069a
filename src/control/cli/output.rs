//! Standard output for commands: a closed pipe ends the output without a panic.

use comfy_table::Table;
use serde::Serialize;
use std::io::{self, Write as _};

/// Standard output.
#[derive(Debug, Default)]
pub(super) struct Output {
    closed: bool,
}

impl Output {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Writes `text`, unless the reader has gone.
    pub(super) fn text(&mut self, text: &str) {
        if self.closed {
            return;
        }
        let mut out = io::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            self.closed = true;
        }
    }

    pub(super) fn line(&mut self, text: &str) {
        self.text(&format!("{text}\n"));
    }

    /// Writes a value as JSON on one line, so that `--watch --json` is a stream of lines.
    pub(super) fn json(&mut self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(text) => self.line(&text),
            Err(e) => complain(&format!("cannot write the answer as JSON: {e}")),
        }
    }

    /// Whether the reader has gone.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }
}

/// Writes an error for the operator. Without standard error there is nowhere left to report.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "keepcall: {text}");
}

/// A table without lines: easy on the eyes, and easy for grep and awk. No colours.
pub(super) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    let text = table.to_string();
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        out.push_str(line.strip_prefix(' ').unwrap_or(line).trim_end());
        out.push('\n');
    }
    out
}

/// Replaces control characters in `text` by dots, since they could steer a terminal: values come from other hosts and
/// from the wire.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '.' } else { c }).collect()
}

/// How long ago `unix_ms` was, rounded to seconds.
pub(super) fn ago(unix_ms: u64) -> String {
    span(crate::os::clock::unix_ms().saturating_sub(unix_ms))
}

/// `ms` milliseconds ago.
pub(super) fn span(ms: u64) -> String {
    format!("{} ago", duration(ms))
}

/// `ms` milliseconds, in the two largest units: next to "3days 4h" the seconds do not matter.
pub(super) fn duration(ms: u64) -> String {
    let text = humantime::format_duration(std::time::Duration::from_secs(ms / 1000)).to_string();
    let largest: Vec<&str> = text.split(' ').take(2).collect();
    largest.join(" ")
}

/// A time in UTC, to the millisecond.
pub(super) fn moment(unix_ms: u64) -> String {
    let time = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_millis(unix_ms));
    // RFC 3339 ends at year 10000; a later time comes from a broken clock.
    match time.filter(|_| unix_ms < 253_402_300_800_000) {
        Some(time) => humantime::format_rfc3339_millis(time).to_string(),
        None => format!("{unix_ms} ms"),
    }
}

/// `text`, or a dash.
pub(super) fn or_dash(text: &Option<String>) -> String {
    text.clone().unwrap_or_else(|| "-".to_owned())
}
