//! etcd's errors, in words that name the remedy.

use std::fmt::Write as _;
use std::time::Duration;

/// Why a call to etcd failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EtcdError {
    /// The `[etcd]` section is unusable.
    #[error("cannot use the settings in [etcd]: {0}")]
    Config(String),
    /// No endpoint was reachable. A write was sent to none of them.
    #[error("cannot reach any etcd endpoint ({}); check that etcd runs and that no firewall blocks it", list(.tried))]
    Unreachable {
        /// Each endpoint with its error, in order of the attempts.
        tried: Vec<(String, String)>,
    },
    /// etcd rejected the user or the password.
    #[error("etcd refused user '{user}': {message}; check `user` and `password_file` in [etcd]")]
    WrongPassword {
        /// The configured user.
        user: String,
        /// etcd's own words.
        message: String,
    },
    /// The user lacks permission, or etcd requires a user and none is configured.
    #[error(
        "etcd denied the request: {message}; grant the user read and write on the prefix /keepcall/, or set `user` \
         and `password_file` in [etcd]"
    )]
    Denied {
        /// etcd's own words.
        message: String,
    },
    /// The TLS connection failed.
    #[error(
        "TLS to etcd failed at {endpoint}: {why}; check `ca_file`, `cert_file`, `key_file` and the host name in the \
         endpoint"
    )]
    Tls {
        /// The endpoint.
        endpoint: String,
        /// The library's words.
        why: String,
    },
    /// No answer in time. A write may have been executed, or still may be.
    #[error("etcd endpoint {endpoint} did not answer within {after:?}")]
    Timeout {
        /// The endpoint.
        endpoint: String,
        /// The deadline.
        after: Duration,
    },
    /// Copies of a write went to several members, and none answered. The write may have been executed.
    #[error("no etcd endpoint answered ({}); etcd may or may not have made the change", list(.tried))]
    Unanswered {
        /// Each endpoint with its error, in order of the attempts.
        tried: Vec<(String, String)>,
    },
    /// The connection broke during the call. A write may have been executed.
    #[error("the connection to etcd endpoint {endpoint} broke during a call: {why}")]
    Broken {
        /// The endpoint.
        endpoint: String,
        /// The library's words.
        why: String,
    },
    /// etcd answered that it did not execute the request.
    #[error("etcd refused the request: {message}")]
    Refused {
        /// etcd's own words.
        message: String,
    },
    /// etcd has reached its quota and rejects writes, until an operator has made room and disarmed the alarm.
    #[error(
        "etcd refuses all writes: {message}; remove old revisions (`etcdctl compact`, `etcdctl defrag`) or raise \
         --quota-backend-bytes, then run `etcdctl alarm disarm`"
    )]
    Full {
        /// etcd's own words.
        message: String,
    },
    /// etcd was restored or exchanged since the request. Either the former or the present etcd may have executed a
    /// write.
    #[error("etcd was replaced or restored (see `keepcall status`); retrying the request")]
    Changed,
    /// The lease has run out or was revoked.
    #[error("etcd no longer knows lease {id:x}")]
    LeaseGone {
        /// The lease.
        id: i64,
    },
}

fn list(tried: &[(String, String)]) -> String {
    let mut out = String::new();
    for (i, (url, why)) in tried.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(out, "{}{url}: {why}", if i == 0 { "" } else { "; " });
    }
    out
}

impl EtcdError {
    /// Whether a write was certainly not executed and never will be. A write with any other error is in doubt.
    #[must_use]
    pub const fn is_definite(&self) -> bool {
        !matches!(self, Self::Timeout { .. } | Self::Broken { .. } | Self::Unanswered { .. } | Self::Changed)
    }
}

/// Consequence of one attempt at one endpoint for the next step.
#[derive(Debug)]
pub(super) enum Failure {
    /// The request never left this host: another endpoint may be tried, even for a write.
    NotSent(String),
    /// As [`Failure::NotSent`], and the reason is TLS.
    Tls(String),
    /// The request may have been executed.
    InDoubt(String),
    /// This member cannot serve and did nothing: another endpoint may be tried.
    Unserved(String),
    /// The token is no longer valid: build a new client.
    StaleToken(String),
    /// The answering member's cluster is not confirmed yet.
    Unsettled,
    /// Every member would answer the same.
    Final(EtcdError),
}

/// The library's error with all its causes: tonic's own text is only "transport error".
pub(super) fn chain(e: &(dyn std::error::Error + 'static)) -> String {
    let mut out = String::new();
    let mut next = Some(e);
    while let Some(e) = next {
        let text = e.to_string();
        if !out.contains(&text) {
            if !out.is_empty() {
                out.push_str(": ");
            }
            out.push_str(&text);
        }
        next = e.source();
    }
    out
}

pub(super) fn classify(e: &etcd_client::Error, user: Option<&str>) -> Failure {
    use etcd_client::Error as E;
    match e {
        E::GRpcStatus(s) => {
            // A status prints its causes in debug form; the causes themselves read better.
            let causes = std::error::Error::source(s).map_or_else(|| s.message().to_owned(), chain);
            status(s.code() as i32, s.message(), &causes, user)
        }
        E::TransportError(t) => transport(&chain(t)),
        E::IoError(io) => Failure::InDoubt(io.to_string()),
        E::InvalidArgs(m) => Failure::Final(EtcdError::Config(m.clone())),
        E::InvalidUri(u) => Failure::Final(EtcdError::Config(format!("an endpoint is not a URL: {u}"))),
        other => Failure::InDoubt(other.to_string()),
    }
}

fn transport(text: &str) -> Failure {
    let lower = text.to_lowercase();
    if ["certificate", "tls", "handshake", "corruptmessage", "invalidcontenttype"].iter().any(|w| lower.contains(w)) {
        // The handshake precedes the request, so nothing was sent.
        return Failure::Tls(text.to_owned());
    }
    let unsent = [
        "tcp connect error",
        "connection refused",
        "dns error",
        "no route to host",
        "network is unreachable",
        "deadline has elapsed",
    ];
    if unsent.iter().any(|w| lower.contains(w)) {
        Failure::NotSent(text.to_owned())
    } else {
        Failure::InDoubt(text.to_owned())
    }
}

/// gRPC codes by number (`google.rpc.Code`); the library does not re-export tonic's enum.
mod code {
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const UNAVAILABLE: i32 = 14;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

fn status(code: i32, message: &str, chain: &str, user: Option<&str>) -> Failure {
    let m = message.to_lowercase();
    if m.contains("invalid auth token") || m.contains("revision of auth store is old") {
        return Failure::StaleToken(message.to_owned());
    }
    if m.contains("authentication failed") {
        let user = user.unwrap_or_default().to_owned();
        return Failure::Final(EtcdError::WrongPassword { user, message: message.to_owned() });
    }
    if code == code::FAILED_PRECONDITION && m.contains("authentication is not enabled") {
        let why =
            "a user is configured, but etcd has authentication off; remove `user` or enable authentication".to_owned();
        return Failure::Final(EtcdError::Config(why));
    }
    if matches!(code, code::PERMISSION_DENIED | code::UNAUTHENTICATED) || m.contains("user name is empty") {
        return Failure::Final(EtcdError::Denied { message: message.to_owned() });
    }
    if m.contains("requested lease not found") {
        return Failure::Final(EtcdError::Refused { message: message.to_owned() });
    }
    // With "request timed out" and "leader changed", etcd says that it proposed the request and does not know the
    // outcome.
    if m.contains("request timed out") || m.contains("leader changed") {
        return Failure::InDoubt(message.to_owned());
    }
    // Without a leader, etcd rejects requests and proposes nothing.
    if m.contains("no leader")
        || m.contains("too many requests")
        || m.contains("not capable")
        || m.contains("server stopped")
    {
        return Failure::Unserved(message.to_owned());
    }
    if m.contains("database space exceeded") {
        return Failure::Final(EtcdError::Full { message: message.to_owned() });
    }
    if message.starts_with("etcdserver:") && code != code::UNAVAILABLE {
        return Failure::Final(EtcdError::Refused { message: message.to_owned() });
    }
    match code {
        code::INVALID_ARGUMENT => Failure::Final(EtcdError::Refused { message: message.to_owned() }),
        code::UNAVAILABLE | code::UNKNOWN => transport(chain),
        _ => Failure::InDoubt(chain.to_owned()),
    }
}
