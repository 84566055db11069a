//! Keeps a connection to a server that reports its bridges, and reconnects.

use super::ami::Ami;
use super::esl::Esl;
use super::{Dialect, Refusal};
use crate::os::clock;
use crate::pbx::bridges::Fact;
use crate::pbx::request::Request;
use crate::sync::Locked as _;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until, timeout};
use tracing::{info, warn};

/// Time-out of a connection attempt, and of a write.
const CONNECT: Duration = Duration::from_secs(3);
/// Pause after a failure, doubled each time up to the longest. A server that restarts is back within seconds, and a
/// server that refuses the login must not fill its log.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Facts that may wait. Beyond it the client stops reading, and the server's buffers hold the rest.
const QUEUE: usize = 4096;
/// Requests that may wait. Only one is unanswered at a time; one more may be late.
const REQUESTS: usize = 4;
/// Bytes per read.
const CHUNK: usize = 64 * 1024;

/// A server and its login. The secret is read from its file for each connection.
#[derive(Clone, Debug)]
pub enum Login {
    /// The manager interface of Asterisk.
    Ami {
        /// Its address.
        address: SocketAddr,
        /// Name of the user in manager.conf.
        user: String,
        /// File whose first line is the user's secret.
        secret_file: PathBuf,
    },
    /// The event socket of FreeSWITCH.
    Esl {
        /// Its address.
        address: SocketAddr,
        /// File whose first line is the password.
        password_file: PathBuf,
    },
}

impl Login {
    const fn address(&self) -> SocketAddr {
        match self {
            Self::Ami { address, .. } | Self::Esl { address, .. } => *address,
        }
    }

    const fn protocol(&self) -> &'static str {
        match self {
            Self::Ami { .. } => "ami",
            Self::Esl { .. } => "esl",
        }
    }
}

/// State of the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// `ami` or `esl`.
    pub protocol: String,
    /// Address of the server.
    pub address: String,
    /// Whether the state of the server is complete and up to date.
    pub connected: bool,
    /// Wall-clock milliseconds since 1970 of the last change of `connected`.
    pub since_ms: u64,
    /// Why there is no connection, if the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A maintained connection. It ends when this is dropped.
pub struct Server {
    facts: mpsc::Receiver<Fact>,
    requests: mpsc::Sender<Request>,
    status: Arc<Mutex<ServerStatus>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Starts to connect. Must be called in a tokio runtime.
    #[must_use]
    pub fn start(login: Login) -> Self {
        Self::connect(
            login,
            ["the server reports bridges", "no bridge reports from the server; pairing calls by evidence"],
        )
    }

    /// As [`Self::start`], for the server of a backup: to see which former calls it still has.
    #[must_use]
    pub fn look(login: Login) -> Self {
        Self::connect(login, ["the server lists its calls", "the former calls of this backup's server are not known"])
    }

    fn connect(login: Login, words: [&'static str; 2]) -> Self {
        let (sender, facts) = mpsc::channel(QUEUE);
        let (requests, asked) = mpsc::channel(REQUESTS);
        let status = Arc::new(Mutex::new(ServerStatus {
            protocol: login.protocol().to_owned(),
            address: login.address().to_string(),
            connected: false,
            since_ms: clock::unix_ms(),
            error: None,
        }));
        let keeper = Keeper { login, facts: sender, asked, words, status: Arc::clone(&status), reported: None };
        Self { facts, requests, status, task: tokio::spawn(keeper.run()) }
    }

    /// The next report of the server. Cancel safe.
    pub async fn next(&mut self) -> Fact {
        match self.facts.recv().await {
            Some(fact) => fact,
            // The task ends only together with this handle.
            None => std::future::pending().await,
        }
    }

    /// Asks about one channel, or hangs it up. Without a connection the request is dropped; who asks has a time-out.
    pub fn request(&self, request: Request) {
        let _ = self.requests.try_send(request);
    }

    /// Current state of the connection.
    #[must_use]
    pub fn status(&self) -> ServerStatus {
        self.status.locked().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("cannot read {0}: {1}")]
    Secret(PathBuf, std::io::Error),
    #[error("the connection broke: {0}")]
    Broken(std::io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the reports are no longer needed")]
    Unwanted,
}

struct Keeper {
    login: Login,
    facts: mpsc::Sender<Fact>,
    asked: mpsc::Receiver<Request>,
    /// For the log: what a connection brings, and what is missing without one.
    words: [&'static str; 2],
    status: Arc<Mutex<ServerStatus>>,
    /// Last logged failure, so that the same one is not logged repeatedly.
    reported: Option<String>,
}

impl Keeper {
    async fn run(mut self) {
        let mut pause = PAUSE;
        loop {
            let failure = match self.session().await {
                Err(Failure::Unwanted) => return,
                Err(failure) => failure.to_string(),
                Ok(never) => match never {},
            };
            let was = self.set(false, Some(failure.clone()));
            if was {
                pause = PAUSE;
                if self.facts.send(Fact::Lost).await.is_err() {
                    return;
                }
            }
            if self.reported.as_ref() != Some(&failure) {
                let (protocol, address) = (self.login.protocol(), self.login.address());
                warn!(protocol, %address, "{}: {failure}", self.words[1]);
                self.reported = Some(failure);
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One connection, until it fails.
    async fn session(&mut self) -> Result<std::convert::Infallible, Failure> {
        let mut dialect = self.dialect().await?;
        let connecting = timeout(CONNECT, TcpStream::connect(self.login.address())).await;
        let mut stream =
            connecting.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(Failure::Connect)?;
        // Queries are small, and each waits for its answer.
        stream.set_nodelay(true).map_err(Failure::Connect)?;
        let mut buffer = vec![0; CHUNK];
        // These were meant for channels of the former connection.
        while self.asked.try_recv().is_ok() {}
        loop {
            #[cfg(feature = "faults")]
            crate::faults::point(self.login.protocol());
            while let Some(bytes) = dialect.poll_send() {
                let written = timeout(CONNECT, stream.write_all(&bytes)).await;
                written.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(Failure::Broken)?;
            }
            while let Some(fact) = dialect.poll_fact() {
                self.facts.send(fact).await.map_err(|_| Failure::Unwanted)?;
            }
            if dialect.is_ready() && !self.set(true, None) {
                let (protocol, address) = (self.login.protocol(), self.login.address());
                info!(protocol, %address, "{}", self.words[0]);
                self.reported = None;
            }
            tokio::select! {
                read = stream.read(&mut buffer) => match read {
                    Ok(0) => return Err(Failure::Closed),
                    Ok(n) => dialect.handle_bytes(&buffer[..n], clock::now())?,
                    Err(e) => return Err(Failure::Broken(e)),
                },
                () = sleep_until(clock::tokio_at(dialect.next_deadline())) => dialect.handle_timeout(clock::now())?,
                Some(request) = self.asked.recv() => dialect.request(request, clock::now()),
                () = self.facts.closed() => return Err(Failure::Unwanted),
            }
        }
    }

    async fn dialect(&self) -> Result<Box<dyn Dialect>, Failure> {
        let path = match &self.login {
            Login::Ami { secret_file, .. } => secret_file,
            Login::Esl { password_file, .. } => password_file,
        };
        let text = tokio::fs::read_to_string(path).await.map_err(|e| Failure::Secret(path.clone(), e))?;
        let secret = text.lines().next().unwrap_or_default();
        Ok(match &self.login {
            Login::Ami { user, .. } => Box::new(Ami::new(user, secret, clock::now())),
            Login::Esl { .. } => Box::new(Esl::new(secret, clock::now())),
        })
    }

    /// Records the state of the connection. Returns the previous one.
    fn set(&self, connected: bool, error: Option<String>) -> bool {
        let mut status = self.status.locked();
        let was = std::mem::replace(&mut status.connected, connected);
        if was != connected {
            status.since_ms = clock::unix_ms();
        }
        status.error = error;
        was
    }
}

#[cfg(test)]
mod tests;
