//! Changes and reads elements of nftables sets over a netlink socket. No program runs, so a change takes well under a
//! millisecond even on a busy host. ([`super::nft`] builds tables, chains and rules. This module only reads those.)

mod batch;
mod link;
mod reply;

pub use batch::{Batch, Data, Family, MAX_DATA};
pub use link::Link;
pub use reply::{Chain, Found, Rule};
pub(in crate::vip) use reply::{Malformed, each, first, text};

use crate::os::netlink::{Netlink, SEND_OVERHEAD};
use nix::errno::Errno;
use reply::Reply;
use std::io;

/// Timeout for an answer. The kernel writes it before the request's system call returns, so the timeout only ends a
/// wait for an answer that never comes.
const ANSWER_MS: i64 = 2_000;
/// The kernel's largest datagram is 32 KiB (`netlink_dump`).
const DATAGRAM: usize = 64 * 1024;
/// The largest batch: far more than a replacement of all 65,536 flows of an instance needs (some 60 MB).
const LARGEST: usize = 256 * 1024 * 1024;
/// Receive buffer: the kernel charges each answer about one element with the 8 KiB that it reserves at first.
const RECEIVE_BUFFER: usize = 2 * 1024 * 1024;
/// Elements per query: their answers fit into the receive buffer even if it cannot grow.
const QUESTIONS: usize = 32;
/// Most chains in a list: a host of containers has some thousands. Others are left out.
const MOST_CHAINS: usize = 50_000;
/// Most bytes of rules in a list (some 100,000 rules). Others are left out.
const MOST_OF_RULES: usize = 32 * 1024 * 1024;
/// How often a listing restarts because the set changed during it. The last listing is good enough: it has every
/// element that was there throughout.
const LISTINGS: u32 = 3;

const LOST: &str = "was lost because the receive buffer was full";
const SILENT: &str = "did not arrive";

/// Why a change or read of elements failed.
#[derive(Debug, thiserror::Error)]
pub enum NfnlError {
    /// The table or set is missing, or an element to delete is missing.
    #[error("the nftables table, a set or an element is not there")]
    Gone,
    /// The kernel refused because a capability is missing.
    #[error("cannot change nftables: permission denied; give the agent CAP_NET_ADMIN")]
    Privilege,
    /// The kernel refused.
    #[error("the kernel refused: {0}")]
    Refused(#[source] io::Error),
    /// The socket cannot be opened or used.
    #[error("cannot open a netlink connection to nftables: {0}; load the kernel module nf_tables")]
    Socket(#[source] io::Error),
    /// The kernel's answer was lost, or unreadable.
    #[error("the kernel's answer about nftables {0}")]
    Answer(&'static str),
    /// The batch is larger than any legitimate one.
    #[error("a change of {0} bytes is too large for nftables; the limit is {LARGEST} bytes")]
    TooLarge(usize),
    /// The process is stopping.
    #[error("nftables was not changed: the agent is stopping")]
    Stopping,
}

impl NfnlError {
    fn of(code: i32) -> Self {
        match Errno::from_raw(code) {
            Errno::ENOENT => Self::Gone,
            Errno::EPERM | Errno::EACCES => Self::Privilege,
            _ => Self::Refused(io::Error::from_raw_os_error(code)),
        }
    }
}

fn socket_error(error: Errno) -> NfnlError {
    match error {
        Errno::EPERM | Errno::EACCES => NfnlError::Privilege,
        // The answers exceeded the receive buffer.
        Errno::ENOBUFS => NfnlError::Answer(LOST),
        Errno::EAGAIN => NfnlError::Answer(SILENT),
        other => NfnlError::Socket(other.into()),
    }
}

/// A netlink socket to nf_tables, in the network namespace of the thread that opened it.
///
/// Keep it open: on close the kernel waits until all deleted objects are freed.
#[derive(Debug)]
pub struct Nfnl {
    socket: Netlink,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Nfnl {
    /// Opens the socket.
    ///
    /// # Errors
    /// The kernel cannot provide such a socket.
    pub fn open() -> Result<Self, NfnlError> {
        let socket = Netlink::to_netfilter(ANSWER_MS, RECEIVE_BUFFER).map_err(NfnlError::Socket)?;
        Ok(Self { socket, sequence: 1, buffer: vec![0; DATAGRAM] })
    }

    /// Commits `batch` in one transaction. If the send buffer cannot grow to the size of the batch (in a container), a
    /// batch beyond some 400 KB becomes several transactions, in order.
    ///
    /// # Errors
    /// As in [`NfnlError`]. If the kernel refused, nothing of the transaction is in force. After [`NfnlError::Answer`]
    /// the outcome is unknown.
    pub fn commit(&mut self, batch: Batch) -> Result<(), NfnlError> {
        let size = batch.size();
        if size > LARGEST {
            return Err(NfnlError::TooLarge(size));
        }
        // The begin and end messages come on top, and the buffer's size is rounded.
        let wanted = size + 2 * SEND_OVERHEAD;
        let mut limit = self.socket.room();
        if limit < wanted {
            self.socket.grow(wanted);
            limit = self.socket.room();
        }
        for transaction in batch.transactions(limit, &mut self.sequence) {
            self.send(&transaction.bytes)?;
            self.result(transaction.first, transaction.last)?;
        }
        Ok(())
    }

    /// The elements of `set` with these keys. Missing elements are left out.
    ///
    /// # Errors
    /// As in [`NfnlError`]. A missing set counts as empty.
    pub fn get(&mut self, family: Family, table: &str, set: &str, keys: &[Data]) -> Result<Vec<Found>, NfnlError> {
        let mut all = Vec::new();
        for keys in keys.chunks(QUESTIONS) {
            let (bytes, last) = batch::questions(family, table, set, keys, &mut self.sequence);
            let first = last.wrapping_sub(u32::try_from(keys.len()).unwrap_or(0)).wrapping_add(1);
            self.send(&bytes)?;
            let mut over = false;
            while !over {
                for reply in self.receive(true)? {
                    match reply {
                        Reply::Elements { sequence, found } if within(first, sequence, last) => all.extend(found),
                        Reply::Result { sequence, code } if within(first, sequence, last) => {
                            if code != 0 && code != Errno::ENOENT as i32 {
                                self.drain();
                                return Err(NfnlError::of(code));
                            }
                            over |= sequence == last;
                        }
                        Reply::Overrun => return Err(NfnlError::Answer(LOST)),
                        _ => {}
                    }
                }
            }
        }
        Ok(all)
    }

    /// All elements of `set`.
    ///
    /// # Errors
    /// As in [`NfnlError`].
    pub fn list(&mut self, family: Family, table: &str, set: &str) -> Result<Vec<Found>, NfnlError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (bytes, number) = batch::listing(family, table, set, &mut self.sequence);
            self.send(&bytes)?;
            match self.elements(number)? {
                (found, true) if tries >= LISTINGS => return Ok(found),
                (_, true) => {}
                (found, false) => return Ok(found),
            }
        }
    }

    /// All elements of a set that no other program changes. [`Nfnl::list`] restarts on any nftables change during the
    /// listing, even in another table.
    ///
    /// # Errors
    /// As in [`NfnlError`].
    pub fn list_own(&mut self, family: Family, table: &str, set: &str) -> Result<Vec<Found>, NfnlError> {
        let (bytes, number) = batch::listing(family, table, set, &mut self.sequence);
        self.send(&bytes)?;
        self.elements(number).map(|(found, _)| found)
    }

    /// All rules of a table whose rules no other program changes; none if the table is missing. The query does not wait
    /// for nftables changes.
    ///
    /// # Errors
    /// As in [`NfnlError`].
    pub fn rules(&mut self, family: Family, table: &str) -> Result<Vec<Rule>, NfnlError> {
        let (bytes, number) = batch::rule_listing(family, table, &mut self.sequence);
        self.send(&bytes)?;
        let (mut all, mut room) = (Vec::new(), MOST_OF_RULES);
        self.listed(number, |reply| {
            if let Reply::Rule { rule, .. } = reply
                && room > 0
            {
                room = room.saturating_sub(rule.body.len() + size_of::<Rule>());
                all.push(rule);
            }
        })?;
        Ok(all)
    }

    /// The chains of all tables that can forward IP packets. The query does not wait for nftables changes. A change
    /// during it may hide a chain, so ask again later.
    ///
    /// # Errors
    /// As in [`NfnlError`].
    pub fn chains(&mut self) -> Result<Vec<Chain>, NfnlError> {
        let (bytes, number) = batch::chain_listing(&mut self.sequence);
        self.send(&bytes)?;
        let mut all = Vec::new();
        self.listed(number, |reply| match reply {
            Reply::Chain { chain, .. } if all.len() < MOST_CHAINS => all.push(chain),
            _ => {}
        })?;
        Ok(all)
    }

    /// The kernel's unique handle of a table; `None` if the table is missing. The query does not wait for nftables
    /// changes.
    ///
    /// # Errors
    /// As in [`NfnlError`].
    pub fn table(&mut self, family: Family, table: &str) -> Result<Option<u64>, NfnlError> {
        let (bytes, number) = batch::table_question(family, table, &mut self.sequence);
        self.send(&bytes)?;
        let mut answer = None;
        loop {
            for reply in self.receive(true)? {
                match reply {
                    Reply::Table { sequence, handle } if sequence == number => answer = Some(handle),
                    Reply::Result { sequence, code } if sequence == number => {
                        return match code {
                            0 => Ok(answer),
                            code if code == Errno::ENOENT as i32 => Ok(None),
                            code => Err(NfnlError::of(code)),
                        };
                    }
                    Reply::Overrun => return Err(NfnlError::Answer(LOST)),
                    _ => {}
                }
            }
        }
    }

    /// The elements from listing `number`, and whether nftables changed during it.
    fn elements(&mut self, number: u32) -> Result<(Vec<Found>, bool), NfnlError> {
        let mut all = Vec::new();
        let torn = self.listed(number, |reply| {
            if let Reply::Elements { found, .. } = reply {
                all.extend(found);
            }
        })?;
        Ok((all, torn))
    }

    /// Passes the answers of listing `number` to `take`. Returns whether nftables changed during it.
    fn listed(&mut self, number: u32, mut take: impl FnMut(Reply)) -> Result<bool, NfnlError> {
        let mut torn = false;
        loop {
            for reply in self.receive(true)? {
                match reply {
                    Reply::Elements { sequence, .. } | Reply::Rule { sequence, .. } | Reply::Chain { sequence, .. }
                        if sequence == number =>
                    {
                        take(reply);
                    }
                    Reply::Done { sequence, code } | Reply::Result { sequence, code } if sequence == number => {
                        return match code {
                            0 => Ok(torn),
                            code if code == Errno::EINTR as i32 => Ok(true),
                            code => Err(NfnlError::of(code)),
                        };
                    }
                    Reply::Interrupted { sequence } => torn |= sequence == number,
                    Reply::Overrun => return Err(NfnlError::Answer(LOST)),
                    _ => {}
                }
            }
        }
    }

    /// The outcome of the transaction with messages `first` to `last`; the kernel acknowledges `last`. The kernel has
    /// written all answers before the send returned, and the order of single errors does not matter. So this reads
    /// every answer, and the first error counts.
    fn result(&mut self, first: u32, last: u32) -> Result<(), NfnlError> {
        let mut error = None;
        let mut acknowledged = false;
        loop {
            let known = acknowledged || error.is_some();
            let replies = match self.receive(!known) {
                Ok(replies) => replies,
                Err(NfnlError::Answer(SILENT)) if known => {
                    return error.map_or(Ok(()), |code| Err(NfnlError::of(code)));
                }
                Err(e) => return Err(e),
            };
            for reply in replies {
                match reply {
                    Reply::Result { sequence, code: 0 } => acknowledged |= sequence == last,
                    Reply::Result { sequence, code } if within(first, sequence, last) => error = error.or(Some(code)),
                    Reply::Overrun => return Err(NfnlError::Answer(LOST)),
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), NfnlError> {
        // Leftover answers of an abandoned request must not count as the answer to this one.
        self.drain();
        match self.socket.send(bytes) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(NfnlError::Answer("covers only a part of the request")),
            Err(e) => Err(socket_error(e)),
        }
    }

    fn drain(&mut self) {
        // The loop ends: the socket receives nothing new without a request, and the kernel reports a loss once.
        while matches!(self.receive(false), Ok(_) | Err(NfnlError::Answer(LOST))) {}
    }

    fn receive(&mut self, wait: bool) -> Result<Vec<Reply>, NfnlError> {
        let length = self.socket.receive(&mut self.buffer, wait).map_err(socket_error)?;
        let bytes = self.buffer.get(..length).ok_or(NfnlError::Answer("is too long"))?;
        reply::parse(bytes).map_err(|_| NfnlError::Answer("cannot be parsed"))
    }
}

/// Whether `first` ≤ `number` ≤ `last`, for numbers that wrap around.
const fn within(first: u32, number: u32, last: u32) -> bool {
    number.wrapping_sub(first) <= last.wrapping_sub(first)
}

#[cfg(test)]
mod tests;
