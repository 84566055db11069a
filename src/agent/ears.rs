//! All that an agent hears of its server's calls, in one place: what passes the wire, and the few RTP packets that tell where
//! phones really send from.

use super::sampler::Sampler;
use crate::calls::capture::{Capture, CaptureError, Seen};
use crate::clock;
use crate::config;
use crate::time::Time;
use std::net::IpAddr;
use std::time::Duration;
use tracing::{debug, info, warn};

/// Pause before the capture is opened again, after the system took it away.
const REOPEN: Duration = Duration::from_secs(1);

/// One thing that was heard.
#[derive(Debug)]
pub(super) enum Heard {
    /// A SIP message between the server and somebody.
    Message(Seen),
    /// A sampled RTP packet to the server.
    Rtp(Seen),
}

/// What listens to one instance's server.
pub(super) struct Ears {
    instance: String,
    interface: String,
    ports: Vec<u16>,
    /// `None` for a while after the system took it away.
    capture: Option<Capture>,
    reopen_at: Time,
    sampler: Sampler,
}

impl Ears {
    pub(super) fn open(instance: &config::Instance, sip: &config::Sip, vips: &[IpAddr]) -> Result<Self, CaptureError> {
        Ok(Self {
            instance: instance.name.clone(),
            interface: instance.interface.clone(),
            ports: sip.ports.clone(),
            capture: Some(Capture::open(&instance.interface, &sip.ports)?),
            reopen_at: Time::FAR,
            sampler: Sampler::new(&instance.interface, vips, sip.media_ports),
        })
    }

    /// The next thing that is heard. Cancel safe.
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            let lost = tokio::select! {
                seen = overhear(self.capture.as_mut()) => match seen {
                    Ok(seen) => return Heard::Message(seen),
                    Err(e) => Some(e),
                },
                seen = self.sampler.next() => return Heard::Rtp(seen),
                () = tokio::time::sleep_until(clock::tokio_at(self.reopen_at)) => None,
            };
            match lost {
                Some(e) => {
                    warn!(instance = self.instance, "calls are not learnt for the moment: {e}");
                    self.capture = None;
                    self.reopen_at = clock::now() + REOPEN;
                }
                None => self.reopen(),
            }
        }
    }

    /// Listens to one of `wanted` RTP packets from now on; to none if `None`.
    pub(super) fn sample(&mut self, wanted: Option<u32>) {
        self.sampler.adjust(wanted);
    }

    fn reopen(&mut self) {
        match Capture::open(&self.interface, &self.ports) {
            Ok(capture) => {
                info!(instance = self.instance, "calls are learnt again");
                self.capture = Some(capture);
                self.reopen_at = Time::FAR;
            }
            Err(e) => {
                debug!(instance = self.instance, "still no capture: {e}");
                self.reopen_at = clock::now() + REOPEN;
            }
        }
    }
}

async fn overhear(capture: Option<&mut Capture>) -> Result<Seen, CaptureError> {
    match capture {
        Some(capture) => capture.next().await,
        None => std::future::pending().await,
    }
}
