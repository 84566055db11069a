//! All sources about the server's calls in one place: captured SIP, the server's own reports and bridge events, and a
//! few RTP packets that show where phones really send from.

use super::sampler::Sampler;
use crate::config;
use crate::hep::intake::{Counters, Key, ReportedMessage, Rules};
use crate::hep::listener::{HepOpenError, Listener, Sockets, own_addresses};
use crate::os::clock;
use crate::pbx::bridges::Fact;
use crate::pbx::driver::{Login, Server, ServerStatus};
use crate::pbx::request::Request;
use crate::time::Time;
use crate::wire::capture::{Capture, CaptureCounters, CaptureError, Captured};
use futures::FutureExt as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::{debug, info, warn};

/// Pause before the capture is reopened after the system closed it.
const REOPEN: Duration = Duration::from_secs(1);

/// One received item.
#[derive(Debug)]
pub(super) enum Input {
    /// A captured SIP message to or from the server.
    Message(Captured),
    /// A SIP message that the server reports as sent or received.
    Reported(ReportedMessage),
    /// A sampled RTP packet to the server.
    Rtp(Captured),
    /// An event about the server's channels and bridges.
    Fact(Fact),
}

/// Listens to one instance's server.
pub(super) struct Tap {
    instance: String,
    interface: String,
    ports: Vec<u16>,
    vips: Vec<IpAddr>,
    /// `None` for a while after the system closed it.
    capture: Option<Capture>,
    reopen_at: Time,
    /// Whether this host holds the addresses.
    holds: bool,
    sampler: Sampler,
    hep: Option<Listener>,
    /// How to query the server itself, if configured.
    login: Option<Login>,
    /// The connection to the server, while it is queried.
    server: Option<Server>,
}

/// Why listening to a server failed.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The packet capture failed.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The HEP listener failed.
    #[error(transparent)]
    Hep(#[from] HepOpenError),
    /// The HEP key is unreadable.
    #[error("cannot read the HEP key in {}: {source}; write the key on the first line of the file", path.display())]
    HepKey {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

/// The bound sockets for the server's reports, and the rules for accepting them.
pub(super) type HepPort = (Sockets, Rules);

/// Binds the sockets for the server's reports, if configured.
pub(super) fn hep_port(
    config: &config::Config,
    sip: &config::Sip,
    vips: &[IpAddr],
) -> Result<Option<HepPort>, TapError> {
    let Some(hep) = &sip.hep else { return Ok(None) };
    let rules = rules(hep, config, vips, &sip.ports)?;
    Ok(Some((Sockets::bind(&hep.listen)?, rules)))
}

impl Tap {
    pub(super) fn open(
        instance: &config::Instance,
        sip: &config::Sip,
        vips: &[IpAddr],
        hep: Option<&HepPort>,
    ) -> Result<Self, TapError> {
        let hep = match hep {
            Some((sockets, rules)) => Some(Listener::start(&instance.name, sockets, rules.clone())?),
            None => None,
        };
        Ok(Self {
            instance: instance.name.clone(),
            interface: instance.interface.clone(),
            ports: sip.ports.clone(),
            vips: vips.to_vec(),
            capture: Some(Capture::open_for(&instance.interface, &sip.ports, vips)?),
            reopen_at: Time::FAR,
            holds: false,
            sampler: Sampler::new(&instance.interface, vips, sip.media_ports),
            hep,
            login: login(sip),
            server: None,
        })
    }

    /// Starts or stops querying the server. A standby's server has no calls to report, and each new connection starts
    /// with the full state.
    pub(super) fn ask_server(&mut self, wanted: bool) {
        self.server = self.login.clone().filter(|_| wanted).map(Server::start);
    }

    /// Whether the server can be asked at all.
    pub(super) const fn may_ask_server(&self) -> bool {
        self.login.is_some()
    }

    /// Looks at the calls of a former master's server, with a new connection.
    pub(super) fn look_at_server(&mut self) {
        self.server = self.login.clone().map(Server::look);
    }

    /// Sends a request to the server, if there is a connection.
    pub(super) fn request(&self, request: Request) {
        if let Some(server) = &self.server {
            server.request(request);
        }
    }

    /// The state of the connection to the server; `None` while it is not queried.
    pub(super) fn server_status(&self) -> Option<ServerStatus> {
        self.server.as_ref().map(Server::status)
    }

    /// The capture's counters; `None` while there is no capture.
    pub(super) fn capture_counts(&self) -> Option<CaptureCounters> {
        self.capture.as_ref().map(Capture::counters)
    }

    /// The HEP counters; `None` if HEP is not configured.
    pub(super) fn hep_counts(&self) -> Option<Counters> {
        self.hep.as_ref().map(Listener::counters)
    }

    /// The next received item. Cancel safe.
    pub(super) async fn next(&mut self) -> Input {
        loop {
            let lost = tokio::select! {
                seen = overhear(self.capture.as_mut()) => match seen {
                    Ok(seen) => return Input::Message(seen),
                    Err(e) => Some(e),
                },
                report = reported(self.hep.as_mut()) => return Input::Reported(report),
                seen = self.sampler.next() => return Input::Rtp(seen),
                fact = told(self.server.as_mut()) => return Input::Fact(fact),
                () = tokio::time::sleep_until(clock::tokio_at(self.reopen_at)) => None,
            };
            match lost {
                Some(e) => self.lose(&e),
                None => self.reopen(),
            }
        }
    }

    /// A message that the capture already holds, if any.
    pub(super) fn more(&mut self) -> Option<Input> {
        match self.capture.as_mut()?.next().now_or_never()? {
            Ok(seen) => Some(Input::Message(seen)),
            Err(e) => {
                self.lose(&e);
                None
            }
        }
    }

    fn lose(&mut self, why: &CaptureError) {
        warn!(instance = self.instance, "the capture failed, so no calls are learnt until it reopens: {why}");
        self.capture = None;
        self.reopen_at = clock::now() + REOPEN;
    }

    /// Sets whether this host holds the addresses. The capture then warns about inbound frames from them.
    pub(super) fn set_holds(&mut self, holds: bool) {
        self.holds = holds;
        if let Some(capture) = &mut self.capture {
            capture.set_holds(holds);
        }
    }

    /// Samples one in `wanted` RTP packets from now on; none if `None`.
    pub(super) fn sample(&mut self, wanted: Option<u32>) {
        self.sampler.adjust(wanted);
    }

    fn reopen(&mut self) {
        match Capture::open_for(&self.interface, &self.ports, &self.vips) {
            Ok(mut capture) => {
                capture.set_holds(self.holds);
                info!(instance = self.instance, "the capture is open again; learning calls");
                self.capture = Some(capture);
                self.reopen_at = Time::FAR;
            }
            Err(e) => {
                debug!(instance = self.instance, "cannot reopen the capture: {e}");
                self.reopen_at = clock::now() + REOPEN;
            }
        }
    }
}

async fn overhear(capture: Option<&mut Capture>) -> Result<Captured, CaptureError> {
    match capture {
        Some(capture) => capture.next().await,
        None => std::future::pending().await,
    }
}

async fn reported(hep: Option<&mut Listener>) -> ReportedMessage {
    match hep {
        Some(hep) => hep.next().await,
        None => std::future::pending().await,
    }
}

async fn told(server: Option<&mut Server>) -> Fact {
    match server {
        Some(server) => server.next().await,
        None => std::future::pending().await,
    }
}

fn login(sip: &config::Sip) -> Option<Login> {
    let ami = sip.ami.as_ref().map(|ami| Login::Ami {
        address: ami.address,
        user: ami.user.clone(),
        secret_file: ami.secret_file.clone(),
    });
    let esl = sip.esl.as_ref().map(|esl| Login::Esl { address: esl.address, password_file: esl.password_file.clone() });
    ami.or(esl)
}

/// The default for `from`: with a key any sender may report, without a key only this host may.
fn rules(hep: &config::Hep, config: &config::Config, vips: &[IpAddr], sip_ports: &[u16]) -> Result<Rules, TapError> {
    let key = match &hep.key_file {
        Some(path) => Some(key_of(path).map_err(|source| TapError::HepKey { path: path.clone(), source })?),
        None => None,
    };
    let here = || {
        [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), config.node.address]
            .into_iter()
            .chain(vips.iter().copied())
    };
    let from = match (&hep.from, &key) {
        (Some(from), _) => Some(from.clone()),
        (None, Some(_)) => None,
        (None, None) => Some(here().collect()),
    };
    // This host's addresses, except for the floating addresses of other instances, which belong to other servers.
    let floats = |ip: &IpAddr| config.instances.iter().flat_map(|i| &i.addresses).any(|net| net.addr() == *ip);
    let mut server = own_addresses();
    server.retain(|ip| !floats(ip));
    server.push(config.node.address);
    server.extend(&hep.server);
    Ok(Rules { key, from, vips: vips.to_vec(), server, sip_ports: sip_ports.to_vec() })
}

fn key_of(path: &Path) -> std::io::Result<Key> {
    let text = std::fs::read(path)?;
    let line = text.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii();
    if line.is_empty() {
        return Err(std::io::Error::other("the first line is empty"));
    }
    Ok(Key::new(line))
}
