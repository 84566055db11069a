//! `keepcall history`

use super::output::{Output, moment, or_dash, table};
use super::{Global, QUICK, unexpected};
use crate::control::api::{HistoryEntry, Reply, Request};

/// Arguments of `keepcall history`.
#[derive(Clone, Debug, clap::Args)]
pub struct HistoryArgs {
    /// Only the changes of this instance
    instance: Option<String>,
    /// At most so many, the newest first
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: usize,
    /// A JSON array on one line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, args: &HistoryArgs) -> Result<(), u8> {
    let request = Request::History { instance: args.instance.clone(), limit: args.limit };
    let Reply::History(entries) = global.ask(&request, QUICK, args.json)? else {
        return Err(unexpected());
    };
    let mut out = Output::new();
    if args.json {
        out.json(&entries);
    } else if entries.is_empty() {
        out.line("no change of master yet");
    } else {
        out.text(&render(&entries));
    }
    Ok(())
}

pub(super) fn render(entries: &[HistoryEntry]) -> String {
    let rows = entries.iter().map(|e| {
        let c = &e.calls;
        let mut calls = format!("{} of {}", c.recovered, c.total);
        for (n, word) in [(c.gone, "gone"), (c.refused, "refused"), (c.unreachable, "unreachable"), (c.unpaired, "unpaired")] {
            if n > 0 {
                calls.push_str(&format!(", {n} {word}"));
            }
        }
        vec![
            moment(e.at_ms),
            e.instance.clone(),
            e.epoch.to_string(),
            format!("{} -> {}", or_dash(&e.previous), e.master),
            e.cause.clone(),
            e.reason.clone(),
            phases(e),
            calls,
        ]
    });
    table(&["WHEN", "INSTANCE", "EPOCH", "MASTER", "CAUSE", "WHY", "STEPS", "CALLS RECOVERED"], rows.collect())
}

/// Each step with its time after the first, in milliseconds.
fn phases(entry: &HistoryEntry) -> String {
    let Some(first) = entry.phases.iter().map(|p| p.unix_us).min() else { return "-".to_owned() };
    let one = |p: &crate::control::api::Phase| {
        let us = p.unix_us - first;
        format!("{} +{}.{}ms", p.name, us / 1000, us % 1000 / 100)
    };
    entry.phases.iter().map(one).collect::<Vec<_>>().join(", ")
}
