//! Answers the command line's requests.

pub(super) mod forwarded;

use super::history;
use super::instance::{Order, Summary};
use super::mode;
use super::part::Parts;
use super::pause;
use super::readiness::Waiting;
use super::{Instances, Modes};
use crate::cluster::{self, Cluster, ForgetError, Role, SwitchoverError};
use crate::config::Config;
use crate::control::api::{self, ApiError, ErrorKind, Reply, Request};
use crate::etcd::Etcd;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// Time limit of a switchover, from etcd's commit until this node has dropped the addresses: the old master's hold,
/// with a margin.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a mode change waits: the time that running nodes need to report the new mode, with a margin.
const OBEY: Duration = Duration::from_secs(2);
/// Timeout for an instance's answer, which comes between two events. A slower instance is shown without its part.
const PATIENCE: Duration = Duration::from_secs(2);

/// The sources of all answers.
#[derive(Clone)]
pub(super) struct Answers {
    config: Config,
    cluster: Cluster,
    etcd: Etcd,
    instances: Instances,
    modes: Modes,
    parts: Parts,
    /// The runtime for etcd requests: the control part may fail, and must not take etcd's connections with it.
    core: Handle,
}

impl Answers {
    pub(super) fn new(
        config: &Config,
        cluster: Cluster,
        etcd: Etcd,
        instances: Instances,
        modes: Modes,
        parts: Parts,
    ) -> Self {
        Self { config: config.clone(), cluster, etcd, instances, modes, parts, core: Handle::current() }
    }

    /// Answers in a separate task, so that a slow etcd does not block the agent.
    pub(super) fn answer(self, request: Request, reply: oneshot::Sender<Reply>) {
        tokio::spawn(async move {
            // The client may have disconnected.
            let _ = reply.send(self.make(request).await.unwrap_or_else(Reply::Error));
        });
    }

    /// Makes the answer here, or forwards the request to the master if only the master can answer.
    async fn make(&self, request: Request) -> Result<Reply, ApiError> {
        let (name, request) = match request {
            Request::Candidates { instance } => {
                let name = self.one(instance)?;
                (name.clone(), Request::Candidates { instance: Some(name) })
            }
            Request::Switchover { instance, to } => {
                let name = self.one(instance)?;
                (name.clone(), Request::Switchover { instance: Some(name), to })
            }
            Request::Forget { instance, node } => {
                let name = self.one(instance)?;
                (name.clone(), Request::Forget { instance: Some(name), node })
            }
            other => return self.make_here(other).await,
        };
        let me = &self.config.node.name;
        match self.seen(&name) {
            Some(seen) if seen.role == Role::Backup => match seen.master.filter(|m| m != me) {
                Some(master) => {
                    let (etcd, cluster, me) = (self.etcd.clone(), self.config.node.cluster.clone(), me.clone());
                    self.at_core(async move { forwarded::ask(&etcd, &cluster, &name, &me, &master, request).await })
                        .await
                }
                None => self.make_here(request).await,
            },
            _ => self.make_here(request).await,
        }
    }

    /// Whether this node is master of an instance.
    pub(super) fn is_master(&self, instance: &str) -> bool {
        self.seen(instance).is_some_and(|i| i.role == Role::Master)
    }

    /// Makes this node's answer without asking another node.
    pub(super) async fn make_here(&self, request: Request) -> Result<Reply, ApiError> {
        Ok(match request {
            Request::Status => Reply::Status(self.status().await),
            Request::Candidates { instance } => Reply::Candidates(self.candidates(&self.one(instance)?).await?),
            Request::Switchover { instance, to } => Reply::Switchover(self.switchover(self.one(instance)?, to).await?),
            Request::Pause { reason } => {
                let (etcd, node) = (self.etcd.clone(), self.config.node.clone());
                Reply::Paused(
                    self.at_core(async move { pause::pause(&etcd, &node.cluster, &node.name, &reason).await }).await?,
                )
            }
            Request::Resume => {
                let (etcd, cluster) = (self.etcd.clone(), self.config.node.cluster.clone());
                Reply::Paused(self.at_core(async move { pause::resume(&etcd, &cluster).await }).await?)
            }
            Request::Forget { instance, node } => {
                let instance = self.one(instance)?;
                self.cluster.forget(&instance, &node).await.map_err(|e| not_forgotten(&e))?;
                Reply::Forgot(api::Forgot { instance, node })
            }
            Request::Mode { instance, change } => Reply::Mode(self.mode(self.one(instance)?, change).await?),
            Request::Calls { instance } => {
                let mut calls = Vec::new();
                for name in self.some(instance)? {
                    calls.extend(self.ask(&name, Order::Calls).await.unwrap_or_default());
                }
                Reply::Calls(calls)
            }
            Request::History { instance, limit } => {
                let mut entries = Vec::new();
                for name in self.some(instance)? {
                    let (etcd, cluster) = (self.etcd.clone(), self.config.node.cluster.clone());
                    let read = async move {
                        history::read(&etcd, &cluster, &name, limit).await.map_err(|e| ApiError {
                            message: format!("cannot read the history from etcd: {e}"),
                            advice: "check etcd with `keepcall status`".to_owned(),
                            kind: ErrorKind::Failed,
                        })
                    };
                    entries.extend(self.at_core(read).await?);
                }
                Reply::History(entries)
            }
        })
    }

    /// Runs an etcd request in the runtime of etcd's connections.
    async fn at_core<T: Send + 'static>(
        &self,
        question: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.core.spawn(question).await.unwrap_or_else(|e| {
            Err(ApiError {
                message: format!("the agent failed to handle the request: {e}"),
                advice: "see the agent's log, and please report this".to_owned(),
                kind: ErrorKind::Failed,
            })
        })
    }

    async fn ask<T>(&self, instance: &str, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        let orders: &mpsc::Sender<Order> = self.instances.get(instance)?;
        let (reply, answer) = oneshot::channel();
        let asked = async {
            orders.send(order(reply)).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(PATIENCE, asked).await.ok().flatten()
    }

    async fn status(&self) -> api::Status {
        let cluster = self.cluster.status();
        let trouble = self.etcd.trouble();
        let changes = self.etcd.changes().borrow().clone();
        let mut instances = Vec::new();
        for instance in &cluster.instances {
            let part = self.ask(&instance.name, Order::Summary).await.unwrap_or_default();
            instances.push(self.instance(instance, part));
        }
        api::Status {
            cluster: self.config.node.cluster.clone(),
            node: self.config.node.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            etcd: api::EtcdStatus {
                healthy: trouble.is_none() && cluster.etcd.iter().any(|e| e.healthy),
                error: trouble,
                endpoints: cluster
                    .etcd
                    .into_iter()
                    .map(|e| api::EndpointStatus { url: e.url, healthy: e.healthy, error: e.error, alarm: e.alarm })
                    .collect(),
                changed: changes.last.map(|(what, at_ms)| api::EtcdChange { what, at_ms, count: changes.count }),
            },
            paused: cluster.paused,
            differences: cluster.differences,
            instances,
            nodes: cluster
                .nodes
                .into_iter()
                .map(|n| api::NodeStatus {
                    name: n.name,
                    address: n.address.and_then(|a| a.parse().ok()),
                    fit: n.fit.unwrap_or(false),
                    summary: n.summary,
                    last_heard_ms: n.last_heard_ms,
                    priority: n.priority.unwrap_or(0),
                    is_self: n.me,
                })
                .collect(),
            parts: self.parts.status(),
            election: api::ElectionStatus {
                longest_late_ms: cluster.longest_late_ms,
                longest_round_ms: cluster.longest_round_ms,
            },
        }
    }

    fn instance(&self, status: &cluster::InstanceStatus, part: Summary) -> api::InstanceStatus {
        let config = self.config.instances.iter().find(|i| i.name == status.name);
        let mut reason = status.reason.clone();
        if let Some(why) = &part.not_ready {
            reason = format!("not ready: {why}{}{reason}", if reason.is_empty() { "" } else { "; " });
        }
        for problem in part.absent.iter().chain(&status.problem) {
            reason = format!("{reason}{}needs repair: {problem}", if reason.is_empty() { "" } else { "; " });
        }
        api::InstanceStatus {
            name: status.name.clone(),
            addresses: config.map(|c| c.addresses.iter().map(ToString::to_string).collect()).unwrap_or_default(),
            role: word(status.role).to_owned(),
            master: status.master.clone(),
            since_ms: status.since_ms,
            reason,
            epoch: status.epoch,
            successor: status.successor.clone(),
            hold: status.hold.map(|kind| api::HoldStatus {
                kind: match kind {
                    cluster::HoldKind::Paired => "paired",
                    cluster::HoldKind::Failsafe => "failsafe",
                    cluster::HoldKind::Solo => "solo",
                    cluster::HoldKind::Inherited => "inherited",
                }
                .to_owned(),
                remaining_ms: status.remaining_ms,
            }),
            promise_ms: status.promise_ms,
            members: status.members.clone(),
            held_down_ms: status.held_down_ms,
            not_ready: part.not_ready,
            conflicts: part.conflicts,
            mode: self.mode_status(&status.name),
            calls: part.calls,
            server: part.server,
            checks: part.checks,
            warnings: part.warnings,
        }
    }

    /// The mode of an instance; `None` if it has no calls.
    fn mode_status(&self, instance: &str) -> Option<api::ModeStatus> {
        let nodes = self.node_names();
        Some(self.modes.get(instance)?.borrow().status(&nodes))
    }

    fn node_names(&self) -> Vec<String> {
        self.cluster.status().nodes.into_iter().map(|n| n.name).collect()
    }

    /// Changes the mode of an instance on request, and waits briefly until the running nodes report that they obey it.
    async fn mode(&self, instance: String, change: Option<api::ModeChange>) -> Result<api::ModeReply, ApiError> {
        let Some(picture) = self.modes.get(&instance) else {
            return Err(ApiError {
                message: format!("instance {instance} handles no calls: its configuration has no [instance.sip]"),
                advice: "add [instance.sip] to set a mode for its calls; without it only the addresses move".to_owned(),
                kind: ErrorKind::Invalid,
            });
        };
        if let Some(change) = change {
            let node = &self.config.node;
            let wanted = match change {
                api::ModeChange::Set(mode) => Some(mode),
                api::ModeChange::Configured => None,
            };
            let (etcd, node, name) = (self.etcd.clone(), node.clone(), instance.clone());
            let set = async move {
                mode::set(&etcd, &node.cluster, &name, &node.name, wanted).await.map_err(|e| ApiError {
                    message: format!("etcd did not confirm the change of the mode: {e}"),
                    advice: "the change may or may not be in force; check etcd with `keepcall status`, and try again"
                        .to_owned(),
                    kind: ErrorKind::Failed,
                })
            };
            self.at_core(set).await?;
            let mut picture = picture.clone();
            // Looks at the borrowed picture only: a second borrow of the same channel may wait for ever.
            let nodes = self.node_names();
            let done = |p: &mode::Picture| {
                let now = p.status(&nodes);
                let changed = wanted.map_or(now.set_by.is_none(), |mode| p.mode() == Some(mode));
                changed && now.mixed().is_none()
            };
            // Absent nodes do not report; the answer names them.
            let obeyed = async { while !done(&picture.borrow_and_update()) && picture.changed().await.is_ok() {} };
            let _ = tokio::time::timeout(OBEY, obeyed).await;
        }
        let carried = self.ask(&instance, Order::Summary).await.map_or(0, |s| s.calls.carried);
        let now = self.mode_status(&instance).unwrap_or_default();
        Ok(api::ModeReply { instance, now, carried })
    }

    async fn candidates(&self, instance: &str) -> Result<api::Candidates, ApiError> {
        let status = self.cluster.status();
        let found = status.instances.iter().find(|i| i.name == instance).ok_or_else(|| unknown(instance))?;
        if !matches!(found.role, Role::Master | Role::Waiting) {
            return Err(not_master(found.master.as_deref()));
        }
        let priority = |node: &str| status.nodes.iter().find(|n| n.name == node).and_then(|n| n.priority).unwrap_or(0);
        // Leases run out while etcd is away. That reason alone would mislead the operator.
        let no_etcd = (!status.etcd.is_empty() && status.etcd.iter().all(|e| !e.healthy)).then(|| {
            "etcd is unavailable, and a change of master needs etcd: check etcd with `keepcall status`".to_owned()
        });
        let calls = self.ask(instance, Order::Summary).await.and_then(|s| s.calls.takeover);
        Ok(api::Candidates {
            calls,
            instance: instance.to_owned(),
            master: found.master.clone(),
            epoch: found.epoch,
            candidates: found
                .candidates
                .iter()
                .map(|c| api::Candidate {
                    node: c.node.clone(),
                    priority: priority(&c.node),
                    against: no_etcd.iter().chain(&c.against).cloned().collect(),
                })
                .collect(),
        })
    }

    async fn switchover(&self, instance: String, to: Option<String>) -> Result<api::Switchover, ApiError> {
        let started = Instant::now();
        let from = self.seen(&instance).and_then(|i| i.master);
        let epoch = self.cluster.switchover(&instance, to).await.map_err(|e| refusal(&e))?;
        // The switchover is committed. It is done when this node has dropped the addresses and knows its successor.
        let done = |status: cluster::ClusterStatus| {
            let now = status.instances.into_iter().find(|i| i.name == instance)?;
            let master = now.master.filter(|_| now.epoch >= epoch && now.role == Role::Backup)?;
            Some((now.epoch, master))
        };
        if let Some((epoch, to)) = self.cluster.find_status(SETTLE, done).await {
            let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            return Ok(api::Switchover { instance, from, to, epoch, took_ms });
        }
        Err(ApiError {
            message: format!(
                "the switchover is committed (epoch {epoch}), but the new master has not taken over within {SETTLE:?}"
            ),
            advice: "see `keepcall status` on both nodes; this node takes over again if the new master stays silent"
                .to_owned(),
            kind: ErrorKind::Failed,
        })
    }

    fn seen(&self, instance: &str) -> Option<cluster::InstanceStatus> {
        self.cluster.status().instances.into_iter().find(|i| i.name == instance)
    }

    fn some(&self, instance: Option<String>) -> Result<Vec<String>, ApiError> {
        match instance {
            Some(name) if self.instances.contains_key(&name) => Ok(vec![name]),
            Some(name) => Err(unknown(&name)),
            None => Ok(self.instances.keys().cloned().collect()),
        }
    }

    fn one(&self, instance: Option<String>) -> Result<String, ApiError> {
        let mut names = self.some(instance)?;
        match (names.pop(), names.is_empty()) {
            (Some(name), true) => Ok(name),
            (last, _) => Err(ApiError {
                message: "this node has several instances: name one".to_owned(),
                advice: format!("one of {}", names.into_iter().chain(last).collect::<Vec<_>>().join(", ")),
                kind: ErrorKind::Invalid,
            }),
        }
    }
}

/// The answer of an agent that still waits for missing resources.
pub(super) fn not_ready(config: &Config, request: &Request, waiting: &Waiting) -> Reply {
    let why = waiting.why().unwrap_or("the agent is starting").to_owned();
    if !matches!(request, Request::Status) {
        return Reply::Error(ApiError {
            message: format!("the agent is not ready: {why}"),
            advice: "the agent retries until it is ready; see `keepcall status`".to_owned(),
            kind: ErrorKind::Failed,
        });
    }
    let instance = |i: &crate::config::Instance| api::InstanceStatus {
        name: i.name.clone(),
        addresses: i.addresses.iter().map(ToString::to_string).collect(),
        role: word(Role::Unknown).to_owned(),
        reason: format!("not ready: {why}"),
        not_ready: Some(why.clone()),
        ..api::InstanceStatus::default()
    };
    Reply::Status(api::Status {
        cluster: config.node.cluster.clone(),
        node: config.node.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instances: config.instances.iter().map(instance).collect(),
        nodes: vec![api::NodeStatus {
            name: config.node.name.clone(),
            priority: config.node.priority,
            summary: format!("not ready: {why}"),
            is_self: true,
            ..api::NodeStatus::default()
        }],
        ..api::Status::default()
    })
}

const fn word(role: Role) -> &'static str {
    match role {
        Role::Unknown => "unknown",
        Role::Backup => "backup",
        Role::Master => "master",
        Role::Waiting => "waiting",
        Role::Leaving => "leaving",
    }
}

fn unknown(instance: &str) -> ApiError {
    ApiError {
        message: format!("this node has no instance {instance:?}"),
        advice: "`keepcall status` lists the instances".to_owned(),
        kind: ErrorKind::Invalid,
    }
}

fn not_master(master: Option<&str>) -> ApiError {
    ApiError {
        message: match master {
            Some(master) => format!("this node is not the master; only the master, {master}, can hand over"),
            None => "no node is master now, so no node can hand over".to_owned(),
        },
        advice: match master {
            Some(master) => format!("run the command on {master}"),
            None => "see `keepcall status`".to_owned(),
        },
        kind: ErrorKind::Refused,
    }
}

fn not_forgotten(e: &ForgetError) -> ApiError {
    let (advice, kind) = match e {
        ForgetError::UnknownInstance(instance) => return unknown(instance),
        ForgetError::Refused(_) => ("`keepcall status` lists members and masters".to_owned(), ErrorKind::Refused),
        ForgetError::Timeout | ForgetError::Stopping => ("see `keepcall status`".to_owned(), ErrorKind::Failed),
    };
    ApiError { message: e.to_string(), advice, kind }
}

fn refusal(e: &SwitchoverError) -> ApiError {
    match e {
        SwitchoverError::UnknownInstance(instance) => unknown(instance),
        SwitchoverError::NotMaster { master } => not_master(master.as_deref()),
        SwitchoverError::NoCandidate { .. } => ApiError {
            message: e.to_string(),
            advice: "remove the obstacle of the node that you want, then try again".to_owned(),
            kind: ErrorKind::Refused,
        },
        SwitchoverError::Timeout | SwitchoverError::Stopping => {
            ApiError { message: e.to_string(), advice: "see `keepcall status`".to_owned(), kind: ErrorKind::Failed }
        }
    }
}
