//! Requests seen in one direction of a dialog. CSeq orders them (RFC 3261 section 12.2.1.1), but the network or a
//! capture may not.

/// How far behind the highest number a late request still differs from a retransmission. Requests of one side are
/// rarely even two apart on the wire.
pub(super) const REACH: u32 = 64;

/// Highest valid CSeq (RFC 3261 section 8.1.1.5).
pub(super) const MAX_CSEQ: u32 = i32::MAX as u32;

/// Position of a request relative to earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Higher than all so far.
    New,
    /// Overtaken by a later request or by its own answer, and not seen before.
    Late,
    /// Seen before, or too old to be sure.
    Known,
}

/// The requests up to the highest number, which the leg keeps. Bit `n` is the number `n` below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeenNumbers(u64);

impl SeenNumbers {
    /// No request was seen.
    pub(super) const NONE: Self = Self(0);
    /// The highest, and none below.
    pub(super) const HIGHEST: Self = Self(1);
    /// All of them, for a leg whose past somebody else has followed.
    pub(super) const ALL: Self = Self(u64::MAX);

    pub(super) fn order(self, highest: Option<u32>, cseq: u32) -> Order {
        match highest {
            None => Order::New,
            Some(h) if cseq > h => Order::New,
            Some(h) if h - cseq < REACH && self.0 >> (h - cseq) & 1 == 0 => Order::Late,
            Some(_) => Order::Known,
        }
    }

    /// Records the request. Returns the new highest number.
    pub(super) fn note(&mut self, highest: Option<u32>, cseq: u32) -> u32 {
        let top = self.raise(highest, cseq);
        if top - cseq < REACH {
            self.0 |= 1 << (top - cseq);
        }
        top
    }

    /// Records that such a request existed, although it was not seen.
    pub(super) fn raise(&mut self, highest: Option<u32>, cseq: u32) -> u32 {
        match highest {
            Some(h) if cseq <= h => h,
            Some(h) => {
                self.0 = self.0.checked_shl(cseq - h).unwrap_or(0);
                cseq
            }
            None => {
                self.0 = 0;
                cseq
            }
        }
    }
}

/// The requests of both sides, by number. `dialog.rs` changes it, and `offer_answer.rs` when descriptions come into
/// force. A fork (`branch.rs`) starts anew.
#[derive(Clone, Debug)]
pub(super) struct Numbers {
    /// Only a phone's response, which may be forged, shows the server's CSeq.
    pub(super) guessed: bool,
    /// The requests of the phone, and of the server.
    pub(super) seen: [SeenNumbers; 2],
    /// CSeq of the newest request of the phone, and of the server, whose descriptions came into force.
    pub(super) newest: [Option<u32>; 2],
    /// CSeq of the server's BYE, and the hash of its branch.
    pub(super) bye: Option<Box<(u32, u64)>>,
    /// The same for its last request that needs no transaction here.
    pub(super) probe: Option<Box<(u32, u64)>>,
}

impl Numbers {
    pub(super) const fn new(seen: SeenNumbers) -> Self {
        Self { guessed: false, seen: [seen; 2], newest: [None; 2], bye: None, probe: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_requests_are_told_from_repeated_ones() {
        let mut seen = SeenNumbers::NONE;
        let mut high = None;
        for (cseq, order) in [
            (5, Order::New),
            (5, Order::Known),
            (8, Order::New),
            (6, Order::Late),
            (6, Order::Known),
            (7, Order::Late),
            (3, Order::Late),
        ] {
            assert_eq!(seen.order(high, cseq), order, "{cseq}");
            high = Some(seen.note(high, cseq));
        }
        assert_eq!(high, Some(8));
        high = Some(seen.raise(high, 9));
        assert_eq!((seen.order(high, 9), seen.order(high, 8)), (Order::Late, Order::Known));
        high = Some(seen.note(high, u32::MAX));
        assert_eq!((seen.order(high, 9), seen.order(high, u32::MAX - 1)), (Order::Known, Order::Late));
    }
}
