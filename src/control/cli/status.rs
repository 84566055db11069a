//! `keepcall status`

use super::mode;
use super::output::{Output, ago, complain, duration, or_dash, printable, span, table};
use super::{Global, QUICK, unexpected};
use crate::calls::tracker::Learning;
use crate::cluster::settings::Difference;
use crate::control::api::{InstanceStatus, RelayCounts, Reply, Request, Status};
use crate::health::CheckState;
use crate::hep::intake::Counters as HepCounts;
use crate::pbx::former_calls::Former;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

/// Arguments of `keepcall status`.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// Repeat every second, until interrupted
    #[arg(long)]
    watch: bool,
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
}

/// A node last heard this many milliseconds ago shows as silent: far longer than any heartbeat.
const SILENT: u64 = 5000;
/// A human cannot follow a faster refresh, and each one costs the agent work.
const EACH: Duration = Duration::from_secs(1);

pub(super) fn run(global: &Global, args: &StatusArgs) -> Result<(), u8> {
    let mut out = Output::new();
    loop {
        let reply = global.ask(&Request::Status, QUICK, args.json);
        match reply {
            Ok(Reply::Status(status)) if args.json => out.json(&status),
            Ok(Reply::Status(status)) => {
                // Home and clear, only on a terminal.
                let clear = if args.watch && std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
                out.text(&format!("{clear}{}", render(&status)));
            }
            Ok(_) => return Err(unexpected()),
            Err(code) if !args.watch => return Err(code),
            // While watching, wait for a restarting agent to come back.
            Err(_) => complain("retrying"),
        }
        if !args.watch || out.is_closed() {
            return Ok(());
        }
        std::thread::sleep(EACH);
    }
}

/// What a server that lost its address still believes in, and what to do.
fn former_words(instance: &str, former: &Former) -> String {
    let mut text = String::new();
    if former.left > 0 {
        let _ = writeln!(
            text,
            "{instance}: the server of this backup still believes in {} channels of calls that have moved; if the \
             number stays, end them at the server, or restart it",
            former.left
        );
    }
    if former.unknown > 0 {
        let _ = writeln!(
            text,
            "{instance}: {} channels of the server of this backup may be of calls that have moved; the server does not \
             tell their tags, so they are left alone",
            former.unknown
        );
    }
    if let Some(error) = &former.error {
        let _ = writeln!(text, "{instance}: {}", printable(error));
    }
    text
}

pub(super) fn render(status: &Status) -> String {
    let good = status.etcd.endpoints.iter().filter(|e| e.healthy).count();
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "cluster {}, node {}, keepcall {}, etcd {} ({good} of {} endpoints)",
        status.cluster,
        status.node,
        status.version,
        if status.etcd.healthy { "healthy" } else { "NOT healthy" },
        status.etcd.endpoints.len()
    );
    if let Some(error) = &status.etcd.error {
        let _ = writeln!(text, "  {}", printable(error));
    }
    for endpoint in status.etcd.endpoints.iter().filter(|e| !e.healthy) {
        let _ = writeln!(
            text,
            "  {}: {}",
            endpoint.url,
            endpoint.error.as_deref().map_or_else(|| "no answer yet".to_owned(), printable)
        );
    }
    for (endpoint, alarm) in status.etcd.endpoints.iter().filter_map(|e| Some((e, e.alarm.as_deref()?))) {
        let _ = writeln!(text, "  {}: {}", endpoint.url, printable(alarm));
    }
    if let Some(changed) = &status.etcd.changed {
        let what = printable(&changed.what);
        let _ = writeln!(text, "  {}: {what}; this node has restored its own keys", ago(changed.at_ms));
    }
    if let Some(paused) = &status.paused {
        let _ = writeln!(
            text,
            "PAUSED: a master that fails is NOT replaced until `keepcall resume` ({})",
            printable(paused)
        );
    }
    for i in &status.instances {
        stored_apart(&mut text, i);
    }
    for i in status.instances.iter().filter(|i| i.held_down_ms > 0) {
        let _ = writeln!(
            text,
            "{}: the master changed too often; the next change that can wait is possible in {}",
            i.name,
            duration(i.held_down_ms)
        );
    }
    for (i, c) in status.instances.iter().flat_map(|i| i.conflicts.iter().map(move |c| (i, c))) {
        let _ = writeln!(
            text,
            "{}: CONFLICT: the host with {} also answers for {}; remove the address there",
            i.name,
            printable(&c.mac),
            c.address
        );
    }
    for (i, warning) in status.instances.iter().flat_map(|i| i.warnings.iter().map(move |w| (i, w))) {
        let _ = writeln!(text, "{}: WARNING: {}", i.name, printable(warning));
    }
    for (i, mode) in status.instances.iter().filter_map(|i| Some((i, i.mode.as_ref()?))) {
        text.push_str(&mode::warnings(&i.name, mode));
    }
    for (i, calls) in status.instances.iter().filter_map(|i| Some((i, i.calls.takeover.as_ref()?))) {
        let Some(lost) = calls.told() else { continue };
        let _ = writeln!(text, "{}: at a takeover now, {}", i.name, printable(&lost));
        for cure in calls.cures() {
            let _ = writeln!(text, "  = {}", printable(cure));
        }
    }
    for (i, former) in status.instances.iter().filter_map(|i| Some((i, i.calls.former.as_ref()?))) {
        text.push_str(&former_words(&i.name, former));
    }
    for part in status.parts.iter().filter(|p| p.restarts > 0 || p.state != "running") {
        let why = part.why.as_deref().map_or_else(|| "-".to_owned(), printable);
        let state = if part.state == "off" { "OFF, restart the agent" } else { &part.state };
        let _ = writeln!(
            text,
            "{}: {state}, restarted {} times, last {}: {why}",
            part.name,
            part.restarts,
            ago(part.since_ms)
        );
    }
    stood_still(&mut text, status);
    let rows = status.instances.iter().map(|i| {
        vec![
            i.name.clone(),
            i.role.clone(),
            or_dash(&i.master),
            i.epoch.to_string(),
            if i.since_ms == 0 { "-".to_owned() } else { ago(i.since_ms) },
            i.reason.clone(),
            or_dash(&i.successor),
            i.hold.as_ref().map_or_else(|| "-".to_owned(), |h| format!("{} {}ms", h.kind, h.remaining_ms)),
            i.addresses.join(" "),
        ]
    });
    let header = ["INSTANCE", "HERE", "MASTER", "EPOCH", "SINCE", "WHY", "SUCCESSOR", "HOLD", "ADDRESSES"];
    let _ = write!(text, "\n{}", table(&header, rows.collect()));
    let rows = status.nodes.iter().map(|n| {
        vec![
            format!("{}{}", n.name, if n.is_self { " (this)" } else { "" }),
            match n.last_heard_ms {
                _ if n.is_self && n.fit => "fit",
                Some(ms) if ms > SILENT => "SILENT",
                None if !n.is_self => "not heard",
                _ if n.fit => "fit",
                _ => "NOT fit",
            }
            .to_owned(),
            n.priority.to_string(),
            match n.last_heard_ms {
                _ if n.is_self => "-".to_owned(),
                Some(ms) if ms < 1000 => "just now".to_owned(),
                Some(ms) => span(ms),
                None => "never".to_owned(),
            },
            n.address.map_or_else(|| "-".to_owned(), |a| a.to_string()),
            n.summary.clone(),
        ]
    });
    let _ = write!(text, "\n{}", table(&["NODE", "HEALTH", "PRIORITY", "HEARD", "ADDRESS", "SUMMARY"], rows.collect()));
    text.push_str(&differences(status));
    let mut checks = Vec::new();
    for instance in &status.instances {
        for check in &instance.checks {
            let state = match check.state {
                CheckState::Good => "good",
                CheckState::Failed => "FAILED",
                CheckState::Unknown => "unknown",
            };
            let last =
                check.last.as_ref().map_or_else(|| "-".to_owned(), |p| format!("{} ({}ms)", p.detail, p.took_ms));
            let fatal = if check.fatal { "yes" } else { "no" };
            checks.push(vec![
                instance.name.clone(),
                check.name.clone(),
                state.to_owned(),
                fatal.to_owned(),
                ago(check.since_ms),
                last,
            ]);
        }
    }
    if !checks.is_empty() {
        let _ = write!(text, "\n{}", table(&["INSTANCE", "CHECK", "STATE", "FATAL", "SINCE", "LAST RESULT"], checks));
    }
    let calls = status.instances.iter().map(|i| {
        let c = &i.calls;
        let mode = i.mode.as_ref().map_or_else(|| "-".to_owned(), mode::words);
        vec![i.name.clone(), c.stored.to_string(), c.tracked.to_string(), c.carried.to_string(), mode]
    });
    let _ = write!(text, "\n{}", table(&["CALLS OF", "STORED", "TRACKED", "CARRIED", "MODE"], calls.collect()));
    let wire: Vec<Vec<String>> = status
        .instances
        .iter()
        .filter_map(|i| {
            let c = i.calls.capture?;
            let numbers =
                [c.seen, c.dropped, c.path.tcp.streams, c.path.tcp.gaps, c.incomplete, c.malformed, c.path.forged];
            Some(std::iter::once(i.name.clone()).chain(numbers.map(|n| n.to_string())).collect())
        })
        .collect();
    if !wire.is_empty() {
        let head =
            ["SIP SEEN OF", "MESSAGES", "DROPPED", "TCP STREAMS", "TCP GAPS", "INCOMPLETE", "MALFORMED", "FORGED"];
        let _ = write!(text, "\n{}", table(&head, wire));
    }
    // Shown only if there is something to show.
    let relayed =
        status.instances.iter().filter_map(|i| Some((i, i.calls.relay.filter(|r| *r != RelayCounts::default())?)));
    let refused = relayed.map(|(i, r)| {
        let counts = [r.refused_calls as u64, r.not_media, r.parts, r.this_host];
        std::iter::once(i.name.clone()).chain(counts.map(|n| n.to_string())).collect()
    });
    let refused: Vec<Vec<String>> = refused.collect();
    if !refused.is_empty() {
        let head = ["NOT RELAYED OF", "CALLS", "PACKETS NOT MEDIA", "FRAGMENTS", "TO THIS HOST"];
        let _ = write!(text, "\n{}", table(&head, refused));
    }
    let media = status.instances.iter().filter(|i| i.calls.media.samples > 0).map(|i| {
        let m = i.calls.media;
        let counts = [m.samples, m.believed, m.foreign, m.doubtful];
        std::iter::once(i.name.clone()).chain(counts.map(|n| n.to_string())).collect()
    });
    let media: Vec<Vec<String>> = media.collect();
    if !media.is_empty() {
        let _ = write!(text, "\n{}", table(&["RTP OF", "SAMPLES", "BELIEVED", "FOREIGN", "DOUBTFUL"], media));
    }
    let lost: Vec<Vec<String>> =
        status.instances.iter().filter_map(|i| learning_row(&i.name, i.calls.learning.as_ref()?)).collect();
    if !lost.is_empty() {
        let head = [
            "NOT LEARNT OF",
            "NO ROOM",
            "GAVE WAY",
            "SAME CALL-ID",
            "NAME TOO LONG",
            "CUT",
            "UNANSWERED NOW",
            "IN DOUBT NOW",
        ];
        let _ = write!(text, "\n{}", table(&head, lost));
    }
    let servers = status.instances.iter().filter_map(|i| {
        let s = i.server.as_ref()?;
        let state = if s.connected { "connected" } else { "NOT connected" };
        let error = s.error.clone().unwrap_or_else(|| "-".to_owned());
        Some(vec![i.name.clone(), s.protocol.clone(), s.address.clone(), state.to_owned(), ago(s.since_ms), error])
    });
    let servers: Vec<Vec<String>> = servers.collect();
    if !servers.is_empty() {
        let _ = write!(text, "\n{}", table(&["SERVER OF", "BY", "ADDRESS", "STATE", "SINCE", "ERROR"], servers));
    }
    let hep: Vec<Vec<String>> =
        status.instances.iter().filter_map(|i| Some((i, i.calls.hep?))).map(|(i, h)| hep_row(&i.name, h)).collect();
    if !hep.is_empty() {
        let head = ["HEP OF", "RECEIVED", "REFUSED", "MALFORMED", "NOT SIP", "ELSEWHERE", "DROPPED"];
        let _ = write!(text, "\n{}", table(&head, hep));
    }
    text
}

/// `None` for an instance that learnt everything.
fn learning_row(instance: &str, l: &Learning) -> Option<Vec<String>> {
    let (c, now) = (l.counters, l.load);
    let counts = [c.no_room, c.gave_way, c.same_call_id, c.too_long, c.cut, now.unanswered as u64, now.doubted as u64];
    let any = c.not_learnt + c.cut > 0;
    any.then(|| std::iter::once(instance.to_owned()).chain(counts.map(|n| n.to_string())).collect())
}

/// Warns about a stall of more than a quarter of the hold: the next one may be longer.
fn stood_still(text: &mut String, status: &Status) {
    let hold = status.instances.iter().map(|i| i.promise_ms).filter(|ms| *ms > 0).min().unwrap_or(u64::MAX);
    let election = &status.election;
    let longest = election.longest_late_ms.max(election.longest_round_ms);
    if longest > hold / 4 {
        let by = if longest == election.longest_late_ms {
            "the host did not run the election thread"
        } else {
            "the election thread waited in the kernel"
        };
        let _ =
            writeln!(text, "ELECTION STALLED for up to {longest} ms ({by}); a stall of {hold} ms causes a takeover");
    }
}

/// Problems with stored calls, each with its cure.
fn stored_apart(text: &mut String, i: &InstanceStatus) {
    let s = i.calls.store;
    let lines = [
        (
            s.plain_refused,
            "stored calls are refused, because they are not encrypted; if nodes of an older release store calls, set \
             plain_records = \"accept\" until all nodes are upgraded, else find the client that writes to etcd",
        ),
        (
            s.foreign_refused,
            "stored calls are refused, because a client without this node's key made or changed them; key_file must \
             be the same on every node (accept_key_files during a change of key), else find the client that writes \
             to etcd",
        ),
        (
            s.outdated,
            "stored calls are not encrypted, or are encrypted under a former key; the next master stores them again",
        ),
        (s.unreadable, "stored values cannot be read; the log names their keys"),
    ];
    for (count, what) in lines.into_iter().filter(|(count, _)| *count > 0) {
        let _ = writeln!(text, "{}: {count} {what}", i.name);
    }
}

/// The differing settings, each with its meaning; empty without any.
fn differences(status: &Status) -> String {
    let row = |d: &Difference| {
        let instance = or_dash(&d.instance);
        vec![d.setting.clone(), instance, d.here.clone(), d.node.clone(), d.there.clone(), d.meaning().to_owned()]
    };
    if status.differences.is_empty() {
        return String::new();
    }
    let head = ["SETTING THAT DIFFERS", "INSTANCE", "HERE", "NODE", "THERE", "WHAT TO DO"];
    format!("\n{}", table(&head, status.differences.iter().map(row).collect()))
}

fn hep_row(instance: &str, h: HepCounts) -> Vec<String> {
    let counts = [h.received, h.refused, h.malformed, h.not_sip, h.elsewhere, h.dropped];
    std::iter::once(instance.to_owned()).chain(counts.map(|n| n.to_string())).collect()
}
