//! `keepcall pause` and `keepcall resume`

use super::output::Output;
use super::{Global, QUICK, unexpected};
use crate::control::api::{PauseState, Reply, Request};

/// Arguments of `keepcall pause`.
#[derive(Clone, Debug, clap::Args)]
pub struct PauseArgs {
    /// Reason, which `status` shows on every node
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    reason: String,
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
}

/// Arguments of `keepcall resume`.
#[derive(Clone, Debug, clap::Args)]
pub struct ResumeArgs {
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
}

pub(super) fn pause(global: &Global, args: &PauseArgs) -> Result<(), u8> {
    show(args.json, &ask(global, &Request::Pause { reason: args.reason.clone() }, args.json)?)
}

pub(super) fn resume(global: &Global, args: &ResumeArgs) -> Result<(), u8> {
    show(args.json, &ask(global, &Request::Resume, args.json)?)
}

fn ask(global: &Global, request: &Request, json: bool) -> Result<PauseState, u8> {
    match global.ask(request, QUICK, json)? {
        Reply::Paused(state) => Ok(state),
        _ => Err(unexpected()),
    }
}

fn show(json: bool, state: &PauseState) -> Result<(), u8> {
    let mut out = Output::new();
    if json {
        out.json(state);
        return Ok(());
    }
    out.line(match (state.paused, state.before) {
        (true, false) => {
            "paused: in the whole cluster, no node takes over or hands over automatically; `keepcall switchover` \
             still works. A master that fails is NOT replaced until `keepcall resume`"
        }
        (true, true) => "was already paused; the reason is updated",
        (false, true) => "resumed: automatic changes of master are allowed again",
        (false, false) => "was not paused",
    });
    Ok(())
}
