//! The kinds of checks. A new kind is a file with a type that implements [`Probe`], and a variant here.

use super::options::OptionsCheck;
use super::probe::{Observation, Probe};
use super::process::ProcessCheck;
use crate::config::Check;

/// A check of each kind.
#[derive(Debug)]
pub(super) enum CheckKind {
    SipOptions(OptionsCheck),
    Process(ProcessCheck),
}

impl CheckKind {
    /// The check in the configuration; `None` without a kind. Must be called in a tokio runtime.
    pub(super) fn of(check: &Check) -> Option<Self> {
        let options = check.sip_options.as_ref().map(|config| Self::SipOptions(OptionsCheck::new(config, check)));
        options.or_else(|| ProcessCheck::of(check.process.as_ref()?, check).map(Self::Process))
    }
}

impl Probe for CheckKind {
    async fn next(&mut self) -> Observation {
        match self {
            Self::SipOptions(probe) => probe.next().await,
            Self::Process(probe) => probe.next().await,
        }
    }
}
