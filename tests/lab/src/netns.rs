//! Hosts made of network namespaces on one LAN (a bridge in a namespace of its own), for tests that need real packets.
//!
//! Needs root. Dropping the [`Lan`] removes everything, also after a panic.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set its hosts up has failed")]

use super::lan::Host;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything expected: a machine may stall for seconds.
pub const LONG: Duration = Duration::from_secs(60);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A LAN: 10.77.0.0/24 and fd77::/64.
pub struct Lan {
    prefix: String,
    hosts: Vec<String>,
}

impl Lan {
    /// A LAN with one host for each name; host number n (from 1) has 10.77.0.n and fd77::n on `eth0`.
    pub fn new(names: &[&str]) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut lan = Self { prefix: format!("kc-{}-{number}-", std::process::id()), hosts: Vec::new() };
        lan.add("lan");
        lan.ip("lan", "link add lan0 type bridge forward_delay 0 mcast_snooping 0");
        lan.ip("lan", "link set lan0 up");
        for (n, name) in names.iter().enumerate() {
            let n = n + 1;
            lan.add(name);
            run(
                "ip",
                &format!("-n {} link add port{n} type veth peer name eth0 netns {}", lan.space("lan"), lan.space(name)),
            );
            lan.ip("lan", &format!("link set port{n} master lan0 up"));
            lan.ip(name, "link set eth0 up");
            lan.ip(name, &format!("addr add 10.77.0.{n}/24 dev eth0"));
            lan.ip(name, &format!("addr add fd77::{n}/64 dev eth0 nodad"));
        }
        // The link-local addresses must pass duplicate address detection. No server or router announces the end of it.
        for name in names {
            until("an interface is ready", || {
                !stdout(&lan.exec(name, "ip -6 addr show dev eth0 tentative")).contains("inet6")
            });
        }
        lan
    }

    /// The namespace of a host.
    pub fn space(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    /// A host for what starts programs on hosts of the lab, with a directory for their files.
    pub fn host(&self, name: &str, dir: &Path) -> Host {
        let netns = self.space(name);
        // The bridge is number 0.
        let n = self.hosts.iter().position(|h| *h == netns).unwrap();
        Host {
            name: name.to_owned(),
            netns,
            ip4: format!("10.77.0.{n}").parse().unwrap(),
            ip6: format!("fd77::{n}").parse().unwrap(),
            dir: dir.to_owned(),
        }
    }

    fn add(&mut self, name: &str) {
        let space = self.space(name);
        run("ip", &format!("netns add {space}"));
        self.hosts.push(space);
        self.ip(name, "link set lo up");
    }

    /// Runs `ip` in a host. Must succeed.
    pub fn ip(&self, host: &str, arguments: &str) -> String {
        run("ip", &format!("-n {} {arguments}", self.space(host)))
    }

    /// Runs a command in a host.
    pub fn exec(&self, host: &str, command: &str) -> Output {
        let all = format!("netns exec {} {command}", self.space(host));
        Command::new("ip").args(all.split_whitespace()).output().unwrap()
    }

    /// Starts a command in a host. The command ends with the LAN at the latest.
    pub fn spawn(&self, host: &str, command: &str) -> Child {
        let all = format!("netns exec {} {command}", self.space(host));
        Command::new("ip").args(all.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs `f` in a thread inside a host's namespace: its sockets, its /proc/sys/net and the programs it starts belong
    /// there.
    pub fn inside<T: Send + 'static>(&self, host: &str, f: impl FnOnce() -> T + Send + 'static) -> T {
        let path = format!("/run/netns/{}", self.space(host));
        let thread = std::thread::spawn(move || {
            let file = std::fs::File::open(path).unwrap();
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            f()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a future to completion inside a host, on its own single-threaded runtime.
    pub fn block_on<T: Send + 'static, F: Future<Output = T>>(
        &self,
        host: &str,
        f: impl FnOnce() -> F + Send + 'static,
    ) -> T {
        self.inside(host, || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(f()))
    }

    /// A UDP socket in a host, with a read time-out.
    pub fn socket(&self, host: &str, address: &str) -> std::net::UdpSocket {
        let address = address.to_owned();
        let socket =
            self.inside(host, move || std::net::UdpSocket::bind(&address).unwrap_or_else(|e| panic!("{address}: {e}")));
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket
    }

    /// The MAC address of a host.
    pub fn mac(&self, host: &str) -> String {
        let json: serde_json::Value = serde_json::from_str(&self.ip(host, "-j link show dev eth0")).unwrap();
        json[0]["address"].as_str().unwrap().to_owned()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for space in &self.hosts {
            // Processes first: a namespace lives as long as a process is in it.
            if let Ok(pids) = Command::new("ip").args(["netns", "pids", space]).output() {
                // Spares this process: a thread that a panic left behind may still be in the namespace.
                let own = std::process::id().to_string();
                for pid in stdout(&pids).split_whitespace().filter(|pid| *pid != own) {
                    let _ = Command::new("kill").args(["-9", pid]).status();
                }
            }
            let _ = Command::new("ip").args(["netns", "del", space]).status();
        }
    }
}

/// The standard output of a command.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until `condition` holds. Fails after a minute.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < end, "waited a minute until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether the socket has nothing to read within `wait`.
pub fn silent(socket: &std::net::UdpSocket, wait: Duration) -> bool {
    socket.set_read_timeout(Some(wait)).unwrap();
    let result = uninterrupted(|| socket.recv_from(&mut [0; 2048]));
    socket.set_read_timeout(Some(LONG)).unwrap();
    result.is_err()
}

/// Retries a read with a time-out that was interrupted because the process was stopped for a while.
pub fn uninterrupted<T>(mut f: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match f() {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads one datagram: its sender, and its text.
pub fn receive(socket: &std::net::UdpSocket) -> (String, String) {
    let mut buffer = [0; 2048];
    let (length, from) =
        uninterrupted(|| socket.recv_from(&mut buffer)).unwrap_or_else(|e| panic!("{socket:?} received nothing: {e}"));
    (from.to_string(), String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    stdout(&output)
}
