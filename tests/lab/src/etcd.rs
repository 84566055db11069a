//! Three etcd members on hosts e1, e2 and e3.

use super::lan::{Host, Lan};
use super::proc::Proc;
use super::wait;
use anyhow::{Context, Result};
use std::time::Duration;

const MEMBERS: [&str; 3] = ["e1", "e2", "e3"];
/// etcd elects a leader within two seconds; a busy machine takes longer to start three programs.
const READY: Duration = Duration::from_secs(30);

/// A running cluster of three members.
pub struct Etcd {
    /// The members on e1, e2 and e3, in this order.
    pub members: Vec<Proc>,
    /// One URL for each member.
    pub endpoints: Vec<String>,
    cluster: String,
}

impl Etcd {
    /// Starts the cluster and waits until it answers.
    pub fn start(lan: &Lan) -> Result<Self> {
        let cluster: Result<Vec<String>> =
            MEMBERS.iter().map(|m| Ok(format!("{m}=http://{}:2380", lan.host(m)?.ip4))).collect();
        let cluster = cluster?.join(",");
        let (mut members, mut endpoints) = (Vec::new(), Vec::new());
        for m in MEMBERS {
            let host = lan.host(m)?;
            endpoints.push(format!("http://{}:2379", host.ip4));
            members.push(spawn(host, &cluster)?);
        }
        let etcd = Self { members, endpoints, cluster };
        wait::until("etcd to elect a leader", READY, || {
            etcd.ctl(lan, &["endpoint", "health"]).map_err(|e| format!("{e:#}"))
        })?;
        Ok(etcd)
    }

    /// Kills a member.
    pub fn kill(&mut self, member: usize) {
        self.members[member].kill();
    }

    /// Starts a member again with its old data.
    pub fn start_again(&mut self, lan: &Lan, member: usize) -> Result<()> {
        self.members[member] = spawn(lan.host(MEMBERS[member])?, &self.cluster)?;
        Ok(())
    }

    /// The host of a member.
    pub fn host(member: usize) -> &'static str {
        MEMBERS[member]
    }

    /// Index of the leader.
    pub fn leader(&self, lan: &Lan) -> Result<usize> {
        let text = self.ctl(lan, &["endpoint", "status", "--write-out=json"])?;
        let all: serde_json::Value = serde_json::from_str(&text)?;
        let leads = |e: &&serde_json::Value| {
            let status = &e["Status"];
            status["leader"].is_u64() && status["leader"] == status["header"]["member_id"]
        };
        let leader = all.as_array().and_then(|a| a.iter().find(leads)).and_then(|e| e["Endpoint"].as_str());
        self.endpoints
            .iter()
            .position(|e| Some(e.as_str()) == leader)
            .with_context(|| format!("etcd has no leader: {text}"))
    }

    /// Runs etcdctl on e1 against all members.
    pub fn ctl(&self, lan: &Lan, args: &[&str]) -> Result<String> {
        let endpoints = format!("--endpoints={}", self.endpoints.join(","));
        let argv: Vec<&str> = ["env", "ETCDCTL_API=3", "etcdctl", "--command-timeout=3s", &endpoints]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        lan.host("e1")?.exec(&argv)
    }
}

fn spawn(host: &Host, cluster: &str) -> Result<Proc> {
    let (peer, client) = (format!("http://{}:2380", host.ip4), format!("http://{}:2379", host.ip4));
    let (data, listen) = (host.dir.join("data"), format!("{client},http://127.0.0.1:2379"));
    let data = data.to_string_lossy();
    let argv = [
        ["etcd", "--name", &host.name, "--data-dir", &data, "--initial-cluster", cluster],
        [
            "--initial-cluster-state",
            "new",
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--listen-client-urls",
        ],
    ];
    host.spawn("etcd", &[&argv.concat()[..], &[&listen, "--advertise-client-urls", &client]].concat())
}
