//! The commands of the operator: what they ask the agent, and how they show the answer.

mod calls;
mod check_config;
mod forget;
mod history;
mod inspect;
mod mode;
mod output;
mod pause;
mod status;
mod switchover;

pub use inspect::{InspectArgs, inspect};
pub use output::complain;

use super::api::{ErrorKind, Reply, Request};
use super::client::{self, ClientError};
use crate::config::{self, Files};
use output::Output;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Done as asked.
pub const OK: u8 = 0;
/// Tried, and failed.
pub const FAILED: u8 = 1;
/// The command line makes no sense (clap's own code).
pub const USAGE: u8 = 2;
/// The configuration is wrong.
pub const BAD_CONFIG: u8 = 3;
/// The agent is not reachable.
pub const NO_AGENT: u8 = 4;
/// Not done: refused by the operator or the agent, or there is no candidate.
pub const REFUSED: u8 = 5;

/// Where the configuration is if nothing else is said.
pub const DEFAULT_CONFIG: &str = "/etc/keepcall/keepcall.toml";
/// Status, calls and history are ready in the agent; who waits longer has a stuck agent.
const QUICK: Duration = Duration::from_secs(10);

/// The exit codes, for `--help`.
pub const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 configuration invalid, 4 agent not reachable, \
5 refused or no candidate";

/// What every command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Configuration file [default: /etc/keepcall/keepcall.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The agent's socket [default: as in the configuration, else /run/keepcall/keepcall.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Log level: error, warn, info, debug, trace, or target=level pairs
    #[arg(long, global = true, env = "KEEPCALL_LOG", value_name = "LEVEL", hide_env_values = true)]
    pub log: Option<String>,
    /// Log as JSON lines
    #[arg(long, global = true)]
    pub log_json: bool,
}

impl Global {
    /// The configuration file that is meant.
    #[must_use]
    pub fn config_path(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG))
    }

    /// The agent's socket. An explicit `--config` must be readable and right; the default file may be out of an operator's reach.
    fn socket(&self) -> Result<PathBuf, u8> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        match (config::load_with(self.config_path(), Files::Ignore), &self.config) {
            (Ok(loaded), _) => Ok(loaded.config.control.socket),
            (Err(_), None) => Ok(config::Control::default().socket),
            (Err(e), Some(_)) => {
                complain(&e.to_string());
                Err(BAD_CONFIG)
            }
        }
    }

    /// Asks the agent; what went wrong is told, and becomes the exit code.
    fn ask(&self, request: &Request, wait: Duration, json: bool) -> Result<Reply, u8> {
        let reply = client::ask(&self.socket()?, request, wait);
        match reply {
            Ok(Reply::Error(e)) => {
                if json {
                    Output::new().json(&serde_json::json!({ "error": e }));
                }
                let advice = if e.advice.is_empty() { String::new() } else { format!("\n  = {}", e.advice) };
                complain(&format!("{}{advice}", e.message));
                Err(match e.kind {
                    ErrorKind::Failed => FAILED,
                    ErrorKind::Invalid => USAGE,
                    ErrorKind::Refused => REFUSED,
                })
            }
            Ok(reply) => Ok(reply),
            Err(e) => {
                complain(&e.to_string());
                Err(if matches!(e, ClientError::Timeout(..) | ClientError::Garbled { .. }) { FAILED } else { NO_AGENT })
            }
        }
    }
}

/// The commands that need no agent code of their own.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Show who is master of what, since when and why; nodes, checks and calls
    Status(status::StatusArgs),
    /// Hand an instance over to another node
    Switchover(switchover::SwitchoverArgs),
    /// Pause automatic changes of master in the whole cluster, for maintenance
    Pause(pause::PauseArgs),
    /// End the pause
    Resume(pause::ResumeArgs),
    /// Take a node that is gone for good out of the members
    Forget(forget::ForgetArgs),
    /// Show or change what becomes of calls: observe, audio or full
    Mode(mode::ModeArgs),
    /// List the calls that are kept
    Calls(calls::CallsArgs),
    /// List the changes of master with their times and the outcome of calls
    History(history::HistoryArgs),
    /// Check a configuration file
    CheckConfig(check_config::CheckArgs),
}

/// Runs a command; returns the exit code of the process.
#[must_use]
pub fn run(global: &Global, command: &Command) -> u8 {
    let done = match command {
        Command::Status(args) => status::run(global, args),
        Command::Switchover(args) => switchover::run(global, args),
        Command::Pause(args) => pause::pause(global, args),
        Command::Resume(args) => pause::resume(global, args),
        Command::Forget(args) => forget::run(global, args),
        Command::Mode(args) => mode::run(global, args),
        Command::Calls(args) => calls::run(global, args),
        Command::History(args) => history::run(global, args),
        Command::CheckConfig(args) => check_config::run(global, args),
    };
    match done {
        Ok(()) => OK,
        Err(code) => code,
    }
}

/// An answer of the wrong kind: the agent is of another version.
fn unexpected() -> u8 {
    complain("the agent answered something else\n  = use the command line of the agent's version");
    FAILED
}

#[cfg(test)]
mod tests;
