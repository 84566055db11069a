//! How fast calls are learnt, and the cost: from memory, from a capture file beside sngrep, stored, and on a live wire.

pub(super) mod figures;
mod live;
mod memory;
mod pcap;
mod peers;
mod stored;
pub(crate) mod traffic;
mod words;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::path::PathBuf;
use traffic::{Places, Plan, Traffic};

/// A call is up or rings for twelve seconds; its ports are used again after 2400 calls.
const MOST_CALLS_A_SECOND: usize = 180;

#[derive(clap::Args)]
pub(crate) struct Learn {
    /// Print only the last line; progress goes to standard error
    #[arg(long)]
    json: bool,
    /// Rounds of each measurement, after one that warms up
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Parser and tracker from memory
    #[arg(long)]
    memory: bool,
    /// A capture file, read by keepcall and by sngrep in turn
    #[arg(long)]
    capture: bool,
    /// Calls in the capture file
    #[arg(long, default_value_t = 5000)]
    capture_calls: usize,
    /// Memory of a stored call
    #[arg(long)]
    stored: bool,
    /// Calls with audio on a wire between two agents, phones and a server
    #[arg(long)]
    live: bool,
    /// Calls that begin and end each second; each is up for ten seconds
    #[arg(long, default_value_t = 100)]
    rate: usize,
    /// Seconds of the measurement on the wire
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// No audio on the wire
    #[arg(long)]
    no_audio: bool,
    /// The keepcall program. Default: the one from the same build
    #[arg(long)]
    keepcall: Option<PathBuf>,
    /// Read this capture file through path and table, print what was learnt, and end: the measurement runs this as a
    /// process of its own
    #[arg(long, hide = true)]
    replay: Option<PathBuf>,
    /// Instead, hold the calls of that file in memory as a node of this role, and print the memory
    #[arg(long, hide = true, requires = "replay")]
    hold_as: Option<stored::Role>,
}

pub(crate) fn run(args: &Learn) -> Result<bool> {
    if let Some(path) = &args.replay {
        let told = args.hold_as.map_or_else(|| peers::replay(path), |role| stored::hold(role, path))?;
        println!("{told}");
        return Ok(true);
    }
    if args.rounds == 0 || args.capture_calls == 0 || args.seconds == 0 {
        bail!("nothing to measure: set at least one round, one call and one second");
    }
    if args.rate == 0 || args.rate > MOST_CALLS_A_SECOND {
        bail!("the lab's server has ports for 1 to {MOST_CALLS_A_SECOND} calls a second");
    }
    let all = !(args.memory || args.capture || args.stored || args.live);
    let mut parts = serde_json::Map::new();
    let say = |line: &str| if args.json { eprintln!("{line}") } else { println!("{line}") };
    if all || args.memory {
        parts.insert("memory".into(), memory::run(args.rounds, &say)?);
    }
    if all || args.capture {
        parts.insert("capture".into(), peers::run(args.rounds, args.capture_calls, args.keepcall.clone(), &say)?);
    }
    if all || args.stored {
        parts.insert("stored".into(), stored::run(&say)?);
    }
    if all || args.live {
        let wish = live::Wish {
            rate: args.rate,
            seconds: args.seconds,
            audio: !args.no_audio,
            program: args.keepcall.clone(),
        };
        parts.insert("live".into(), live::run(&wish, &say)?);
    }
    println!("{}", Value::Object(parts));
    Ok(true)
}

/// Describes the traffic of a measurement, for its row.
fn about(traffic: &Traffic, up: usize) -> Value {
    json!({
        "calls": traffic.calls,
        "calls_up": up,
        "messages": traffic.len(),
        "mean_bytes": traffic.bytes() / traffic.len().max(1),
    })
}

/// `up` calls at a time of `calls` in all, with conversations of a minute.
fn minute_calls(up: usize, calls: usize) -> Traffic {
    Traffic::new(&Plan { calls, up, hold: std::time::Duration::from_secs(60), places: Places::wide() })
}
