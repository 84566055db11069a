//! What to do about an answer to a re-INVITE of ours: pure, one answer at a time.

#[cfg(test)]
mod tests;

use crate::calls::model::Direction;
use std::time::Duration;

/// Glare is retried this often: the phone's own re-INVITE towards the dead server blocks it for up to 32 s (Timer B), and a
/// retry waits one second on average where it waits least.
pub(super) const MAX_GLARE: u8 = 40;
/// CSeq numbers that the dead server may have used after the last state was stored.
pub(super) const CSEQ_GAP: u32 = 100;
/// The longest Retry-After that is waited for, in seconds; a call can't hang in the air for longer.
const MAX_RETRY_AFTER: u32 = 10;

/// How a leg took the re-INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// 2xx.
    Accepted,
    /// A refusal that leaves the session as it was (RFC 3261 section 14.1); 0 if no request could be made.
    Refused(u16),
    /// The phone no longer knows the call.
    Gone,
    /// No answer.
    Unreachable,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Settle(Verdict),
    /// Send again with a CSeq that is this much higher than the last.
    Again(u32),
    /// Send again after a time between the two, in milliseconds.
    Later(u64, u64),
}

/// What has been tried on a leg.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tries {
    glare: u8,
    gap: bool,
    waited: bool,
    /// Min-SE of a 422, to be used from then on.
    pub(super) min_se: Option<u32>,
    asked_longer: bool,
}

impl Tries {
    /// Nothing tried yet, with the Min-SE that is already known.
    pub(super) fn fresh(min_se: Option<u32>) -> Self {
        Self { min_se, ..Self::default() }
    }

    /// Judges a final answer that isn't 2xx.
    pub(super) fn judge(
        &mut self,
        code: u16,
        retry_after: Option<u32>,
        min_se: Option<u32>,
        direction: Direction,
    ) -> Step {
        match (code, retry_after) {
            // RFC 3261 section 12.2.1.2. 408 comes from a proxy that reached nobody.
            (481, _) => Step::Settle(Verdict::Gone),
            (408, _) => Step::Settle(Verdict::Unreachable),
            (491, _) if self.glare < MAX_GLARE => {
                self.glare += 1;
                // RFC 3261 section 14.1: who generated the Call-ID waits longer.
                match direction {
                    Direction::Outbound => Step::Later(2100, 4000),
                    Direction::Inbound => Step::Later(0, 2000),
                }
            }
            // RFC 4028 section 7.4.
            (422, _) if min_se.is_some() && !self.asked_longer => {
                self.asked_longer = true;
                self.min_se = min_se;
                Step::Again(1)
            }
            // RFC 3261 section 12.2.2: our CSeq was too low, because the last numbers were not stored in time.
            (500, None) if !self.gap => {
                self.gap = true;
                Step::Again(CSEQ_GAP)
            }
            // Section 14.2: the phone works on another INVITE.
            (500 | 503, Some(s)) if !self.waited && s <= MAX_RETRY_AFTER => {
                self.waited = true;
                let ms = u64::from(s) * 1000;
                Step::Later(ms, ms + 500)
            }
            _ => Step::Settle(Verdict::Refused(code)),
        }
    }
}

/// When a leg with a session timer acts: the refresher at half the interval (RFC 4028 section 7.2), and the end of the call
/// if no refresh came: the other side `min(32 s, interval/3)` early (section 10).
pub(super) fn timer(interval_s: u32, local_refreshes: bool) -> (Option<Duration>, Duration) {
    let interval = Duration::from_secs(u64::from(interval_s));
    if local_refreshes {
        (Some(interval / 2), interval)
    } else {
        (None, interval.saturating_sub((interval / 3).min(Duration::from_secs(32))))
    }
}
