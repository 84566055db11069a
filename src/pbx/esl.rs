//! The event socket of FreeSWITCH (inbound mode, mod_event_socket). Pure.
//!
//! Answers come in the order of the commands, so a queue of open commands is enough. The client first subscribes to
//! events, then requests the lists (`show channels`, `show bridged_calls`). FreeSWITCH fills the lists from a database
//! that is updated a moment later than the events are sent. The client therefore ignores list rows of channels with a
//! newer event.

use super::blocks::{Block, Inbox};
use super::questions::{ANSWER, Questions};
use super::{Dialect, MAX_CHANNELS, Refusal};
use crate::pbx::ConnectedKind;
use crate::pbx::ConnectedTo;
use crate::pbx::bridges::{self, BridgeKind, Fact};
use crate::pbx::request::{Answer, Request};
use crate::time::Time;
use serde::Deserialize;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

/// Silence before a ping.
const IDLE: Duration = Duration::from_secs(10);
/// CUSTOM comes last, because its subclasses follow it.
const SUBSCRIBE: &str = "event plain CHANNEL_CREATE CHANNEL_PROGRESS CHANNEL_PROGRESS_MEDIA CHANNEL_ANSWER CHANNEL_BRIDGE \
    CHANNEL_UNBRIDGE CHANNEL_EXECUTE CHANNEL_EXECUTE_COMPLETE CHANNEL_PARK CHANNEL_UNPARK CHANNEL_UUID \
    CHANNEL_HANGUP_COMPLETE CHANNEL_DESTROY CUSTOM conference::maintenance";
/// Advice to the operator if a permission is missing.
const GRANT: &str = "allow the api commands show and uuid_getvar, and all events";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing received so far.
    Greeting,
    Login,
    /// Number of lists still to come.
    Listing(u8),
    Ready,
}

/// The command that an answer belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ask {
    Auth,
    Subscribe,
    Channels,
    Bridges,
    /// The Call-ID of this channel.
    Dialog(String),
    Ping,
}

#[derive(Default)]
struct Channel {
    is_sip: bool,
    /// Whether its Call-ID is known or was requested.
    dialog: bool,
}

/// One connection to a FreeSWITCH.
pub struct Esl {
    password: String,
    stage: Stage,
    inbox: Inbox,
    /// Headers whose body has not arrived yet.
    head: Option<Block>,
    out: VecDeque<Vec<u8>>,
    facts: VecDeque<Fact>,
    questions: Questions<Ask>,
    channels: HashMap<String, Channel>,
    /// Channels whose place or application an event changed, or that ended, since the lists were requested.
    touched: HashSet<String>,
    heard: Time,
}

/// One row of a list, with the useful columns.
#[derive(Deserialize)]
struct Row {
    uuid: String,
    #[serde(default)]
    b_uuid: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    application: String,
    #[serde(default)]
    application_data: String,
}

#[derive(Deserialize)]
struct Rows {
    // Absent if there are none.
    #[serde(default)]
    rows: Vec<Row>,
}

impl Esl {
    /// A connection made at `now`, with the socket's password.
    #[must_use]
    pub fn new(password: &str, now: Time) -> Self {
        Self {
            password: password.to_owned(),
            stage: Stage::Greeting,
            inbox: Inbox::default(),
            head: None,
            out: VecDeque::new(),
            facts: VecDeque::new(),
            questions: Questions::new(),
            channels: HashMap::new(),
            touched: HashSet::new(),
            heard: now,
        }
    }

    fn ask(&mut self, ask: Ask, now: Time) {
        let Some(ask) = self.questions.admits(ask) else { return };
        let command = match &ask {
            // A line break would start a command of its own.
            Ask::Auth => format!("auth {}", self.password.replace(char::is_control, "")),
            Ask::Subscribe => SUBSCRIBE.to_owned(),
            Ask::Channels => "api show channels as json".to_owned(),
            Ask::Bridges => "api show bridged_calls as json".to_owned(),
            Ask::Dialog(uuid) => format!("api uuid_getvar {uuid} sip_call_id"),
            Ask::Ping => "api uptime".to_owned(),
        };
        self.out.push_back(format!("{command}\n\n").into_bytes());
        self.questions.open(ask, now);
    }

    fn message(&mut self, head: &Block, body: &[u8], now: Time) -> Result<(), Refusal> {
        match head.get("Content-Type") {
            Some("auth/request") if self.stage == Stage::Greeting => {
                self.stage = Stage::Login;
                self.ask(Ask::Auth, now);
            }
            Some("text/rude-rejection") => {
                return Err(Refusal::Login(String::from_utf8_lossy(body).trim().to_owned()));
            }
            Some("text/disconnect-notice") => return Err(Refusal::Bye),
            Some("command/reply") => self.answer(head.get("Reply-Text").unwrap_or_default(), now)?,
            Some("api/response") => self.answer(&String::from_utf8_lossy(body), now)?,
            Some("text/event-plain") => self.event(&Block::parse(body), now),
            Some(_) if self.stage != Stage::Greeting => {}
            _ => return Err(Refusal::Foreign("the event socket of FreeSWITCH")),
        }
        self.complete();
        Ok(())
    }

    fn answer(&mut self, text: &str, now: Time) -> Result<(), Refusal> {
        let Some(ask) = self.questions.oldest_answered() else { return Ok(()) };
        let text = text.trim();
        match ask {
            Ask::Auth if text.starts_with("+OK") => {
                self.ask(Ask::Subscribe, now);
            }
            Ask::Auth => return Err(Refusal::Login(text.to_owned())),
            Ask::Subscribe if text.starts_with("+OK") => {
                self.stage = Stage::Listing(2);
                self.facts.push_back(Fact::Begin);
                self.ask(Ask::Channels, now);
                self.ask(Ask::Bridges, now);
            }
            Ask::Channels | Ask::Bridges => {
                // Anything else is a refusal, or a FreeSWITCH built without its database.
                let rows: Rows = serde_json::from_str(text).map_err(|_| refused(text))?;
                rows.rows
                    .into_iter()
                    .for_each(|row| if ask == Ask::Channels { self.listed(row, now) } else { self.joined(&row) });
                if let Stage::Listing(n) = &mut self.stage {
                    *n = n.saturating_sub(1);
                }
            }
            Ask::Dialog(_) if text.contains("permission denied") => return Err(refused(text)),
            Ask::Subscribe => return Err(refused(text)),
            Ask::Dialog(uuid) => {
                // The Call-ID exists once the INVITE is sent. A later event brings it or triggers another query.
                if text.is_empty() || text.starts_with("_undef_") || text.starts_with("-ERR") {
                    if let Some(c) = self.channels.get_mut(&uuid) {
                        c.dialog = false;
                    }
                } else if self.channels.contains_key(&uuid) {
                    self.facts.push_back(Fact::Dialog { channel: uuid, call_id: text.as_bytes().to_vec() });
                }
            }
            Ask::Ping => {}
        }
        while let Some(next) = self.questions.next_waiting() {
            self.ask(next, now);
        }
        Ok(())
    }

    /// A row of the list of channels.
    fn listed(&mut self, row: Row, now: Time) {
        if self.touched.contains(&row.uuid) || !self.know(&row.uuid, &row.name) {
            return;
        }
        let application = bridges::application(&row.application, &row.application_data);
        self.facts.push_back(Fact::Runs { channel: row.uuid.clone(), application });
        self.seek(&row.uuid, now);
    }

    /// A row of the list of bridged calls.
    fn joined(&mut self, row: &Row) {
        let both = [row.uuid.as_str(), row.b_uuid.as_str()];
        if both.iter().all(|u| self.channels.contains_key(*u) && !self.touched.contains(*u)) {
            self.join(both);
        }
    }

    fn join(&mut self, both: [&str; 2]) {
        let bridge = bridge(both);
        self.facts.extend(both.map(|u| Fact::Enter { bridge: bridge.clone(), channel: u.to_owned() }));
    }

    fn event(&mut self, b: &Block, now: Time) {
        let Some(event) = b.get("Event-Name") else { return };
        let Some(uuid) = b.decoded("Unique-ID").filter(|u| is_id(u)) else { return };
        if matches!(event, "CHANNEL_HANGUP_COMPLETE" | "CHANNEL_DESTROY") {
            self.touch(&uuid);
            if self.channels.remove(&uuid).is_some() {
                self.facts.push_back(Fact::Gone { channel: uuid });
            }
            return;
        }
        let name = b.decoded("Channel-Name").unwrap_or_default();
        if let Some(old) = b.decoded("Old-Unique-ID").filter(|_| event == "CHANNEL_UUID")
            && self.channels.remove(&old).is_some()
        {
            self.facts.push_back(Fact::Gone { channel: old });
        }
        if !self.know(&uuid, &name) {
            return;
        }
        if let Some(other) = b.decoded("variable_other_loopback_leg_uuid").filter(|o| self.channels.contains_key(o)) {
            self.facts.push_back(Fact::Linked { one: uuid.clone(), other });
        }
        match (b.decoded("variable_sip_call_id"), self.channels.get_mut(&uuid)) {
            (Some(call_id), Some(c)) if c.is_sip => {
                c.dialog = true;
                self.facts.push_back(Fact::Dialog { channel: uuid.clone(), call_id: call_id.into_bytes() });
            }
            _ => self.seek(&uuid, now),
        }
        let runs = |application| Fact::Runs { channel: uuid.clone(), application };
        match event {
            "CHANNEL_BRIDGE" | "CHANNEL_UNBRIDGE" => {
                let sides = ["Bridge-A-Unique-ID", "Bridge-B-Unique-ID"].map(|n| b.decoded(n).filter(|u| is_id(u)));
                let [Some(one), Some(other)] = sides else { return };
                let both = [one.as_str(), other.as_str()];
                both.iter().for_each(|u| self.touch(u));
                if event == "CHANNEL_BRIDGE" {
                    self.join(both);
                } else {
                    let bridge = bridge(both);
                    self.facts.extend(both.map(|u| Fact::Leave { bridge: bridge.clone(), channel: u.to_owned() }));
                }
            }
            "CHANNEL_EXECUTE" => {
                let (name, data) =
                    (b.decoded("Application").unwrap_or_default(), b.decoded("Application-Data").unwrap_or_default());
                self.touch(&uuid);
                self.facts.push_back(runs(bridges::application(&name, &data)));
            }
            "CHANNEL_EXECUTE_COMPLETE" | "CHANNEL_UNPARK" => self.facts.push_back(runs(None)),
            "CHANNEL_PARK" => {
                let parked = ConnectedTo { kind: ConnectedKind::Parked, name: String::new() };
                self.facts.push_back(runs(Some(parked)));
            }
            "CUSTOM" if b.decoded("Event-Subclass").as_deref() == Some("conference::maintenance") => {
                self.conference(&uuid, b)
            }
            _ => {}
        }
    }

    fn conference(&mut self, uuid: &str, b: &Block) {
        let name = b.decoded("Conference-Name").unwrap_or_default();
        let bridge = format!("conference {}", b.decoded("Conference-Unique-ID").unwrap_or_else(|| name.clone()));
        match b.get("Action") {
            Some("add-member") => {
                self.touch(uuid);
                self.facts.push_back(Fact::Bridge { bridge: bridge.clone(), kind: BridgeKind::Conference(name) });
                self.facts.push_back(Fact::Enter { bridge, channel: uuid.to_owned() });
            }
            Some("del-member") => self.facts.push_back(Fact::Leave { bridge, channel: uuid.to_owned() }),
            _ => {}
        }
    }

    /// Records a channel. Returns whether it is followed.
    fn know(&mut self, uuid: &str, name: &str) -> bool {
        let is_sip = name.starts_with("sofia/");
        let is_full = self.channels.len() >= MAX_CHANNELS;
        match self.channels.get_mut(uuid) {
            // Some events lack the name.
            Some(c) if c.is_sip == is_sip || name.is_empty() => return true,
            Some(c) => *c = Channel { is_sip, dialog: false },
            None if is_full || !is_id(uuid) => return false,
            None => {
                self.channels.insert(uuid.to_owned(), Channel { is_sip, dialog: false });
            }
        }
        self.facts.push_back(Fact::Channel { channel: uuid.to_owned(), is_sip });
        true
    }

    /// Queries the dialog of a SIP channel, unless it is known or was requested.
    fn seek(&mut self, uuid: &str, now: Time) {
        let Some(c) = self.channels.get_mut(uuid).filter(|c| c.is_sip && !c.dialog) else { return };
        c.dialog = true;
        self.ask(Ask::Dialog(uuid.to_owned()), now);
    }

    fn touch(&mut self, uuid: &str) {
        if matches!(self.stage, Stage::Listing(1..)) && self.touched.len() < MAX_CHANNELS {
            self.touched.insert(uuid.to_owned());
        }
    }

    /// The initial state is complete once the lists have arrived and every channel's dialog query is answered.
    fn complete(&mut self) {
        if self.stage != Stage::Listing(0) {
            return;
        }
        if !self.questions.unanswered().any(|ask| matches!(ask, Ask::Dialog(_))) {
            self.stage = Stage::Ready;
            self.touched = HashSet::new();
            self.facts.push_back(Fact::Complete);
        }
    }
}

impl Dialect for Esl {
    fn handle_bytes(&mut self, bytes: &[u8], now: Time) -> Result<(), Refusal> {
        self.heard = now;
        self.inbox.push(bytes);
        loop {
            let head = match self.head.take() {
                Some(head) => head,
                None => match self.inbox.block()? {
                    Some(head) => head,
                    None => return Ok(()),
                },
            };
            let length = match head.get("Content-Length").map(str::parse) {
                None => 0,
                Some(Ok(length)) => length,
                Some(Err(_)) => return Err(Refusal::Foreign("the event socket of FreeSWITCH")),
            };
            match self.inbox.exactly(length)? {
                Some(body) => self.message(&head, &body, now)?,
                None => {
                    self.head = Some(head);
                    return Ok(());
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Time) -> Result<(), Refusal> {
        let late = self.questions.is_late(now);
        // Answers have an order, so one late answer blocks all others, whatever else arrives.
        if late || self.stage != Stage::Ready && now >= self.heard + ANSWER {
            return Err(Refusal::Silent);
        }
        if self.stage == Stage::Ready && now >= self.heard + IDLE && self.questions.is_idle() {
            self.ask(Ask::Ping, now);
        }
        Ok(())
    }

    fn next_deadline(&self) -> Time {
        self.questions.deadline().unwrap_or(self.heard + IDLE.min(ANSWER))
    }

    fn request(&mut self, request: Request, _now: Time) {
        // Without a local tag no channel is hung up.
        self.facts.push_back(Fact::Answer(match request {
            Request::Tag { channel } => Answer::Tag { name: channel.clone(), channel, tag: None },
            Request::HangUp { channel, .. } => Answer::Missing { channel },
        }));
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

fn refused(text: &str) -> Refusal {
    Refusal::Permission(text.lines().next().unwrap_or_default().chars().take(200).collect(), GRANT)
}

/// Two channels share at most one bridge, so both orders give the same name.
fn bridge(mut both: [&str; 2]) -> String {
    both.sort_unstable();
    both.join(" ")
}

/// Whether the id is safe in a command. FreeSWITCH generates UUIDs, and accepts any word from the dial plan instead
/// (`origination_uuid`).
fn is_id(uuid: &str) -> bool {
    !uuid.is_empty() && uuid.len() <= 256 && uuid.bytes().all(|b| b.is_ascii_graphic() && b != b';' && b != b'|')
}

#[cfg(test)]
mod tests;
