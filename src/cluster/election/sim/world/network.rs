//! The network between nodes, and between nodes and etcd.

use super::super::plan::{LATEST, MS, Mode, Plan};
use super::lease::{LeaseAnswer, Phase};
use super::{Event, World};
use crate::cluster::election::types::{Commit, Fault, Message, Request};
use std::collections::{BTreeSet, VecDeque};

/// A request on its way to etcd.
#[derive(Clone)]
#[allow(clippy::large_enum_variant)] // Lives for one event; a box would only cost an allocation.
pub(super) enum Ask {
    Store { id: u64, request: Box<Request> },
    Lease { seq: u64, phase: Phase },
    Revoke { lease: i64 },
}

/// Number of recorded datagrams for a replay much later.
const RECORDED: usize = 64;

pub(super) struct Network {
    /// Datagrams from the first node to the second are lost.
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// These nodes cannot reach etcd.
    pub(super) ecut: BTreeSet<usize>,
    /// Percentage of lost datagrams.
    pub(super) loss: u64,
    /// Percentage of datagrams that arrive late, twice or long after.
    pub(super) disorder: u64,
    /// Percentage of lost requests, and of lost answers.
    pub(super) rpc_loss: u64,
    /// Percentage of slow requests.
    pub(super) rpc_late: u64,
    /// Percentage of commits that go to two members.
    pub(super) copies: u64,
    /// This node's next change of the record goes to two members: delay of the first copy, and arrival of the second.
    pub(super) two_copies: Option<(usize, u64, u64)>,
    /// etcd's disk: the longest time of a request.
    pub(super) disk: u64,
    /// Extra delay of each answer.
    pub(super) slow_answers: u64,
    /// Only this node's reads are lost: its lease lives, and it learns nothing.
    pub(super) unread: Option<usize>,
    /// Delay of this node's next change of the record.
    pub(super) late_commit: Option<(usize, u64)>,
    pub(super) recorded: VecDeque<(usize, usize, Message)>,
}

impl Network {
    pub(super) fn new(p: &Plan) -> Self {
        let wild = matches!(p.mode, Mode::Chaos | Mode::Script);
        Self {
            cut: BTreeSet::new(),
            ecut: BTreeSet::new(),
            loss: 0,
            disorder: if p.mode == Mode::Chaos { 20 } else { 0 },
            rpc_loss: if wild { 2 } else { 0 },
            rpc_late: match p.mode {
                Mode::Chaos => 15,
                Mode::Script => 2,
                Mode::Etcd | Mode::Agent => 0,
            },
            copies: if p.mode == Mode::Agent { 0 } else { 10 },
            two_copies: None,
            disk: MS,
            slow_answers: 0,
            unread: None,
            late_commit: None,
            recorded: VecDeque::new(),
        }
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.ecut.clear();
        (self.loss, self.disorder, self.rpc_loss, self.rpc_late, self.disk) = (0, 0, 0, 0, MS);
        (self.late_commit, self.two_copies, self.slow_answers, self.copies, self.unread) = (None, None, 0, 0, None);
        self.recorded.clear();
    }
}

impl World {
    pub(super) fn send(&mut self, from: usize, to: &str, message: Message) {
        let Some(to) = self.nodes.iter().position(|n| n.name == to) else { return };
        if self.net.cut.contains(&(from, to)) || (self.net.loss > 0 && self.r.chance(self.net.loss)) {
            return;
        }
        let quick = self.r.between(MS / 20, MS);
        if self.net.disorder == 0 {
            self.at(quick, Event::Message { from, to, message });
            return;
        }
        let late = self.r.chance(self.net.disorder);
        let d = if late { self.r.pick(&[2, 5, 20, 150, 450]) * MS } else { quick };
        self.at(d, Event::Message { from, to, message });
        if self.r.chance(2) {
            self.at(d + 300 * MS, Event::Message { from, to, message });
        }
        self.net.recorded.push_back((from, to, message));
        if self.net.recorded.len() > RECORDED {
            self.net.recorded.pop_front();
        }
        if self.r.chance(1) {
            let (from, to, message) = *self.r.one(self.net.recorded.make_contiguous());
            let d = self.r.below(2000) * MS;
            self.at(d, Event::Message { from, to, message });
        }
    }

    pub(super) fn receive(&mut self, from: usize, to: usize, message: Message) {
        if self.nodes[to].named {
            let name = self.nodes[from].name;
            self.with(to, |e, now| e.handle_message(name, message, now));
        }
    }

    fn rpc_delay(&mut self) -> u64 {
        if self.net.rpc_late > 0 && self.r.chance(self.net.rpc_late) {
            return self.r.pick(&[5, 30, 300, 900, LATEST / MS]) * MS;
        }
        self.r.between(MS / 20, self.net.disk)
    }

    /// Sends a request to etcd.
    pub(super) fn ask(&mut self, node: usize, ask: Ask) {
        if self.net.rpc_loss > 0 && self.r.chance(self.net.rpc_loss) {
            return;
        }
        if self.net.unread == Some(node) && matches!(&ask, Ask::Store { request, .. } if **request == Request::Read) {
            return;
        }
        let mut d = self.rpc_delay();
        if let (Some((n, late)), Ask::Store { request, .. }) = (self.net.late_commit, &ask)
            && n == node
            && matches!(**request, Request::Commit(_))
        {
            d = late;
            self.net.late_commit = None;
        }
        let boot = self.nodes[node].boot;
        if let Some((id, commit)) = self.may_be_copied(&ask) {
            let second = match self.net.two_copies {
                Some((n, first, at)) if n == node => {
                    (d, self.net.two_copies) = (first, None);
                    Some(at.saturating_sub(self.t))
                }
                _ if self.copies.chance(self.net.copies) => {
                    let latest = self.copies.pick(&[1, 20, 100, 400, 1000, LATEST / MS]);
                    Some(self.copies.below(latest * MS))
                }
                _ => None,
            };
            if let Some(second) = second {
                self.nodes[node].copied.insert(id, commit);
                self.at(second, Event::Serve { node, boot, ask: Box::new(ask.clone()) });
            }
        }
        self.at(d, Event::Serve { node, boot, ask: Box::new(ask) });
    }

    /// Returns a commit that may have copies at several members of etcd: after a slow answer the driver asks another
    /// member, and either copy may arrive first.
    fn may_be_copied(&self, ask: &Ask) -> Option<(u64, Commit)> {
        let Ask::Store { id, request } = ask else { return None };
        let Request::Commit(c) = &**request else { return None };
        (c.may_be_copied() || self.broken(Fault::FirstCopied)).then(|| (*id, c.clone()))
    }

    pub(super) fn serve(&mut self, node: usize, boot: u64, ask: Ask) {
        if self.etcd.down || self.net.ecut.contains(&node) {
            // Refused at once, or never answered.
            if self.r.chance(50) {
                let d = self.rpc_delay();
                let e = match ask {
                    Ask::Store { id, .. } => Event::Stored { node, boot, id, answer: None },
                    Ask::Lease { seq, .. } => Event::LeaseDone { node, boot, seq, answer: LeaseAnswer::Failed },
                    Ask::Revoke { .. } => return,
                };
                self.at(d, e);
            }
            return;
        }
        let before = self.etcd.revision;
        // A ticket changes no watched key.
        let watched = !matches!(&ask, Ask::Store { request, .. } if matches!(**request, Request::Ticket(_)));
        let answer = match ask {
            Ask::Store { id, request } => {
                let answer = self.etcd.serve(self.nodes[node].name, &request).map(Box::new);
                if self.trace {
                    let done = answer.as_ref().map(|a| a.0);
                    println!(
                        "{} etcd serves {} {id}: {done:?}, revision {}",
                        self.t / MS,
                        self.nodes[node].name,
                        self.etcd.revision
                    );
                }
                if matches!(*request, Request::Commit(_)) && before != self.etcd.revision {
                    self.check_record();
                }
                Event::Stored { node, boot, id, answer }
            }
            Ask::Lease { seq, phase } => Event::LeaseDone { node, boot, seq, answer: self.serve_lease(node, phase) },
            Ask::Revoke { lease } => {
                self.etcd.revoke(lease);
                self.hint_all();
                return;
            }
        };
        if before != self.etcd.revision && watched {
            self.hint_all();
        }
        if self.net.rpc_loss == 0 || !self.r.chance(self.net.rpc_loss) {
            let d = self.rpc_delay() + self.net.slow_answers;
            self.at(d, answer);
        }
    }

    /// Mostly, watches report a change to all nodes.
    pub(super) fn hint_all(&mut self) {
        for i in 0..self.nodes.len() {
            if !self.net.ecut.contains(&i) && self.nodes[i].election.is_some() && self.r.chance(self.plan.hints) {
                let (boot, d) = (self.nodes[i].boot, self.r.between(MS / 20, 2 * MS));
                self.at(d, Event::Hint { node: i, boot });
            }
        }
    }
}
