//! `keepcall inspect`: shows what was learnt from a capture. The learning itself is handed in; what recovery would do with each call
//! is asked of recovery itself.

mod render;

pub(super) use render::render;

use super::output::{Output, complain};
use super::{FAILED, OK, USAGE};
use crate::calls::model::Call;
use crate::inspect::report::{Audio, Recovery, Report, Signalling};
use crate::inspect::{InspectError, InspectSettings, Judge};
use crate::recovery::fate::{self, Fate, Way};
use crate::recovery::permitted::Ground;
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
    /// All that is known of one call: its id (or the beginning of it), its number in the table, or a Call-ID of it
    #[arg(long = "call", value_name = "CALL")]
    call: Option<String>,
    /// The report as one JSON object on one line
    #[arg(long)]
    json: bool,
}

/// Shows the report that `learn` makes of the capture; returns the exit code.
pub fn inspect(
    args: &InspectArgs,
    learn: impl FnOnce(&InspectArgs, InspectSettings, Judge<'_>) -> Result<Report, InspectError>,
) -> u8 {
    let mut out = Output::new();
    let settings = InspectSettings { vips: args.vips.clone(), sip_ports: args.ports.clone(), ..InspectSettings::default() };
    let mut report = match learn(args, settings, &mut judge) {
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
            let why = format!("no call {wanted} among the {} of the file", report.calls.len());
            if args.json {
                out.json(&serde_json::json!({ "error": { "message": why } }));
            }
            complain(&format!("{why}\n  = run it without --call to see them all"));
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

/// The place of the call that is meant.
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

/// What a takeover would do with a call that was learnt so, at a server with these addresses.
pub fn judge(call: &Call, vips: &[IpAddr]) -> Recovery {
    let (fate, paths) = fate::of(call, &Ground::of(vips));
    let flows = &paths.flows;
    let way = fate::way(call, vips);
    let signalling = if fate == Fate::Reinvited { Signalling::ReInvite } else { Signalling::No };
    let (audio, of_audio) = match (fate, way) {
        (Fate::Alone | Fate::Silent(_), _) => (Audio::No, String::new()),
        (Fate::Reinvited, _) if !flows.is_empty() => (Audio::Relayed, "the audio is relayed".to_owned()),
        (Fate::Reinvited, _) if !paths.refused.is_empty() => (Audio::No, String::new()),
        (_, Way::Direct) => (Audio::Direct, "the audio goes from phone to phone and does not depend on the server".to_owned()),
        (_, Way::Elsewhere(at)) => {
            (Audio::Elsewhere, format!("the audio goes by {at}, which is neither a phone's nor the server's address"))
        }
        (Fate::Reinvited, _) => (Audio::No, "no audio was agreed that could be relayed".to_owned()),
        (Fate::HalfKnown | Fate::NotUdp, _) => (Audio::No, "the audio stops".to_owned()),
    };
    let of_signalling = match fate {
        Fate::Reinvited => "both parties get a re-INVITE".to_owned(),
        Fate::HalfKnown => "a leg is incompletely known, so that nothing true can be said in it".to_owned(),
        Fate::NotUdp => "a leg is not over UDP, and only UDP can be sent from the server's port".to_owned(),
        Fate::Alone => {
            "no second leg is known for certain: the server itself is the other party, or which leg is the other is in doubt; \
             the party gets BYE"
                .to_owned()
        }
        Fate::Silent(why) => format!("{why}; both parties get BYE"),
    };
    let why = [Some(of_signalling), Some(of_audio).filter(|text| !text.is_empty()), fate::refusal(&paths)];
    let why = why.into_iter().flatten().collect::<Vec<_>>().join("; ");
    Recovery { audio, signalling, why, flows: flows.iter().map(Into::into).collect() }
}

#[cfg(test)]
mod tests;
