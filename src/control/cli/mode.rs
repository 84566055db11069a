//! `keepcall mode`

use super::output::{Output, ago, complain, printable};
use super::{FAILED, Global, QUICK, REFUSED, unexpected};
use crate::config::Mode;
use crate::control::api::{ModeChange, ModeReply, ModeStatus, Reply, Request};
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

/// Arguments of `keepcall mode`.
#[derive(Clone, Debug, clap::Args)]
pub struct ModeArgs {
    /// Instance; without a mode, optional if the agent has only one
    instance: Option<String>,
    /// New mode on every node; without it, the command shows the current mode
    #[arg(value_enum)]
    mode: Option<WantedMode>,
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
}

/// A mode, or back to the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum WantedMode {
    /// Learn calls, and report what the other modes would do; send no SIP, relay no audio
    Observe,
    /// Relay audio; send no SIP
    Audio,
    /// Relay audio, send re-INVITEs, and carry calls
    Full,
    /// Use the mode in each node's configuration
    Configured,
}

impl From<WantedMode> for ModeChange {
    fn from(wanted: WantedMode) -> Self {
        match wanted {
            WantedMode::Observe => Self::Set(Mode::Observe),
            WantedMode::Audio => Self::Set(Mode::Audio),
            WantedMode::Full => Self::Set(Mode::Full),
            WantedMode::Configured => Self::Configured,
        }
    }
}

pub(super) fn run(global: &Global, args: &ModeArgs) -> Result<(), u8> {
    let ask = |change| match global.ask(&Request::Mode { instance: args.instance.clone(), change }, QUICK, args.json)? {
        Reply::Mode(reply) => Ok(reply),
        _ => Err(unexpected()),
    };
    let mut out = Output::new();
    let reply = match args.mode {
        None => ask(None)?,
        Some(wanted) => {
            if !args.yes {
                agree(&mut out, &ask(None)?, wanted)?;
            }
            ask(Some(wanted.into()))?
        }
    };
    if args.json {
        out.json(&reply);
    } else {
        out.text(&render(&reply));
    }
    Ok(())
}

/// The effect of a change on calls that are up now, where it is not obvious.
pub(super) fn consequence(now: &ModeReply, wanted: WantedMode) -> Option<String> {
    let before = now.now.mode.unwrap_or_default();
    let ModeChange::Set(after) = ModeChange::from(wanted) else { return None };
    (after < before && before == Mode::Full && now.carried > 0).then(|| {
        format!(
            "{} calls are carried on this node: the calls keep their audio, but the agent no longer answers the \
             phones, so a party that hangs up leaves the other party in silence\n",
            now.carried
        )
    })
}

fn agree(out: &mut Output, now: &ModeReply, wanted: WantedMode) -> Result<(), u8> {
    if !std::io::stdin().is_terminal() {
        complain("no terminal to ask for confirmation\n  = add --yes to change the mode without confirmation");
        return Err(REFUSED);
    }
    // The question goes to the terminal; the output may be a file.
    let mut terminal = std::io::stderr();
    let word = format!("{wanted:?}").to_ascii_lowercase();
    let consequence = consequence(now, wanted).unwrap_or_default();
    let _ = write!(terminal, "{}{consequence}change {} to {word} on every node? [y/N] ", render(now), now.instance);
    let _ = terminal.flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|_| FAILED)?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    out.line("cancelled: nothing was changed");
    Err(REFUSED)
}

/// The mode and its source, in a few words.
pub(super) fn words(status: &ModeStatus) -> String {
    let mode = status.mode.map_or_else(|| "not known yet".to_owned(), |m| m.to_string());
    match (&status.set_by, status.set_ms) {
        (Some(by), Some(at)) => format!("{mode} (set on {}, {})", printable(by), ago(at)),
        _ => format!("{mode} (configuration)"),
    }
}

/// Problems with the mode of an instance.
pub(super) fn warnings(instance: &str, status: &ModeStatus) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    if let Some(mixed) = status.mixed() {
        let _ = writeln!(text, "{instance}: the mode is NOT the same on every node: {}", printable(&mixed));
    }
    if let Some(problem) = &status.problem {
        let _ = writeln!(
            text,
            "{instance}: cannot read the mode in etcd ({}): set the mode again with `keepcall mode {instance} MODE`",
            printable(problem)
        );
    }
    text
}

pub(super) fn render(reply: &ModeReply) -> String {
    format!("{}: {}\n{}", reply.instance, words(&reply.now), warnings(&reply.instance, &reply.now))
}
