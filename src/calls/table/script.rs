//! A small language for call scripts: messages between phones and a server at one VIP.

use super::{Table, TableSettings};
use crate::calls::model::{Call, CallEvent};
use crate::sip::Transport;
use crate::time::Time;
use crate::wire::Packet;
use std::net::SocketAddr;

pub(crate) const VIP: &str = "10.0.0.100:5060";
pub(crate) const A: &str = "10.0.0.1:5060";
pub(crate) const B: &str = "10.0.0.2:5070";

pub(crate) fn settings() -> TableSettings {
    TableSettings {
        instance: "main".into(),
        node: "n1".into(),
        vips: vec!["10.0.0.100".parse().unwrap()],
        sip_ports: vec![5060],
        advertised: crate::sip::advertised::Advertised::default(),
        pair_header: Some("X-Pair".into()),
        emergency: vec!["112".into()],
        max_calls: 1000,
    }
}

/// A dialog between a phone and the server. `out` marks the server's call to the phone.
#[derive(Clone)]
pub(crate) struct Dialog {
    pub(crate) call_id: String,
    pub(crate) phone: String,
    pub(crate) out: bool,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) uri: String,
    pub(crate) to_tag: String,
    pub(crate) extra: String,
}

/// The sender of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Phone,
    Server,
}
pub(crate) use By::{Phone, Server};

impl Dialog {
    pub(crate) fn new(call_id: &str, phone: &str, out: bool, caller: &str, callee: &str) -> Self {
        Self {
            call_id: call_id.into(),
            phone: phone.into(),
            out,
            from: format!("\"{caller}\" <sip:{caller}@example.org>;tag=f-{call_id}"),
            to: format!("<sip:{callee}@example.org>"),
            uri: format!("sip:{callee}@example.org"),
            to_tag: format!("t-{call_id}"),
            extra: String::new(),
        }
    }

    fn caller(&self) -> By {
        if self.out { Server } else { Phone }
    }

    fn contact(&self, by: By) -> String {
        format!("<sip:c@{}>", if by == Phone { &self.phone } else { VIP })
    }

    fn sides(&self, by: By, with_tag: bool) -> (String, String) {
        let to = if with_tag { format!("{};tag={}", self.to, self.to_tag) } else { self.to.clone() };
        if by == self.caller() { (self.from.clone(), to) } else { (to, self.from.clone()) }
    }

    /// A request. `more` holds whole extra header lines.
    pub(crate) fn request(&self, by: By, method: &str, cseq: u32, more: &str, sdp: &str) -> (By, String, String) {
        let first = method == "INVITE" && self.caller() == by && !more.contains("X-In-Dialog") || method == "CANCEL";
        let (from, to) = self.sides(by, !first);
        let uri = if first { self.uri.clone() } else { format!("sip:c@{}", self.phone) };
        let branch = format!("z9hG4bK-{}-{}-{cseq}", self.call_id, if by == Phone { "p" } else { "s" });
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP x;branch={branch}\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n\
             Contact: {}\r\nAllow: INVITE, BYE\r\n{}{more}{}",
            self.call_id,
            self.contact(by),
            if first { self.extra.as_str() } else { "" },
            body(sdp)
        );
        (by, self.phone.clone(), text)
    }

    /// A response by `by` to the request `cseq method` of the other side.
    pub(crate) fn response(
        &self,
        by: By,
        code: u16,
        method: &str,
        cseq: u32,
        more: &str,
        sdp: &str,
    ) -> (By, String, String) {
        let asker = if by == Phone { Server } else { Phone };
        let (from, to) = self.sides(asker, code > 100);
        let branch = format!("z9hG4bK-{}-{}-{cseq}", self.call_id, if asker == Phone { "p" } else { "s" });
        let contact =
            if (101..300).contains(&code) { format!("Contact: {}\r\n", self.contact(by)) } else { String::new() };
        let text = format!(
            "SIP/2.0 {code} X\r\nVia: SIP/2.0/UDP x;branch={branch}\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n{contact}{more}{}",
            self.call_id,
            body(sdp)
        );
        (by, self.phone.clone(), text)
    }
}

fn body(sdp: &str) -> String {
    if sdp.is_empty() {
        return "Content-Length: 0\r\n\r\n".into();
    }
    let sdp = sdp_text(sdp);
    format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len())
}

/// The description that a script calls `name`. A port may follow after a colon.
pub(crate) fn sdp_text(name: &str) -> String {
    let port = name.split_once(':').map_or("4000", |(_, port)| port);
    format!("v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns={name}\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n")
}

/// A table with a clock.
pub(crate) struct Lab {
    pub(crate) table: Table,
    pub(crate) now: Time,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self { table: Table::new(settings()), now: Time::from_millis(1000) }
    }

    pub(crate) fn see(&mut self, (by, phone, text): (By, String, String)) -> &mut Self {
        self.see_bytes(by, &phone, text.as_bytes())
    }

    pub(crate) fn see_bytes(&mut self, by: By, phone: &str, payload: &[u8]) -> &mut Self {
        let (vip, phone): (SocketAddr, SocketAddr) = (VIP.parse().unwrap(), phone.parse().unwrap());
        let (src, dst) = if by == Phone { (phone, vip) } else { (vip, phone) };
        self.table.handle_packet(&Packet { src, dst, transport: Transport::Udp, payload }, 1_700_000_000_000, self.now);
        self
    }

    /// Lets time pass in one step, and handles everything due at its end.
    pub(crate) fn wait_ms(&mut self, ms: u64) -> &mut Self {
        self.now += std::time::Duration::from_millis(ms);
        self.table.handle_timeout(self.now);
        self
    }

    pub(crate) fn events(&mut self) -> Vec<CallEvent> {
        std::iter::from_fn(|| self.table.poll_event()).collect()
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        let mut calls: Vec<_> = self.table.calls().collect();
        calls.sort_by(|a, b| a.legs[0].call_id.0.cmp(&b.legs[0].call_id.0));
        calls
    }

    /// INVITE with an offer, 180, 200 with an answer, ACK.
    pub(crate) fn answered(&mut self, d: &Dialog) -> &mut Self {
        let (asker, other) = if d.out { (Server, Phone) } else { (Phone, Server) };
        self.see(d.request(asker, "INVITE", 1, "", "offer"))
            .see(d.response(other, 180, "INVITE", 1, "", ""))
            .see(d.response(other, 200, "INVITE", 1, "", "answer"))
            .see(d.request(asker, "ACK", 1, "", ""))
    }

    /// A B2BUA call: INVITE in, INVITE out, ringing, answer from the callee, answer to the caller.
    pub(crate) fn b2bua(&mut self, i: &Dialog, o: &Dialog) -> &mut Self {
        self.invited(i).invited(o).ringing(o).ringing(i).picked_up(o).picked_up(i)
    }

    pub(crate) fn invited(&mut self, d: &Dialog) -> &mut Self {
        self.see(d.request(d.caller(), "INVITE", 1, "", "offer"))
    }

    pub(crate) fn ringing(&mut self, d: &Dialog) -> &mut Self {
        self.see(d.response(if d.out { Phone } else { Server }, 180, "INVITE", 1, "", ""))
    }

    pub(crate) fn picked_up(&mut self, d: &Dialog) -> &mut Self {
        self.see(d.response(if d.out { Phone } else { Server }, 200, "INVITE", 1, "", "answer")).see(d.request(
            d.caller(),
            "ACK",
            1,
            "",
            "",
        ))
    }

    pub(crate) fn hung_up(&mut self, d: &Dialog, by: By, cseq: u32) -> &mut Self {
        let other = if by == Phone { Server } else { Phone };
        self.see(d.request(by, "BYE", cseq, "", "")).see(d.response(other, 200, "BYE", cseq, "", ""))
    }
}
