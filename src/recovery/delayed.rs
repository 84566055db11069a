//! A phone that asks for an offer: an INVITE without a description (RFC 3261 section 14.2). Servers and some phones
//! resume a held call that way.
//!
//! The agent makes the offer itself and at once, and passes the phone's answer on to the other phone as a re-INVITE. To
//! ask the other phone for the offer instead (RFC 3725 section 4, flow I) would hold open one dialog for the other: a
//! phone that is held often answers an INVITE without SDP with the hold that is to end, and a slow one makes the first
//! phone wait. What the other phone can do is stored, so nobody needs to be asked.

use super::call::{CarriedCall, Phase};
use super::context::Context;
use super::reinvite::Verdict;
use super::transaction::{Key, LateOffer};
use super::uac::{is_sdp, receive};
use crate::calls::model::{Leg, Sdp as Description};
use crate::sip::message::Message;
use crate::sip::sdp::{Direction, Media, Place, Sdp, continue_origin, end_hold};
use std::net::IpAddr;

fn parsed(d: Option<&Description>) -> Option<Sdp<'_>> {
    Sdp::parse(&d?.body.0).ok()
}

/// Whether the phone itself holds a stream. A phone that was told `inactive` can only repeat it.
fn holds(received: &Media<'_>, told: &Media<'_>) -> bool {
    match received.direction {
        Direction::SendOnly => true,
        Direction::Inactive => told.direction != Direction::Inactive,
        _ => received.connection.is_some_and(|ip| ip.is_unspecified()),
    }
}

/// The description last sent to `leg`, without the hold that its phone may want to end now. The hold of the other phone
/// stays. `partner` is the other leg's line that belongs to a line of this leg. `None` if nothing is on hold.
fn resumed(
    leg: &Leg,
    other: &Leg,
    anchors: Option<&[Option<Place>]>,
    partner: impl Fn(usize) -> Option<usize>,
) -> Option<Vec<u8>> {
    let sent = parsed(leg.sdp_sent.as_ref())?;
    let (received, told) = (parsed(other.sdp_received.as_ref())?, parsed(other.sdp_sent.as_ref())?);
    let awake = |(i, m): (usize, &Media<'_>)| {
        let zero = m.connection.is_some_and(|ip| ip.is_unspecified());
        let off = m.port != 0 && (m.direction != Direction::SendRecv || zero);
        let theirs = partner(i)?;
        if !off || holds(received.media().get(theirs)?, told.media().get(theirs)?) {
            return None;
        }
        let anchor = anchors.and_then(|all| all.get(i).copied().flatten()).map(|place| place.0.ip());
        anchor.or_else(|| m.connection.filter(|ip| !ip.is_unspecified()))
    };
    let awake: Vec<Option<IpAddr>> = sent.media().iter().enumerate().map(awake).collect();
    if awake.iter().all(Option::is_none) {
        return None;
    }
    end_hold(&leg.sdp_sent.as_ref()?.body.0, &awake).and_then(|body| continue_origin(&body)).ok()
}

/// Whether two descriptions of a stream say the same. The version of the session is no part of that.
fn is_same(a: &Media<'_>, b: &Media<'_>) -> bool {
    (a.kind, a.port, a.proto, a.host, a.rtcp, a.direction) == (b.kind, b.port, b.proto, b.host, b.rtcp, b.direction)
        && (&a.formats, &a.keys, &a.rtpmap) == (&b.formats, &b.keys, &b.rtpmap)
}

/// Whether each stream goes the ways in `told` that `said` asks for, and is on and off as there. `partner` is the line of
/// `said` that belongs to a line of `told`.
fn agree(told: Option<&Description>, said: Option<&Description>, partner: impl Fn(usize) -> Option<usize>) -> bool {
    let (Some(told), Some(said)) = (parsed(told), parsed(said)) else { return true };
    told.media()
        .iter()
        .enumerate()
        .filter_map(|(i, t)| Some((t, said.media().get(partner(i)?)?)))
        .all(|(t, s)| t.direction == s.direction && (t.port == 0) == (s.port == 0))
}

impl CarriedCall {
    /// An INVITE without a description: the phone gets an offer in the 2xx.
    pub(super) fn asked_for_offer(&mut self, side: usize, m: &Message<'_>, key: &Key, cx: &mut Context<'_>) {
        let Some(sent) = self.call.legs[side].sdp_sent.as_ref().map(|d| d.body.to_vec()) else {
            return self.reply(side, key, 488, cx);
        };
        let other = self.other(side).filter(|other| !self.is_lost(*other));
        if self.phase != Phase::Carrying
            || self.sides[side].own_offer.is_some()
            || other.is_some_and(|other| self.offering(other))
        {
            return self.reply(side, key, 491, cx);
        }
        let anchors = self.sides[side].anchors.as_deref();
        let legs = &self.call.legs;
        // What nobody can tell to the other phone is not offered.
        let partner = |line| self.pairs.partner(side, line);
        let offer = other.and_then(|other| resumed(&legs[side], &legs[other], anchors, partner)).unwrap_or(sent);
        let offer = self.fresh(side, offer);
        // The phone sees this version, whether it answers or not.
        self.sides[side].spent = Some(offer.clone());
        self.sides[side].late_offer = Some(LateOffer { cseq: key.cseq, offer: offer.clone() });
        self.accept(side, m, key, &offer, cx);
    }

    /// Whether an exchange with this phone is open or about to begin.
    fn offering(&self, side: usize) -> bool {
        self.offer_open(side) || self.sides[side].own_offer.is_some() || self.phone_busy(side, None)
    }

    /// The ACK of the phone that asked for an offer.
    pub(super) fn answered_late_offer(&mut self, side: usize, late: &LateOffer, m: &Message<'_>, cx: &mut Context<'_>) {
        if !is_sdp(m) || Sdp::parse(m.body()).is_err() {
            // Without an answer the phone may believe in the offer, or in what was before.
            return self.restate(side, cx);
        }
        let leg = &mut self.call.legs[side];
        let before = leg.sdp_sent.replace(Description { body: late.offer.as_slice().into() });
        let said = leg.sdp_received.clone();
        receive(leg, m.body());
        self.sides[side].exchanged();
        self.touch();
        self.reflow(cx);
        let (Some(before), Some(said)) = (before, said) else { return };
        self.pass_answer_on(side, before.body.to_vec(), &said, cx);
    }

    /// Tells the other phone what this one has answered, unless the other phone knows. `before` is what this phone was
    /// told until now, `said` what it said.
    fn pass_answer_on(&mut self, side: usize, before: Vec<u8>, said: &Description, cx: &mut Context<'_>) {
        let Some(other) = self.other(side).filter(|other| !self.is_lost(*other)) else { return };
        let now = &self.call.legs[side].sdp_received;
        let told = &self.call.legs[other].sdp_sent;
        let same = match (parsed(now.as_ref()), parsed(Some(said))) {
            (Some(now), Some(said)) => {
                now.media().len() == said.media().len()
                    && now.media().iter().zip(said.media()).all(|(a, b)| is_same(a, b))
            }
            _ => true,
        };
        if same && agree(told.as_ref(), now.as_ref(), |line| self.pairs.partner(other, line)) {
            return;
        }
        let body = now.as_ref().map(|d| d.body.to_vec()).unwrap_or_default();
        match self.offer_towards(other, side, &body) {
            Ok(offer) => {
                self.sides[other].passing = Some(before);
                self.offer_own(other, offer, cx);
            }
            Err(_) => self.restore(side, Some(before), cx),
        }
    }

    /// The phone of `side` has answered what was passed on to it, or does not answer. The phone that asked for the offer
    /// hears the truth: `before` is what it had been told until then.
    pub(super) fn passed_on_answer(&mut self, side: usize, verdict: Verdict, before: Vec<u8>, cx: &mut Context<'_>) {
        let Some(asker) = self.other(side) else { return };
        match verdict {
            Verdict::Accepted => self.align(asker, cx),
            Verdict::Refused(_) | Verdict::Gone | Verdict::Unreachable => self.restore(asker, Some(before), cx),
        }
    }

    /// Tells a phone what the other one said last, if its streams go other ways than this phone believes.
    pub(super) fn align(&mut self, side: usize, cx: &mut Context<'_>) {
        let Some(other) = self.other(side) else { return };
        let said = &self.call.legs[other].sdp_received;
        if self.phase != Phase::Carrying
            || self.sides[side].own_offer.is_some()
            || agree(self.call.legs[side].sdp_sent.as_ref(), said.as_ref(), |line| self.pairs.partner(side, line))
        {
            return;
        }
        let body = said.as_ref().map(|d| d.body.to_vec()).unwrap_or_default();
        if let Ok(offer) = self.offer_towards(side, other, &body) {
            self.offer_own(side, offer, cx);
        }
    }
}
