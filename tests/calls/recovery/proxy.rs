//! A proxy behind the VIP: both legs of a call are one dialog. Media go from phone to phone, or through the VIP.

use super::alone;
use anyhow::{Result, ensure};
use lab::calls::{Calls, has_audio, is_reinvited};
use lab::ground::Ground;
use lab::kamailio::Kamailio;
use lab::lan::{Host, Lan, VIP4};
use lab::phone::{Command, Manner, Phone};
use lab::redis::Redis;
use lab::rtpengine::Rtpengine;
use lab::{unix_us, wait};
use std::net::SocketAddr;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Calls from p1: even phones call p2, odd ones p1 itself; every kind of phone is among them.
fn calls<S>(ground: &Ground<S>, n: usize) -> Result<Calls> {
    let _in_runtime = ground.rt.enter();
    let (p1, p2) = (ground.lan.host("p1")?, ground.lan.host("p2")?);
    let server = SocketAddr::from((VIP4, 5060));
    let pair = |i: usize| {
        let manner = Manner { answer_to_source: i / 2 % 2 == 1, ornate: i / 4 % 2 == 1, ..Manner::default() };
        let (host, side) = if i.is_multiple_of(2) { (p2, 1) } else { (p1, 2) };
        Ok((Phone::new(p1, 0, i, server, manner)?, Phone::new(host, side, i, server, manner)?))
    };
    Ok(Calls::of((0..n).map(pair).collect::<Result<_>>()?))
}

/// A hold, a resume and a refresh of these calls, end to end through the proxy.
fn change(pairs: &[(Phone, Phone)]) -> Result<()> {
    for (caller, called) in pairs {
        for (one, other, command, seen) in [
            (caller, called, Command::Hold, "sendonly"),
            (caller, called, Command::Resume, "sendrecv"),
            (called, caller, Command::Refresh, "sendrecv"),
        ] {
            let before = one.state().own_reinvites.len();
            one.tell(command)?;
            wait::until("the answer to a phone's re-INVITE", SOON, || {
                let s = one.state();
                match s.own_reinvites.get(before) {
                    Some((200, _)) if other.state().remote_direction == seen => Ok(()),
                    got => Err(format!("{}: {got:?}, {}", one.number, other.state().remote_direction)),
                }
            })?;
        }
    }
    Ok(())
}

/// Every other request within the dialogs of these calls reaches the other phone, and its answer comes back.
fn speak(pairs: &[(Phone, Phone)]) -> Result<()> {
    const METHODS: [(&str, u16); 8] = [
        ("REFER", 202),
        ("NOTIFY", 200),
        ("SUBSCRIBE", 200),
        ("INFO", 200),
        ("MESSAGE", 200),
        ("UPDATE", 200),
        ("OPTIONS", 200),
        // No proxy and no phone knows it: the phone says so itself.
        ("FOO", 501),
    ];
    for (caller, called) in pairs {
        for (one, other) in [(caller, called), (called, caller)] {
            for (method, code) in METHODS {
                let heard = other.state().requests.iter().filter(|m| *m == method).count();
                let asked = one.state().own_requests.len();
                let updated = one.state().own_updates.len();
                one.tell(Command::Request(method))?;
                wait::until("the answer to a request within the dialog", SOON, || {
                    let s = one.state();
                    let answer = match method {
                        "UPDATE" => s.own_updates.get(updated).map(|(code, _)| *code),
                        _ => s.own_requests.get(asked).filter(|(m, ..)| m == method).map(|(_, code, _)| *code),
                    };
                    let now = other.state().requests.iter().filter(|m| *m == method).count();
                    if answer == Some(code) && now == heard + 1 {
                        return Ok(());
                    }
                    Err(format!("{method} of {}: {answer:?}, heard {heard} then {now}", one.number))
                })?;
            }
        }
    }
    Ok(())
}

/// The new proxy routes what the phones send, and the agent sends nothing, also after a second failure.
#[test]
fn calls_through_a_record_routing_proxy_are_left_to_the_new_proxy() {
    let _alone = alone();
    let run = |ground: &mut Ground<Kamailio>| {
        let calls = calls(ground, 8)?;
        calls.set_up(SOON)?;
        let start = unix_us();
        for round in 0..2 {
            ground.wait_stored(8)?;
            ground.cut_power()?;
            let outcomes = ground.outcomes(8, SOON)?;
            ensure!(outcomes["proxied"] == 8, "{outcomes}");
            let since = unix_us();
            change(&calls.pairs[..4])?;
            speak(&calls.pairs[..4])?;
            let n = calls.wait_for(SOON, |c| has_audio(c, since));
            ensure!(n == 8, "{n} calls have audio");
            if round == 0 {
                ground.heal()?;
            }
        }
        // Phones that changed nothing have heard of nobody since their calls were set up.
        let touched = calls.pairs[4..].iter().filter(|c| is_reinvited(c, start)).count();
        ensure!(touched == 0, "{touched} calls got a re-INVITE");
        let n = calls.hang_up(SOON)?;
        ensure!(
            n == 8,
            "{n} calls hung up as they should: {:?}",
            calls.phones().map(Phone::summary).collect::<Vec<_>>()
        );
        ensure!(calls.violations().is_empty(), "{:#?}", calls.violations());
        wait::until("the ended calls to leave the store", SOON, || {
            let calls = ground.agents[ground.master].instance().map_err(|e| format!("{e:#}"))?["calls"].clone();
            if calls["stored"] == 0 { Ok(()) } else { Err(calls.to_string()) }
        })
    };
    Ground::new(|lan, host, _| Kamailio::proxy(lan, host)).and_then(|g| g.run("proxy", run)).unwrap();
}

/// A proxy and its media server, as one server of the ground.
type WithMedia = (Kamailio, Rtpengine);

/// The master dies under eight calls with audio through the VIP. Afterwards the audio goes on without a word to the
/// phones, also after half of them have re-INVITEd by themselves. Whether the relay has the audio is `relayed`.
fn audio_goes_on(ground: &mut Ground<WithMedia>, relayed: bool) -> Result<()> {
    let calls = calls(ground, 8)?;
    calls.set_up(SOON)?;
    let set_up = unix_us();
    let n = calls.wait_for(SOON, |c| has_audio(c, set_up));
    ensure!(n == 8, "{n} calls have audio");
    ground.wait_stored(8)?;
    ground.cut_power()?;
    let outcomes = ground.outcomes(8, SOON)?;
    ensure!(outcomes["proxied"] == 8, "{outcomes}");
    let taken = unix_us();
    let n = calls.wait_for(SOON, |c| has_audio(c, taken));
    ensure!(n == 8, "{n} calls have audio after the takeover");
    let rules = ground.lan.host(&ground.agents[ground.master].node)?.exec(&["nft", "list", "ruleset"])?;
    let phone = ground.lan.host("p1")?.ip4.to_string();
    let paths = rules.split("table ").any(|table| table.contains("keepcall-relay") && table.contains(&phone));
    ensure!(paths == relayed, "the relay has paths of phones: {paths}");
    change(&calls.pairs[..4])?;
    speak(&calls.pairs[..4])?;
    let changed = unix_us();
    let n = calls.wait_for(SOON, |c| has_audio(c, changed));
    ensure!(n == 8, "{n} calls have audio after half of them were re-INVITEd by their phones");
    let touched = calls.pairs[4..].iter().filter(|c| is_reinvited(c, set_up)).count();
    ensure!(touched == 0, "{touched} calls got a re-INVITE");
    let n = calls.hang_up(SOON)?;
    ensure!(n == 8, "{n} calls hung up as they should");
    ensure!(calls.violations().is_empty(), "{:#?}", calls.violations());
    Ok(())
}

/// The former media server is gone with its host: the relay has the audio, until a phone's re-INVITE moves it to the
/// new one.
#[test]
fn audio_through_the_vip_is_relayed_until_the_new_media_server_has_it() {
    let _alone = alone();
    let start = |lan: &Lan, host: &Host| {
        let media = Rtpengine::start(host)?;
        let (proxy, pidfile) = Kamailio::media_proxy(lan, host)?;
        Ok(((proxy, media), pidfile))
    };
    Ground::new(|lan, host, _| start(lan, host))
        .and_then(|g| g.run("media-proxy", |ground| audio_goes_on(ground, true)))
        .unwrap();
}

/// Media servers that share their calls restore them by themselves: neither the relay nor the engine touches anything.
#[test]
fn media_servers_that_share_their_calls_are_left_alone() {
    let _alone = alone();
    let redis = std::sync::Mutex::new(None);
    let start = |lan: &Lan, host: &Host| {
        let mut redis = redis.lock().unwrap();
        let shared = match redis.take() {
            Some(shared) => shared,
            None => Redis::start(lan.host("obs")?)?,
        };
        let (own, other) = if host.name == "a" { (1, 2) } else { (2, 1) };
        let media = Rtpengine::sharing(host, &shared, own, other)?;
        *redis = Some(shared);
        let (proxy, pidfile) = Kamailio::media_proxy(lan, host)?;
        Ok(((proxy, media), pidfile))
    };
    Ground::with("media = \"external\"\n", |lan, host, _| start(lan, host))
        .and_then(|g| g.run("shared-media", |ground| audio_goes_on(ground, false)))
        .unwrap();
}
