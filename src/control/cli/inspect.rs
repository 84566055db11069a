//! `keepcall inspect`: shows the report of a capture file.

mod render;

pub(super) use render::render;

use super::output::{Output, complain};
use super::{FAILED, OK, USAGE};
use crate::inspect::report::Report;
use crate::inspect::{InspectSettings, inspect as learn};
use std::net::IpAddr;
use std::path::PathBuf;

/// Arguments of `keepcall inspect`.
#[derive(Clone, Debug, clap::Args)]
pub struct InspectArgs {
    /// Capture of the server's SIP (pcap or pcapng, also compressed by gzip); `-` is standard input
    pub file: PathBuf,
    /// Address of the server in the capture; may be repeated [default: detected from the traffic]
    #[arg(long = "vip", value_name = "IP")]
    pub vips: Vec<IpAddr>,
    /// Address or host name by which the outside knows the server, behind a 1:1 NAT; may be repeated
    #[arg(long = "advertised", value_name = "HOST")]
    pub advertised: Vec<String>,
    /// UDP port of the server for SIP; may be repeated [default: detected from the traffic]
    #[arg(long = "port", value_name = "PORT")]
    pub ports: Vec<u16>,
    /// Show all details of one call: its id (or the start of its id), its number in the table, or one of its Call-IDs
    #[arg(long = "call", value_name = "CALL")]
    call: Option<String>,
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
}

/// Shows the calls in the capture; returns the exit code.
pub fn inspect(args: &InspectArgs) -> u8 {
    let mut out = Output::new();
    let settings = InspectSettings {
        vips: args.vips.clone(),
        advertised: args.advertised.clone(),
        sip_ports: args.ports.clone(),
        ..InspectSettings::default()
    };
    let mut report = match learn(&args.file, &settings) {
        Ok(report) => report,
        Err(e) => {
            if args.json {
                out.json(&serde_json::json!({ "error": { "message": e.to_string() } }));
            }
            complain(&e.to_string());
            return FAILED;
        }
    };
    if let Some(wanted) = &args.call {
        let Some(call) = find(&report, wanted) else {
            let why = format!("no call {wanted} among the {} calls in the file", report.calls.len());
            if args.json {
                out.json(&serde_json::json!({ "error": { "message": why } }));
            }
            complain(&format!("{why}\n  = omit --call to list all calls"));
            return USAGE;
        };
        report.calls = vec![report.calls.swap_remove(call)];
    }
    if args.json {
        out.json(&report);
    } else {
        out.text(&render(&report, args.call.is_some()));
    }
    OK
}

/// The index of the requested call.
fn find(report: &Report, wanted: &str) -> Option<usize> {
    let calls = &report.calls;
    let by_id = |c: &crate::inspect::report::Call| c.id == wanted || c.stored_id.as_deref() == Some(wanted);
    let exact = calls.iter().position(|c| by_id(c) || c.call_ids.iter().any(|i| i == wanted));
    let number = || wanted.parse::<usize>().ok()?.checked_sub(1).filter(|n| *n < calls.len());
    let beginning = || {
        let mut all = calls.iter().enumerate().filter(|(_, c)| c.id.starts_with(wanted)).map(|(n, _)| n);
        all.next().filter(|_| all.next().is_none() && wanted.len() >= 4)
    };
    exact.or_else(number).or_else(beginning)
}

#[cfg(test)]
mod tests;
