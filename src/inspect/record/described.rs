//! A leg's media, from its descriptions and from the tracker.

use super::super::report::{Crypto, Description, End, Hold, Leg, LegDirection, Media, Timer};
use super::super::rtp::MAX_LINES;
use super::{Learnt, Record, text};
use crate::calls::model::{self, Direction};
use crate::sip::sdp;

impl Record {
    /// Last descriptions of both sides, for a leg without an agreement.
    pub(super) fn described(&self) -> Vec<Media> {
        let [local, remote] = self.said.each_ref().map(|said| {
            let parsed = said.as_deref().and_then(|b| sdp::Sdp::parse(b).ok());
            parsed.map(|p| lines(&p)).unwrap_or_default()
        });
        let n = local.len().max(remote.len());
        (0..n)
            .map(|i| {
                let (l, r) = (local.get(i), remote.get(i));
                let (kind, proto, t38) = l.or(r).map(|(_, k, p, t)| (k.clone(), p.clone(), *t)).unwrap_or_default();
                media_of(
                    kind,
                    proto,
                    t38,
                    false,
                    l.map(|l| l.0.clone()),
                    r.map(|r| r.0.clone()),
                    self.side == LegDirection::Inbound,
                )
            })
            .collect()
    }
}

fn media_of(
    kind: String,
    proto: String,
    t38: bool,
    agreed: bool,
    local: Option<Description>,
    remote: Option<Description>,
    local_answers: bool,
) -> Media {
    let codecs = match (&local, &remote) {
        (Some(l), Some(r)) => {
            let (answer, offer) = if local_answers { (l, r) } else { (r, l) };
            let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
            answer.codecs.iter().filter(|c| offer.codecs.iter().any(|o| same(c, o))).cloned().collect()
        }
        _ => Vec::new(),
    };
    Media { kind, proto, agreed, local, remote, codecs, t38, received: None, sent: None }
}

/// Each m-line with its kind, its protocol, and whether it is T.38.
fn lines(parsed: &sdp::Sdp<'_>) -> Vec<(Description, String, String, bool)> {
    let all = parsed.media().iter().take(MAX_LINES);
    all.map(|m| {
        let t38 = m.is_t38();
        let keyed = m.keys.iter().any(|k| k.starts_with(b"inline:"));
        let crypto = if keyed {
            Crypto::Sdes
        } else if m.crypto || m.proto.windows(3).any(|w| w.eq_ignore_ascii_case(b"TLS")) {
            Crypto::Dtls
        } else {
            Crypto::None
        };
        let rtp = m.proto.windows(3).any(|w| w.eq_ignore_ascii_case(b"RTP"));
        let description = Description {
            address: m.connection,
            port: m.port,
            rtcp_port: m.rtcp_port().filter(|_| m.port != 0 && rtp),
            direction: format!("{:?}", m.direction).to_lowercase(),
            codecs: m.formats.iter().map(|f| text(m.encoding(f).unwrap_or(f))).collect(),
            crypto,
            rtcp_mux: m.rtcp_mux,
            types: m.formats.iter().filter_map(|f| Some((text(f).parse().ok()?, text(m.encoding(f)?)))).collect(),
            ice: m.ice().is_some() || m.candidates().next().is_some(),
        };
        (description, text(m.kind), text(m.proto), t38)
    })
    .collect()
}

impl Learnt {
    /// Converts a leg of the tracker.
    pub(in crate::inspect) fn new(leg: &model::Leg) -> Self {
        let lossy = model::Verbatim::lossy;
        let parse = |d: &Option<model::Sdp>| match d {
            Some(d) => sdp::Sdp::parse(&d.body.0).map(|p| lines(&p)).unwrap_or_default(),
            None => Vec::new(),
        };
        let (local, remote) = (parse(&leg.sdp_sent), parse(&leg.sdp_received));
        let agreed = leg.sdp_sent.is_some() && leg.sdp_received.is_some();
        let inbound = leg.direction == Direction::Inbound;
        let media: Vec<Media> = (0..local.len().max(remote.len()))
            .map(|i| {
                let (l, r) = (local.get(i), remote.get(i));
                let (kind, proto, t38) = l.or(r).map(|(_, k, p, t)| (k.clone(), p.clone(), *t)).unwrap_or_default();
                media_of(kind, proto, t38, agreed, l.map(|l| l.0.clone()), r.map(|r| r.0.clone()), inbound)
            })
            .collect();
        let timer = leg.session_timer.map(|t| Timer {
            interval_s: t.interval_s,
            refresher: if t.local_refreshes { End::Local } else { End::Remote },
        });
        let is_audio = |m: &&Media| m.kind.eq_ignore_ascii_case("audio");
        let is_refused = |m: &Media| [&m.local, &m.remote].into_iter().flatten().any(|d| d.port == 0);
        let used = media.iter().find(|m| is_audio(m) && !is_refused(m));
        let hold = hold(used.or_else(|| media.iter().find(is_audio)));
        let direction = if inbound { LegDirection::Inbound } else { LegDirection::Outbound };
        Self {
            partial: leg.partial,
            leg: Leg {
                call_id: lossy(&leg.call_id),
                partial: leg.partial,
                local: lossy(&leg.local),
                remote: lossy(&leg.remote),
                local_tag: lossy(&leg.local_tag),
                remote_tag: lossy(&leg.remote_tag),
                local_cseq: leg.local_cseq,
                remote_cseq: leg.remote_cseq,
                route_set: leg.route_set.iter().map(lossy).collect(),
                remote_target: lossy(&leg.remote_target),
                local_target: lossy(&leg.local_target),
                session_timer: timer,
                hold,
                allow: lossy(&leg.allow),
                supported: lossy(&leg.supported),
                media,
                ..Leg::blank(direction, leg.transport, leg.local_addr, leg.remote_addr)
            },
        }
    }
}

/// The side that holds the audio: it wants to receive nothing, or wants no media in either direction.
fn hold(audio: Option<&Media>) -> Hold {
    let holds = |d: &Option<Description>| {
        d.as_ref().is_some_and(|d| {
            d.port != 0
                && (matches!(d.direction.as_str(), "sendonly" | "inactive")
                    || d.address.is_some_and(|ip| ip.is_unspecified()))
        })
    };
    let Some(audio) = audio else { return Hold::None };
    match (holds(&audio.local), holds(&audio.remote)) {
        (true, true) => Hold::Both,
        (true, false) => Hold::Local,
        (false, true) => Hold::Remote,
        (false, false) => Hold::None,
    }
}
