//! Three etcd members on hosts e1, e2 and e3.

use super::lan::Lan;
use super::proc::Proc;
use super::wait;
use anyhow::Result;
use std::time::Duration;

/// The hosts of the members.
const MEMBERS: [&str; 3] = ["e1", "e2", "e3"];
/// etcd elects within two seconds; a busy machine takes longer to start three programs.
const READY: Duration = Duration::from_secs(30);

/// A running cluster.
pub(crate) struct Etcd {
    /// The members, in the order of the hosts.
    pub(crate) members: Vec<Proc>,
    /// One URL for each member.
    pub(crate) endpoints: Vec<String>,
}

impl Etcd {
    /// Starts the cluster and waits until it answers.
    pub(crate) fn start(lan: &Lan) -> Result<Self> {
        let mut cluster = Vec::new();
        let mut endpoints = Vec::new();
        for m in MEMBERS {
            let ip = lan.host(m)?.ip4;
            cluster.push(format!("{m}=http://{ip}:2380"));
            endpoints.push(format!("http://{ip}:2379"));
        }
        let cluster = cluster.join(",");
        let mut members = Vec::new();
        for m in MEMBERS {
            let host = lan.host(m)?;
            let (peer, client) = (format!("http://{}:2380", host.ip4), format!("http://{}:2379", host.ip4));
            let data = host.dir.join("data");
            let argv = [
                "etcd",
                "--name",
                m,
                "--data-dir",
                &data.to_string_lossy(),
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
                "--listen-client-urls",
                &format!("{client},http://127.0.0.1:2379"),
                "--advertise-client-urls",
                &client,
                "--initial-cluster",
                &cluster,
                "--initial-cluster-state",
                "new",
            ];
            members.push(host.spawn("etcd", &argv)?);
        }
        let etcd = Self { members, endpoints };
        wait::until("etcd to elect a leader", READY, || etcd.ctl(lan, &["endpoint", "health"]).map_err(|e| format!("{e:#}")))?;
        Ok(etcd)
    }

    /// Runs etcdctl on e1 against all members.
    pub(crate) fn ctl(&self, lan: &Lan, args: &[&str]) -> Result<String> {
        let endpoints = format!("--endpoints={}", self.endpoints.join(","));
        let argv: Vec<&str> = ["env", "ETCDCTL_API=3", "etcdctl", "--command-timeout=3s", &endpoints]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        lan.host("e1")?.exec(&argv)
    }
}
