//! Messages per second on one core, from memory: the parser alone, and parser and tracker with all that the agent asks
//! of them.

use super::figures::{Figures, rounded};
use super::traffic::Traffic;
use super::{about, minute_calls};
use anyhow::{Context as _, Result, ensure};
use keepcall::calls::model::CallEvent;
use keepcall::calls::table::{Table, TableSettings};
use keepcall::sip::Transport;
use keepcall::sip::message::Message;
use keepcall::time::Time;
use keepcall::wire::Packet;
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::hint::black_box;
use std::time::Duration;

/// Rate to reach through parser and tracker, in messages per second.
const TARGET: f64 = 300_000.0;
/// Calls up at a time, and in all. The last exceed the caches many times.
const SIZES: [(usize, usize); 3] = [(100, 4_000), (1_000, 4_000), (10_000, 15_000)];
/// Wall-clock time of the first message, in milliseconds since 1970.
pub(super) const EPOCH_MS: u64 = 1_760_000_000_000;
/// Time after the last message, so that all timers expire: longer than an ended leg is remembered.
const AFTER: Duration = Duration::from_secs(600);

pub(super) fn run(rounds: usize, say: &dyn Fn(&str)) -> Result<Value> {
    let mut rows = Vec::new();
    for (up, calls) in SIZES {
        let traffic = minute_calls(up, calls);
        let (mut parser, mut both) = (Figures::default(), Figures::default());
        for round in 0..=rounds {
            let parsed = parse(&traffic)?;
            let learnt = learn(&traffic)?;
            learnt.check(&traffic)?;
            if round > 0 {
                parser.add(per_second(&traffic, parsed));
                both.add(per_second(&traffic, learnt.took));
            }
        }
        say(&format!(
            "memory, {up:>6} calls up: {:>9.0} messages/s parser, {:>9.0} parser and tracker ({:.0} to {:.0})",
            parser.median(),
            both.median(),
            both.at(0.0),
            both.at(1.0)
        ));
        let mut row = about(&traffic, up);
        row["parser_per_s"] = parser.json(0);
        row["parser_and_tracker_per_s"] = both.json(0);
        row["times_target"] = rounded(both.median() / TARGET, 2);
        rows.push(row);
    }
    Ok(json!({ "target_per_s": TARGET, "rounds": rounds, "rows": rows }))
}

fn per_second(traffic: &Traffic, took: Duration) -> f64 {
    traffic.len() as f64 / took.as_secs_f64()
}

/// Processor time of this thread: on a busy machine this is what one core would need.
pub(super) fn thread_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("the clock of this thread")?.into())
}

fn parse(traffic: &Traffic) -> Result<Duration> {
    let start = thread_time()?;
    let mut good = 0;
    for (_, bytes) in traffic.messages() {
        good += usize::from(black_box(Message::parse(bytes)).is_ok());
    }
    let took = thread_time()?.saturating_sub(start);
    ensure!(good == traffic.len(), "{good} of {} messages are SIP", traffic.len());
    Ok(took)
}

/// What a table with these settings has learnt.
pub(super) struct Learnt {
    pub(super) took: Duration,
    /// Ids of calls with two legs, and of those with one.
    pub(super) paired: HashSet<String>,
    pub(super) single: HashSet<String>,
    pub(super) puts: usize,
    pub(super) deletes: usize,
    pub(super) malformed: u64,
    pub(super) left: usize,
}

impl Learnt {
    pub(super) fn check(&self, traffic: &Traffic) -> Result<()> {
        let (paired, single) = (self.paired.len(), self.single.len());
        ensure!(
            paired == traffic.calls && single == 0 && self.deletes == paired && self.left == 0 && self.malformed == 0,
            "of {} calls {paired} were learnt with both legs, {single} with one; {} ended, {} are left; {} messages were malformed",
            traffic.calls,
            self.deletes,
            self.left,
            self.malformed
        );
        Ok(())
    }
}

pub(super) fn settings(traffic_server: std::net::SocketAddr) -> TableSettings {
    TableSettings {
        instance: "sip".into(),
        node: "a".into(),
        vips: vec![traffic_server.ip()],
        sip_ports: vec![traffic_server.port()],
        advertised: keepcall::sip::advertised::Advertised::default(),
        pair_header: None,
        emergency: vec!["110".into(), "112".into()],
        max_calls: 50_000,
    }
}

/// Runs all messages through a new table as the agent does: the timers before each message, and the changes to store
/// after each.
pub(super) fn learn(traffic: &Traffic) -> Result<Learnt> {
    let mut table = Table::new(settings(super::traffic::Places::wide().server));
    let mut book = Vec::with_capacity(3 * traffic.calls);
    let start = thread_time()?;
    for (sent, payload) in traffic.messages() {
        let now = Time::ZERO + sent.at;
        if table.next_deadline().is_some_and(|d| d <= now) {
            table.handle_timeout(now);
        }
        let packet = Packet { src: sent.src, dst: sent.dst, transport: Transport::Udp, payload };
        table.handle_packet(&packet, EPOCH_MS + u64::try_from(sent.at.as_millis())?, now);
        while let Some(event) = table.poll_event() {
            // The calls would go to the store. Here they are dropped, and only a note is kept.
            book.push(match black_box(event) {
                CallEvent::Put(call) => (call.id, call.legs.len()),
                CallEvent::Delete { id, .. } => (id, 0),
            });
        }
    }
    let took = thread_time()?.saturating_sub(start);
    let end = Time::ZERO + traffic.messages().last().map_or(Duration::ZERO, |(s, _)| s.at) + AFTER;
    table.handle_timeout(end);
    let mut learnt = Learnt {
        took,
        paired: HashSet::new(),
        single: HashSet::new(),
        puts: 0,
        deletes: 0,
        malformed: table.counters().malformed + table.counters().not_sip + table.counters().not_learnt,
        left: table.calls().count(),
    };
    for (id, legs) in book {
        match legs {
            0 => learnt.deletes += 1,
            1 => drop(learnt.single.insert(id)),
            _ => drop(learnt.paired.insert(id)),
        }
        learnt.puts += usize::from(legs > 0);
    }
    Ok(learnt)
}
