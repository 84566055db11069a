//! The watchdog thread: it finds hung runs, and tells systemd that the election still turns.

use super::pulse::Pulse;
use crate::sync::Locked as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::error;

/// How often the watchdog checks the beats.
const LOOK: Duration = Duration::from_millis(500);
/// This many checks without a beat mean a hung run: 10 s. The longest step of a run is a full read of 10,000 calls:
/// below a second, and twenty times as long on a host with ten times its load. The limit counts checks and not clock
/// time, so that an agent that was frozen or suspended gives no run up.
const STUCK: u32 = 20;

/// The watched runs.
#[derive(Clone, Debug, Default)]
pub(in crate::agent) struct Beats(Arc<Mutex<Vec<Arc<Pulse>>>>);

impl Beats {
    pub(super) fn add(&self, pulse: &Arc<Pulse>) {
        self.0.locked().push(Arc::clone(pulse));
    }

    pub(super) fn remove(&self, pulse: &Arc<Pulse>) {
        self.0.locked().retain(|p| !Arc::ptr_eq(p, pulse));
    }
}

/// How many checks in a row saw the same count. Pure.
#[derive(Debug, Default)]
pub(super) struct Stillness {
    last: u64,
    looks: u32,
}

impl Stillness {
    /// One check. Returns how many checks in a row saw no change.
    pub(super) fn look(&mut self, count: u64) -> u32 {
        self.looks = if count == self.last { self.looks + 1 } else { 0 };
        self.last = count;
        self.looks
    }
}

/// Starts the watchdog until the process ends. `election` counts the rounds of the election's thread. Only these rounds
/// feed systemd's watchdog, because a hung part must not restart the whole agent.
///
/// # Errors
/// The system cannot start a thread.
pub(in crate::agent) fn watch(beats: Beats, election: impl Fn() -> u64 + Send + 'static) -> std::io::Result<()> {
    let asked_for = sd_notify::watchdog_enabled().is_some();
    let run = move || {
        let mut of_election = Stillness::default();
        let mut watched: Vec<(Arc<Pulse>, Stillness)> = Vec::new();
        loop {
            if of_election.look(election()) == 0 && asked_for {
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            }
            let now = beats.0.locked().clone();
            watched.retain(|(p, _)| now.iter().any(|n| Arc::ptr_eq(n, p)));
            for pulse in now {
                if !watched.iter().any(|(p, _)| Arc::ptr_eq(p, &pulse)) {
                    watched.push((pulse, Stillness::default()));
                }
            }
            for (pulse, stillness) in &mut watched {
                let looks = stillness.look(pulse.beats());
                pulse.stalled(LOOK * looks);
                if looks == STUCK {
                    error!("{} is stuck", pulse.doing());
                    pulse.give_up(LOOK * looks);
                }
            }
            std::thread::sleep(LOOK);
        }
    };
    std::thread::Builder::new().name("watchdog".into()).spawn(run).map(drop)
}
