//! Tells when somebody deletes one of our tables: `nft flush ruleset`, and every reload of a firewall that begins with it, takes
//! them away with all others.

use crate::vip::sys::readable;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use tokio::io::unix::AsyncFd;

/// `NFNLGRP_NFTABLES` of `linux/netfilter/nfnetlink.h`, as the bit of a group mask.
const GROUP: u32 = 1 << (7 - 1);
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE`.
const TABLE_DELETED: u16 = 10 << 8 | 2;
/// `NFTA_TABLE_NAME`.
const NAME: u16 = 1;
/// Sizes of `struct nlmsghdr`, `struct nfgenmsg` and `struct nlattr`.
const HEADER: usize = 16;
const GENERIC: usize = 4;
const ATTRIBUTE: usize = 4;
/// More than the kernel puts into one datagram of notifications (a page, or 8 KiB).
const BUFFER: usize = 32 * 1024;

/// A subscription to the kernel's notifications about tables.
#[derive(Debug)]
pub struct TableWatch {
    fd: AsyncFd<OwnedFd>,
}

impl TableWatch {
    /// Subscribes; needs a tokio runtime and `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// The system's error.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
        Ok(Self { fd: readable(fd)? })
    }

    /// Waits until tables may be gone: their names, or `None` if notifications were lost and any may be.
    ///
    /// # Errors
    /// The socket no longer works.
    pub async fn next(&mut self) -> io::Result<Option<Vec<String>>> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let mut ready = self.fd.readable().await?;
            match ready.try_io(|fd| Ok(recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?)) {
                Ok(Ok(n)) => {
                    let names = deleted(&buffer[..n]);
                    if !names.is_empty() {
                        return Ok(Some(names));
                    }
                }
                Ok(Err(e)) if e.raw_os_error() == Some(libc::ENOBUFS) => return Ok(None),
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(e)) => return Err(e),
                Err(_would_block) => {}
            }
        }
    }
}

/// The names of the tables whose deletion these notifications tell.
fn deleted(mut bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    while bytes.len() >= HEADER {
        let length = usize::try_from(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).unwrap_or(usize::MAX);
        if length < HEADER || length > bytes.len() {
            break;
        }
        if u16::from_ne_bytes([bytes[4], bytes[5]]) == TABLE_DELETED {
            names.extend(bytes.get(HEADER + GENERIC..length).and_then(name));
        }
        bytes = &bytes[aligned(length).min(bytes.len())..];
    }
    names
}

fn name(mut attributes: &[u8]) -> Option<String> {
    while attributes.len() >= ATTRIBUTE {
        let length = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
        let value = attributes.get(ATTRIBUTE..length)?;
        if u16::from_ne_bytes([attributes[2], attributes[3]]) == NAME {
            let text = value.split(|b| *b == 0).next().unwrap_or_default();
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        attributes = attributes.get(aligned(length)..)?;
    }
    None
}

/// Netlink aligns messages and attributes to four bytes.
const fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

#[cfg(test)]
mod tests;
