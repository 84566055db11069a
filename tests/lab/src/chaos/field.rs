//! The setting of the chaos: agents on hosts of their own, three members of etcd on others, and the witness.

use super::limits::Limits;
use super::record::CLUSTER;
use crate::agent::{Agent, INSTANCE, Setup};
use crate::etcd::Etcd;
use crate::lan::{Lan, VIP4, VIP6};
use crate::wait;
use crate::witness::Witness;
use anyhow::{Result, bail};
use std::path::Path;
use std::time::Duration;

/// Longest time from the end of the last fault until all is as at the beginning: a lease expires, etcd elects a leader,
/// a returned node is admitted and armed, all on a busy machine.
const SETTLED: Duration = Duration::from_secs(60);
/// Time between two looks at the agents. Each look starts three processes or more.
const SELDOM: Duration = Duration::from_millis(200);
/// The VIP must have had one owner for this long.
const STEADY: Duration = Duration::from_millis(300);

/// The order of the fields is the order of dropping.
pub(crate) struct Field {
    pub(crate) witness: Witness,
    pub(crate) agents: Vec<Agent>,
    pub(crate) etcd: Etcd,
    pub(crate) lan: Lan,
}

/// The roles of the agents once all is well.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) epoch: u64,
    /// Indices in [`Field::agents`].
    pub(crate) master: usize,
    pub(crate) successor: usize,
    /// The third node, if there is one.
    pub(crate) third: Option<usize>,
}

impl Field {
    /// Starts everything, with 2 or 3 agents.
    pub(crate) fn new(program: &Path, nodes: usize, limits: &Limits) -> Result<Self> {
        if !(2..=3).contains(&nodes) {
            bail!("the lab has room for 2 or 3 agents, not {nodes}");
        }
        let lan = Lan::new()?;
        let etcd = Etcd::start(&lan)?;
        let setup = Setup {
            program: program.to_owned(),
            cluster: CLUSTER.into(),
            endpoints: etcd.endpoints.clone(),
            heartbeat: limits.heartbeat,
            hold: limits.hold,
            server_pidfile: None,
            on_backup: None,
        };
        let hosts = ["a", "b", "c"][..nodes].iter().map(|h| lan.host(h)).collect::<Result<Vec<_>>>()?;
        let agents = hosts.iter().map(|h| Agent::start(h, &setup)).collect::<Result<Vec<_>>>()?;
        let witness = Witness::start(lan.host("obs")?, &hosts)?;
        Ok(Self { witness, agents, etcd, lan })
    }

    /// Waits until all is well: etcd is healthy, every agent agrees on one master, every node is a member, a successor
    /// is armed, only the master's host has and answers for the VIP, and an ordinary client's cache agrees.
    pub(crate) fn settled(&mut self) -> Result<Order> {
        let etcd = &self.etcd;
        wait::every(SELDOM, "every etcd member to be healthy", SETTLED, || {
            etcd.ctl(&self.lan, &["endpoint", "health"]).map_err(|e| format!("{e:#}"))
        })?;
        let agents = &mut self.agents;
        let (lan, witness) = (&self.lan, &self.witness);
        let got = wait::every(
            SELDOM,
            "all agents to agree on a master with a successor, with the VIP on the master's host alone",
            SETTLED,
            || {
                for a in agents.iter_mut() {
                    if let Ok(Some(status)) = a.proc.ended() {
                        return Ok(Err(format!(
                            "the agent on {} ended by itself with {status}:\n{}",
                            a.node,
                            a.proc.tail()
                        )));
                    }
                }
                let order = order(agents)?;
                let master = &agents[order.master].node;
                for a in agents.iter() {
                    for vip in [VIP4.into(), VIP6.into()] {
                        let has = a.host().has_address(vip).map_err(|e| format!("{e:#}"))?;
                        if has != (a.node == *master) {
                            let text =
                                lan.host(&a.node).and_then(|h| h.exec(&["ip", "-o", "addr", "show", "dev", "eth0"]));
                            return Err(format!("{master} is master; {} has {vip}: {has}; {text:?}", a.node));
                        }
                    }
                }
                let owner = witness.sole_owner(STEADY)?;
                let cached = witness.cached();
                if owner == *master && cached.as_ref() == Some(master) {
                    Ok(Ok(order))
                } else {
                    Err(format!("{master} is master, {owner} answers, and a client's cache holds {cached:?}"))
                }
            },
        )?;
        got.map_err(anyhow::Error::msg)
    }
}

/// The roles, if all agents agree on them.
fn order(agents: &[Agent]) -> Result<Order, String> {
    let all = agents.iter().map(|a| a.instance().map_err(|e| format!("{}: {e:#}", a.node)));
    let all = all.collect::<Result<Vec<_>, _>>()?;
    let said = || all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let place = |name: Option<&str>| name.and_then(|n| agents.iter().position(|a| a.node == n));
    let first = &all[0];
    let (Some(master), Some(successor)) = (place(first["master"].as_str()), place(first["successor"].as_str())) else {
        return Err(said());
    };
    let agree = all.iter().enumerate().all(|(i, s)| {
        ["master", "epoch", "successor"].iter().all(|k| s[k] == first[k])
            && s["members"].as_array().is_some_and(|m| m.len() == agents.len())
            && s["role"] == if i == master { "master" } else { "backup" }
            && s["name"] == INSTANCE
    });
    if !agree {
        return Err(said());
    }
    let third = (0..agents.len()).find(|i| *i != master && *i != successor);
    Ok(Order { epoch: first["epoch"].as_u64().unwrap_or(0), master, successor, third })
}
