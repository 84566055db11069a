//! The record of one running takeover: the time of each phase and the outcome of each call.

use super::history::{self, Writer};
use crate::calls::model::Call;
use crate::config::Mode;
use crate::control::api::HistoryEntry;
use crate::os::clock;
use crate::recovery::deed::{Forecast, Forecasts};
use crate::recovery::engine::{Counted, Outcome};
use crate::recovery::permitted::Ground;
use crate::time::Time;

/// The wall-clock microseconds since 1970 of an instant on this node's clock.
pub(super) fn unix_us(at: Time) -> u64 {
    let ago = u64::try_from(clock::now().since(at).as_micros()).unwrap_or(u64::MAX);
    clock::unix_us().saturating_sub(ago)
}

/// One change of master, as the new master sees it.
#[derive(Debug)]
pub(super) struct Takeover {
    entry: HistoryEntry,
    writer: Writer,
    /// Calls without an outcome yet.
    open: usize,
    /// Recovered calls whose audio is still being counted.
    listening: usize,
    /// What each mode does with these calls. The first calls create it.
    forecasts: Option<Forecasts>,
}

impl Takeover {
    pub(super) fn new(entry: HistoryEntry, writer: Writer) -> Self {
        Self { entry, writer, open: 0, listening: 0, forecasts: None }
    }

    /// An event of a node that stays master in this epoch.
    pub(super) fn here(instance: &str, node: &str, epoch: u64, cause: &str, reason: String, writer: Writer) -> Self {
        let entry = HistoryEntry {
            instance: instance.to_owned(),
            epoch,
            master: node.to_owned(),
            previous: Some(node.to_owned()),
            cause: cause.to_owned(),
            reason,
            at_ms: clock::unix_ms(),
            ..HistoryEntry::default()
        };
        Self::new(entry, writer)
    }

    pub(super) fn mark(&mut self, phase: &str, at: Time) {
        history::mark(&mut self.entry, phase, unix_us(at));
    }

    /// Records a re-INVITE. Once every call is settled, later re-INVITEs do not belong to the takeover.
    pub(super) fn invited(&mut self, at: Time) {
        if self.open > 0 {
            self.mark("first-reinvite", at);
            self.mark("last-reinvite", at);
        }
    }

    /// Adds `calls` to recover, as far as the mode allows.
    pub(super) fn expect(&mut self, calls: usize) {
        self.open += calls;
        self.entry.calls.total += calls;
    }

    /// Counts what `mode` does with these calls, and what each mode above it would do, by the engine's own rules.
    /// Returns the totals so far.
    pub(super) fn forecast(&mut self, calls: &[Call], mode: Mode, ground: &Ground) -> &[Forecast] {
        let forecasts = self.forecasts.get_or_insert_with(|| Forecasts::from(mode));
        calls.iter().for_each(|call| forecasts.add(call, ground));
        self.entry.forecast = forecasts.list();
        &self.entry.forecast
    }

    pub(super) fn outcome(&mut self, outcome: &Outcome) {
        let calls = &mut self.entry.calls;
        match outcome {
            Outcome::Recovered => {
                calls.recovered += 1;
                self.listening += 1;
            }
            Outcome::Gone | Outcome::HungUp => calls.gone += 1,
            Outcome::Refused { .. } => calls.refused += 1,
            Outcome::Unreachable => calls.unreachable += 1,
            Outcome::Unpaired => calls.unpaired += 1,
            Outcome::Proxied => calls.proxied += 1,
            Outcome::Relayed => calls.relayed += 1,
            Outcome::Left => calls.left += 1,
        }
        self.open = self.open.saturating_sub(1);
        if self.open == 0 {
            self.mark("settled", clock::now());
            self.save();
        }
    }

    /// Enters what was counted of a recovered call. The record is written again once all are counted, not for each.
    pub(super) fn listened(&mut self, counted: Counted) {
        // A call of a takeover before this one.
        let Some(rest) = self.listening.checked_sub(1) else { return };
        self.listening = rest;
        match counted {
            Counted::Only(_) => self.entry.calls.one_way += 1,
            Counted::Neither => self.entry.calls.silent += 1,
            Counted::Both | Counted::OnHold | Counted::NotOurs | Counted::Unknown => {}
        }
        if rest == 0 && self.open == 0 {
            self.save();
        }
    }

    /// Passes the current record to the writer.
    pub(super) fn save(&self) {
        self.writer.write(self.entry.clone());
    }
}
