//! The forward rules of the former iptables, which nftables does not show.

use super::{MARK, MASK, Obstacle, matched};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Longest wait for the program. The kernel answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// The obstacles in the tables that the kernel names. A kernel without that code names none, and no program runs.
pub(super) async fn obstacles(v4: bool, v6: bool) -> Vec<Obstacle> {
    let mut found = Vec::new();
    for (_, program, names) in [
        (v4, "iptables-legacy", "/proc/thread-self/net/ip_tables_names"),
        (v6, "ip6tables-legacy", "/proc/thread-self/net/ip6_tables_names"),
    ]
    .into_iter()
    .filter(|(wanted, ..)| *wanted)
    {
        let there = std::fs::read_to_string(names).unwrap_or_default();
        if !there.lines().any(|table| table == "filter") {
            continue;
        }
        let mut ask = Command::new(program);
        ask.arg("-S").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let said = match tokio::time::timeout(PATIENCE, ask.output()).await {
            Ok(Ok(output)) if output.status.success() => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
            _ => None,
        };
        found.extend(judged(program, said.as_deref()));
    }
    found
}

/// The obstacle in the rules that `program -S` has listed; without a list, the doubt.
pub(super) fn judged(program: &str, said: Option<&str>) -> Option<Obstacle> {
    let chain = format!("FORWARD of {program}");
    let cure = format!("`{program} -I FORWARD {} -j ACCEPT`, and the same where this host keeps its rules", matched());
    let Some(said) = said else {
        // Nobody knows its policy, and a warning that is always there is none: no obstacle is claimed.
        tracing::debug!("cannot read the rules of {program}");
        return None;
    };
    let mark = format!("{MARK:#x}/{MASK:#x}");
    let drops = said.lines().any(|line| line == "-P FORWARD DROP");
    let passes = said.lines().any(|l| l.starts_with("-A ") && l.contains(&mark) && l.ends_with("-j ACCEPT"));
    // Other rules are not judged, so another rule may accept.
    let others = said.lines().any(|line| line.starts_with("-A FORWARD"));
    (drops && !passes).then_some(Obstacle { chain, certain: !others, cure })
}
