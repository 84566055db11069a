//! One party of a kept call is silent while the other one sends. Silence alone is no evidence: a phone that only listens
//! may send nothing. So a silent party whose dialog is known is asked by OPTIONS, which changes nothing at its phone.
//! A party that cannot be asked stays as it is; the limit of kept calls bounds that.

use super::audio::Probe;
use super::call::{CarriedCall, Phase, Purpose};
use super::context::Context;
use super::evidence::ASK_AGAIN;
use super::reinvite::Verdict;
use super::request;
use super::types::Outcome;

impl CarriedCall {
    /// Asks the silent parties of a kept call, if they can be asked.
    pub(super) fn ask_silent(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.phase, Phase::Kept(_)) || self.call.emergency || self.is_held() {
            return;
        }
        let reachable = self.reachable(cx);
        for side in 0..self.sides.len() {
            let Probe { settled, doubt } = self.sides[side].probe;
            let rest = if doubt { ASK_AGAIN } else { cx.settings.rtp_timeout };
            let asked = self.sides[side].others.iter().any(|o| matches!(o.purpose, Purpose::Probe));
            let due = settled.is_none_or(|at| cx.now >= at + rest);
            if !asked && due && reachable[side.min(1)] && self.audio.is_silent(side, cx.now, cx.settings.rtp_timeout) {
                self.send_other(side, "OPTIONS", Purpose::Probe, None, cx, |b, _| {
                    b.header("Accept", "application/sdp").header("User-Agent", request::USER_AGENT)
                });
            }
        }
        self.flush(cx);
    }

    /// The party has answered, or `code` is 408 because it has not. Two doubts and its silence are evidence.
    pub(super) fn probed(&mut self, side: usize, code: u16, cx: &mut Context<'_>) {
        let verdict = match code {
            481 => Some(Verdict::Gone),
            408 => Some(Verdict::Unreachable),
            _ => None,
        };
        let before =
            std::mem::replace(&mut self.sides[side].probe, Probe { settled: Some(cx.now), doubt: verdict.is_some() });
        let silent = self.audio.is_silent(side, cx.now, cx.settings.rtp_timeout);
        let kept = matches!(self.phase, Phase::Kept(_)) && !self.call.emergency && !self.is_held();
        if let Some(verdict) = verdict.filter(|_| before.doubt && silent && kept) {
            let mut bye = self.reachable(cx);
            bye[side.min(1)] &= verdict != Verdict::Gone;
            self.end(Outcome::Gone, "party gone", &bye, cx);
        }
    }
}
