//! Reads the stream of a sampled datagram (RFC 3550 section 5.1).

use std::net::SocketAddr;

/// The fields of an RTP packet that tell streams apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Source address of the packet.
    pub from: SocketAddr,
    /// The synchronization source: random, and constant for the life of a stream.
    pub ssrc: u32,
    /// The sequence number.
    pub seq: u16,
}

impl Sample {
    /// The RTP packet in a datagram. `None` for RTCP (RFC 5761 section 4), STUN, DTLS, UDPTL and the like.
    #[must_use]
    pub fn of(from: SocketAddr, datagram: &[u8]) -> Option<Self> {
        let [first, second, high, low, _, _, _, _, ssrc @ ..] = datagram.first_chunk::<12>()?;
        (first >> 6 == 2 && !(192..=223).contains(second)).then(|| Self {
            from,
            ssrc: u32::from_be_bytes(*ssrc),
            seq: u16::from_be_bytes([*high, *low]),
        })
    }
}
