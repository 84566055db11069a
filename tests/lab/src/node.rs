//! The agent and the command line as an operator uses them: one host of the lab, a configuration, and their output.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test without its agent has failed")]

use crate::agent::built_program;
use crate::lan::{Host, Lan, VIP4};
use crate::proc::Proc;
use crate::wait;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything here, for a busy machine and an agent that itself waits a few seconds.
pub const SOON: Duration = Duration::from_secs(60);
const CLUSTER: &str = "test";

/// A single etcd member on e1. Tests start the member themselves, so that they can stop it and change its settings.
pub struct Member {
    host: Host,
    scheme: &'static str,
    more: Vec<String>,
    /// More arguments for etcdctl.
    pub client: Vec<String>,
    /// Process, while the member runs.
    pub proc: Option<Proc>,
}

impl Member {
    /// A member that does not run yet. `more` are etcd's arguments, `client` etcdctl's.
    pub fn new(lan: &Lan, scheme: &'static str, more: &[&str], client: &[&str]) -> Self {
        let own = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect();
        Self { host: lan.host("e1").unwrap().clone(), scheme, more: own(more), client: own(client), proc: None }
    }

    /// URL for clients.
    pub fn url(&self) -> String {
        format!("{}://{}:2379", self.scheme, self.host.ip4)
    }

    /// Starts the member and waits until it answers.
    pub fn start(&mut self) {
        let url = self.url();
        let data = self.host.dir.join("data");
        let mut argv = vec!["etcd", "--name", "m", "--unsafe-no-fsync", "--data-dir", data.to_str().unwrap()];
        argv.extend(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        argv.extend([
            "--listen-peer-urls",
            "http://127.0.0.1:2380",
            "--initial-advertise-peer-urls",
            "http://127.0.0.1:2380",
        ]);
        argv.extend(["--initial-cluster", "m=http://127.0.0.1:2380"]);
        argv.extend(self.more.iter().map(String::as_str));
        self.proc = Some(self.host.spawn("etcd", &argv).unwrap());
        wait::until("etcd to answer", SOON, || self.try_ctl(&["endpoint", "health"])).unwrap();
    }

    /// Runs etcdctl. Returns the output, or the complaint.
    pub fn try_ctl(&self, args: &[&str]) -> Result<String, String> {
        let endpoint = format!("--endpoints={}", self.url());
        let mut argv = vec!["env", "ETCDCTL_API=3", "etcdctl", "--command-timeout=3s", &endpoint];
        argv.extend(self.client.iter().map(String::as_str));
        argv.extend(args);
        self.host.exec(&argv).map_err(|e| format!("{e:#}"))
    }

    /// Runs etcdctl. Must succeed.
    pub fn ctl(&self, args: &[&str]) -> String {
        self.try_ctl(args).unwrap()
    }

    /// The value of a key below the cluster's root; `None` if it is missing.
    pub fn get(&self, key: &str) -> Option<String> {
        let text = self.ctl(&["get", "--print-value-only", &path(key)]);
        (!text.is_empty()).then(|| text.trim_end_matches('\n').to_owned())
    }

    /// Sets a key through standard input, since values may be large or begin with a dash.
    pub fn put(&self, key: &str, value: &str) {
        self.fed(&["put", &path(key)], value);
    }

    /// Runs etcdctl with this standard input.
    pub fn fed(&self, args: &[&str], input: &str) {
        use std::io::Write as _;
        let endpoint = format!("--endpoints={}", self.url());
        let mut argv = vec!["env", "ETCDCTL_API=3", "etcdctl", &endpoint];
        argv.extend(self.client.iter().map(String::as_str));
        argv.extend(args);
        let mut command = self.host.command(&argv);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "etcdctl {args:?} failed");
    }

    /// The member's use of one core, measured over a second.
    pub fn load(&self) -> f64 {
        load(self.proc.as_ref().unwrap().pid())
    }
}

/// A key below the cluster's root.
pub fn path(key: &str) -> String {
    format!("/keepcall/{CLUSTER}/{key}")
}

/// The program under test.
pub fn keepcall() -> String {
    built_program().unwrap().display().to_string()
}

/// One agent's files on a host.
#[derive(Clone)]
pub struct Node {
    /// Host of the agent.
    pub host: Host,
    /// Its files.
    pub dir: PathBuf,
    /// Text of the configuration file.
    pub config: String,
    /// The agent's program; another release where releases are mixed.
    pub program: String,
}

impl Node {
    /// A node with addresses only, and a valid key.
    pub fn new(host: &Host, name: &str, etcd: &str) -> Self {
        let dir = host.dir.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let at = dir.display();
        let config = format!(
            "[node]\nname = \"{name}\"\ncluster = \"{CLUSTER}\"\naddress = \"{}\"\nkey_file = \"{at}/key\"\n\n[etcd]\nendpoints = [\"{etcd}\"]\ntimeout = \"2s\"\nlease_ttl = \"6s\"\n\n\
             [timing]\nheartbeat = \"100ms\"\nhold = \"2s\"\n\n[control]\nsocket = \"{at}/sock\"\n\n\
             [[instance]]\nname = \"sip\"\ninterface = \"eth0\"\naddresses = [\"{VIP4}/24\"]\n",
            host.ip4
        );
        let node = Self { host: host.clone(), dir, config, program: keepcall() };
        node.key(b"0123456789abcdef0123456789abcdef");
        node
    }

    /// Adds `[instance.sip]`, so that the agent follows calls.
    pub fn with_sip(mut self) -> Self {
        self.config.push_str("\n[instance.sip]\nports = [5060]\nmedia_ports = \"10000-20000\"\nrecovery_port = 5070\n");
        self
    }

    /// Adds a check of the process from [`Node::server`].
    pub fn checked(mut self) -> Self {
        let pidfile = self.dir.join("server.pid");
        self.config.push_str(&format!(
            "\n[[instance.check]]\nname = \"server\"\ninterval = \"100ms\"\ntimeout = \"50ms\"\nrise = 1\nfall = 1\n[instance.check.process]\npidfile = \"{}\"\n",
            pidfile.display()
        ));
        self
    }

    /// A process that stands in for a server.
    pub fn server(&self) -> Proc {
        let server = self.host.spawn("server", &["sleep", "600"]).unwrap();
        std::fs::write(self.dir.join("server.pid"), server.pid().to_string()).unwrap();
        server
    }

    /// Changes one part of the configuration.
    pub fn with(mut self, from: &str, to: &str) -> Self {
        assert!(self.config.contains(from), "{from} is not in {}", self.config);
        self.config = self.config.replace(from, to);
        self
    }

    /// Replaces the cluster's key in the key file.
    pub fn key(&self, bytes: &[u8]) {
        let path = self.dir.join("key");
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn config_file(&self) -> PathBuf {
        let path = self.dir.join("keepcall.toml");
        std::fs::write(&path, &self.config).unwrap();
        path
    }

    /// Socket for the command line.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    /// Starts the agent.
    pub fn start(&self) -> Agent {
        self.start_by(&[])
    }

    /// Starts the agent through another program, such as setpriv.
    pub fn start_by(&self, before: &[&str]) -> Agent {
        let config = self.config_file();
        let log = format!("{}-agent", self.dir.file_name().unwrap().to_str().unwrap());
        // The log of an earlier agent does not matter.
        let _ = std::fs::remove_file(self.host.dir.join(format!("{log}.log")));
        let agent = ["env", "KEEPCALL_LOG=info", &self.program, "agent", "--config", config.to_str().unwrap()];
        let proc = self.host.spawn(&log, &[before, &agent].concat()).unwrap();
        Agent { node: self.clone(), proc }
    }

    /// Runs an agent that is expected to give up by itself; returns its exit code and its log.
    pub fn fails(&self, before: &[&str]) -> (i32, String) {
        let mut agent = self.start_by(before);
        let status = agent.ends();
        let log = agent.log();
        assert!(!log.contains("panicked"), "{log}");
        (status, log)
    }

    /// Runs a command on the node's host: exit code, standard output, standard error.
    pub fn run(&self, args: &[&str]) -> (i32, String, String) {
        let config = self.config_file();
        let program = keepcall();
        let argv = [&["timeout", "60", &program][..], args, &["--config", config.to_str().unwrap()]].concat();
        said(&self.host.command(&argv).output().unwrap())
    }

    /// Whether the host has the virtual address.
    pub fn has_vip(&self) -> bool {
        self.host.has_address(VIP4.into()).unwrap()
    }
}

/// Exit code (-1 after a signal), standard output, standard error.
pub fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// A running agent.
pub struct Agent {
    /// Its files.
    pub node: Node,
    /// Process of the agent.
    pub proc: Proc,
}

impl Agent {
    /// The agent's whole log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.proc.log).unwrap_or_default()
    }

    /// Waits until the log contains this text.
    pub fn says(&self, what: &str) {
        wait::until(&format!("the agent to say {what:?}"), SOON, || {
            let log = self.log();
            if log.contains(what) { Ok(()) } else { Err(log) }
        })
        .unwrap();
    }

    /// JSON of `keepcall status`, or the complaint of the command.
    pub fn status(&self) -> Result<Value, String> {
        let (code, out, err) = self.node.run(&["status", "--json"]);
        if code != 0 {
            return Err(format!("{code}: {err}"));
        }
        serde_json::from_str(&out).map_err(|e| format!("{e}: {out}"))
    }

    /// Waits until the agent's status satisfies `good`.
    pub fn comes_to(&self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        wait::until(what, SOON, || {
            let status = self.status()?;
            if good(&status) { Ok(status) } else { Err(format!("{status}\n{}", self.proc.tail())) }
        })
        .unwrap()
    }

    /// Waits until the agent is master and has the address, which arrives a moment later.
    pub fn is_master(&self) -> Value {
        self.comes_to("this node to be master", |s| s["instances"][0]["role"] == "master" && self.node.has_vip())
    }

    /// Waits until the agent is master, has the address, and has armed this successor.
    pub fn is_armed(&self, successor: &str) -> Value {
        self.comes_to("this node to be master with a successor", |s| {
            s["instances"][0]["role"] == "master" && s["instances"][0]["successor"] == successor && self.node.has_vip()
        })
    }

    /// Waits for the agent's end. Returns the exit code, or -1 after a signal.
    pub fn ends(&mut self) -> i32 {
        let status = wait::until("the agent to end", SOON, || match self.proc.ended() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("the agent still runs".to_owned()),
            Err(e) => Err(e.to_string()),
        });
        status.unwrap_or_else(|e| panic!("{e:#}\n{}", self.log())).code().unwrap_or(-1)
    }

    /// Stops the agent with SIGTERM, and returns the time that this took. The agent must exit with 0 and without a
    /// panic.
    pub fn stops(mut self) -> Duration {
        let since = Instant::now();
        self.proc.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
        let code = self.ends();
        let log = self.log();
        assert!(code == 0 && !log.contains("panicked"), "{code}\n{log}");
        since.elapsed()
    }

    /// Whether the agent still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.proc.ended(), Ok(None))
    }

    /// Fails if the agent spins: an idle debug build needs a few percent of a core.
    pub fn is_calm(&self) {
        let load = load(self.proc.pid());
        assert!(load < 0.35, "the agent uses {load:.2} of a core\n{}", self.proc.tail());
    }
}

/// A process's use of one core, over a second.
fn load(pid: u32) -> f64 {
    let (before, since) = (cpu(pid), Instant::now());
    // This sleep is the measuring interval, not a wait for an event.
    std::thread::sleep(Duration::from_secs(1));
    (cpu(pid) - before) / since.elapsed().as_secs_f64()
}

/// Processor time of a process, in seconds.
fn cpu(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name in parentheses may contain anything; utime and stime are the 12th and 13th fields after it.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    // USER_HZ is 100 on every Linux that this runs on.
    ticks / 100.0
}

/// Writes a file with mode 0600.
pub fn secret(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
