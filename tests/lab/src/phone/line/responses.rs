//! Answers to the phone's own requests.

use super::super::Phase;
use super::super::message::{Message, Start, Writer, param, uri_of};
use super::{Client, Line};
use crate::unix_us;

impl Line {
    pub(super) async fn hear_response(&mut self, m: Message) {
        let Start::Response(code, _) = m.start else { return };
        let (Ok((cseq, method)), Some(branch)) = (m.cseq(), m.branch()) else { return };
        // A retransmission of a 2xx that was acknowledged.
        if method == "INVITE"
            && (200..300).contains(&code)
            && let Some((n, bytes, to)) = &self.ack
            && *n == cseq
        {
            return self.send(bytes, *to).await;
        }
        let Some(c) = self.client.take_if(|c| c.branch == branch && c.method == method) else { return };
        let mut faults = Vec::new();
        if c.cseq != cseq {
            faults.push(format!("{code} to {method}: CSeq {cseq} answers {}", c.cseq));
        }
        let Some(d) = &mut self.dialog else { return };
        if m.call_id() != d.call_id || m.get("from") != Some(&d.local) {
            faults.push(format!("{code} to {method}: Call-ID or From differ from the request's"));
        }
        let to = m.get("to").unwrap_or_default();
        match (param(&d.remote, "tag"), param(to, "tag")) {
            (Some(known), tag) if tag.as_ref() != Some(&known) => {
                faults.push(format!("{code} to {method}: To tag {tag:?}, the dialog has {known}"))
            }
            (None, None) if code > 100 => faults.push(format!("{code} to {method}: no To tag")),
            _ => {}
        }
        if code < 200 {
            self.client = Some(Client { quiet: c.quiet || method == "INVITE", ..c });
            return self.violations(faults);
        }
        if method == "INVITE" && code < 300 {
            faults.extend(self.accepted(&m, c.initial, cseq).await);
        } else if method == "INVITE" {
            // RFC 3261 section 17.1.1.3: same branch, same CSeq number, the To of the response.
            let (target, routes) =
                if c.initial { (uri_of(&d.remote), Vec::new()) } else { (d.target.clone(), d.routes.clone()) };
            let mut w = Writer::request("ACK", &target);
            w.header("Via", &format!("SIP/2.0/UDP {};branch={branch}", self.me.sip));
            w.header("Max-Forwards", "70");
            for r in &routes {
                w.header("Route", r);
            }
            w.header("From", &d.local);
            w.header("To", to);
            w.header("Call-ID", &d.call_id);
            w.header("CSeq", &format!("{cseq} ACK"));
            let bytes = w.end(None);
            self.send(&bytes, c.repeat.to).await;
        }
        self.violations(faults);
        let now = unix_us();
        self.note(|s| match (method.as_str(), c.initial) {
            ("INVITE", true) => s.phase = if code < 300 { Phase::Up } else { Phase::Failed(code) },
            ("INVITE", false) => s.own_reinvites.push((code, now)),
            ("UPDATE", _) => s.own_updates.push((code, now)),
            ("BYE", _) => {
                s.bye_answered = Some((code, now));
                s.phase = Phase::Ended;
            }
            (other, _) => s.own_requests.push((other.to_owned(), code, now)),
        });
        // RFC 3261 section 12.2.1.2: a dialog that the other side does not know is over.
        if method != "BYE" && code == 481 {
            self.note(|s| s.phase = Phase::Failed(481));
        }
        if method == "BYE" || code == 481 {
            self.dialog = None;
        }
    }

    /// Takes the contents of a 2xx to an INVITE, and acknowledges it.
    async fn accepted(&mut self, m: &Message, initial: bool, cseq: u32) -> Vec<String> {
        let (via, _) = self.via();
        let contact = self.contact();
        let Some(d) = &mut self.dialog else { return Vec::new() };
        let mut faults = Vec::new();
        if initial {
            d.remote = m.get("to").unwrap_or_default().to_owned();
            d.routes = m.list("record-route");
            d.routes.reverse();
            d.recorded = !d.routes.is_empty();
        }
        match &m.list("contact")[..] {
            [one] => d.target = uri_of(one),
            other => faults.push(format!("200 to INVITE: Contact is {other:?}, not one URI")),
        }
        if m.body.is_empty() {
            faults.push("200 to INVITE: no SDP answer".into());
        } else {
            faults.extend(d.take_sdp(&m.body));
        }
        let bytes = d.request("ACK", cseq, &via, &contact, None);
        let hop = d.next_hop();
        let direction = d.sdp.as_ref().map(|s| s.direction.clone()).unwrap_or_default();
        self.note(|s| s.remote_direction = direction);
        if let Some(to) = hop {
            self.send(&bytes, to).await;
            self.ack = Some((cseq, bytes, to));
        }
        faults
    }
}
