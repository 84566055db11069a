//! A real rtpengine on a host of the lab: the media server of a proxy, with its ports on the VIP.

use super::lan::{Host, VIP4};
use super::proc::Proc;
use super::redis::Redis;
use anyhow::Result;

/// Where Kamailio asks.
pub const CONTROL: &str = "127.0.0.1:2223";

/// A running rtpengine.
pub struct Rtpengine {
    /// Process of rtpengine.
    pub proc: Proc,
}

impl Rtpengine {
    /// Starts rtpengine and waits until its control socket is open. Its ports are those of the agents' `media_ports`.
    pub fn start(host: &Host) -> Result<Self> {
        Self::with(host, &[])
    }

    /// As [`Self::start`], with its calls in database `own` of a Redis. It restores the calls of the rtpengine whose
    /// database is `other`, and takes them over as soon as something comes for them.
    pub fn sharing(host: &Host, redis: &Redis, own: u8, other: u8) -> Result<Self> {
        let own = format!("--redis={}/{own}", redis.address);
        let other = format!("--subscribe-keyspace={other}");
        Self::with(host, &[&own, &other, "--active-switchover"])
    }

    fn with(host: &Host, more: &[&str]) -> Result<Self> {
        host.sysctl("net/ipv4/ip_nonlocal_bind", "1")?;
        let interface = format!("--interface={VIP4}");
        let listen = format!("--listen-ng={CONTROL}");
        // Without a kernel table: packets pass through its process.
        let usual = [
            "rtpengine",
            "--foreground",
            "--log-stderr",
            "--log-level=5",
            "--table=-1",
            "--port-min=10000",
            "--port-max=20000",
            &interface,
            &listen,
        ];
        let mut proc = host.spawn("rtpengine", &[&usual, more].concat())?;
        proc.wait_ready("rtpengine", || host.listens(&[&format!("udp:{CONTROL}")]))?;
        Ok(Self { proc })
    }
}
