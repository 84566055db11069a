//! A real etcd on loopback, with a directory of its own, killed when dropped.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One etcd member.
pub(crate) struct EtcdServer {
    child: Child,
    pub(crate) url: String,
    pub(crate) dir: tempfile::TempDir,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl EtcdServer {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (client, peer) = (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
        let child = Command::new("etcd")
            .args(["--data-dir", dir.path().join("d").to_str().unwrap(), "--name", "t"])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("t={peer}"), "--unsafe-no-fsync"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, url: client, dir };
        let until = Instant::now() + Duration::from_secs(20);
        while !server.ctl(&["endpoint", "health"]) {
            assert!(Instant::now() < until, "etcd does not come up");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// Runs etcdctl; whether it succeeded.
    pub(crate) fn ctl(&self, args: &[&str]) -> bool {
        let mut c = Command::new("etcdctl");
        c.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", self.url)).args(args);
        c.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
