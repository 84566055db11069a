//! Messages in a phone's name without any relation to earlier ones: they end no call, whoever carries it.

use super::alone;
use anyhow::{Result, ensure};
use lab::b2bua::{B2bua, Secrets};
use lab::calls::{Calls, has_audio};
use lab::forge::{frame, send};
use lab::ground::Ground;
use lab::lan::{Host, VIP4};
use lab::phone::{Manner, Phone};
use lab::{unix_us, wait};
use std::net::SocketAddr;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const CALLS: usize = 2;

/// A dialog from the server's view, and its phone.
struct Dialog<'a> {
    call_id: &'a str,
    server: &'a str,
    phone: &'a str,
    at: SocketAddr,
    /// The CSeq of the server's last request in the dialog.
    cseq: u32,
}

/// A phone's number is in its address of record, and gives its port.
fn dialogs<'a>(calls: &'a [Secrets], hosts: [&Host; 2]) -> Vec<Dialog<'a>> {
    let all = calls.iter().enumerate().flat_map(|(i, call)| {
        let port = |side: u16| 11_000 + 1000 * side + u16::try_from(i).unwrap_or(0);
        let [call_id, server, phone] = &call.called;
        [
            Dialog {
                call_id: &call.call_id,
                server: &call.local,
                phone: &call.remote,
                at: (hosts[0].ip4, port(0)).into(),
                cseq: 7000,
            },
            Dialog { call_id, server, phone, at: (hosts[1].ip4, port(1)).into(), cseq: call.called_cseq },
        ]
    });
    all.collect()
}

/// Messages that the phone of this dialog never sent. Answers to them may go to `me`.
fn strays(d: &Dialog, me: SocketAddr) -> Vec<String> {
    let vip = SocketAddr::from((VIP4, 5060));
    let answer = |code: &str, cseq: u32, method: &str| {
        format!(
            "SIP/2.0 {code}\r\nVia: SIP/2.0/UDP {vip};rport;branch=z9hG4bK.nobody~{cseq}\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n\
             Content-Length: 0\r\n\r\n",
            d.server, d.phone, d.call_id
        )
    };
    let bye = |phone: &str, server: &str, n: u32| {
        format!(
            "BYE sip:{vip} SIP/2.0\r\nVia: SIP/2.0/UDP {me};branch=z9hG4bK-stray-{n}-{}\r\nMax-Forwards: 70\r\nFrom: {phone}\r\nTo: {server}\r\n\
             Call-ID: {}\r\nCSeq: {} BYE\r\nContent-Length: 0\r\n\r\n",
            d.at,
            d.call_id,
            5000 + n
        )
    };
    let next = d.cseq + 1;
    vec![
        answer("200 OK", next, "BYE"),
        answer("481 Call/Transaction Does Not Exist", next, "BYE"),
        answer("481 Call/Transaction Does Not Exist", next, "INVITE"),
        answer("481 Call/Transaction Does Not Exist", d.cseq, "INVITE"),
        answer("408 Request Timeout", next, "UPDATE"),
        bye(&format!("{}x", d.phone), d.server, 1),
        bye(d.phone, &format!("{}x", d.server), 2),
        bye(d.server, d.phone, 3),
    ]
}

#[test]
fn stray_answers_and_byes_with_wrong_tags_end_no_call() {
    let _alone = alone();
    let ground = Ground::new(|lan, host, rt| B2bua::start(lan, host, rt, VIP4.into())).unwrap();
    ground.run("stray", told_wrong).unwrap();
}

/// Puts the strays of all dialogs on the wire, to the master's address and this port.
fn tell(ground: &Ground<B2bua>, secrets: &[Secrets], port: u16) -> Result<()> {
    let stranger = ground.lan.host("obs")?;
    let me = SocketAddr::from((stranger.ip4, 7777));
    let master = ground.lan.host(&ground.agents[ground.master].node)?.mac()?;
    let all = dialogs(secrets, [ground.lan.host("p1")?, ground.lan.host("p2")?]);
    let frames =
        all.iter().flat_map(|d| strays(d, me).into_iter().map(|m| frame(master, d.at, (VIP4, port).into(), &m)));
    send(stranger, frames.collect())
}

fn told_wrong(ground: &mut Ground<B2bua>) -> Result<()> {
    let server = SocketAddr::from((VIP4, 5060));
    let calls = {
        let _in_runtime = ground.rt.enter();
        let (p1, p2) = (ground.lan.host("p1")?, ground.lan.host("p2")?);
        let pair = |i| {
            Ok((Phone::new(p1, 0, i, server, Manner::default())?, Phone::new(p2, 1, i, server, Manner::default())?))
        };
        Calls::of((0..CALLS).map(pair).collect::<Result<_>>()?)
    };
    calls.set_up(SOON)?;
    ground.wait_stored(CALLS)?;
    let secrets = ground.servers[ground.master].secrets();

    tell(ground, &secrets, 5060)?;
    wait::until("each leg to be in doubt, and none to be over", SOON, || {
        let now = ground.agents[ground.master].instance().map_err(|e| format!("{e:#}"))?["calls"].clone();
        let doubted = now["learning"]["doubted"].as_u64();
        if now["tracked"] == CALLS && doubted == Some(2 * CALLS as u64) { Ok(()) } else { Err(now.to_string()) }
    })?;
    // The successor still has the calls, and the audio continues.
    let now = unix_us();
    ensure!(calls.wait_for(SOON, |c| has_audio(c, now)) == CALLS, "{:?}", calls.violations());
    ground.wait_stored(CALLS)?;

    let at = ground.cut_power()?;
    ground.wait_reinvited(&calls, at, SOON)?;
    // The same to the agent that carries the calls now: to the server's port, and to the agent's own.
    for port in [5060, 5070] {
        tell(ground, &secrets, port)?;
    }
    let now = unix_us();
    ensure!(calls.wait_for(SOON, |c| has_audio(c, now)) == CALLS, "{:?}", calls.violations());
    let carried = ground.agents[ground.master].instance()?["calls"]["carried"].clone();
    ensure!(carried == CALLS, "{carried} of {CALLS} calls are carried");
    for phone in calls.phones() {
        ensure!(phone.state().bye_received.is_none(), "{}", phone.summary());
    }
    ensure!(calls.violations().is_empty(), "{:#?}", calls.violations());
    ensure!(calls.hang_up(SOON)? == CALLS, "not every call ended; {:?}", calls.violations());
    Ok(())
}
