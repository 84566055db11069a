//! A proxy behind the VIP: both legs of a call are one dialog, and media goes from phone to phone.

use super::alone;
use super::sipp::{self, End};
use anyhow::{Result, ensure};
use lab::calls::{Calls, has_audio};
use lab::ground::Ground;
use lab::kamailio::Kamailio;
use lab::lan::VIP4;
use lab::phone::{Command, Manner, Phone};
use lab::{unix_us, wait};
use std::net::SocketAddr;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Calls from p1: even phones call p2, odd ones p1 itself; every kind of phone is among them.
fn calls(ground: &Ground<Kamailio>, n: usize) -> Result<Calls> {
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

fn proxied() -> Result<()> {
    let _alone = alone();
    let ground = Ground::new(|lan, host, _| Kamailio::proxy(lan, host))?;
    ground.run("proxy", |ground| {
        let calls = calls(ground, 8)?;
        calls.set_up(SOON)?;
        ground.wait_stored(8)?;
        let at = ground.cut_power()?;
        ground.wait_reinvited(&calls, at, SOON)?;
        let since = unix_us();
        // Through the new node's proxy by the route set, to the agent, to the other phone.
        for (caller, called) in &calls.pairs[..4] {
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
        let n = calls.wait_for(SOON, |c| has_audio(c, since));
        ensure!(n == 8, "{n} calls have audio");
        let n = calls.hang_up(SOON)?;
        ensure!(
            n == 8,
            "{n} calls hung up as they should: {:?}",
            calls.phones().map(Phone::summary).collect::<Vec<_>>()
        );
        ensure!(calls.violations().is_empty(), "{:#?}", calls.violations());
        let outcomes = ground.outcomes(8, SOON)?;
        ensure!(outcomes["recovered"] == 8, "{outcomes}");
        Ok(())
    })
}

#[test]
fn calls_through_a_record_routing_proxy_are_recovered() {
    proxied().unwrap();
}

/// Both parties of two calls are SIPp: independent user agents, whose scenarios check the re-INVITE and hang up from
/// either side.
#[test]
fn independent_user_agents_are_re_invited_and_hang_up() {
    let _alone = alone();
    let run = |ground: &mut Ground<Kamailio>| {
        let (p1, p2) = (ground.lan.host("p1")?, ground.lan.host("p2")?);
        let mut parties = vec![sipp::called(p2, 2900, End::IsHungUp)?, sipp::called(p2, 2901, End::HangsUp)?];
        parties.push(sipp::caller(p1, 1900, 2900, End::HangsUp)?);
        parties.push(sipp::caller(p1, 1901, 2901, End::IsHungUp)?);
        ground.wait_stored(2)?;
        ground.cut_power()?;
        for party in &mut parties {
            let status = wait::until("SIPp to end", SOON, || party.ended().ok().flatten().ok_or_else(|| party.tail()))?;
            ensure!(status.success(), "{} ended with {status}: {}", party.log.display(), party.tail());
        }
        let outcomes = ground.outcomes(2, SOON)?;
        ensure!(outcomes["recovered"] == 2, "{outcomes}");
        Ok(())
    };
    Ground::new(|lan, host, _| Kamailio::proxy(lan, host)).and_then(|g| g.run("sipp", run)).unwrap();
}
