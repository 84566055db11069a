//! Samples a few random RTP packets during calls, to learn where phones really send from.

use crate::wire::capture::{Capture, Captured};
use std::net::IpAddr;
use tracing::warn;

/// The rate changes only when it is off by this factor: each change is a system call, and calls come and go.
const SLACK: u32 = 2;

/// The sampler of one instance. It has no socket while there is nothing to learn, so RTP then costs nothing at all.
pub(super) struct Sampler {
    interface: String,
    vips: Vec<IpAddr>,
    ports: (u16, u16),
    capture: Option<Capture>,
    one_in: u32,
    /// Whether a failure of sampling was already reported.
    failed: bool,
}

impl Sampler {
    pub(super) fn new(interface: &str, vips: &[IpAddr], ports: (u16, u16)) -> Self {
        Self { interface: interface.to_owned(), vips: vips.to_vec(), ports, capture: None, one_in: 0, failed: false }
    }

    /// The next sample. Never returns without a capture. Cancel safe.
    pub(super) async fn next(&mut self) -> Captured {
        loop {
            let Some(capture) = &mut self.capture else { return std::future::pending().await };
            match capture.next().await {
                Ok(seen) => return seen,
                Err(e) => self.fail(&e.to_string()),
            }
        }
    }

    /// Samples one in `wanted` packets from now on; none if `None`.
    pub(super) fn adjust(&mut self, wanted: Option<u32>) {
        let Some(wanted) = wanted else {
            self.capture = None;
            return;
        };
        let result = match &mut self.capture {
            Some(_) if wanted < self.one_in.saturating_mul(SLACK) && self.one_in < wanted.saturating_mul(SLACK) => {
                return;
            }
            Some(capture) => capture.resample(&self.vips, self.ports, wanted),
            None if self.failed => return,
            None => Capture::sample(&self.interface, &self.vips, self.ports, wanted).map(|c| self.capture = Some(c)),
        };
        match result {
            Ok(()) => self.one_in = wanted,
            Err(e) => self.fail(&e.to_string()),
        }
    }

    fn fail(&mut self, why: &str) {
        self.capture = None;
        self.failed = true;
        warn!(
            interface = self.interface,
            "cannot learn the RTP sources of phones, so phones behind a NAT may lose audio at a takeover: {why}"
        );
    }
}
