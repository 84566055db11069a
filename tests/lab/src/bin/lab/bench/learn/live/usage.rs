//! What the agents and etcd did over a time.

use anyhow::{Context as _, Result};
use lab::agent::{Agent, INSTANCE};
use lab::lan::Host;
use nix::unistd::{SysconfVar, sysconf};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The packet counter of a host's interface.
pub(super) struct Meter {
    host: Host,
}

impl Meter {
    pub(super) fn new(host: &Host) -> Self {
        Self { host: host.clone() }
    }

    /// Packets received and sent so far.
    fn packets(&self) -> Result<u64> {
        let text = self.host.exec(&[
            "cat",
            "/sys/class/net/eth0/statistics/rx_packets",
            "/sys/class/net/eth0/statistics/tx_packets",
        ])?;
        text.split_whitespace().map(|n| n.parse::<u64>().context("a count of packets")).sum()
    }
}

/// Figures of one interval.
pub(super) struct Measured {
    /// User and system time of the agents, in percent of one core.
    pub(super) master_percent: f64,
    pub(super) backup_percent: f64,
    /// Time on a core by the scheduler's count, including interrupts in that time.
    pub(super) master_run_percent: f64,
    /// Packets through the interface of the master's host, both ways.
    pub(super) packets_per_s: f64,
}

/// Measures for this time.
pub(super) fn over(time: Duration, master: &Agent, backup: &Agent, wire: &Meter) -> Result<Measured> {
    let look = || Ok::<_, anyhow::Error>((processor(master)?, processor(backup)?, run_time(master)?, wire.packets()?));
    let (start, before) = (Instant::now(), look()?);
    std::thread::sleep(time);
    let (after, took) = (look()?, start.elapsed().as_secs_f64());
    let percent = |a: Duration, b: Duration| (b.saturating_sub(a)).as_secs_f64() * 100.0 / took;
    Ok(Measured {
        master_percent: percent(before.0, after.0),
        backup_percent: percent(before.1, after.1),
        master_run_percent: percent(before.2, after.2),
        packets_per_s: (after.3 - before.3) as f64 / took,
    })
}

/// User and system time of an agent and its children.
fn processor(agent: &Agent) -> Result<Duration> {
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("the ticks of a second")?;
    let mut ticks = 0;
    for pid in agent.proc.family()? {
        // A process that has ended meanwhile did none of the work that is measured.
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name, in parentheses, may contain anything; utime and stime are fields 14 and 15.
        let Some((_, rest)) = text.rsplit_once(')') else { continue };
        ticks += rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

fn run_time(agent: &Agent) -> Result<Duration> {
    let mut sum = 0;
    for pid in agent.proc.family()? {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            sum += text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(sum))
}

/// Frames that the agent's capture saw and lost, from `status`. The kernel counts the frames for which it had no room.
pub(super) fn captured(status: &Value) -> Result<(u64, u64)> {
    let all = status["instances"].as_array().context("status has no instances")?;
    let capture = &all.iter().find(|i| i["name"] == INSTANCE).context("status lacks the instance")?["calls"]["capture"];
    let number =
        |name: &str| capture[name].as_u64().with_context(|| format!("status lacks {name} of the agent's capture"));
    Ok((number("seen")?, number("dropped")?))
}

/// etcd's own counters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) puts: u64,
    pub(super) transactions: u64,
}

impl Counts {
    pub(super) const fn since(&self, before: &Self) -> Self {
        Self { puts: self.puts - before.puts, transactions: self.transactions - before.transactions }
    }
}

/// Reads the counters of the member on this host.
pub(super) fn etcd_counts(host: &Host) -> Result<Counts> {
    let text = host.enter(|| {
        let mut to = TcpStream::connect(("127.0.0.1", 2379)).context("etcd's metrics")?;
        to.set_read_timeout(Some(Duration::from_secs(5)))?;
        to.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        to.read_to_string(&mut text)?;
        Ok(text)
    })?;
    let of = |name: &str| {
        let value = text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok());
        value.map(|v| v as u64).with_context(|| format!("etcd has no metric {name}"))
    };
    Ok(Counts { puts: of("etcd_debugging_mvcc_put_total ")?, transactions: of("etcd_debugging_mvcc_txn_total ")? })
}
