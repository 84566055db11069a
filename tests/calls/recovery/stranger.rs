//! A stranger on the LAN speaks as the server and floods every port with RTP: no call is invented, changed or ended,
//! and no audio reaches the stranger.

use super::alone;
use anyhow::{Result, ensure};
use lab::b2bua::{B2bua, Secrets};
use lab::calls::{Calls, has_audio};
use lab::forge::{frame, send};
use lab::ground::Ground;
use lab::lan::{Host, VIP4};
use lab::phone::{Command, Manner, Phase, Phone};
use lab::{unix_us, wait};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
/// The address of a phone inside its NAT.
const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 5);
const CALLS: usize = 4;

/// A phone behind a NAT of p1; the NAT chooses another port for its audio.
fn phone_behind_nat(ground: &Ground<B2bua>, server: SocketAddr) -> Result<(Phone, Phone)> {
    let (p1, p2) = (ground.lan.host("p1")?, ground.lan.host("p2")?);
    p1.exec(&["ip", "addr", "add", &format!("{INSIDE}/32"), "dev", "lo"])?;
    // SIP keeps its port, as these phones do not ask for rport.
    p1.exec(&[
        "nft",
        &format!(
            "table ip nat {{ chain out {{ type nat hook postrouting priority srcnat; ip saddr {INSIDE} udp sport >= 30000 masquerade to \
             :50000-50999 random; ip saddr {INSIDE} masquerade; }}; }}"
        ),
    ])?;
    let inside = Host { ip4: INSIDE, ..p1.clone() };
    let manner = Manner { answer_to_source: true, ..Manner::default() };
    Ok((Phone::new(&inside, 0, CALLS, server, manner)?, Phone::new(p2, 1, CALLS, server, manner)?))
}

fn legs(ground: &Ground<B2bua>) -> Result<Vec<Value>, String> {
    let rows = ground.agents[ground.master].ask(&["calls"]).map_err(|e| format!("{e:#}"))?;
    Ok(rows.as_array().into_iter().flatten().flat_map(|c| c["legs"].as_array()).flatten().cloned().collect())
}

fn counts(ground: &Ground<B2bua>) -> Result<Value, String> {
    Ok(ground.agents[ground.master].instance().map_err(|e| format!("{e:#}"))?["calls"].clone())
}

/// A message of a call that the server never made to the stranger; `start` and `cseq` as in the message.
fn invented(n: usize, start: &str, cseq: &str, tag: &str, me: SocketAddr, contact: SocketAddr) -> String {
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n",
        ip = contact.ip(),
        port = 19_000 + 2 * n
    );
    let sdp = if cseq.ends_with("ACK") { String::new() } else { sdp };
    format!(
        "{start}\r\nVia: SIP/2.0/UDP {VIP4}:5060;branch=z9hG4bK-invented-{n}\r\nFrom: <sip:1000@{VIP4}>;tag=f{n}\r\n\
         To: <sip:666@{me}>{tag}\r\nCall-ID: invented-{n}\r\nCSeq: {cseq}\r\nContact: <sip:x@{contact}>\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        sdp.len()
    )
}

/// The frames of two legs of an invented call, and the server's BYE and re-INVITE in each real call. Returns the number
/// of frames that speak as the server.
fn forge(host: &Host, master: [u8; 6], me: SocketAddr, real: &[Secrets]) -> Result<u64> {
    let vip = SocketAddr::from((VIP4, 5060));
    let mut frames = Vec::new();
    for n in 0..2 {
        let invite = invented(n, &format!("INVITE sip:666@{me} SIP/2.0"), "1 INVITE", "", me, vip);
        frames.push(frame(master, vip, me, &invite));
        frames.push(frame(master, me, vip, &invented(n, "SIP/2.0 200 OK", "1 INVITE", ";tag=me", me, me)));
        frames.push(frame(
            master,
            vip,
            me,
            &invented(n, &format!("ACK sip:666@{me} SIP/2.0"), "1 ACK", ";tag=me", me, vip),
        ));
    }
    for (n, call) in real.iter().enumerate() {
        for method in ["INVITE", "BYE"] {
            let text = format!(
                "{method} sip:x@{me} SIP/2.0\r\nVia: SIP/2.0/UDP {vip};branch=z9hG4bK-{method}-{n}\r\nFrom: {}\r\nTo: {}\r\n\
                 Call-ID: {}\r\nCSeq: 90000 {method}\r\nContact: <sip:x@{vip}>\r\nContent-Length: 0\r\n\r\n",
                call.local, call.remote, call.call_id
            );
            frames.push(frame(master, vip, me, &text));
        }
    }
    send(host, frames)?;
    Ok(4 + 2 * real.len() as u64)
}

/// 600 RTP packets a second to each port until dropped; counts the packets that come back.
struct Flood {
    stop: Arc<AtomicBool>,
    drawn: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Flood {
    fn start(socket: UdpSocket, ports: Vec<SocketAddr>) -> Result<Self> {
        socket.set_nonblocking(true)?;
        let (stop, drawn) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, got) = (Arc::clone(&stop), Arc::clone(&drawn));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            for seq in 0_u16.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let seq = (seq % 60_000).to_be_bytes();
                let packet = [&[0x80, 0][..], &seq, &[0; 4], &[6; 4], &[0xff; 160]].concat();
                for port in &ports {
                    // The wire may be down for a moment.
                    let _ = socket.send_to(&packet, port);
                }
                while socket.recv(&mut buffer).is_ok() {
                    got.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_micros(1667));
            }
        });
        Ok(Self { stop, drawn, thread: Some(thread) })
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn a_stranger_makes_no_call_changes_none_ends_none_and_draws_no_audio() {
    let _alone = alone();
    let ground = Ground::new(|lan, host, rt| B2bua::start(lan, host, rt, VIP4.into())).unwrap();
    ground.run("stranger", attacked).unwrap();
}

fn attacked(ground: &mut Ground<B2bua>) -> Result<()> {
    let server = SocketAddr::from((VIP4, 5060));
    let (calls, nat) = {
        let _in_runtime = ground.rt.enter();
        let (p1, p2) = (ground.lan.host("p1")?, ground.lan.host("p2")?);
        let manner = Manner::default();
        let pair = |i| Ok((Phone::new(p1, 0, i, server, manner)?, Phone::new(p2, 1, i, server, manner)?));
        (Calls::of((0..CALLS).map(pair).collect::<Result<_>>()?), phone_behind_nat(ground, server)?)
    };
    calls.set_up(SOON)?;
    nat.0.tell(Command::Call(nat.1.number.clone()))?;
    wait::until("the call from behind the NAT", SOON, || {
        if nat.0.state().phase == Phase::Up { Ok(()) } else { Err(nat.0.summary()) }
    })?;
    ground.wait_stored(CALLS + 1)?;

    // Only the NAT's port is known: the phone describes an address that no host here has.
    let told = SocketAddr::from((INSIDE, 30_000 + 2 * CALLS as u16)).to_string();
    let behind = |leg: &Value| leg["media"] == told.as_str();
    wait::until("the NAT's port to be learnt", SOON, || {
        let legs = legs(ground)?;
        let source =
            legs.iter().find(|l| behind(l)).and_then(|l| l["media_source"].as_str()).unwrap_or_default().to_owned();
        if source.starts_with("10.44.0.21:50") { Ok(()) } else { Err(format!("{legs:?}")) }
    })?;

    let stranger = ground.lan.host("obs")?.clone();
    let me = SocketAddr::from((stranger.ip4, 7777));
    let secrets = ground.servers[ground.master].secrets();
    ensure!(secrets.len() == CALLS + 1, "{secrets:?}");
    let master = ground.lan.host(&ground.agents[ground.master].node)?.mac()?;
    let forged = forge(&stranger, master, me, &secrets)?;
    wait::until("the forged frames to be counted", SOON, || {
        let counts = counts(ground)?;
        let n = counts["capture"]["path"]["forged"].as_u64();
        if n == Some(forged) { Ok(()) } else { Err(counts.to_string()) }
    })?;

    let socket = stranger.enter(move || Ok(UdpSocket::bind(me)?))?;
    let flood = Flood::start(socket, secrets[..CALLS].iter().flat_map(|s| s.media).collect())?;
    wait::until("the flood to be sampled", SOON, || {
        let counts = counts(ground)?;
        if counts["media"]["foreign"].as_u64() >= Some(300) { Ok(()) } else { Err(counts.to_string()) }
    })?;
    let all = legs(ground).map_err(anyhow::Error::msg)?;
    ensure!(all.len() == 2 * CALLS + 2, "{all:?}");
    ensure!(all.iter().all(|l| l["media_source"].is_null() || behind(l)), "{all:?}");
    let log = ground.agents[ground.master].run(&["status"])?;
    ensure!(log.contains("FORGED") && log.contains("FOREIGN"), "{log}");

    // The successor uses what was learnt, while the flood continues.
    let at = ground.cut_power()?;
    let taken = unix_us();
    ground.wait_reinvited(&calls, at, SOON)?;
    let n = calls.wait_for(SOON, |c| has_audio(c, taken));
    ensure!(n == CALLS, "{n} calls have audio");
    let drawn = flood.drawn.load(Ordering::Relaxed);
    ensure!(drawn == 0, "{drawn} packets came to the stranger");
    drop(flood);
    ensure!(calls.violations().is_empty(), "{:#?}", calls.violations());
    Ok(())
}
