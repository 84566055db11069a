//! The VIP gap that a LAN client sees, keepcall and keepalived in turn on the same hosts.

use crate::lab::agent::{Agent, INSTANCE, Setup, built_program, wait_armed};
use crate::lab::etcd::Etcd;
use crate::lab::keepalived::Keepalived;
use crate::lab::lan::{Host, Lan, VIP4, VIP6, end_after};
use crate::lab::observer::Observer;
use crate::lab::{unix_us, wait};
use anyhow::{Result, bail};
use nix::sys::signal::Signal;
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
    /// The VIP gap at a cut link, a stopped agent and a planned switchover.
    Failover(Failover),
    /// Memory and processor time of the agent.
    Costs(crate::costs::Costs),
}

#[derive(clap::Args)]
struct Failover {
    /// Rounds of each event, heartbeat and program.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Heartbeats (keepalived: advert_int) in milliseconds.
    #[arg(long, value_delimiter = ',', default_value = "1000,100")]
    heartbeat_ms: Vec<u64>,
    /// Print the last line only.
    #[arg(long)]
    json: bool,
    /// Only these events.
    #[arg(long, value_delimiter = ',', value_enum, default_value = "power,stop,switchover")]
    events: Vec<Event>,
    /// The keepcall program; the one built along with this one if absent.
    #[arg(long)]
    keepcall: Option<PathBuf>,
    /// Measure keepalived alone.
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
}

/// One measured round.
struct Sample {
    gap_ms: f64,
    /// The VIP went back to an earlier owner: for a while two hosts answered.
    overlapped: bool,
}

/// Longest wait for a takeover; keepalived needs 4 s at its slowest here, an etcd lease 6.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn run(args: &Args) -> Result<bool> {
    let f = match &args.what {
        What::Failover(f) => f,
        What::Costs(c) => return crate::costs::run(c),
    };
    if f.rounds == 0 || f.heartbeat_ms.is_empty() {
        bail!("nothing to measure: give at least one round and one heartbeat");
    }
    let runs = u32::try_from(f.rounds * f.heartbeat_ms.len() * f.events.len() * 2)?;
    end_after(Duration::from_secs(60) + Duration::from_secs(60) * runs);
    let program = if f.only_keepalived { PathBuf::new() } else { f.keepcall.clone().map_or_else(built_program, Ok)? };
    let lan = Lan::new()?;
    let etcd = Etcd::start(&lan)?;
    let bench = Bench { lan: &lan, etcd: &etcd, program, round: std::cell::Cell::new(0), quiet: f.json };
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
    println!("{}", json!({ "rows": rows, "hold_heartbeats": HOLD, "observer_period_ms": 1 }));
    Ok(true)
}

/// Both stand the loss of as many heartbeats: VRRP's master-down interval is three advertisements plus the skew.
const HOLD: u32 = 3;

struct Bench<'a> {
    lan: &'a Lan,
    etcd: &'a Etcd,
    program: PathBuf,
    round: std::cell::Cell<u32>,
    quiet: bool,
}

impl Bench<'_> {
    fn rows(&self, f: &Failover) -> Result<Vec<Value>> {
        let mut rows = Vec::new();
        for &ms in &f.heartbeat_ms {
            for &event in &f.events {
                rows.push(self.row(event, Duration::from_millis(ms), f)?);
            }
        }
        Ok(rows)
    }

    fn row(&self, event: Event, heartbeat: Duration, f: &Failover) -> Result<Value> {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 1..=f.rounds {
            // In turn, so that what else the machine does falls on both.
            if !f.only_keepalived {
                ours.push(self.keepcall(event, heartbeat)?);
            }
            theirs.push(self.keepalived(event, heartbeat)?);
            if !self.quiet {
                let last = |s: &[Sample]| s.last().map_or_else(|| "-".into(), |s| format!("{:.1} ms", s.gap_ms));
                println!("{event:?} at {heartbeat:?}, round {round}: keepcall {}, keepalived {}", last(&ours), last(&theirs));
            }
        }
        let (ours, theirs) = (Summary::of(&ours), Summary::of(&theirs));
        Ok(json!({
            "event": clap::ValueEnum::to_possible_value(&event).map(|v| v.get_name().to_owned()),
            "heartbeat_ms": heartbeat.as_millis(),
            "keepcall_ms": ours.as_ref().map(|s| s.median),
            "keepalived_ms": theirs.as_ref().map(|s| s.median),
            "ratio": ours.as_ref().zip(theirs.as_ref()).map(|(o, t)| (o.median / t.median * 1000.0).round() / 1000.0),
            "n": f.rounds,
            "keepcall": ours.map(|s| s.json()),
            "keepalived": theirs.map(|s| s.json()),
        }))
    }

    fn hosts(&self) -> Result<[&Host; 2]> {
        Ok([self.lan.host("a")?, self.lan.host("b")?])
    }

    fn keepcall(&self, event: Event, heartbeat: Duration) -> Result<Sample> {
        self.round.set(self.round.get() + 1);
        let mut agents = Vec::new();
        for host in self.hosts()? {
            let setup = Setup {
                program: self.program.clone(),
                // A cluster of its own, so that nothing is left over from the round before.
                cluster: format!("bench{}", self.round.get()),
                endpoints: self.etcd.endpoints.clone(),
                heartbeat,
                hold: heartbeat * HOLD,
                server_pidfile: None,
                on_backup: None,
            };
            agents.push(Agent::start(host, &setup)?);
        }
        let (old, new) = wait_armed(&mut agents)?;
        let sample = self.measure(&agents[old].node, &agents[new].node, || match event {
            Event::Power => self.lan.cut(&agents[old].node),
            Event::Stop => agents[old].proc.signal(Signal::SIGTERM),
            Event::Switchover => agents[old].run(&["switchover", INSTANCE, "--yes"]).map(drop),
        });
        for a in &mut agents {
            a.proc.kill();
        }
        self.clear()?;
        sample
    }

    fn keepalived(&self, event: Event, heartbeat: Duration) -> Result<Sample> {
        let [a, b] = self.hosts()?;
        let mut both = [Keepalived::start(a, heartbeat)?, Keepalived::start(b, heartbeat)?];
        // A master that has just won may still lose to the other's first advertisement.
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
                return Err("they are not agreed".to_owned());
            }
            match now.filter(|_| since.1.elapsed() > heartbeat * 2 + Duration::from_millis(300)) {
                Some(i) => Ok(i),
                None => Err(format!("the VIP is on {on:?}")),
            }
        })?;
        let names = ["a", "b"];
        let sample = self.measure(names[old], names[1 - old], || match event {
            Event::Power => self.lan.cut(names[old]),
            Event::Stop => both[old].proc.signal(Signal::SIGTERM),
            Event::Switchover => both[old].lower_priority(),
        });
        for k in &mut both {
            k.proc.stop(Duration::from_secs(5))?;
        }
        self.clear()?;
        sample
    }

    /// Watches the VIP move from one host to the other.
    fn measure(&self, old: &str, new: &str, strike: impl FnOnce() -> Result<()>) -> Result<Sample> {
        let (old, new) = (self.lan.host(old)?.mac()?, self.lan.host(new)?.mac()?);
        let observer = Observer::start(self.lan.host("obs")?, VIP4)?;
        wait::until("the VIP to answer before the event", LIMIT, || {
            let all = observer.answers();
            // A tenth of a second of answers shows that the neighbour entry has settled.
            if all.len() > 100 && all.last().is_some_and(|x| x.mac == old) {
                Ok(())
            } else {
                Err(format!("{} answers", all.len()))
            }
        })?;
        let at = unix_us();
        strike()?;
        let first = wait::until("the other host to answer", LIMIT, || {
            let all = observer.answers();
            all.iter().find(|x| x.mac == new).map(|x| x.at).ok_or_else(|| format!("{} answers, none of it", all.len()))
        })?;
        // What comes back after a first answer shows within this.
        std::thread::sleep(Duration::from_millis(300));
        let gap = observer.gap_between(at, first + 300_000)?;
        Ok(Sample { gap_ms: gap.millis(), overlapped: observer.returns() > 0 })
    }

    /// Makes both hosts as they were.
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

struct Summary {
    median: f64,
    min: f64,
    max: f64,
    overlaps: usize,
}

impl Summary {
    fn of(samples: &[Sample]) -> Option<Self> {
        let mut all: Vec<f64> = samples.iter().map(|s| (s.gap_ms * 100.0).round() / 100.0).collect();
        all.sort_by(f64::total_cmp);
        let n = all.len();
        let median = if n == 0 { return None } else { f64::midpoint(all[(n - 1) / 2], all[n / 2]) };
        let overlaps = samples.iter().filter(|s| s.overlapped).count();
        Some(Self { median: (median * 100.0).round() / 100.0, min: all[0], max: all[n - 1], overlaps })
    }

    fn json(&self) -> Value {
        json!({"median_ms": self.median, "min_ms": self.min, "max_ms": self.max, "rounds_with_two_answering": self.overlaps})
    }
}

fn print_table(rows: &[Value]) {
    println!(
        "\nSilence of the VIP for a LAN client that asks each millisecond, in ms: median (min to max).\n\
         Both stand the loss of three heartbeats (keepcall: hold = {HOLD} x heartbeat; keepalived: 3 x advert_int + skew).\n\
         Planned switchover: `keepcall switchover`; keepalived: a track_file lowers the master's priority, the other preempts.\n"
    );
    println!("{:12} {:>9}  {:>32}  {:>32}  {:>6}", "event", "heartbeat", "keepcall", "keepalived", "ratio");
    for r in rows {
        let cell = |v: &Value| match v["median_ms"].as_f64() {
            Some(m) => {
                format!("{m:.1} ({:.1} to {:.1})", v["min_ms"].as_f64().unwrap_or(0.0), v["max_ms"].as_f64().unwrap_or(0.0))
            }
            None => "-".to_owned(),
        };
        println!(
            "{:12} {:>6} ms  {:>32}  {:>32}  {:>6}",
            r["event"].as_str().unwrap_or(""),
            r["heartbeat_ms"],
            cell(&r["keepcall"]),
            cell(&r["keepalived"]),
            r["ratio"].as_f64().map_or_else(|| "-".to_owned(), |x| format!("{x:.2}"))
        );
    }
    println!();
}
