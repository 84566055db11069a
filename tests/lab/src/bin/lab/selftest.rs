//! A test of the lab: calls through a server whose VIP is set by hand, and a move of the VIP by hand.

use anyhow::Result;
use lab::asterisk::Asterisk;
use lab::calls::Calls;
use lab::etcd::Etcd;
use lab::lan::{Host, Lan, VIP4, VIP6};
use lab::observer::Observer;
use lab::phone::{Command, Manner};
use lab::witness::Witness;
use lab::{unix_us, wait};
use std::time::{Duration, Instant};

/// Longest wait for anything, on a busy machine.
const READY: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Calls to set up
    #[arg(long, default_value_t = 10)]
    calls: usize,
    /// Copy the logs of all hosts to this directory
    #[arg(long)]
    keep_logs: Option<std::path::PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<bool> {
    let start = Instant::now();
    let lan = Lan::new()?;
    let result = trial(args, &lan, start);
    if let Some(dir) = &args.keep_logs {
        lan.keep_logs(dir)?;
    }
    result
}

fn trial(args: &Args, lan: &Lan, start: Instant) -> Result<bool> {
    let step = |what: &str| println!("{:6.2} s  {what}", start.elapsed().as_secs_f64());
    step("the LAN is up");
    let rt = tokio::runtime::Runtime::new()?;
    let (a, b) = (lan.host("a")?, lan.host("b")?);
    let mut servers = [Asterisk::start(lan, a)?, Asterisk::start(lan, b)?];
    let etcd = Etcd::start(lan)?;
    step("etcd is up");
    etcd.ctl(lan, &["put", "/lab", "1"])?;
    for s in &mut servers {
        s.wait_ready()?;
    }
    step("Asterisk is up on both hosts");
    a.add_address(VIP4.into())?;
    let observer = Observer::start(lan.host("obs")?, VIP4)?;
    let witness = Witness::start(lan.host("obs")?, &[a, b])?;
    let calls = Calls::new(lan, &rt, args.calls, Manner::default())?;
    calls.set_up(READY)?;
    step("the calls are up with audio both ways");
    let steady = calls.gaps(unix_us() - 500_000).into_iter().max().unwrap_or(0);
    step(&format!("longest gap between two packets of an undisturbed call: {:.1} ms", steady as f64 / 1000.0));
    let (caller, called) = &calls.pairs[0];
    for (i, (command, direction)) in
        [(Command::Hold, "sendonly"), (Command::Resume, "sendrecv")].into_iter().enumerate()
    {
        caller.tell(command)?;
        wait::until("the server to answer the re-INVITE", READY, || {
            let s = caller.state();
            if s.own_reinvites.len() > i && s.own_reinvites[i].0 == 200 {
                Ok(())
            } else {
                Err(format!("{:?}", s.own_reinvites))
            }
        })?;
        let (s, other) = (caller.state(), called.state());
        step(&format!(
            "{direction} is answered with {}; the other party's last re-INVITE: {:?}",
            s.remote_direction,
            other.reinvites.last()
        ));
    }
    let ended = calls.hang_up(READY)?;
    step(&format!("{ended} calls ended: one side hung up, and the other got the BYE"));
    let violations = calls.violations();
    for v in &violations {
        println!("violation: {v}");
    }
    for n in calls.notes() {
        println!("note: {n}");
    }
    let at = unix_us();
    a.remove_address(VIP4.into())?;
    b.add_address(VIP4.into())?;
    b.exec(&["ip", "neigh", "flush", "all"])?;
    lan.host("obs")?.exec(&["ip", "neigh", "flush", "all"])?;
    let mac = b.mac()?;
    wait::until("b to answer for the VIP", READY, || match observer.answers().last() {
        Some(last) if last.mac == mac => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    let gap = observer.gap_after(at)?;
    step(&format!(
        "the VIP, moved by hand, was silent for {:.1} ms, with {} returns",
        gap.millis(),
        observer.returns()
    ));
    let (seen, told) = two_hosts(&witness, &observer, a, b)?;
    step(&format!("the VIP on both hosts by hand: {told}"));
    Ok(ended == args.calls && violations.is_empty() && seen)
}

/// Gives the VIP to a second host as well, and removes it there again: the witness must see exactly that. Returns
/// whether the witness did, and what it saw.
fn two_hosts(witness: &Witness, observer: &Observer, a: &Host, b: &Host) -> Result<(bool, String)> {
    const SOON: Duration = Duration::from_secs(5);
    b.add_address(VIP6.into())?;
    let alone =
        wait::until("b to be the only owner", SOON, || match witness.sole_owner(Duration::from_millis(100))? {
            owner if owner == b.name => Ok(unix_us()),
            other => Err(other),
        })?;
    let before = witness.finding(alone - 50_000);
    let (at, owners) = (unix_us(), observer.owners().len());
    a.add_address(VIP4.into())?;
    a.add_address(VIP6.into())?;
    let during = wait::until("the witness to see two hosts", SOON, || {
        let f = witness.finding(at);
        if f.two_hosts_ms >= 100 { Ok(f) } else { Err(format!("{f:?}")) }
    })?;
    let hidden = observer.owners().len() == owners;
    a.remove_address(VIP4.into())?;
    a.remove_address(VIP6.into())?;
    let since = unix_us();
    let after = wait::until("the witness to look again", SOON, || {
        let f = witness.finding(since);
        if f.asked >= 100 { Ok(f) } else { Err(format!("{f:?}")) }
    })?;
    let told = format!(
        "two hosts answered in {} ms of {} ({}), in {} ms before and in {} ms after; a client with a neighbour cache {} it",
        during.two_hosts_ms,
        during.asked,
        during.first_two.unwrap_or_default(),
        before.two_hosts_ms,
        after.two_hosts_ms,
        if hidden { "did not see" } else { "saw" }
    );
    Ok((before.two_hosts_ms == 0 && after.two_hosts_ms == 0, told))
}
