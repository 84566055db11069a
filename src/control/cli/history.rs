//! `keepcall history`

use super::output::{Output, moment, or_dash, printable};
use super::{Global, QUICK, unexpected};
use crate::control::api::{HistoryEntry, Reply, Request};
use crate::recovery::deed::Forecast;
use std::fmt::Write as _;

/// Arguments of `keepcall history`.
#[derive(Clone, Debug, clap::Args)]
pub struct HistoryArgs {
    /// Show only the changes of this instance
    instance: Option<String>,
    /// Number of changes to show, newest first
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: usize,
    /// Print one JSON array on one line
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

/// One block per change: a line about the change, then its steps, then the calls.
pub(super) fn render(entries: &[HistoryEntry]) -> String {
    let mut text = String::new();
    for e in entries {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}  {}  epoch {}  {} -> {}  {}: {}",
            moment(e.at_ms),
            e.instance,
            e.epoch,
            or_dash(&e.previous),
            e.master,
            e.cause,
            printable(&e.reason)
        );
        let _ = writeln!(text, "    steps: {}", phases(e));
        let _ = writeln!(text, "    calls: {}", calls(e));
        for (i, f) in e.forecast.iter().enumerate().filter(|(_, f)| f.total > 0) {
            let _ = writeln!(text, "    {}: {}", if i == 0 { "mode" } else { "would" }, forecast(i == 0, f));
        }
    }
    text
}

fn calls(entry: &HistoryEntry) -> String {
    let c = &entry.calls;
    if c.total == 0 {
        return "no calls were up".to_owned();
    }
    let known = c.recovered + c.gone + c.refused + c.unreachable + c.unpaired + c.proxied + c.relayed + c.left;
    let mut text = format!("{} of {} recovered", c.recovered, c.total);
    let unheard = [(c.one_way, "with audio of one party only"), (c.silent, "without audio")];
    let unheard: Vec<String> =
        unheard.into_iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    if !unheard.is_empty() {
        let _ = write!(text, " ({} in the first seconds)", unheard.join(", "));
    }
    let others = [
        (c.gone, "gone"),
        (c.refused, "refused"),
        (c.unreachable, "unreachable"),
        (c.unpaired, "unpaired"),
        (c.proxied, "carried by the new proxy"),
        (c.relayed, "relayed"),
        (c.left, "left alone"),
        (c.total.saturating_sub(known), "without a result yet"),
    ];
    for (n, word) in others.into_iter().filter(|(n, _)| *n > 0) {
        let _ = write!(text, ", {n} {word}");
    }
    text
}

/// What a mode does with the calls of a takeover, or would have done.
fn forecast(in_force: bool, f: &Forecast) -> String {
    let deeds = [
        (f.reinvited, "re-INVITEd"),
        (f.proxied, "left to the new proxy"),
        (f.relayed, "relayed"),
        (f.left, "left alone"),
    ];
    let mut text = format!("{} {}", printable(&f.mode), if in_force { "handled" } else { "would have handled" });
    let _ = write!(text, " {} calls:", f.total);
    for (n, deed) in deeds.into_iter().filter(|(n, _)| *n > 0) {
        let _ = write!(text, " {n} {deed},");
    }
    text.pop();
    let reasons: Vec<String> = f.reasons.iter().map(|(why, n)| format!("{n}: {}", printable(why))).collect();
    if !reasons.is_empty() {
        let _ = write!(text, " ({})", reasons.join("; "));
    }
    text
}

/// Each step in order of time, with the milliseconds since the first.
fn phases(entry: &HistoryEntry) -> String {
    let mut steps: Vec<_> = entry.phases.iter().collect();
    steps.sort_by_key(|p| p.unix_us);
    let Some(first) = steps.first().map(|p| p.unix_us) else { return "-".to_owned() };
    let one = |p: &&crate::control::api::Phase| {
        let us = p.unix_us - first;
        if us == 0 { p.name.clone() } else { format!("{} +{}.{} ms", p.name, us / 1000, us % 1000 / 100) }
    };
    steps.iter().map(one).collect::<Vec<_>>().join(", ")
}
