//! A leg's session timer (RFC 4028), as a third party can read it.

use crate::calls::model::SessionTimer;
use crate::sip::message::{Message, Name, Refresher};

/// Session timer fields of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RequestedTimer {
    refresher: Option<Refresher>,
    /// The sender can't refresh according to its Supported.
    unable: bool,
}

impl RequestedTimer {
    pub(super) fn of(m: &Message<'_>) -> Self {
        let able = m.lists(Name::Supported, "timer") || m.lists(Name::Require, "timer");
        Self { refresher: m.session_expires().and_then(|wish| wish.refresher), unable: !able }
    }
}

/// RFC 4028 section 9: the 2xx names the refresher, and a 2xx without Session-Expires ends the timer. If the 2xx names
/// none, the request does. If neither does, the sender of the request refreshes, if it can.
pub(super) fn agreed(m: &Message<'_>, asked: RequestedTimer, request_by_server: bool) -> Option<SessionTimer> {
    let answer = m.session_expires()?;
    let default = if asked.unable { Refresher::Uas } else { Refresher::Uac };
    let who = answer.refresher.or(asked.refresher).unwrap_or(default);
    Some(SessionTimer { interval_s: answer.interval_s, local_refreshes: (who == Refresher::Uac) == request_by_server })
}
