//! What a server itself tells of its bridges, in no server's own words. Pure.
//!
//! A server names its channels; a channel may be a SIP dialog, half of a channel pair that joins two bridges inside the server, or
//! something else. [`Told`] keeps the picture that follows from the facts, and answers one question: what is this dialog
//! connected to?

mod topology;

pub use topology::Place;

use crate::pbx::ConnectedKind;
use crate::pbx::ConnectedTo;
use topology::Topology;

/// A bridge's way of joining who is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BridgeKind {
    /// All hear each other; with two in it, it is a call.
    Talk,
    /// A conference by intent, however many are in it now; its name, or an empty one.
    Conference(String),
    /// Those in it wait, and hear nobody: parking. Its name, or an empty one.
    Holding(String),
}

/// One thing that a server told. Channels and bridges go by the server's own unique names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A connection was made: what follows, up to [`Fact::Complete`], is the whole picture; what was told before goes with it.
    Begin,
    /// The picture is whole. From now on, what is not told is not so.
    Complete,
    /// The connection is lost. What was known is kept, as long as nothing speaks against it.
    Lost,
    /// There is such a channel; if it `is_sip`, its dialog will be told.
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
    /// Two channels are the ends of one inside the server: what goes in at the one comes out at the other.
    Linked {
        /// The one end.
        one: String,
        /// The other end.
        other: String,
    },
    /// There is such a bridge, and it is of this kind now.
    Bridge {
        /// The bridge.
        bridge: String,
        /// Its kind.
        kind: BridgeKind,
    },
    /// The channel is in this bridge now, and in no other.
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
    /// The bridge is no more.
    BridgeGone {
        /// The bridge.
        bridge: String,
    },
    /// What the channel is connected to as long as it is in no bridge; `None` if nothing that a caller would hear.
    Runs {
        /// The channel.
        channel: String,
        /// The application.
        application: Option<ConnectedTo>,
    },
    /// The channel is no more.
    Gone {
        /// The channel.
        channel: String,
    },
}

/// A server's application as what a leg is connected to. `None` if it only joins parties, or goes on at once: what the leg is
/// connected to follows from the bridges then.
#[must_use]
pub fn application(name: &str, data: &str) -> Option<ConnectedTo> {
    // The first argument of Queue, ConfBridge, callcenter, conference names it; both servers part arguments with a comma or another of these.
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

/// Names come from the server's files and from what is dialled; people read them.
fn clean(name: &str) -> String {
    /// Longer names are cut: they are shown in a table.
    const LONGEST: usize = 64;
    name.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

/// All that one server told.
#[derive(Default)]
pub struct Told {
    known: Topology,
    /// The picture that a new connection is drawing.
    drawn: Option<Topology>,
    live: bool,
}

impl Told {
    /// Takes a fact in; the Call-IDs of the dialogs whose place it may have changed.
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

    /// Whether the picture is whole and kept up to date: then what is not told is not so.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// What the dialog with this Call-ID is connected to.
    #[must_use]
    pub fn place(&self, call_id: &[u8]) -> Place<'_> {
        match self.known.place(call_id) {
            // What may have changed since within the next second is no knowledge once nobody tells of it.
            Place::At(ConnectedTo { kind: ConnectedKind::Nobody | ConnectedKind::Elsewhere, .. }) if !self.live => {
                Place::Unknown
            }
            place => place,
        }
    }
}

#[cfg(test)]
mod tests;
