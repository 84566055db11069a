//! `keepcall forget`

use super::output::Output;
use super::{Global, unexpected};
use crate::control::api::{Reply, Request};
use std::time::Duration;

/// Longer than a request to a master through etcd takes.
const WAIT: Duration = Duration::from_secs(15);

/// Arguments of `keepcall forget`.
#[derive(Clone, Debug, clap::Args)]
pub struct ForgetArgs {
    /// Node to remove; its agent must be stopped
    node: String,
    /// Instance; optional if the agent has only one
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, args: &ForgetArgs) -> Result<(), u8> {
    let request = Request::Forget { instance: args.instance.clone(), node: args.node.clone() };
    let Reply::Forgot(done) = global.ask(&request, WAIT, args.json)? else { return Err(unexpected()) };
    let mut out = Output::new();
    if args.json {
        out.json(&done);
    } else {
        out.line(&format!("{}: {} is no longer a member", done.instance, done.node));
    }
    Ok(())
}
