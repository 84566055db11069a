//! The sum of a report.

use serde::Serialize;

/// The fate of the answered calls that pass the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Answered calls that pass the server, ended ones included.
    pub answered: usize,
    /// Those of them whose audio would go on.
    pub kept: usize,
    /// Those of the kept ones whose signalling would not go on.
    pub audio_only: usize,
    /// Answered calls that do not pass the server.
    pub elsewhere: usize,
    /// The rest by reason, the most frequent first.
    pub lost: Vec<Lost>,
}

/// Calls that would not be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// How many.
    pub calls: usize,
    /// Why, in words.
    pub why: String,
}
