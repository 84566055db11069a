//! A killed or frozen agent comes back while another host has the VIP.

use anyhow::{Result, bail};
use lab::agent::Agent;
use lab::lan::{VIP4, VIP6};
use lab::unix_us;
use lab::wait;
use lab::witness::Finding;
use nix::sys::signal::Signal;
use std::time::Duration;

/// Longest time until the agent is backup: the first hold of a started agent, its checks, and its admission.
const BACK: Duration = Duration::from_secs(30);
/// Time between two looks. Each look starts processes on a host that carries calls.
const SELDOM: Duration = Duration::from_millis(100);

/// Times in wall-clock microseconds.
pub(crate) struct Comeback {
    /// The agent was started or continued.
    pub(crate) woken: u64,
    /// The agent is backup, the new master has armed it, and its host does not have the addresses.
    pub(crate) backup: u64,
}

/// Starts the killed agent or continues the frozen one, and waits until the agent is backup.
pub(crate) fn bring_back(old: &mut Agent, master: &Agent) -> Result<Comeback> {
    let woken = unix_us();
    if old.proc.ended()?.is_some() {
        old.start_again()?;
    } else {
        old.proc.signal(Signal::SIGCONT)?;
    }
    wait::every(SELDOM, "the old agent to become backup without the VIP", BACK, || {
        let text = |e: anyhow::Error| format!("{e:#}");
        let (s, m) = (old.instance().map_err(text)?, master.instance().map_err(text)?);
        let placed =
            s["role"] == "backup" && s["master"] == master.node.as_str() && m["successor"] == old.node.as_str();
        for vip in [VIP4.into(), VIP6.into()] {
            if old.host().has_address(vip).map_err(text)? {
                return Err(format!("the host of the old agent still has {vip}; {s}"));
            }
        }
        if placed { Ok(()) } else { Err(format!("{s}; {m}")) }
    })?;
    if let Some(status) = old.proc.ended()? {
        bail!("the old agent ended with {status}: {}", old.proc.tail());
    }
    Ok(Comeback { woken, backup: unix_us() })
}

/// What the witness saw of a violation: `new` must have spoken for the VIP after `old`, and `old` never again.
pub(crate) fn violations(seen: &Finding, old: &str, new: &str) -> Vec<String> {
    let mut out = Vec::new();
    if seen.two_hosts_ms > 0 {
        out.push(format!(
            "two hosts answered for the VIP in {} ms: {}",
            seen.two_hosts_ms,
            seen.first_two.as_deref().unwrap_or_default()
        ));
    }
    let spoke: Vec<&str> = seen.owners.iter().map(|o| o.1.as_str()).collect();
    if spoke != [old, new] && spoke != [new] {
        out.push(format!(
            "hosts spoke for the VIP in the order {:?}, not {old} and then {new}",
            &spoke[..spoke.len().min(12)]
        ));
    }
    out
}
