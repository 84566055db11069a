//! keepcall and other programs read one capture file with the same messages, in turn.

use super::figures::{Figures, rounded};
use super::memory::{EPOCH_MS, settings};
use super::traffic::Places;
use super::{about, minute_calls, pcap};
use anyhow::{Context as _, Result, ensure};
use keepcall::calls::model::CallEvent;
use keepcall::calls::table::Table;
use keepcall::time::Time;
use keepcall::wire::frame::Link;
use keepcall::wire::path::{Path as Frames, PathSettings};
use lab::agent::built_program;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use pcap_file::pcap::PcapReader;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Ratio to reach: processor time of sngrep divided by that of keepcall.
const TARGET: f64 = 10.0;
/// Calls that are up at a time in the file.
const UP: usize = 1000;

/// A program that reads the file, with its number of runs and its times.
struct Reader {
    name: &'static str,
    argv: Vec<String>,
    processor: Figures,
    wall: Figures,
    output: String,
}

impl Reader {
    fn new(name: &'static str, argv: &[&str]) -> Self {
        let argv = argv.iter().map(|&a| a.to_owned()).collect();
        Self { name, argv, processor: Figures::default(), wall: Figures::default(), output: String::new() }
    }

    fn run(&mut self, counts: bool) -> Result<()> {
        let (before, start) = (children_time()?, Instant::now());
        let out = Command::new(&self.argv[0])
            .args(&self.argv[1..])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .with_context(|| format!("cannot run {}", self.argv[0]))?;
        let (took, wall) = (children_time()?.saturating_sub(before), start.elapsed());
        ensure!(
            out.status.success(),
            "{:?} ended with {}: {}",
            self.argv,
            out.status,
            String::from_utf8_lossy(&out.stderr)
        );
        self.output = String::from_utf8_lossy(&out.stdout).into_owned();
        if counts {
            self.processor.add(took.as_secs_f64() * 1000.0);
            self.wall.add(wall.as_secs_f64() * 1000.0);
        }
        Ok(())
    }
}

/// User and system time of all children that have ended.
fn children_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let of = |t: TimeVal| {
        Ok::<_, anyhow::Error>(Duration::new(u64::try_from(t.tv_sec())?, u32::try_from(t.tv_usec())? * 1000))
    };
    Ok(of(usage.user_time())? + of(usage.system_time())?)
}

pub(super) fn run(rounds: usize, calls: usize, program: Option<PathBuf>, say: &dyn Fn(&str)) -> Result<Value> {
    let traffic = minute_calls(UP.min(calls), calls);
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("calls.pcap");
    let file = std::io::BufWriter::new(std::fs::File::create(&path)?);
    pcap::write(&traffic, Duration::from_millis(EPOCH_MS), file)?;
    let size = std::fs::metadata(&path)?.len();
    let file = path.to_str().context("the path of the capture file is not UTF-8")?.to_owned();
    let me = std::env::current_exe()?;
    let program = program.map_or_else(built_program, Ok)?;
    let (me, program) = (me.to_string_lossy(), program.to_string_lossy());
    // Beyond its limit sngrep leaves calls out. With `-c` it keeps only calls, and no registrations: less work than
    // without.
    let limit = (traffic.call_ids + 1000).to_string();
    let sngrep = ["sngrep", "-F", "-N", "-q", "-l", &limit, "-I", &file];
    let mut readers = vec![
        Reader::new("keepcall path and table", &[&me, "bench", "learn", "--replay", &file]),
        Reader::new("keepcall inspect --json", &[&program, "inspect", "--json", &file]),
        Reader::new("sngrep", &sngrep),
        Reader::new("sngrep -c", &[&sngrep[..], &["-c"]].concat()),
    ];
    let mut dissector = Reader::new("tshark", &["tshark", "-q", "-n", "-r", &file, "-z", "sip,stat"]);
    for round in 0..=rounds {
        for r in &mut readers {
            r.run(round > 0)?;
        }
        if round == 1 {
            // For information: tshark is so slow that one run is enough.
            if let Err(e) = dissector.run(true) {
                say(&format!("leaving tshark out: {e:#}"));
            }
        }
    }
    let found = found(&readers, &sngrep, &dissector)?;
    ensure!(
        found["keepcall path and table"] == traffic.calls && found["keepcall inspect --json"] == traffic.calls,
        "of {} calls keepcall learnt {found}",
        traffic.calls
    );
    let messages = traffic.len() as f64;
    let median = |name: &str| readers.iter().find(|r| r.name == name).map_or(0.0, |r| r.processor.median());
    // Compares with the faster way of sngrep.
    let other = median("sngrep").min(median("sngrep -c"));
    let mut rows = Vec::new();
    readers.push(dissector);
    for r in readers.iter().filter(|r| r.processor.median() > 0.0) {
        let ratio = other / r.processor.median();
        say(&format!(
            "capture file, {:<24} {:>8.1} ms processor ({:.1} to {:.1}), {:>8.1} ms wall, {:>9.0} messages/s, {ratio:.2} times sngrep; found {}",
            r.name,
            r.processor.median(),
            r.processor.at(0.0),
            r.processor.at(1.0),
            r.wall.median(),
            messages * 1000.0 / r.processor.median(),
            found[r.name]
        ));
        rows.push(json!({
            "reader": r.name,
            "processor_ms": r.processor.json(1),
            "wall_ms": r.wall.json(1),
            "messages_per_s": rounded(messages * 1000.0 / r.processor.median(), 0),
            "times_sngrep": rounded(ratio, 2),
            "found": found[r.name],
        }));
    }
    let mut all = about(&traffic, UP.min(calls));
    all["dialogs"] = json!(traffic.call_ids);
    all["file_bytes"] = json!(size);
    all["rounds"] = json!(rounds);
    all["target_times_sngrep"] = json!(TARGET);
    all["rows"] = json!(rows);
    Ok(all)
}

/// What each reader found: calls for keepcall; dialogs for sngrep, or calls by Call-ID with `-c` (two for each of
/// ours).
fn found(readers: &[Reader], sngrep: &[&str], dissector: &Reader) -> Result<Value> {
    let mut all = serde_json::Map::new();
    for r in readers {
        let n = match r.name {
            "keepcall path and table" => serde_json::from_str::<Value>(&r.output)?["calls"].as_u64(),
            "keepcall inspect --json" => {
                serde_json::from_str::<Value>(&r.output)?["calls"].as_array().map(|a| a.len() as u64)
            }
            _ => {
                // Without `-q` sngrep prints a running count.
                let mut loud: Vec<&str> = sngrep.iter().copied().filter(|a| *a != "-q").collect();
                if r.name.ends_with("-c") {
                    loud.push("-c");
                }
                let mut r = Reader::new("loud", &loud);
                r.run(false)?;
                r.output.rsplit("Dialog count:").next().and_then(|n| n.trim().parse().ok())
            }
        };
        all.insert(r.name.into(), n.map_or(Value::Null, Value::from));
    }
    let sip = dissector
        .output
        .lines()
        .find_map(|l| l.trim().strip_prefix("Number of SIP messages:")?.trim().parse::<u64>().ok());
    all.insert(dissector.name.into(), sip.map_or(Value::Null, Value::from));
    Ok(Value::Object(all))
}

/// Reads a file through path and table, without a report.
pub(super) fn replay(path: &Path) -> Result<Value> {
    let mut table = Table::new(settings(Places::wide().server));
    let (mut calls, mut puts) = (HashSet::new(), 0_u64);
    let messages = read(path, &mut table, None, &mut |table| {
        while let Some(event) = table.poll_event() {
            if let CallEvent::Put(call) = event {
                puts += 1;
                if call.legs.len() == 2 {
                    calls.insert(call.id);
                }
            }
        }
    })?;
    Ok(json!({ "messages": messages, "calls": calls.len(), "puts": puts }))
}

/// Hands the messages of a file to a table, up to a time since 1970, and calls `each` after each. Returns the number of
/// messages.
pub(super) fn read(
    path: &Path,
    table: &mut Table,
    end: Option<Duration>,
    each: &mut dyn FnMut(&mut Table),
) -> Result<u64> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    // The reader has a buffer of its own; another one would only copy everything again.
    let mut reader = PcapReader::new(file)?;
    let server = Places::wide().server;
    let mut frames = Frames::new(PathSettings { ports: Some(vec![server.port()]), hosts: vec![server.ip()] });
    let (mut last, mut messages) = (Time::ZERO, 0);
    while let Some(packet) = reader.next_packet() {
        let packet = packet?;
        if end.is_some_and(|end| packet.timestamp > end) {
            break;
        }
        last = last.max(Time::from_nanos(u64::try_from(packet.timestamp.as_nanos())?));
        if table.next_deadline().is_some_and(|d| d <= last) {
            table.handle_timeout(last);
        }
        frames.handle_frame(Link::Ethernet, &packet.data, last, &mut |packet| {
            table.handle_packet(&packet, last.as_nanos() / 1_000_000, last);
            messages += 1;
        });
        each(table);
    }
    Ok(messages)
}
