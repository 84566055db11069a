//! The manager interface of Asterisk (AMI, version 12 and later). Pure.
//!
//! After the login the client requests the full state once (`Status`, `BridgeList`), then events keep it up to date. A
//! channel's id is its Uniqueid. When Asterisk exchanges the insides of two channels (`Rename`), the name follows the
//! SIP dialog, so the client queries a renamed channel's dialog again. It subscribes only to events of class `call`. If
//! no bridge shows what a channel is connected to, the client queries the channel's application. That costs the server
//! less than an event for every step of every dial plan.

mod former;

use super::blocks::{Block, Inbox};
use super::questions::{ANSWER, Questions};
use super::{Dialect, MAX_CHANNELS, Refusal};
use crate::pbx::bridges::{self, BridgeKind, Fact};
use crate::pbx::request::Request;
use crate::time::Time;
use md5::{Digest as _, Md5};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

/// Silence before a ping.
const IDLE: Duration = Duration::from_secs(10);
/// Delays before a channel outside of bridges is queried for its application. Most channels join a party before the
/// first.
const LOOK: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(30)];
/// Advice to the operator if a permission is missing.
const GRANT: &str = "set `read = call` and `write = reporting` for the user in manager.conf";

/// Progress of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Banner,
    Challenge,
    Login,
    /// The lists were requested. The number of lists that have not ended.
    Listing(u8),
    Ready,
}

/// The query that a response answers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ask {
    Challenge,
    Login,
    Channels,
    Bridges,
    /// The Call-ID of the channel with this Uniqueid, which had this name.
    Dialog(String, String),
    /// The application of the channel with this Uniqueid and name.
    Runs(String, String),
    /// The local tag of the channel with this Uniqueid and name.
    Tag(String, String),
    /// Hangs up the channel with this Uniqueid and name.
    HangUp(String, String),
    Ping,
}

struct Channel {
    name: String,
    /// Whether its Call-ID is known or was requested.
    dialog: bool,
    up: bool,
    bridged: bool,
    /// When the next query for its application is due. `looked` counts the queries so far.
    look: Option<Time>,
    looked: usize,
}

/// One connection to an Asterisk.
pub struct Ami {
    user: String,
    secret: String,
    stage: Stage,
    inbox: Inbox,
    out: VecDeque<Vec<u8>>,
    facts: VecDeque<Fact>,
    /// The number of each is its ActionID.
    questions: Questions<Ask>,
    /// By Uniqueid.
    channels: HashMap<String, Channel>,
    /// Uniqueid by name.
    names: HashMap<String, String>,
    looks: BTreeSet<(Time, String)>,
    heard: Time,
}

impl Ami {
    /// A connection made at `now`, with a manager user's name and secret.
    #[must_use]
    pub fn new(user: &str, secret: &str, now: Time) -> Self {
        Self {
            user: user.to_owned(),
            secret: secret.to_owned(),
            stage: Stage::Banner,
            inbox: Inbox::default(),
            out: VecDeque::new(),
            facts: VecDeque::new(),
            questions: Questions::new(),
            channels: HashMap::new(),
            names: HashMap::new(),
            looks: BTreeSet::new(),
            heard: now,
        }
    }

    fn ask(&mut self, ask: Ask, now: Time) {
        let Some(ask) = self.questions.admits(ask) else { return };
        let action: &[(&str, &str)] = match &ask {
            Ask::Challenge => &[("Action", "Challenge"), ("AuthType", "MD5")],
            Ask::Login => &[],
            // All channels: their bridges and their applications.
            Ask::Channels => &[("Action", "Status")],
            Ask::Bridges => &[("Action", "BridgeList")],
            Ask::Dialog(_, name) => {
                &[("Action", "Getvar"), ("Channel", name), ("Variable", call_id_of(name).unwrap_or_default())]
            }
            Ask::Runs(_, name) => &[("Action", "Status"), ("Channel", name)],
            Ask::Tag(_, name) => {
                &[("Action", "Getvar"), ("Channel", name), ("Variable", former::tag_of(name).unwrap_or_default())]
            }
            Ask::HangUp(_, name) => &[("Action", "Hangup"), ("Channel", name), ("Cause", former::NORMAL_CLEARING)],
            Ask::Ping => &[("Action", "Ping")],
        };
        self.send(action, ask.clone(), now);
    }

    fn send(&mut self, lines: &[(&str, &str)], ask: Ask, now: Time) {
        let id = self.questions.open(ask, now);
        let mut text = String::new();
        for (name, value) in lines {
            // A line break in a value would start a header or an action of its own.
            let value: String = value.chars().filter(|c| !c.is_control()).collect();
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let _ = write!(text, "ActionID: {id}\r\n\r\n");
        self.out.push_back(text.into_bytes());
    }

    fn block(&mut self, b: &Block, now: Time) -> Result<(), Refusal> {
        let id: Option<u64> = b.get("ActionID").and_then(|id| id.parse().ok());
        if let Some(response) = b.get("Response") {
            let Some(ask) = id.and_then(|id| self.questions.answered(id)) else { return Ok(()) };
            self.response(ask, response.eq_ignore_ascii_case("Success"), b, now)?;
            while let Some(next) = self.questions.next_waiting() {
                self.ask(next, now);
            }
        } else if let Some(event) = b.get("Event") {
            let event = event.to_owned();
            self.event(&event, b, now)?;
        }
        self.complete();
        Ok(())
    }

    fn response(&mut self, ask: Ask, good: bool, b: &Block, now: Time) -> Result<(), Refusal> {
        let message = || b.get("Message").unwrap_or("no reason given").to_owned();
        match ask {
            Ask::Challenge => {
                let Some(challenge) = b.get("Challenge").filter(|_| good) else {
                    return Err(Refusal::Login(message()));
                };
                let mut key = String::new();
                for byte in Md5::digest(format!("{challenge}{}", self.secret)) {
                    let _ = write!(key, "{byte:02x}");
                }
                let user = self.user.clone();
                let login =
                    [("Action", "Login"), ("AuthType", "MD5"), ("Username", &user), ("Key", &key), ("Events", "call")];
                self.stage = Stage::Login;
                self.send(&login, Ask::Login, now);
            }
            Ask::Login if good => {
                self.stage = Stage::Listing(2);
                self.facts.push_back(Fact::Begin);
                self.ask(Ask::Channels, now);
                self.ask(Ask::Bridges, now);
            }
            Ask::Login => return Err(Refusal::Login(message())),
            Ask::Channels | Ask::Bridges if !good => return Err(Refusal::Permission(message(), GRANT)),
            // The lists follow as events.
            Ask::Channels | Ask::Bridges | Ask::Ping => {}
            Ask::Dialog(id, name) => match b.get("Value").filter(|_| good) {
                Some(value) if self.channels.get(&id).is_some_and(|c| c.name == name) => {
                    self.facts.push_back(Fact::Dialog { channel: id, call_id: value.as_bytes().to_vec() });
                }
                None if message().contains("ermission") => return Err(Refusal::Permission(message(), GRANT)),
                // The channel is gone, was renamed and queried again, or has no dialog yet.
                _ => {
                    if let Some(c) = self.channels.get_mut(&id).filter(|c| c.name == name) {
                        c.dialog = false;
                    }
                }
            },
            // A channel that is gone has its own event.
            Ask::Runs(..) => {}
            Ask::Tag(channel, name) => self.tag(channel, name, b.get("Value").filter(|_| good)),
            Ask::HangUp(channel, _) => self.hung_up(channel, good, &message()),
        }
        Ok(())
    }

    fn event(&mut self, event: &str, b: &Block, now: Time) -> Result<(), Refusal> {
        let Some(id) = b.get("Uniqueid").map(str::to_owned) else {
            match event {
                "StatusComplete" | "BridgeListComplete" => {
                    if let Stage::Listing(n) = &mut self.stage {
                        // Each answer to a single query ends the same way, but none is sent before the lists have
                        // ended.
                        *n = n.saturating_sub(1);
                    }
                }
                "BridgeListItem" => self.bridge(b),
                "BridgeDestroy" => {
                    if let Some(bridge) = b.get("BridgeUniqueid") {
                        self.facts.push_back(Fact::BridgeGone { bridge: bridge.to_owned() });
                    }
                }
                "Shutdown" => return Err(Refusal::Bye),
                _ => {}
            }
            return Ok(());
        };
        match event {
            "Newchannel" | "Status" => {
                self.know(&id, b.get("Channel").unwrap_or_default(), now);
                if event == "Status" {
                    self.status(&id, b);
                }
                self.state(&id, b, now);
            }
            "Rename" => {
                if let Some(name) = b.get("Newname").map(str::to_owned) {
                    self.know(&id, &name, now);
                }
            }
            "Newstate" => self.state(&id, b, now),
            "BridgeEnter" => {
                self.know(&id, b.get("Channel").unwrap_or_default(), now);
                self.bridge(b);
                if let (Some(bridge), Some(c)) = (b.get("BridgeUniqueid"), self.channels.get_mut(&id)) {
                    c.bridged = true;
                    // The channel being replaced leaves only after this event. Without an early leave there would be
                    // three for a moment.
                    if let Some(other) = b.get("SwapUniqueid") {
                        self.facts.push_back(Fact::Leave { bridge: bridge.to_owned(), channel: other.to_owned() });
                    }
                    self.facts.push_back(Fact::Enter { bridge: bridge.to_owned(), channel: id.clone() });
                }
                self.state(&id, b, now);
            }
            "BridgeLeave" => {
                if let (Some(bridge), Some(c)) = (b.get("BridgeUniqueid"), self.channels.get_mut(&id)) {
                    c.bridged = false;
                    c.looked = 0;
                    self.facts.push_back(Fact::Leave { bridge: bridge.to_owned(), channel: id.clone() });
                    // Its earlier application has ended.
                    self.facts.push_back(Fact::Runs { channel: id.clone(), application: None });
                }
                self.state(&id, b, now);
            }
            "Hangup" => self.gone(id),
            _ => {}
        }
        Ok(())
    }

    /// Records a channel, and queries what its name implies.
    fn know(&mut self, id: &str, name: &str, now: Time) {
        // Asterisk uses these names for a moment during an exchange. The zombie half has no dialog any more.
        if name.ends_with("<ZOMBIE>") {
            self.facts.push_back(Fact::Channel { channel: id.to_owned(), is_sip: false });
        }
        if name.is_empty() || name.ends_with("<MASQ>") || name.ends_with("<ZOMBIE>") {
            return;
        }
        let is_full = self.channels.len() >= MAX_CHANNELS;
        match self.channels.get_mut(id) {
            Some(c) if c.name == name => return,
            Some(c) => {
                let old = std::mem::replace(&mut c.name, name.to_owned());
                if self.names.get(&old).is_some_and(|owner| owner == id) {
                    self.names.remove(&old);
                }
            }
            None if is_full => return,
            None => {
                let new =
                    Channel { name: name.to_owned(), dialog: false, up: false, bridged: false, look: None, looked: 0 };
                self.channels.insert(id.to_owned(), new);
            }
        }
        self.names.insert(name.to_owned(), id.to_owned());
        let is_sip = call_id_of(name).is_some();
        self.facts.push_back(Fact::Channel { channel: id.to_owned(), is_sip });
        if let Some(c) = self.channels.get_mut(id) {
            c.dialog = false;
        }
        self.seek(id, now);
        // The halves of a Local channel share a name, with a different suffix each.
        let half = name
            .strip_suffix(";1")
            .map(|n| format!("{n};2"))
            .or_else(|| name.strip_suffix(";2").map(|n| format!("{n};1")));
        if let Some(other) = half.and_then(|h| self.names.get(&h)) {
            self.facts.push_back(Fact::Linked { one: id.to_owned(), other: other.clone() });
        }
    }

    /// Queries the dialog of a SIP channel, unless it is known or was requested.
    fn seek(&mut self, id: &str, now: Time) {
        let Some(c) = self.channels.get_mut(id).filter(|c| !c.dialog && call_id_of(&c.name).is_some()) else { return };
        c.dialog = true;
        let ask = Ask::Dialog(id.to_owned(), c.name.clone());
        self.ask(ask, now);
    }

    /// Applies the fields of `Status` other than the name.
    fn status(&mut self, id: &str, b: &Block) {
        let Some(c) = self.channels.get_mut(id) else { return };
        let bridge = b.get("BridgeID");
        // The answer to a single query may be older than an event. Only the lists set the initial state.
        if matches!(self.stage, Stage::Listing(_)) {
            c.bridged = bridge.is_some();
            if let Some(bridge) = bridge {
                self.facts.push_back(Fact::Enter { bridge: bridge.to_owned(), channel: id.to_owned() });
            }
        }
        let application =
            bridges::application(b.get("Application").unwrap_or_default(), b.get("Data").unwrap_or_default());
        self.facts.push_back(Fact::Runs { channel: id.to_owned(), application });
    }

    fn bridge(&mut self, b: &Block) {
        let Some(bridge) = b.get("BridgeUniqueid") else { return };
        let named = |key| b.get(key).filter(|v| *v != "<unknown>");
        let (creator, technology) =
            (named("BridgeCreator").unwrap_or_default(), b.get("BridgeTechnology").unwrap_or_default());
        let name = || named("BridgeName").unwrap_or_default().to_owned();
        let kind = if technology == "holding_bridge" {
            BridgeKind::Holding(name())
        } else if creator.eq_ignore_ascii_case("ConfBridge") || creator.eq_ignore_ascii_case("MeetMe") {
            BridgeKind::Conference(name())
        } else {
            BridgeKind::Talk
        };
        self.facts.push_back(Fact::Bridge { bridge: bridge.to_owned(), kind });
    }

    /// Schedules or cancels the query for the channel's application.
    fn state(&mut self, id: &str, b: &Block, now: Time) {
        /// `AST_STATE_UP`.
        const UP: &str = "6";
        self.seek(id, now);
        let Some(c) = self.channels.get_mut(id) else { return };
        c.up |= b.get("ChannelState") == Some(UP);
        let wanted = c.up && !c.bridged;
        match c.look {
            None if wanted => {
                let at = now + LOOK[c.looked.min(LOOK.len() - 1)];
                c.look = Some(at);
                self.looks.insert((at, id.to_owned()));
            }
            Some(at) if !wanted => {
                c.look = None;
                self.looks.remove(&(at, id.to_owned()));
            }
            _ => {}
        }
    }

    fn gone(&mut self, id: String) {
        let Some(c) = self.channels.remove(&id) else { return };
        if self.names.get(&c.name) == Some(&id) {
            self.names.remove(&c.name);
        }
        if let Some(at) = c.look {
            self.looks.remove(&(at, id.clone()));
        }
        self.facts.push_back(Fact::Gone { channel: id });
    }

    /// The initial state is complete once the lists have ended and every channel's dialog query is answered.
    fn complete(&mut self) {
        if self.stage != Stage::Listing(0) {
            return;
        }
        if !self.questions.unanswered().any(|ask| matches!(ask, Ask::Dialog(..))) {
            self.stage = Stage::Ready;
            self.facts.push_back(Fact::Complete);
        }
    }
}

impl Dialect for Ami {
    fn handle_bytes(&mut self, bytes: &[u8], now: Time) -> Result<(), Refusal> {
        self.heard = now;
        self.inbox.push(bytes);
        if self.stage == Stage::Banner {
            let Some(banner) = self.inbox.line()? else { return Ok(()) };
            if !banner.starts_with("Asterisk Call Manager") {
                return Err(Refusal::Foreign("the manager interface of Asterisk"));
            }
            self.stage = Stage::Challenge;
            self.ask(Ask::Challenge, now);
        }
        while let Some(block) = self.inbox.block()? {
            self.block(&block, now)?;
        }
        Ok(())
    }

    fn handle_timeout(&mut self, now: Time) -> Result<(), Refusal> {
        // The list of very many channels may take longer than an answer, but not in silence.
        let late = self.questions.is_late(now);
        if (late || self.stage != Stage::Ready) && now >= self.heard + ANSWER {
            return Err(Refusal::Silent);
        }
        if late {
            self.questions.give_up_late(now);
            self.complete();
        }
        if self.stage != Stage::Ready {
            return Ok(());
        }
        while let Some((at, id)) = self.looks.first().cloned().filter(|(at, _)| *at <= now) {
            self.looks.remove(&(at, id.clone()));
            let Some(c) = self.channels.get_mut(&id) else { continue };
            c.looked += 1;
            let next = now + LOOK[c.looked.min(LOOK.len() - 1)];
            c.look = Some(next);
            self.looks.insert((next, id.clone()));
            let name = c.name.clone();
            self.ask(Ask::Runs(id, name), now);
        }
        if now >= self.heard + IDLE && self.questions.is_idle() {
            self.ask(Ask::Ping, now);
        }
        Ok(())
    }

    fn next_deadline(&self) -> Time {
        let silence = if self.stage == Stage::Ready && self.questions.is_idle() { IDLE } else { ANSWER };
        let looks = self.looks.first().map(|(at, _)| *at).filter(|_| self.stage == Stage::Ready);
        let heard = self.heard + silence;
        self.questions.deadline().into_iter().chain(looks).fold(heard, Time::min)
    }

    fn request(&mut self, request: Request, now: Time) {
        self.ask_about(request, now);
    }

    fn poll_send(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    fn poll_fact(&mut self) -> Option<Fact> {
        self.facts.pop_front()
    }

    fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }
}

/// The variable that holds the Call-ID of a channel with this name. `None` if it is no SIP dialog.
fn call_id_of(name: &str) -> Option<&'static str> {
    match name.split_once('/')?.0 {
        "PJSIP" => Some("CHANNEL(pjsip,call-id)"),
        "SIP" => Some("SIPCALLID"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
