//! How fast calls are learnt, and what it costs: from memory, from a capture file beside sngrep, stored, and on a live wire.

mod figures;
mod memory;
mod pcap;
mod peers;
pub(crate) mod traffic;
mod words;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::path::PathBuf;
use traffic::{Places, Plan, Traffic};

#[derive(clap::Args)]
pub(crate) struct Learn {
    /// Print the last line only; progress goes to standard error.
    #[arg(long)]
    json: bool,
    /// Rounds of each measurement, after one that warms up.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Parser and tracker from memory.
    #[arg(long)]
    memory: bool,
    /// A capture file, read by keepcall and by sngrep in turn.
    #[arg(long)]
    capture: bool,
    /// Calls in the capture file.
    #[arg(long, default_value_t = 5000)]
    capture_calls: usize,
    /// The keepcall program; the one built along with this one if absent.
    #[arg(long)]
    keepcall: Option<PathBuf>,
    /// Read this capture file through path and table, tell what was learnt, and end: what the measurement runs as a process of its own.
    #[arg(long, hide = true)]
    replay: Option<PathBuf>,
}

pub(crate) fn run(args: &Learn) -> Result<bool> {
    if let Some(path) = &args.replay {
        println!("{}", peers::replay(path)?);
        return Ok(true);
    }
    if args.rounds == 0 || args.capture_calls == 0 {
        bail!("nothing to measure: give at least one round and one call");
    }
    let all = !(args.memory || args.capture);
    let mut parts = serde_json::Map::new();
    let say = |line: &str| if args.json { eprintln!("{line}") } else { println!("{line}") };
    if all || args.memory {
        parts.insert("memory".into(), memory::run(args.rounds, &say)?);
    }
    if all || args.capture {
        parts.insert("capture".into(), peers::run(args.rounds, args.capture_calls, args.keepcall.clone(), &say)?);
    }
    println!("{}", Value::Object(parts));
    Ok(true)
}

/// What the traffic of a measurement is like, for its row.
fn about(traffic: &Traffic, up: usize) -> Value {
    json!({
        "calls": traffic.calls,
        "calls_up": up,
        "messages": traffic.len(),
        "mean_bytes": traffic.bytes() / traffic.len().max(1),
    })
}

/// So many calls at a time, and a few more in all, with conversations of a minute.
fn minute_calls(up: usize, calls: usize) -> Traffic {
    Traffic::new(&Plan { calls, up, hold: std::time::Duration::from_secs(60), places: Places::wide() })
}
