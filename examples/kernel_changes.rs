//! Prints how long changes of the fence and of the kernel relay take on this host, idle and with every core busy.
//!
//! Runs in a network namespace of its own, so that nothing of the host changes. Needs root:
//! `cargo build --release --example kernel_changes && sudo target/release/examples/kernel_changes`

use keepcall::calls::model::Flow;
use keepcall::recovery::media::kernel::KernelRelay;
use keepcall::recovery::permitted::Ground;
use keepcall::vip::fence::Fence;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Calls that each measurement of many sets at once.
const MANY: [u16; 2] = [1_000, 10_000];

fn main() -> anyhow::Result<()> {
    // Before any other thread exists: a thread starts in the namespace of the thread that creates it.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!("idle");
    runtime.block_on(async { tokio::spawn(measure()).await })??;
    let over = Arc::new(AtomicBool::new(false));
    let cores = std::thread::available_parallelism()?.get();
    let busy: Vec<_> = (0..cores)
        .map(|_| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || while !over.load(Ordering::Relaxed) {})
        })
        .collect();
    println!("with {cores} cores busy");
    let done = runtime.block_on(async { tokio::spawn(measure()).await });
    over.store(true, Ordering::Relaxed);
    for thread in busy {
        let _ = thread.join();
    }
    done?
}

async fn measure() -> anyhow::Result<()> {
    let fence = Fence::new("measured", &[5060], (10_000, 20_000));
    fence.closed().await?;
    let mut times = Vec::new();
    for n in 0..100 {
        let start = Instant::now();
        if n % 2 == 0 {
            fence.open().await?
        } else {
            fence.closed().await?
        }
        times.push(start.elapsed());
    }
    tell("fence, opened or closed", times);
    fence.removed().await?;

    let vip = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 9));
    let relay = KernelRelay::new("measured", &Ground::of(&[vip]));
    let one = flows(vip, 20_000);
    relay.set("another", &flows(vip, 20_001)).await?;
    let mut times = Vec::new();
    for n in 0..100 {
        let start = Instant::now();
        relay.set("one", if n % 2 == 0 { &one } else { &[] }).await?;
        times.push(start.elapsed());
    }
    tell("relay, one call added or removed", times);
    for many in MANY {
        let calls: Vec<(String, Vec<Flow>)> = (0..many).map(|n| (format!("call-{n}"), flows(vip, n))).collect();
        let mut times = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..5 {
            let start = Instant::now();
            relay.set_many(calls.iter().map(|(call, flows)| (call.as_str(), flows.as_slice()))).await?;
            times.0.push(start.elapsed());
            let start = Instant::now();
            let counted = relay.counts_of(&["call-7"]).await?;
            times.1.push(start.elapsed());
            anyhow::ensure!(counted.len() == 1, "the counters of one call are {counted:?}");
            let start = Instant::now();
            relay.set_many(calls.iter().map(|(call, _)| (call.as_str(), &[][..]))).await?;
            times.2.push(start.elapsed());
        }
        tell(&format!("relay, {many} calls added at once"), times.0);
        tell(&format!("relay, counters of one call read, {many} present"), times.1);
        tell(&format!("relay, {many} calls removed at once"), times.2);
    }
    relay.clear().await?;
    Ok(())
}

/// RTP and RTCP both ways of call number `n`.
fn flows(vip: IpAddr, n: u16) -> Vec<Flow> {
    let phone = |net: u8, port: u16| {
        let [high, low] = n.to_be_bytes();
        SocketAddr::new(Ipv4Addr::new(10, net, high, low).into(), port)
    };
    let ours = |port: u16| SocketAddr::new(vip, port);
    [0, 1]
        .into_iter()
        .flat_map(|rtcp| {
            let (a, b) = (phone(80, 4000 + rtcp), phone(81, 4000 + rtcp));
            let (at_a, at_b) = (ours(10_000 + rtcp), ours(10_002 + rtcp));
            [
                Flow { from: a, at: at_a, to: b, source: at_b, udptl: false },
                Flow { from: b, at: at_b, to: a, source: at_a, udptl: false },
            ]
        })
        .collect()
}

fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| {
        times.get((times.len() * share / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    println!("  {what:<52} median {:>10.3?}  95 % {:>10.3?}  most {:>10.3?}", at(50), at(95), at(100));
}
