//! The fourth rule: what is said of a call before a takeover is what becomes of it. Three voices are compared: the
//! outlook before, the engine's outcome after, and an oracle that knows only who was told what, and which paths the
//! relay has.

use super::World;
use super::random_calls::{FOREIGN, below, call};
use super::world::{VIP, settings};
use crate::calls::model::{Call, Flow, Leg, Pairing};
use crate::config::Mode;
use crate::recovery::engine::{CallState, Engine, Outcome};
use crate::recovery::heard::Hearing;
use crate::recovery::outlook::Outlook;
use crate::recovery::rng::Rng;
use crate::recovery::tally::Tally;
use crate::recovery::types::Fault;
use crate::sip::sdp::Sdp;
use std::net::{IpAddr, SocketAddr};

/// A stream that is on: where the phone was told to send, and where it says that it is.
#[derive(Debug)]
struct Line {
    audio: bool,
    told: SocketAddr,
    says: SocketAddr,
}

/// One party, as it is: not as the agent believes.
#[derive(Debug)]
struct Party {
    lines: Vec<Line>,
    /// Addresses at which it can be reached.
    hosts: Vec<IpAddr>,
    nat: Option<SocketAddr>,
}

/// `None` if nobody knows what the party was told, or what it said.
fn party(leg: &Leg) -> Option<Party> {
    let (sent, received) = (leg.sdp_sent.as_ref()?.body.lossy(), leg.sdp_received.as_ref()?.body.lossy());
    let (sent, received) = (Sdp::parse(sent.as_bytes()).unwrap(), Sdp::parse(received.as_bytes()).unwrap());
    let lines: Vec<Line> = sent
        .media()
        .iter()
        .zip(received.media())
        .filter(|(s, r)| s.port != 0 && r.port != 0)
        .map(|(s, r)| Line {
            audio: s.kind == b"audio",
            told: SocketAddr::new(s.connection.unwrap(), s.port),
            says: SocketAddr::new(r.connection.unwrap(), r.port),
        })
        .collect();
    let nat = leg.rtp_sources.first().copied().flatten();
    let hosts = [leg.remote_addr.ip()].into_iter().chain(lines.iter().map(|l| l.says.ip())).collect();
    Some(Party { lines, hosts, nat })
}

impl Party {
    fn at(&self, line: &Line) -> SocketAddr {
        self.nat.filter(|_| line.audio).unwrap_or(line.says)
    }
}

/// What somebody who sees the packets would say.
struct Oracle<'a> {
    flows: &'a [Flow],
    /// Hosts that belong to nobody here live on.
    alive: bool,
    /// The media server at the virtual address lives on.
    restored: bool,
    carried: bool,
}

impl Oracle<'_> {
    fn arrives(&self, from: &Party, to: Option<&Party>) -> bool {
        from.lines.iter().any(|line| {
            let told = line.told.ip();
            if told.to_string() == VIP || told.is_unspecified() {
                let reaches = |f: &&Flow| to.is_some_and(|to| to.lines.iter().any(|l| to.at(l) == f.to));
                let paths = self.flows.iter().filter(|f| f.from == from.at(line) && f.at.port() == line.told.port());
                return self.restored || paths.clone().any(|f| reaches(&f));
            }
            if to.is_some_and(|to| to.hosts.contains(&told)) {
                return true;
            }
            assert!(
                told.to_string() == FOREIGN
                    || to.is_none_or(|to| to.lines.is_empty())
                    || told.to_string().starts_with("10.1.")
            );
            self.alive
        })
    }

    fn heard(&self, call: &Call) -> bool {
        let parties: Option<Vec<Party>> = call.legs.iter().map(|leg| party(leg)).collect();
        let Some(mut parties) = parties else { return false };
        let audio = parties.iter().flat_map(|p| &p.lines).any(|l| l.audio);
        parties.iter_mut().for_each(|p| p.lines.retain(|l| l.audio || !audio));
        let [a, b] = parties.as_slice() else { return self.arrives(&parties[0], None) };
        if a.lines.is_empty() && b.lines.is_empty() {
            return self.carried;
        }
        let hidden = |p: &Party| p.lines.iter().any(|l| l.says.ip().is_unspecified());
        let at_server = |p: &Party| {
            !p.lines.is_empty()
                && p.lines.iter().all(|l| l.told.ip().to_string() == VIP || l.told.ip().is_unspecified())
        };
        if (hidden(a) || hidden(b)) && at_server(a) && at_server(b) && self.flows.is_empty() && !self.restored {
            // A hold that hides the address: the party names it when it resumes, to somebody or to nobody.
            return self.carried;
        }
        self.arrives(a, Some(b)) && self.arrives(b, Some(a))
    }
}

fn word(heard: bool, carried: bool) -> &'static str {
    match (heard, carried) {
        (true, true) => "kept",
        (true, false) => "audio",
        (false, _) => "lost",
    }
}

/// What the outcome says.
fn told(outcome: &Outcome, hearing: Option<&Hearing>) -> &'static str {
    let Some(hearing) = hearing else { return "over" };
    let carried = matches!(outcome, Outcome::Recovered | Outcome::Proxied);
    word(hearing.why_not().is_none(), carried)
}

/// A few random calls and a takeover. The words of each call, or what was said that is not true.
fn history(seed: u64, fault: Option<Fault>) -> Result<Vec<&'static str>, String> {
    let mut r = Rng::new(seed ^ 0xabcd);
    let mut w = World::new(seed, 5);
    let mut s = settings(5);
    s.ground.external = below(&mut r, 6) == 0;
    s.fault = fault;
    let ground = s.ground.clone();
    w.engine = Engine::new(s, seed);
    let mode = Mode::ALL[[0, 1, 2, 2, 2, 2][below(&mut r, 6)]];
    w.engine.set_mode(mode, w.now);
    let calls: Vec<Call> = (0..u16::try_from(1 + below(&mut r, 4)).unwrap()).map(|n| call(&mut w, n, &mut r)).collect();
    let before: Vec<Outlook> = calls.iter().map(|call| Outlook::of(call, &ground, mode)).collect();
    let tally = Tally::of(calls.iter(), &ground, mode);
    w.start(calls.clone());
    w.secs(5);
    let mut words = Vec::new();
    for (call, before) in calls.iter().zip(before) {
        let id = &call.id;
        let (outcome, hearing) = (&w.outcomes[id], w.hearings[id].as_ref());
        let engine = told(outcome, hearing);
        let said = before.word();
        if said == "over" {
            // Without any right to act, the agent leaves it.
            if *outcome != Outcome::HungUp && mode != Mode::Observe {
                return Err(format!("seed {seed} {id}: over, and {outcome:?}"));
            }
            words.push("over");
            continue;
        }
        let state = w.engine.status().into_iter().find(|s| s.call == *id).map(|s| s.state);
        let carried = w.handed_on.contains(id) || state == Some(CallState::Carried);
        let (proxied, external) = (call.pairing == Some(Pairing::SameDialog), ground.external);
        let flows = w.flows.get(id).cloned().unwrap_or_default();
        let oracle = Oracle { flows: &flows, alive: proxied || external, restored: proxied && external, carried };
        let heard = oracle.heard(&w.stored[id]);
        let seen = word(heard, carried);
        let expected = if said == "doubtful" { "lost" } else { said };
        if seen != expected || engine != expected {
            return Err(format!(
                "seed {seed} {id} in mode {mode}: {before:?} before, then {outcome:?} {hearing:?}, and in truth {seen}\n{:?}\n{flows:?}",
                call.legs
            ));
        }
        // Of a carried call that is not heard, the outcome has the reason that was given before.
        if let (Outcome::Refused { reason, .. }, true) = (outcome, carried)
            && Some(reason) != before.clone().why().as_ref()
        {
            return Err(format!("seed {seed} {id}: {reason}, and before: {before:?}"));
        }
        words.push(seen);
    }
    let count = |word| words.iter().filter(|w| **w == word).count();
    let counts = [tally.kept, tally.audio, tally.lost, tally.total];
    let seen = [count("kept"), count("audio"), count("lost"), words.len() - count("over")];
    if counts != seen {
        return Err(format!("seed {seed}: {tally:?} before, and then {words:?}"));
    }
    Ok(words)
}

#[test]
fn what_is_said_before_is_what_comes() {
    let words: Vec<&str> = (0..1500).flat_map(|seed| history(seed, None).unwrap()).collect();
    for word in ["kept", "audio", "lost", "over"] {
        let n = words.iter().filter(|w| **w == word).count();
        assert!(n * 50 > words.len(), "each kind is tried: {word} {n} of {}", words.len());
    }
}

#[test]
fn an_outcome_that_differs_from_the_forecast_is_noticed() {
    for fault in [Fault::DeafRecovered, Fault::ForeignHeard] {
        assert!((0..1500).any(|seed| history(seed, Some(fault)).is_err()), "{fault:?}");
    }
}

#[test]
fn a_b2bua_with_all_its_audio_elsewhere_is_lost_before_and_after() {
    let mut w = World::new(1, 5);
    let mut call = w.b2bua(0);
    for (leg, phone) in call.legs.iter_mut().zip(&mut w.phones) {
        super::random_calls::edit(leg, |s| s.replace(VIP, FOREIGN), |r| r);
        phone.sdp_seen = leg.sdp_sent.as_ref().unwrap().body.lossy();
    }
    let before = Outlook::of(&call, &settings(5).ground, Mode::Full);
    w.start(vec![call]);
    w.secs(2);
    let why = before.clone().why().unwrap();
    assert!(before.word() == "lost" && why.contains(FOREIGN), "{why}");
    assert_eq!(w.outcomes["call-00000"], Outcome::Refused { code: None, reason: why });
    assert_eq!(w.engine.status()[0].state, CallState::Carried, "and its dialogs are kept");
}
