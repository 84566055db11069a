//! The second rule: an outcome says what the ears hear. The oracle plays the packets: it knows where each phone sends
//! its audio, which paths the relay has, and where each phone listens.

use super::world::{VIP, World, settings};
use crate::calls::model::{Call, Leg};
use crate::recovery::engine::{Engine, Outcome};
use crate::recovery::rng::Rng;
use crate::recovery::types::Fault;
use crate::sip::sdp::{Direction, Sdp};
use std::net::SocketAddr;

/// One party, as it is: not as the agent believes.
struct Party {
    /// Where it sends its audio to.
    told: SocketAddr,
    /// Where its audio comes from, and where it hears.
    at: SocketAddr,
    sends: bool,
    listens: bool,
}

fn edit(leg: &mut Leg, sent: impl Fn(String) -> String, received: impl Fn(String) -> String) {
    let d = leg.sdp_sent.as_mut().unwrap();
    d.body = sent(d.body.lossy()).as_str().into();
    let d = leg.sdp_received.as_mut().unwrap();
    d.body = received(d.body.lossy()).as_str().into();
}

fn party(leg: &Leg, nat: Option<SocketAddr>) -> Party {
    let first = |text: &str| {
        let sdp = Sdp::parse(text.as_bytes()).unwrap();
        let m = &sdp.media()[0];
        (SocketAddr::new(m.connection.unwrap(), m.port), m.direction)
    };
    let (told, _) = first(&leg.sdp_sent.as_ref().unwrap().body.lossy());
    let (at, way) = first(&leg.sdp_received.as_ref().unwrap().body.lossy());
    let hidden = at.ip().is_unspecified();
    // A hold in the old style hides the address and says nothing.
    let sends = matches!(way, Direction::SendRecv | Direction::SendOnly) && !hidden;
    let listens = matches!(way, Direction::SendRecv | Direction::RecvOnly) && !hidden;
    Party { told, at: nat.unwrap_or(at), sends, listens }
}

/// Whether every word that one party says and the other wants to hear arrives. `None`: it goes where nobody here knows.
fn arrives(w: &World, from: &Party, to: &Party) -> Option<bool> {
    if !from.sends || !to.listens || from.told == to.at {
        return Some(true);
    }
    if from.told.ip().to_string() != VIP {
        return None;
    }
    let flows = &w.flows.get("call-00000").cloned().unwrap_or_default();
    Some(flows.iter().any(|f| f.from == from.at && f.at == from.told && f.to == to.at))
}

/// A random call, and what its outcome says that is not true.
fn history(seed: u64, fault: Option<Fault>) -> Result<Outcome, String> {
    let mut w = World::new(seed, 5);
    let mut s = settings(5);
    s.fault = fault;
    w.engine = Engine::new(s, seed);
    let mut r = Rng::new(seed ^ 0x77);
    let mut below = |n: usize| usize::try_from(r.next()).unwrap() % n;
    let mut call: Call = w.b2bua(0);
    let mut nat = [None, None];
    for _ in 0..1 + below(2) {
        let side = below(2);
        let other = call.legs[1 - side].sdp_received.as_ref().unwrap().body.lossy();
        let leg = &mut *call.legs[side];
        match below(10) {
            0 => edit(leg, |s| s.replace(VIP, "203.0.113.1"), |r| r),
            1 => edit(leg, |s| s, |r| r.replace("c=IN IP4 10.1.0", "c=IN IP4 127.0.0")),
            2 => edit(leg, |s| s, |r| r.replace("m=audio 4000", "m=audio 53")),
            3 => edit(leg, |s| s, |r| r.replace("a=sendrecv", "a=sendonly")),
            4 => edit(leg, |s| s, |r| r.replace("a=sendrecv", "a=inactive")),
            5 => edit(leg, |s| s, |r| r.replace("c=IN IP4 10.1.0.1", "c=IN IP4 0.0.0.0")),
            6 => {
                // Behind a NAT: seen where its SIP comes from.
                let seen = SocketAddr::new(leg.remote_addr.ip(), 61_000);
                edit(leg, |s| s, |r| r.replace("c=IN IP4 10.1.0", "c=IN IP4 192.168.7"));
                leg.rtp_sources = vec![Some(seen)];
                nat[side] = Some(seen);
            }
            7 => {
                // Told the other phone itself.
                let c = other.lines().find(|l| l.starts_with("c=")).unwrap().to_owned();
                edit(leg, |s| s.replace(&format!("c=IN IP4 {VIP}"), &c).replace("m=audio 1000", "m=audio 400"), |r| r);
            }
            8 => {
                let more = |s: String, port| s + &format!("m=video {port} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n");
                edit(leg, |s| more(s, 15_000), |r| more(r, 7000));
                let leg = &mut *call.legs[1 - side];
                edit(leg, |s| more(s, 15_002), |r| more(r, 7002));
            }
            _ => {}
        }
    }
    for (phone, leg) in w.phones.iter_mut().zip(&call.legs) {
        phone.sdp_seen = leg.sdp_sent.as_ref().unwrap().body.lossy();
        phone.sdp = leg.sdp_received.as_ref().unwrap().body.lossy();
        // Their answers repeat what they said.
        phone.steady_sdp = true;
    }
    w.start(vec![call]);
    w.secs(5);
    let stored = &w.stored["call-00000"];
    let parties = [party(&stored.legs[0], nat[0]), party(&stored.legs[1], nat[1])];
    let outcome = w.outcomes["call-00000"].clone();
    let heard = [arrives(&w, &parties[0], &parties[1]), arrives(&w, &parties[1], &parties[0])];
    if outcome == Outcome::Recovered && heard.contains(&Some(false)) {
        return Err(format!("seed {seed}: {heard:?} {:?} {:?}", stored.legs[0].sdp_received, w.flows));
    }
    Ok(outcome)
}

#[test]
fn recovered_means_that_the_parties_hear_each_other() {
    let outcomes: Vec<Outcome> = (0..600).map(|seed| history(seed, None).unwrap()).collect();
    let recovered = outcomes.iter().filter(|o| **o == Outcome::Recovered).count();
    assert!((100..500).contains(&recovered), "both kinds are tried: {recovered}");
}

#[test]
fn an_engine_that_calls_silence_recovered_is_noticed() {
    assert!((0..600).any(|seed| history(seed, Some(Fault::DeafRecovered)).is_err()));
}
