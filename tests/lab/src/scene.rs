//! A whole cluster with calls, for tests that make something happen to the cluster.

use super::agent::{Agent, INSTANCE, Setup, built_program, wait_armed};
use super::asterisk::{Asterisk, Extra};
use super::calls::{Calls, has_audio, is_reinvited};
use super::etcd::Etcd;
use super::lan::{Host, Lan, VIP4};
use super::observer::Observer;
use super::phone::{Manner, Phase};
use super::{unix_us, wait};
use anyhow::{Result, ensure};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Longest wait for the effect of one takeover, one registration or one start, on a busy machine.
pub const SOON: Duration = Duration::from_secs(60);

/// Two scenes at the same time would slow each other down.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Hosts a and b with Asterisk and an agent each. The order of the fields is the order of dropping.
pub struct Scene {
    /// A client of the virtual address, once started.
    pub observer: Option<Observer>,
    /// The agents, once started.
    pub agents: Vec<Agent>,
    /// A server on each host.
    pub servers: Vec<Asterisk>,
    /// The members of etcd.
    pub etcd: Etcd,
    rt: Runtime,
    /// The hosts.
    pub lan: Lan,
    /// Settings of each agent.
    pub setups: Vec<Setup>,
    _turn: MutexGuard<'static, ()>,
}

impl Scene {
    /// Starts etcd and a server on each of `hosts`, but no agent yet.
    pub fn new(hosts: &[&str]) -> Result<Self> {
        Self::new_with(hosts, Extra::default)
    }

    /// As [`Self::new`], with more on each server.
    pub fn new_with(hosts: &[&str], extra: impl Fn() -> Extra) -> Result<Self> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let lan = Lan::new()?;
        let mut servers =
            hosts.iter().map(|h| Asterisk::start_with(&lan, lan.host(h)?, extra())).collect::<Result<Vec<_>>>()?;
        let etcd = Etcd::start(&lan)?;
        for s in &mut servers {
            s.wait_ready()?;
        }
        let program = built_program()?;
        let setups = servers.iter().map(|s| Setup {
            program: program.clone(),
            cluster: "test".into(),
            endpoints: etcd.endpoints.clone(),
            heartbeat: Duration::from_millis(100),
            // A machine that stalls for a second must not move the VIP in the middle of a test.
            hold: Duration::from_secs(2),
            server_pidfile: Some(s.pidfile.clone()),
            on_backup: None,
        });
        let (setups, rt) = (setups.collect(), Runtime::new()?);
        Ok(Self { observer: None, agents: Vec::new(), servers, etcd, rt, lan, setups, _turn: turn })
    }

    /// Starts the agents of all hosts. Returns the indices of master and backup.
    pub fn start_agents(&mut self) -> Result<(usize, usize)> {
        for (server, setup) in self.servers.iter().zip(&self.setups) {
            self.agents.push(Agent::start(server.host(), setup)?);
        }
        self.armed()
    }

    /// Waits until one agent is master and the other armed, and starts the observer. Returns the indices of master and
    /// backup.
    pub fn armed(&mut self) -> Result<(usize, usize)> {
        let places = wait_armed(&mut self.agents)?;
        if self.observer.is_none() {
            self.observer = Some(Observer::start(self.lan.host("obs")?, VIP4)?);
        }
        Ok(places)
    }

    /// Sets calls up with audio, and waits until these agents have stored them.
    pub fn calls(&self, n: usize, agents: &[usize]) -> Result<Calls> {
        self.calls_of(n, Manner::default(), agents)
    }

    /// As [`Self::calls`], with phones of this manner.
    pub fn calls_of(&self, n: usize, manner: Manner, agents: &[usize]) -> Result<Calls> {
        let calls = Calls::new(&self.lan, &self.rt, n, manner)?;
        calls.set_up(SOON)?;
        for &i in agents {
            self.wait_stored(i, n)?;
        }
        Ok(calls)
    }

    /// Waits until an agent knows exactly `n` stored calls.
    pub fn wait_stored(&self, agent: usize, n: usize) -> Result<()> {
        wait::until("the agent to know all stored calls", SOON, || {
            let s = self.agents[agent].instance().map_err(|e| format!("{e:#}"))?;
            if s["calls"]["stored"].as_u64() == Some(n as u64) { Ok(()) } else { Err(s["calls"].to_string()) }
        })
    }

    /// Orders a switchover at the master, as soon as the other node can take over. Returns the time of the order, in
    /// wall-clock microseconds.
    pub fn switch_from(&self, master: usize) -> Result<u64> {
        // A node is armed while its server is unfit, too, as after a restart.
        wait::until("the switchover to be accepted", SOON, || {
            let at = unix_us();
            self.agents[master].run(&["switchover", INSTANCE, "--yes"]).map(|_| at).map_err(|e| format!("{e:#}"))
        })
    }

    /// The phones' runtime.
    pub const fn runtime(&self) -> &Runtime {
        &self.rt
    }

    /// The host of an agent.
    pub fn host(&self, i: usize) -> &Host {
        self.servers[i].host()
    }

    /// Waits until all calls have been re-INVITEd since `at`, and then both parties have heard each other for two
    /// seconds.
    pub fn recovered(&self, calls: &Calls, at: u64) -> Result<()> {
        let n = calls.wait_for(SOON, |c| is_reinvited(c, at));
        ensure!(
            n == calls.pairs.len(),
            "{n} of {} calls got their re-INVITEs; {:?}",
            calls.pairs.len(),
            calls.violations()
        );
        self.in_conversation(calls)
    }

    /// Waits until each party of each call has heard the other for two seconds from now on. Afterwards all calls must
    /// be up.
    pub fn in_conversation(&self, calls: &Calls) -> Result<()> {
        let now = unix_us();
        let n = calls.wait_for(SOON, |c| has_audio(c, now));
        ensure!(
            n == calls.pairs.len(),
            "{n} of {} calls have audio both ways; {:?}",
            calls.pairs.len(),
            calls.violations()
        );
        for p in calls.phones() {
            let s = p.state();
            ensure!(s.phase == Phase::Up && s.bye_received.is_none(), "phone {} is {:?}", p.number, s.phase);
        }
        ensure!(calls.violations().is_empty(), "{:?}", calls.violations());
        Ok(())
    }

    /// Hangs up every call, callers and called parties in turn, and checks what the phones and the observer saw of the
    /// whole scene.
    pub fn end(&self, calls: &Calls, masters: &[usize]) -> Result<()> {
        let ended = calls.hang_up(SOON)?;
        ensure!(
            ended == calls.pairs.len(),
            "{ended} of {} calls ended on both sides; {:?}",
            calls.pairs.len(),
            calls.violations()
        );
        ensure!(calls.violations().is_empty(), "{:?}", calls.violations());
        for p in calls.phones() {
            let s = p.state();
            ensure!(
                s.foreign.is_empty(),
                "phone {} heard audio from another source than agreed: {:?}; {s:?}",
                p.number,
                s.foreign
            );
        }
        self.answered_by(masters)
    }

    /// Exactly these hosts answered for the VIP, in this order, and never two in turn.
    pub fn answered_by(&self, masters: &[usize]) -> Result<()> {
        let expected = masters.iter().map(|&i| self.host(i).mac()).collect::<Result<Vec<_>>>()?;
        // The observer may not have asked the last host yet.
        wait::until("the holders of the VIP to answer for the VIP in order", SOON, || {
            let seen = self.observer.as_ref().map(Observer::owners).unwrap_or_default();
            if seen == expected { Ok(()) } else { Err(format!("{seen:02x?} answered, not {expected:02x?}")) }
        })
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let dir =
                std::env::temp_dir().join("keepcall-test").join(std::thread::current().name().unwrap_or("unnamed"));
            match self.lan.keep_logs(&dir) {
                Ok(()) => eprintln!("the logs of all hosts are in {}", dir.display()),
                Err(e) => eprintln!("cannot keep the logs: {e:#}"),
            }
        }
    }
}
