//! Sends requests to the agent over its unix socket.

use super::MAX_REPLY;
use super::api::{Reply, Request};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the agent gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket does not exist.
    #[error(
        "no agent at {0}: the socket does not exist\n  = start the agent (systemctl start keepcall), or name its \
         socket with --socket or its configuration with --config"
    )]
    Missing(PathBuf),
    /// The socket exists, but no agent listens.
    #[error(
        "no agent at {0}: the agent has stopped without removing its socket\n  = start the agent: systemctl start \
         keepcall"
    )]
    Dead(PathBuf),
    /// This user lacks permission.
    #[error(
        "permission denied on {0}\n  = run the command as root, or as a member of the group of the socket ([control] \
         group)"
    )]
    Denied(PathBuf),
    /// The agent took too long.
    #[error(
        "the agent at {0} did not answer within {t}\n  = see the agent's log (journalctl -u keepcall), or wait \
         longer with --timeout (switchover only)",
        t = humantime::format_duration(*.1)
    )]
    Timeout(PathBuf, Duration),
    /// The answer cannot be parsed.
    #[error(
        "cannot read the answer of the agent at {path}: {why}\n  = use the keepcall command of the agent's release"
    )]
    Garbled {
        /// The socket.
        path: PathBuf,
        /// The parse error.
        why: String,
    },
    /// Something else went wrong.
    #[error("cannot talk to the agent at {0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

/// Sends `request` to the agent at `socket` and waits for its answer, at most `wait`.
///
/// # Errors [`ClientError`] says why there is no answer, and what to do. A refusal by the agent is an answer:
/// [`Reply::Error`].
pub fn ask(socket: &Path, request: &Request, wait: Duration) -> Result<Reply, ClientError> {
    let path = || socket.to_owned();
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => ClientError::Missing(path()),
        io::ErrorKind::ConnectionRefused => ClientError::Dead(path()),
        io::ErrorKind::PermissionDenied => ClientError::Denied(path()),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Timeout(path(), wait),
        _ => ClientError::Io(path(), e),
    };
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).map_err(failed)?;
    stream.set_write_timeout(Some(Duration::from_secs(5))).map_err(failed)?;
    let garbled = |why: String| ClientError::Garbled { path: path(), why };
    let mut line = serde_json::to_vec(request).map_err(|e| garbled(e.to_string()))?;
    line.push(b'\n');
    // A full server answers and closes without reading. The write then fails, but the answer can still be read.
    let written = stream.write_all(&line);
    let mut answer = Vec::new();
    BufReader::new(stream.take(MAX_REPLY)).read_until(b'\n', &mut answer).map_err(failed)?;
    if answer.is_empty() {
        written.map_err(failed)?;
        return Err(garbled("the agent closed the connection without an answer".to_owned()));
    }
    serde_json::from_slice(&answer).map_err(|e| garbled(e.to_string()))
}
