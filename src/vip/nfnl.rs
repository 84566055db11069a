//! Elements of nftables sets, changed and read over a netlink socket: no program is run, so a change takes well under a
//! millisecond also on a busy host. (Tables, chains and rules are made by [`super::nft`]; here they are only read.)

mod batch;
mod link;
mod reply;

pub use batch::{Batch, Data, Family, MAX_DATA};
pub use link::Link;
pub use reply::{Found, Rule};

use super::sys;
use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, setsockopt, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};
use reply::Reply;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// How long an answer may take. The kernel writes it before the request's system call returns, so this only ends a wait for
/// something that never comes.
const ANSWER_MS: i64 = 2_000;
/// The largest datagram that the kernel answers with is 32 KiB (`netlink_dump`).
const DATAGRAM: usize = 64 * 1024;
/// The largest batch: far beyond what all 65,536 flows of an instance need for being replaced (some 60 MB).
const LARGEST: usize = 256 * 1024 * 1024;
/// What the kernel takes off the send buffer for itself (`netlink_sendmsg`), with some more.
const SEND_OVERHEAD: usize = 256;
/// Receive buffer: each answer about one element is billed with the 8 KiB that are reserved for it at first.
const RECEIVE_BUFFER: usize = 2 * 1024 * 1024;
/// Elements that are asked for at once: their answers fit into the receive buffer also if it cannot be enlarged.
const QUESTIONS: usize = 32;
/// How often a listing is begun anew because the set changed under it. After that what came is good enough: no element is
/// missed that was there all the time.
const LISTINGS: u32 = 3;

const LOST: &str = "was lost for want of room";
const SILENT: &str = "did not come";

/// Why elements could not be changed or read.
#[derive(Debug, thiserror::Error)]
pub enum NfnlError {
    /// The table or set is not there, or an element that was to be deleted.
    #[error("the table, a set or an element in it is not there")]
    Gone,
    /// The kernel refused for want of a capability.
    #[error("no privilege to change nftables; the agent needs CAP_NET_ADMIN")]
    Privilege,
    /// The kernel refused.
    #[error("the kernel refused: {0}")]
    Refused(#[source] io::Error),
    /// The socket cannot be opened or used.
    #[error("no netlink connection to nftables: {0}; the kernel needs nf_tables")]
    Socket(#[source] io::Error),
    /// The kernel's answer was not understood, or lost.
    #[error("the kernel's answer about nftables {0}")]
    Answer(&'static str),
    /// The batch is larger than any that can be needed.
    #[error("a change of {0} bytes is too large for nftables; at most {LARGEST} are sent")]
    TooLarge(usize),
    /// The process is ending.
    #[error("the change was not carried out: the agent is stopping")]
    Stopping,
}

impl NfnlError {
    fn of(code: i32) -> Self {
        match code {
            libc::ENOENT => Self::Gone,
            libc::EPERM | libc::EACCES => Self::Privilege,
            _ => Self::Refused(io::Error::from_raw_os_error(code)),
        }
    }
}

fn socket_error(error: Errno) -> NfnlError {
    match error {
        Errno::EPERM | Errno::EACCES => NfnlError::Privilege,
        // The kernel had more to say than the receive buffer holds.
        Errno::ENOBUFS => NfnlError::Answer(LOST),
        Errno::EAGAIN => NfnlError::Answer(SILENT),
        other => NfnlError::Socket(other.into()),
    }
}

/// A netlink socket to nf_tables. Belongs to the network namespace of the thread that opened it.
///
/// Worth keeping open: closing one makes the kernel wait until all that was deleted is freed.
#[derive(Debug)]
pub struct Nfnl {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Nfnl {
    /// Opens the socket.
    ///
    /// # Errors
    /// The kernel has no such socket to give.
    pub fn open() -> Result<Self, NfnlError> {
        let open = || -> nix::Result<OwnedFd> {
            let socket = socket::socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkNetFilter,
            )?;
            socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
            // Port 0 is the kernel; a connected socket takes nothing from anybody else.
            socket::connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(ANSWER_MS))?;
            setsockopt(&socket, sockopt::SendTimeout, &TimeVal::milliseconds(ANSWER_MS))?;
            if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
                // In a container the limit holds; then there is less room for errors, and their loss is an error as well.
                setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
            }
            Ok(socket)
        };
        let socket = open().map_err(|e| NfnlError::Socket(e.into()))?;
        sys::short_netlink_errors(&socket).map_err(NfnlError::Socket)?;
        Ok(Self { socket, sequence: 1, buffer: vec![0; DATAGRAM] })
    }

    /// Carries out `batch` in one transaction. Only where the send buffer cannot be made as large as the batch (in a
    /// container), a batch beyond some 400 KB is several transactions, in order.
    ///
    /// # Errors
    /// As in [`NfnlError`]. If the kernel refused, nothing of the transaction is in force; after [`NfnlError::Answer`] it is
    /// not known.
    pub fn commit(&mut self, batch: Batch) -> Result<(), NfnlError> {
        let size = batch.size();
        if size > LARGEST {
            return Err(NfnlError::TooLarge(size));
        }
        // Begin and end come on top, and a little for the rounding of the buffer's size.
        let wanted = size + 2 * SEND_OVERHEAD;
        let room =
            |socket: &OwnedFd| socket::getsockopt(socket, sockopt::SndBuf).unwrap_or(0).saturating_sub(SEND_OVERHEAD);
        let mut limit = room(&self.socket);
        if limit < wanted {
            if setsockopt(&self.socket, sockopt::SndBufForce, &wanted).is_err() {
                let _ = setsockopt(&self.socket, sockopt::SndBuf, &wanted);
            }
            limit = room(&self.socket);
        }
        for transaction in batch.transactions(limit, &mut self.sequence) {
            self.send(&transaction.bytes)?;
            self.result(transaction.first, transaction.last)?;
        }
        Ok(())
    }

    /// The elements of `set` with these keys; those that are not there are left out.
    ///
    /// # Errors
    /// As in [`NfnlError`]; a set that is not there is as one without elements.
    pub fn get(&mut self, family: Family, table: &str, set: &str, keys: &[Data]) -> Result<Vec<Found>, NfnlError> {
        let mut all = Vec::new();
        for keys in keys.chunks(QUESTIONS) {
            let (bytes, last) = batch::questions(family, table, set, keys, &mut self.sequence);
            let first = last.wrapping_sub(u32::try_from(keys.len()).unwrap_or(0)).wrapping_add(1);
            self.send(&bytes)?;
            let mut over = false;
            while !over {
                for reply in self.receive(MsgFlags::empty())? {
                    match reply {
                        Reply::Elements { sequence, found } if within(first, sequence, last) => all.extend(found),
                        Reply::Result { sequence, code } if within(first, sequence, last) => {
                            if code != 0 && code != libc::ENOENT {
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

    /// All elements of a set that nobody else changes. [`Nfnl::list`] begins anew when anything in nftables changes meanwhile, be it
    /// in another table.
    ///
    /// # Errors
    /// As in [`NfnlError`].
    pub fn list_own(&mut self, family: Family, table: &str, set: &str) -> Result<Vec<Found>, NfnlError> {
        let (bytes, number) = batch::listing(family, table, set, &mut self.sequence);
        self.send(&bytes)?;
        self.elements(number).map(|(found, _)| found)
    }

    /// All rules of a table whose rules nobody else changes; none if it is not there. Waits for no change of nftables.
    ///
    /// # Errors
    /// As in [`NfnlError`].
    pub fn rules(&mut self, family: Family, table: &str) -> Result<Vec<Rule>, NfnlError> {
        let (bytes, number) = batch::rule_listing(family, table, &mut self.sequence);
        self.send(&bytes)?;
        let mut all = Vec::new();
        self.listed(number, |reply| {
            if let Reply::Rule { rule, .. } = reply {
                all.push(rule);
            }
        })?;
        Ok(all)
    }

    /// The kernel's number of a table, which no other table ever has; `None` if it is not there. Waits for no change of nftables.
    ///
    /// # Errors
    /// As in [`NfnlError`].
    pub fn table(&mut self, family: Family, table: &str) -> Result<Option<u64>, NfnlError> {
        let (bytes, number) = batch::table_question(family, table, &mut self.sequence);
        self.send(&bytes)?;
        let mut answer = None;
        loop {
            for reply in self.receive(MsgFlags::empty())? {
                match reply {
                    Reply::Table { sequence, handle } if sequence == number => answer = Some(handle),
                    Reply::Result { sequence, code } if sequence == number => {
                        return match code {
                            0 => Ok(answer),
                            libc::ENOENT => Ok(None),
                            code => Err(NfnlError::of(code)),
                        };
                    }
                    Reply::Overrun => return Err(NfnlError::Answer(LOST)),
                    _ => {}
                }
            }
        }
    }

    /// The answer to listing `number` of a set, and whether it changed meanwhile.
    fn elements(&mut self, number: u32) -> Result<(Vec<Found>, bool), NfnlError> {
        let mut all = Vec::new();
        let torn = self.listed(number, |reply| {
            if let Reply::Elements { found, .. } = reply {
                all.extend(found);
            }
        })?;
        Ok((all, torn))
    }

    /// Hands what answers listing `number` to `take`; whether anything changed meanwhile.
    fn listed(&mut self, number: u32, mut take: impl FnMut(Reply)) -> Result<bool, NfnlError> {
        let mut torn = false;
        loop {
            for reply in self.receive(MsgFlags::empty())? {
                match reply {
                    Reply::Elements { sequence, .. } | Reply::Rule { sequence, .. } if sequence == number => {
                        take(reply)
                    }
                    Reply::Done { sequence, code } | Reply::Result { sequence, code } if sequence == number => {
                        return match code {
                            0 => Ok(torn),
                            libc::EINTR => Ok(true),
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

    /// What became of the transaction with messages `first` to `last`, the last of which is acknowledged. The kernel has
    /// written all answers before the sending returned, errors of single messages in no order that matters here: so whatever is
    /// there is read, and the first error counts.
    fn result(&mut self, first: u32, last: u32) -> Result<(), NfnlError> {
        let mut error = None;
        let mut acknowledged = false;
        loop {
            let known = acknowledged || error.is_some();
            let flags = if known { MsgFlags::MSG_DONTWAIT } else { MsgFlags::empty() };
            let replies = match self.receive(flags) {
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
        // What a request that was given up left must not be taken for the answer to this one.
        self.drain();
        loop {
            return match socket::send(self.socket.as_raw_fd(), bytes, MsgFlags::empty()) {
                Ok(sent) if sent == bytes.len() => Ok(()),
                Ok(_) => Err(NfnlError::Answer("is about a part only")),
                Err(Errno::EINTR) => continue,
                Err(e) => Err(socket_error(e)),
            };
        }
    }

    fn drain(&mut self) {
        // Ends: nothing new is written to this socket without a request, and a loss is told once.
        while matches!(self.receive(MsgFlags::MSG_DONTWAIT), Ok(_) | Err(NfnlError::Answer(LOST))) {}
    }

    fn receive(&mut self, flags: MsgFlags) -> Result<Vec<Reply>, NfnlError> {
        loop {
            match socket::recv(self.socket.as_raw_fd(), &mut self.buffer, flags | MsgFlags::MSG_TRUNC) {
                Ok(length) => {
                    let bytes = self.buffer.get(..length).ok_or(NfnlError::Answer("is too long"))?;
                    return reply::parse(bytes).map_err(|_| NfnlError::Answer("is not understood"));
                }
                Err(Errno::EINTR) => {}
                Err(e) => return Err(socket_error(e)),
            }
        }
    }
}

/// Whether `first` ≤ `number` ≤ `last`, for numbers that begin anew after the largest.
const fn within(first: u32, number: u32, last: u32) -> bool {
    number.wrapping_sub(first) <= last.wrapping_sub(first)
}

#[cfg(test)]
mod tests;
