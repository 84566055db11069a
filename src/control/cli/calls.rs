//! `keepcall calls`

use super::output::{Output, ago, or_dash, printable, table};
use super::{Global, QUICK, unexpected};
use crate::calls::pairing::CERTAIN;
use crate::control::api::{CallRow, LegRow, Reply, Request};

/// Arguments of `keepcall calls`.
#[derive(Clone, Debug, clap::Args)]
pub struct CallsArgs {
    /// Show only the calls of this instance
    instance: Option<String>,
    /// Print one JSON array on one line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, args: &CallsArgs) -> Result<(), u8> {
    let Reply::Calls(calls) = global.ask(&Request::Calls { instance: args.instance.clone() }, QUICK, args.json)? else {
        return Err(unexpected());
    };
    let mut out = Output::new();
    if args.json {
        out.json(&calls);
    } else if calls.is_empty() {
        out.line("no calls");
    } else {
        out.text(&render(&calls));
    }
    Ok(())
}

/// `bridge`, `evidence 85`, or the other end of a single leg: `conference 4711`.
fn pairing(c: &CallRow) -> String {
    match (&c.pairing, &c.other_end) {
        (Some(how), _) => match c.confidence {
            Some(confidence) if confidence < CERTAIN => format!("{how} {confidence}"),
            _ => how.clone(),
        },
        (None, Some(end)) => {
            let kind =
                serde_json::to_value(end.kind).ok().and_then(|k| k.as_str().map(str::to_owned)).unwrap_or_default();
            format!("({kind}{}{})", if end.name.is_empty() { "" } else { " " }, end.name)
        }
        (None, None) => or_dash(&None),
    }
}

pub(super) fn render(calls: &[CallRow]) -> String {
    let party = |leg: &LegRow| leg.remote.clone();
    let rows = calls.iter().map(|c| {
        let caller = c.legs.iter().find(|l| l.direction == "inbound").or(c.legs.first());
        let callee = c.legs.iter().find(|l| caller.is_none_or(|a| !std::ptr::eq(a, *l)));
        let codecs = c.legs.first().map(|l| l.codecs.join(" ")).unwrap_or_default();
        vec![
            c.id.clone(),
            c.instance.clone(),
            format!("{}{}", c.state, if c.emergency { " EMERGENCY" } else { "" }),
            caller.map_or_else(|| "-".to_owned(), party),
            callee.or(caller.filter(|_| c.legs.len() == 1)).map_or_else(
                || "-".to_owned(),
                |leg| if c.legs.len() == 1 { format!("({})", leg.local) } else { party(leg) },
            ),
            ago(c.confirmed_ms),
            pairing(c),
            if c.takeover.is_empty() { "-".to_owned() } else { c.takeover.clone() },
            codecs,
            c.node.clone(),
        ]
    });
    let head = ["CALL", "INSTANCE", "STATE", "CALLER", "CALLED", "UP SINCE", "PAIRED BY", "TAKEOVER", "CODECS", "NODE"];
    format!("{}{}", table(&head, rows.collect()), obstacles(calls))
}

/// Calls that would be lost, obstacles to re-INVITEs, one line per leg, and to audio, one line per call; empty without
/// any.
fn obstacles(calls: &[CallRow]) -> String {
    let legs = calls.iter().flat_map(|c| c.legs.iter().map(move |l| (c, l)));
    let lines: Vec<String> = legs
        .filter_map(|(c, leg)| {
            Some(format!("  {}  {}: {}\n", printable(&c.id), printable(&leg.remote), printable(leg.obstacle.as_ref()?)))
        })
        .collect();
    let audio =
        calls.iter().filter_map(|c| Some(format!("  {}: {}\n", printable(&c.id), printable(c.not_relayed.as_ref()?))));
    let under = |head: &str, lines: String| if lines.is_empty() { lines } else { format!("\n{head}:\n{lines}") };
    let of = |words: &[&str]| -> String {
        let those = calls.iter().filter(|c| words.contains(&c.takeover.as_str()));
        let told = those.filter_map(|c| Some((c, c.not_kept.as_ref()?)));
        told.map(|(c, why)| format!("  {}: {}\n", printable(&c.id), printable(why))).collect()
    };
    let silent =
        calls.iter().filter_map(|c| Some(format!("  {}: {}\n", printable(&c.id), printable(c.silent.as_ref()?))));
    under("lost at a takeover", of(&["lost", "doubtful"]))
        + &under("kept at a takeover, but", of(&["kept"]))
        + &under("not recovered at a takeover", lines.concat())
        + &under("not relayed at a takeover", audio.collect())
        + &under("not heard in the first seconds after the takeover", silent.collect())
}
