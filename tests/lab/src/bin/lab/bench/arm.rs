//! How long a renewal of the kernel lease waits while the relay arms, changes, takes over and removes thousands of
//! calls: in pieces, as the relay works, and in one transaction with a listener, as the relay once worked. And while
//! fences open, close and are taken over.

use super::learn::figures::{Figures, rounded};
use anyhow::{Context as _, Result, ensure};
use keepcall::calls::model::Flow;
use keepcall::os::clock;
use keepcall::recovery::media::kernel::KernelRelay;
use keepcall::recovery::permitted::Ground;
use keepcall::vip::fence::Fence;
use keepcall::vip::kernel_lease::KernelLease;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Arm {
    /// Print only the last line; progress goes to standard error
    #[arg(long)]
    json: bool,
    /// Calls, half of them of each of two instances
    #[arg(long, default_value_t = 10_000)]
    calls: u16,
    /// Rounds of each way
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Time between two renewals
    #[arg(long, default_value_t = 5)]
    renew_ms: u64,
}

/// A renewal must not wait for longer.
const TO_REACH_MS: f64 = 20.0;
/// Time without any change, to measure how long the machine itself makes renewals wait.
const IDLE: Duration = Duration::from_secs(2);
/// The group of nftables among those of netfilter (`NFNLGRP_NFTABLES`), as the bit of a group mask.
const GROUP: u32 = 1 << (7 - 1);
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 9));

/// How flows get into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    name: &'static str,
    /// All in one transaction.
    unbroken: bool,
    /// A program is subscribed to all changes of nftables.
    listened: bool,
}

const WAYS: [Way; 3] = [
    Way { name: "pieces", unbroken: false, listened: false },
    Way { name: "pieces, with a listener", unbroken: false, listened: true },
    Way { name: "one transaction, with a listener", unbroken: true, listened: true },
];

const PHASES: [&str; 11] = [
    "nothing",
    "made",
    "armed",
    "changed",
    "counted",
    "taken over",
    "fence turned",
    "fence taken over",
    "ended",
    "removed",
    "cleared",
];
/// How often the fences turn, and are taken over, in each round. One time is over in a moment, and shows little of the
/// longest wait.
const FENCES: usize = 20;
/// Pause between two of these, so that renewals happen in between.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) fn run(args: &Arm) -> Result<bool> {
    // Before any other thread exists: a thread starts in the namespace of the thread that creates it.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .context("this makes a network namespace, which needs root")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rows = Vec::new();
    let mut reached = true;
    for way in WAYS {
        // One transaction takes seconds, so one round is enough.
        let rounds = if way.unbroken { 1 } else { args.rounds };
        let mut all: Vec<Phase> = PHASES.map(Phase::new).into();
        for round in 1..=rounds {
            eprintln!("{}: round {round} of {rounds}", way.name);
            let _listener = way.listened.then(Listener::start).transpose()?;
            let renewer = Renewer::start(&runtime, Duration::from_millis(args.renew_ms))?;
            let done = runtime.block_on(round_of(way, args.calls, renewer.log.clone(), all));
            renewer.stop();
            all = done?;
        }
        reached &= way.listened || all.iter().all(|phase| phase.waits.at(1.0) <= TO_REACH_MS);
        rows.extend(all.iter().map(|phase| phase.row(way)));
    }
    if !args.json {
        for row in &rows {
            println!(
                "{:<34}{:<18}took {:>8} ms   a renewal waited: 99 of 100 {:>8} ms, longest {:>8} ms, {} of {} failed",
                row["way"].as_str().unwrap_or_default(),
                row["phase"].as_str().unwrap_or_default(),
                row["took_ms"]["median"],
                row["wait_ms_p99"],
                row["wait_ms_longest"],
                row["failed"],
                row["renewals"]
            );
        }
    }
    println!("{}", json!({ "calls": args.calls, "rows": rows, "to_reach_ms": TO_REACH_MS, "reached": reached }));
    Ok(true)
}

struct Phase {
    name: &'static str,
    took: Figures,
    waits: Figures,
    renewals: usize,
    failed: usize,
}

impl Phase {
    fn new(name: &'static str) -> Self {
        Self { name, took: Figures::default(), waits: Figures::default(), renewals: 0, failed: 0 }
    }

    fn row(&self, way: Way) -> Value {
        json!({
            "way": way.name,
            "phase": self.name,
            "took_ms": self.took.json(1),
            "wait_ms_median": rounded(self.waits.median(), 3),
            "wait_ms_p99": rounded(self.waits.at(0.99), 3),
            "wait_ms_longest": rounded(self.waits.at(1.0), 3),
            "renewals": self.renewals,
            "failed": self.failed,
        })
    }
}

async fn round_of(way: Way, calls: u16, log: Log, mut phases: Vec<Phase>) -> Result<Vec<Phase>> {
    let relays = || {
        ["one", "two"].map(|name| {
            let relay = KernelRelay::new(name, &Ground::of(&[VIP]));
            if way.unbroken { relay.unbroken() } else { relay }
        })
    };
    let fences = || ["one", "two"].map(|name| Fence::new(name, &[5060], (10_000, 20_000)));
    let mut pair = relays();
    let mut fence = fences();
    turn(&fence, false).await?;
    // What earlier processes had open. A process ends, and closes this, before its successor starts.
    let mut old = (Vec::new(), Vec::new());
    let half = calls / 2;
    for phase in &mut phases {
        if phase.name == "cleared" {
            both(&pair, |n| set(n * half, half, 0, 0)).await?;
        }
        log.take();
        let started = Instant::now();
        match phase.name {
            "nothing" => tokio::time::sleep(IDLE).await,
            // Only the tables, without calls.
            "made" => both(&pair, |_| vec![("nobody".to_owned(), Vec::new())]).await?,
            "armed" => both(&pair, |n| set(n * half, half, 0, 0)).await?,
            "changed" => both(&pair, |n| set(n * half, half, 1, half)).await?,
            "counted" => {
                for relay in &pair {
                    let counted = relay.counts().await?;
                    ensure!(counted.len() == usize::from(half), "{} of {half} calls are counted", counted.len());
                }
            }
            // A tenth of the calls differs from what the predecessor left.
            "taken over" => {
                old.0.push(std::mem::replace(&mut pair, relays()));
                both(&pair, |n| set(n * half, half, 1, half - half / 10)).await?;
            }
            // As at a takeover by another host, back and forth.
            "fence turned" => {
                for n in 0..FENCES {
                    turn(&fence, n % 2 == 0).await?;
                    tokio::time::sleep(PAUSE).await;
                }
            }
            // As after a restart of the master's agent.
            "fence taken over" => {
                for _ in 0..FENCES {
                    old.1.push(std::mem::replace(&mut fence, fences()));
                    turn(&fence, true).await?;
                    tokio::time::sleep(PAUSE).await;
                }
            }
            // One process after the other.
            "ended" => {
                let (relays, fences) = std::mem::take(&mut old);
                drop(relays);
                for fence in fences {
                    drop(fence);
                    tokio::time::sleep(PAUSE).await;
                }
            }
            "removed" => both(&pair, |n| none(n * half, half)).await?,
            _ => {
                for relay in &pair {
                    relay.clear().await?;
                }
            }
        }
        phase.took.add(started.elapsed().as_secs_f64() * 1e3);
        // The last renewal may be under way.
        tokio::time::sleep(Duration::from_millis(20)).await;
        for (wait, done) in log.take() {
            phase.waits.add(wait.as_secs_f64() * 1e3);
            phase.renewals += 1;
            phase.failed += usize::from(!done);
        }
    }
    Ok(phases)
}

async fn turn(pair: &[Fence; 2], open: bool) -> Result<()> {
    let [one, two] = pair;
    if open {
        tokio::try_join!(one.open(), two.open())?;
    } else {
        tokio::try_join!(one.closed(), two.closed())?;
    }
    Ok(())
}

type Calls = Vec<(String, Vec<Flow>)>;

/// Sets the calls of both instances at once.
async fn both(pair: &[KernelRelay; 2], calls: impl Fn(u16) -> Calls) -> Result<()> {
    let all = [calls(0), calls(1)];
    let each = |n: usize| pair[n].set_many(all[n].iter().map(|(call, flows)| (call.as_str(), flows.as_slice())));
    let (one, two) = tokio::join!(each(0), each(1));
    for refused in [one?, two?] {
        ensure!(refused.is_empty(), "refused: {refused:?}");
    }
    Ok(())
}

fn set(first: u16, count: u16, version: u16, moved: u16) -> Calls {
    (0..count).map(|n| (format!("call-{}", first + n), flows(first + n, if n < moved { version } else { 0 }))).collect()
}

fn none(first: u16, count: u16) -> Calls {
    (0..count).map(|n| (format!("call-{}", first + n), Vec::new())).collect()
}

/// RTP and RTCP both ways of call number `n`, whose phones have other ports in each version.
fn flows(n: u16, version: u16) -> Vec<Flow> {
    let phone = |net: u8, port: u16| {
        let [high, low] = n.to_be_bytes();
        SocketAddr::new(Ipv4Addr::new(10, net, high, low).into(), port + 10 * version)
    };
    let ours = |port: u16| SocketAddr::new(VIP, port);
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

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(Duration, bool)>>>);

impl Log {
    fn take(&self) -> Vec<(Duration, bool)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// In the role of the election: a real-time thread that renews the kernel lease of a third instance.
struct Renewer {
    log: Log,
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Renewer {
    fn start(runtime: &tokio::runtime::Runtime, every: Duration) -> Result<Self> {
        let lease = KernelLease::new("three", "lo", &[VIP]);
        runtime.block_on(lease.install())?;
        let (log, over) = (Log::default(), Arc::new(AtomicBool::new(false)));
        let (log2, over2) = (log.clone(), Arc::clone(&over));
        let (tell, raised) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let _ = tell.send(raise());
            while !over2.load(Ordering::Relaxed) {
                let started = Instant::now();
                let done = lease.renew(1, clock::now() + Duration::from_secs(2)).is_ok();
                log2.0.lock().unwrap_or_else(PoisonError::into_inner).push((started.elapsed(), done));
                std::thread::sleep(every.saturating_sub(started.elapsed()));
            }
        });
        raised.recv()?.context("real time is not permitted (CAP_SYS_NICE)")?;
        Ok(Self { log, over, thread })
    }

    fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}

/// With the priority of the election's thread.
#[allow(unsafe_code)] // sched_setscheduler(2) has no safe wrapper in libc or nix
fn raise() -> std::io::Result<()> {
    let param = libc::sched_param { sched_priority: 20 };
    // SAFETY: 0 is the calling thread, and `param` lives through the call, which only reads it.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Subscribes to all changes of nftables, as `nft monitor` does.
struct Listener {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Listener {
    fn start() -> Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(100))?;
        let over = Arc::new(AtomicBool::new(false));
        let over2 = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while !over2.load(Ordering::Relaxed) {
                // Lost notifications are errors, too. Only the subscription matters.
                let _ = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty());
            }
        });
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}
