//! Writes HEP as the servers do, byte for byte. For tests only: the agent sends none.

#![allow(clippy::unwrap_used, reason = "a packet that cannot be written is a failed test")]

use std::net::{IpAddr, SocketAddr};

/// 2026-01-02 03:04:05.678901 UTC, in seconds and microseconds.
pub const SECONDS: u32 = 1_767_323_045;
/// See [`SECONDS`].
pub const MICROS: u32 = 678_901;

/// One chunk of version 3.
pub fn chunk(vendor: u16, kind: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len() + 6).unwrap();
    [&vendor.to_be_bytes()[..], &kind.to_be_bytes(), &length.to_be_bytes(), data].concat()
}

/// A packet of version 3 with these chunks.
pub fn packet(chunks: &[Vec<u8>]) -> Vec<u8> {
    let body = chunks.concat();
    let length = u16::try_from(body.len() + 6).unwrap();
    [b"HEP3", &length.to_be_bytes()[..], &body].concat()
}

fn bytes_of(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn family(at: SocketAddr) -> u8 {
    if at.is_ipv4() { 2 } else { 10 }
}

fn addresses(src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
    let first = if src.is_ipv4() { 3 } else { 5 };
    [chunk(0, first, &bytes_of(src.ip())), chunk(0, first + 1, &bytes_of(dst.ip()))].concat()
}

fn ports(src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
    [chunk(0, 7, &src.port().to_be_bytes()), chunk(0, 8, &dst.port().to_be_bytes())].concat()
}

fn time() -> Vec<u8> {
    [chunk(0, 9, &SECONDS.to_be_bytes()), chunk(0, 10, &MICROS.to_be_bytes())].concat()
}

/// Kamailio, siptrace_hep.c `trace_send_hep3_duplicate`: family, protocol, addresses, ports, time, kind, agent,
/// correlation id, key, payload.
pub fn kamailio3(src: SocketAddr, dst: SocketAddr, protocol: u8, key: Option<&str>, payload: &[u8]) -> Vec<u8> {
    packet(&[
        chunk(0, 1, &[family(src)]),
        chunk(0, 2, &[protocol]),
        addresses(src, dst),
        ports(src, dst),
        time(),
        chunk(0, 11, &[1]),
        chunk(0, 12, &241_u32.to_be_bytes()),
        key.map(|k| chunk(0, 14, k.as_bytes())).unwrap_or_default(),
        chunk(0, 15, payload),
    ])
}

/// `struct hep_generic`, which OpenSIPS (proto_hep/hep.h), Asterisk (res_hep.c) and sofia-sip (tport_internal.h) share:
/// family, protocol, ports, time, kind, agent. The addresses follow.
fn generic(src: SocketAddr, dst: SocketAddr, protocol: u8, kind: u8, agent: u32) -> Vec<u8> {
    [
        chunk(0, 1, &[family(src)]),
        chunk(0, 2, &[protocol]),
        ports(src, dst),
        time(),
        chunk(0, 11, &[kind]),
        chunk(0, 12, &agent.to_be_bytes()),
    ]
    .concat()
}

/// FreeSWITCH, sofia-sip tport_logging.c `tport_capt_msg_hepv3`.
pub fn freeswitch3(src: SocketAddr, dst: SocketAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    packet(&[generic(src, dst, protocol, 1, 200), addresses(src, dst), chunk(0, 15, payload)])
}

/// OpenSIPS, proto_hep/hep.c `create_hep3_message` and `build_hep3_buf`, with its correlation JSON in a chunk of its
/// own (101).
pub fn opensips3(src: SocketAddr, dst: SocketAddr, protocol: u8, kind: u8, payload: Vec<u8>) -> Vec<u8> {
    packet(&[
        generic(src, dst, protocol, kind, 1),
        addresses(src, dst),
        payload,
        chunk(0, 101, b"{\"sip\":\"a84b4c76e66710\"}"),
    ])
}

/// Asterisk, res_hep.c `hep_queue_cb`: key and correlation id before the payload.
pub fn asterisk3(src: SocketAddr, dst: SocketAddr, protocol: u8, key: &str, payload: &[u8]) -> Vec<u8> {
    packet(&[
        generic(src, dst, protocol, 1, 1234),
        addresses(src, dst),
        chunk(0, 14, key.as_bytes()),
        chunk(0, 17, b"a84b4c76e66710"),
        chunk(0, 15, payload),
    ])
}

fn plain(version: u8, length: usize, src: SocketAddr, dst: SocketAddr, protocol: u8) -> Vec<u8> {
    let head = [version, u8::try_from(length).unwrap(), family(src), protocol];
    [&head[..], &src.port().to_be_bytes(), &dst.port().to_be_bytes(), &bytes_of(src.ip()), &bytes_of(dst.ip())].concat()
}

fn plain_length(src: SocketAddr) -> usize {
    if src.is_ipv4() { 16 } else { 40 }
}

/// `struct hep_timehdr` of a little-endian machine. The padding is whatever the stack held.
fn timehdr(agent: u16) -> Vec<u8> {
    [&SECONDS.to_le_bytes()[..], &MICROS.to_le_bytes(), &agent.to_le_bytes(), &[0x7f, 0x41]].concat()
}

/// Kamailio, siptrace_hep.c `trace_send_hep2_duplicate` with `hep_version` 1, its default.
pub fn kamailio1(src: SocketAddr, dst: SocketAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    [plain(1, plain_length(src), src, dst, protocol), payload.to_vec()].concat()
}

/// The same with `hep_version` 2.
pub fn kamailio2(src: SocketAddr, dst: SocketAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    [plain(2, plain_length(src), src, dst, protocol), timehdr(241), payload.to_vec()].concat()
}

/// FreeSWITCH, sofia-sip tport_logging.c `tport_capt_msg_hepv2` with `hep=2`: the length includes the time.
pub fn freeswitch2(src: SocketAddr, dst: SocketAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    [plain(2, plain_length(src) + 12, src, dst, protocol), timehdr(200), payload.to_vec()].concat()
}

/// OpenSIPS, proto_hep/hep.c `build_hep12_buf` with `version=2`: like Kamailio, then zeros because it counts the
/// addresses twice.
pub fn opensips2(src: SocketAddr, dst: SocketAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let zeros = vec![0; if src.is_ipv4() { 8 } else { 32 }];
    [plain(2, plain_length(src), src, dst, protocol), timehdr(1), payload.to_vec(), zeros].concat()
}
