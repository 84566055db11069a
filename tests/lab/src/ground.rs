//! The setting of a recovery test: two servers of one kind behind the VIP, an agent beside each, etcd, and calls.

use super::agent::{Agent, INSTANCE, Setup, built_program, wait_armed};
use super::calls::{Calls, is_reinvited};
use super::etcd::Etcd;
use super::lan::{Host, Lan};
use super::{unix_us, wait};
use anyhow::{Result, anyhow};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Longest waits. They include a takeover over the slow path, in which a lease expires.
const READY: Duration = Duration::from_secs(60);
/// Long enough that a stall of a busy machine does not look like a dead master.
const HEARTBEAT: Duration = Duration::from_millis(200);

/// Without a change for so long, all changes are written.
const STILL: Duration = Duration::from_millis(300);

/// Everything that a test needs, ready for calls. `S` is the server.
pub struct Ground<S> {
    // The order of the fields is the order of dropping: first what runs on the LAN, then the LAN.
    /// An agent on each host, a first.
    pub agents: Vec<Agent>,
    /// A server on each host, in the order of `agents`.
    pub servers: Vec<S>,
    /// The members of etcd.
    pub etcd: Etcd,
    /// Runtime of the phones and servers.
    pub rt: Runtime,
    /// The hosts.
    pub lan: Lan,
    /// Indices of the master and of its successor in `agents` and `servers`.
    pub master: usize,
    /// See `master`.
    pub successor: usize,
}

impl<S> Ground<S> {
    /// `start` starts a server on a host, and returns the server's pid file.
    pub fn new(start: impl Fn(&Lan, &Host, &Runtime) -> Result<(S, PathBuf)>) -> Result<Self> {
        Self::with("", start)
    }

    /// As [`Self::new`], with `more` at the end of the agents' configuration, inside `[instance.sip]`.
    pub fn with(more: &str, start: impl Fn(&Lan, &Host, &Runtime) -> Result<(S, PathBuf)>) -> Result<Self> {
        let lan = Lan::new()?;
        let rt = Runtime::new()?;
        let etcd = Etcd::start(&lan)?;
        let (mut agents, mut servers) = (Vec::new(), Vec::new());
        for name in ["a", "b"] {
            let host = lan.host(name)?;
            let (server, pidfile) = start(&lan, host, &rt)?;
            servers.push(server);
            let setup = Setup {
                program: built_program()?,
                cluster: "test".into(),
                endpoints: etcd.endpoints.clone(),
                heartbeat: HEARTBEAT,
                hold: HEARTBEAT * 10,
                server_pidfile: Some(pidfile),
                on_backup: None,
            };
            agents.push(Agent::start_with(host, &setup, more)?);
        }
        let (master, successor) = wait_armed(&mut agents)?;
        Ok(Self { agents, servers, etcd, rt, lan, master, successor })
    }

    /// Waits until `n` calls are in etcd, the successor knows all of them, and their last changes are written: an agent
    /// collects changes for 20 ms, so no change in etcd for more than ten times as long means that none is under way.
    pub fn wait_stored(&self, n: usize) -> Result<()> {
        wait::until("the calls to be stored", READY, || {
            let known =
                self.agents[self.successor].instance().map_err(|e| format!("{e:#}"))?["calls"]["stored"].as_u64();
            if known == Some(n as u64) { Ok(()) } else { Err(format!("{known:?} of {n} are at the successor")) }
        })?;
        let mut seen = (String::new(), Instant::now());
        wait::until("the calls' last changes to be written", READY, || {
            let args = ["get", "--prefix", "/keepcall/test/instances/", "-w", "fields"];
            let text = self.etcd.ctl(&self.lan, &args).map_err(|e| format!("{e:#}"))?;
            // The header names the member that answered and its term, which change without a write.
            let keys: String = text.lines().filter(|l| l.contains("ModRevision")).collect();
            if keys != seen.0 {
                seen = (keys, Instant::now());
            }
            if seen.1.elapsed() >= STILL { Ok(()) } else { Err("the calls still change".into()) }
        })
    }

    /// Cuts the master off and waits until the other node has the VIP. Returns the time of the cut, in wall-clock
    /// microseconds.
    pub fn cut_power(&mut self) -> Result<u64> {
        self.cut_power_and(|| Ok(()))
    }

    /// As [`Self::cut_power`], with `act` during the silence.
    pub fn cut_power_and(&mut self, act: impl FnOnce() -> Result<()>) -> Result<u64> {
        let at = unix_us();
        self.lan.cut(&self.agents[self.master].node)?;
        act()?;
        self.wait_taken()?;
        Ok(at)
    }

    /// Reconnects the host that was cut off, and waits until its agent is armed to take over.
    pub fn heal(&mut self) -> Result<()> {
        self.lan.heal(&self.agents[self.successor].node)?;
        (self.master, self.successor) = wait_armed(&mut self.agents)?;
        Ok(())
    }

    fn wait_taken(&mut self) -> Result<()> {
        wait::every(Duration::from_millis(200), "the other node to become master", READY, || {
            let s = self.agents[self.successor].instance().map_err(|e| format!("{e:#}"))?;
            if s["role"] == "master" { Ok(()) } else { Err(s.to_string()) }
        })?;
        std::mem::swap(&mut self.master, &mut self.successor);
        Ok(())
    }

    /// Waits until each party of each call has answered a re-INVITE since `at` with 200, and got the ACK.
    pub fn wait_reinvited(&self, calls: &Calls, at: u64, limit: Duration) -> Result<()> {
        let n = calls.wait_for(limit, |c| is_reinvited(c, at));
        if n == calls.pairs.len() {
            return Ok(());
        }
        let open: Vec<String> =
            calls.pairs.iter().filter(|c| !is_reinvited(c, at)).flat_map(|(a, b)| [a.summary(), b.summary()]).collect();
        Err(anyhow!(
            "{n} calls of {} were re-INVITEd\n{}\n{}",
            calls.pairs.len(),
            open.join("\n"),
            self.agents[self.master].proc.tail()
        ))
    }

    /// The outcomes in the master's history of its takeover, once every call has one.
    pub fn outcomes(&self, total: u64, limit: Duration) -> Result<serde_json::Value> {
        wait::every(Duration::from_millis(200), "every call to have an outcome", limit, || {
            let history = self.agents[self.master].history().map_err(|e| format!("{e:#}"))?;
            let calls = history.first().map(|h| h["calls"].clone()).unwrap_or_default();
            let sum = ["recovered", "gone", "refused", "unreachable", "unpaired", "proxied", "relayed", "left"]
                .iter()
                .filter_map(|k| calls[k].as_u64())
                .sum::<u64>();
            if sum == total { Ok(calls) } else { Err(format!("{INSTANCE}: {calls}")) }
        })
    }

    /// Runs the test. After a failure, keeps the logs of all hosts and prints where.
    pub fn run(mut self, name: &str, test: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let result = test(&mut self);
        if result.is_err() {
            let to = std::env::temp_dir().join(format!("keepcall-{name}-{}", std::process::id()));
            self.lan.keep_logs(&to)?;
            eprintln!("the logs of all hosts are in {}", to.display());
        }
        result
    }
}
