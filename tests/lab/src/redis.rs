//! A real Redis on a host of the lab, in which media servers share their calls.

use super::lan::Host;
use super::proc::Proc;
use anyhow::Result;

/// A running Redis, in memory only.
pub struct Redis {
    /// Process of Redis.
    pub proc: Proc,
    /// Address and port.
    pub address: String,
}

impl Redis {
    /// Starts Redis on a host's own address, and waits until its socket is open.
    pub fn start(host: &Host) -> Result<Self> {
        let (ip, port) = (host.ip4.to_string(), "6379");
        // rtpengine subscribes to the changes of its peer's keys.
        let told = ["--notify-keyspace-events", "KEA"];
        let own = ["redis-server", "--bind", &ip, "--port", port, "--save", "", "--protected-mode", "no"];
        let argv = [&own[..], &told].concat();
        let mut proc = host.spawn("redis", &argv)?;
        let address = format!("{ip}:{port}");
        proc.wait_ready("Redis", || host.listens(&[&format!("tcp:{address}")]))?;
        Ok(Self { proc, address })
    }
}
