//! What the agent costs: memory with a thousand stored calls, and processor time while audio runs.

use anyhow::{Context, Result, bail};
use lab::agent::{Agent, INSTANCE, Setup, built_program, wait_armed};
use lab::asterisk::Asterisk;
use lab::calls::Calls;
use lab::etcd::Etcd;
use lab::lan::{Lan, end_after};
use lab::phone::Manner;
use lab::phone::crowd::Crowd;
use lab::{unix_us, wait};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Costs {
    /// Calls with audio, for the processor time
    #[arg(long, default_value_t = 10)]
    audio_calls: usize,
    /// Stored calls, for the memory (at most 9999)
    #[arg(long, default_value_t = 1000)]
    stored_calls: u16,
    /// Seconds of each measurement of processor time
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Print only the last line
    #[arg(long)]
    json: bool,
    /// The keepcall program. Default: the one from the same build
    #[arg(long)]
    keepcall: Option<PathBuf>,
}

/// Longest wait for a step. The recovery of a thousand calls takes seconds.
const LIMIT: Duration = Duration::from_secs(60);
/// Name of the agents' cluster.
const CLUSTER: &str = "costs";
/// SIP port of the crowds.
const CROWD: u16 = 5999;

/// RTP port of a call of the crowd, apart from the ports of the single phones.
const fn rtp_port(number: u16) -> u16 {
    40_000 + 2 * number
}

pub(crate) fn run(args: &Costs) -> Result<bool> {
    if args.audio_calls == 0 || args.stored_calls == 0 || args.stored_calls > 9999 || args.seconds == 0 {
        bail!("set 1 or more audio calls and seconds, and 1 to 9999 stored calls");
    }
    end_after(Duration::from_secs(300 + 4 * args.seconds) + Duration::from_millis(100) * u32::from(args.stored_calls));
    let lan = Lan::new()?;
    let bench = Bench { lan: &lan, args };
    let rows = match bench.rows() {
        Ok(rows) => rows,
        Err(e) => {
            let dir = std::env::temp_dir().join(format!("keepcall-bench-{}", std::process::id()));
            lan.keep_logs(&dir)?;
            return Err(e.context(format!("logs of all hosts are in {}", dir.display())));
        }
    };
    drop(lan);
    println!("{}", json!({ "rows": rows }));
    Ok(true)
}

struct Bench<'a> {
    lan: &'a Lan,
    args: &'a Costs,
}

impl Bench<'_> {
    fn say(&self, text: &str) {
        if !self.args.json {
            println!("{text}");
        }
    }

    fn row(&self, rows: &mut Vec<Value>, cost: &str, state: &str, value: f64, more: &Value) {
        self.say(&format!("{cost:>24}  {value:9.2}  {state}"));
        let mut row = json!({"cost": cost, "state": state, "value": (value * 100.0).round() / 100.0});
        if let (Some(row), Some(more)) = (row.as_object_mut(), more.as_object()) {
            row.extend(more.clone());
        }
        rows.push(row);
    }

    fn rows(&self) -> Result<Vec<Value>> {
        let (lan, mut rows) = (self.lan, Vec::new());
        let rt = tokio::runtime::Runtime::new()?;
        let hosts = [lan.host("a")?, lan.host("b")?];
        let mut servers = [Asterisk::start(lan, hosts[0])?, Asterisk::start(lan, hosts[1])?];
        let etcd = Etcd::start(lan)?;
        for s in &mut servers {
            s.wait_ready()?;
        }
        let program = self.args.keepcall.clone().map_or_else(built_program, Ok)?;
        let mut agents = Vec::new();
        for (host, server) in hosts.iter().zip(&servers) {
            let setup = Setup {
                program: program.clone(),
                cluster: CLUSTER.into(),
                endpoints: etcd.endpoints.clone(),
                heartbeat: Duration::from_millis(100),
                hold: Duration::from_millis(400),
                server_pidfile: Some(server.pidfile.clone()),
                on_backup: None,
            };
            // The measurement copies a call that the master stored, and does not have the cluster's key.
            agents.push(Agent::start_with(host, &setup, "encrypt = false\n")?);
        }
        let (master, backup) = wait_armed(&mut agents)?;

        self.cpu(&mut rows, "master, no calls", &agents[master])?;
        self.cpu(&mut rows, "backup, no calls", &agents[backup])?;
        let n = self.args.audio_calls;
        let calls = Calls::new(lan, &rt, n, Manner::default())?;
        calls.set_up(LIMIT)?;
        stored(&agents[backup], n)?;
        self.cpu(&mut rows, &format!("master, its server carries {n} calls with audio"), &agents[master])?;
        self.cpu(&mut rows, &format!("backup that follows {n} calls"), &agents[backup])?;
        agents[master].run(&["switchover", INSTANCE, "--yes"])?;
        let (old, master) = (master, backup);
        wait::until("the calls to be carried", LIMIT, || {
            let s = agents[master].instance().map_err(|e| format!("{e:#}"))?;
            if s["calls"]["carried"].as_u64() == Some(n as u64) { Ok(()) } else { Err(s["calls"].to_string()) }
        })?;
        self.cpu(&mut rows, &format!("master that carries {n} calls with audio"), &agents[master])?;
        let template = self.template(&etcd)?;
        calls.hang_up(LIMIT)?;
        stored(&agents[master], 0)?;
        stored(&agents[old], 0)?;
        drop(calls);

        self.thousand(&mut rows, (&etcd, &template), &agents, (master, old))?;
        Ok(rows)
    }

    /// The second half: many stored calls, then the death of their master.
    fn thousand(
        &self,
        rows: &mut Vec<Value>,
        (etcd, template): (&Etcd, &str),
        agents: &[Agent],
        (master, backup): (usize, usize),
    ) -> Result<()> {
        let lan = self.lan;
        let crowds = [Crowd::start(lan.host("p1")?, CROWD, rtp_port)?, Crowd::start(lan.host("p2")?, CROWD, rtp_port)?];
        let many = self.args.stored_calls;
        for (state, agent) in [("master, no calls", master), ("backup, no calls", backup)] {
            self.memory(rows, state, &agents[agent])?;
        }
        self.store(etcd, template, many)?;
        stored(&agents[backup], many.into())?;
        stored(&agents[master], many.into())?;
        self.memory(rows, &format!("backup that follows {many} calls"), &agents[backup])?;
        self.cpu(rows, &format!("backup that follows {many} calls"), &agents[backup])?;

        let at = unix_us();
        lan.cut(&agents[master].node)?;
        let settled = wait::every(Duration::from_millis(500), "the calls to be recovered", LIMIT, || {
            let history = agents[backup].history().map_err(|e| format!("{e:#}"))?;
            let entry = history.into_iter().next().unwrap_or_default();
            let when = entry["phases"].as_array().and_then(|p| p.iter().find(|p| p["name"] == "settled"));
            match when.and_then(|p| p["unix_us"].as_u64()).filter(|t| *t > at) {
                Some(t) if entry["calls"]["recovered"].as_u64() == Some(many.into()) => Ok((t, entry)),
                _ => Err(format!("{entry}; {} INVITEs answered", crowds.iter().map(Crowd::invites).sum::<usize>())),
            }
        })?;
        let (settled, entry) = settled;
        let phase = |name: &str| {
            let found = entry["phases"].as_array().and_then(|p| p.iter().find(|p| p["name"] == name));
            found.and_then(|p| p["unix_us"].as_u64()).unwrap_or(at)
        };
        let millis = |from: u64, to: u64| Duration::from_micros(to.saturating_sub(from)).as_secs_f64() * 1000.0;
        let first = phase("address");
        self.row(
            rows,
            "recovery_ms",
            &format!("{many} calls, from the VIP to the last answer"),
            millis(first, settled),
            &json!({}),
        );
        self.row(
            rows,
            "relay_ms",
            &format!("{many} calls, from the VIP to the relay"),
            millis(first, phase("relay")),
            &json!({}),
        );
        self.memory(rows, &format!("master that has recovered {many} calls and carries them"), &agents[backup])?;
        self.cpu(rows, &format!("master that carries {many} calls"), &agents[backup])
    }

    /// Processor time of the agent over some seconds, in milliseconds per second.
    fn cpu(&self, rows: &mut Vec<Value>, state: &str, agent: &Agent) -> Result<()> {
        let (before, start) = (cpu_ns(agent)?, Instant::now());
        std::thread::sleep(Duration::from_secs(self.args.seconds));
        let used = Duration::from_nanos(cpu_ns(agent)?.saturating_sub(before));
        let value = used.as_secs_f64() * 1000.0 / start.elapsed().as_secs_f64();
        self.row(rows, "cpu_ms_per_s", state, value, &json!({}));
        Ok(())
    }

    /// Memory of the agent in MiB: now, and the peak.
    fn memory(&self, rows: &mut Vec<Value>, state: &str, agent: &Agent) -> Result<()> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", agent.proc.pid()))?;
        let mib = |name: &str| {
            let line = status.lines().find(|l| l.starts_with(name)).with_context(|| format!("no {name}"))?;
            let kib: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
            Ok::<_, anyhow::Error>(kib / 1024.0)
        };
        self.row(rows, "rss_mib", state, mib("VmRSS:")?, &json!({"peak": (mib("VmHWM:")? * 100.0).round() / 100.0}));
        Ok(())
    }

    fn prefix() -> String {
        format!("/keepcall/{CLUSTER}/instances/{INSTANCE}/calls/")
    }

    /// One stored call of two legs, as it is in etcd.
    fn template(&self, etcd: &Etcd) -> Result<String> {
        let text = etcd.ctl(self.lan, &["get", "--prefix", "--limit=1", "--print-value-only", &Self::prefix()])?;
        Ok(text.trim().to_owned())
    }

    /// Puts `n` copies of the template into etcd, with the two crowds as the parties.
    fn store(&self, etcd: &Etcd, template: &str, n: u16) -> Result<()> {
        let call: Value = serde_json::from_str(template)?;
        let id = call["id"].as_str().context("a stored call has an id")?.to_owned();
        let legs = call["legs"].as_array().context("a stored call has legs")?;
        let call_ids: Vec<String> = legs.iter().filter_map(|l| l["call_id"].as_str().map(str::to_owned)).collect();
        // Each phone of the template becomes one of the crowd: its SIP address, and an RTP port of the crowd.
        let mut swaps = Vec::new();
        for leg in legs {
            let sip = leg["remote_addr"].as_str().context("a leg has an address")?;
            let host = sip.rsplit_once(':').context("an address has a port")?.0;
            swaps.push((sip.to_owned(), format!("{host}:{CROWD}")));
        }
        let body = legs[0]["sdp_received"]["body"].as_str().context("a leg has a description")?;
        let rtp =
            body.split("m=audio ").nth(1).and_then(|m| m.split(' ').next()).context("a description has a port")?;
        let made = |number: u16| {
            let mut text = template.replace(&id, &format!("{number:024x}"));
            for call_id in &call_ids {
                text = text.replace(call_id.as_str(), &format!("{call_id}~{number}"));
            }
            for (from, to) in &swaps {
                text = text.replace(from, to);
            }
            for word in ["m=audio ", "0.21:", "0.22:"] {
                text = text.replace(&format!("{word}{rtp}"), &format!("{word}{}", rtp_port(number)));
            }
            (format!("{}{number:024x}", Self::prefix()), text.into_bytes())
        };
        let all: Vec<_> = (1..=n).map(made).collect();
        let endpoints = etcd.endpoints.clone();
        self.lan.host("e1")?.enter(move || {
            let config = serde_json::from_value(json!({ "endpoints": endpoints }))?;
            let rt = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            rt.block_on(async {
                let etcd = keepcall::etcd::Etcd::connect(&config)?;
                for (key, value) in &all {
                    etcd.put(key, value, 0).await?;
                }
                Ok(())
            })
        })
    }
}

/// Waits until an agent knows exactly `n` stored calls.
fn stored(agent: &Agent, n: usize) -> Result<()> {
    wait::until("the agent to know all stored calls", LIMIT, || {
        let s = agent.instance().map_err(|e| format!("{e:#}"))?;
        if s["calls"]["stored"].as_u64() == Some(n as u64) { Ok(()) } else { Err(s["calls"].to_string()) }
    })
}

/// Processor time of all threads of the agent so far, finer than the ticks of utime and stime.
fn cpu_ns(agent: &Agent) -> Result<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{}/task", agent.proc.pid()))? {
        // A thread that has ended meanwhile did none of the work that is measured.
        let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
        sum += text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}
