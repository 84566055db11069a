//! The record of one takeover while it goes on: the moment of each phase and how each call came through.

use super::history::{self, Writer};
use crate::calls::model::Call;
use crate::clock;
use crate::config::Mode;
use crate::control::api::HistoryEntry;
use crate::recovery::deed::{Forecast, Forecasts};
use crate::recovery::engine::Outcome;
use crate::time::Time;
use std::net::IpAddr;

/// Wall-clock microseconds since 1970 of an instant on this node's clock.
pub(super) fn unix_us(at: Time) -> u64 {
    let ago = u64::try_from(clock::now().since(at).as_micros()).unwrap_or(u64::MAX);
    clock::unix_us().saturating_sub(ago)
}

/// One change of master, as seen by the node that became master.
#[derive(Debug)]
pub(super) struct Takeover {
    entry: HistoryEntry,
    writer: Writer,
    /// Calls whose outcome is not known yet.
    open: usize,
    /// What each mode does with these calls; made with the first of them.
    forecasts: Option<Forecasts>,
}

impl Takeover {
    pub(super) fn new(entry: HistoryEntry, writer: Writer) -> Self {
        Self { entry, writer, open: 0, forecasts: None }
    }

    pub(super) fn mark(&mut self, phase: &str, at: Time) {
        history::mark(&mut self.entry, phase, unix_us(at));
    }

    /// A re-INVITE leaves. Those of later, when every call is settled, are not of the takeover.
    pub(super) fn invited(&mut self, at: Time) {
        if self.open > 0 {
            self.mark("first-reinvite", at);
            self.mark("last-reinvite", at);
        }
    }

    /// `calls` more are to be recovered, as far as the mode allows.
    pub(super) fn expect(&mut self, calls: usize) {
        self.open += calls;
        self.entry.calls.total += calls;
    }

    /// Counts what `mode` does with these calls, and each mode above it would do, by what the engine decides by; all of them so far.
    pub(super) fn forecast(&mut self, calls: &[Call], mode: Mode, vips: &[IpAddr]) -> &[Forecast] {
        let forecasts = self.forecasts.get_or_insert_with(|| Forecasts::from(mode));
        calls.iter().for_each(|call| forecasts.add(call, vips));
        self.entry.forecast = forecasts.list();
        &self.entry.forecast
    }

    pub(super) fn outcome(&mut self, outcome: &Outcome) {
        let calls = &mut self.entry.calls;
        match outcome {
            Outcome::Recovered => calls.recovered += 1,
            Outcome::Gone | Outcome::HungUp => calls.gone += 1,
            Outcome::Refused { .. } => calls.refused += 1,
            Outcome::Unreachable => calls.unreachable += 1,
            Outcome::Unpaired => calls.unpaired += 1,
            Outcome::Relayed => calls.relayed += 1,
            Outcome::Left => calls.left += 1,
        }
        self.open = self.open.saturating_sub(1);
        if self.open == 0 {
            self.mark("settled", clock::now());
            self.save();
        }
    }

    /// Hands what is known so far to the writer.
    pub(super) fn save(&self) {
        self.writer.write(self.entry.clone());
    }
}
