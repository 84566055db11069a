//! Remarks on a capture file as a whole. Pure.

use super::observer::MAX_LEGS;
use super::report::Report;
use super::survey::Certainty;
use std::net::SocketAddr;

/// Notes on the file as a whole.
pub(super) fn of(r: &Report, malformed: u64) -> Vec<String> {
    let (t, mut notes) = (&r.traffic, Vec::new());
    if t.frames == 0 {
        notes.push("the file has no packets".to_owned());
    } else if t.unsupported_frames > 0 {
        let kinds: Vec<String> = t.link_types.iter().map(u32::to_string).collect();
        notes.push(format!(
            "{} of {} frames have a link type that keepcall cannot read (in the file: {})",
            t.unsupported_frames,
            t.frames,
            kinds.join(", ")
        ));
    }
    if t.frames > 0 && t.sip == 0 {
        notes.push(format!(
            "the file shows no SIP that can be read ({} UDP datagrams, TCP not counted); a capture of SIP over TLS is unreadable",
            t.udp
        ));
    }
    for (what, n) in &t.unread {
        notes.push(format!("{} is in the file and is not read ({n} packets)", what.words()));
    }
    if t.sip_cut > 0 {
        notes
            .push(format!("the capture truncated {} of {} SIP messages: record with `tcpdump -s 0`", t.sip_cut, t.sip));
    }
    if t.back_in_time > 0 {
        notes.push(format!(
            "time steps back in the file ({} frames are older than an earlier one): the order of the file counts",
            t.back_in_time
        ));
    }
    if malformed > 0 {
        notes.push(format!("{malformed} messages begin like SIP but lack what every SIP message must have"));
    }
    if t.sip > 0 && r.calls.is_empty() {
        let others: Vec<String> = r.other_requests.iter().map(|(m, n)| format!("{n} {m}")).collect();
        notes.push(format!(
            "the file has SIP, but no call: {}",
            if others.is_empty() { "no requests".to_owned() } else { others.join(", ") }
        ));
    }
    match r.server.certainty {
        Certainty::Guess if r.servers.len() > 1 => notes.push(format!(
            "the server is a guess: {}; name another one with --vip (and --port)",
            r.server
                .addresses
                .iter()
                .flat_map(|ip| r.server.ports.iter().map(|port| SocketAddr::new(*ip, *port).to_string()))
                .collect::<Vec<_>>()
                .join(", ")
        )),
        Certainty::Given if !r.calls.is_empty() && r.calls.iter().all(|c| !c.through_server) => {
            notes.push("no call in the file passes the given server address".to_owned());
        }
        _ => {}
    }
    if r.legs_left_out > 0 {
        notes.push(format!("the report leaves out {} legs: the maximum is {MAX_LEGS}", r.legs_left_out));
    }
    notes
}
