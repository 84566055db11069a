//! One call after a takeover: its two dialogs, their transactions, and the progress of its recovery.

use super::audio::{AudioWatch, Doubt, Listening, Probe};
use super::context::Context;
use super::plan::{self, Unpassable};
use super::recoverability::Fate;
use super::reinvite::{Tries, Verdict};
use super::request;
use super::streams::Pairs;
use super::transaction::{AckedInvite, Client, Key, LIFE, LateOffer, ServedRequest, Tick};
use super::types::{Action, Counted, Outcome};
use crate::calls::model::{Call, CallEvent, Flow, Leg, SessionTimer};
use crate::sip::sdp::Place;
use crate::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// Time until an unsettled call stops blocking the queue. A time-out takes 32 s, and a window full of dead parties
/// would delay the living ones. Three sendings of an INVITE fit in.
const STALL: Duration = Duration::from_secs(2);

/// Delay between the server's 481 to a phone and our re-INVITE, so that the phone can send its own BYE first.
const ASK_AFTER: Duration = Duration::from_millis(500);

/// Phase of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// In the queue.
    Waiting,
    /// Re-INVITEs are pending.
    Recovering,
    /// Both parties have answered, and the bridge carries the call.
    Carrying,
    /// No signalling of ours; the relay forwards the audio if it can. Until this time at the latest.
    Kept(Time),
    /// The call is over. Responses are kept until this time for retransmissions.
    Over(Time),
}

/// Purpose of one of our requests.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// Our own re-INVITE, for recovery or a session timer.
    Own,
    /// Relays a request of the other phone, identified by its key.
    Relay(Key),
    /// OPTIONS to a silent party of a kept call.
    Probe,
    /// BYE or CANCEL, whose response does not matter.
    Last,
}

/// Our request that waits for its final response.
pub(super) struct Outgoing {
    pub(super) client: Client,
    pub(super) purpose: Purpose,
    /// The description offered in it.
    pub(super) offer: Option<Vec<u8>>,
    /// CANCEL is to be sent after the first 1xx, or was sent.
    pub(super) cancel: Cancel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancel {
    No,
    Wanted,
    Sent,
}

/// Our pending requests other than INVITE in one dialog. At the limit, a relayed offer is answered 491 and INFO or
/// MESSAGE 500.
pub(super) const MAX_OTHERS: usize = 8;
/// Remembered requests of a phone with their responses, per dialog. The oldest completed one gives way.
pub(super) const MAX_SERVED: usize = 16;
/// Our INVITEs with a remembered ACK, per dialog.
pub(super) const MAX_ACKED: usize = 8;

/// One dialog.
#[derive(Default)]
pub(super) struct Dialog {
    pub(super) invite: Option<Outgoing>,
    pub(super) others: Vec<Outgoing>,
    pub(super) acked: VecDeque<AckedInvite>,
    pub(super) served: VecDeque<ServedRequest>,
    /// Why this party may be gone.
    pub(super) doubt: Option<Doubt>,
    /// Result of the recovery's re-INVITE. `None` while it is pending.
    pub(super) verdict: Option<Verdict>,
    pub(super) tries: Tries,
    /// When to resend our own re-INVITE.
    pub(super) retry: Option<Time>,
    /// Offer of our own re-INVITE, set while it is pending or waits for a retry.
    pub(super) own_offer: Option<Vec<u8>>,
    pub(super) refresh: Option<Time>,
    pub(super) expires: Option<Time>,
    /// Our offer to the phone that asked for one, while its answer is due in the ACK.
    pub(super) late_offer: Option<LateOffer>,
    /// Our own re-INVITE passes on what the other phone has answered to such an offer. What that phone had been told
    /// before.
    pub(super) passing: Option<Vec<u8>>,
    /// Number of completed exchanges of descriptions.
    pub(super) exchanges: u64,
    /// CSeq of our last INVITE that was accepted.
    pub(super) settled: Option<u32>,
    /// An offer of ours that was given up. The phone may have seen its version.
    pub(super) spent: Option<Vec<u8>>,
    pub(super) probe: Probe,
    /// Nobody answered our BYE.
    pub(super) unheard: bool,
    /// The server's media address for each m-line at takeover. A disabled line may return on its old port.
    pub(super) anchors: Option<Vec<Option<Place>>>,
}

impl Dialog {
    /// An exchange of descriptions was completed, so the phone knows the newest version.
    pub(super) fn exchanged(&mut self) {
        self.exchanges += 1;
        self.spent = None;
    }
}

/// One call.
pub(super) struct CarriedCall {
    pub(super) call: Call,
    pub(super) sides: Vec<Dialog>,
    pub(super) phase: Phase,
    pub(super) flows: Vec<Flow>,
    pub(super) unpassable: Option<Unpassable>,
    /// Which m-lines of the two legs belong together. No line gets another partner while the call is carried.
    pub(super) pairs: Pairs,
    pub(super) audio: AudioWatch,
    /// The counts of the first seconds, while they are taken.
    pub(super) listening: Option<Listening>,
    pub(super) counted: Option<Counted>,
    /// When the carried call is looked at next: first by its audio, then by asking.
    pub(super) look: Option<Time>,
    /// When the operator's limit ends the call.
    pub(super) bound: Option<Time>,
    started: Option<Time>,
    pub(super) last_answer: Time,
    accepted: u32,
    /// The call is over, and a party has not answered its BYE yet. Why it is over.
    pub(super) untold: Option<&'static str>,
    pub(super) outcome: Option<Outcome>,
    dirty: bool,
}

impl CarriedCall {
    pub(super) fn new(mut call: Call, cx: &Context<'_>) -> Self {
        for leg in &mut call.legs {
            if let Some(target) = request::own_target(leg, &cx.settings.ground.advertised) {
                leg.local_target = target.as_slice().into();
            }
        }
        let (flows, unpassable) = match plan::paths_of(&call, &cx.settings.ground) {
            Ok(paths) => (paths.flows, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        let side = |leg: &Leg| Dialog { anchors: plan::anchors(leg, &cx.settings.ground), ..Dialog::default() };
        let sides = call.legs.iter().map(|leg| side(leg)).collect();
        let bound = cx.settings.max_carried.filter(|_| !call.emergency).map(|most| cx.now + most);
        Self {
            pairs: plan::pairs_of(&call),
            call,
            sides,
            phase: Phase::Waiting,
            flows,
            unpassable,
            audio: AudioWatch::default(),
            listening: None,
            counted: None,
            look: None,
            bound,
            started: None,
            last_answer: Time::ZERO,
            accepted: 0,
            untold: None,
            outcome: None,
            dirty: false,
        }
    }

    pub(super) fn fate(&self) -> Fate {
        Fate::of(&self.call, self.unpassable)
    }

    /// The leg with these tags, seen from the server.
    pub(super) fn side_of(&self, local_tag: Option<&[u8]>, remote_tag: Option<&[u8]>) -> Option<usize> {
        let (local, remote) = (local_tag?, remote_tag?);
        self.call.legs.iter().position(|l| *l.local_tag == *local && *l.remote_tag == *remote)
    }

    pub(super) fn other(&self, side: usize) -> Option<usize> {
        let other = 1_usize.checked_sub(side)?;
        (other < self.sides.len()).then_some(other)
    }

    /// Starts the recovery when the call's turn comes.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>) {
        if self.phase != Phase::Waiting {
            return;
        }
        self.started = Some(cx.now);
        self.last_answer = cx.now;
        self.phase = Phase::Recovering;
        for side in 0..self.sides.len() {
            self.begin_side(side, cx);
        }
        self.settle(cx);
        self.flush(cx);
    }

    pub(super) fn begin_side(&mut self, side: usize, cx: &mut Context<'_>) {
        let offer = plan::offer_for(&self.call, side, &cx.settings.ground)
            .and_then(|body| crate::sip::sdp::continue_origin(&body).ok());
        match offer {
            Some(offer) => self.invite_own(side, offer, 1, cx),
            // Without an o= line to continue, no valid offer exists.
            None => self.sides[side].verdict = Some(Verdict::Refused(0)),
        }
    }

    /// Records the result of our own re-INVITE on a leg.
    pub(super) fn judged(&mut self, side: usize, verdict: Verdict, cx: &mut Context<'_>) {
        self.sides[side].own_offer = None;
        self.sides[side].retry = None;
        self.last_answer = cx.now;
        if let Some(before) = self.sides[side].passing.take() {
            self.passed_on_answer(side, verdict, before, cx);
        }
        if matches!(verdict, Verdict::Gone | Verdict::Unreachable) {
            self.doubted(side, verdict, cx);
            if matches!(self.phase, Phase::Over(_)) || !self.is_lost(side) {
                return;
            }
        } else {
            self.is_there(side);
        }
        if self.phase == Phase::Recovering {
            if verdict == Verdict::Accepted {
                self.accepted += 1;
            }
            self.sides[side].verdict = Some(verdict);
        }
        match verdict {
            Verdict::Gone | Verdict::Unreachable => {}
            Verdict::Accepted => self.arm(side, cx),
            Verdict::Refused(_) => {
                // The dialog continues, but only until its old session timer expires.
                if self.sides[side].expires.is_none() {
                    self.arm(side, cx);
                } else if let Some(timer) = self.call.legs[side].session_timer.filter(|t| t.local_refreshes) {
                    self.sides[side].refresh = Some(cx.now + Duration::from_secs(u64::from(timer.interval_s)) / 8);
                }
            }
        }
        self.settle(cx);
    }

    fn settle(&mut self, cx: &mut Context<'_>) {
        if self.phase != Phase::Recovering || self.sides.iter().any(|s| s.verdict.is_none()) {
            return;
        }
        self.phase = Phase::Carrying;
        self.look_later(cx.now);
        let refused = self.sides.iter().find_map(|s| match s.verdict {
            Some(Verdict::Refused(code)) => Some(code),
            _ => None,
        });
        let outcome = match refused {
            _ if (0..self.sides.len()).any(|side| self.is_lost(side)) => Outcome::Unreachable,
            None => match self.hearing(true, cx.settings).why_not() {
                Some(why) => Outcome::Refused { code: None, reason: why.to_owned() },
                None => Outcome::Recovered,
            },
            Some(0) => Outcome::Refused {
                code: None,
                reason: "keepcall could not build an offer from the stored call".to_owned(),
            },
            Some(code) => Outcome::Refused { code: Some(code), reason: "a party refused the re-INVITE".to_owned() },
        };
        let recovered = outcome == Outcome::Recovered;
        self.report(outcome, cx);
        if recovered {
            self.listen(cx);
        }
    }

    /// Restarts a leg's session timer from its stored state.
    pub(super) fn arm(&mut self, side: usize, cx: &Context<'_>) {
        let (refresh, expires) = match self.call.legs[side].session_timer {
            Some(SessionTimer { interval_s, local_refreshes }) => {
                let (refresh, expires) = super::reinvite::timer(interval_s, local_refreshes);
                (refresh.map(|d| cx.now + d), Some(cx.now + expires))
            }
            None => (None, None),
        };
        (self.sides[side].refresh, self.sides[side].expires) = (refresh, expires);
    }

    pub(super) fn report(&mut self, outcome: Outcome, cx: &mut Context<'_>) {
        if self.outcome.is_some() {
            return;
        }
        self.outcome = Some(outcome.clone());
        let answered_after = self.last_answer.since(self.started.unwrap_or(self.last_answer));
        let call = self.call.id.clone();
        let hearing = match self.phase {
            Phase::Over(_) => None,
            phase => Some(self.hearing(phase == Phase::Carrying, cx.settings)),
        };
        cx.actions.push_back(Action::Outcome { call, outcome, reinvited: self.accepted, answered_after, hearing });
    }

    /// Ends the call: sends BYE to each side set in `bye`, and removes the call from the store and the relay.
    pub(super) fn end(&mut self, outcome: Outcome, reason: &'static str, bye: &[bool; 2], cx: &mut Context<'_>) {
        if matches!(self.phase, Phase::Over(_)) {
            return;
        }
        self.wind_up(outcome, cx);
        for (side, bye) in (0..self.sides.len()).zip(bye) {
            self.refuse_pending(side, cx);
            self.abandon(side, cx.now);
            let s = &mut self.sides[side];
            s.others.retain(|o| matches!(o.purpose, Purpose::Last));
            if *bye {
                self.send_bye(side, reason, cx);
            }
        }
        self.store_end(reason, cx);
    }

    /// Ends the call without a word to anybody.
    pub(super) fn close(&mut self, outcome: Outcome, reason: &'static str, cx: &mut Context<'_>) {
        self.wind_up(outcome, cx);
        self.remove(reason, cx);
    }

    fn wind_up(&mut self, outcome: Outcome, cx: &mut Context<'_>) {
        // By then every retransmission of a phone has arrived: 32 s for a BYE, and as much for its response.
        self.phase = Phase::Over(cx.now + LIFE * 2);
        for side in &mut self.sides {
            (side.retry, side.refresh, side.expires) = (None, None, None);
            (side.own_offer, side.late_offer, side.passing) = (None, None, None);
        }
        if !std::mem::take(&mut self.flows).is_empty() {
            cx.actions.push_back(Action::Flows { call: self.call.id.clone(), flows: Vec::new() });
        }
        self.dirty = false;
        self.report(outcome, cx);
        if self.listening.is_some() {
            self.listened(Counted::Unknown, cx);
        }
    }

    /// Marks the stored state as changed. It is written at the end of the current packet or deadline.
    pub(super) const fn touch(&mut self) {
        self.dirty = true;
    }

    /// Stores the call if it changed.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) {
        if std::mem::take(&mut self.dirty) && !matches!(self.phase, Phase::Over(_)) {
            self.call.epoch = cx.epoch;
            self.call.node.clone_from(&cx.settings.node);
            cx.actions.push_back(Action::Store(CallEvent::Put(Box::new(self.call.clone()))));
        }
    }

    /// Updates the audio paths after a description changed. If the new paths cannot be determined, the old ones stay.
    pub(super) fn reflow(&mut self, cx: &mut Context<'_>) {
        if let Ok(plan::Paths { flows, .. }) = plan::paths_of(&self.call, &cx.settings.ground)
            && flows != self.flows
        {
            // Other paths have other counters.
            self.audio = AudioWatch::default();
            self.flows.clone_from(&flows);
            cx.actions.push_back(Action::Flows { call: self.call.id.clone(), flows });
            if self.listening.is_some() || self.sides.iter().any(|s| s.doubt.is_some()) {
                self.watch(cx.now);
            }
            self.listen_anew();
            self.listened_in_vain(cx);
        }
    }

    /// A phone hung up at the server's port. The server does not know the call and answers the BYE itself.
    pub(super) fn overheard_bye(&mut self, side: usize, cx: &mut Context<'_>) {
        let mut bye = [true, true];
        bye[side.min(1)] = false;
        self.last_answer = cx.now;
        self.end(Outcome::HungUp, "hung up", &bye, cx);
    }

    /// The server has answered a phone's request with 481. The phone should then drop the call (RFC 3261 section
    /// 12.2.1.2) and may do so without BYE. A re-INVITE finds out, and also tells a phone that continues where to send
    /// its requests. A call that is not yet carried gets its re-INVITE anyway.
    pub(super) fn disowned(&mut self, side: usize, cx: &mut Context<'_>) {
        if self.phase == Phase::Carrying {
            let ask = cx.now + ASK_AFTER;
            let refresh = &mut self.sides[side].refresh;
            *refresh = Some(refresh.map_or(ask, |at| at.min(ask)));
        }
    }

    /// The call's next deadline, or [`Time::FAR`] if it has none.
    pub(super) fn deadline(&self, now: Time) -> Time {
        let side = |s: &Dialog| {
            let clients = s.invite.iter().chain(&s.others).map(|o| o.client.deadline());
            let served = s.served.iter().map(ServedRequest::deadline);
            let acked = s.acked.iter().map(|a| a.until);
            let own = [s.retry, s.refresh, s.expires].into_iter().flatten();
            clients.chain(served).chain(acked).chain(own).min().unwrap_or(Time::FAR)
        };
        let over = match self.phase {
            Phase::Over(until) => until,
            Phase::Kept(until) if self.flows.is_empty() => until,
            Phase::Kept(until) => self.bound.map_or(until, |bound| bound.min(until)),
            Phase::Carrying => self.bound.unwrap_or(Time::FAR),
            Phase::Waiting | Phase::Recovering => Time::FAR,
        };
        let stalls = self.started.map(|at| at + STALL).filter(|at| *at > now).unwrap_or(Time::FAR);
        let counts = if matches!(self.phase, Phase::Over(_)) { Time::FAR } else { self.next_count(now) };
        self.sides.iter().map(side).min().unwrap_or(Time::FAR).min(over).min(stalls).min(counts)
    }

    /// The call is over and need not be remembered.
    pub(super) fn forgotten(&self, now: Time) -> bool {
        matches!(self.phase, Phase::Over(until) if now >= until)
    }

    /// Whether the call occupies a place in the window.
    pub(super) fn busy(&self, now: Time) -> bool {
        let fresh = self.started.is_some_and(|at| now < at + STALL);
        match self.phase {
            Phase::Recovering => fresh,
            Phase::Over(_) => fresh && self.sides.iter().any(|s| !s.others.is_empty()),
            Phase::Waiting | Phase::Carrying | Phase::Kept(_) => false,
        }
    }

    pub(super) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        self.outlived(cx);
        if !matches!(self.phase, Phase::Over(_)) {
            self.count(cx);
        }
        for side in 0..self.sides.len() {
            self.time_clients(side, cx);
            self.time_served(side, cx);
            let s = &mut self.sides[side];
            s.acked.retain(|a| a.until > cx.now);
            if s.retry.is_some_and(|at| cx.now >= at) {
                self.retry_own(side, cx);
            }
            if self.sides[side].expires.take_if(|at| cx.now >= *at).is_some() {
                self.ask(side, cx.now);
            }
            if self.sides[side].refresh.is_some_and(|at| cx.now >= at) {
                self.refresh(side, cx);
            }
        }
        self.flush(cx);
    }

    fn time_served(&mut self, side: usize, cx: &mut Context<'_>) {
        let mut unacknowledged = false;
        let mut kept = VecDeque::new();
        for mut served in std::mem::take(&mut self.sides[side].served) {
            match served.on_time(cx.now) {
                Tick::Idle => {}
                Tick::Resend => cx.send(served.at, served.source, served.response.clone()),
                Tick::Expired => {
                    // RFC 3261 section 13.3.1.4: the dialog of a 2xx without ACK after 64*T1 is in doubt.
                    unacknowledged |= served.unacknowledged() && (200..300).contains(&served.code);
                    // The answer to a late offer would have come in that ACK.
                    self.sides[side].late_offer.take_if(|late| late.cseq == served.key.cseq);
                    continue;
                }
            }
            kept.push_back(served);
        }
        self.sides[side].served = kept;
        if unacknowledged && !matches!(self.phase, Phase::Over(_)) {
            self.ask(side, cx.now);
        }
    }
}
