//! A server's own report of its bridges, independent of its protocol. Pure.
//!
//! A server names its channels. A channel may be a SIP dialog, half of a channel pair that joins two bridges inside the
//! server, or something else. [`ServerReports`] builds the state from the reported facts and answers one question: what
//! is this dialog connected to?

mod topology;

pub use topology::Place;

use crate::pbx::ConnectedKind;
use crate::pbx::ConnectedTo;
use crate::pbx::request::Answer;
use topology::Topology;

/// How a bridge joins its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BridgeKind {
    /// All hear each other. With two members it is a call.
    Talk,
    /// A conference by intent, with any number of members. Its name, or an empty one.
    Conference(String),
    /// The members wait and hear nobody: parking. Its name, or an empty one.
    Holding(String),
}

/// One report of a server. Channels and bridges have the server's own unique names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A connection was made. The facts up to [`Fact::Complete`] are the full state and replace all earlier facts.
    Begin,
    /// The state is complete. From now on, whatever is not reported does not exist.
    Complete,
    /// The connection is lost. The known state stays as long as nothing contradicts it.
    Lost,
    /// A channel exists. If it `is_sip`, its dialog will be reported.
    Channel {
        /// The channel.
        channel: String,
        /// Whether it is a SIP dialog.
        is_sip: bool,
    },
    /// The channel is the dialog with this Call-ID.
    Dialog {
        /// The channel.
        channel: String,
        /// Call-ID, verbatim.
        call_id: Vec<u8>,
    },
    /// Two channels are the ends of one link inside the server: audio into one comes out of the other.
    Linked {
        /// The one end.
        one: String,
        /// The other end.
        other: String,
    },
    /// A bridge exists and now has this kind.
    Bridge {
        /// The bridge.
        bridge: String,
        /// Its kind.
        kind: BridgeKind,
    },
    /// The channel is now in this bridge, and in no other.
    Enter {
        /// The bridge.
        bridge: String,
        /// The channel.
        channel: String,
    },
    /// The channel is no longer in this bridge.
    Leave {
        /// The bridge.
        bridge: String,
        /// The channel.
        channel: String,
    },
    /// The bridge no longer exists.
    BridgeGone {
        /// The bridge.
        bridge: String,
    },
    /// What the channel is connected to outside of bridges. `None` if it is nothing that a caller would hear.
    Runs {
        /// The channel.
        channel: String,
        /// The application.
        application: Option<ConnectedTo>,
    },
    /// The channel no longer exists.
    Gone {
        /// The channel.
        channel: String,
    },
    /// The answer to a request. It says nothing about bridges.
    Answer(Answer),
}

/// What a leg in this application is connected to. `None` if the application only joins parties or ends at once,
/// because the bridges then show the connection.
#[must_use]
pub fn application(name: &str, data: &str) -> Option<ConnectedTo> {
    // Queue, ConfBridge, callcenter and conference have their name in the first argument. Both servers separate
    // arguments with a comma or one of the other characters.
    let first = || data.split([',', '|', '+', '!', ' ']).next().unwrap_or_default().to_owned();
    let (kind, name) = match name.to_ascii_lowercase().as_str() {
        "" | "dial" | "appdial" | "appdial2" | "appqueue" | "bridge" | "intercept" | "answer" | "set" | "export"
        | "goto" | "gosub" | "return" | "noop" | "log" | "progress" | "ringing" | "pre_answer" | "ring_ready"
        | "transfer" | "redirect" | "att_xfer" | "three_way" | "hangup" | "busy" | "congestion" | "bridge_wait"
        | "execute_extension" => {
            return None;
        }
        "queue" | "callcenter" | "fifo" => (ConnectedKind::Queue, first()),
        "confbridge" | "meetme" | "conference" => {
            (ConnectedKind::Conference, first().split('@').next().unwrap_or_default().to_owned())
        }
        "park" | "parkandannounce" | "valet_park" | "bridgewait" | "parkedcall" | "hold" => {
            (ConnectedKind::Parked, String::new())
        }
        "voicemail" | "voicemailmain" | "minivmrecord" => (ConnectedKind::Voicemail, String::new()),
        _ => (ConnectedKind::Application, name.to_owned()),
    };
    Some(ConnectedTo { kind, name: clean(&name) })
}

/// Names come from the server's files and from dialled numbers, and people read them.
fn clean(name: &str) -> String {
    /// Longer names are truncated, because they appear in a table.
    const LONGEST: usize = 64;
    name.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

/// All reports of one server.
#[derive(Default)]
pub struct ServerReports {
    known: Topology,
    /// State under construction for a new connection.
    drawn: Option<Topology>,
    live: bool,
}

impl ServerReports {
    /// Applies a fact. Returns the Call-IDs of dialogs whose place may have changed.
    pub fn handle(&mut self, fact: &Fact) -> Vec<Box<[u8]>> {
        match fact {
            Fact::Begin => {
                self.drawn = Some(Topology::default());
                Vec::new()
            }
            Fact::Complete => {
                let Some(new) = self.drawn.take() else { return Vec::new() };
                let old = std::mem::replace(&mut self.known, new);
                self.live = true;
                let mut all: Vec<_> = old.dialogs().chain(self.known.dialogs()).map(Box::from).collect();
                all.sort_unstable();
                all.dedup();
                all
            }
            Fact::Lost => {
                self.drawn = None;
                self.live = false;
                self.known.dialogs().map(Box::from).collect()
            }
            told => match &mut self.drawn {
                Some(drawn) => {
                    drawn.handle(told);
                    Vec::new()
                }
                None => self.known.handle(told),
            },
        }
    }

    /// Whether the state is complete and up to date. Then whatever is not reported does not exist.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// What the dialog with this Call-ID is connected to.
    #[must_use]
    pub fn place(&self, call_id: &[u8]) -> Place<'_> {
        match self.known.place(call_id) {
            // Without live reports, a state that may have changed within the next second is no longer knowledge.
            Place::At(ConnectedTo { kind: ConnectedKind::Nobody | ConnectedKind::Elsewhere, .. }) if !self.live => {
                Place::Unknown
            }
            place => place,
        }
    }
}

#[cfg(test)]
mod tests;
