//! What the client asks about a channel of a former call: its local tag, and to hang it up.

use super::{Ami, Ask};
use crate::pbx::bridges::Fact;
use crate::pbx::request::{Answer, Request, is_safe};
use crate::time::Time;

/// Advice if hanging up is not permitted.
const GRANT: &str =
    "the server does not let keepcall hang up these calls; set `write = call,reporting` for the user in manager.conf";
/// Q.850 cause 16: normal clearing.
pub(super) const NORMAL_CLEARING: &str = "16";

/// The variable that holds the local tag of a channel with this name. chan_sip has none.
pub(super) fn tag_of(name: &str) -> Option<&'static str> {
    name.starts_with("PJSIP/").then_some("CHANNEL(pjsip,local_tag)")
}

impl Ami {
    pub(super) fn ask_about(&mut self, request: Request, now: Time) {
        let (Request::Tag { channel } | Request::HangUp { channel, .. }) = &request;
        let name = self.channels.get(channel).map(|c| c.name.clone()).filter(|name| is_safe(name));
        let ask = match (request, name) {
            (Request::Tag { channel }, Some(name)) if tag_of(&name).is_some() => Ask::Tag(channel, name),
            (Request::Tag { channel }, name) => return self.tag(channel, name.unwrap_or_default(), None),
            // The name stays with the dialog, the Uniqueid does not.
            (Request::HangUp { channel, name: meant }, Some(name)) if name == meant => Ask::HangUp(channel, name),
            (Request::HangUp { channel, .. }, _) => return self.tell(Answer::Missing { channel }),
        };
        self.ask(ask, now);
    }

    pub(super) fn tag(&mut self, channel: String, name: String, tag: Option<&str>) {
        let same = self.channels.get(&channel).is_some_and(|c| c.name == name);
        let tag = tag.filter(|_| same).map(|tag| tag.as_bytes().to_vec());
        self.tell(Answer::Tag { channel, name, tag });
    }

    pub(super) fn hung_up(&mut self, channel: String, good: bool, message: &str) {
        self.tell(if good {
            Answer::Ending { channel }
        } else if message.contains("ermission") {
            Answer::Denied { error: GRANT.to_owned() }
        } else {
            Answer::Missing { channel }
        });
    }

    fn tell(&mut self, answer: Answer) {
        self.facts.push_back(Fact::Answer(answer));
    }
}
