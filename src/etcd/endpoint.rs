//! One etcd member: its client, built at first use, and its state after the last call.

use super::error::{EtcdError, Failure, classify};
use crate::config;
use crate::os::clock;
use crate::sync::Locked as _;
use crate::time::Time;
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// How long a member without an answer is tried last, unless a probe succeeds earlier.
const SHUN: Duration = Duration::from_secs(10);

/// HTTP/2 ping interval and answer time: a stream to a host without power counts as dead within their sum.
const PING: Duration = Duration::from_secs(1);

/// State of one endpoint, for status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointHealth {
    /// The endpoint as configured.
    pub url: String,
    /// Whether its last call, or probe, was answered. An endpoint without a call counts as healthy.
    pub healthy: bool,
    /// The last error, if not healthy.
    pub error: Option<String>,
    /// Its alarm, with the cure; it may answer all the same.
    #[serde(default)]
    pub alarm: Option<String>,
}

#[derive(Default)]
struct State {
    /// Time of its last answer.
    answered: Option<Time>,
    /// A call has waited unusually long for it.
    slow: bool,
    shunned_until: Option<Time>,
    error: Option<String>,
}

/// User, password, certificates.
pub(super) struct Access {
    pub(super) user: Option<String>,
    /// Path of the password file, and its content at the start.
    password: Option<(PathBuf, String)>,
    tls: Option<TlsOptions>,
    /// Whether we present a client certificate.
    certified: bool,
    timeout: Duration,
}

impl Access {
    pub(super) fn new(cfg: &config::Etcd) -> Result<Self, EtcdError> {
        let bad = |m: String| EtcdError::Config(m);
        let read = |path: &Path| std::fs::read(path).map_err(|e| bad(format!("cannot read {}: {e}", path.display())));
        let password = match (&cfg.user, &cfg.password_file) {
            (None, None) => None,
            (Some(_), Some(file)) => {
                let text =
                    String::from_utf8(read(file)?).map_err(|_| bad(format!("{} is not UTF-8 text", file.display())))?;
                Some((file.clone(), first_line(&text)))
            }
            (Some(_), None) => return Err(bad("`user` needs `password_file`".into())),
            (None, Some(_)) => return Err(bad("`password_file` needs `user`".into())),
        };
        let https = cfg.endpoints.iter().any(|e| e.starts_with("https://"));
        let tls = if https {
            let ca = cfg.ca_file.as_ref().ok_or_else(|| bad("https endpoints need `ca_file`".into()))?;
            let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read(ca)?));
            match (&cfg.cert_file, &cfg.key_file) {
                (Some(cert), Some(key)) => tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?)),
                (None, None) => {}
                _ => return Err(bad("`cert_file` needs `key_file`, and `key_file` needs `cert_file`".into())),
            }
            Some(tls)
        } else {
            None
        };
        Ok(Self { user: cfg.user.clone(), password, tls, certified: cfg.cert_file.is_some(), timeout: cfg.timeout })
    }

    fn options(&self, url: &str) -> ConnectOptions {
        let mut o = ConnectOptions::new()
            .with_keep_alive(PING, PING)
            .with_keep_alive_while_idle(true)
            // Half the timeout, so that a host that drops packets fails as "not connected" (certainly not sent) and not
            // as a time-out.
            .with_connect_timeout((self.timeout / 2).max(Duration::from_millis(50)))
            .with_require_leader(true);
        if let (Some(user), Some((file, first))) = (&self.user, &self.password) {
            // Read at each login: a changed password must not need a restart.
            let now = std::fs::read_to_string(file).map_or_else(|_| first.clone(), |text| first_line(&text));
            o = o.with_user(user, now);
        }
        match &self.tls {
            Some(tls) if url.starts_with("https://") => o.with_tls(tls.clone()),
            _ => o,
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Pause after a rejected login: etcd makes logins expensive on purpose, and several tasks log in.
const LOGIN_PAUSE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Slot {
    client: Option<Client>,
    /// Serial number of the client.
    number: u64,
    /// The last rejected login, and the end of its pause.
    refused: Option<(EtcdError, Time)>,
}

pub(super) struct Endpoint {
    pub(super) url: String,
    slot: tokio::sync::Mutex<Slot>,
    state: Mutex<State>,
    alarm: Mutex<Option<String>>,
}

impl Endpoint {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            slot: tokio::sync::Mutex::default(),
            state: Mutex::default(),
            alarm: Mutex::default(),
        }
    }

    /// Returns this member's client. With a user, this requests a token from etcd, so it can fail like any call. The
    /// number is for [`Endpoint::forget_client`].
    pub(super) async fn client(&self, access: &Access) -> Result<(u64, Client), Failure> {
        let mut slot = self.slot.lock().await;
        if let Some(c) = &slot.client {
            return Ok((slot.number, c.clone()));
        }
        if let Some((why, _)) = slot.refused.as_ref().filter(|(_, until)| clock::now() < *until) {
            return Err(Failure::Final(why.clone()));
        }
        let connect = Client::connect([&self.url], Some(access.options(&self.url)));
        let user = access.user.as_deref();
        match tokio::time::timeout(access.timeout, connect).await {
            Ok(Ok(c)) => {
                slot.number += 1;
                Ok((slot.number, slot.client.insert(c).clone()))
            }
            // Whatever happened to the token request, the caller's own request was not sent.
            Ok(Err(e)) => Err(match classify(&e, user) {
                Failure::InDoubt(m) => Failure::NotSent(m),
                Failure::Final(why) => {
                    slot.refused = Some((why.clone(), clock::now() + LOGIN_PAUSE));
                    Failure::Final(why)
                }
                other => other,
            }),
            Err(_) => Err(Failure::NotSent(format!("etcd did not answer the login within {:?}", access.timeout))),
        }
    }

    /// Builds a new client at the next use: only this gets a new token for every kind of token. When an old token fails
    /// several calls at once, only the first drops the client, because etcd makes logins expensive on purpose.
    pub(super) async fn forget_client(&self, number: u64) {
        let mut slot = self.slot.lock().await;
        if slot.number == number {
            slot.client = None;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.locked()
    }

    pub(super) fn good(&self, now: Time) {
        *self.state() = State { answered: Some(now), ..State::default() };
    }

    /// Marks the member as slow. Until it answers, other members go first.
    pub(super) fn slow(&self) {
        self.state().slow = true;
    }

    /// Whether its last call was answered.
    pub(super) fn is_well(&self) -> bool {
        self.state().error.is_none()
    }

    /// Sets its present alarm.
    pub(super) fn set_alarm(&self, alarm: Option<String>) {
        let mut at = self.alarm.locked();
        if *at != alarm {
            match &alarm {
                Some(alarm) => tracing::error!(endpoint = self.url, "{alarm}"),
                None => tracing::info!(endpoint = self.url, "the etcd alarm is cleared"),
            }
            *at = alarm;
        }
    }

    /// Suggests a cause when the connection to a member that never answered breaks: a server that wants TLS, or a
    /// client certificate (which TLS 1.3 requests after the handshake), just closes it.
    pub(super) fn hint(&self, access: &Access) -> &'static str {
        if self.state().answered.is_some() {
            ""
        } else if !self.url.starts_with("https://") {
            " (if this endpoint uses TLS, write https:// in `endpoints` and set `ca_file`)"
        } else if access.certified {
            " (etcd may have refused the client certificate: check `cert_file` and `key_file`)"
        } else {
            " (if etcd requires client certificates, set `cert_file` and `key_file`)"
        }
    }

    pub(super) fn bad(&self, why: &str, now: Time) {
        let mut s = self.state();
        *s = State { shunned_until: Some(now + SHUN), error: Some(why.to_owned()), ..*s };
    }

    /// Whether other members should go first.
    pub(super) fn shunned(&self, now: Time) -> bool {
        let s = self.state();
        s.slow || s.shunned_until.is_some_and(|t| now < t)
    }

    pub(super) fn alarm(&self) -> Option<String> {
        self.alarm.locked().clone()
    }

    pub(super) fn health(&self) -> EndpointHealth {
        let s = self.state();
        EndpointHealth {
            url: self.url.clone(),
            healthy: s.error.is_none(),
            error: s.error.clone(),
            alarm: self.alarm(),
        }
    }
}
