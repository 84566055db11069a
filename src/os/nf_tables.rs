//! Numbers of the kernel's nf_tables protocol (`linux/netfilter/nfnetlink.h`, `linux/netfilter/nf_tables.h`), in the
//! width of their fields.

/// The version of the netfilter header.
pub(crate) const VERSION: u8 = libc::NFNETLINK_V0 as u8;
/// The subsystem, which is also the resource of a transaction.
pub(crate) const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;

const fn of_tables(message: libc::c_int) -> u16 {
    (SUBSYSTEM << 8) | message as u16
}

pub(crate) const NEW_ELEMENT: u16 = of_tables(libc::NFT_MSG_NEWSETELEM);
pub(crate) const GET_ELEMENT: u16 = of_tables(libc::NFT_MSG_GETSETELEM);
pub(crate) const DELETE_ELEMENT: u16 = of_tables(libc::NFT_MSG_DELSETELEM);
pub(crate) const GET_TABLE: u16 = of_tables(libc::NFT_MSG_GETTABLE);
pub(crate) const NEW_TABLE: u16 = of_tables(libc::NFT_MSG_NEWTABLE);
pub(crate) const GET_CHAIN: u16 = of_tables(libc::NFT_MSG_GETCHAIN);
pub(crate) const NEW_CHAIN: u16 = of_tables(libc::NFT_MSG_NEWCHAIN);
pub(crate) const GET_RULE: u16 = of_tables(libc::NFT_MSG_GETRULE);
pub(crate) const NEW_RULE: u16 = of_tables(libc::NFT_MSG_NEWRULE);

pub(crate) const BEGIN: u16 = libc::NFNL_MSG_BATCH_BEGIN as u16;
pub(crate) const END: u16 = libc::NFNL_MSG_BATCH_END as u16;

pub(crate) const UNSPECIFIED: u8 = libc::AF_UNSPEC as u8;
pub(crate) const INET: u8 = libc::NFPROTO_INET as u8;
pub(crate) const IPV4: u8 = libc::NFPROTO_IPV4 as u8;
pub(crate) const IPV6: u8 = libc::NFPROTO_IPV6 as u8;
pub(crate) const NETDEV: u8 = libc::NFPROTO_NETDEV as u8;
pub(crate) const ARP: u8 = libc::NFPROTO_ARP as u8;
