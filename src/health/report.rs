//! Results of the checks, as values for the status.

use serde::{Deserialize, Serialize};

/// A check's view of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// Undecided.
    #[default]
    Unknown,
    /// The server works.
    Good,
    /// The server does not work.
    Failed,
}

/// The result of one probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// Whether the server did what was expected.
    pub ok: bool,
    /// What was seen, in a few words.
    pub detail: String,
    /// Duration of the probe in milliseconds, rounded down.
    pub took_ms: u64,
}

/// The process that a check watches. The server's calls live no longer than it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchedProcess {
    /// It has ended, and no other one has been found yet.
    Ended,
    /// It runs since this moment, in wall-clock milliseconds since 1970.
    Running {
        /// The moment.
        since_ms: u64,
    },
}

/// The state of one check of the local server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Its current state.
    pub state: CheckState,
    /// Whether its failure makes the node unfit.
    pub fatal: bool,
    /// Wall-clock milliseconds since 1970 of the last change of state (of the start, if there was none).
    pub since_ms: u64,
    /// The last probe, if there was one.
    pub last: Option<ProbeResult>,
    /// The watched process, if the check watches one.
    #[serde(skip)]
    pub process: Option<WatchedProcess>,
}

/// All checks of one instance, joined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether every fatal check is good. An undecided check counts as not good, so that a node which has just started
    /// is no candidate before its server has been seen to work.
    pub fit: bool,
    /// Why, in a few words for status and history.
    pub summary: String,
    /// Each check, in the order of the configuration.
    pub checks: Vec<CheckStatus>,
}

impl Verdict {
    /// Whether the server works, once the fatal checks agree: all are good, or one has failed.
    #[must_use]
    pub fn decided(&self) -> Option<bool> {
        let mut fatal = self.checks.iter().filter(|c| c.fatal);
        let failed = fatal.clone().any(|c| c.state == CheckState::Failed);
        if failed { Some(false) } else { fatal.all(|c| c.state == CheckState::Good).then_some(true) }
    }

    /// Calls confirmed before this moment (wall-clock milliseconds since 1970) were those of a process that has ended.
    /// `None` if no fatal check watches a process.
    #[must_use]
    pub fn server_since_ms(&self) -> Option<u64> {
        let since = |p: WatchedProcess| match p {
            WatchedProcess::Ended => u64::MAX,
            WatchedProcess::Running { since_ms } => since_ms,
        };
        self.checks.iter().filter(|c| c.fatal).filter_map(|c| c.process.map(since)).max()
    }

    /// Joins the states of all checks of an instance. Without any check the node is fit: nothing speaks against it.
    #[must_use]
    pub fn of(checks: Vec<CheckStatus>) -> Self {
        let list = |state: CheckState, fatal: bool| -> Vec<String> {
            let named = |c: &&CheckStatus| c.state == state && c.fatal == fatal;
            let word = |c: &CheckStatus| match &c.last {
                Some(p) if !p.detail.is_empty() => format!("{}: {}", c.name, p.detail),
                _ => c.name.clone(),
            };
            checks.iter().filter(named).map(word).collect()
        };
        let failed = list(CheckState::Failed, true);
        let waiting: Vec<String> =
            checks.iter().filter(|c| c.fatal && c.state == CheckState::Unknown).map(|c| c.name.clone()).collect();
        let minor = list(CheckState::Failed, false);
        let summary = if !failed.is_empty() {
            format!("failed: {}", failed.join("; "))
        } else if !waiting.is_empty() {
            format!("waiting for the first results of {}", waiting.join(", "))
        } else if !minor.is_empty() {
            format!("good; failed, but not fatal: {}", minor.join("; "))
        } else if checks.is_empty() {
            "no checks".to_owned()
        } else {
            "all checks good".to_owned()
        };
        Self { fit: failed.is_empty() && waiting.is_empty(), summary, checks }
    }
}
