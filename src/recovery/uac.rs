//! Our requests to a phone, and the effect of its responses on the dialog (RFC 3261 sections 12.2.1, 13.2.2.4 and
//! 14.1).

use super::call::{Cancel, CarriedCall, Outgoing, Phase, Purpose};
use super::context::Context;
use super::reinvite::{Step, Verdict};
use super::request;
use super::transaction::{AckedInvite, Client, Key, LIFE, ServedRequest, Tick};
#[cfg(test)]
use super::types::Fault;
use crate::calls::model::{Leg, Sdp as Description, SessionTimer};
use crate::sip::build::Builder;
use crate::sip::message::{Message, Method, Name};
use crate::sip::sdp::Sdp;
use crate::sip::uri;
use std::time::Duration;

/// RFC 3261 section 8.1.1.5: upper limit of CSeq numbers.
pub(super) const CSEQ_LIMIT: u32 = 1 << 31;
/// Wait before a refresh or retry in a dialog busy with another INVITE.
const BUSY: Duration = Duration::from_secs(2);

/// The number at the start of a header value such as Session-Expires or Retry-After.
pub(super) fn leading_number(value: &[u8]) -> Option<u32> {
    let digits: Vec<u8> = value.trim_ascii().iter().copied().take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

/// Stores the description now in force on the phone's side.
pub(super) fn receive(leg: &mut Leg, body: &[u8]) {
    if Sdp::parse(body).is_err() {
        return;
    }
    leg.keep_rtp_sources(body);
    leg.sdp_received = Some(Description { body: body.into() });
}

impl CarriedCall {
    /// The leg's next CSeq, `step` above the last. `None` at the end of the number range.
    fn next_cseq(&mut self, side: usize, step: u32) -> Option<u32> {
        let leg = self.call.legs.get_mut(side)?;
        let next = leg.local_cseq.unwrap_or(0).checked_add(step).filter(|n| *n < CSEQ_LIMIT)?;
        leg.local_cseq = Some(next);
        self.touch();
        Some(next)
    }

    /// Sends our own re-INVITE and remembers its offer until the re-INVITE is settled.
    pub(super) fn invite_own(&mut self, side: usize, offer: Vec<u8>, step: u32, cx: &mut Context<'_>) {
        self.sides[side].own_offer = Some(offer.clone());
        self.sides[side].retry = None;
        if !self.send_invite(side, offer, step, Purpose::Own, cx) {
            self.judged(side, Verdict::Refused(0), cx);
        }
    }

    /// Sends an INVITE in the dialog. False if no CSeq is left or another INVITE is pending.
    pub(super) fn send_invite(
        &mut self,
        side: usize,
        offer: Vec<u8>,
        step: u32,
        purpose: Purpose,
        cx: &mut Context<'_>,
    ) -> bool {
        if self.sides[side].invite.is_some() {
            return false;
        }
        let Some(cseq) = self.next_cseq(side, step) else { return false };
        let offer = self.fresh(side, offer);
        let (leg, port) = (&self.call.legs[side], cx.settings.recovery_port);
        let (target, branch) = (request::target(leg), cx.rng.branch());
        let b = request::start(leg, &target, "INVITE", cseq, &branch, port, None);
        let bytes =
            request::offering(b, leg, port, self.sides[side].tries.min_se).body("application/sdp", &offer).build();
        cx.send(leg.local_addr, leg.remote_addr, bytes.clone());
        let client = Client::new(true, cseq, branch, target, bytes, cx.now);
        self.sides[side].invite = Some(Outgoing { client, purpose, offer: Some(offer), cancel: Cancel::No });
        true
    }

    /// Sends a request other than INVITE, ACK and CANCEL in the dialog. `dress` adds its own headers and body.
    pub(super) fn send_other(
        &mut self,
        side: usize,
        method: &str,
        purpose: Purpose,
        offer: Option<Vec<u8>>,
        cx: &mut Context<'_>,
        dress: impl FnOnce(Builder, &Leg) -> Builder,
    ) -> bool {
        let Some(cseq) = self.next_cseq(side, 1) else { return false };
        let leg = &self.call.legs[side];
        let (target, branch) = (request::target(leg), cx.rng.branch());
        let b = request::start(leg, &target, method, cseq, &branch, cx.settings.recovery_port, None);
        let bytes = dress(b, leg).build();
        cx.send(leg.local_addr, leg.remote_addr, bytes.clone());
        let client = Client::new(false, cseq, branch, target, bytes, cx.now);
        self.sides[side].others.push(Outgoing { client, purpose, offer, cancel: Cancel::No });
        true
    }

    pub(super) fn send_bye(&mut self, side: usize, reason: &str, cx: &mut Context<'_>) {
        // A normal hang-up needs no Reason. Any other BYE reports a network failure (RFC 3326, Q.850 cause 41).
        let why = (reason != "hung up").then(|| format!("Q.850;cause=41;text=\"{reason}\""));
        self.send_other(side, "BYE", Purpose::Last, None, cx, |b, _| {
            let b = b.header("User-Agent", request::USER_AGENT);
            match why {
                Some(why) => b.header("Reason", why),
                None => b,
            }
        });
    }

    /// Cancels the pending INVITE, now or after its first provisional response (RFC 3261 section 9.1).
    pub(super) fn cancel_invite(&mut self, side: usize, cx: &mut Context<'_>) {
        let leg = &self.call.legs[side];
        let Some(invite) = &mut self.sides[side].invite else { return };
        if invite.cancel == Cancel::Sent {
            return;
        }
        if !invite.client.proceeding {
            invite.cancel = Cancel::Wanted;
            return;
        }
        invite.cancel = Cancel::Sent;
        let c = &invite.client;
        let bytes =
            request::start(leg, &c.target, "CANCEL", c.cseq, &c.branch, cx.settings.recovery_port, None).build();
        let client = Client::new(false, c.cseq, c.branch.clone(), c.target.clone(), bytes.clone(), cx.now);
        self.sides[side].others.push(Outgoing { client, purpose: Purpose::Last, offer: None, cancel: Cancel::No });
        cx.send(leg.local_addr, leg.remote_addr, bytes);
    }

    /// Handles a response to one of our requests, in the dialog of `side`.
    pub(super) fn handle_response(&mut self, side: usize, m: &Message<'_>, cx: &mut Context<'_>) {
        let (Some(code), Some(branch)) = (m.code(), m.branch()) else { return };
        if m.method() == Method::Invite {
            let current = self.sides[side].invite.as_ref().is_some_and(|o| o.client.branch.as_bytes() == branch);
            #[cfg(test)]
            let current = current || (cx.settings.lacks(Fault::BranchIgnored) && self.sides[side].invite.is_some());
            if current {
                self.invite_answered(side, code, m, cx);
            } else {
                self.acknowledge_again(side, code, branch, m, cx);
            }
        } else {
            let fits = |o: &Outgoing| o.client.branch.as_bytes() == branch && o.client.cseq == m.cseq().0;
            let named = |o: &Outgoing| o.client.bytes.starts_with(m.cseq().1);
            let others = &mut self.sides[side].others;
            let Some(at) = others.iter().position(|o| fits(o) && named(o)) else { return };
            if code < 200 {
                others[at].client.provisional(cx.now);
            } else {
                let answered = others.swap_remove(at);
                match answered.purpose {
                    Purpose::Relay(key) => self.relay_answered(side, &key, code, Some(m), answered.offer, cx),
                    Purpose::Probe => self.probed(side, code, cx),
                    Purpose::Last => self.told(cx),
                    Purpose::Own => {}
                }
            }
        }
        self.flush(cx);
    }

    fn invite_answered(&mut self, side: usize, code: u16, m: &Message<'_>, cx: &mut Context<'_>) {
        if code < 200 {
            let Some(invite) = &mut self.sides[side].invite else { return };
            invite.client.provisional(cx.now);
            if invite.cancel == Cancel::Wanted {
                self.cancel_invite(side, cx);
            }
            return;
        }
        let Some(o) = self.sides[side].invite.take() else { return };
        let before = self.call.legs[side].sdp_sent.clone();
        let success = code < 300;
        if success {
            self.sides[side].settled = Some(o.client.cseq);
            self.take_answer(side, o.offer.as_deref(), m, cx.settings.recovery_port);
        }
        let ack = self.ack(side, success, o.client.cseq, &o.client, m, cx);
        self.remember(side, ack);
        match o.purpose {
            Purpose::Own if success => {
                self.reflow(cx);
                self.judged(side, Verdict::Accepted, cx);
            }
            Purpose::Own => self.own_refused(side, code, m, cx),
            Purpose::Relay(key) => {
                self.relay_answered(side, &key, code, Some(m), before.map(|d| d.body.to_vec()), cx);
            }
            Purpose::Probe | Purpose::Last => {}
        }
    }

    /// Sends the ACK for a final response and returns the record for resending it.
    fn ack(
        &self,
        side: usize,
        success: bool,
        cseq: u32,
        client: &Client,
        m: &Message<'_>,
        cx: &mut Context<'_>,
    ) -> AckedInvite {
        let ack = self.build_ack(side, success, cseq, &client.branch, &client.target, m, cx);
        let leg = &self.call.legs[side];
        cx.send(leg.local_addr, leg.remote_addr, ack.clone());
        AckedInvite {
            branch: client.branch.clone(),
            cseq,
            target: client.target.clone(),
            success: Some(success),
            ack,
            until: cx.now + LIFE,
            given_up: None,
        }
    }

    #[allow(clippy::too_many_arguments, reason = "each is a field of the one message that is built")]
    pub(super) fn build_ack(
        &self,
        side: usize,
        success: bool,
        cseq: u32,
        branch: &str,
        target: &super::transaction::Target,
        m: &Message<'_>,
        cx: &mut Context<'_>,
    ) -> Vec<u8> {
        let (leg, port) = (&self.call.legs[side], cx.settings.recovery_port);
        if success {
            // RFC 3261 section 13.2.2.4: its own transaction, sent to the target in the 2xx.
            let fresh = cx.rng.branch();
            request::start(leg, &request::target(leg), "ACK", cseq, &fresh, port, None).build()
        } else {
            // Section 17.1.1.3: branch, request URI and route of the INVITE, To of the response.
            request::start(leg, target, "ACK", cseq, branch, port, Some(m.to())).build()
        }
    }

    /// Applies a 2xx to INVITE or UPDATE: target, descriptions, session timer.
    pub(super) fn take_answer(&mut self, side: usize, offer: Option<&[u8]>, m: &Message<'_>, port: u16) {
        let leg = &mut self.call.legs[side];
        if let Some(target) = m.contact_uri() {
            leg.remote_target = target.into();
        }
        if let Some(offer) = offer {
            leg.sdp_sent = Some(Description { body: offer.into() });
            self.sides[side].exchanged();
        }
        if is_sdp(m) {
            receive(leg, m.body());
        }
        // RFC 4028 section 7.2: a 2xx without Session-Expires turns the timer off.
        leg.session_timer = m.header(Name::SessionExpires).and_then(|v| {
            let local = uri::param(v, "refresher").is_none_or(|r| r.eq_ignore_ascii_case(b"uac"));
            Some(SessionTimer { interval_s: leading_number(v)?.max(request::MIN_SE), local_refreshes: local })
        });
        leg.local_target = request::contact(leg, port).as_slice().into();
        leg.carried = true;
        self.touch();
    }

    fn own_refused(&mut self, side: usize, code: u16, m: &Message<'_>, cx: &mut Context<'_>) {
        let number = |n| m.header(n).and_then(leading_number);
        let direction = self.call.legs[side].direction;
        let step = self.sides[side].tries.judge(code, number(Name::RetryAfter), number(Name::MinSe), direction);
        match (step, self.sides[side].own_offer.clone()) {
            (Step::Again(by), Some(offer)) => self.invite_own(side, offer, by, cx),
            (Step::Later(low, high), Some(_)) => self.sides[side].retry = Some(cx.now + cx.rng.tens(low, high)),
            (Step::Settle(verdict), _) => self.judged(side, verdict, cx),
            (_, None) => self.judged(side, Verdict::Refused(code), cx),
        }
    }

    /// Whether the phone has an open INVITE or UPDATE other than `except`, or still owes an answer to our late offer.
    pub(super) fn phone_busy(&self, side: usize, except: Option<&Key>) -> bool {
        let s = &self.sides[side];
        let offers = |r: &ServedRequest| r.is_invite() || r.key.method == b"UPDATE";
        s.late_offer.is_some() || s.served.iter().any(|r| offers(r) && !r.is_final() && Some(&r.key) != except)
    }

    /// Whether one of our offers awaits the phone's answer.
    pub(super) fn offer_open(&self, side: usize) -> bool {
        let s = &self.sides[side];
        s.invite.is_some() || s.others.iter().any(|o| o.offer.is_some())
    }

    pub(super) fn retry_own(&mut self, side: usize, cx: &mut Context<'_>) {
        if self.offer_open(side) || self.phone_busy(side, None) {
            self.sides[side].retry = Some(cx.now + BUSY);
        } else if let Some(offer) = self.sides[side].own_offer.clone() {
            self.invite_own(side, offer, 1, cx);
        } else {
            self.sides[side].retry = None;
        }
    }

    /// Refreshes the session timer with a re-INVITE and an unchanged description (RFC 4028 section 7.4).
    pub(super) fn refresh(&mut self, side: usize, cx: &mut Context<'_>) {
        self.sides[side].refresh = None;
        let busy = self.offer_open(side) || self.sides[side].own_offer.is_some() || self.phone_busy(side, None);
        let asks_again = self.phase == Phase::Recovering && self.sides[side].doubt.is_some();
        if busy || !(self.phase == Phase::Carrying || asks_again) {
            self.sides[side].refresh = Some(cx.now + BUSY);
        } else if asks_again {
            self.begin_side(side, cx);
        } else if let Some(sdp) = self.call.legs[side].sdp_sent.clone() {
            let min_se = self.sides[side].tries.min_se;
            self.sides[side].tries = super::reinvite::Tries::fresh(min_se);
            self.invite_own(side, sdp.body.to_vec(), 1, cx);
        }
    }

    pub(super) fn time_clients(&mut self, side: usize, cx: &mut Context<'_>) {
        let (from, to) = (self.call.legs[side].local_addr, self.call.legs[side].remote_addr);
        let mut expired = Vec::new();
        let mut kept = Vec::new();
        for mut o in std::mem::take(&mut self.sides[side].others) {
            match o.client.on_time(cx.now) {
                Tick::Idle => kept.push(o),
                Tick::Resend => {
                    cx.send(from, to, o.client.bytes.clone());
                    kept.push(o);
                }
                Tick::Expired => expired.push((o.purpose, o.offer)),
            }
        }
        self.sides[side].others = kept;
        for (purpose, offer) in expired {
            match purpose {
                Purpose::Relay(key) => {
                    if offer.is_some() {
                        self.sides[side].spent = offer;
                    }
                    self.relay_answered(side, &key, 408, None, None, cx);
                }
                Purpose::Last => {
                    self.sides[side].unheard = matches!(self.phase, Phase::Over(_));
                    self.told(cx);
                }
                Purpose::Probe => self.probed(side, 408, cx),
                Purpose::Own => {}
            }
        }
        let Some(invite) = &mut self.sides[side].invite else { return };
        match invite.client.on_time(cx.now) {
            Tick::Idle => {}
            Tick::Resend => cx.send(from, to, invite.client.bytes.clone()),
            Tick::Expired => {
                let (purpose, alive) = (invite.purpose.clone(), invite.client.proceeding);
                if alive {
                    self.cancel_invite(side, cx);
                }
                self.abandon(side, cx.now);
                match purpose {
                    // The phone is alive but does not decide, so the session stays as it was.
                    Purpose::Own if alive => self.judged(side, Verdict::Refused(408), cx),
                    Purpose::Own => self.judged(side, Verdict::Unreachable, cx),
                    Purpose::Relay(key) => {
                        self.relay_answered(side, &key, if alive { 487 } else { 408 }, None, None, cx);
                    }
                    Purpose::Probe | Purpose::Last => {}
                }
            }
        }
    }
}

/// Whether the body is a session description. Like phones, treat a missing Content-Type as SDP.
pub(super) fn is_sdp(m: &Message<'_>) -> bool {
    let kind = m.header(Name::ContentType).map(|v| v.split(|&b| b == b';').next().unwrap_or_default().trim_ascii());
    !m.body().is_empty() && kind.is_none_or(|k| k.eq_ignore_ascii_case(b"application/sdp"))
}
