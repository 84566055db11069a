//! A thread of its own writes the log lines. A journal that waits for its disk, or a terminal that nobody reads, must
//! not hold up the election thread, which logs too.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;

/// Most lines in the queue.
const LINES: usize = 4096;
/// Most bytes in the queue, over all lines.
const BYTES: usize = 4 << 20;
/// How long the program waits at its end for lines not yet written.
const LAST: Duration = Duration::from_secs(1);
/// How often it then retries a full queue.
const LOOK: Duration = Duration::from_millis(5);

/// Takes the lines. A line without room is dropped, and the writer logs the number of dropped lines once there is room
/// again.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    queue: SyncSender<Vec<u8>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicUsize,
    lost: AtomicU64,
}

/// The writing thread. Dropping this value waits until every line is written, two seconds at most.
#[derive(Debug)]
pub struct Written {
    lines: Lines,
    done: Receiver<()>,
}

/// Writes lines to `out` from now on.
///
/// # Errors The thread cannot be started.
pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<(Lines, Written)> {
    let (queue, waiting) = sync_channel(LINES);
    let (tell, done) = sync_channel(1);
    let lines = Lines { queue, shared: Arc::default() };
    let shared = Arc::clone(&lines.shared);
    std::thread::Builder::new().name("log".into()).spawn(move || {
        write_all(out, &waiting, &shared);
        // The other side may have stopped waiting.
        let _ = tell.send(());
    })?;
    Ok((lines.clone(), Written { lines, done }))
}

/// An empty line ends the loop; no event produces one.
fn write_all(mut out: impl Write, waiting: &Receiver<Vec<u8>>, shared: &Shared) {
    while let Ok(line) = waiting.recv() {
        if line.is_empty() {
            return;
        }
        shared.bytes.fetch_sub(line.len(), Ordering::Relaxed);
        // A failure to write the log has nowhere to be reported.
        let _ = out.write_all(&line);
        let lost = shared.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(out, "{lost} log lines were dropped here: standard error did not accept them in time");
        }
    }
}

impl Write for &Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let room = self.shared.bytes.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len() <= BYTES;
        if !room
            || matches!(self.queue.try_send(bytes.to_vec()), Err(TrySendError::Full(_) | TrySendError::Disconnected(_)))
        {
            self.shared.bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;
    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let since = Instant::now();
        // A full queue has no room for the closing line either.
        while self.lines.queue.try_send(Vec::new()).is_err() {
            if since.elapsed() > LAST {
                return;
            }
            std::thread::sleep(LOOK);
        }
        let _ = self.done.recv_timeout(LAST);
    }
}

#[cfg(test)]
mod tests;
