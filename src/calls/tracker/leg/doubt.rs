//! Decides when a leg is over, and when a message only claims so (docs/learning.md, "The end").
//!
//! Anybody can send to the server in a phone's name, so an incoming message alone ends nothing. A message from the
//! server does. A phone's claim is a doubt: the server's next message in the dialog clears it, and a period of silence
//! ends the leg.

use super::{Known, Tracked};
use crate::calls::model::LegState;
use crate::calls::tracker::{LINGER, MAX_SILENT, MIN_SESSION_S, SESSION_GRACE, UNCONFIRMED};
use crate::sip::sdp::{Direction, Sdp};
use crate::time::Time;
use std::time::Duration;

/// How long a doubt lasts without audio as evidence: on hold, or if the audio bypasses this host. A session timer of
/// the usual half an hour clears it twice in that time. An ended call that is kept costs little: at a takeover its
/// phones answer that they don't know it.
const UNHEARD: Duration = Duration::from_secs(3600);
/// A request of the server that crossed the phone's BYE says nothing about the time after it: Timer F's first
/// retransmissions.
const CROSSING: Duration = Duration::from_secs(2);

/// How long silence must last before it counts.
#[derive(Clone, Copy, Debug)]
pub(in crate::calls::tracker) struct Silence {
    /// For a phone that was heard: the time in which it would have been sampled again at the current sampling rate.
    pub(in crate::calls::tracker) quiet: Duration,
    /// For a phone that was not heard.
    pub(in crate::calls::tracker) unheard: Duration,
}

impl Silence {
    /// `believing` takes a phone's claim of the end as true, as in a report on an old capture.
    pub(in crate::calls::tracker) const fn new(believing: bool) -> Self {
        Self { quiet: Duration::ZERO, unheard: if believing { LINGER } else { UNHEARD } }
    }
}

/// How long the leg still lives. `doubt.rs` decides it; each message is noted by the file that handles it.
#[derive(Clone, Copy, Debug)]
pub(in crate::calls::tracker) struct Life {
    /// Time of the last message.
    pub(in crate::calls::tracker) last: Time,
    /// Why it has little time left, and since when.
    pub(in crate::calls::tracker) ending: Option<(Time, Ending)>,
    /// Time of the last audio from the phone.
    pub(in crate::calls::tracker) audio: Option<Time>,
}

/// Why a leg has little time left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::calls::tracker) enum Ending {
    /// The server sent BYE and has no answer.
    Bye,
    /// CANCEL was sent. Without an answer to the INVITE after 64 x T1 it counts as cancelled (RFC 3261 section 9.1).
    Cancelled,
    /// Another branch answered. Early dialogs end 64 x T1 after the first 2xx (section 13.2.2.4).
    OtherBranch,
    /// The ACK of a refusal was seen, but the refusal was not.
    Refused,
    /// The caller has sent another INVITE before an answer to this one was seen.
    Replaced,
    /// A BYE came in, and the server did not accept it or its answer was not seen.
    PhoneBye,
    /// A response to a BYE of this number came in, but no such BYE of the server was seen.
    ByeAnswered(u32),
    /// A request in the dialog was refused with a status that tells its sender to give the dialog up (section 12.2.1.2,
    /// RFC 5057 section 5.1). The server refused it, or the party that the server had asked.
    Refuted,
    /// The same, but no request was seen, or the server refused a request that anybody may have sent.
    Doubted,
}

impl Ending {
    pub(in crate::calls::tracker) const fn reason(self) -> &'static str {
        match self {
            Self::Bye => "nobody answered the BYE",
            Self::Cancelled => "cancelled",
            Self::OtherBranch => "another branch of the fork answered",
            Self::Refused => "refused or cancelled",
            Self::Replaced => "replaced by a new INVITE",
            Self::PhoneBye => "the phone sent BYE, and silence since",
            Self::ByeAnswered(_) => "the phone answered a BYE that keepcall did not see, and silence since",
            Self::Refuted | Self::Doubted => "a party answered that the dialog does not exist",
        }
    }

    const fn is_doubt(self) -> bool {
        matches!(self, Self::PhoneBye | Self::ByeAnswered(_) | Self::Refuted | Self::Doubted)
    }

    /// Whether it concerns a BYE, which may overtake the response that it ends.
    pub(in crate::calls::tracker) const fn is_bye(self) -> bool {
        matches!(self, Self::Bye | Self::PhoneBye | Self::ByeAnswered(_))
    }
}

impl Tracked {
    /// Whether the leg is up, but may be over.
    pub(in crate::calls::tracker) fn is_doubted(&self) -> bool {
        self.leg.state == LegState::Confirmed && self.life.ending.is_some_and(|(_, why)| why.is_doubt())
    }

    /// Raises a doubt. An earlier reason keeps its time, unless it is a weaker doubt.
    pub(in crate::calls::tracker) fn doubt(&mut self, why: Ending, now: Time) {
        match self.life.ending {
            Some((_, Ending::Doubted)) if why != Ending::Doubted => self.life.ending = Some((now, why)),
            Some(_) => {}
            None => self.life.ending = Some((now, why)),
        }
    }

    /// The server acts in the dialog, so the dialog is up.
    pub(in crate::calls::tracker) fn shows_life(&mut self, now: Time) {
        let crossed = |since: Time, why: Ending| why.is_bye() && now.since(since) < CROSSING;
        self.life.ending = self.life.ending.filter(|(since, why)| !why.is_doubt() || crossed(*since, *why));
    }

    /// End of a doubt raised at `since`. If the phone was heard and has agreed to send, its silence counts.
    fn doubted_until(&self, since: Time, why: Ending, silence: Silence) -> Time {
        match self.life.audio.filter(|_| self.may_speak()) {
            Some(heard) => since.max(heard) + LINGER.max(silence.quiet.min(UNHEARD)),
            None if why == Ending::Refuted => since + LINGER,
            None => since + silence.unheard,
        }
    }

    /// Whether the phone has agreed to send media.
    fn may_speak(&self) -> bool {
        let Some(received) = &self.leg.sdp_received else { return false };
        Sdp::parse(&received.body.0).is_ok_and(|sdp| {
            let speaks = |d: Direction| matches!(d, Direction::SendRecv | Direction::SendOnly);
            sdp.media().iter().any(|m| m.port != 0 && speaks(m.direction))
        })
    }

    /// When the leg is given up if it stays silent; see the constants in the parent module.
    pub(in crate::calls::tracker) fn expiry(&self, silence: Silence) -> Time {
        match (self.leg.state, self.life.ending) {
            (LegState::Ended, _) => self.life.last + LINGER,
            (LegState::Confirmed, Some((since, why))) if why.is_doubt() && self.proof.known != Known::Claimed => {
                self.doubted_until(since, why, silence).min(self.silent_until())
            }
            (_, Some((since, _))) => since + LINGER,
            (_, None) if self.proof.known == Known::Claimed => self.life.last + LINGER,
            (LegState::Calling | LegState::Early, None) => self.life.last + UNCONFIRMED,
            (LegState::Confirmed, None) => self.silent_until(),
        }
    }

    /// How long the leg lives in silence.
    fn silent_until(&self) -> Time {
        self.life.last
            + match self.leg.session_timer {
                // A phone may ask for a timer of a hundred years.
                Some(t) => {
                    (Duration::from_secs(u64::from(t.interval_s.max(MIN_SESSION_S))) + SESSION_GRACE).min(MAX_SILENT)
                }
                None => MAX_SILENT,
            }
    }
}
