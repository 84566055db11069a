//! Random calls of every class, with phones that repeat in their answers what they said before.

use super::World;
use super::world::VIP;
use crate::calls::model::{Call, Leg, LegState};
use crate::recovery::rng::Rng;
use crate::sip::Transport;
use std::net::SocketAddr;

/// An address that belongs to nobody here.
pub(super) const FOREIGN: &str = "203.0.113.1";

pub(super) fn below(r: &mut Rng, n: usize) -> usize {
    usize::try_from(r.next()).unwrap() % n
}

/// Changes what the server told the phone, and what the phone said.
pub(super) fn edit(leg: &mut Leg, sent: impl Fn(String) -> String, received: impl Fn(String) -> String) {
    if let Some(d) = &mut leg.sdp_sent {
        d.body = sent(d.body.lossy()).as_str().into();
    }
    if let Some(d) = &mut leg.sdp_received {
        d.body = received(d.body.lossy()).as_str().into();
    }
}

/// The description with the audio at this address.
fn moved(text: &str, to: SocketAddr) -> String {
    let line = |l: &str| {
        if let Some(rest) = l.strip_prefix("m=audio ") {
            format!("m=audio {} {}\r\n", to.port(), rest.split_once(' ').unwrap().1)
        } else if l.starts_with("c=") {
            format!("c=IN IP4 {}\r\n", to.ip())
        } else {
            format!("{l}\r\n")
        }
    };
    text.lines().map(line).collect()
}

/// The description without its audio.
fn without_audio(text: &str) -> String {
    let at = text.find("m=audio ").unwrap() + "m=audio ".len();
    let end = at + text[at..].find(' ').unwrap();
    format!("{}0{}", &text[..at], &text[end..])
}

/// Tells the phone of `side` to send its audio straight to the other phone.
fn straight(call: &mut Call, side: usize) {
    let Some(other) = call.legs.get(1 - side).map(|leg| SocketAddr::new(leg.remote_addr.ip(), 4000)) else { return };
    edit(&mut call.legs[side], |s| moved(&s, other), |r| r);
}

/// One change that makes a call of another class.
fn change(call: &mut Call, r: &mut Rng) {
    let side = below(r, call.legs.len());
    let elsewhere = |s: String| s.replace(VIP, FOREIGN);
    let more = |s: String, port| s + &format!("m=video {port} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n");
    match below(r, 24) {
        0 => edit(&mut call.legs[side], elsewhere, |r| r),
        1 => call.legs.iter_mut().for_each(|leg| edit(leg, elsewhere, |r| r)),
        2 => edit(&mut call.legs[side], |s| s, |r| r.replace("c=IN IP4 10.1.0", "c=IN IP4 127.0.0")),
        3 => edit(&mut call.legs[side], |s| s, |r| r.replace("m=audio 4000", "m=audio 53")),
        4 => edit(&mut call.legs[side], |s| s, |r| r.replace("a=sendrecv", "a=sendonly")),
        5 => edit(&mut call.legs[side], |s| s, |r| r.replace("a=sendrecv", "a=inactive")),
        6 => {
            let own = format!("c=IN IP4 {}\r\n", call.legs[side].remote_addr.ip());
            edit(&mut call.legs[side], |s| s, |r| r.replace(&own, "c=IN IP4 0.0.0.0\r\n"));
        }
        7 => {
            // Behind a NAT: its audio comes from where its SIP does.
            let leg = &mut *call.legs[side];
            edit(leg, |s| s, |r| r.replace("c=IN IP4 10.1.0", "c=IN IP4 192.168.7"));
            leg.rtp_sources = vec![Some(SocketAddr::new(leg.remote_addr.ip(), 61_000))];
        }
        8 | 9 => straight(call, side),
        10 => (0..call.legs.len()).for_each(|side| straight(call, side)),
        11 => {
            call.legs.iter_mut().zip(0..).for_each(|(leg, i)| edit(leg, |s| more(s, 15_000 + 2 * i), |r| more(r, 7000)))
        }
        12 => call.legs[side].partial = true,
        13 => call.legs[side].transport = Transport::Tls,
        14 if call.legs.len() == 2 => {
            call.legs.remove(side);
            call.pairing = None;
        }
        15 => call.confidence = Some(65),
        16 => {
            let only = |s: String| s.replace("RTP/AVP 0 8 101", "RTP/AVP 8");
            edit(&mut call.legs[side], only, only);
            if let Some(other) = call.legs.get_mut(1 - side) {
                let only = |s: String| s.replace("RTP/AVP 0 8 101", "RTP/AVP 0");
                edit(other, only, only);
            }
        }
        17 => {
            let other = |s: String| s.replace("101", "96");
            edit(&mut call.legs[side], other, other);
        }
        18 if call.pairing != Some(crate::calls::model::Pairing::SameDialog) => call.legs[side].state = LegState::Ended,
        19 => edit(&mut call.legs[side], |s| s, |r| without_audio(&r)),
        20 => call.legs.iter_mut().for_each(|leg| edit(leg, |s| without_audio(&s), |r| without_audio(&r))),
        21 => call.legs[side].sdp_sent = None,
        22 => edit(&mut call.legs[side], |s| s.replace(&format!("c=IN IP4 {VIP}"), "c=IN IP4 0.0.0.0"), |r| r),
        _ => {}
    }
}

/// A random call of this world.
pub(super) fn call(w: &mut World, n: u16, r: &mut Rng) -> Call {
    let mut call = if below(r, 4) == 0 { w.proxied(n, below(r, 2) == 0) } else { w.b2bua(n) };
    call.emergency = below(r, 10) == 0;
    for _ in 0..below(r, 4) {
        change(&mut call, r);
    }
    for leg in &call.legs {
        let phone = w.phones.iter_mut().find(|p| p.addr == leg.remote_addr).unwrap();
        let text = |d: &Option<crate::calls::model::Sdp>| d.as_ref().map(|d| d.body.lossy());
        phone.sdp_seen = text(&leg.sdp_sent).unwrap_or_default();
        phone.sdp = text(&leg.sdp_received).unwrap_or_default();
        phone.steady_sdp = true;
    }
    call
}
