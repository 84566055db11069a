//! Parts of the agent that may fail on their own. Each part has its own thread and runtime, and a supervisor that
//! restarts it.
//!
//! A panic ends the thread. So does a panic in any task of its runtime, because the panic hook reports it. A hung
//! thread cannot be ended: the supervisor abandons it and revokes its licence, and without a licence no action leaves
//! the thread. Every wait for a part has a time-out, and no code outside holds a lock of a part for longer than one
//! statement.

mod licence;
mod policy;
mod pulse;
mod watchdog;

pub(super) use licence::Licence;
pub(super) use pulse::{Doing, Pulse, listen_to_panics};
pub(super) use watchdog::{Beats, watch};

use crate::control::api;
use crate::os::{clock, priority};
use crate::sync::Locked as _;
use policy::{Failure, Next, Policy};
use std::collections::HashSet;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

/// How often a part shows that its runtime still turns.
const BEAT: Duration = Duration::from_millis(200);
/// Limit of remembered messages that made a part fail and are now skipped. Each of them cost a restart, and restarts
/// are limited.
const MOST_POISON: usize = 64;

/// The work of one run of a part, on its own thread. Returns `Ok` when it is no longer needed, or the reason of its
/// failure.
pub(super) type Work = Pin<Box<dyn Future<Output = Result<(), String>>>>;

/// The inputs of one run of a part.
#[derive(Clone)]
pub(super) struct Turn {
    /// The number of the run, counted from 0.
    pub(super) number: u32,
    /// Why the former run failed.
    pub(super) after: Option<String>,
    pub(super) licence: Licence,
    pub(super) pulse: Arc<Pulse>,
    poison: Arc<HashSet<u64>>,
}

impl Turn {
    /// Notes the message that is being handled. Returns `false` if the part failed on it before and must skip it.
    pub(super) fn begins(&self, message: u64) -> bool {
        if self.passes_over(message) {
            return false;
        }
        self.pulse.handles(message);
        true
    }

    /// Whether the part failed on this message before.
    pub(super) fn passes_over(&self, message: u64) -> bool {
        self.poison.contains(&message)
    }

    /// Notes that no message is being handled.
    pub(super) fn ends(&self) {
        self.pulse.handles(0);
    }
}

/// The state of a part, for `status`.
#[derive(Debug, Default)]
struct State {
    state: &'static str,
    restarts: u32,
    since_ms: u64,
    why: Option<String>,
    passed_over: usize,
    pulse: Option<Arc<Pulse>>,
}

/// A part with its name.
type Named = (String, Arc<Mutex<State>>);

/// All parts.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts(Arc<Mutex<Vec<Named>>>);

impl Parts {
    /// For `status`.
    pub(super) fn status(&self) -> Vec<api::PartStatus> {
        let all = self.0.locked().clone();
        all.iter()
            .map(|(name, state)| {
                let s = state.locked();
                api::PartStatus {
                    name: name.clone(),
                    state: s.state.to_owned(),
                    restarts: s.restarts,
                    since_ms: s.since_ms,
                    why: s.why.clone(),
                    passed_over: s.passed_over,
                    longest_stall_ms: s.pulse.as_ref().map_or(0, |p| p.longest_stall_ms()),
                }
            })
            .collect()
    }

    /// Supervises a part in a task of the caller's runtime until its work is done. `work` makes the work of each run,
    /// on the run's own thread. `cut` runs after a failure, before the next run, and ends everything that the failed
    /// run left outside of its thread.
    pub(super) fn supervise(
        &self,
        name: &str,
        beats: Beats,
        work: impl Fn(Turn) -> Work + Send + Sync + 'static,
        cut: impl Fn() + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let state = Arc::new(Mutex::new(State { state: "running", since_ms: clock::unix_ms(), ..State::default() }));
        self.0.locked().push((name.to_owned(), Arc::clone(&state)));
        tokio::spawn(supervise(name.to_owned(), state, beats, Arc::new(work), cut))
    }
}

async fn supervise(
    name: String,
    state: Arc<Mutex<State>>,
    beats: Beats,
    work: Arc<impl Fn(Turn) -> Work + Send + Sync + 'static>,
    cut: impl Fn() + Send,
) {
    let (mut policy, mut poison, mut number) = (Policy::default(), HashSet::new(), 0);
    let mut after = None;
    loop {
        let pulse = Arc::new(Pulse::new(&name));
        let licence = Licence::default();
        let turn = Turn {
            number,
            after,
            licence: licence.clone(),
            pulse: Arc::clone(&pulse),
            poison: Arc::new(poison.clone()),
        };
        state.locked().pulse = Some(Arc::clone(&pulse));
        let (failure, why) = match start(&name, turn, Arc::clone(&work)) {
            Ok(ended) => {
                beats.add(&pulse);
                tokio::select! {
                    done = ended => match done {
                        Ok(Ok(())) => return,
                        Ok(Err(why)) => (Failure::Ended, why),
                        Err(_) => (Failure::Ended, "the thread ended without a message".to_owned()),
                    },
                    stuck = pulse.stuck() => {
                        (Failure::Stuck, format!("{} was stuck for {}", pulse.doing(), humantime::format_duration(stuck)))
                    }
                }
            }
            Err(e) => (Failure::Ended, format!("cannot start the thread: {e}")),
        };
        // First of all: a failed run must not act any more.
        licence.revoke();
        cut();
        beats.remove(&pulse);
        if failure == Failure::Stuck
            && let Err(e) = priority::idle_thread(pulse.thread())
        {
            warn!(part = name, "cannot lower the priority of the stuck thread: {e}");
        }
        if let Some(message) = pulse.handled().filter(|_| poison.len() < MOST_POISON) {
            poison.insert(message);
        }
        let next = policy.failed(failure, clock::now());
        {
            let mut state = state.locked();
            state.why = Some(why.clone());
            state.since_ms = clock::unix_ms();
            state.passed_over = poison.len();
            state.state = match next {
                Next::After(_) => "restarting",
                Next::Off(_) => "off",
            };
        }
        match next {
            Next::After(pause) => {
                error!(
                    part = name,
                    "part failed, restarting: {why}. The role and the addresses stay; please report this"
                );
                tokio::time::sleep(pause).await;
            }
            Next::Off(reason) => {
                error!(
                    part = name,
                    "part failed and stays off, because {reason}: {why}. The role and the addresses stay; restart \
                     the agent"
                );
                return;
            }
        }
        number += 1;
        {
            let mut state = state.locked();
            (state.state, state.restarts) = ("running", number);
        }
        info!(part = name, restarts = number, "part restarted");
        after = Some(why);
    }
}

/// Starts one run. The receiver gets its result.
fn start(
    name: &str,
    turn: Turn,
    work: Arc<impl Fn(Turn) -> Work + Send + Sync + 'static>,
) -> std::io::Result<oneshot::Receiver<Result<(), String>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (done, ended) = oneshot::channel();
    let run = move || {
        let pulse = Arc::clone(&turn.pulse);
        pulse.begins();
        let result = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(async {
                let licence = turn.licence.clone();
                tokio::select! {
                    biased;
                    why = pulse.panicked() => Err(why),
                    ended = licence.bind(work(turn)) => ended.unwrap_or(Ok(())),
                    () = beat(&pulse) => Ok(()),
                }
            })
        }));
        // Do not wait, because a kernel request may be pending on another thread.
        runtime.shutdown_background();
        let result = result.unwrap_or_else(|_| Err(pulse.panic().unwrap_or_else(|| "the thread panicked".to_owned())));
        // An abandoned run has no receiver any more.
        let _ = done.send(result);
    };
    // The system's length limit of a thread name.
    let short: String = name.chars().take(15).collect();
    std::thread::Builder::new().name(short).spawn(run)?;
    Ok(ended)
}

async fn beat(pulse: &Pulse) {
    loop {
        pulse.beat();
        tokio::time::sleep(BEAT).await;
    }
}

#[cfg(test)]
mod tests;
