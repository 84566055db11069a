//! Matches messages to legs, and decides which messages start one (RFC 3261 sections 12.2.2, 13.2.2 and 17.1.3).

use super::dialog::Input;
use super::leg::doubt::Ending;
use super::leg::{Effect, Known, Tracked};
use super::{Evidence, LegEvent, LegId, MAX_NAME, Tracker};
use crate::calls::model::{Direction, LegState};
use crate::sip::message::Method;
use crate::time::Time;
use smallvec::SmallVec;

type Places = SmallVec<[u32; 4]>;

impl Tracker {
    pub(super) fn hear(&mut self, h: &Input<'_>) {
        let hash = self.hash(h.m.call_id());
        match h.m.code() {
            None => self.hear_request(h, hash),
            Some(code) => self.hear_response(h, code, hash),
        }
    }

    fn hear_request(&mut self, h: &Input<'_>, hash: u64) {
        let m = h.m;
        let Some(to_tag) = m.to_tag() else {
            match m.method() {
                Method::Invite => self.first_invite(h, hash),
                Method::Cancel => {
                    for slot in self.family(h, hash, h.out) {
                        self.with(slot, h.at.now, |t| t.cancelled(h.at));
                    }
                }
                _ => {}
            }
            return;
        };
        let from_tag = m.from_tag().unwrap_or_default();
        let (local, remote) = if h.out { (from_tag, to_tag) } else { (to_tag, from_tag) };
        let peer = if h.out { h.p.dst } else { h.p.src };
        let found = self.in_dialog(hash, m.call_id(), local, remote, peer);
        if let Some(slot) = found.or_else(|| self.in_new_branch(h, hash, local, remote)) {
            self.with(slot, h.at.now, |t| t.request(h));
            return;
        }
        // The ACK of a refusal carries the tag of a dialog that never existed.
        if matches!(m.method(), Method::Ack | Method::Cancel) {
            return;
        }
        self.counters.unknown_dialog += 1;
        // Only these certainly belong to a call. NOTIFY and SUBSCRIBE have dialogs of their own, and an answered PRACK
        // belongs to a call that is not up yet. A BYE is kept so that late messages do not look like a live call.
        if matches!(m.method(), Method::Invite | Method::Update | Method::Info | Method::Bye)
            && let Some(slot) = self.join(h, hash)
        {
            self.with(slot, h.at.now, |t| t.request(h));
        }
    }

    /// A leg from a message inside an unknown dialog. `None` if there are too many.
    fn join(&mut self, h: &Input<'_>, hash: u64) -> Option<u32> {
        if h.m.from_tag().is_none() || h.m.to_tag().is_none() || has_long_names(h) || !self.has_place(hash) {
            return None;
        }
        let id = self.insert(hash, Tracked::from_middle(h.m, h.p, h.out, h.at));
        self.settle_in(id.slot, h.at.now).then_some(id.slot)
    }

    /// Adds a leg if there is room, and counts it if there is none.
    fn begin(&mut self, hash: u64, tracked: Tracked, now: Time) -> Option<LegId> {
        if !self.has_place(hash) {
            self.counters.not_learnt += 1;
            self.counters.same_call_id += 1;
            self.lost = Some(now);
            return None;
        }
        let id = self.insert(hash, tracked);
        self.events.push_back(LegEvent::Started(id));
        self.settle_in(id.slot, now).then_some(id)
    }

    fn first_invite(&mut self, h: &Input<'_>, hash: u64) {
        let (m, out) = (h.m, h.out);
        let direction = if out { Direction::Outbound } else { Direction::Inbound };
        let from_tag = m.from_tag().unwrap_or_default();
        let cseq = m.cseq().0;
        let mut replaced: Places = SmallVec::new();
        let (mut again, mut unmet) = (None, None);
        for (slot, t) in self.same_call(hash, m.call_id()) {
            let caller = if out { &t.leg.local_tag.0 } else { &t.leg.remote_tag.0 };
            if **caller != *from_tag {
                continue;
            }
            if t.is_unmet() && t.leg.state != LegState::Ended {
                unmet = Some(slot);
                continue;
            }
            if t.leg.direction != direction {
                continue;
            }
            let known = if out { t.leg.local_cseq } else { t.leg.remote_cseq };
            if (t.invite.branch == h.branch && t.invite.cseq == cseq)
                || (t.proof.known == Known::Adopted && known.is_some_and(|k| cseq <= k))
            {
                again = Some(slot);
                break;
            }
            // The same caller tried again (with credentials, say) and the refusal was not seen, or this is another copy
            // of the INVITE. A copy that rings goes on.
            if t.leg.state == LegState::Calling && t.invite.cseq < cseq {
                replaced.push(slot);
            }
        }
        if let Some(slot) = again {
            // A retransmission.
            self.touch(slot, h.at.now);
            return;
        }
        let clues = || Evidence::of(m, out, self.settings.pair_header.as_deref());
        if let Some(slot) = unmet {
            // Later messages overtook this INVITE.
            let (clues, emergency) = (clues(), self.is_emergency(m));
            // The INVITE brings new evidence.
            let id = self.id(slot);
            self.events.extend(id.map(LegEvent::Started));
            self.with(slot, h.at.now, |t| t.meet(m, out, h.branch, clues, emergency, h.own, h.at));
            return;
        }
        let clues = clues();
        for slot in replaced {
            self.with(slot, h.at.now, |t| {
                t.life.ending.get_or_insert((h.at.now, Ending::Replaced));
                Effect::None
            });
        }
        if has_long_names(h) {
            self.counters.not_learnt += 1;
            self.counters.too_long += 1;
            self.lost = Some(h.at.now);
            return;
        }
        let emergency = self.is_emergency(m);
        let mut tracked = Tracked::new(m, h.p, out, h.branch, clues, emergency, h.own, h.at);
        tracked.proof.spoken |= self.settings.one_sided;
        self.begin(hash, tracked, h.at.now);
    }

    /// The legs that the first INVITE with this branch and CSeq started. Several if it forked.
    fn family(&self, h: &Input<'_>, hash: u64, by_server: bool) -> Places {
        let direction = if by_server { Direction::Outbound } else { Direction::Inbound };
        let cseq = h.m.cseq().0;
        self.same_call(hash, h.m.call_id())
            .filter(|(_, t)| {
                t.invite.branch == h.branch && t.invite.cseq == cseq && t.leg.direction == direction && !t.is_unmet()
            })
            .map(|(slot, _)| slot)
            .collect()
    }

    fn hear_response(&mut self, h: &Input<'_>, code: u16, hash: u64) {
        let m = h.m;
        let invite = m.method() == Method::Invite;
        if invite {
            let family = self.family(h, hash, !h.out);
            if !family.is_empty() {
                self.first_response(h, code, &family, hash);
                return;
            }
        }
        let (from_tag, to_tag) = (m.from_tag().unwrap_or_default(), m.to_tag().unwrap_or_default());
        // A response from the server answers the phone's request, so From is the phone.
        let (local, remote) = if h.out { (to_tag, from_tag) } else { (from_tag, to_tag) };
        let peer = if h.out { h.p.dst } else { h.p.src };
        let found = self.in_dialog(hash, m.call_id(), local, remote, peer);
        let accepted = (200..300).contains(&code);
        let found = found.or_else(|| if accepted { self.in_new_branch(h, hash, local, remote) } else { None });
        if let Some(slot) = found {
            self.with(slot, h.at.now, |t| t.response(h, code));
            return;
        }
        if invite && accepted {
            self.counters.unknown_dialog += 1;
        }
        if accepted
            && (invite || m.method() == Method::Bye)
            && let Some(slot) = self.join(h, hash)
        {
            self.with(slot, h.at.now, |t| t.response(h, code));
        }
    }

    /// A response to the first INVITE of the legs in `family`.
    fn first_response(&mut self, h: &Input<'_>, code: u16, family: &[u32], hash: u64) {
        let (m, out) = (h.m, h.out);
        if code >= 300 {
            // A refusal applies to the whole transaction: every early dialog ends (RFC 3261 section 13.2.2.3).
            for slot in family {
                self.with(*slot, h.at.now, |t| if t.is_inviting() { t.response(h, code) } else { Effect::None });
            }
            return;
        }
        if code == 100 {
            family.iter().for_each(|slot| self.touch(*slot, h.at.now));
            return;
        }
        let tag = m.to_tag().unwrap_or_default();
        let from_tag = m.from_tag().unwrap_or_default();
        let with_tag =
            |tag: &[u8]| family.iter().copied().find(|s| self.tracked(*s).is_some_and(|t| t.far_tag() == tag));
        let mut own = with_tag(tag);
        if own.is_none() && !tag.is_empty() {
            // A message of this dialog, perhaps its BYE, may have come before its INVITE.
            let (local, remote) = if out { (tag, from_tag) } else { (from_tag, tag) };
            let peer = if out { h.p.dst } else { h.p.src };
            own = self.in_dialog(hash, m.call_id(), local, remote, peer);
        }
        let Some(slot) = own.or_else(|| self.blank_branch(family)).or((tag.is_empty()).then_some(family[0])) else {
            if code == 199 {
                // RFC 6228: a branch without a leg has refused.
                return;
            }
            match self.fork(family, hash, h) {
                Some(slot) => self.answer(h, code, slot, family),
                None if code >= 200 && family.iter().all(|s| self.is_over(*s)) => {
                    // A proxy may pass a 2xx after a refusal (RFC 3261 section 16.7).
                    self.counters.unknown_dialog += 1;
                    if let Some(slot) = self.join(h, hash) {
                        self.with(slot, h.at.now, |t| t.response(h, code));
                    }
                }
                None => {}
            }
            return;
        };
        self.answer(h, code, slot, family);
    }

    fn answer(&mut self, h: &Input<'_>, code: u16, slot: u32, family: &[u32]) {
        let last = family.contains(&slot) && family.iter().all(|s| *s == slot || self.is_over(*s));
        if code == 199 && last {
            // RFC 6228: this branch has refused. The INVITE is still open, so its last leg waits for another branch.
            self.with(slot, h.at.now, |t| {
                if t.is_inviting() {
                    *t = t.fork(h.at.now);
                }
                Effect::None
            });
            return;
        }
        self.with(slot, h.at.now, |t| t.response(h, code));
        if code >= 200 {
            for other in family.iter().filter(|s| **s != slot) {
                // RFC 3261 section 13.2.2.4: early dialogs end 64 x T1 after the first 2xx.
                self.with(*other, h.at.now, |t| {
                    if t.is_inviting() {
                        t.life.ending.get_or_insert((h.at.now, Ending::OtherBranch));
                    }
                    Effect::None
                });
            }
        }
    }

    fn is_over(&self, slot: u32) -> bool {
        self.tracked(slot).is_none_or(|t| t.leg.state == LegState::Ended)
    }

    /// The leg of an INVITE without an answer so far.
    fn blank_branch(&self, family: &[u32]) -> Option<u32> {
        family.iter().copied().find(|s| self.tracked(*s).is_some_and(|t| t.far_tag().is_empty() && !self.is_over(*s)))
    }

    /// Another branch of the INVITE.
    fn fork(&mut self, family: &[u32], hash: u64, h: &Input<'_>) -> Option<u32> {
        let new = family.iter().filter(|s| !self.is_over(**s)).find_map(|s| self.tracked(*s))?.fork(h.at.now);
        self.begin(hash, new, h.at.now).map(|id| id.slot)
    }

    /// The leg of an INVITE for a message of a branch with unseen responses. Names the branch after the message.
    fn in_new_branch(&mut self, h: &Input<'_>, hash: u64, local: &[u8], remote: &[u8]) -> Option<u32> {
        let m = h.m;
        if m.method() == Method::Cancel || local.is_empty() || remote.is_empty() {
            return None;
        }
        let mut family: Places = SmallVec::new();
        for (slot, t) in self.same_call(hash, m.call_id()) {
            let near = if t.is_caller() { local } else { remote };
            if t.is_inviting() && !t.is_unmet() && t.near_tag() == near {
                family.push(slot);
            }
        }
        let first = self.tracked(*family.first()?)?;
        // The tag fits the caller of a phone's INVITE and of the server's INVITE, so the branch is ambiguous.
        if family.iter().any(|s| self.tracked(*s).is_some_and(|t| t.is_caller() != first.is_caller())) {
            return None;
        }
        if m.method() == Method::Ack && first.invite.branch == h.branch {
            // The ACK of an unseen refusal. Its tag means nothing.
            for slot in family {
                self.with(slot, h.at.now, |t| {
                    t.life.ending.get_or_insert((h.at.now, Ending::Refused));
                    Effect::None
                });
            }
            return None;
        }
        if m.method() == Method::Ack && first.invite.cseq != m.cseq().0 {
            return None;
        }
        // The far side is the party that did not call. This message names it in From or To.
        let far_sent = m.is_request() == (first.is_caller() != h.out);
        let (value, tag) = if far_sent { (m.from(), m.from_tag()) } else { (m.to(), m.to_tag()) };
        let tag = tag.unwrap_or_default();
        let slot = match self.blank_branch(&family) {
            Some(slot) => slot,
            None => self.fork(&family, hash, h)?,
        };
        self.with(slot, h.at.now, |t| {
            t.name_far(value, tag);
            t.leg.state = LegState::Early;
            Effect::None
        });
        Some(slot)
    }
}

fn has_long_names(h: &Input<'_>) -> bool {
    [h.m.call_id(), h.m.from(), h.m.to()].iter().any(|v| v.len() > MAX_NAME)
}
