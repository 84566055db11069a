//! The operator's commands: their requests to the agent, and the display of the answers.

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

/// Done.
pub const OK: u8 = 0;
/// Tried, and failed.
pub const FAILED: u8 = 1;
/// Wrong usage (clap's own code).
pub const USAGE: u8 = 2;
/// The configuration is wrong.
pub const BAD_CONFIG: u8 = 3;
/// The agent is not reachable.
pub const NO_AGENT: u8 = 4;
/// Not done: the operator or the agent refused, or there is no candidate.
pub const REFUSED: u8 = 5;

/// The default configuration file.
pub const DEFAULT_CONFIG: &str = "/etc/keepcall/keepcall.toml";
/// Timeout for requests answered from memory (status, calls, history); a longer wait means a hung agent.
const QUICK: Duration = Duration::from_secs(10);

/// The exit codes, for `--help`.
pub const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 configuration invalid, 4 agent not reachable, \
5 refused or no candidate";

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Configuration file [default: /etc/keepcall/keepcall.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Socket of the agent [default: as in the configuration, else /run/keepcall/keepcall.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Log level: error, warn, info, debug, trace, or target=level pairs
    #[arg(long, global = true, env = "KEEPCALL_LOG", value_name = "LEVEL", hide_env_values = true)]
    pub log: Option<String>,
    /// Write each log line as a JSON object
    #[arg(long, global = true)]
    pub log_json: bool,
}

impl Global {
    /// The configuration file to use.
    #[must_use]
    pub fn config_path(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG))
    }

    /// The agent's socket. An explicit `--config` must be readable and correct; the default file may be unreadable for
    /// this operator.
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

    /// Asks the agent; reports an error, and turns it into the exit code.
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
    /// Show the master of each instance, since when and why, and the nodes, checks and calls
    Status(status::StatusArgs),
    /// Hand an instance over to another node
    Switchover(switchover::SwitchoverArgs),
    /// Pause automatic changes of master in the whole cluster, for maintenance
    Pause(pause::PauseArgs),
    /// End the pause: allow automatic changes of master again
    Resume(pause::ResumeArgs),
    /// Remove a node that is gone for good from the members of an instance
    Forget(forget::ForgetArgs),
    /// Show or change what happens to calls at a change of master: observe, audio or full
    Mode(mode::ModeArgs),
    /// List the stored calls
    Calls(calls::CallsArgs),
    /// List the changes of master, with the time of each step and the outcome of the calls
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

/// An answer of the wrong kind: the agent has another version.
fn unexpected() -> u8 {
    complain("the agent sent an answer of the wrong kind\n  = use the keepcall command of the agent's release");
    FAILED
}

#[cfg(test)]
mod tests;
