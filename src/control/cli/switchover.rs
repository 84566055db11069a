//! `keepcall switchover`

use super::output::{Output, complain, or_dash, printable, table};
use super::{FAILED, Global, QUICK, REFUSED, USAGE, unexpected};
use crate::control::api::{Candidates, Reply, Request};
use crate::recovery::tally::Tally;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// Arguments of `keepcall switchover`.
#[derive(Clone, Debug, clap::Args)]
pub struct SwitchoverArgs {
    /// Instance; optional if the agent has only one
    instance: Option<String>,
    /// Node to hand over to [default: the best candidate]
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
    /// Time to wait for the result
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration, value_name = "TIME")]
    timeout: Duration,
}

pub(super) fn run(global: &Global, args: &SwitchoverArgs) -> Result<(), u8> {
    let mut out = Output::new();
    let Reply::Candidates(candidates) =
        global.ask(&Request::Candidates { instance: args.instance.clone() }, QUICK, args.json)?
    else {
        return Err(unexpected());
    };
    if !args.json {
        out.text(&render(&candidates));
    }
    let to = match choose(&candidates, args.to.as_deref()) {
        Ok(to) => to,
        Err((why, code)) => {
            if args.json {
                out.json(&serde_json::json!({ "error": { "message": why }, "candidates": candidates }));
            }
            complain(&why);
            return Err(code);
        }
    };
    if !args.yes {
        agree(&mut out, &candidates, &to)?;
    }
    let request = Request::Switchover { instance: Some(candidates.instance.clone()), to: args.to.clone() };
    let Reply::Switchover(done) = global.ask(&request, args.timeout, args.json)? else {
        return Err(unexpected());
    };
    if args.json {
        out.json(&done);
    } else {
        let from = or_dash(&done.from);
        out.line(&format!(
            "{}: {} is master (was {from}), epoch {}, after {} ms",
            done.instance, done.to, done.epoch, done.took_ms
        ));
    }
    Ok(())
}

/// The node that will take over; otherwise the reason, with the exit code.
pub(super) fn choose(candidates: &Candidates, to: Option<&str>) -> Result<String, (String, u8)> {
    let instance = &candidates.instance;
    match to {
        Some(name) if candidates.master.as_deref() == Some(name) => {
            Err((format!("{name} is already the master of {instance}"), REFUSED))
        }
        Some(name) => match candidates.candidates.iter().find(|c| c.node == name) {
            None => {
                let known: Vec<&str> = candidates.candidates.iter().map(|c| c.node.as_str()).collect();
                let advice = if known.is_empty() {
                    "the cluster has no other node".to_owned()
                } else {
                    format!("one of: {}", known.join(", "))
                };
                Err((format!("the instance {instance} has no node {name:?}\n  = {advice}"), USAGE))
            }
            Some(c) if !c.against.is_empty() => {
                Err((format!("{name} cannot take over {instance}: {}", c.against.join("; ")), REFUSED))
            }
            Some(c) => Ok(c.node.clone()),
        },
        None => match candidates.candidates.iter().find(|c| c.against.is_empty()) {
            Some(c) => Ok(c.node.clone()),
            None if candidates.candidates.is_empty() => {
                let advice = "start the agent of a second node with this instance, cluster name and key";
                Err((format!("no node can take over {instance}: the cluster has no other node\n  = {advice}"), REFUSED))
            }
            None => {
                let advice = "remove the obstacle that the table shows for the node that you want, then try again";
                Err((format!("no node can take over {instance}\n  = {advice}"), REFUSED))
            }
        },
    }
}

pub(super) fn render(candidates: &Candidates) -> String {
    let rows = candidates.candidates.iter().map(|c| {
        let verdict = if c.against.is_empty() { "can take over".to_owned() } else { c.against.join("; ") };
        vec![c.node.clone(), c.priority.to_string(), verdict]
    });
    let master = or_dash(&candidates.master);
    let head = format!("instance {}, master {master}, epoch {}\n", candidates.instance, candidates.epoch);
    let calls = candidates.calls.as_ref().map(prospect).unwrap_or_default();
    if candidates.candidates.is_empty() {
        return format!("{head}{calls}");
    }
    format!("{head}{}{calls}", table(&["CANDIDATE", "PRIORITY", "VERDICT"], rows.collect()))
}

/// What a takeover would leave of the calls, with the cures; empty without calls.
fn prospect(calls: &Tally) -> String {
    let cures: String = calls.cures().iter().map(|cure| format!("  = {}\n", printable(cure))).collect();
    match calls.told() {
        Some(lost) => format!("{}\n{cures}", printable(&lost)),
        None if calls.total == 0 => String::new(),
        None if calls.audio == 0 => format!("all {} calls would be kept\n", calls.total),
        None => format!("all {} calls would be kept, {} of them with audio only\n", calls.total, calls.audio),
    }
}

/// The questions before a switchover: one, and another if it would cost calls.
pub(super) fn questions(candidates: &Candidates, to: &str) -> Vec<String> {
    let mut all = vec![format!("hand {} over to {to}?", candidates.instance)];
    if let Some(calls) = candidates.calls.as_ref().filter(|c| c.lost > 0) {
        let what = if calls.lost == 1 { "1 call".to_owned() } else { format!("{} calls", calls.lost) };
        all.push(format!("this ends the audio of {what}. Hand over all the same?"));
    }
    all
}

fn agree(out: &mut Output, candidates: &Candidates, to: &str) -> Result<(), u8> {
    if !std::io::stdin().is_terminal() {
        complain("no terminal to ask for confirmation\n  = add --yes to hand over without confirmation");
        return Err(REFUSED);
    }
    // The questions go to the terminal; the output may be a file.
    let mut terminal = std::io::stderr();
    for question in questions(candidates, to) {
        let _ = write!(terminal, "{question} [y/N] ");
        let _ = terminal.flush();
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map_err(|_| FAILED)?;
        if !matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            out.line("cancelled: nothing was changed");
            return Err(REFUSED);
        }
    }
    Ok(())
}
