//! Hosts made of network namespaces. The bridge between them is in a namespace of its own, so that the machine's own
//! network neither sees nor feels the lab.

use super::proc::Proc;
use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Prefix of the name of each namespace. The pid of the program that made the namespace follows.
const PREFIX: &str = "kclab";
/// Directory of iproute2's named namespaces.
const NETNS: &str = "/run/netns";
/// The hosts of every LAN, each with the last number of its addresses (10.44.0.N and fd44::N).
const HOSTS: [(&str, u8); 9] =
    [("e1", 11), ("e2", 12), ("e3", 13), ("a", 1), ("b", 2), ("c", 3), ("p1", 21), ("p2", 22), ("obs", 30)];

/// The virtual IPv4 address of the lab.
pub const VIP4: Ipv4Addr = Ipv4Addr::new(10, 44, 0, 100);
/// The virtual IPv6 address of the lab.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd44, 0, 0, 0, 0, 0, 0, 0x100);

/// A LAN with its hosts and a directory for their files. Dropping it removes everything.
pub struct Lan {
    prefix: String,
    dir: PathBuf,
    hosts: Vec<Host>,
}

/// A host of the LAN.
#[derive(Clone, Debug)]
pub struct Host {
    /// Name in the lab.
    pub name: String,
    /// Name of the namespace.
    pub netns: String,
    /// The host's own IPv4 address.
    pub ip4: Ipv4Addr,
    /// The host's own IPv6 address.
    pub ip6: Ipv6Addr,
    /// Directory of the host's files, on a tmpfs if possible.
    pub dir: PathBuf,
}

impl Lan {
    /// Makes the LAN, after removing leftovers of programs that died. Needs root and iproute2.
    pub fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            bail!("the lab makes network namespaces, which needs root: run this program with sudo");
        }
        remove_leftovers();
        clean_up_on_signals();
        let prefix = format!("{PREFIX}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = base_dir().join(&prefix);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let hosts = HOSTS.iter().map(|&(name, n)| Host::new(name, n, &prefix, &dir)).collect();
        // From here on, dropping removes whatever exists.
        let lan = Self { prefix, dir, hosts };
        lan.build()?;
        Ok(lan)
    }

    fn build(&self) -> Result<()> {
        let bridge = self.bridge();
        ip(&["netns", "add", &bridge])?;
        // Without snooping the bridge floods multicast. VRRP needs this, because no router here answers for IGMP.
        batch(
            &bridge,
            "link set lo up\nlink add br0 type bridge stp_state 0 mcast_snooping 0 forward_delay 0\nlink set br0 up\n",
        )?;
        for h in &self.hosts {
            std::fs::create_dir_all(&h.dir)?;
            ip(&["netns", "add", &h.netns])?;
            // Duplicate address detection would keep each IPv6 address unusable for a second or more.
            h.sysctl("net/ipv6/conf/all/accept_dad", "0")?;
            h.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
            h.sysctl("net/ipv6/conf/default/dad_transmits", "0")?;
            let port = port(&h.name);
            batch(
                &bridge,
                &format!(
                    "link add {port} type veth peer name eth0 netns {}\nlink set {port} master br0\nlink set {port} up\n",
                    h.netns
                ),
            )?;
            batch(
                &h.netns,
                &format!(
                    "link set lo up\nlink set eth0 up\naddr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\n",
                    h.ip4, h.ip6
                ),
            )?;
        }
        Ok(())
    }

    /// The host of this name.
    pub fn host(&self, name: &str) -> Result<&Host> {
        self.hosts.iter().find(|h| h.name == name).ok_or_else(|| anyhow!("the lab has no host {name}"))
    }

    /// Cuts a host off: the host's port on the bridge goes down, and the host loses its carrier. What runs on the host
    /// lives on.
    pub fn cut(&self, host: &str) -> Result<()> {
        ip(&["-n", &self.bridge(), "link", "set", &port(host), "down"])
    }

    /// Reconnects a host.
    pub fn heal(&self, host: &str) -> Result<()> {
        ip(&["-n", &self.bridge(), "link", "set", &port(host), "up"])
    }

    /// Drops a part (in percent) of the packets from some hosts to others; an empty list means every host. The name of
    /// the loss (letters and digits) ends it.
    pub fn lose(&self, name: &str, from: &[&str], to: &[&str], percent: u8) -> Result<()> {
        let ports = |key: &str, hosts: &[&str]| {
            let all: Vec<String> = hosts.iter().map(|h| format!("\"{}\"", port(h))).collect();
            if all.is_empty() { String::new() } else { format!("{key} {{ {} }} ", all.join(", ")) }
        };
        // nft refuses a comparison that is always true.
        let some = if percent < 100 { format!("numgen random mod 100 < {percent} ") } else { String::new() };
        let rules = format!(
            "table bridge faults {{ chain {name} {{ type filter hook forward priority 0; policy accept; {}{}{some}drop; }}; }}",
            ports("iifname", from),
            ports("oifname", to)
        );
        run(Command::new("ip").args(["netns", "exec", &self.bridge(), "nft", &rules])).map(drop)
    }

    /// Ends a loss.
    pub fn pass(&self, name: &str) -> Result<()> {
        let rules = format!("flush chain bridge faults {name}; delete chain bridge faults {name}");
        run(Command::new("ip").args(["netns", "exec", &self.bridge(), "nft", &rules])).map(drop)
    }

    /// Directory of the LAN's files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Copies logs, configurations and captures of all hosts to `to`.
    pub fn keep_logs(&self, to: &Path) -> Result<()> {
        for h in &self.hosts {
            copy_texts(&h.dir, &to.join(&h.name))
                .with_context(|| format!("cannot copy the logs of {} to {}", h.name, to.display()))?;
        }
        Ok(())
    }

    fn bridge(&self) -> String {
        format!("{}-lan", self.prefix)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        tear_down(&self.prefix);
    }
}

impl Host {
    fn new(name: &str, n: u8, prefix: &str, dir: &Path) -> Self {
        Self {
            name: name.to_owned(),
            netns: format!("{prefix}-{name}"),
            ip4: Ipv4Addr::new(10, 44, 0, n),
            // fd44::21 for 10.44.0.21: the same digits, for the reader's eye.
            ip6: Ipv6Addr::new(0xfd44, 0, 0, 0, 0, 0, 0, u16::from(n / 10) * 16 + u16::from(n % 10)),
            dir: dir.join(name),
        }
    }

    /// A command that will run on this host.
    pub fn command(&self, argv: &[&str]) -> Command {
        let mut c = Command::new("ip");
        c.args(["netns", "exec", &self.netns]).args(argv).stdin(Stdio::null());
        c
    }

    /// Runs a command to its end. Returns standard output. An exit code other than 0 is an error that contains both
    /// outputs.
    pub fn exec(&self, argv: &[&str]) -> Result<String> {
        run(&mut self.command(argv)).with_context(|| format!("on host {}", self.name))
    }

    /// Starts a program whose output goes to `<log>.log` in the host's directory.
    pub fn spawn(&self, log: &str, argv: &[&str]) -> Result<Proc> {
        let path = self.dir.join(format!("{log}.log"));
        let out = File::options().create(true).append(true).open(&path)?;
        let child = self
            .command(argv)
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {argv:?} on host {}", self.name))?;
        Ok(Proc::new(child, path))
    }

    /// Whether all these sockets are open, each as `udp:ADDRESS:PORT`, or with another word for one of TCP. The error
    /// names one that is not, and shows those that are.
    pub fn listens(&self, sockets: &[&str]) -> Result<(), String> {
        let open = self.exec(&["ss", "-Hlntu"]).map_err(|e| format!("{e:#}"))?;
        for socket in sockets {
            let (kind, address) = socket.split_once(':').unwrap_or_default();
            let kind = if kind == "udp" { kind } else { "tcp" };
            let is_open = open.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some(kind) && words.nth(3) == Some(address)
            });
            if !is_open {
                return Err(format!("{socket} is not open, but:\n{open}"));
            }
        }
        Ok(())
    }

    /// Runs `f` in the host's namespace. Sockets that `f` opens stay in the namespace, whichever thread uses them
    /// later.
    pub fn enter<T: Send + 'static>(&self, f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let path = Path::new(NETNS).join(&self.netns);
        // A thread of its own, because a change of namespace lasts as long as the thread.
        let thread = std::thread::spawn(move || {
            let ns = File::open(&path).with_context(|| format!("no namespace {}", path.display()))?;
            setns(&ns, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
            f()
        });
        thread.join().map_err(|_| anyhow!("a thread in the namespace of {} panicked", self.name))?
    }

    /// Writes a value below /proc/sys of the host.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key);
        let value = value.to_owned();
        self.enter(move || std::fs::write(&path, value).with_context(|| format!("cannot write {}", path.display())))
    }

    /// Adds an address by hand.
    pub fn add_address(&self, address: IpAddr) -> Result<()> {
        let cidr = format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
        ip(&["-n", &self.netns, "addr", "add", &cidr, "dev", "eth0"])
    }

    /// Removes an address by hand.
    pub fn remove_address(&self, address: IpAddr) -> Result<()> {
        let cidr = format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
        ip(&["-n", &self.netns, "addr", "del", &cidr, "dev", "eth0"])
    }

    /// Gives this host a fixed neighbour entry for another host, so that this host need not ask for the hardware
    /// address.
    pub fn know(&self, other: &Self, mac: [u8; 6]) -> Result<()> {
        let lladdr = mac.map(|b| format!("{b:02x}")).join(":");
        for address in [IpAddr::from(other.ip4), IpAddr::from(other.ip6)] {
            let address = address.to_string();
            ip(&[
                "-n",
                &self.netns,
                "neigh",
                "replace",
                &address,
                "lladdr",
                &lladdr,
                "dev",
                "eth0",
                "nud",
                "permanent",
            ])?;
        }
        Ok(())
    }

    /// Whether the host has this address on its LAN interface.
    pub fn has_address(&self, address: IpAddr) -> Result<bool> {
        let all = self.exec(&["ip", "-o", "addr", "show", "dev", "eth0"])?;
        Ok(all.contains(&format!(" {address}/")))
    }

    /// The hardware address of the host's LAN interface.
    pub fn mac(&self) -> Result<[u8; 6]> {
        let text = self.exec(&["cat", "/sys/class/net/eth0/address"])?;
        let parts: Result<Vec<u8>, _> = text.trim().split(':').map(|p| u8::from_str_radix(p, 16)).collect();
        parts.ok().and_then(|p| p.try_into().ok()).ok_or_else(|| anyhow!("{text} is not a hardware address"))
    }
}

fn port(host: &str) -> String {
    format!("v-{host}")
}

/// A tmpfs if there is one: otherwise three etcd members that wait for one disk would measure the disk.
fn base_dir() -> PathBuf {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { shm.to_owned() } else { PathBuf::from("/run") }
}

fn run(c: &mut Command) -> Result<String> {
    let out = c.output().with_context(|| format!("cannot run {:?}", c.get_program()))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    bail!(
        "{:?} {:?} ended with {}: {}{}",
        c.get_program(),
        c.get_args().collect::<Vec<_>>(),
        out.status,
        String::from_utf8_lossy(&out.stderr),
        String::from_utf8_lossy(&out.stdout)
    )
}

fn ip(args: &[&str]) -> Result<()> {
    run(Command::new("ip").args(args)).map(drop)
}

fn batch(netns: &str, lines: &str) -> Result<()> {
    for line in lines.lines() {
        let args: Vec<&str> = ["-n", netns].into_iter().chain(line.split_whitespace()).collect();
        ip(&args)?;
    }
    Ok(())
}

fn copy_texts(from: &Path, to: &Path) -> Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() && entry.file_name() != "data" {
            copy_texts(&path, &to.join(entry.file_name()))?;
        } else if kind.is_file()
            && path.extension().is_some_and(|e| ["log", "conf", "toml", "txt", "json", "pcap"].iter().any(|w| e == *w))
        {
            std::fs::create_dir_all(to)?;
            std::fs::copy(&path, to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn namespaces() -> Vec<String> {
    let Ok(dir) = std::fs::read_dir(NETNS) else { return Vec::new() };
    dir.flatten().filter_map(|e| e.file_name().into_string().ok()).collect()
}

/// Ends all processes in the namespaces of this prefix, and removes the namespaces and their files.
fn tear_down(prefix: &str) {
    let begins = format!("{prefix}-");
    for ns in namespaces().into_iter().filter(|n| n.starts_with(&begins)) {
        let pids = run(Command::new("ip").args(["netns", "pids", &ns])).unwrap_or_default();
        for pid in pids.split_whitespace().filter_map(|p| p.parse().ok()) {
            // This program has threads in these namespaces only for moments, and must not kill itself.
            if pid != i32::try_from(std::process::id()).unwrap_or(0) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
        if let Err(e) = ip(&["netns", "del", &ns]) {
            eprintln!("cannot remove namespace {ns}: {e:#}");
        }
    }
    let _ = std::fs::remove_dir_all(base_dir().join(prefix));
}

/// Removes LANs whose program died without cleaning up (SIGKILL).
fn remove_leftovers() {
    let dirs =
        std::fs::read_dir(base_dir()).into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
    for name in namespaces().into_iter().chain(dirs) {
        let mut parts = name.split('-');
        let (Some(PREFIX), Some(pid), Some(number)) = (parts.next(), parts.next(), parts.next()) else { continue };
        if pid.bytes().all(|b| b.is_ascii_digit()) && !Path::new("/proc").join(pid).exists() {
            tear_down(&format!("{PREFIX}-{pid}-{number}"));
        }
    }
}

/// Removes every LAN of this program.
fn tear_down_all() {
    let mine = format!("{PREFIX}-{}-", std::process::id());
    for ns in namespaces().into_iter().filter(|n| n.ends_with("-lan") && n.starts_with(&mine)) {
        tear_down(ns.trim_end_matches("-lan"));
    }
}

/// Ends this program and removes its LANs after `limit`, so that a wait without end leaves no lab behind.
pub fn end_after(limit: Duration) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        eprintln!("not done after {limit:?}; removing the lab");
        tear_down_all();
        std::process::exit(3);
    });
}

/// Removes every LAN of this program on SIGINT and SIGTERM before the end.
fn clean_up_on_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(|| {
            let Ok(rt) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            rt.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
                else {
                    return;
                };
                tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
                eprintln!("stopped by a signal; removing the lab");
                tear_down_all();
                std::process::exit(130);
            });
        });
    });
}
