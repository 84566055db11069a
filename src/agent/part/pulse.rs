//! The heartbeat of one run of a part, and its activity when the heartbeat stopped.

use crate::os::process;
use crate::sync::Locked as _;
use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

thread_local! {
    /// The run that this thread belongs to.
    static HERE: RefCell<Option<Arc<Pulse>>> = const { RefCell::new(None) };
}

/// The activity of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::agent) enum Doing {
    /// Nothing in particular.
    Other,
    /// Learning calls from captured and reported messages.
    Learning,
    /// Recovering and carrying calls.
    Recovery,
}

/// One run's heartbeat and activity.
#[derive(Debug)]
pub(in crate::agent) struct Pulse {
    part: String,
    beats: AtomicU64,
    doing: AtomicU8,
    /// The message being handled; 0 means none.
    message: AtomicU64,
    thread: AtomicI32,
    longest_stall_ms: AtomicU64,
    panic: Mutex<Option<String>>,
    panicked: Notify,
    stuck: Mutex<Option<Duration>>,
    found_stuck: Notify,
}

impl Pulse {
    pub(super) fn new(part: &str) -> Self {
        Self {
            part: part.to_owned(),
            beats: AtomicU64::new(0),
            doing: AtomicU8::new(Doing::Other as u8),
            message: AtomicU64::new(0),
            thread: AtomicI32::new(0),
            longest_stall_ms: AtomicU64::new(0),
            panic: Mutex::default(),
            panicked: Notify::new(),
            stuck: Mutex::default(),
            found_stuck: Notify::new(),
        }
    }

    /// Makes the calling thread the run's thread.
    pub(super) fn begins(self: &Arc<Self>) {
        self.thread.store(process::this_thread(), Relaxed);
        HERE.with(|here| *here.borrow_mut() = Some(Arc::clone(self)));
    }

    pub(super) fn thread(&self) -> i32 {
        self.thread.load(Relaxed)
    }

    pub(super) fn beat(&self) {
        self.beats.fetch_add(1, Relaxed);
    }

    pub(super) fn beats(&self) -> u64 {
        self.beats.load(Relaxed)
    }

    /// Sets the run's activity.
    pub(in crate::agent) fn does(&self, doing: Doing) {
        self.doing.store(doing as u8, Relaxed);
    }

    /// The last activity, as text.
    pub(super) fn doing(&self) -> String {
        match self.doing.load(Relaxed) {
            d if d == Doing::Learning as u8 => "learning".to_owned(),
            d if d == Doing::Recovery as u8 => "recovery".to_owned(),
            _ => self.part.clone(),
        }
    }

    pub(super) fn handles(&self, message: u64) {
        self.message.store(message, Relaxed);
    }

    pub(super) fn handled(&self) -> Option<u64> {
        Some(self.message.load(Relaxed)).filter(|m| *m != 0)
    }

    /// Records a stall: the time without a beat, of a stall that is over or still lasts.
    pub(super) fn stalled(&self, for_: Duration) {
        let ms = u64::try_from(for_.as_millis()).unwrap_or(u64::MAX);
        self.longest_stall_ms.fetch_max(ms, Relaxed);
    }

    pub(super) fn longest_stall_ms(&self) -> u64 {
        self.longest_stall_ms.load(Relaxed)
    }

    /// Marks the run as given up by the watchdog.
    pub(super) fn give_up(&self, after: Duration) {
        *self.stuck.locked() = Some(after);
        self.found_stuck.notify_one();
    }

    /// Waits until the watchdog gives the run up. Returns the time without a beat.
    pub(super) async fn stuck(&self) -> Duration {
        loop {
            if let Some(after) = *self.stuck.locked() {
                return after;
            }
            self.found_stuck.notified().await;
        }
    }

    fn notes_panic(&self, what: &dyn fmt::Display) {
        self.panic.locked().get_or_insert_with(|| format!("{} panicked: {what}", self.doing()));
        self.panicked.notify_one();
    }

    /// The panic message, if any.
    pub(super) fn panic(&self) -> Option<String> {
        self.panic.locked().clone()
    }

    /// Waits for a panic on the run's thread, including panics of tasks that the runtime caught.
    pub(super) async fn panicked(&self) -> String {
        loop {
            if let Some(why) = self.panic() {
                return why;
            }
            self.panicked.notified().await;
        }
    }
}

/// Reports each panic to the run on its thread, and then to the former panic hook.
pub(in crate::agent) fn listen_to_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let payload = info.payload();
        let text =
            payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no message");
        let place = info.location().map(|l| format!(" ({}:{})", l.file(), l.line())).unwrap_or_default();
        // The thread-local is gone while the thread ends. The panic then goes unreported.
        let _ = HERE.try_with(|here| {
            if let Ok(here) = here.try_borrow()
                && let Some(pulse) = here.as_ref()
            {
                pulse.notes_panic(&format_args!("{text}{place}"));
            }
        });
        before(info);
    }));
}
