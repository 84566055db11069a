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

/// What differs between the agents of a lab.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The keepcall program.
    pub program: PathBuf,
    /// The name of the cluster.
    pub cluster: String,
    /// One URL for each member of etcd.
    pub endpoints: Vec<String>,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// How long a right lasts.
    pub hold: Duration,
    /// Process id file of the server to watch; without it there are no checks and no calls, only addresses.
    pub server_pidfile: Option<PathBuf>,
    /// What is run when the node becomes backup.
    pub on_backup: Option<Vec<String>>,
}

impl Setup {
    /// The time that leases are asked for: they must outlast the hold, and etcd counts in seconds.
    pub fn lease_ttl(&self) -> Duration {
        Duration::from_secs((self.hold.as_secs() + 2).max(3))
    }
}

/// The instance of the lab's agents.
pub const INSTANCE: &str = "sip";

/// Longest wait for two agents to agree; a node that starts contends for nothing during its first hold.
const READY: Duration = Duration::from_secs(60);

/// A running agent.
pub struct Agent {
    /// Its process.
    pub proc: Proc,
    /// The name of its node.
    pub node: String,
    program: PathBuf,
    config: PathBuf,
    socket: PathBuf,
    host: Host,
}

/// The keepcall program that was built along with this one.
pub fn built_program() -> Result<PathBuf> {
    let me = std::env::current_exe()?;
    let beside = me.parent().context("the place of this program")?;
    // target/<profile>/lab, but target/<profile>/deps/<test>: the program is in target/<profile>.
    let folder = if beside.ends_with("deps") { beside.parent().unwrap_or(beside) } else { beside };
    let path = folder.join("keepcall");
    // `cargo test` builds it along with keepcall's own integration tests, and with nothing else.
    ensure!(path.exists(), "{} is missing: run `cargo build --bin keepcall` first", path.display());
    Ok(path)
}

impl Agent {
    /// Writes its configuration and starts it.
    pub fn start(host: &Host, setup: &Setup) -> Result<Self> {
        Self::start_with(host, setup, "")
    }

    /// The same with more lines at the end of its configuration, which is within the instance.
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

    /// Starts it again, after it has ended; its log goes on.
    pub fn start_again(&mut self) -> Result<()> {
        self.proc.kill();
        self.proc = spawn(&self.host, &self.program, &self.config)?;
        Ok(())
    }

    /// The host that it runs on.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// Runs a command of keepcall on the agent's host, on its socket; the parsed JSON of its output.
    pub fn ask(&self, args: &[&str]) -> Result<Value> {
        let text = self.run(&[args, &["--json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("keepcall {args:?} on {} printed no JSON: {text}", self.node))
    }

    /// Starts a command of keepcall on the agent's host, and does not wait for it.
    pub(crate) fn start_command(&self, args: &[&str]) -> Result<Proc> {
        let (program, socket) = (self.program.to_string_lossy(), self.socket.to_string_lossy());
        self.host.spawn("command", &[&["timeout", "60", &program][..], args, &["--socket", &socket]].concat())
    }

    /// Removes the tables of the kernel lease from its host, as a proof of what they are for; how many there were.
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

    /// The same with the output as it is.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let (program, socket) = (self.program.to_string_lossy(), self.socket.to_string_lossy());
        // A command that hangs must not hang the lab.
        let argv = [&["timeout", "60", &program][..], args, &["--socket", &socket]].concat();
        self.host.exec(&argv)
    }

    /// The state of the lab's instance as this agent sees it.
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

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }
}

/// Waits until one agent is master and the other its successor; their places.
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
    got.context("an agent does not run")
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
