//! How long a connection may go on without a packet, so that nobody holds a place by sending a byte now and then.

use crate::time::Time;
use std::time::Duration;

/// From its start, or from the first byte of a packet, until a whole packet is there.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between packets. Servers without calls are silent; those that are gone are found out by keep-alives of TCP.
const IDLE: Duration = Duration::from_secs(3600);

/// The time that one connection has left.
#[derive(Debug)]
pub(super) struct IdleTimeout {
    since: Time,
    /// Whether it has sent a packet that was taken in, and none has begun after it.
    idle: bool,
}

impl IdleTimeout {
    pub(super) const fn new(now: Time) -> Self {
        Self { since: now, idle: false }
    }

    /// When it is to be closed, if nothing comes.
    pub(super) fn end(&self) -> Time {
        self.since + if self.idle { IDLE } else { PATIENCE }
    }

    /// Something was read: whole packets that were taken in, and perhaps the beginning of one (`amid`).
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
        // A packet begins, and does not come to an end.
        leash.read(false, true, at(100));
        leash.read(false, true, at(105));
        assert_eq!(leash.end(), at(100) + PATIENCE);
        // It does, and with its end the next begins.
        leash.read(true, true, at(109));
        assert_eq!(leash.end(), at(109) + PATIENCE);
        leash.read(true, false, at(110));
        assert_eq!(leash.end(), at(110) + IDLE);
    }
}
