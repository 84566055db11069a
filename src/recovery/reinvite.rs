//! Decides the next step after a response to our re-INVITE. Pure, one response at a time.

#[cfg(test)]
mod tests;

use crate::calls::model::Direction;
use std::time::Duration;

/// Retries after glare. The phone's own re-INVITE to the dead server blocks it for up to 32 s (Timer B), and the
/// shorter retry delay averages one second.
pub(super) const MAX_GLARE: u8 = 40;
/// CSeq numbers that the dead server may have used after the last stored state.
pub(super) const CSEQ_GAP: u32 = 100;
/// Longest Retry-After to wait for, in seconds. A call cannot hang in the air for longer.
const MAX_RETRY_AFTER: u32 = 10;

/// Result of the re-INVITE on a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// 2xx.
    Accepted,
    /// A refusal that leaves the session unchanged (RFC 3261 section 14.1). 0 if no request could be sent.
    Refused(u16),
    /// The phone no longer knows the call.
    Gone,
    /// No response.
    Unreachable,
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Settle(Verdict),
    /// Resend with the CSeq raised by this step.
    Again(u32),
    /// Resend after a random delay between the two, in milliseconds.
    Later(u64, u64),
}

/// Attempts so far on a leg.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tries {
    glare: u8,
    gap: bool,
    waited: bool,
    /// Min-SE from a 422, used from then on.
    pub(super) min_se: Option<u32>,
    asked_longer: bool,
}

impl Tries {
    /// No attempts yet, with the known Min-SE.
    pub(super) fn fresh(min_se: Option<u32>) -> Self {
        Self { min_se, ..Self::default() }
    }

    /// Judges a final response other than 2xx.
    pub(super) fn judge(
        &mut self,
        code: u16,
        retry_after: Option<u32>,
        min_se: Option<u32>,
        direction: Direction,
    ) -> Step {
        match (code, retry_after) {
            // RFC 3261 section 12.2.1.2. A proxy sends 408 when it cannot reach the phone.
            (481, _) => Step::Settle(Verdict::Gone),
            (408, _) => Step::Settle(Verdict::Unreachable),
            (491, _) if self.glare < MAX_GLARE => {
                self.glare += 1;
                // RFC 3261 section 14.1: the owner of the Call-ID waits longer.
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
            // Section 14.2: the phone is busy with another INVITE.
            (500 | 503, Some(s)) if !self.waited && s <= MAX_RETRY_AFTER => {
                self.waited = true;
                let ms = u64::from(s) * 1000;
                Step::Later(ms, ms + 500)
            }
            _ => Step::Settle(Verdict::Refused(code)),
        }
    }
}

/// Deadlines of a leg's session timer. The refresher acts at half the interval (RFC 4028 section 7.2). Without a
/// refresh the call ends: at the end of the interval for the refresher, and `min(32 s, interval/3)` earlier for the
/// other side (section 10).
pub(super) fn timer(interval_s: u32, local_refreshes: bool) -> (Option<Duration>, Duration) {
    let interval = Duration::from_secs(u64::from(interval_s));
    if local_refreshes {
        (Some(interval / 2), interval)
    } else {
        (None, interval.saturating_sub((interval / 3).min(Duration::from_secs(32))))
    }
}
