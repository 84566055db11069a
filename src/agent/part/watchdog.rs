//! A thread that looks after the others: it finds runs that never come back, and tells systemd that the election turns.

use super::lock;
use super::pulse::Pulse;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::error;

/// How often the beats are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// So many looks without a beat, and a run is stuck: 10 s. The longest that a run takes in one go is a full read of 10,000 calls,
/// below a second, and twenty times as long on a host with ten times its load. Looks are counted and not the clock, so that an
/// agent that was frozen or suspended gives nobody up.
const STUCK: u32 = 20;

/// The runs that are looked after.
#[derive(Clone, Debug, Default)]
pub(in crate::agent) struct Beats(Arc<Mutex<Vec<Arc<Pulse>>>>);

impl Beats {
    pub(super) fn add(&self, pulse: &Arc<Pulse>) {
        lock(&self.0).push(Arc::clone(pulse));
    }

    pub(super) fn remove(&self, pulse: &Arc<Pulse>) {
        lock(&self.0).retain(|p| !Arc::ptr_eq(p, pulse));
    }
}

/// How many looks in a row saw the same count. Pure.
#[derive(Debug, Default)]
pub(super) struct Stillness {
    last: u64,
    looks: u32,
}

impl Stillness {
    /// One look: for how many in a row the count has stood still.
    pub(super) fn look(&mut self, count: u64) -> u32 {
        self.looks = if count == self.last { self.looks + 1 } else { 0 };
        self.last = count;
        self.looks
    }
}

/// Starts looking, until the process ends. `election` counts the rounds of the election's thread: systemd is told while it turns,
/// and of nothing else. A part that is stuck must not restart the whole.
///
/// # Errors
/// The system gives no thread.
pub(in crate::agent) fn watch(beats: Beats, election: impl Fn() -> u64 + Send + 'static) -> std::io::Result<()> {
    let asked_for = sd_notify::watchdog_enabled().is_some();
    let run = move || {
        let mut of_election = Stillness::default();
        let mut watched: Vec<(Arc<Pulse>, Stillness)> = Vec::new();
        loop {
            if of_election.look(election()) == 0 && asked_for {
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            }
            let now = lock(&beats.0).clone();
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
                    error!("{} does not come back", pulse.doing());
                    pulse.give_up(LOOK * looks);
                }
            }
            std::thread::sleep(LOOK);
        }
    };
    std::thread::Builder::new().name("watchdog".into()).spawn(run).map(drop)
}
