//! Hangs up the calls that a former master's server still believes in. Pure.
//!
//! The server lost the address, so its calls live elsewhere, but it holds their channels until a time-out. Behind the
//! closed fence its BYEs reach nobody. The driver says whether that is so (`handle_confirmed`); without its word
//! nothing happens. A channel is hung up only if both its Call-ID and its own tag are those of a stored leg: a call
//! between two instances of one server has the same Call-ID on two channels, and the other one must live.

use super::bridges::Fact;
use super::request::{Answer, Request, is_safe};
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Most legs. Channels of further ones stay until the server's own time-outs.
const MAX_LEGS: usize = 65_536;
/// Pause between two hang-ups: 20 a second cost a server little.
const PACE: Duration = Duration::from_millis(50);
/// How often the driver must confirm that the server's BYEs cannot leave.
const CONFIRM: Duration = Duration::from_secs(1);
/// Longest wait for an answer, and then for the channel's end.
const ANSWER: Duration = Duration::from_secs(5);
/// Hang-ups of one channel. A channel that survives them needs a person.
const TRIES: u8 = 3;
/// Pause before the full list is asked for again, doubled each time up to the longest.
const AGAIN: Duration = Duration::from_secs(1);
const LONGEST_AGAIN: Duration = Duration::from_secs(30);
/// After this time nothing is hung up any more.
const LIMIT: Duration = Duration::from_secs(600);
/// How often the rest is counted after that.
const COUNT: Duration = Duration::from_secs(300);

/// What the former server still believes in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// Channels of this instance's calls.
    pub left: usize,
    /// Channels that may be of this instance's calls: the server does not tell their tag.
    #[serde(default)]
    pub unknown: usize,
    /// Why they are not hung up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// News for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The server has calls of this instance, and hanging up begins.
    Begun,
    /// The server has none any more.
    Done,
    /// The time is over, and some are left.
    Left(Former),
}

/// What the driver does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Find out whether another node is master, the fence is closed and the mode permits it; see
    /// [`FormerCalls::handle_confirmed`].
    Confirm,
    /// Connect to the server, anew if there is a connection: each begins with the full list.
    Connect,
    /// End the connection.
    Disconnect,
    /// Ask the server. The driver checks once more before a hang-up.
    Ask(Request),
    /// Tell the operator.
    Tell(News),
}

#[derive(Debug, PartialEq, Eq)]
enum Tie {
    /// Its tag was not asked for.
    Open,
    /// It is a leg of this instance, and has this name.
    Ours(String),
    /// Nobody knows.
    Unknown,
}

/// The calls of one instance on a server that lost its address.
#[derive(Debug, Default)]
pub struct FormerCalls {
    /// Local tags by Call-ID.
    legs: BTreeMap<Box<[u8]>, BTreeSet<Box<[u8]>>>,
    count: usize,
    /// This node lost the address, and the server may have calls.
    watching: bool,
    confirmed: bool,
    confirm_at: Time,
    /// When hanging up ends, once it was confirmed.
    until: Option<Time>,
    over: bool,
    /// The present connection's list is complete.
    listed: bool,
    /// Channels whose Call-ID is that of a leg.
    channels: BTreeMap<String, (Box<[u8]>, Tie)>,
    /// Hang-ups by name.
    tries: BTreeMap<String, u8>,
    /// The unanswered request's channel, and when it counts as failed.
    waits_for: Option<(String, Time)>,
    pace_at: Time,
    /// A channel was hung up since the last full list.
    hung: bool,
    again_at: Option<Time>,
    pause: Duration,
    begun: bool,
    told: Option<Former>,
    denied: Option<String>,
    actions: VecDeque<Action>,
}

impl FormerCalls {
    /// This node lost the address. `legs`: Call-ID and local tag of each leg that its server had.
    pub fn handle_dropped<'a>(&mut self, legs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>, now: Time) {
        for (call_id, tag) in legs {
            // A dialog without a tag cannot be told from another instance's.
            if self.count >= MAX_LEGS || tag.is_empty() || call_id.is_empty() {
                continue;
            }
            if self.legs.entry(call_id.into()).or_default().insert(tag.into()) {
                self.count += 1;
            }
        }
        self.watching = self.count > 0;
        self.confirm_at = now;
        (self.until, self.over, self.begun, self.told, self.denied) = (None, false, false, None, None);
        self.tries.clear();
    }

    /// This node is about to hold the address: its server speaks, so nothing is hung up from now on.
    pub fn handle_taken(&mut self) {
        self.stop();
        self.watching = false;
        self.told = None;
    }

    /// Whether another node is known to be master, the fence is closed, and the mode permits to hang up.
    pub fn handle_confirmed(&mut self, yes: bool, now: Time) {
        if !self.watching {
            return;
        }
        self.confirm_at = now + CONFIRM;
        if !yes {
            self.stop();
        } else if !self.confirmed {
            self.confirmed = true;
            self.until.get_or_insert(now + LIMIT);
            self.pause = AGAIN;
            self.look();
        }
    }

    /// A report of the server.
    pub fn handle_fact(&mut self, fact: &Fact, now: Time) {
        if !self.confirmed {
            return;
        }
        match fact {
            Fact::Begin => self.forget(),
            Fact::Lost => (self.listed, self.waits_for, self.again_at) = (false, None, None),
            Fact::Complete => self.listed = true,
            // A new name: its dialog follows.
            Fact::Channel { channel, .. } | Fact::Gone { channel } => self.lose(channel),
            Fact::Dialog { channel, call_id } => {
                self.lose(channel);
                if self.legs.contains_key(call_id.as_slice()) {
                    self.channels.insert(channel.clone(), (call_id.as_slice().into(), Tie::Open));
                }
            }
            Fact::Answer(answer) => self.answer(answer),
            _ => {}
        }
        self.advance(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.watching && self.confirm_at <= now {
            self.confirm_at = now + CONFIRM;
            self.actions.push_back(Action::Confirm);
        }
        if !self.confirmed {
            return;
        }
        if let Some((channel, _)) = self.waits_for.take_if(|(_, by)| *by <= now)
            && let Some((_, tie @ Tie::Open)) = self.channels.get_mut(&channel)
        {
            *tie = Tie::Unknown;
        }
        if self.until.is_some_and(|until| until <= now) && !self.over {
            self.over = true;
            let told = self.told.clone().unwrap_or_default();
            self.actions.push_back(Action::Tell(News::Left(told)));
        }
        if self.again_at.is_some_and(|at| at <= now) {
            self.look();
        }
        self.advance(now);
    }

    /// When to call [`Self::handle_timeout`] next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let confirm = self.watching.then_some(self.confirm_at);
        let until = self.until.filter(|_| !self.over);
        let pace = (self.listed && self.waits_for.is_none() && self.next_ours().is_some()).then_some(self.pace_at);
        let waits = self.waits_for.as_ref().map(|(_, by)| *by);
        let of_round = [until, pace, waits, self.again_at].into_iter().flatten().filter(|_| self.confirmed);
        confirm.into_iter().chain(of_round).min()
    }

    /// The next action.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What the server still believes in; `None` while that is not known, or this node is master.
    #[must_use]
    pub fn status(&self) -> Option<Former> {
        let never = || (self.over && self.told.is_none()).then(|| "the server did not list its channels".to_owned());
        let error = self.denied.clone().or_else(never);
        if self.told.is_none() && error.is_none() {
            return None;
        }
        Some(Former { error, ..self.told.clone().unwrap_or_default() })
    }

    fn stop(&mut self) {
        self.actions.clear();
        self.forget();
        self.again_at = None;
        if std::mem::take(&mut self.confirmed) {
            self.actions.push_back(Action::Disconnect);
        }
    }

    fn look(&mut self) {
        self.forget();
        (self.hung, self.again_at) = (false, None);
        self.actions.push_back(Action::Connect);
    }

    fn forget(&mut self) {
        self.channels.clear();
        (self.listed, self.waits_for) = (false, None);
    }

    fn lose(&mut self, channel: &str) {
        self.channels.remove(channel);
        self.waits_for.take_if(|(waits, _)| waits == channel);
    }

    fn answer(&mut self, answer: &Answer) {
        match answer {
            Answer::Tag { channel, name, tag } => {
                self.waits_for.take_if(|(waits, _)| waits == channel);
                let Some((call_id, tie)) = self.channels.get_mut(channel).filter(|c| c.1 == Tie::Open) else { return };
                let tags = self.legs.get(call_id);
                match tag {
                    Some(tag) if !tags.is_some_and(|tags| tags.contains(tag.as_slice())) => self.lose(channel),
                    Some(_) if is_safe(name) => *tie = Tie::Ours(name.clone()),
                    _ => *tie = Tie::Unknown,
                }
            }
            // Its end has an event of its own, and the next hang-up waits for it.
            Answer::Ending { .. } => {}
            Answer::Missing { channel } => self.lose(channel),
            Answer::Denied { error } => {
                self.denied = Some(error.clone());
                self.waits_for = None;
            }
        }
    }

    /// The next channel to hang up.
    fn next_ours(&self) -> Option<(&str, &str)> {
        if self.over || self.denied.is_some() {
            return None;
        }
        let tried = |name: &str| self.tries.get(name).is_some_and(|n| *n >= TRIES);
        self.channels.iter().find_map(|(channel, (_, tie))| match tie {
            Tie::Ours(name) if !tried(name) => Some((channel.as_str(), name.as_str())),
            _ => None,
        })
    }

    fn advance(&mut self, now: Time) {
        if !self.confirmed || !self.listed {
            return;
        }
        let unknown = self.channels.values().filter(|(_, tie)| *tie == Tie::Unknown).count();
        let open = self.channels.iter().find(|(_, (_, tie))| *tie == Tie::Open).map(|(channel, _)| channel.clone());
        if open.is_none() {
            self.told = Some(Former { left: self.channels.len() - unknown, unknown, error: None });
        }
        if self.waits_for.is_some() {
            return;
        }
        if let Some(channel) = open {
            return self.ask(Request::Tag { channel }, now);
        }
        if let Some((channel, name)) = self.next_ours().map(|(c, n)| (c.to_owned(), n.to_owned())) {
            if self.pace_at <= now {
                if !std::mem::replace(&mut self.begun, true) {
                    self.actions.push_back(Action::Tell(News::Begun));
                }
                *self.tries.entry(name.clone()).or_default() += 1;
                (self.pace_at, self.hung) = (now + PACE, true);
                self.ask(Request::HangUp { channel, name }, now);
            }
        } else if self.again_at.is_none() {
            self.end_round(now);
        }
    }

    fn ask(&mut self, request: Request, now: Time) {
        let (Request::Tag { channel } | Request::HangUp { channel, .. }) = &request;
        self.waits_for = Some((channel.clone(), now + ANSWER));
        self.actions.push_back(Action::Ask(request));
    }

    /// Nothing more can be done with this list.
    fn end_round(&mut self, now: Time) {
        // Only a list that was read after the last hang-up proves that none is left.
        if self.channels.is_empty() && !self.hung {
            self.stop();
            self.watching = false;
            self.legs.clear();
            self.count = 0;
            if self.begun {
                self.actions.push_back(Action::Tell(News::Done));
            }
            return;
        }
        // Channels that the server still lists get their next try.
        self.again_at = Some(now + if self.over { COUNT } else { self.pause });
        self.pause = (self.pause * 2).min(LONGEST_AGAIN);
    }
}

#[cfg(test)]
mod tests;
