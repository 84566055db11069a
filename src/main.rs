//! The keepcall command.

use clap::Parser as _;
use keepcall::control::{cli, logging};
use std::process::ExitCode;

/// Keeps the calls of a SIP or media server when its floating address moves to another host
#[derive(Debug, clap::Parser)]
#[command(version, after_help = cli::EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    global: cli::Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(flatten)]
    Operator(cli::Command),
}

fn main() -> ExitCode {
    let Arguments { global, command } = Arguments::parse();
    if let Err(e) = logging::init(global.log.as_deref(), global.log_json) {
        cli::complain(&e.to_string());
        return ExitCode::from(cli::USAGE);
    }
    ExitCode::from(match command {
        Command::Operator(command) => cli::run(&global, &command),
    })
}
