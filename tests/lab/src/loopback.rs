//! A real etcd on loopback, with its own directory and addresses, killed when dropped.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test without its etcd has failed")]

use std::hash::{BuildHasher as _, RandomState};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for anything: a machine may stall for seconds at a time.
pub const LONG: Duration = Duration::from_secs(60);

/// A network of the loopback, 127.x.y.0/24, reserved for this test while the value lives. Another program may take a
/// port that was free a moment ago; on a reserved address every port stays free, even while a server is down.
pub struct Net {
    prefix: String,
    /// Holding this socket shows other tests that the network is taken.
    _claim: TcpListener,
}

impl Net {
    /// Reserves a network.
    pub fn claim() -> Self {
        loop {
            let random = RandomState::new().hash_one(0).to_le_bytes();
            // Not 127.0: others use it.
            let prefix = format!("127.{}.{}", 1 + random[0] % 254, random[1]);
            if let Ok(claim) = TcpListener::bind(format!("{prefix}.254:10001")) {
                return Self { prefix, _claim: claim };
            }
        }
    }

    /// An address of the network.
    pub fn ip(&self, host: u8) -> String {
        format!("{}.{host}", self.prefix)
    }
}

/// One etcd member.
pub struct EtcdServer {
    child: Child,
    /// URL for clients.
    pub url: String,
    /// Directory of the data.
    pub dir: tempfile::TempDir,
    /// Network of the addresses.
    pub net: Net,
}

impl EtcdServer {
    /// Starts a member and waits until it answers.
    pub fn start() -> Self {
        let (net, dir) = (Net::claim(), tempfile::tempdir().unwrap());
        let child = Self::spawn(&net, &dir);
        let server = Self { child, url: format!("http://{}:2379", net.ip(1)), dir, net };
        server.ready();
        server
    }

    fn spawn(net: &Net, dir: &tempfile::TempDir) -> Child {
        let (client, peer) = (format!("http://{}:2379", net.ip(1)), format!("http://{}:2380", net.ip(1)));
        Command::new("etcd")
            .args(["--data-dir", dir.path().join("d").to_str().unwrap(), "--name", "t"])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            // Otherwise a slow disk would decide the result.
            .args(["--initial-cluster", &format!("t={peer}"), "--unsafe-no-fsync"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn ready(&self) {
        let until = Instant::now() + LONG;
        while !self.ctl(&["endpoint", "health"]) {
            assert!(Instant::now() < until, "etcd does not come up");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills etcd. Its data stays.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// After [`EtcdServer::stop`].
    pub fn restart(&mut self) {
        self.child = Self::spawn(&self.net, &self.dir);
        self.ready();
    }

    /// Runs etcdctl; returns whether it succeeded.
    pub fn ctl(&self, args: &[&str]) -> bool {
        let mut c = Command::new("etcdctl");
        c.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", self.url)).args(args);
        c.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// Repeats [`EtcdServer::ctl`] until it succeeds, for commands that may run twice.
    pub fn must(&self, args: &[&str]) {
        let until = Instant::now() + LONG;
        while !self.ctl(args) {
            assert!(Instant::now() < until, "etcdctl {args:?} does not succeed");
        }
    }

    /// The `[etcd]` settings of a client that survives a stall of seconds without a time-out.
    pub fn patient(&self) -> String {
        format!("endpoints = [\"{}\"]\ntimeout = \"20s\"\nlease_ttl = \"60s\"", self.url)
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.stop();
    }
}
