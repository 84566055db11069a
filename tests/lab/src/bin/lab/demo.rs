//! The demo: calls with audio lose their server, and continue.

use crate::classes;
use crate::comeback;
use crate::event::Event;
use crate::timeline::Timeline;
use anyhow::Result;
use lab::agent::{Agent, INSTANCE, Setup, built_program, wait_armed};
use lab::asterisk::Asterisk;
use lab::calls::{Calls, ended, has_audio, is_reinvited};
use lab::etcd::Etcd;
use lab::lan::{Lan, VIP4, end_after};
use lab::observer::{Observer, us_to_ms};
use lab::phone::Manner;
use lab::witness::Witness;
use lab::{unix_us, wait};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Calls to set up (1 to 999)
    #[arg(long, default_value_t = 10)]
    calls: usize,
    /// One call of every class, in place of many of one: what is said of each before the power cut, and what it has after
    #[arg(long, value_enum, conflicts_with_all = ["calls", "event"])]
    calls_of: Option<CallsOf>,
    /// What happens to the host that carries the calls
    #[arg(long, value_enum, default_value = "power")]
    event: Event,
    /// Time between the agents' heartbeats
    #[arg(long, default_value_t = 100)]
    heartbeat_ms: u64,
    /// How long the right of a silent master lasts. Default: four heartbeats. Set it longer than the machine may stall
    #[arg(long)]
    hold_ms: Option<u64>,
    /// The phones answer to the source of a request, not to the address in the Via
    #[arg(long)]
    answer_to_source: bool,
    /// Copy the logs of all hosts to this directory, also after a success
    #[arg(long)]
    keep_logs: Option<PathBuf>,
    /// Print only the last line
    #[arg(long)]
    json_only: bool,
    /// The keepcall program. Default: the one from the same build
    #[arg(long)]
    keepcall: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CallsOf {
    /// Every class
    All,
}

/// Longest waits. They include a takeover over the slow path, in which a lease expires.
const READY: Duration = Duration::from_secs(60);
const TAKEOVER: Duration = Duration::from_secs(60);
const AUDIO: Duration = Duration::from_secs(60);
const BYE: Duration = Duration::from_secs(40);
/// Time between two questions to an agent during the takeover. Each question starts processes, which would slow the
/// takeover.
const SELDOM: Duration = Duration::from_millis(500);

struct Demo<'a> {
    args: &'a Args,
    start: Instant,
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    if args.calls_of == Some(CallsOf::All) {
        return classes::run(args.json_only);
    }
    // Far more than all waits together.
    end_after(Duration::from_secs(600) + Duration::from_millis(200) * u32::try_from(args.calls)?);
    let lan = Lan::new()?;
    let demo = Demo { args, start: Instant::now() };
    let result = demo.play(&lan);
    let good = matches!(&result, Ok(report) if report["ok"] == true);
    let kept = args
        .keep_logs
        .clone()
        .or_else(|| (!good).then(|| std::env::temp_dir().join(format!("keepcall-demo-{}", std::process::id()))));
    if let Some(dir) = &kept {
        lan.keep_logs(dir)?;
        if let Ok(report) = &result {
            std::fs::write(dir.join("report.json"), format!("{report:#}\n"))?;
        }
        eprintln!("the logs of all hosts (agents, Asterisk, etcd) are in {}", dir.display());
    }
    drop(lan);
    demo.say("the LAN is removed");
    match result {
        Ok(report) => println!("{report}"),
        Err(e) => {
            eprintln!("demo: {e:#}");
            println!(
                "{}",
                json!({"event": args.event.name(), "calls": args.calls, "recovered": 0, "ok": false, "error": format!("{e:#}")})
            );
        }
    }
    Ok(good)
}

impl Demo<'_> {
    fn say(&self, what: &str) {
        if !self.args.json_only {
            println!("{:6.1} s  {what}", self.start.elapsed().as_secs_f64());
        }
    }

    fn play(&self, lan: &Lan) -> Result<Value> {
        let rt = tokio::runtime::Runtime::new()?;
        let program = self.args.keepcall.clone().map_or_else(built_program, Ok)?;
        self.say("the LAN is up: etcd on e1 e2 e3, servers on a b, phones on p1 p2, an observer");
        let hosts = [lan.host("a")?, lan.host("b")?];
        let mut servers = [Asterisk::start(lan, hosts[0])?, Asterisk::start(lan, hosts[1])?];
        let etcd = Etcd::start(lan)?;
        for s in &mut servers {
            s.wait_ready()?;
        }
        self.say("etcd has a leader, Asterisk is ready on a and b");
        let mut agents = Vec::new();
        for (host, server) in hosts.iter().zip(&servers) {
            let heartbeat = Duration::from_millis(self.args.heartbeat_ms);
            let setup = Setup {
                program: program.clone(),
                cluster: "demo".into(),
                endpoints: etcd.endpoints.clone(),
                heartbeat,
                hold: self.args.hold_ms.map_or(heartbeat * 4, Duration::from_millis),
                server_pidfile: Some(server.pidfile.clone()),
                on_backup: None,
            };
            agents.push(Agent::start(host, &setup)?);
        }
        let (old, new) = wait_armed(&mut agents)?;
        let epoch = agents[old].instance()?["epoch"].as_u64().unwrap_or(0);
        self.say(&format!("{} is master of {VIP4}, {} is the armed standby", agents[old].node, agents[new].node));

        let observer = Observer::start(lan.host("obs")?, VIP4)?;
        let witness = Witness::start(lan.host("obs")?, &hosts)?;
        let calls = Calls::new(
            lan,
            &rt,
            self.args.calls,
            Manner { answer_to_source: self.args.answer_to_source, ..Manner::default() },
        )?;
        calls.set_up(READY + Duration::from_millis(50) * u32::try_from(self.args.calls)?)?;
        self.say(&format!("{} calls are up, and each party hears the other", self.args.calls));
        wait::until("the calls to be stored", READY, || stored(lan, &etcd, &agents[new], self.args.calls))?;
        self.say(&format!("the calls are in etcd, and {} knows them", agents[new].node));

        let at = self.strike(lan, &mut servers[old], &agents[old], &agents[new])?;
        let entry = wait::every(SELDOM, "the other node to be master", TAKEOVER, || taken_over(&agents[new], epoch));
        let (old, new) = two(&mut agents, old, new);
        self.judge((at, epoch), &calls, (&observer, &witness), (old, new), entry)
    }

    /// Makes the master fail. Returns the time, in wall-clock microseconds.
    fn strike(&self, lan: &Lan, server: &mut Asterisk, master: &Agent, other: &Agent) -> Result<u64> {
        match self.args.event {
            Event::Power => {
                self.say(&format!("now: cutting host {} off", master.node));
                let at = unix_us();
                lan.cut(&master.node)?;
                Ok(at)
            }
            Event::KillServer => {
                self.say(&format!("now: killing Asterisk on {}", master.node));
                let at = unix_us();
                server.proc.signal(Signal::SIGKILL)?;
                // Reaped as an init would do, because some checks take a zombie for a live process.
                server.proc.kill();
                Ok(at)
            }
            Event::Switchover => {
                self.say(&format!("now: switchover from {} to {}", master.node, other.node));
                let at = unix_us();
                master.run(&["switchover", INSTANCE, "--yes"])?;
                Ok(at)
            }
            Event::KillAgent | Event::FreezeAgent => {
                let killed = self.args.event == Event::KillAgent;
                self.say(&format!("now the agent on {} is {}", master.node, if killed { "killed" } else { "frozen" }));
                let at = unix_us();
                master.proc.signal(if killed { Signal::SIGKILL } else { Signal::SIGSTOP })?;
                Ok(at)
            }
        }
    }

    fn judge(
        &self,
        (at, epoch): (u64, u64),
        calls: &Calls,
        (observer, witness): (&Observer, &Witness),
        (old, master): (&mut Agent, &Agent),
        entry: Result<()>,
    ) -> Result<Value> {
        let mut violations: Vec<String> = Vec::new();
        if let Err(e) = entry {
            violations.push(format!("{e:#}"));
        }
        let n = self.args.calls;
        let vip = wait::until("the VIP to answer again", TAKEOVER, || {
            if observer.is_answered() {
                observer.gap_at_change(at).map_err(|e| e.to_string())
            } else {
                Err("silent".into())
            }
        });
        let since = vip.as_ref().map_or(at, |g| g.to.max(at));
        calls.wait_for(AUDIO, |c| has_audio(c, since));
        calls.wait_for(AUDIO + Duration::from_millis(40) * u32::try_from(n)?, |c| is_reinvited(c, at));
        // While the calls are up: they must not notice the return.
        let back = match self.args.event {
            Event::KillAgent | Event::FreezeAgent => Some(comeback::bring_back(old, master)),
            _ => None,
        };
        let came_back = back.as_ref().and_then(|b| b.as_ref().ok()).map(|b| b.backup);
        if let Some(since) = came_back {
            self.say(&format!("the agent on {} is back, as backup and without the VIP", old.node));
            calls.wait_for(AUDIO, |c| has_audio(c, since));
        }
        let mut gaps = calls.gaps(at);
        gaps.sort_unstable();
        // The first audio of all phones, and the last: when the longest silence of each ended.
        let heard: Vec<u64> = calls.phones().filter_map(|p| after_silence(&p.state().arrivals, at, since)).collect();
        let reinvites: Vec<u64> =
            calls.phones().flat_map(|p| p.state().reinvites.iter().map(|r| r.at).collect::<Vec<_>>()).collect();
        let hang_up = unix_us();
        calls.hang_up(BYE)?;

        if let Err(e) = &vip {
            violations.push(format!("{e:#}"));
        }
        if observer.returns() > 0 {
            violations.push(format!("the VIP went back to an earlier host {} times", observer.returns()));
        }
        violations.extend(calls.violations());
        let seen = witness.finding(at);
        violations.extend(comeback::violations(&seen, &old.node, &master.node));
        let since = came_back.unwrap_or(since);
        if let Some(Err(e)) = &back {
            violations.push(format!("{e:#}"));
        }
        let count = |good: &dyn Fn(&(_, _)) -> bool| calls.pairs.iter().filter(|c| good(c)).count();
        let recovered = count(&|c| has_audio(c, since) && is_reinvited(c, at) && ended(c));
        let mut line = Timeline::new(at);
        line.add(Some(at), self.args.event.in_words());
        // After the hang-up, so that the history has every phase.
        let later = |e: &Value| e["epoch"].as_u64() > Some(epoch);
        let history = master.history().ok().and_then(|h| h.into_iter().find(later));
        let phases = history.as_ref().map(|e| line.add_history(e)).unwrap_or_default();
        line.add(vip.as_ref().ok().map(|g| g.to), "observer: the new master's host answers for the VIP");
        line.add(seen.last_words.get(&old.node).copied(), format!("witness: last packet of {} for the VIP", old.node));
        if let Some(Ok(b)) = &back {
            line.add(
                Some(b.woken),
                if self.args.event == Event::KillAgent {
                    "the old agent starts again"
                } else {
                    "the old agent continues (SIGCONT)"
                },
            );
            line.add(Some(b.backup), "the old agent is backup, without the VIP on its host");
        }
        line.add(heard.iter().min().copied(), "phones: first audio after the silence");
        line.add(heard.iter().max().copied(), "phones: audio again both ways on every call that was silent");
        line.add(reinvites.iter().min().copied(), "phones: first re-INVITE received");
        line.add(reinvites.iter().max().copied(), "phones: last re-INVITE received");
        if gaps.last().is_some_and(|&g| g < SILENCE_US) {
            line.add(Some(hang_up), "phones: no silence of 60 ms on any call until now");
        }
        line.add(Some(hang_up), "phones: hang-up begins");
        line.add(calls.phones().filter_map(|p| p.state().bye_received).max(), "phones: last BYE received");
        self.tell(&mut line, &violations, &calls.notes(), history.as_ref());
        self.say(&format!(
            "the witness asked every host {} times who has the VIP; two hosts answered in {} ms",
            seen.asked, seen.two_hosts_ms
        ));
        let tenth = |us: u64| (us_to_ms(us) * 10.0).round() / 10.0;
        Ok(json!({
            "event": self.args.event.name(),
            "calls": n,
            "recovered": recovered,
            "vip_gap_ms": vip.ok().map(|g| tenth(g.to - g.from)),
            // The longest of the whole run, whoever answered.
            "vip_silence_ms": observer.gap_after(at).ok().map(|g| tenth(g.to - g.from)),
            // Milliseconds in which two hosts answered for the VIP.
            "two_hosts_ms": seen.two_hosts_ms,
            "audio_gap_ms": {"median": gaps.get(gaps.len() / 2).map(|&g| tenth(g)), "max": gaps.last().map(|&g| tenth(g))},
            "audio_both_ways": count(&|c| has_audio(c, since)),
            "reinvited": count(&|c| is_reinvited(c, at)),
            "byes_ok": count(&ended),
            "violations": violations,
            "phases_ms": phases,
            "heartbeat_ms": self.args.heartbeat_ms,
            "ok": recovered == n && violations.is_empty(),
        }))
    }

    fn tell(&self, line: &mut Timeline, violations: &[String], notes: &[String], history: Option<&Value>) {
        if self.args.json_only {
            return;
        }
        println!();
        for l in line.lines() {
            println!("{l}");
        }
        if let Some(entry) = history {
            println!(
                "\nhistory of the new master: cause {}, {}; calls {}",
                entry["cause"], entry["reason"], entry["calls"]
            );
        } else {
            println!("\nthe new master has no history of the takeover");
        }
        for v in violations {
            println!("violation: {v}");
        }
        for note in notes.iter().take(10) {
            println!("note: {note}");
        }
        println!();
    }
}

/// Two lost packets. A shorter silence is a late packet.
const SILENCE_US: u64 = 60_000;
/// How long after the move of the VIP a silence may begin and still belong to the takeover.
const SOON_US: u64 = 200_000;

/// When audio came back after the longest silence that ended after `at` and began soon after `moved` at the latest.
/// `None` without a silence. What a busy machine does to packets later does not belong to the takeover.
fn after_silence(arrivals: &[u64], at: u64, moved: u64) -> Option<u64> {
    let of_takeover = arrivals.windows(2).filter(|w| w[1] >= at && w[0] <= moved + SOON_US);
    let longest = of_takeover.max_by_key(|w| w[1] - w[0])?;
    (longest[1] - longest[0] >= SILENCE_US).then_some(longest[1])
}

/// Whether all calls are in etcd and at the backup.
fn stored(lan: &Lan, etcd: &Etcd, backup: &Agent, calls: usize) -> Result<(), String> {
    let prefix = format!("/keepcall/demo/instances/{INSTANCE}/calls/");
    let keys = etcd.ctl(lan, &["get", "--prefix", "--keys-only", &prefix]).map_err(|e| format!("{e:#}"))?;
    let in_etcd = keys.lines().filter(|l| l.starts_with(&prefix)).count();
    let known = backup.instance().map_err(|e| format!("{e:#}"))?["calls"]["stored"].as_u64().unwrap_or(0);
    if in_etcd >= calls && known >= calls as u64 {
        Ok(())
    } else {
        Err(format!("{in_etcd} in etcd, {known} at the backup, of {calls}"))
    }
}

fn taken_over(agent: &Agent, epoch: u64) -> Result<(), String> {
    let s = agent.instance().map_err(|e| format!("{e:#}"))?;
    if s["role"] == "master" && s["epoch"].as_u64() > Some(epoch) { Ok(()) } else { Err(s.to_string()) }
}

/// Two different agents of a list, the first one mutable.
fn two(agents: &mut [Agent], one: usize, other: usize) -> (&mut Agent, &Agent) {
    let (left, right) = agents.split_at_mut(one.max(other));
    if one < other { (&mut left[one], &right[0]) } else { (&mut right[0], &left[other]) }
}
