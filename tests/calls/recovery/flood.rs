//! A host of the LAN floods the server with unanswered INVITEs: established calls stay completely known, new calls are
//! learnt meanwhile, the agent's memory stays level, and the takeover keeps every call.

use super::alone;
use anyhow::{Context as _, Result, ensure};
use lab::agent::Agent;
use lab::b2bua::B2bua;
use lab::calls::{Calls, ended, has_audio};
use lab::ground::Ground;
use lab::lan::{Host, VIP4};
use lab::phone::{Manner, Phone};
use lab::{unix_us, wait};
use serde_json::Value;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const MAX_CALLS: u64 = 200;
/// Calls from before the flood, and calls made during it; the last of these is an emergency call.
const BEFORE: usize = 2;
const DURING: usize = 3;
const ALL: usize = BEFORE + DURING;
/// Unanswered INVITEs that must have come and gone; kept, they would take 45 MB.
const GONE: u64 = 3000;
/// This many at once overflow the ring, and that many do not.
const TOO_MANY: usize = 2000;
const MANY: usize = 200;
/// Bytes of each description, which arrive in eleven fragments.
const SDP: usize = 15_000;
/// Limit for the growth of the agent's memory, in kB. With this `max_calls` the agent may keep less than 2 MB of a
/// flood, and 4 MB of fragments; the allocator does not return the rest.
const GROWTH: u64 = 16 * 1024;

/// 67 INVITEs a second until dropped, and more at once on demand.
struct Flood {
    socket: Arc<UdpSocket>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn invite(me: SocketAddr, name: &str, n: usize) -> Vec<u8> {
    let mut sdp =
        format!("v=0\r\no=- {n} 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio 30000 RTP/AVP 0\r\n", me.ip());
    while sdp.len() < SDP {
        sdp.push_str("a=x-flood:0123456789abcdefghijklmnopqrstuvwxyz\r\n");
    }
    format!(
        "INVITE sip:1000@{VIP4} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK-{name}-{n}\r\nMax-Forwards: 70\r\n\
         From: <sip:flood{n}@{me}>;tag=t{n}\r\nTo: <sip:1000@{VIP4}>\r\nCall-ID: {name}-{n}@{me}\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:flood@{me}>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    )
    .into_bytes()
}

impl Flood {
    fn start(host: &Host) -> Result<Self> {
        let me = SocketAddr::from((host.ip4, 7777));
        let socket = Arc::new(host.enter(move || Ok(UdpSocket::bind(me)?))?);
        let stop = Arc::new(AtomicBool::new(false));
        let (steady, stopped) = (Arc::clone(&socket), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for n in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // The wire may be down for a moment.
                let _ = steady.send_to(&invite(me, "steady", n), (VIP4, 5060));
                std::thread::sleep(Duration::from_millis(15));
            }
        });
        Ok(Self { socket, stop, thread: Some(thread) })
    }

    fn at_once(&self, wave: usize, count: usize) -> Result<()> {
        let me = self.socket.local_addr()?;
        for n in 0..count {
            let _ = self.socket.send_to(&invite(me, &format!("wave{wave}"), n), (VIP4, 5060));
        }
        Ok(())
    }

    /// Waits until the agent has read everything sent before. A last INVITE with an overlong name is counted; while the
    /// ring is full it is lost.
    fn is_read(&self, agent: &Agent) -> Result<()> {
        let me = self.socket.local_addr()?;
        let long = "x".repeat(1100);
        let before = learning(agent).map_err(anyhow::Error::msg)?["too_long"].as_u64().unwrap_or(0);
        wait::every(Duration::from_millis(50), "the flood to be read", SOON, || {
            let _ = self.socket.send_to(&invite(me, &long, 0), (VIP4, 5060));
            let now = learning(agent)?;
            if now["too_long"].as_u64() > Some(before) { Ok(()) } else { Err(now.to_string()) }
        })
    }

    /// The first line of anything sent to this socket.
    fn heard(&self) -> Result<Option<String>> {
        self.socket.set_nonblocking(true)?;
        let mut buffer = [0; 65_536];
        let got = self.socket.recv(&mut buffer).ok();
        Ok(got.map(|n| String::from_utf8_lossy(&buffer[..n]).lines().next().unwrap_or_default().to_owned()))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// The agent's resident memory, in kB.
fn memory(agent: &Agent) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", agent.proc.pid()))?;
    let kb = text.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kb.with_context(|| format!("no VmRSS in {text}"))
}

fn learning(agent: &Agent) -> Result<Value, String> {
    Ok(agent.instance().map_err(|e| format!("{e:#}"))?["calls"]["learning"].clone())
}

/// The state of the part with the calls.
fn part(agent: &Agent) -> Result<Value> {
    let status = agent.ask(&["status"])?;
    let found = status["parts"].as_array().into_iter().flatten().find(|p| p["name"] == "calls of sip");
    found.cloned().with_context(|| status.to_string())
}

/// Waits until the agent knows exactly these calls, each with both legs and without an obstacle to recovery.
fn knows_whole(agent: &Agent, count: usize) -> Result<Vec<Value>> {
    wait::until("every call to be known whole", SOON, || {
        let calls = agent.ask(&["calls"]).map_err(|e| format!("{e:#}"))?;
        let calls = calls.as_array().cloned().unwrap_or_default();
        let whole = |c: &Value| {
            let legs = c["legs"].as_array().map_or(&[][..], Vec::as_slice);
            legs.len() == 2 && legs.iter().all(|l| l["obstacle"].is_null() && !l["media"].is_null())
        };
        if calls.len() == count && calls.iter().all(whole) { Ok(calls) } else { Err(format!("{calls:?}")) }
    })
}

#[test]
fn a_flood_of_unanswered_invites_costs_no_call_and_no_memory() {
    let _alone = alone();
    let emergency = 2000 + ALL - 1;
    let more = format!("max_calls = {MAX_CALLS}\nemergency = [\"{emergency}\"]\n");
    let ground = Ground::with(&more, |lan, host, rt| B2bua::start(lan, host, rt, VIP4.into())).unwrap();
    ground.run("flood", flooded).unwrap();
}

fn flooded(ground: &mut Ground<B2bua>) -> Result<()> {
    let stranger = ground.lan.host("obs")?.clone();
    // The servers' own firewall: they receive nothing of the flood, and so answer nothing.
    for agent in &ground.agents {
        let drop = format!(
            "table ip own {{ chain in {{ type filter hook input priority 0; ip saddr {} drop; }}; }}",
            stranger.ip4
        );
        agent.host().exec(&["nft", &drop])?;
    }
    let (before, during) = {
        let _in_runtime = ground.rt.enter();
        let (p1, p2) = (ground.lan.host("p1")?, ground.lan.host("p2")?);
        let server = SocketAddr::from((VIP4, 5060));
        let pair = |i| {
            Ok((Phone::new(p1, 0, i, server, Manner::default())?, Phone::new(p2, 1, i, server, Manner::default())?))
        };
        let pairs =
            |range: std::ops::Range<usize>| Ok::<_, anyhow::Error>(Calls::of(range.map(pair).collect::<Result<_>>()?));
        (pairs(0..BEFORE)?, pairs(BEFORE..ALL)?)
    };
    before.set_up(SOON)?;
    ground.wait_stored(BEFORE)?;
    let master = &ground.agents[ground.master];
    let at_first = memory(master)?;

    let flood = Flood::start(&stranger)?;
    for wave in 0.. {
        flood.at_once(wave, TOO_MANY)?;
        flood.is_read(master)?;
        let gone = learning(master).map_err(anyhow::Error::msg)?["gave_way"].as_u64().unwrap_or(0);
        if gone >= GONE {
            break;
        }
        ensure!(wave < 20, "only {gone} INVITEs gave way");
    }
    // Others call during the flood.
    flood.at_once(1000, MANY)?;
    during.set_up(SOON)?;
    ground.wait_stored(ALL)?;
    let known = knows_whole(master, ALL)?;
    let emergencies: Vec<&Value> = known.iter().filter(|c| c["emergency"] == true).collect();
    ensure!(emergencies.len() == 1, "{known:?}");
    let now = learning(master).map_err(anyhow::Error::msg)?;
    let part = part(master)?;
    ensure!(part["restarts"] == 0, "{part}");
    // The extra eighth is for emergency calls.
    ensure!(now["unanswered"].as_u64() <= Some(MAX_CALLS / 2) && now["no_room"] == 0, "{now}");
    let grown = memory(master)?.saturating_sub(at_first);
    println!("{now}\nVmRSS {at_first} kB before the flood, and {grown} kB more in it");
    ensure!(grown < GROWTH, "the agent's memory grew by {grown} kB from {at_first} kB; {now}");
    let told = master.run(&["status"])?;
    ensure!(told.contains("NOT LEARNT OF") && told.contains("GAVE WAY"), "{told}");
    let log = std::fs::read_to_string(&master.proc.log)?;
    ensure!(log.contains("unanswered legs gave way to newer legs"), "{}", master.proc.tail());
    ensure!(!log.contains("panicked"), "{}", master.proc.tail());

    // The flood continues at the next master, which knows the calls only from the store.
    let at = ground.cut_power()?;
    let taken = unix_us();
    for calls in [&before, &during] {
        ground.wait_reinvited(calls, at, SOON)?;
        let n = calls.wait_for(SOON, |c| has_audio(c, taken));
        ensure!(n == calls.pairs.len(), "{n} calls have audio");
        for phone in calls.phones() {
            ensure!(phone.state().bye_received.is_none(), "{}", phone.summary());
        }
        ensure!(calls.violations().is_empty(), "{:#?}", calls.violations());
    }
    let heard = flood.heard()?;
    ensure!(heard.is_none(), "somebody spoke to the host that floods: {heard:?}");
    for calls in [&before, &during] {
        ensure!(calls.hang_up(SOON)? == calls.pairs.len() && calls.pairs.iter().all(ended), "not every call ended");
    }
    Ok(())
}
