//! What this program asks of the kernel directly: every system call without a safe form in a crate, each idea in a file
//! of its own, with a safe interface. No other room may use `unsafe` or libc.

#![allow(unsafe_code)]

pub(crate) mod bpf;
pub mod clock;
pub(crate) mod datagram;
pub(crate) mod interface;
pub(crate) mod memory;
pub(crate) mod netlink;
pub(crate) mod nf_tables;
pub(crate) mod packet;
pub(crate) mod pidfd;
pub(crate) mod priority;
pub(crate) mod process;
pub(crate) mod readiness;
pub(crate) mod ring;
pub(crate) mod udp_ports;
