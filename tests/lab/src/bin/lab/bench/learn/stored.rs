//! Memory of a stored call, by the resident size of a process that holds many: as a backup, which reads calls from
//! etcd, and as the master, which follows the calls too.

use super::figures::rounded;
use super::memory::{EPOCH_MS, settings};
use super::peers::read;
use super::traffic::Places;
use super::{minute_calls, pcap};
use anyhow::{Context as _, Result, ensure};
use keepcall::calls::mirror::Stored;
use keepcall::calls::model::{Call, CallEvent};
use keepcall::calls::table::Table;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Limits to reach.
const TARGET_BYTES: u64 = 6 * 1024;
/// So many calls that the rest of the process's memory does not matter.
const CALLS: usize = 9000;
/// Calls that the traffic would have up at a time: more than in all, so that all of them are up before the first one
/// ends.
const UP: usize = 10_000;
/// At this time all calls are answered, more than half of them refreshed, and none over.
const UNTIL: Duration = Duration::from_secs(58);

/// Role of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Role {
    Backup,
    Master,
}

pub(super) fn run(say: &dyn Fn(&str)) -> Result<Value> {
    let traffic = minute_calls(UP, CALLS);
    let dir = tempfile::tempdir()?;
    let (packets, values) = (dir.path().join("calls.pcap"), dir.path().join("calls.json"));
    pcap::write(&traffic, Duration::from_millis(EPOCH_MS), BufWriter::new(File::create(&packets)?))?;
    drop(traffic);
    let json_bytes = write_values(&packets, &values)?;
    let mut row = json!({ "calls": CALLS, "target_bytes": TARGET_BYTES, "value_bytes": json_bytes });
    for (role, name, file) in [(Role::Backup, "backup", &values), (Role::Master, "master", &packets)] {
        let out = Command::new(std::env::current_exe()?)
            .args(["bench", "learn", "--hold-as", name, "--replay", file.to_str().context("path is not UTF-8")?])
            .output()?;
        ensure!(out.status.success(), "cannot hold calls as {role:?}: {}", String::from_utf8_lossy(&out.stderr));
        let held: Value = serde_json::from_slice(&out.stdout)?;
        ensure!(held["calls"] == CALLS, "{role:?} held {} of {CALLS} calls", held["calls"]);
        let bytes = held["bytes"].as_f64().context("the bytes")? / CALLS as f64;
        say(&format!("stored, {name}: {bytes:.0} bytes a call ({json_bytes} in etcd)"));
        row[format!("{name}_bytes_per_call")] = rounded(bytes, 0);
    }
    Ok(row)
}

/// Writes each call as in etcd, one per line. Returns the mean size in bytes.
fn write_values(packets: &Path, to: &Path) -> Result<usize> {
    let (_, stored) = learnt(packets)?;
    let (mut file, mut bytes) = (BufWriter::new(File::create(to)?), 0);
    for call in stored.values() {
        let value = serde_json::to_vec(call)?;
        bytes += value.len();
        file.write_all(&value)?;
        file.write_all(b"\n")?;
    }
    file.flush()?;
    Ok(bytes / stored.len().max(1))
}

/// What a master holds for the calls of a capture file: the table that follows them, and its knowledge of what is
/// stored.
fn learnt(packets: &Path) -> Result<(Table, Stored)> {
    let mut table = Table::new(settings(Places::wide().server));
    let mut stored = Stored::new(2 * CALLS);
    let end = Duration::from_millis(EPOCH_MS) + UNTIL;
    read(packets, &mut table, Some(end), &mut |table| {
        while let Some(event) = table.poll_event() {
            match event {
                CallEvent::Put(call) => drop(stored.put(call)),
                CallEvent::Delete { id, .. } => drop(stored.remove(&id)),
            }
        }
    })?;
    Ok((table, stored))
}

/// Holds the calls of a file, and prints how much this process grew.
pub(super) fn hold(role: Role, file: &Path) -> Result<Value> {
    let before = resident()?;
    let (table, stored) = match role {
        Role::Master => {
            let (table, stored) = learnt(file)?;
            (Some(table), stored)
        }
        Role::Backup => {
            let mut stored = Stored::new(2 * CALLS);
            let mut line = Vec::new();
            let mut lines = BufReader::new(File::open(file)?);
            while lines.read_until(b'\n', &mut line)? > 0 {
                let mut call: Box<Call> = serde_json::from_slice(&line)?;
                call.shrink();
                stored.put(call);
                line.clear();
            }
            (None, stored)
        }
    };
    let bytes = resident()?.saturating_sub(before);
    let calls = stored.values().filter(|c| c.legs.len() == 2).count();
    drop((table, stored));
    Ok(json!({ "calls": calls, "bytes": bytes }))
}

/// Resident memory of this process, in bytes.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS in /proc/self/status")?;
    let kib: u64 = line.split_whitespace().next().context("no number in VmRSS")?.parse()?;
    Ok(kib * 1024)
}
