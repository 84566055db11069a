//! Carries a call on: phones' requests are answered here or relayed to the other phone. The smallest B2BUA that ends
//! calls correctly.

use super::call::{CarriedCall, MAX_OTHERS, MAX_SERVED, Phase, Purpose};
use super::context::Context;
use super::localize::Towards;
use super::reinvite::Verdict;
use super::request;
use super::transaction::{Key, ServedRequest};
use super::uac::{is_sdp, leading_number, receive};
use crate::calls::model::{Leg, Sdp as Description, SessionTimer};
use crate::sip::build::{Builder, response_address};
use crate::sip::message::{Message, Method, Name};
use crate::sip::sdp::{Origin, Sdp, SdpError, with_origin};
use crate::sip::uri;
use crate::wire::Packet;

/// The reason phrase of a status code. Phones display it and never act on it.
pub(super) const fn phrase(code: u16) -> &'static str {
    match code {
        100 => "Trying",
        200 => "OK",
        400 => "Bad Request",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        415 => "Unsupported Media Type",
        420 => "Bad Extension",
        422 => "Session Interval Too Small",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        491 => "Request Pending",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        _ => "Refused",
    }
}

fn key_of(m: &Message<'_>) -> Key {
    let via = m.values(Name::Via).next().unwrap_or_default();
    // Protocol and sent-by. Parameters other than the branch may differ between an INVITE and its CANCEL.
    let sent_by = via.split(|&b| b == b';').next().unwrap_or_default().trim_ascii();
    let (cseq, method) = m.cseq();
    Key { via: [sent_by, b";", m.branch().unwrap_or_default()].concat(), cseq, method: method.to_vec() }
}

impl CarriedCall {
    /// Handles a request from the phone of `side` at the recovery port.
    pub(super) fn handle_request(&mut self, side: usize, m: &Message<'_>, p: &Packet<'_>, cx: &mut Context<'_>) {
        if m.method() == Method::Ack {
            self.acknowledged(side, m, cx);
            self.flush(cx);
            return;
        }
        self.is_there(side);
        let key = key_of(m);
        if let Some(served) = self.sides[side].served.iter().find(|s| s.key == key) {
            if !served.response.is_empty() {
                cx.send(served.at, served.source, served.response.clone());
            }
            return;
        }
        let source = response_address(m.values(Name::Via).next().unwrap_or_default(), p.src);
        if !self.make_room(side) {
            return;
        }
        self.sides[side].served.push_back(ServedRequest::new(
            key.clone(),
            p.payload.to_vec(),
            p.src,
            source,
            p.dst,
            cx.now,
        ));
        if m.method() == Method::Cancel {
            self.cancelled(side, m, &key, cx);
        } else if matches!(self.phase, Phase::Over(_)) {
            self.reply(side, &key, if m.method() == Method::Bye { 200 } else { 481 }, cx);
        } else {
            let last = self.call.legs[side].remote_cseq;
            if last.is_some_and(|last| key.cseq < last) {
                // RFC 3261 section 12.2.2.
                self.reply(side, &key, 500, cx);
            } else {
                if last != Some(key.cseq) {
                    self.call.legs[side].remote_cseq = Some(key.cseq);
                    self.touch();
                }
                self.dispatch(side, m, &key, cx);
            }
        }
        self.flush(cx);
    }

    fn make_room(&mut self, side: usize) -> bool {
        let served = &mut self.sides[side].served;
        if served.len() < MAX_SERVED {
            return true;
        }
        match served.iter().position(|s| s.is_final() && !s.unacknowledged()) {
            Some(oldest) => served.remove(oldest).is_some(),
            None => false,
        }
    }

    fn dispatch(&mut self, side: usize, m: &Message<'_>, key: &Key, cx: &mut Context<'_>) {
        // RFC 3261 section 8.2.2.3: the phone requires an extension that the agent does not support.
        let unknown = m.values(Name::Require).find(|v| !v.eq_ignore_ascii_case(b"timer"));
        if let Some(unknown) = unknown {
            self.respond(side, key, 420, cx, |b, _| b.header("Unsupported", unknown));
            return;
        }
        match m.method() {
            Method::Bye => {
                self.reply(side, key, 200, cx);
                self.overheard_bye(side, cx);
            }
            Method::Invite => self.invited(side, m, key, cx),
            Method::Update => self.updated(side, m, key, cx),
            Method::Info | Method::Message => self.passed_on(side, m, key, cx),
            Method::Options => self.respond(side, key, 200, cx, |b, _| {
                b.header("Allow", request::ALLOW).header("Accept", "application/sdp").header("Supported", "timer")
            }),
            // The agent sends no reliable provisional responses.
            Method::Prack => self.reply(side, key, 481, cx),
            method => {
                let code = if method == Method::Other { 501 } else { 405 };
                self.respond(side, key, code, cx, |b, _| b.header("Allow", request::ALLOW));
            }
        }
    }

    fn invited(&mut self, side: usize, m: &Message<'_>, key: &Key, cx: &mut Context<'_>) {
        if self.offer_open(side) {
            // RFC 3261 section 14.2: our own INVITE is pending.
            return self.reply(side, key, 491, cx);
        }
        if self.phone_busy(side, Some(key)) {
            let after = (cx.rng.next() % 11).to_string();
            return self.respond(side, key, 500, cx, |b, _| b.header("Retry-After", after));
        }
        // A new INVITE proves that the previous response arrived, even if its ACK was lost.
        let earlier = self.sides[side].served.iter_mut().filter(|r| r.is_invite() && r.key != *key);
        earlier.for_each(ServedRequest::acknowledged);
        if self.too_short(side, m, key, cx) {
            return;
        }
        if m.body().is_empty() {
            self.asked_for_offer(side, m, key, cx);
        } else {
            self.offered(side, m, key, true, cx);
        }
    }

    fn updated(&mut self, side: usize, m: &Message<'_>, key: &Key, cx: &mut Context<'_>) {
        if self.too_short(side, m, key, cx) {
        } else if m.body().is_empty() {
            self.accept(side, m, key, &[], cx);
        } else if self.offer_open(side) {
            self.reply(side, key, 491, cx);
        } else if self.phone_busy(side, Some(key)) {
            // RFC 3311 section 5.2.
            self.respond(side, key, 500, cx, |b, _| b.header("Retry-After", "5"));
        } else {
            self.offered(side, m, key, false, cx);
        }
    }

    /// RFC 4028 section 9: refuse an interval below the minimum.
    fn too_short(&mut self, side: usize, m: &Message<'_>, key: &Key, cx: &mut Context<'_>) -> bool {
        let asked = m.header(Name::SessionExpires).and_then(leading_number);
        let short = asked.is_some_and(|s| s < request::MIN_SE);
        if short {
            self.respond(side, key, 422, cx, |b, _| b.header("Min-SE", request::MIN_SE.to_string()));
        }
        short
    }

    /// INVITE or UPDATE with an offer. An unchanged offer is answered here, any other is relayed to the other phone.
    fn offered(&mut self, side: usize, m: &Message<'_>, key: &Key, invite: bool, cx: &mut Context<'_>) {
        if !is_sdp(m) {
            return self.respond(side, key, 415, cx, |b, _| b.header("Accept", "application/sdp"));
        }
        let leg = &self.call.legs[side];
        let known = leg.sdp_received.as_ref().and_then(|d| Sdp::parse(&d.body.0).ok());
        let Ok(new) = Sdp::parse(m.body()) else { return self.reply(side, key, 488, cx) };
        // Some phones hold and resume without a new version, so the version alone proves nothing.
        let same = known.is_some_and(|known| {
            matches!((known.origin(), new.origin()), (Some(k), Some(n)) if (k.id, k.version) == (n.id, n.version))
                && known.media() == new.media()
        });
        if let (true, Some(sent)) = (same, leg.sdp_sent.clone()) {
            // RFC 3264 section 8: the same description, so this is a plain refresh.
            let sent = self.fresh(side, sent.body.to_vec());
            self.call.legs[side].sdp_sent = Some(Description { body: sent.as_slice().into() });
            self.sides[side].exchanged();
            return self.accept(side, m, key, &sent, cx);
        }
        let Some(other) = self.other(side) else { return self.reply(side, key, 488, cx) };
        let o = &self.sides[other];
        if self.is_lost(other) {
            return self.reply(side, key, 480, cx);
        }
        if self.phase != Phase::Carrying
            || self.offer_open(other)
            || o.own_offer.is_some()
            || self.phone_busy(other, None)
        {
            return self.reply(side, key, 491, cx);
        }
        if self.sides[side].own_offer.is_some() || o.others.len() >= MAX_OTHERS {
            return self.reply(side, key, 491, cx);
        }
        let Ok(offer) = self.offer_towards(other, side, m.body()) else {
            return self.reply(side, key, 488, cx);
        };
        let offer = self.fresh(other, offer);
        if invite {
            self.reply(side, key, 100, cx);
        }
        let allow = &self.call.legs[other].allow.0;
        let as_update = !invite && allow.split(|&b| b == b',').any(|v| v.trim_ascii().eq_ignore_ascii_case(b"UPDATE"));
        let purpose = Purpose::Relay(key.clone());
        let sent = if as_update {
            let port = cx.settings.recovery_port;
            let body = offer.clone();
            self.send_other(other, "UPDATE", purpose, Some(offer), cx, |b, leg| {
                request::offering(b, leg, port, None).body("application/sdp", &body)
            })
        } else {
            self.send_invite(other, offer, 1, purpose, cx)
        };
        if !sent {
            self.reply(side, key, 500, cx);
        }
    }

    /// The offer to the phone of `to`, from the description `body` of the phone of `from`.
    pub(super) fn offer_towards(&self, to: usize, from: usize, body: &[u8]) -> Result<Vec<u8>, SdpError> {
        let partner = |line| self.pairs.partner(to, line);
        let towards =
            Towards { leg: &self.call.legs[to], anchors: self.sides[to].anchors.as_deref(), partner: &partner };
        towards.offer((&*self.call.legs[from], self.sides[from].anchors.as_deref()), body)
    }

    /// INFO and MESSAGE are relayed unchanged.
    fn passed_on(&mut self, side: usize, m: &Message<'_>, key: &Key, cx: &mut Context<'_>) {
        let Some(other) = self.other(side) else { return self.reply(side, key, 481, cx) };
        if self.is_lost(other) {
            return self.reply(side, key, 480, cx);
        }
        if self.sides[other].others.len() >= MAX_OTHERS {
            return self.respond(side, key, 500, cx, |b, _| b.header("Retry-After", "2"));
        }
        let method = if m.method() == Method::Info { "INFO" } else { "MESSAGE" };
        let kind = m.header(Name::ContentType).map(|v| String::from_utf8_lossy(v).into_owned());
        let (package, body) = (m.named("Info-Package"), m.body());
        let sent = self.send_other(other, method, Purpose::Relay(key.clone()), None, cx, |mut b, _| {
            b = b.header("User-Agent", request::USER_AGENT);
            if let Some(package) = package {
                b = b.header("Info-Package", package);
            }
            b.body(kind.as_deref().unwrap_or("application/octet-stream"), body)
        });
        if !sent {
            self.reply(side, key, 500, cx);
        }
    }

    /// The phone of `side` has answered a relayed request, or timed out. For an INVITE, `before` is the description
    /// last sent to this phone before the offer. For an UPDATE it is the offer.
    pub(super) fn relay_answered(
        &mut self,
        side: usize,
        key: &Key,
        code: u16,
        m: Option<&Message<'_>>,
        mut before: Option<Vec<u8>>,
        cx: &mut Context<'_>,
    ) {
        let Some(asker) = self.other(side) else { return };
        let stored =
            self.sides[asker].served.iter().find(|s| s.key == *key && !s.is_final()).map(|s| s.request.clone());
        let is_offer = key.method == b"INVITE" || key.method == b"UPDATE";
        let success = (200..300).contains(&code);
        let request = stored.as_deref().and_then(|r| Message::parse(r).ok());
        match (success, is_offer, request, m) {
            (true, true, Some(request), Some(m)) => {
                if m.method() == Method::Update {
                    let had = self.call.legs[side].sdp_sent.as_ref().map(|d| d.body.to_vec());
                    self.take_answer(side, before.as_deref(), m, cx.settings.recovery_port);
                    before = had;
                }
                let answer = self.call.legs[side].sdp_received.as_ref().map(|d| d.body.to_vec()).unwrap_or_default();
                let asked = self.call.legs[side].sdp_sent.clone();
                let partner = |line| self.pairs.partner(asker, line);
                let anchors = self.sides[asker].anchors.as_deref();
                let towards = Towards { leg: &self.call.legs[asker], anchors, partner: &partner };
                match towards.answer(request.body(), asked.as_ref().map(|d| &*d.body.0), &answer) {
                    Ok(answer) => {
                        let answer = self.fresh(asker, answer);
                        receive(&mut self.call.legs[asker], request.body());
                        self.call.legs[asker].sdp_sent = Some(Description { body: answer.as_slice().into() });
                        self.sides[asker].exchanged();
                        self.accept(asker, &request, key, &answer, cx);
                        self.reflow(cx);
                    }
                    Err(_) => {
                        self.reply(asker, key, 488, cx);
                        self.restore(side, before, cx);
                    }
                }
                self.arm(side, cx);
            }
            // The asking phone has cancelled, but this phone had already accepted. Return to the old description.
            (true, true, None, _) => self.restore(side, before, cx),
            (_, _, Some(_), m) => {
                let after = m.and_then(|m| m.header(Name::RetryAfter));
                let body = m.filter(|_| success).map(|m| m.body()).unwrap_or_default();
                let kind = m.and_then(|m| m.header(Name::ContentType)).map(|v| String::from_utf8_lossy(v).into_owned());
                let said = match code {
                    // The other phone cannot satisfy a challenge or redirection meant for us.
                    300..=399 | 401 | 407 => 488,
                    // These codes are about this phone's dialog, and the asking phone's dialog still exists.
                    481 | 408 if is_offer => 480,
                    other => other,
                };
                self.respond(asker, key, said, cx, |mut b, _| {
                    if let Some(after) = after {
                        b = b.header("Retry-After", after);
                    }
                    b.body(kind.as_deref().unwrap_or("application/octet-stream"), body)
                });
            }
            _ => {}
        }
        match code {
            481 => self.doubted(side, Verdict::Gone, cx),
            408 => self.doubted(side, Verdict::Unreachable, cx),
            _ => {}
        }
    }

    /// Offers a phone its old description again, after the relayed offer came to nothing.
    pub(super) fn restore(&mut self, side: usize, before: Option<Vec<u8>>, cx: &mut Context<'_>) {
        let sent = self.call.legs[side].sdp_sent.as_ref().map(|d| d.body.to_vec()).unwrap_or_default();
        let origin = Sdp::parse(&sent).ok().and_then(|s| s.origin());
        let (Some(before), Some(origin)) = (before, origin) else { return };
        let version = origin.version.saturating_add(1);
        if let Ok(offer) = with_origin(&before, &Origin { version, ..origin })
            && self.sides[side].own_offer.is_none()
            && matches!(self.phase, Phase::Carrying)
        {
            self.offer_own(side, offer, cx);
        }
    }

    /// Sends a 2xx to INVITE or UPDATE of the phone of `side` and updates target and session timer.
    pub(super) fn accept(&mut self, side: usize, m: &Message<'_>, key: &Key, sdp: &[u8], cx: &mut Context<'_>) {
        let source = self.sides[side].served.iter().find(|s| s.key == *key).map(|s| s.heard_from);
        let leg = &mut self.call.legs[side];
        if let Some(target) = m.contact_uri() {
            leg.remote_target = target.into();
            // A proxy on the virtual address that passes the request on is not where the phone is.
            if let Some(source) = source.filter(|s| !cx.settings.vips.contains(&s.ip())) {
                leg.moves_with_target(source);
            }
        }
        leg.local_target = request::contact(leg, cx.settings.recovery_port).as_slice().into();
        leg.carried = true;
        let knows = m.values(Name::Supported).any(|v| v.eq_ignore_ascii_case(b"timer"));
        let asked = m.header(Name::SessionExpires).and_then(|v| Some((leading_number(v)?, uri::param(v, "refresher"))));
        let old = leg.session_timer;
        leg.session_timer = match asked {
            Some((interval_s, role)) => {
                // Here the phone is the UAC. Without a refresher parameter the roles stay.
                let local = match role {
                    Some(role) => role.eq_ignore_ascii_case(b"uas"),
                    None => old.map_or(!knows, |t| t.local_refreshes),
                };
                Some(SessionTimer { interval_s, local_refreshes: local })
            }
            None => old.filter(|t| knows || t.local_refreshes),
        };
        let timer = leg.session_timer;
        self.touch();
        self.arm(side, cx);
        let port = cx.settings.recovery_port;
        self.respond(side, key, 200, cx, |mut b, leg| {
            b = b
                .header("Contact", [b"<", request::contact(leg, port).as_slice(), b">"].concat())
                .header("Allow", request::ALLOW)
                .header("Supported", "timer");
            if let Some(t) = timer {
                let role = if t.local_refreshes { "uas" } else { "uac" };
                b = b.header("Session-Expires", format!("{};refresher={role}", t.interval_s));
                if knows && !t.local_refreshes {
                    // RFC 4028 section 9: the phone must learn that it is the refresher.
                    b = b.header("Require", "timer");
                }
            }
            b.body("application/sdp", sdp)
        });
    }

    fn acknowledged(&mut self, side: usize, m: &Message<'_>, cx: &mut Context<'_>) {
        let cseq = m.cseq().0;
        let s = &mut self.sides[side];
        s.served.iter_mut().filter(|r| r.is_invite() && r.key.cseq == cseq).for_each(ServedRequest::acknowledged);
        if let Some(late) = s.late_offer.take_if(|late| late.cseq == cseq) {
            self.answered_late_offer(side, &late, m, cx);
        }
    }

    fn cancelled(&mut self, side: usize, m: &Message<'_>, key: &Key, cx: &mut Context<'_>) {
        let via = &key.via;
        let found =
            self.sides[side].served.iter().find(|s| s.is_invite() && s.key.via == *via && s.key.cseq == m.cseq().0);
        let Some(found) = found else { return self.reply(side, key, 481, cx) };
        let (invite, open) = (found.key.clone(), !found.is_final());
        self.reply(side, key, 200, cx);
        if !open {
            return;
        }
        // RFC 3261 section 9.2.
        self.reply(side, &invite, 487, cx);
        if let Some(other) = self.other(side) {
            let relayed = |p: &Purpose| matches!(p, Purpose::Relay(k) if *k == invite);
            if self.sides[other].invite.as_ref().is_some_and(|o| relayed(&o.purpose)) {
                self.cancel_invite(other, cx);
            }
        }
    }

    /// Answers the phone's pending requests, because the call is over (RFC 3261 section 15.1.2).
    pub(super) fn refuse_pending(&mut self, side: usize, cx: &mut Context<'_>) {
        let open: Vec<Key> = self.sides[side].served.iter().filter(|s| !s.is_final()).map(|s| s.key.clone()).collect();
        for key in open {
            self.reply(side, &key, 487, cx);
        }
    }

    pub(super) fn reply(&mut self, side: usize, key: &Key, code: u16, cx: &mut Context<'_>) {
        self.respond(side, key, code, cx, |b, _| b);
    }

    /// Answers a pending request. Does nothing if it already has its final response.
    fn respond(
        &mut self,
        side: usize,
        key: &Key,
        code: u16,
        cx: &mut Context<'_>,
        dress: impl FnOnce(Builder, &Leg) -> Builder,
    ) {
        let leg = &self.call.legs[side];
        let Some(served) = self.sides[side].served.iter_mut().find(|s| s.key == *key && !s.is_final()) else { return };
        let Ok(request) = Message::parse(&served.request) else { return };
        // Use the packet's source port for rport. The port in `source` may already come from sent-by.
        let b = Builder::response_to(&request, code, phrase(code), Some(&leg.local_tag.0), Some(served.heard_from));
        let b = if code >= 200 { b.header("Server", request::USER_AGENT) } else { b };
        let bytes = dress(b, leg).build();
        cx.send(served.at, served.source, bytes.clone());
        served.answered(code, bytes, cx.now);
    }
}
