//! Limits of the keys that say when a carried call ends.

use std::time::Duration;

/// Least and most `rtp_timeout`, in seconds. RTCP alone passes every 5 s or so (RFC 3550 section 6.2), and some of its
/// packets are lost. Above ten minutes, a silence would outlast the time between two looks at a carried call.
pub const RTP_TIMEOUT_S: (u64, u64) = (30, 600);
/// `rtp_timeout` unless the file sets it: between servers' own limits, which are 30 to 300 s.
pub const DEFAULT_RTP_TIMEOUT: Duration = Duration::from_secs(60);
/// Least `max_carried`. A shorter one would end calls whose recovery is hardly over.
pub const MIN_CARRIED: Duration = Duration::from_secs(300);

pub(super) const fn default_rtp_timeout() -> Duration {
    DEFAULT_RTP_TIMEOUT
}
