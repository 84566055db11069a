//! Calls on a live wire: two agents, etcd, a server on the VIP and its phones, with the audio of all calls. Measures
//! what the agents need, and how far the store lags behind the wire.

mod audio;
mod signalling;
mod usage;
mod watched;

use super::about;
use super::figures::rounded;
use super::traffic::{Places, Plan, RINGING, Traffic};
use anyhow::{Context as _, Result, ensure};
use audio::Audio;
use lab::agent::{Agent, INSTANCE, Setup, built_program, wait_armed};
use lab::etcd::Etcd;
use lab::lan::{Lan, VIP4, end_after};
use lab::wait;
use serde_json::{Value, json};
use signalling::Signalling;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use usage::{Meter, etcd_counts};
use watched::Watched;

/// Limits to reach: percent of a core, writes per call, milliseconds from the packet to etcd.
const TARGET_PERCENT: f64 = 10.0;
const TARGET_WRITES: f64 = 4.0;
const TARGET_LAG_MS: f64 = 50.0;
/// How long a call is up, from the answer to the BYE.
const HOLD: Duration = Duration::from_secs(10);
/// Time until as many calls end as begin: hold and ringing, and a reserve.
const RAMP: Duration = Duration::from_secs(14);
/// Ports of each phone host.
const PORTS: u16 = 64;
const CLUSTER: &str = "learn";
/// Longest wait for anything that is not the measurement.
const LIMIT: Duration = Duration::from_secs(60);

/// Parameters of a live measurement.
pub(super) struct Wish {
    /// Calls that begin and end each second.
    pub(super) rate: usize,
    pub(super) seconds: u64,
    /// Whether the calls have audio.
    pub(super) audio: bool,
    pub(super) program: Option<PathBuf>,
}

pub(super) fn run(wish: &Wish, say: &dyn Fn(&str)) -> Result<Value> {
    let seconds = Duration::from_secs(wish.seconds);
    end_after(Duration::from_secs(120) + (seconds + RAMP + HOLD) * 2);
    let lan = Lan::new()?;
    let result = measure(&lan, wish, seconds, say);
    if result.is_err() {
        let dir = std::env::temp_dir().join(format!("keepcall-bench-{}", std::process::id()));
        lan.keep_logs(&dir)?;
        return result.with_context(|| format!("the logs of all hosts are in {}", dir.display()));
    }
    result
}

fn measure(lan: &Lan, wish: &Wish, seconds: Duration, say: &dyn Fn(&str)) -> Result<Value> {
    let (p1, p2) = (lan.host("p1")?, lan.host("p2")?);
    let places = Places {
        server: SocketAddr::from((VIP4, 5060)),
        callers: vec![p1.ip4.into()],
        called: vec![p2.ip4.into()],
        ports: PORTS,
    };
    let up = wish.rate * usize::try_from(HOLD.as_secs())?;
    let calls = wish.rate * usize::try_from((RAMP + seconds).as_secs())?;
    let traffic = Traffic::new(&Plan { calls, up, hold: HOLD, places: places.clone() });
    let etcd = Etcd::start(lan)?;
    let hosts = [lan.host("a")?, lan.host("b")?];
    let mut checks = Vec::new();
    let mut agents = Vec::new();
    for host in hosts {
        checks.push(signalling::Checked::start(host)?);
        let pidfile = host.dir.join("server.pid");
        std::fs::write(&pidfile, std::process::id().to_string())?;
        let setup = Setup {
            program: wish.program.clone().map_or_else(built_program, Ok)?,
            cluster: CLUSTER.into(),
            endpoints: etcd.endpoints.clone(),
            heartbeat: Duration::from_millis(200),
            // The machine is busy on purpose, and this measurement needs no change of master.
            hold: Duration::from_secs(4),
            server_pidfile: Some(pidfile),
            on_backup: None,
        };
        agents.push(Agent::start(host, &setup)?);
    }
    let (master, backup) = wait_armed(&mut agents)?;
    let server = hosts[master];
    let wire = Meter::new(&agents[master].host().clone());
    let watched =
        Watched::start(lan.host("e1")?, &etcd.endpoints, &format!("/keepcall/{CLUSTER}/instances/{INSTANCE}/calls/"))?;
    let audio = wish.audio.then(|| Audio::new(server, [p1, p2], &places, HOLD / u32::try_from(up)?)).transpose()?;
    let signalling = Signalling::new(server, [p1, p2], &places)?;

    let before = etcd_counts(lan.host("e1")?)?;
    let start = signalling.start_time();
    let (sent, measured) = std::thread::scope(|scope| {
        let signals = scope.spawn(|| signalling.send(&traffic, start));
        let streams = audio.as_ref().map(|audio| {
            let end = RAMP + seconds;
            [
                scope.spawn(move || audio.by_phones(start, RINGING, HOLD, end)),
                scope.spawn(move || audio.by_server(start, RINGING, HOLD, end)),
            ]
        });
        std::thread::sleep(RAMP);
        let measured = usage::over(seconds, &agents[master], &agents[backup], &wire);
        let audio: Vec<_> = streams.into_iter().flatten().map(|s| s.join()).collect();
        for a in audio {
            a.map_err(|_| anyhow::anyhow!("a thread of the audio panicked"))??;
        }
        let sent = signals.join().map_err(|_| anyhow::anyhow!("the thread of the signalling panicked"))??;
        Ok::<_, anyhow::Error>((sent, measured?))
    })?;
    drop(audio);
    wait::until("all calls to be over in etcd", LIMIT, || {
        let deleted = watched.deletes();
        if deleted >= traffic.calls { Ok(()) } else { Err(format!("{deleted} of {} calls are deleted", traffic.calls)) }
    })?;
    let written = etcd_counts(lan.host("e1")?)?.since(&before);
    let status = agents[master].ask(&["status"])?;
    let report = watched.end()?.report(&traffic, &sent, &places)?;
    ensure!(
        report.unknown == 0 && report.missing == 0,
        "{} calls are missing in etcd, {} calls in etcd are unknown",
        report.missing,
        report.unknown
    );

    let (seen, dropped) = usage::captured(&status)?;
    say(&format!(
        "live, {} calls/s, {up} up, {:.0} packets/s: agent {:.1} % of a core as master, {:.1} % as backup; {dropped} drops; {:.2} writes a call; \
         {:.1} ms behind the wire ({:.1} ms in 99 of 100)",
        wish.rate,
        measured.packets_per_s,
        measured.master_percent,
        measured.backup_percent,
        report.writes as f64 / traffic.calls as f64,
        report.lag.median(),
        report.lag.at(0.99)
    ));
    let mut row = about(&traffic, up);
    row["calls_per_s"] = json!(wish.rate);
    row["seconds"] = json!(wish.seconds);
    row["audio_wanted_packets_per_s"] = json!(if wish.audio { up * 200 } else { 0 });
    row["wire_packets_per_s"] = rounded(measured.packets_per_s, 0);
    row["sip_messages_per_s"] = rounded((wish.rate * sent.len()) as f64 / calls as f64, 0);
    row["late_signals"] = json!(sent.late());
    row["agent_percent_master"] = rounded(measured.master_percent, 2);
    row["agent_percent_backup"] = rounded(measured.backup_percent, 2);
    row["agent_run_percent_master"] = rounded(measured.master_run_percent, 2);
    row["captured"] = json!(seen);
    row["dropped"] = json!(dropped);
    row["etcd_writes_per_call"] = rounded(report.writes as f64 / traffic.calls as f64, 2);
    row["etcd_puts_in_all"] = json!(written.puts);
    row["etcd_transactions_per_s"] = rounded(written.transactions as f64 / (RAMP + seconds + HOLD).as_secs_f64(), 1);
    row["lag_ms"] = json!({ "p50": rounded(report.lag.median(), 1), "p99": rounded(report.lag.at(0.99), 1), "max": rounded(report.lag.at(1.0), 1) });
    row["targets"] =
        json!({ "percent": TARGET_PERCENT, "writes": TARGET_WRITES, "lag_ms": TARGET_LAG_MS, "dropped": 0 });
    Ok(row)
}
