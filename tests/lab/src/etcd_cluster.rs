//! Three etcd members on hosts of the lab. A test can kill, freeze, cut off and restart each.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test without its etcd has failed")]

use crate::lan::{Host, Lan};
use crate::proc::Proc;
use crate::wait;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;

/// Members start and elect a leader within two seconds; a busy machine takes longer.
const READY: Duration = Duration::from_secs(40);
const MEMBERS: [&str; 3] = ["e1", "e2", "e3"];

struct Member {
    host: Host,
    argv: Vec<String>,
    proc: Option<Proc>,
}

/// Dropping the cluster ends its processes.
pub struct EtcdCluster {
    members: Vec<Member>,
    /// One URL for each member.
    pub urls: Vec<String>,
    ctl: Vec<String>,
    tracers: Vec<Proc>,
}

impl EtcdCluster {
    /// A running cluster on e1, e2 and e3.
    pub fn start(lan: &Lan) -> Self {
        let mut etcd = Self::new(lan, Vec::new(), &|_| Vec::new(), Vec::new());
        etcd.launch_all();
        etcd
    }

    /// Not started yet, with more arguments for all members, for each, and for etcdctl.
    pub fn new(lan: &Lan, all: Vec<String>, each: &dyn Fn(&Host) -> Vec<String>, ctl: Vec<String>) -> Self {
        let scheme = if ctl.iter().any(|c| c.starts_with("--cacert")) { "https" } else { "http" };
        let hosts: Vec<Host> = MEMBERS.iter().map(|m| lan.host(m).unwrap().clone()).collect();
        let peers: Vec<String> = hosts.iter().map(|h| format!("{}=http://{}:2380", h.name, h.ip4)).collect();
        let member = |host: &Host| {
            let (client, peer) = (format!("{scheme}://{}:2379", host.ip4), format!("http://{}:2380", host.ip4));
            let data = host.dir.join("data").display().to_string();
            let mut argv: Vec<String> = ["etcd", "--name", &host.name, "--unsafe-no-fsync", "--data-dir", &data]
                .into_iter()
                .chain(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .chain(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .chain(["--initial-cluster", &peers.join(","), "--initial-cluster-token", "faults"])
                .map(str::to_owned)
                .collect();
            argv.extend(all.iter().cloned());
            argv.extend(each(host));
            Member { host: host.clone(), argv, proc: None }
        };
        Self {
            urls: hosts.iter().map(|h| format!("{scheme}://{}:2379", h.ip4)).collect(),
            members: hosts.iter().map(member).collect(),
            ctl,
            tracers: Vec::new(),
        }
    }

    /// Starts every member and waits until all answer.
    pub fn launch_all(&mut self) {
        (0..3).for_each(|i| self.launch(i));
        self.answers();
    }

    /// From the next start on, the members wait for their disks, as etcd does by default.
    pub fn sync(&mut self) {
        self.members.iter_mut().for_each(|m| m.argv.retain(|a| a != "--unsafe-no-fsync"));
    }

    /// Delays every `fdatasync` of every member by this much, so that etcd waits as for a slow or busy disk.
    pub fn slow_disks(&mut self, delay: &str) {
        let inject = format!("inject=fdatasync:delay_exit={delay}");
        for m in &self.members {
            let pid = m.proc.as_ref().unwrap().pid().to_string();
            let argv = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject, "-p", &pid];
            self.tracers.push(m.host.spawn("strace", &argv).unwrap());
        }
        for m in &self.members {
            let pid = m.proc.as_ref().unwrap().pid();
            wait::until("a member's disk to be slow", READY, || {
                if is_traced(pid) { Ok(()) } else { Err("strace does not trace it yet".into()) }
            })
            .unwrap();
        }
    }

    /// Ends [`EtcdCluster::slow_disks`].
    pub fn fast_disks(&mut self) {
        for mut t in self.tracers.drain(..) {
            // On SIGTERM strace detaches from its tracees; if strace is killed, the kernel detaches.
            let _ = t.stop(Duration::from_secs(5));
        }
    }

    /// The endpoints in the form of a configuration.
    pub fn endpoints(&self) -> String {
        self.urls.join("\", \"")
    }

    /// Makes `kc` a user with the rights an agent needs, and enables authentication.
    pub fn authenticate(&mut self, password: &str) {
        self.ctl(&["user", "add", "root:r"]);
        self.ctl(&["user", "add", &format!("kc:{password}")]);
        self.ctl(&["role", "add", "keepcall"]);
        self.ctl(&["role", "grant-permission", "keepcall", "--prefix=true", "readwrite", "/keepcall/"]);
        self.ctl(&["user", "grant-role", "kc", "keepcall"]);
        // etcd itself creates the root role if it is missing.
        let _ = self.try_ctl(&["role", "add", "root"]);
        self.ctl(&["user", "grant-role", "root", "root"]);
        self.ctl(&["auth", "enable"]);
        self.ctl.push("--user=root:r".into());
    }

    /// Starts a member with the data on its disk.
    pub fn launch(&mut self, i: usize) {
        let m = &mut self.members[i];
        let argv: Vec<&str> = m.argv.iter().map(String::as_str).collect();
        m.proc = Some(m.host.spawn("etcd", &argv).unwrap());
    }

    /// Kills a member. The data stays.
    pub fn kill(&mut self, i: usize) {
        self.members[i].proc = None;
    }

    /// SIGSTOP: the member's connections stay, and the kernel accepts new ones.
    pub fn freeze(&self, i: usize) {
        self.members[i].proc.as_ref().unwrap().signal(Signal::SIGSTOP).unwrap();
    }

    /// Ends [`EtcdCluster::freeze`].
    pub fn thaw(&self, i: usize) {
        self.members[i].proc.as_ref().unwrap().signal(Signal::SIGCONT).unwrap();
    }

    /// Saves all of etcd's data to a file. Returns the path.
    pub fn save(&self) -> String {
        let file = self.members[0].host.dir.join("snapshot").display().to_string();
        let _ = std::fs::remove_file(&file);
        self.try_ctl_at(0, &["snapshot", "save", &file]).unwrap();
        file
    }

    /// Every member loses its data and starts from the snapshot, as in etcd's manual.
    pub fn restore(&mut self, snapshot: &str) {
        self.erase();
        for m in &self.members {
            let of = |flag: &str| m.argv.iter().skip_while(|a| *a != flag).nth(1).unwrap().as_str();
            let mut argv = vec!["env", "ETCDCTL_API=3", "etcdctl", "snapshot", "restore", snapshot];
            let kept = [
                "--name",
                "--data-dir",
                "--initial-cluster",
                "--initial-cluster-token",
                "--initial-advertise-peer-urls",
            ];
            argv.extend(kept.iter().flat_map(|flag| [*flag, of(flag)]));
            m.host.exec(&argv).unwrap();
        }
        self.launch_all();
    }

    /// Every member starts empty, under this cluster name.
    pub fn begin_anew(&mut self, token: &str) {
        self.erase();
        for m in &mut self.members {
            let at = m.argv.iter().position(|a| a == "--initial-cluster-token").unwrap();
            m.argv[at + 1] = token.to_owned();
        }
        self.launch_all();
    }

    fn erase(&mut self) {
        for m in &mut self.members {
            m.proc = None;
            std::fs::remove_dir_all(m.host.dir.join("data")).unwrap();
        }
    }

    /// The member forms a cluster of its own, until [`EtcdCluster::launch`].
    pub fn launch_alone(&mut self, i: usize) {
        let m = &mut self.members[i];
        m.proc = None;
        let mut argv = m.argv.clone();
        let peer = format!("{}=http://{}:2380", m.host.name, m.host.ip4);
        let data = m.host.dir.join("alone").display().to_string();
        for (flag, value) in [("--initial-cluster", &peer), ("--initial-cluster-token", &data), ("--data-dir", &data)] {
            let at = argv.iter().position(|a| a == flag).unwrap();
            argv[at + 1] = value.clone();
        }
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        m.proc = Some(m.host.spawn("etcd", &argv).unwrap());
    }

    /// Silently drops every packet from and to a member's host.
    pub fn cut(&self, i: usize) {
        let rules = "table inet cut { chain i { type filter hook input priority 0; iif lo accept; drop; }; \
                     chain o { type filter hook output priority 0; oif lo accept; drop; }; }";
        self.members[i].host.exec(&["nft", rules]).unwrap();
    }

    /// Cuts a member off from the other members only.
    pub fn cut_peers(&self, i: usize) {
        let rules = "table inet cut { chain i { type filter hook input priority 0; tcp dport 2380 drop; tcp sport 2380 drop; }; \
                     chain o { type filter hook output priority 0; tcp dport 2380 drop; tcp sport 2380 drop; }; }";
        self.members[i].host.exec(&["nft", rules]).unwrap();
    }

    /// Ends [`EtcdCluster::cut`] and [`EtcdCluster::cut_peers`].
    pub fn heal(&self, i: usize) {
        self.members[i].host.exec(&["nft", "delete table inet cut"]).unwrap();
    }

    /// Runs etcdctl on a member's host against that member.
    pub fn try_ctl_at(&self, i: usize, args: &[&str]) -> Result<String, String> {
        self.run_ctl(i, &self.urls[i], args)
    }

    /// Runs etcdctl against all members.
    pub fn try_ctl(&self, args: &[&str]) -> Result<String, String> {
        self.run_ctl(0, &self.urls.join(","), args)
    }

    /// Runs etcdctl against all members. Must succeed.
    pub fn ctl(&self, args: &[&str]) -> String {
        self.try_ctl(args).unwrap()
    }

    /// Runs etcdctl with this standard input. Must succeed.
    pub fn fed(&self, args: &[&str], input: &str) {
        assert!(self.try_fed(args, input), "etcdctl {args:?} failed");
    }

    /// As [`EtcdCluster::fed`], but returns whether etcdctl succeeded.
    pub fn try_fed(&self, args: &[&str], input: &str) -> bool {
        use std::io::Write as _;
        let endpoints = format!("--endpoints={}", self.urls.join(","));
        let mut argv = vec!["env", "ETCDCTL_API=3", "etcdctl", "--command-timeout=4s", &endpoints];
        argv.extend(self.ctl.iter().map(String::as_str));
        argv.extend(args);
        let mut child =
            self.members[0].host.command(&argv).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait().unwrap().success()
    }

    fn run_ctl(&self, i: usize, endpoints: &str, args: &[&str]) -> Result<String, String> {
        let endpoints = format!("--endpoints={endpoints}");
        let mut argv = vec!["env", "ETCDCTL_API=3", "etcdctl", "--command-timeout=4s", &endpoints];
        argv.extend(self.ctl.iter().map(String::as_str));
        argv.extend(args);
        self.members[i].host.exec(&argv).map_err(|e| format!("{e:#}"))
    }

    /// Waits until every member answers.
    pub fn answers(&self) {
        wait::until("all members of etcd to answer", READY, || self.try_ctl(&["endpoint", "health"])).unwrap();
    }

    /// Index of the leader.
    pub fn leader(&self) -> usize {
        wait::until("a leader", READY, || {
            let led: Vec<usize> = (0..3)
                .filter(|&i| {
                    let Ok(text) = self.try_ctl_at(i, &["endpoint", "status", "-w", "json"]) else { return false };
                    let Ok(v) = serde_json::from_str::<Value>(&text) else { return false };
                    v[0]["Status"]["leader"] == v[0]["Status"]["header"]["member_id"]
                })
                .collect();
            if let [one] = led[..] { Ok(one) } else { Err(format!("{led:?}")) }
        })
        .unwrap()
    }

    /// A member's id in etcdctl's form.
    pub fn id(&self, i: usize) -> String {
        let text = self.try_ctl_at(i, &["endpoint", "status", "-w", "json"]).unwrap();
        let v: Value = serde_json::from_str(&text).unwrap();
        format!("{:x}", v[0]["Status"]["header"]["member_id"].as_u64().unwrap())
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        self.tracers.clear();
        for m in &mut self.members {
            m.proc = None;
        }
    }
}

/// Whether every thread of a process has a tracer: strace delays only the threads that it traces.
fn is_traced(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|t| {
        let status = std::fs::read_to_string(t.path().join("status")).unwrap_or_default();
        status.lines().any(|l| l.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
    })
}
