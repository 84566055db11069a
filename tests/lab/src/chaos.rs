//! Chaos with real agents: seeded faults for a number of rounds, with a witness on the LAN.
//!
//! After each round it must be true that two hosts never answered for the VIP; that the VIP was silent for no longer
//! than the faults permit; that the hosts that answered were the masters of etcd's record, in the same order; and that
//! all is well again.

mod field;
mod limits;
mod plan;
mod record;
mod report;
mod strike;

use super::agent::built_program;
use super::lan::end_after;
use super::observer::us_to_ms;
use super::unix_us;
use super::wait;
use super::witness::Finding;
use anyhow::{Context, Result, ensure};
use field::Field;
use limits::Limits;
use plan::{Fault, Step, Who};
use record::Story;
pub use report::Report;
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use strike::Strike;

/// Arguments of the chaos.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Rounds to play
    #[arg(long, default_value_t = 10)]
    pub rounds: u64,
    /// Seed of the faults, printed so that a run can be repeated. Default: from the clock
    #[arg(long)]
    pub seed: Option<u64>,
    /// Number of the first round. A round does not depend on the rounds before it
    #[arg(long, default_value_t = 0)]
    pub first_round: u64,
    /// Agents: 2 or 3
    #[arg(long, default_value_t = 2)]
    pub nodes: usize,
    /// Time between heartbeats
    #[arg(long, default_value_t = 100)]
    pub heartbeat_ms: u64,
    /// The hold
    #[arg(long, default_value_t = 1000)]
    pub hold_ms: u64,
    /// Allowance on the bound of each silence, for a machine that stalls
    #[arg(long, default_value_t = 500)]
    pub allowance_ms: u64,
    /// Only this kind of fault, on the master, once in each round (kill-agent, stop-agent, restart-agent, freeze-agent,
    /// cut-link, deaf, mute, lossy, apart, no-etcd, kill-etcd, freeze-etcd, switchover)
    #[arg(long)]
    pub only: Option<String>,
    /// How long each fault of `--only` lasts. Default: from the seed
    #[arg(long, requires = "only")]
    pub lasts_ms: Option<u64>,
    /// Print the faults and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Remove the kernel lease with every agent that is killed or frozen: proves that the witness would see two hosts
    #[arg(long)]
    pub without_lease: bool,
    /// Copy the logs of all hosts to this directory, also after a success
    #[arg(long)]
    pub keep_logs: Option<PathBuf>,
    /// The keepcall program. Default: the one from the same build
    #[arg(long)]
    pub keepcall: Option<PathBuf>,
}

impl Default for Args {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            rounds: 10,
            seed: None,
            first_round: 0,
            nodes: 2,
            heartbeat_ms: 100,
            hold_ms: 1000,
            allowance_ms: 500,
            only: None,
            lasts_ms: None,
            dry_run: false,
            without_lease: false,
            keep_logs: None,
            keepcall: None,
        }
    }
}

/// Longest wait until the agents have written their histories, and these agree.
const HISTORY: Duration = Duration::from_secs(20);

/// Plays the rounds. An error means that the lab does not work, or that the cluster does not settle. The report has
/// everything else that the agents did wrong.
pub fn run(args: &Args) -> Result<Report> {
    let limits = Limits {
        heartbeat: Duration::from_millis(args.heartbeat_ms),
        hold: Duration::from_millis(args.hold_ms),
        lease_ttl: Duration::from_secs((args.hold_ms / 1000 + 2).max(3)),
        allowance: Duration::from_millis(args.allowance_ms),
    };
    let seed = args.seed.unwrap_or_else(unix_us);
    ensure!(args.rounds > 0, "set at least one round");
    let program = args.keepcall.clone().map_or_else(built_program, Ok)?;
    println!(
        "chaos: seed {seed}, rounds {} to {}, {} agents, heartbeat {:?}, hold {:?}, lease {:?}; fast takeover within {:?}, slow within {:?}",
        args.first_round,
        args.first_round + args.rounds.saturating_sub(1),
        args.nodes,
        limits.heartbeat,
        limits.hold,
        limits.lease_ttl,
        limits.fast(),
        limits.slow()
    );
    if args.dry_run {
        for n in args.first_round..args.first_round + args.rounds {
            let steps = steps(args, &limits, seed, n)?;
            println!("round {n}: {}", steps.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        }
        return Ok(Report { seed, ..Report::default() });
    }
    let mut field = Field::new(&program, args.nodes, &limits)?;
    let mut report = Report { seed, rounds: 0, ..Report::default() };
    let result = play(args, &limits, seed, &mut field, &mut report);
    let failed = result.is_err() || !report.violations.is_empty();
    let kept = args.keep_logs.clone().or_else(|| {
        (failed && !args.without_lease)
            .then(|| std::env::temp_dir().join(format!("keepcall-chaos-{}", std::process::id())))
    });
    if let Some(dir) = kept {
        field.lan.keep_logs(&dir)?;
        println!("the logs of all hosts are in {}", dir.display());
    }
    result.map(|()| report)
}

fn play(args: &Args, limits: &Limits, seed: u64, field: &mut Field, report: &mut Report) -> Result<()> {
    let mut story = Story::default();
    let mut order = field.settled().context("at the start")?;
    story.read_on(&field.lan, &field.etcd)?;
    for n in args.first_round..args.first_round + args.rounds {
        let steps = steps(args, limits, seed, n)?;
        let begin = unix_us();
        let start = Instant::now();
        let mut strike = Strike::new(field, &order, args.without_lease)?;
        let words: Vec<String> = steps.iter().map(|s| strike.in_words(s)).collect();
        let struck = strike.carry_out(&steps);
        let (switchover, notes) = (strike.switchover.take(), std::mem::take(&mut strike.notes));
        struck.with_context(|| format!("round {n}: {words:?}"))?;
        let next = field.settled().with_context(|| format!("after round {n} of seed {seed}: {words:?}"))?;
        let finding = field.witness.finding(begin);
        let took = start.elapsed();
        field.witness.forget(begin);
        // Among several faults, another fault may have kept the agent from ending.
        let mut wrong = if steps.len() == 1 { notes } else { Vec::new() };
        if let Err(e) = story.read_on(&field.lan, &field.etcd) {
            wrong.push(format!("{e:#}"));
        }
        judge(&finding, &steps, limits, &story.since(order.epoch), begin, took, &mut wrong);
        if matches!(&steps[..], [Step { fault: Fault::Restart(_), .. }]) && next.epoch != order.epoch {
            wrong.push(format!("a restart changed the epoch from {} to {}", order.epoch, next.epoch));
        }
        // The answer comes once the new master is there. With other faults in the round, the order may be lost and the
        // switchover end in any way.
        if let (Some(mut s), 1) = (switchover, steps.len()) {
            match wait::until("the switchover to end", HISTORY, || s.ended().ok().flatten().ok_or_else(|| s.tail())) {
                Ok(status) if status.success() => {}
                Ok(status) => wrong.push(format!("the switchover ended with {status}: {}", s.tail())),
                Err(e) => wrong.push(format!("{e:#}")),
            }
        }
        if let Err(e) = same_history(field, &story) {
            wrong.push(format!("{e:#}"));
        }
        let kind = if let [one] = &steps[..] { one.fault.name() } else { "several" };
        let silence = us_to_ms(finding.silence_us);
        let entry = report.silences.entry(kind.to_owned()).or_default();
        entry.0.push(silence);
        entry.1 = us_to_ms(u64::try_from(limits.of(&steps).0.as_micros()).unwrap_or(u64::MAX));
        for s in &steps {
            *report.faults.entry(s.fault.name()).or_default() += 1;
        }
        report.rounds += 1;
        report.asked += finding.asked;
        report.two_hosts_ms += finding.two_hosts_ms;
        report.cache_late_ms = report.cache_late_ms.max(us_to_ms(finding.cache_late_us));
        report.epochs += next.epoch - order.epoch;
        println!(
            "round {n}: {}; silent {silence:.0} ms (bound {:.0}), two hosts {} ms, {} spoke, masters {}, epoch {}{}",
            words.join("; "),
            entry.1,
            finding.two_hosts_ms,
            finding.owners.iter().map(|o| o.1.as_str()).take(12).collect::<Vec<_>>().join(" "),
            story.since(order.epoch).join(" "),
            next.epoch,
            if wrong.is_empty() { "" } else { "  WRONG" }
        );
        for w in wrong {
            println!("  violation: {w}");
            report.violations.push(format!("seed {seed} round {n} ({}): {w}", words.join("; ")));
        }
        order = next;
    }
    Ok(())
}

fn steps(args: &Args, limits: &Limits, seed: u64, n: u64) -> Result<Vec<Step>> {
    let Some(kind) = &args.only else { return Ok(plan::round(seed, n, args.nodes, limits.hold)) };
    let step = only(seed, n, kind, args.nodes, limits)?;
    Ok(vec![Step { lasts: args.lasts_ms.map_or(step.lasts, Duration::from_millis), ..step }])
}

/// A round of one fault of a kind, on the master.
fn only(seed: u64, n: u64, kind: &str, nodes: usize, limits: &Limits) -> Result<Step> {
    // Some round of the same seed has such a fault.
    let mut all = (0..10_000).flat_map(|i| plan::round(seed.wrapping_add(n), i, nodes, limits.hold));
    let fits = |f: Fault| f.hits().is_none_or(|(w, _)| w == Who::Master);
    let step = all
        .find(|s| s.fault.name() == kind && fits(s.fault))
        .with_context(|| format!("no fault is called {kind}; see --help"))?;
    Ok(Step { at: Duration::ZERO, ..step })
}

fn judge(
    f: &Finding,
    steps: &[Step],
    limits: &Limits,
    masters: &[&str],
    begin: u64,
    took: Duration,
    wrong: &mut Vec<String>,
) {
    if f.two_hosts_ms > 0 {
        let (from, to) = f.two_from_to.unwrap_or_default();
        wrong.push(format!(
            "two hosts answered in {} ms, first {:.0} ms and last {:.0} ms after the start of the round: {}",
            f.two_hosts_ms,
            us_to_ms(from - begin),
            us_to_ms(to - begin),
            f.first_two.as_deref().unwrap_or_default()
        ));
    }
    let spoke: Vec<&str> = f.owners.iter().map(|o| o.1.as_str()).collect();
    if !record::in_order(&spoke, masters) {
        let told: Vec<String> = f
            .owners
            .iter()
            .take(12)
            .map(|(at, who)| format!("{who} at {:.0} ms", us_to_ms(at.saturating_sub(begin))))
            .collect();
        wrong.push(format!("these hosts spoke for the VIP: {}; the masters were {masters:?}", told.join(", ")));
    }
    let (bound, why) = limits.of(steps);
    if u128::from(f.silence_us) > bound.as_micros() {
        wrong.push(format!(
            "the VIP was silent for {:.0} ms, from {:.0} ms after the start of the round; the limit is {} ms ({why})",
            us_to_ms(f.silence_us),
            us_to_ms(f.silent_from.saturating_sub(begin)),
            bound.as_millis()
        ));
    }
    if u128::from(f.cache_late_us) > limits.cache_late().as_micros() {
        wrong.push(format!("a client's neighbour cache held the wrong host for {:.0} ms", us_to_ms(f.cache_late_us)));
    }
    // Without enough questions, the witness proves nothing.
    if (f.asked as u128) < took.as_millis() / 3 {
        wrong.push(format!("the witness asked in only {} of {} ms", f.asked, took.as_millis()));
    }
}

/// All agents must have the same history, and the history must agree with the record.
fn same_history(field: &Field, story: &Story) -> Result<()> {
    wait::every(Duration::from_millis(500), "all nodes to have the same history", HISTORY, || {
        let all =
            field.agents.iter().map(|a| a.history().map_err(|e| format!("{e:#}"))).collect::<Result<Vec<_>, _>>()?;
        let brief = |h: &[Value]| h.iter().map(|e| (e["epoch"].as_u64(), e["master"].clone())).collect::<Vec<_>>();
        let first = brief(&all[0]);
        if let Some(other) = all.iter().find(|h| brief(h) != first) {
            return Err(format!("{first:?} and {:?}", brief(other)));
        }
        if !first.windows(2).all(|w| w[0].0 >= w[1].0) {
            return Err(format!("the epochs do not rise: {first:?}"));
        }
        story.agrees_with(&all[0])
    })
}

/// Plays the rounds as a program, and prints the result, with JSON as the last line. Returns whether all went well.
pub fn main(args: &Args) -> Result<bool> {
    // Far more than all waits of that many rounds, so that the run ends in any case.
    end_after(Duration::from_secs(180) * u32::try_from(args.rounds.saturating_add(1))?);
    let report = run(args)?;
    println!("{}", report.json());
    Ok(report.violations.is_empty())
}
