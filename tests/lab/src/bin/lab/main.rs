//! The lab's program: the demo, the benchmark, chaos, and a test of the lab itself.

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "keepcall's lab: hosts made of network namespaces, with etcd, Asterisk and phones")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Test the lab without keepcall: calls through an Asterisk whose VIP is set by hand
    Selftest(selftest::Args),
    /// Set calls up, take their server away, and show that the calls continue
    Demo(demo::Args),
    /// Make faults happen for a number of rounds, and check that two hosts never have the VIP
    Chaos(lab::chaos::Args),
    /// Measure
    Bench(bench::Args),
}

mod bench;
mod classes;
mod comeback;
mod costs;
mod demo;
mod event;
mod selftest;
mod timeline;

fn main() -> std::process::ExitCode {
    let result: Result<bool> = match Cli::parse().command {
        Command::Selftest(args) => selftest::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Chaos(args) => lab::chaos::main(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match result {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(e) => {
            eprintln!("lab: {e:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
