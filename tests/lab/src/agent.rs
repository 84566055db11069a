//! A keepcall agent on a host of the lab, and its command line.

use super::lan::{Host, VIP4, VIP6};
use super::proc::Proc;
use super::wait;
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use std::fmt::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Settings that differ between the agents of a lab.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Path of the keepcall program.
    pub program: PathBuf,
    /// The name of the cluster.
    pub cluster: String,
    /// One URL for each member of etcd.
    pub endpoints: Vec<String>,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// How long a right lasts: the hold.
    pub hold: Duration,
    /// Pid file of the server to watch. Without a server the instance has no checks and no calls, only addresses.
    pub server_pidfile: Option<PathBuf>,
    /// Command of the hook `on_backup`.
    pub on_backup: Option<Vec<String>>,
}

impl Setup {
    /// TTL of the etcd leases. A lease must outlast the hold, and etcd counts in whole seconds.
    pub fn lease_ttl(&self) -> Duration {
        Duration::from_secs((self.hold.as_secs() + 2).max(3))
    }
}

/// Name of the instance that every agent of the lab has.
pub const INSTANCE: &str = "sip";

/// Longest wait for two agents to agree. A node that starts does not contend during its first hold.
const READY: Duration = Duration::from_secs(60);

/// A running agent.
pub struct Agent {
    /// Process of the agent.
    pub proc: Proc,
    /// Name of the agent's node.
    pub node: String,
    program: PathBuf,
    config: PathBuf,
    socket: PathBuf,
    host: Host,
}

/// The keepcall program from the same build as this program.
pub fn built_program() -> Result<PathBuf> {
    let me = std::env::current_exe()?;
    let beside = me.parent().context("this program has no directory")?;
    // The lab is in target/<profile>, a test in target/<profile>/deps, and keepcall in target/<profile>.
    let folder = if beside.ends_with("deps") { beside.parent().unwrap_or(beside) } else { beside };
    let path = folder.join("keepcall");
    // `cargo test` builds keepcall only along with keepcall's own integration tests.
    ensure!(path.exists(), "{} is missing: run `cargo build --bin keepcall` first", path.display());
    Ok(path)
}

impl Agent {
    /// Writes the agent's configuration and starts the agent.
    pub fn start(host: &Host, setup: &Setup) -> Result<Self> {
        Self::start_with(host, setup, "")
    }

    /// As [`Self::start`], with `more` at the end of the configuration, inside the instance.
    pub fn start_with(host: &Host, setup: &Setup, more: &str) -> Result<Self> {
        use std::io::Write as _;
        let dir = host.dir.join("keepcall");
        std::fs::create_dir_all(&dir)?;
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o750))?;
        let (config, key, socket) = (dir.join("keepcall.toml"), dir.join("cluster.key"), dir.join("keepcall.sock"));
        let mut file = std::fs::File::options().create(true).write(true).truncate(true).mode(0o600).open(&key)?;
        file.write_all(b"the lab's key, the same on all of its hosts\n")?;
        std::fs::write(&config, config_text(host, setup, &key, &socket) + more)?;
        let proc = spawn(host, &setup.program, &config)?;
        Ok(Self { proc, node: host.name.clone(), program: setup.program.clone(), config, socket, host: host.clone() })
    }

    /// Starts the agent again after its end. The log continues.
    pub fn start_again(&mut self) -> Result<()> {
        self.proc.kill();
        self.proc = spawn(&self.host, &self.program, &self.config)?;
        Ok(())
    }

    /// The agent's host.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// Runs a keepcall command against the agent's socket, and parses the JSON that the command prints.
    pub fn ask(&self, args: &[&str]) -> Result<Value> {
        let text = self.run(&[args, &["--json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("keepcall {args:?} on {} printed no JSON: {text}", self.node))
    }

    /// Starts a keepcall command on the agent's host without waiting for its end.
    pub(crate) fn start_command(&self, args: &[&str]) -> Result<Proc> {
        let (program, socket) = (self.program.to_string_lossy(), self.socket.to_string_lossy());
        self.host.spawn("command", &[&["timeout", "60", &program][..], args, &["--socket", &socket]].concat())
    }

    /// Deletes the tables of the kernel lease on the agent's host, to prove what the lease is for. Returns their
    /// number.
    pub(crate) fn take_kernel_lease_away(&self) -> Result<usize> {
        let tables = self.host.exec(&["nft", "list", "tables"])?;
        let ours: Vec<&str> = tables.lines().filter(|t| t.contains("keepcall") && t.contains("lease")).collect();
        if ours.is_empty() {
            bail!("there is no kernel lease on {}: {tables}", self.node);
        }
        for table in &ours {
            self.host.exec(&["nft", &format!("delete {table}")])?;
        }
        Ok(ours.len())
    }

    /// As [`Self::ask`], but returns the output as text.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let (program, socket) = (self.program.to_string_lossy(), self.socket.to_string_lossy());
        // A command that hangs must not hang the lab.
        let argv = [&["timeout", "60", &program][..], args, &["--socket", &socket]].concat();
        self.host.exec(&argv)
    }

    /// The lab's instance in `status` of this agent.
    pub fn instance(&self) -> Result<Value> {
        let status = self.ask(&["status"])?;
        let all = status["instances"].as_array().cloned().unwrap_or_default();
        all.into_iter()
            .find(|i| i["name"] == INSTANCE)
            .ok_or_else(|| anyhow!("{} knows no instance {INSTANCE}: {status}", self.node))
    }

    /// Changes of master that this agent took part in, newest first.
    pub fn history(&self) -> Result<Vec<Value>> {
        let h = self.ask(&["history"])?;
        h.as_array().cloned().ok_or_else(|| anyhow!("the history of {} is no list: {h}", self.node))
    }

    /// The agent's configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }
}

/// Waits until one agent is master and the other is armed as its successor. Returns the index of each.
pub fn wait_armed(agents: &mut [Agent]) -> Result<(usize, usize)> {
    let got = wait::until("one agent to be master with the other armed as its successor", READY, || {
        for a in agents.iter_mut() {
            if let Ok(Some(status)) = a.proc.ended() {
                return Ok(Err(anyhow!("the agent on {} ended with {status}:\n{}", a.node, a.proc.tail())));
            }
        }
        for (i, a) in agents.iter().enumerate() {
            let s = a.instance().map_err(|e| format!("{e:#}"))?;
            let other = &agents[1 - i].node;
            if s["role"] == "master" && s["successor"] == other.as_str() {
                return Ok(Ok((i, 1 - i)));
            }
        }
        Err(agents
            .iter()
            .map(|a| a.instance().map(|s| s.to_string()).unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n"))
    })?;
    got.context("an agent ended")
}

fn spawn(host: &Host, program: &Path, config: &Path) -> Result<Proc> {
    let argv = [
        "env",
        "KEEPCALL_LOG=info,keepcall=debug",
        &program.to_string_lossy(),
        "agent",
        "--config",
        &config.to_string_lossy(),
    ];
    host.spawn("agent", &argv)
}

fn config_text(host: &Host, s: &Setup, key: &Path, socket: &Path) -> String {
    let endpoints: Vec<String> = s.endpoints.iter().map(|e| format!("\"{e}\"")).collect();
    let ttl = s.lease_ttl().as_secs();
    let mut t = format!(
        "[node]\nname = \"{}\"\ncluster = \"{}\"\naddress = \"{}\"\nkey_file = \"{}\"\n\n[etcd]\nendpoints = [{}]\nlease_ttl = \"{ttl}s\"\n\n\
         [timing]\nheartbeat = \"{}ms\"\nhold = \"{}ms\"\n\n[control]\nsocket = \"{}\"\n\n\
         [[instance]]\nname = \"{INSTANCE}\"\ninterface = \"eth0\"\naddresses = [\"{VIP4}/24\", \"{VIP6}/64\"]\n",
        host.name,
        s.cluster,
        host.ip4,
        key.display(),
        endpoints.join(", "),
        s.heartbeat.as_millis(),
        s.hold.as_millis(),
        socket.display()
    );
    if let Some(command) = &s.on_backup {
        let _ = write!(t, "\n[instance.hooks]\non_backup = {command:?}\n");
    }
    if let Some(pidfile) = &s.server_pidfile {
        let _ = write!(
            t,
            "\n[[instance.check]]\nname = \"options\"\ninterval = \"1s\"\ntimeout = \"900ms\"\nrise = 1\nfall = 3\n\
             [instance.check.sip-options]\ntarget = \"127.0.0.1:5060\"\n\n\
             [[instance.check]]\nname = \"process\"\ninterval = \"500ms\"\ntimeout = \"300ms\"\nrise = 2\nfall = 2\n\
             [instance.check.process]\npidfile = \"{}\"\n\n\
             [instance.sip]\nports = [5060]\nmedia_ports = \"10000-20000\"\nrecovery_port = 5070\n",
            pidfile.display()
        );
    }
    t
}
