//! Channels, links and bridges of a server at one moment.

use super::{BridgeKind, Fact};
use crate::pbx::ConnectedKind;
use crate::pbx::ConnectedTo;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::collections::HashMap;

/// Most channels inside the server between two dialogs. A queue with a Local member has one pair, and agents that
/// forward have a few. An endless chain must not block the agent.
const MAX_HOPS: usize = 16;
/// Most channels in memory. Further ones stay unknown, and evidence pairs their dialogs.
const MAX_CHANNELS: usize = 200_000;
/// Most stored members of a bridge. More than two are a conference, however many there are.
const MAX_MEMBERS: usize = 10_000;

/// What a dialog is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// The server has not reported it (yet).
    Unknown,
    /// The dialog with this Call-ID, and nobody else.
    With(&'a [u8]),
    /// This end.
    At(ConnectedTo),
}

#[derive(Default)]
struct Channel {
    is_sip: bool,
    call_id: Option<Box<[u8]>>,
    bridge: Option<String>,
    link: Option<String>,
    runs: Option<ConnectedTo>,
}

struct Bridge {
    kind: BridgeKind,
    members: SmallVec<[String; 2]>,
}

#[derive(Default)]
pub(super) struct Topology {
    channels: HashMap<String, Channel>,
    bridges: HashMap<String, Bridge>,
    /// The channel of each Call-ID. `None` if several channels have it, because it then identifies none.
    dialogs: HashMap<Box<[u8]>, Option<String>>,
}

fn end(kind: ConnectedKind, name: &str) -> Place<'static> {
    Place::At(ConnectedTo { kind, name: super::clean(name) })
}

impl Topology {
    pub(super) fn dialogs(&self) -> impl Iterator<Item = &[u8]> {
        self.dialogs.keys().map(AsRef::as_ref)
    }

    /// Applies a fact. Returns the Call-IDs whose place may have changed.
    pub(super) fn handle(&mut self, fact: &Fact) -> Vec<Box<[u8]>> {
        let mut touched = Vec::new();
        if let Fact::Bridge { bridge, kind } = fact {
            let known = self.bridges.get(bridge);
            // Reported again with each new member, and rarely different.
            if known.is_some_and(|b| b.kind == *kind) || known.is_none() && self.bridges.len() >= MAX_CHANNELS {
                return touched;
            }
        }
        // Collected both before and after the change: the dialogs that the channel leaves and those that it joins.
        let around: SmallVec<[Cow<'_, str>; 2]> = match fact {
            Fact::Begin | Fact::Complete | Fact::Lost | Fact::Answer(_) => return touched,
            Fact::Channel { channel, .. }
            | Fact::Dialog { channel, .. }
            | Fact::Enter { channel, .. }
            | Fact::Leave { channel, .. }
            | Fact::Runs { channel, .. }
            | Fact::Gone { channel } => [Cow::from(channel)].into_iter().collect(),
            Fact::Linked { one, other } => [Cow::from(one), Cow::from(other)].into_iter().collect(),
            Fact::Bridge { bridge, .. } | Fact::BridgeGone { bridge } => self
                .bridges
                .get(bridge)
                .map(|b| b.members.iter().map(|m| Cow::from(m.clone())).collect())
                .unwrap_or_default(),
        };
        around.iter().for_each(|c| self.reach(c, &mut touched));
        if !self.change(fact) {
            return Vec::new();
        }
        around.iter().for_each(|c| self.reach(c, &mut touched));
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// Applies a fact. Returns whether anything changed.
    fn change(&mut self, fact: &Fact) -> bool {
        match fact {
            Fact::Begin | Fact::Complete | Fact::Lost | Fact::Answer(_) => false,
            Fact::Channel { channel, is_sip } => {
                self.forget_dialog(channel);
                let Some(c) = self.channel(channel) else { return false };
                c.is_sip = *is_sip;
                true
            }
            Fact::Dialog { channel, call_id } => {
                if self.channels.get(channel).is_some_and(|c| c.call_id.as_deref() == Some(call_id)) {
                    return false;
                }
                self.forget_dialog(channel);
                let Some(c) = self.channel(channel) else { return false };
                c.is_sip = true;
                c.call_id = Some(call_id.as_slice().into());
                self.dialogs
                    .entry(call_id.as_slice().into())
                    .and_modify(|d| *d = None)
                    .or_insert_with(|| Some(channel.clone()));
                true
            }
            Fact::Linked { one, other } => {
                let linked = |c: &Channel, to: &String| c.link.as_ref() == Some(to);
                if one == other || self.channels.get(one).is_some_and(|c| linked(c, other)) {
                    return false;
                }
                for (a, b) in [(one, other), (other, one)] {
                    let old = self.channel(a).and_then(|c| c.link.replace(b.clone()));
                    if let Some(c) = old.and_then(|l| self.channels.get_mut(&l)) {
                        c.link = None;
                    }
                }
                // A full table may have had room for one end only.
                for (a, b) in [(one, other), (other, one)] {
                    if !self.channels.contains_key(b)
                        && let Some(c) = self.channels.get_mut(a)
                    {
                        c.link = None;
                    }
                }
                true
            }
            Fact::Bridge { bridge, kind } => {
                let b = self.bridge(bridge);
                let news = b.kind != *kind;
                b.kind = kind.clone();
                news
            }
            Fact::Enter { bridge, channel } => {
                let Some(c) = self.channel(channel) else { return false };
                if c.bridge.as_ref() == Some(bridge) {
                    return false;
                }
                if let Some(old) = c.bridge.replace(bridge.clone()) {
                    self.take_out(&old, channel);
                }
                let members = &mut self.bridge(bridge).members;
                if members.len() < MAX_MEMBERS {
                    members.push(channel.clone());
                }
                true
            }
            Fact::Leave { bridge, channel } => {
                let Some(c) = self.channels.get_mut(channel) else { return false };
                // Late news of a bridge that the channel has left for another.
                if c.bridge.as_ref() != Some(bridge) {
                    return false;
                }
                c.bridge = None;
                self.take_out(bridge, channel);
                true
            }
            Fact::BridgeGone { bridge } => {
                let Some(gone) = self.bridges.remove(bridge) else { return false };
                for m in gone.members {
                    if let Some(c) = self.channels.get_mut(&m) {
                        c.bridge = None;
                    }
                }
                true
            }
            Fact::Runs { channel, application } => {
                let Some(c) = self.channel(channel) else { return false };
                let news = c.runs != *application;
                c.runs.clone_from(application);
                news
            }
            Fact::Gone { channel } => {
                self.forget_dialog(channel);
                let Some(gone) = self.channels.remove(channel) else { return false };
                if let Some(bridge) = gone.bridge {
                    self.take_out(&bridge, channel);
                }
                if let Some(c) = gone.link.and_then(|l| self.channels.get_mut(&l)) {
                    c.link = None;
                }
                true
            }
        }
    }

    fn channel(&mut self, name: &str) -> Option<&mut Channel> {
        if !self.channels.contains_key(name) {
            if self.channels.len() >= MAX_CHANNELS {
                return None;
            }
            self.channels.insert(name.to_owned(), Channel::default());
        }
        self.channels.get_mut(name)
    }

    fn bridge(&mut self, name: &str) -> &mut Bridge {
        self.bridges
            .entry(name.to_owned())
            .or_insert_with(|| Bridge { kind: BridgeKind::Talk, members: SmallVec::new() })
    }

    fn take_out(&mut self, bridge: &str, channel: &str) {
        if let Some(b) = self.bridges.get_mut(bridge) {
            b.members.retain(|m| m != channel);
            // The next member brings the kind again.
            if b.members.is_empty() {
                self.bridges.remove(bridge);
            }
        }
    }

    fn forget_dialog(&mut self, channel: &str) {
        let Some(old) = self.channels.get_mut(channel).and_then(|c| c.call_id.take()) else { return };
        match self.dialogs.get(&old) {
            Some(Some(_)) => {
                self.dialogs.remove(&old);
            }
            Some(None) => {
                let mut left =
                    self.channels.iter().filter(|(_, c)| c.call_id.as_ref() == Some(&old)).map(|(name, _)| name);
                let (first, second) = (left.next().cloned(), left.next());
                if second.is_none() {
                    self.dialogs.insert(old, first);
                }
            }
            None => {}
        }
    }

    /// Dialogs that a change at `channel` may affect: its own, and those at the far ends of bridges and links.
    fn reach(&self, channel: &str, out: &mut Vec<Box<[u8]>>) {
        let mut seen: SmallVec<[&str; 8]> = SmallVec::new();
        let mut open: SmallVec<[(&str, usize); 8]> = SmallVec::new();
        let Some((start, _)) = self.channels.get_key_value(channel) else { return };
        open.push((start, 0));
        while let Some((name, hops)) = open.pop() {
            if seen.contains(&name) || hops > MAX_HOPS {
                continue;
            }
            seen.push(name);
            let Some(c) = self.channels.get(name) else { continue };
            out.extend(c.call_id.clone());
            let mates =
                c.bridge.as_ref().and_then(|b| self.bridges.get(b)).map(|b| b.members.as_slice()).unwrap_or_default();
            // In a bridge of more than three, one arrival or departure does not change its kind.
            if mates.len() <= 4 || hops == 0 && mates.len() <= 64 {
                open.extend(mates.iter().map(|m| (m.as_str(), hops + 1)));
            }
            open.extend(c.link.as_deref().map(|l| (l, hops + 1)));
        }
    }

    pub(super) fn place(&self, call_id: &[u8]) -> Place<'_> {
        let Some(Some(name)) = self.dialogs.get(call_id) else { return Place::Unknown };
        let mut at = name.as_str();
        let mut first = true;
        for _ in 0..MAX_HOPS {
            let Some(c) = self.channels.get(at) else { return Place::Unknown };
            let alone = || c.runs.clone().map_or_else(|| end(ConnectedKind::Nobody, ""), Place::At);
            let Some(bridge) = c.bridge.as_ref().and_then(|b| self.bridges.get(b)) else {
                // A channel inside the server whose far end is not joined to anything yet.
                return if first || c.runs.is_some() { alone() } else { end(ConnectedKind::Nobody, "") };
            };
            match &bridge.kind {
                BridgeKind::Conference(name) => return end(ConnectedKind::Conference, name),
                BridgeKind::Holding(name) => {
                    let queue = c.runs.as_ref().filter(|r| r.kind == ConnectedKind::Queue);
                    return queue.map_or_else(|| end(ConnectedKind::Parked, name), |q| Place::At(q.clone()));
                }
                BridgeKind::Talk => {}
            }
            let mut others = bridge.members.iter().filter(|m| *m != at);
            let other = match (others.next(), others.next()) {
                (None, _) => return alone(),
                (Some(other), None) => other,
                (Some(_), Some(_)) => return end(ConnectedKind::Conference, ""),
            };
            let Some(o) = self.channels.get(other) else { return Place::Unknown };
            match (&o.call_id, &o.link) {
                (Some(id), _) if matches!(self.dialogs.get(id), Some(Some(_))) => return Place::With(id),
                (Some(_), _) => return Place::Unknown,
                (None, _) if o.is_sip => return Place::Unknown,
                (None, Some(link)) => at = link,
                (None, None) => return end(ConnectedKind::Elsewhere, ""),
            }
            first = false;
        }
        Place::Unknown
    }
}
