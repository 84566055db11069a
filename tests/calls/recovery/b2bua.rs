//! A B2BUA other than Asterisk, with every kind of phone.

use super::alone;
use anyhow::{Result, ensure};
use lab::b2bua::B2bua;
use lab::calls::{Calls, ended, has_audio, is_reinvited};
use lab::ground::Ground;
use lab::lan::{VIP4, VIP6};
use lab::phone::{Command, Manner, Phase, Phone, Reaction};
use lab::{unix_us, wait};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn ground(vip: IpAddr) -> Result<Ground<B2bua>> {
    Ground::new(move |lan, host, rt| B2bua::start(lan, host, rt, vip))
}

fn calls(ground: &Ground<B2bua>, vip: IpAddr, n: usize) -> Result<Calls> {
    let _in_runtime = ground.rt.enter();
    let (p1, p2) = (ground.lan.host("p1")?, ground.lan.host("p2")?);
    let server = SocketAddr::new(vip, 5060);
    let pair = |i: usize| {
        let manner = Manner { answer_to_source: i / 2 % 2 == 1, ornate: i / 4 % 2 == 1, ..Manner::default() };
        let (host, side) = if i.is_multiple_of(2) { (p2, 1) } else { (p1, 2) };
        Ok((Phone::new(p1, 0, i, server, manner)?, Phone::new(host, side, i, server, manner)?))
    };
    Ok(Calls::of((0..n).map(pair).collect::<Result<_>>()?))
}

/// Tells a phone to send a re-INVITE; waits for its 200, and for the other phone to see the direction.
fn reinvite(one: &Phone, other: &Phone, command: Command, seen: &str) -> Result<()> {
    let before = one.state().own_reinvites.len();
    one.tell(command)?;
    wait::until("the answer to a phone's re-INVITE", SOON, || {
        let code = one.state().own_reinvites.get(before).map(|r| r.0);
        let direction = other.state().remote_direction.clone();
        if code == Some(200) && direction == seen {
            Ok(())
        } else {
            Err(format!("{} had {code:?}, {} was told {direction}", one.number, other.number))
        }
    })
}

/// Waits until `good` holds for each of these calls.
fn each<'p>(
    what: &str,
    pairs: impl IntoIterator<Item = &'p (Phone, Phone)>,
    good: impl Fn(&(Phone, Phone)) -> bool,
) -> Result<()> {
    for pair in pairs {
        wait::until(what, SOON, || {
            if good(pair) { Ok(()) } else { Err(format!("{}; {}", pair.0.summary(), pair.1.summary())) }
        })?;
    }
    Ok(())
}

/// Every kind of recoverable call, over one address family.
fn recovered(name: &str, vip: IpAddr) -> Result<()> {
    let _alone = alone();
    ground(vip)?.run(name, |ground| {
        let calls = calls(ground, vip, 10)?;
        calls.set_up(SOON)?;
        // The server's CSeq and o= versions rise before it fails, and two calls are on hold at that moment.
        ground.servers[ground.master].stir();
        wait::until("the server's re-INVITEs", SOON, || {
            let n = calls.phones().filter(|p| p.state().reinvites.iter().any(|r| r.acked_at.is_some())).count();
            if n == 20 { Ok(()) } else { Err(format!("{n} phones were re-INVITEd")) }
        })?;
        let pairs = &calls.pairs;
        reinvite(&pairs[0].0, &pairs[0].1, Command::Hold, "sendonly")?;
        reinvite(&pairs[1].1, &pairs[1].0, Command::Hold, "sendonly")?;
        reinvite(&pairs[2].0, &pairs[2].1, Command::Hold, "sendonly")?;
        reinvite(&pairs[2].0, &pairs[2].1, Command::Resume, "sendrecv")?;
        pairs[3].0.tell(Command::Behave(Manner { reinvite: Reaction::Glare(1), ..Manner::default() }))?;
        pairs[4].1.tell(Command::Behave(Manner { reinvite: Reaction::Glare(2), ornate: true, ..Manner::default() }))?;
        ground.wait_stored(10)?;

        let at = ground.cut_power()?;
        let taken = unix_us();
        ground.wait_reinvited(&calls, at, SOON)?;
        // Held calls stay on hold, by the holder's description.
        ensure!(
            pairs[0].1.state().remote_direction == "sendonly" && pairs[1].0.state().remote_direction == "sendonly",
            "held"
        );
        each("audio of a call that is not held", &pairs[2..], |c| has_audio(c, taken))?;
        let resumed = unix_us();
        reinvite(&pairs[0].0, &pairs[0].1, Command::Resume, "sendrecv")?;
        reinvite(&pairs[1].1, &pairs[1].0, Command::Resume, "sendrecv")?;
        reinvite(&pairs[5].1, &pairs[5].0, Command::Hold, "sendonly")?;
        reinvite(&pairs[5].1, &pairs[5].0, Command::Resume, "sendrecv")?;
        reinvite(&pairs[6].0, &pairs[6].1, Command::Refresh, "sendrecv")?;
        pairs[6].1.tell(Command::Update)?;
        let n = calls.wait_for(SOON, |c| has_audio(c, resumed));
        ensure!(n == 10, "{n} calls have audio after the resume");
        wait::until("the answer to UPDATE", SOON, || {
            let got = pairs[6].1.state().own_updates.clone();
            if got.first().is_some_and(|u| u.0 == 200) { Ok(()) } else { Err(format!("{got:?}")) }
        })?;
        let n = calls.hang_up(SOON)?;
        ensure!(n == 10, "{n} calls hung up as they should");
        ensure!(calls.violations().is_empty(), "{:#?}", calls.violations());
        let outcomes = ground.outcomes(10, SOON)?;
        ensure!(outcomes["recovered"] == 10, "{outcomes}");
        Ok(())
    })
}

#[test]
fn calls_through_another_b2bua_are_recovered_over_ipv4() {
    recovered("b2bua4", VIP4.into()).unwrap();
}

#[test]
fn calls_through_another_b2bua_are_recovered_over_ipv6() {
    recovered("b2bua6", VIP6.into()).unwrap();
}

/// A recovered call can be recovered again: the agent stores its own changes of a call like the server's.
#[test]
fn calls_survive_a_second_failure() {
    let _alone = alone();
    let vip = VIP4.into();
    let run = |ground: &mut Ground<B2bua>| {
        let calls = calls(ground, vip, 4)?;
        calls.set_up(SOON)?;
        ground.wait_stored(4)?;
        let at = ground.cut_power()?;
        ground.wait_reinvited(&calls, at, SOON)?;
        let pairs = &calls.pairs;
        // CSeq, o= versions and targets of both dialogs change under the agent.
        reinvite(&pairs[0].0, &pairs[0].1, Command::Hold, "sendonly")?;
        reinvite(&pairs[0].0, &pairs[0].1, Command::Resume, "sendrecv")?;
        reinvite(&pairs[1].1, &pairs[1].0, Command::Hold, "sendonly")?;
        pairs[3].1.tell(Command::Hangup)?;
        each("a carried call to end", &pairs[3..], ended)?;
        ground.heal()?;
        ground.wait_stored(3)?;
        let again = ground.cut_power()?;
        let taken = unix_us();
        each("the second re-INVITEs", &pairs[..3], |c| is_reinvited(c, again))?;
        each("audio of a call that is not held", [&pairs[0], &pairs[2]], |c| has_audio(c, taken))?;
        let resumed = unix_us();
        reinvite(&pairs[1].1, &pairs[1].0, Command::Resume, "sendrecv")?;
        each("audio of the resumed call", [&pairs[1]], |c| has_audio(c, resumed))?;
        let n = calls.hang_up(SOON)?;
        ensure!(n == 4, "{n} calls hung up as they should");
        ensure!(calls.violations().is_empty(), "{:#?}", calls.violations());
        Ok(())
    };
    ground(vip).and_then(|g| g.run("second", run)).unwrap();
}

/// Phones that refuse, have lost the call, or are gone: each call ends or continues as it should, and the others stay
/// untouched.
#[test]
fn phones_that_do_not_agree_get_what_they_deserve() {
    let _alone = alone();
    let vip = VIP4.into();
    let run = |ground: &mut Ground<B2bua>| {
        let calls = calls(ground, vip, 10)?;
        calls.set_up(SOON)?;
        ground.wait_stored(10)?;
        let pairs = &calls.pairs;
        for i in [6, 7] {
            pairs[i].0.tell(Command::Behave(Manner { outbound_proxy: true, ornate: true, ..Manner::default() }))?;
        }
        for (phone, reinvite) in [
            (&pairs[0].0, Reaction::Refuse(481)),
            (&pairs[1].1, Reaction::Refuse(488)),
            (&pairs[2].0, Reaction::Deaf),
            (&pairs[3].1, Reaction::Refuse(407)),
            (&pairs[9].0, Reaction::Gone),
        ] {
            phone.tell(Command::Behave(Manner { reinvite, ..Manner::default() }))?;
        }
        // A hold during the silence: the new server answers it before a strict phone can learn of the agent.
        let at = ground.cut_power_and(|| pairs[8].1.tell(Command::Hold))?;
        let taken = unix_us();
        each("the good calls to be recovered", &pairs[4..8], |c| is_reinvited(c, at))?;
        // These two phones send everything to the server. The agent overhears a BYE; it asks a phone that gave up on a
        // 481.
        pairs[6].0.tell(Command::Hangup)?;
        pairs[7].0.tell(Command::Hold)?;
        each("the other party of a phone with an outbound proxy to get BYE", &pairs[6..8], |(_, b)| {
            b.state().bye_received.is_some()
        })?;
        ensure!(pairs[7].0.state().phase == Phase::Failed(481), "{}", pairs[7].0.summary());
        each("the call with a hold in the silence to end", &pairs[8..9], |(a, _)| a.state().phase == Phase::Ended)?;
        ensure!(pairs[8].1.state().phase == Phase::Failed(481), "{}", pairs[8].1.summary());
        // 481 twice, and no audio any more: the other party is told.
        wait::until("the other party's BYE", SOON, || {
            if pairs[0].1.state().phase == Phase::Ended {
                Ok(())
            } else {
                Err(format!("{:?}", pairs[0].1.state().phase))
            }
        })?;
        // Refused: the audio continues, and either side can hang up.
        each("audio of a refused call", [&pairs[1], &pairs[3], &pairs[4], &pairs[5]], |c| has_audio(c, taken))?;
        pairs[1].0.tell(Command::Hangup)?;
        pairs[3].1.tell(Command::Hangup)?;
        // One phone still has the server's Contact, and gets 481 there; the other party hears of the BYE all the same.
        each("a refused call to end", [&pairs[1], &pairs[3]], |(a, b)| {
            a.state().phase == Phase::Ended && b.state().phase == Phase::Ended
        })?;
        // Two time-outs of 32 s, and no audio: the other party of the vanished phone is told.
        wait::until("the other party of a vanished phone to get BYE", Duration::from_secs(150), || {
            if pairs[9].1.state().phase == Phase::Ended {
                Ok(())
            } else {
                Err(format!("{:?}", pairs[9].1.state().phase))
            }
        })?;
        let outcomes = ground.outcomes(10, SOON)?;
        ensure!(
            outcomes["recovered"] == 4
                && outcomes["gone"] == 3
                && outcomes["refused"] == 2
                && outcomes["unreachable"] == 1,
            "{outcomes}"
        );
        // A phone that hears no SIP and still speaks is heard until somebody hangs up.
        let (deaf, hearer) = &pairs[2];
        let since = unix_us();
        each("the voice of a phone that hears no SIP", [&pairs[2]], |(_, b)| {
            b.state().right.iter().any(|&at| at >= since)
        })?;
        ensure!(deaf.state().phase == Phase::Up && hearer.state().phase == Phase::Up, "{}", hearer.summary());
        hearer.tell(Command::Hangup)?;
        each("the call with a phone that hears no SIP to end", [&pairs[2]], |(_, b)| b.state().phase == Phase::Ended)?;
        for pair in &pairs[4..6] {
            ensure!(pair.0.state().phase == Phase::Up && pair.1.state().phase == Phase::Up, "a good call was touched");
            pair.1.tell(Command::Hangup)?;
        }
        each("a good call to end", &pairs[4..6], ended)?;
        ensure!(calls.violations().is_empty(), "{:#?}", calls.violations());
        Ok(())
    };
    ground(vip).and_then(|g| g.run("refusals", run)).unwrap();
}
