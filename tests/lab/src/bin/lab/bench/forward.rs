//! What the relay's check of packets, and the guard against strangers' packets, cost per packet of a carried call:
//! packets through the relay as it is, through the same rules without the check, and without the guard, in turn.

use super::learn::figures::{Figures, rounded};
use anyhow::{Context as _, Result, ensure};
use keepcall::calls::model::Flow;
use keepcall::recovery::media::kernel::KernelRelay;
use keepcall::recovery::permitted::Ground;
use keepcall::vip::router::{Router, TABLE};
use lab::lan::{Lan, VIP4, end_after};
use nix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Forward {
    /// Print only the last line
    #[arg(long)]
    json: bool,
    /// Rounds, each with both ways
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Packets of a round
    #[arg(long, default_value_t = 20_000)]
    packets: u64,
}

const CALL: &str = "call";
/// RTP with 20 ms of G.711.
const PACKET: usize = 12 + 160;

pub(super) fn run(args: &Forward) -> Result<bool> {
    end_after(Duration::from_secs(600));
    let lan = Lan::new()?;
    let (host, phones) = (lan.host("a")?, [lan.host("p1")?, lan.host("p2")?]);
    host.add_address(VIP4.into())?;
    let phone = |n: usize, port: u16| SocketAddr::new(phones[n].ip4.into(), port);
    let ours = |port: u16| SocketAddr::new(VIP4.into(), port);
    let flow = Flow { from: phone(0, 4000), at: ours(10_000), to: phone(1, 4002), source: ours(10_002), udptl: false };
    let bind = |n: usize, at: SocketAddr| phones[n].enter(move || Ok(UdpSocket::bind(at)?));
    let (sender, _receiver) = (bind(0, flow.from)?, bind(1, flow.to)?);
    let (packets, rounds) = (args.packets, args.rounds);
    let (checked, bare, unguarded) = host.enter(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let router = Router::default();
        let prepared = runtime.block_on(router.prepare("bench", "eth0", true))?;
        ensure!(prepared.errors.is_empty(), "{:?}", prepared.errors);
        ensure!(nft(&format!("list table inet {TABLE}"))?.contains("drop"), "the guard is not in force");
        let relay = KernelRelay::new("bench", &Ground::of(&[IpAddr::from(VIP4)]));
        runtime.block_on(relay.set(CALL, &[flow]))?;
        let mut all = (Figures::default(), Figures::default(), Figures::default());
        // The first round warms up.
        for round in 0..=rounds {
            let one = send(&sender, ours(10_000), packets, &runtime, &relay)?;
            let table = relay.table_name();
            nft(&format!("insert rule inet {table} to4 goto send4"))?;
            let other = send(&sender, ours(10_000), packets, &runtime, &relay)?;
            let handle = nft(&format!("-a list chain inet {table} to4"))?;
            let line = handle.lines().find(|l| l.trim_start().starts_with("goto send4 #"));
            let handle = line.and_then(|l| l.rsplit(' ').next()).context("the inserted rule is missing")?;
            nft(&format!("delete rule inet {table} to4 handle {handle}"))?;
            nft(&format!("delete table inet {TABLE}"))?;
            let third = send(&sender, ours(10_000), packets, &runtime, &relay)?;
            runtime.block_on(router.look())?;
            if round > 0 {
                all.0.add(one);
                all.1.add(other);
                all.2.add(third);
            }
        }
        Ok(all)
    })?;
    let slower = checked.median() / bare.median();
    if !args.json {
        println!(
            "a packet takes {:.0} ns, without the check {:.0} ns, without the guard {:.0} ns",
            checked.median(),
            bare.median(),
            unguarded.median()
        );
    }
    drop(lan);
    println!(
        "{}",
        json!({
            "packet_ns": checked.json(0),
            "packet_ns_without_look": bare.json(0),
            "packet_ns_without_guard": unguarded.json(0),
            "packets_per_s": rounded(1e9 / checked.median().max(1.0), 0),
            "ratio": rounded(slower, 3),
        })
    );
    Ok(true)
}

/// Processor time of a packet from the sender's socket through the relay to the receiver's, in nanoseconds. On a
/// virtual wire all of this is the sender's own time unless the kernel postpones work. So the function counts the
/// packets that went through.
fn send(
    socket: &UdpSocket,
    to: SocketAddr,
    packets: u64,
    runtime: &tokio::runtime::Runtime,
    relay: &KernelRelay,
) -> Result<f64> {
    let counted = || -> Result<u64> {
        let counts = runtime.block_on(relay.counts_of(&[CALL]))?;
        Ok(counts.get(CALL).into_iter().flatten().map(|c| c.packets).sum())
    };
    let time = || -> Result<Duration> { Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into()) };
    let mut packet = [7; PACKET];
    packet[..2].copy_from_slice(&[0x80, 0]);
    let (before, started, began) = (counted()?, time()?, Instant::now());
    for _ in 0..packets {
        socket.send_to(&packet, to)?;
    }
    let took = time()?.saturating_sub(started);
    while counted()? < before + packets {
        ensure!(began.elapsed() < Duration::from_secs(30), "packets were lost before the relay");
        std::thread::yield_now();
    }
    Ok(took.as_nanos() as f64 / packets as f64)
}

fn nft(arguments: &str) -> Result<String> {
    let done = std::process::Command::new("nft").args(arguments.split(' ')).output().context("cannot run nft")?;
    ensure!(done.status.success(), "nft {arguments}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
