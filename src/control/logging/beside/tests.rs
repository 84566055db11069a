use super::{BYTES, LINES, start};
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Takes one line per permission.
struct Slow {
    taken: Arc<Mutex<Vec<u8>>>,
    allowed: Receiver<()>,
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Once the other end is dropped, every line passes.
        let _ = self.allowed.recv();
        self.taken.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn slow() -> (Slow, Sender<()>, Arc<Mutex<Vec<u8>>>) {
    let (allow, allowed) = channel();
    let taken = Arc::default();
    (Slow { taken: Arc::clone(&taken), allowed }, allow, taken)
}

#[test]
fn whoever_speaks_never_waits_and_what_is_lost_is_counted() {
    let (out, allow, taken) = slow();
    let (lines, written) = start(out).unwrap();
    let since = Instant::now();
    for i in 0..LINES + 100 {
        (&lines).write_all(format!("line {i}\n").as_bytes()).unwrap();
    }
    // A write that blocked would never return; this bound is far below that.
    assert!(since.elapsed() < Duration::from_secs(20));
    drop(allow);
    drop(written);
    let text = String::from_utf8(taken.lock().unwrap().clone()).unwrap();
    assert!(text.starts_with("line 0\n"));
    let lost: usize = text
        .lines()
        .find_map(|l| {
            l.strip_suffix(" log lines were dropped here: standard error did not accept them in time")?.parse().ok()
        })
        .unwrap();
    assert_eq!(text.lines().filter(|l| l.starts_with("line ")).count() + lost, LINES + 100);
}

#[test]
fn what_waits_is_bounded_in_bytes() {
    let (out, allow, taken) = slow();
    let (lines, written) = start(out).unwrap();
    let large = vec![b'x'; BYTES / 4];
    for _ in 0..100 {
        (&lines).write_all(&large).unwrap();
    }
    drop(allow);
    drop(written);
    assert!(taken.lock().unwrap().len() <= BYTES + BYTES / 4 + 100);
}

#[test]
fn the_end_waits_for_the_rest_but_not_for_ever() {
    let (out, allow, taken) = slow();
    let (lines, written) = start(out).unwrap();
    (&lines).write_all(b"last words\n").unwrap();
    allow.send(()).unwrap();
    drop(written);
    assert_eq!(*taken.lock().unwrap(), b"last words\n");

    let (out, _allow, _) = slow();
    let (lines, written) = start(out).unwrap();
    (&lines).write_all(b"nobody reads this\n").unwrap();
    let since = Instant::now();
    drop(written);
    assert!(since.elapsed() < Duration::from_secs(30));
}
