//! Idle timeout of a connection; only whole packets extend it (slowloris).

use crate::time::Time;
use std::time::Duration;

/// Time-out from the connection's start, or from the first byte of a packet, until the packet is complete.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time-out between packets. Servers without calls are silent, and TCP keep-alives detect the dead ones.
const IDLE: Duration = Duration::from_secs(3600);

/// Remaining time of one connection.
#[derive(Debug)]
pub(super) struct IdleTimeout {
    since: Time,
    /// Whether it has sent an accepted packet, and no new one has begun since.
    idle: bool,
}

impl IdleTimeout {
    pub(super) const fn new(now: Time) -> Self {
        Self { since: now, idle: false }
    }

    /// When to close the connection if nothing comes.
    pub(super) fn end(&self) -> Time {
        self.since + if self.idle { IDLE } else { PATIENCE }
    }

    /// Records a read: complete accepted packets, and perhaps the start of one (`amid`).
    pub(super) fn read(&mut self, packets: bool, amid: bool, now: Time) {
        if packets || self.idle {
            self.since = now;
        }
        self.idle = (packets || self.idle) && !amid;
    }
}

#[cfg(test)]
mod tests {
    use super::{IDLE, IdleTimeout, PATIENCE};
    use crate::time::Time;

    #[test]
    fn bytes_that_make_no_packet_win_no_time() {
        let at = |s: u64| Time::from_millis(s * 1000);
        let mut leash = IdleTimeout::new(at(1));
        assert_eq!(leash.end(), at(1) + PATIENCE);
        leash.read(false, true, at(5));
        leash.read(false, true, at(9));
        assert_eq!(leash.end(), at(1) + PATIENCE);
        leash.read(true, false, at(10));
        assert_eq!(leash.end(), at(10) + IDLE);
        // A packet begins and is never completed.
        leash.read(false, true, at(100));
        leash.read(false, true, at(105));
        assert_eq!(leash.end(), at(100) + PATIENCE);
        // It is completed, and the next one begins in the same read.
        leash.read(true, true, at(109));
        assert_eq!(leash.end(), at(109) + PATIENCE);
        leash.read(true, false, at(110));
        assert_eq!(leash.end(), at(110) + IDLE);
    }
}
