//! keepalived on a host of the lab, for comparison in the benchmark.

use super::lan::{Host, VIP4, VIP6};
use super::proc::Proc;
use anyhow::Result;
use std::path::PathBuf;
use std::time::Duration;

/// A running keepalived with one VRRPv3 instance.
pub struct Keepalived {
    /// Process of keepalived.
    pub proc: Proc,
    /// Content 0 or 1, times the weight of -50, is added to the priority.
    track_file: PathBuf,
}

impl Keepalived {
    /// Starts keepalived as one of two equals (state BACKUP, priority 100): neither preempts the other, and a lower
    /// priority hands over.
    ///
    /// `server` is a process without which keepalived gives the VIP up. A script checks for the process once a second,
    /// the shortest interval that keepalived takes. The alternative `vrrp_track_process` needs the kernel's process
    /// events, which keepalived does not get in a namespace ("Failed to set/clear process event listen").
    pub fn start(host: &Host, advert: Duration, server: Option<u32>) -> Result<Self> {
        let dir = host.dir.join("keepalived");
        std::fs::create_dir_all(&dir)?;
        let d = dir.display();
        let track_file = dir.join("lower");
        std::fs::write(&track_file, "0\n")?;
        let (script, track) = server.map_or_else(Default::default, |pid| {
            (
                format!(
                    "vrrp_script server {{\n  script \"/usr/bin/kill -0 {pid}\"\n  interval 1\n  rise 1\n  fall 1\n}}\n"
                ),
                "  track_script {\n    server\n  }\n",
            )
        });
        // Everything else is keepalived's default: multicast, 5 gratuitous ARPs at once and 5 more after 5 s.
        let text = format!(
            "global_defs {{\n  router_id {name}\n  vrrp_version 3\n  script_user root\n  enable_script_security\n}}\n{script}\
             vrrp_track_file lower {{\n  file \"{d}/lower\"\n  weight -50\n  init_file 0 overwrite\n}}\n\
             vrrp_instance lab {{\n  state BACKUP\n  interface eth0\n  virtual_router_id 44\n  priority 100\n  advert_int {advert}\n\
             \x20 virtual_ipaddress {{\n    {VIP4}/24 dev eth0\n  }}\n  virtual_ipaddress_excluded {{\n    {VIP6}/64 dev eth0\n  }}\n\
             \x20 track_file {{\n    lower\n  }}\n{track}}}\n",
            name = host.name,
            advert = advert.as_secs_f64(),
        );
        let conf = dir.join("keepalived.conf");
        std::fs::write(&conf, text)?;
        let (pid, vrrp) = (dir.join("main.pid"), dir.join("vrrp.pid"));
        let argv = [
            "keepalived",
            "--dont-fork",
            "--log-console",
            "--log-detail",
            "--vrrp",
            "--use-file",
            &conf.to_string_lossy(),
            "--pid",
            &pid.to_string_lossy(),
            "--vrrp_pid",
            &vrrp.to_string_lossy(),
        ];
        Ok(Self { proc: host.spawn("keepalived", &argv)?, track_file })
    }

    /// The planned way to hand over: this priority falls below the other one, and the other node preempts.
    pub fn lower_priority(&self) -> Result<()> {
        Ok(std::fs::write(&self.track_file, "1\n")?)
    }
}
