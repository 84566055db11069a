//! The agent's unix socket: one JSON line in, one JSON line out, then the connection ends.

use super::api::{ApiError, ErrorKind, Reply, Request};
use crate::config::Control;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

/// Most clients at once: people and a few scripts. Further clients are refused with a message.
const MAX_CLIENTS: usize = 32;
/// Requests queued for the agent; further clients wait.
const MAX_WAITING: usize = 32;
/// A request is a name or two.
const MAX_REQUEST: u64 = 16 * 1024;
/// A client has its request ready when it connects.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Longest time for a request in the agent (a switchover waits for two other hosts).
const ANSWER_TIME: Duration = Duration::from_secs(120);
/// A client that does not read its answer is dropped.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// Pause after a failed accept (no descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A request and the place for its answer; dropping that place answers "the agent is stopping".
pub type Asked = (Request, oneshot::Sender<Reply>);

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another agent answers there.
    #[error("another agent answers on {0}: stop that agent, or give this agent its own socket ([control] socket)")]
    InUse(PathBuf),
    /// The path exists and is no socket.
    #[error("{0} exists and is not a socket: remove it, or name another path ([control] socket)")]
    NotASocket(PathBuf),
    /// The group does not exist.
    #[error("the group {0:?} does not exist: run `groupadd --system {0}`, or remove [control] group")]
    NoGroup(String),
    /// The system refused.
    #[error("cannot create the control socket {path}: cannot {what}: {source}")]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// The failed step.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// The socket. It can be served more than once; dropping it removes the file.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    inode: u64,
    listener: StdListener,
}

/// Serves the socket until dropped, or until its runtime ends.
#[derive(Debug)]
pub struct Serving(tokio::task::JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.close();
    }
}

/// Opens the socket. Must be called in a tokio runtime.
///
/// The socket gets mode 0660 and the configured group; a directory created for it gets mode 0750. A dead agent's socket
/// is replaced.
///
/// # Errors [`ServeError`] says what is in the way.
pub async fn open(config: &Control) -> Result<Socket, ServeError> {
    let path = config.socket.clone();
    let listener = bind(&path, config.group.as_deref()).await?;
    let inode = fs::metadata(&path).map_err(|source| fault(&path, "check the new socket", source))?.ino();
    Ok(Socket { path, inode, listener })
}

impl Socket {
    /// Removes the file, so that no new client finds the socket.
    pub fn close(&self) {
        // A successor may already have put its own socket there.
        if fs::metadata(&self.path).is_ok_and(|m| m.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Passes on each request, in the caller's runtime. An earlier server that is still running accepts no more
    /// clients.
    ///
    /// # Errors The system's, such as no descriptors left.
    pub fn serve(&self) -> io::Result<(Serving, mpsc::Receiver<Asked>)> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        let (requests, receiver) = mpsc::channel(MAX_WAITING);
        Ok((Serving(tokio::spawn(accept(listener, requests))), receiver))
    }
}

fn fault(path: &Path, what: &'static str, source: io::Error) -> ServeError {
    ServeError::Io { path: path.to_owned(), what, source }
}

async fn bind(path: &Path, group: Option<&str>) -> Result<StdListener, ServeError> {
    let gid = match group {
        None => None,
        Some(name) => match nix::unistd::Group::from_name(name) {
            Ok(Some(group)) => Some(group.gid.as_raw()),
            _ => return Err(ServeError::NoGroup(name.to_owned())),
        },
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    if !directory.is_dir() {
        let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(directory);
        made.map_err(|e| fault(path, "create its directory", e))?;
        chown(directory, None, gid).map_err(|e| fault(path, "set the group of its directory", e))?;
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => return Err(ServeError::NotASocket(path.to_owned())),
        Ok(_) => {
            // A live agent accepts, or answers EAGAIN if its queue is full; a dead agent's socket refuses.
            match UnixStream::connect(path).await {
                Ok(_) => return Err(ServeError::InUse(path.to_owned())),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(ServeError::InUse(path.to_owned())),
                Err(_) => {}
            }
        }
        Err(_) => {}
    }
    // Created under another name and renamed, so that no client connects before mode and group are set.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let _ = fs::remove_file(&fresh);
    let listener = StdListener::bind(&fresh).map_err(|e| fault(path, "bind the socket", e))?;
    let ready = || {
        listener.set_nonblocking(true)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o660))?;
        chown(&fresh, None, gid)?;
        fs::rename(&fresh, path)
    };
    if let Err(e) = ready() {
        let _ = fs::remove_file(&fresh);
        return Err(fault(path, "set its file mode and group", e));
    }
    Ok(listener)
}

async fn accept(listener: UnixListener, requests: mpsc::Sender<Asked>) {
    let slots = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::warn!(error = %e, "cannot accept a connection on the control socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            let busy = refusal("too many clients at the control socket", "try again in a moment");
            // A new socket's buffer takes a line this short at once.
            let _ = stream.try_write(&line(&busy));
            continue;
        };
        let requests = requests.clone();
        tokio::spawn(async move {
            let _slot = slot;
            if let Err(e) = client(stream, requests).await {
                tracing::debug!(error = %e, "a connection to the control socket failed");
            }
        });
    }
}

async fn client(stream: UnixStream, requests: mpsc::Sender<Asked>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader.take(MAX_REQUEST));
    let mut text = Vec::new();
    let reply = match timeout(REQUEST_TIME, reader.read_until(b'\n', &mut text)).await {
        Err(_) => refusal("no request arrived in time", "send the request as one line of JSON"),
        Ok(read) => {
            read?;
            match serde_json::from_slice(&text) {
                Ok(request) => answer(request, &requests).await,
                Err(e) => {
                    refusal(&format!("not a valid request: {e}"), "use the keepcall command of the agent's release")
                }
            }
        }
    };
    timeout(WRITE_TIME, async {
        writer.write_all(&line(&reply)).await?;
        writer.shutdown().await
    })
    .await?
}

async fn answer(request: Request, requests: &mpsc::Sender<Asked>) -> Reply {
    let (place, answer) = oneshot::channel();
    let exchange = async {
        requests.send((request, place)).await.ok()?;
        answer.await.ok()
    };
    match timeout(ANSWER_TIME, exchange).await {
        Ok(Some(reply)) => reply,
        Ok(None) => refusal("the agent is stopping", "start the agent again: systemctl start keepcall"),
        Err(_) => refusal("the agent did not answer in time", "see the agent's log: journalctl -u keepcall"),
    }
}

fn refusal(message: &str, advice: &str) -> Reply {
    Reply::Error(ApiError { message: message.to_owned(), advice: advice.to_owned(), kind: ErrorKind::Failed })
}

fn line(reply: &Reply) -> Vec<u8> {
    // These types have only string keys and finite numbers, and always convert to JSON.
    let mut text = serde_json::to_vec(reply).unwrap_or_default();
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests;
