//! What a LAN client sees when something fails, with keepcall and keepalived in turn on the same hosts: how long the
//! VIP is silent, and for how long two hosts answer for it.

mod arm;
mod forward;
pub(crate) mod learn;
mod report;

use anyhow::{Context as _, Result, bail};
use lab::agent::{Agent, INSTANCE, Setup, built_program, wait_armed};
use lab::etcd::Etcd;
use lab::keepalived::Keepalived;
use lab::lan::{Host, Lan, VIP4, VIP6, end_after};
use lab::observer::{Observer, us_to_ms};
use lab::proc::{Proc, signal_all};
use lab::witness::Witness;
use lab::{unix_us, wait};
use nix::sys::signal::Signal;
use report::{Sample, Summary, print_table};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Failover of the VIP: a cut link, a stopped, killed or frozen agent, a killed server, a planned switchover
    Failover(Failover),
    /// Memory and processor time of the agent
    Costs(crate::costs::Costs),
    /// Speed of learning calls, beside sngrep, and the cost of it
    Learn(learn::Learn),
    /// How long a renewal of the kernel lease waits while the relay arms thousands of calls
    Arm(arm::Arm),
    /// What the relay's check of packets costs per packet of a carried call
    Relay(forward::Forward),
}

#[derive(clap::Args)]
struct Failover {
    /// Rounds of each event, heartbeat and program
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Heartbeats (keepalived: advert_int) in milliseconds
    #[arg(long, value_delimiter = ',', default_value = "1000,100,20")]
    heartbeat_ms: Vec<u64>,
    /// Print only the last line; progress goes to standard error
    #[arg(long)]
    json: bool,
    /// Only these events. Default: all; with heartbeats of a second or more only power, stop and switchover, because
    /// the others take long
    #[arg(long, value_delimiter = ',', value_enum)]
    events: Vec<Event>,
    /// The keepcall program. Default: the one from the same build
    #[arg(long)]
    keepcall: Option<PathBuf>,
    /// Measure keepalived alone
    #[arg(long)]
    only_keepalived: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Event {
    /// The master's link is cut.
    Power,
    /// The master's agent gets SIGTERM.
    Stop,
    /// A planned change of master.
    Switchover,
    /// The server beside the master's agent is killed (SIGKILL).
    KillServer,
    /// All processes of the master's agent are killed (SIGKILL).
    KillAgent,
    /// All processes of the master's agent are frozen (SIGSTOP).
    FreezeAgent,
}

impl Event {
    const ALL: [Self; 6] =
        [Self::Power, Self::Stop, Self::Switchover, Self::KillServer, Self::KillAgent, Self::FreezeAgent];
    /// Events that are measured at slow heartbeats too.
    const COMMON: [Self; 3] = [Self::Power, Self::Stop, Self::Switchover];

    /// Whether the daemon can no longer remove the VIP while its host lives on.
    const fn leaves_the_vip(self) -> bool {
        matches!(self, Self::KillAgent | Self::FreezeAgent)
    }
}

/// After so many starts of one round the machine counts as too busy.
const ATTEMPTS: usize = 5;

/// Longest wait for a takeover. keepalived needs up to 4 s here, an etcd lease 6 s.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn run(args: &Args) -> Result<bool> {
    let f = match &args.what {
        What::Failover(f) => f,
        What::Costs(c) => return crate::costs::run(c),
        What::Learn(l) => return learn::run(l),
        What::Arm(a) => return arm::run(a),
        What::Relay(f) => return forward::run(f),
    };
    if f.rounds == 0 || f.heartbeat_ms.is_empty() {
        bail!("nothing to measure: set at least one round and one heartbeat");
    }
    let runs = u32::try_from(f.rounds * f.plan().len() * 2)?;
    end_after(Duration::from_secs(60) + Duration::from_secs(60) * runs);
    let program = if f.only_keepalived { PathBuf::new() } else { f.keepcall.clone().map_or_else(built_program, Ok)? };
    let lan = Lan::new()?;
    let etcd = Etcd::start(&lan)?;
    let bench = Bench { lan: &lan, etcd: &etcd, program, round: std::cell::Cell::new(0) };
    let rows = match bench.rows(f) {
        Ok(rows) => rows,
        Err(e) => {
            let dir = std::env::temp_dir().join(format!("keepcall-bench-{}", std::process::id()));
            lan.keep_logs(&dir)?;
            return Err(e.context(format!("logs of all hosts are in {}", dir.display())));
        }
    };
    if !f.json {
        print_table(&rows);
    }
    drop(lan);
    println!(
        "{}",
        json!({ "rows": rows, "hold_heartbeats": HOLD, "observer_period_ms": 1, "two_hosts_window_ms": WINDOW.as_millis() })
    );
    Ok(true)
}

/// keepcall and keepalived tolerate the loss of the same number of heartbeats: VRRP's master-down interval is three
/// advertisements plus the skew.
const HOLD: u32 = 3;

/// How long after the event the benchmark watches a host that still has the VIP: at least this time, and at least so
/// many heartbeats. Two hosts would answer until somebody intervenes, so the figure is this window less the takeover.
const WINDOW: Duration = Duration::from_secs(2);
const WINDOW_HEARTBEATS: u32 = 6;

/// The shortest interval of keepalived's `vrrp_script`. The deaths of the server are spread evenly over the interval.
const SCRIPT_INTERVAL: Duration = Duration::from_secs(1);

impl Failover {
    /// The measurements, in order.
    fn plan(&self) -> Vec<(Duration, Event)> {
        let events = |ms| match &self.events[..] {
            [] if ms >= 1000 => Event::COMMON.to_vec(),
            [] => Event::ALL.to_vec(),
            some => some.to_vec(),
        };
        self.heartbeat_ms
            .iter()
            .flat_map(|&ms| events(ms).into_iter().map(move |e| (Duration::from_millis(ms), e)))
            .collect()
    }
}

/// When and how the master fails.
struct Strike {
    event: Event,
    heartbeat: Duration,
    /// Part of the script's interval that passes before the kill of the server.
    phase: Duration,
}

struct Bench<'a> {
    lan: &'a Lan,
    etcd: &'a Etcd,
    program: PathBuf,
    round: std::cell::Cell<u32>,
}

impl Bench<'_> {
    fn rows(&self, f: &Failover) -> Result<Vec<Value>> {
        f.plan().into_iter().map(|(heartbeat, event)| self.row(event, heartbeat, f)).collect()
    }

    fn row(&self, event: Event, heartbeat: Duration, f: &Failover) -> Result<Value> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..f.rounds {
            let phase = SCRIPT_INTERVAL * u32::try_from(round)? / u32::try_from(f.rounds)?;
            let strike = Strike { event, heartbeat, phase };
            // In turn, so that other load on the machine falls on both programs.
            if !f.only_keepalived {
                ours.push(settled(|| self.keepcall(&strike))?);
            }
            theirs.push(settled(|| self.keepalived(&strike))?);
            let last = |s: &[Sample]| s.last().map_or_else(|| "-".into(), Sample::in_words);
            eprintln!(
                "{event:?} at {heartbeat:?}, round {} of {}: keepcall {}, keepalived {}",
                round + 1,
                f.rounds,
                last(&ours),
                last(&theirs)
            );
        }
        let (ours, theirs) = (Summary::of(&ours), Summary::of(&theirs));
        Ok(json!({
            "event": clap::ValueEnum::to_possible_value(&event).map(|v| v.get_name().to_owned()),
            "heartbeat_ms": heartbeat.as_millis(),
            "keepcall_ms": ours.as_ref().map(|s| s.median),
            "keepalived_ms": theirs.as_ref().map(|s| s.median),
            "ratio": ours.as_ref().zip(theirs.as_ref()).and_then(|(o, t)| o.ratio_to(t)),
            // The worst round: one millisecond in any round is too much.
            "keepcall_two_hosts_ms": ours.as_ref().map(|s| s.two_hosts_max),
            "keepalived_two_hosts_ms": theirs.as_ref().map(|s| s.two_hosts_max),
            "n": f.rounds,
            "keepcall": ours.map(|s| s.json()),
            "keepalived": theirs.map(|s| s.json()),
        }))
    }

    /// A server on each host, if the event needs one: only a process that both programs watch.
    fn servers(&self, event: Event) -> Result<Vec<Proc>> {
        if event != Event::KillServer {
            return Ok(Vec::new());
        }
        self.hosts()?.iter().map(|h| h.spawn("server", &["sleep", "1000000"])).collect()
    }

    fn hosts(&self) -> Result<[&Host; 2]> {
        Ok([self.lan.host("a")?, self.lan.host("b")?])
    }

    fn keepcall(&self, strike: &Strike) -> Result<Option<Sample>> {
        let heartbeat = strike.heartbeat;
        self.round.set(self.round.get() + 1);
        let mut servers = self.servers(strike.event)?;
        let mut agents = Vec::new();
        for (i, host) in self.hosts()?.into_iter().enumerate() {
            let setup = Setup {
                program: self.program.clone(),
                // A cluster name of its own, so that nothing of the round before is left.
                cluster: format!("bench{}", self.round.get()),
                endpoints: self.etcd.endpoints.clone(),
                heartbeat,
                hold: heartbeat * HOLD,
                server_pidfile: None,
                on_backup: None,
            };
            let checks = servers.get(i).map(|s| server_check(host, s)).transpose()?;
            agents.push(Agent::start_with(host, &setup, checks.as_deref().unwrap_or_default())?);
        }
        let (old, new) = wait_armed(&mut agents)?;
        let family = agents[old].proc.family()?;
        let armed = || {
            let s = agents[old].instance()?;
            Ok(s["role"] == "master" && s["successor"] == agents[new].node.as_str())
        };
        let sample = self.measure(&agents[old].node, &agents[new].node, strike, armed, || match strike.event {
            Event::Power => self.lan.cut(&agents[old].node),
            Event::Stop => agents[old].proc.signal(Signal::SIGTERM),
            Event::Switchover => agents[old].run(&["switchover", INSTANCE, "--yes"]).map(drop),
            Event::KillServer => kill_server(&mut servers, old),
            Event::KillAgent => signal_all(&family, Signal::SIGKILL),
            Event::FreezeAgent => signal_all(&family, Signal::SIGSTOP),
        });
        for a in &mut agents {
            a.proc.kill();
        }
        self.clear()?;
        sample
    }

    fn keepalived(&self, strike: &Strike) -> Result<Option<Sample>> {
        let heartbeat = strike.heartbeat;
        let [a, b] = self.hosts()?;
        let mut servers = self.servers(strike.event)?;
        let watched = |i: usize| servers.get(i).map(Proc::pid);
        let mut both = [Keepalived::start(a, heartbeat, watched(0))?, Keepalived::start(b, heartbeat, watched(1))?];
        // A new master may still lose to the other one's first advertisement.
        let mut stable = None;
        let old = wait::until("one keepalived to be master", LIMIT, || {
            let on = [a, b].map(|h| h.has_address(VIP4.into()).unwrap_or(false));
            let now = match on {
                [true, false] => Some(0),
                [false, true] => Some(1),
                _ => None,
            };
            let since = stable.get_or_insert((now, std::time::Instant::now()));
            if since.0 != now {
                stable = None;
                return Err("the two do not agree yet".to_owned());
            }
            match now.filter(|_| since.1.elapsed() > heartbeat * 2 + Duration::from_millis(300)) {
                Some(i) => Ok(i),
                None => Err(format!("the VIP is on {on:?}")),
            }
        })?;
        let names = ["a", "b"];
        let family = both[old].proc.family()?;
        let alone = || Ok([a, b].map(|h| h.has_address(VIP4.into()).unwrap_or(false)) == [old == 0, old == 1]);
        let sample = self.measure(names[old], names[1 - old], strike, alone, || match strike.event {
            Event::Power => self.lan.cut(names[old]),
            Event::Stop => both[old].proc.signal(Signal::SIGTERM),
            Event::Switchover => both[old].lower_priority(),
            Event::KillServer => kill_server(&mut servers, old),
            Event::KillAgent => signal_all(&family, Signal::SIGKILL),
            Event::FreezeAgent => signal_all(&family, Signal::SIGSTOP),
        });
        if strike.event.leaves_the_vip() {
            // A frozen process does not handle SIGTERM.
            signal_all(&family, Signal::SIGKILL)?;
        }
        for k in &mut both {
            k.proc.stop(Duration::from_secs(5))?;
        }
        self.clear()?;
        sample
    }

    /// Watches the VIP move from one host to the other. `None` if the VIP moved before the event, which happens with
    /// both programs on a machine that is too busy for the heartbeat.
    fn measure(
        &self,
        old: &str,
        new: &str,
        strike: &Strike,
        ready: impl FnOnce() -> Result<bool>,
        act: impl FnOnce() -> Result<()>,
    ) -> Result<Option<Sample>> {
        let (old, new) = (self.lan.host(old)?.mac()?, self.lan.host(new)?.mac()?);
        let client = self.lan.host("obs")?;
        let witness = Witness::start(client, &self.hosts()?)?;
        let observer = Observer::start(client, VIP4)?;
        wait::until("the VIP to answer before the event", LIMIT, || {
            // A tenth of a second of answers shows that the neighbour entry has settled.
            let n = observer.answers().len();
            if n > 100 { Ok(()) } else { Err(format!("{n} answers")) }
        })?;
        if strike.event == Event::KillServer {
            std::thread::sleep(strike.phase);
        }
        let ready = ready()?;
        if !ready || observer.answers().iter().any(|x| x.mac != old) {
            return Ok(None);
        }
        let at = unix_us();
        act()?;
        let first = wait::until("the other host to answer", LIMIT, || {
            let all = observer.answers();
            let other = all.iter().find(|x| x.mac == new && x.at >= at);
            other.map(|x| x.at).ok_or_else(|| format!("{} answers, none of it", all.len()))
        })?;
        // A return of the VIP after a first answer shows within this time.
        let mut until = first + 300_000;
        if strike.event.leaves_the_vip() {
            let window = WINDOW.max(strike.heartbeat * WINDOW_HEARTBEATS);
            until = until.max(at + u64::try_from(window.as_micros())?);
        }
        std::thread::sleep(Duration::from_micros(until.saturating_sub(unix_us())));
        let ms = match strike.event {
            // The address still answers after the death of the server; the client is without a server until the other
            // host has the address.
            Event::KillServer => us_to_ms(first - at),
            _ => observer.gap_between(at, until)?.millis(),
        };
        let two_hosts_ms = witness.finding(at).two_hosts_ms;
        Ok(Some(Sample { ms, overlapped: observer.returns() > 0, two_hosts_ms, begun_again: 0 }))
    }

    /// Restores both hosts.
    fn clear(&self) -> Result<()> {
        for host in self.hosts()? {
            self.lan.heal(&host.name)?;
            for vip in [VIP4.into(), VIP6.into()] {
                if host.has_address(vip)? {
                    let prefix = if vip.is_ipv4() { 24 } else { 64 };
                    host.exec(&["ip", "addr", "del", &format!("{vip}/{prefix}"), "dev", "eth0"])?;
                }
            }
            host.exec(&["nft", "flush", "ruleset"])?;
        }
        self.lan.host("obs")?.exec(&["ip", "neigh", "flush", "all"])?;
        Ok(())
    }
}

/// Repeats a round whose VIP moved before the event, and counts the repetition.
fn settled(mut round: impl FnMut() -> Result<Option<Sample>>) -> Result<Sample> {
    for begun_again in 0..ATTEMPTS {
        if let Some(sample) = round()? {
            return Ok(Sample { begun_again, ..sample });
        }
        eprintln!("the VIP moved before the event; repeating the round");
    }
    bail!("the VIP moved before the event {ATTEMPTS} times: the machine is too busy for this heartbeat")
}

/// The check with which keepcall watches the server: its process, whose end the kernel reports at once.
fn server_check(host: &Host, server: &Proc) -> Result<String> {
    let pidfile = host.dir.join("server.pid");
    std::fs::write(&pidfile, format!("{}\n", server.pid()))?;
    Ok(format!(
        "\n[[instance.check]]\nname = \"process\"\ninterval = \"500ms\"\ntimeout = \"300ms\"\nrise = 1\nfall = 1\n\
         [instance.check.process]\npidfile = \"{}\"\n",
        pidfile.display()
    ))
}

/// Kills one of the servers and reaps it as an init would, because some checks take a zombie for a live process.
fn kill_server(servers: &mut [Proc], place: usize) -> Result<()> {
    servers.get_mut(place).context("no server to kill")?.kill();
    Ok(())
}
