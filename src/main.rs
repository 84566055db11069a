//! The keepcall command.

use clap::Parser as _;
use keepcall::config;
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
    /// Run the agent of this node
    Agent,
    /// Show the calls in a capture file, and the fate of each call if the server failed
    Inspect(cli::InspectArgs),
    #[command(flatten)]
    Operator(cli::Command),
}

fn main() -> ExitCode {
    let Arguments { global, command } = Arguments::parse();
    // Dropping the guard writes the last lines.
    let _written = match logging::init(global.log.as_deref(), global.log_json) {
        Ok(written) => written,
        Err(e) => {
            cli::complain(&e.to_string());
            return ExitCode::from(cli::USAGE);
        }
    };
    ExitCode::from(match command {
        Command::Agent => agent(&global),
        Command::Inspect(arguments) => cli::inspect(&arguments),
        Command::Operator(command) => cli::run(&global, &command),
    })
}

fn agent(global: &cli::Global) -> u8 {
    let origin = global.config_path().display().to_string();
    // Files named in the configuration, and their file systems, may appear later. The agent waits for them.
    let read = || {
        let text = config::text_of(global.config_path())?;
        config::parse(&text, &origin, config::Files::Ignore).map(|loaded| (text, loaded))
    };
    let (text, loaded) = match read() {
        Ok(read) => read,
        Err(e) => {
            cli::complain(&e.to_string());
            return cli::BAD_CONFIG;
        }
    };
    for warning in &loaded.warnings {
        cli::complain(&warning.as_warning(&origin));
    }
    let file = origin.clone();
    let files = move || config::parse(&text, &file, config::Files::Check).map(drop);
    match run_agent(loaded.config, files) {
        Ok(()) => cli::OK,
        Err(e) => {
            cli::complain(&format!("{e:#}"));
            cli::FAILED
        }
    }
}

#[tokio::main]
async fn run_agent(
    config: config::Config,
    files: impl Fn() -> Result<(), config::ConfigError> + Send + Sync,
) -> anyhow::Result<()> {
    Ok(keepcall::agent::run(config, files).await?)
}
