//! Requests to the phone, and the phone's answers.

use super::super::dialog::{Dialog, answer_route, request_faults};
use super::super::message::{Message, Writer, param, uri_of};
use super::super::sdp::{Own, answer_to};
use super::super::{Phase, Reaction, Reinvite};
use super::{ANSWERS, Line, MAX_FAULTS, Repeat, Server, token};
use crate::unix_us;
use std::net::SocketAddr;

impl Line {
    pub(super) async fn hear_request(&mut self, m: Message, from: SocketAddr) {
        let (method, branch) = (m.method(), m.branch().unwrap_or_default());
        if method == "ACK" {
            return self.hear_ack(&m);
        }
        if let Some((.., bytes, to)) = self.answers.iter().find(|(b, n, ..)| *b == branch && *n == method) {
            return self.send(bytes, *to).await;
        }
        let in_dialog = m.get("to").and_then(|t| param(t, "tag")).is_some();
        let Some(d) = self.dialog.as_mut().filter(|d| in_dialog && d.is_named_by(&m)) else {
            return self.out_of_dialog(m, from, in_dialog).await;
        };
        let contact = self.me.contact_uri();
        let (mut faults, notes) = d.check_request(&m, &contact);
        let cseq = m.cseq().map(|c| c.0).unwrap_or_default();
        let stale = d.remote_cseq.is_some_and(|last| cseq <= last);
        d.remote_cseq = Some(d.remote_cseq.unwrap_or(0).max(cseq));
        let busy_client = self.client.as_ref().is_some_and(|c| c.method == "INVITE");
        let refusal = match &mut self.me.manner.reinvite {
            Reaction::Glare(n) if *n > 0 && method == "INVITE" => {
                *n -= 1;
                Some(491)
            }
            Reaction::Refuse(code) => Some(*code),
            _ => None,
        };
        let (code, reason, sdp) = match method.as_str() {
            // RFC 3261 sections 12.2.2 and 14.2.
            _ if stale => (500, "CSeq too low", None),
            "INVITE" if busy_client => (491, "Request Pending", None),
            "INVITE" if refusal.is_some() => (refusal.unwrap_or_default(), "No", None),
            "INVITE" if self.server.is_some() => (500, "Previous INVITE not acknowledged", None),
            "INVITE" | "UPDATE" => {
                if let Some(c) = m.list("contact").first() {
                    d.target = uri_of(c);
                }
                if m.body.is_empty() {
                    (200, "OK", (method == "INVITE").then(|| d.own.text()))
                } else {
                    faults.extend(d.take_sdp(&m.body));
                    let direction = d.sdp.as_ref().map_or("sendrecv", |s| answer_to(&s.direction));
                    d.own.set_direction(direction);
                    (200, "OK", Some(d.own.text()))
                }
            }
            "BYE" | "OPTIONS" | "INFO" | "NOTIFY" | "MESSAGE" | "SUBSCRIBE" => (200, "OK", None),
            "REFER" => (202, "Accepted", None),
            _ => (501, "Not Implemented", None),
        };
        let direction = d.sdp.as_ref().map(|s| s.direction.clone()).unwrap_or_default();
        let now = unix_us();
        self.violations(faults);
        self.note(|s| {
            s.remote_direction = direction;
            s.notes.extend(notes.into_iter().take(MAX_FAULTS));
            s.requests.push(method.clone());
            match method.as_str() {
                "INVITE" => s.reinvites.push(Reinvite { at: now, code, acked_at: None }),
                "BYE" if code == 200 => {
                    s.bye_received = Some(now);
                    s.phase = Phase::Ended;
                }
                _ => {}
            }
        });
        if (method == "BYE" && code == 200) || code == 481 {
            self.dialog = None;
            self.server = None;
        }
        self.answer(&m, from, (code, reason), None, sdp.as_deref(), false).await;
    }

    async fn out_of_dialog(&mut self, m: Message, from: SocketAddr, in_dialog: bool) {
        match m.method().as_str() {
            "INVITE" if !in_dialog && self.dialog.is_none() => self.ring(m, from).await,
            "INVITE" if !in_dialog => self.answer(&m, from, (486, "Busy Here"), Some(&token()), None, false).await,
            "OPTIONS" if !in_dialog => self.answer(&m, from, (200, "OK"), Some(&token()), None, false).await,
            method => {
                // Not a fault by itself: a BYE may cross the other side's. The checks of the run count what matters.
                self.note(|s| s.notes.push(format!("{}: {method} outside of any dialog from {from}", self.me.number)));
                let (code, reason) = (481, "Call/Transaction Does Not Exist");
                self.answer(&m, from, (code, reason), Some(&token()), None, false).await;
            }
        }
    }

    /// A call for this phone, which rings and answers at once.
    async fn ring(&mut self, m: Message, from: SocketAddr) {
        self.violations(request_faults(&m));
        let tag = token();
        let own = Own::new(u64::from(self.me.rtp.port()) + 2000, self.me.rtp);
        let mut routes = m.list("record-route");
        // RFC 3261 section 12.1.1: the called side keeps the order.
        let recorded = !routes.is_empty();
        routes.retain(|r| !r.is_empty());
        let mut d = Dialog {
            call_id: m.call_id().to_owned(),
            local: format!("{};tag={tag}", m.get("to").unwrap_or_default()),
            remote: m.get("from").unwrap_or_default().to_owned(),
            target: m.list("contact").first().map(|c| uri_of(c)).unwrap_or_default(),
            routes,
            local_cseq: 500,
            remote_cseq: m.cseq().ok().map(|c| c.0),
            sdp: None,
            own,
            recorded,
            timed: false,
        };
        let faults = if m.body.is_empty() { vec!["INVITE without SDP".to_owned()] } else { d.take_sdp(&m.body) };
        self.violations(faults);
        let text = d.own.text();
        self.dialog = Some(d);
        self.note(|s| s.phase = Phase::Calling);
        self.answer(&m, from, (180, "Ringing"), Some(&tag), None, true).await;
        self.answer(&m, from, (200, "OK"), Some(&tag), Some(&text), true).await;
    }

    async fn answer(
        &mut self,
        m: &Message,
        from: SocketAddr,
        (code, reason): (u16, &str),
        tag: Option<&str>,
        sdp: Option<&str>,
        initial: bool,
    ) {
        let Some((via, to)) = answer_route(m, from) else {
            return self.violations(vec![format!("{}: unusable Via {:?}", m.method(), m.list("via"))]);
        };
        let to = if self.me.manner.answer_to_source { from } else { to };
        let mut w = Writer::response(m, code, reason, &via, tag);
        let (method, branch) = (m.method(), m.branch().unwrap_or_default());
        if method == "INVITE" && code < 300 {
            w.header("Contact", &self.contact());
            w.header("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, INFO");
        }
        let bytes = w.end(sdp);
        self.send(&bytes, to).await;
        self.answers.retain(|(b, n, ..)| *b != branch || *n != method);
        if self.answers.len() == ANSWERS {
            self.answers.pop_front();
        }
        self.answers.push_back((branch.clone(), method.clone(), bytes.clone(), to));
        if method == "INVITE" && (200..300).contains(&code) {
            let cseq = m.cseq().map(|c| c.0).unwrap_or_default();
            let late_offer = m.body.is_empty();
            self.server = Some(Server { repeat: Repeat::new(bytes, to), cseq, branch, initial, late_offer });
        }
    }

    fn hear_ack(&mut self, m: &Message) {
        let cseq = m.cseq().map(|c| c.0).unwrap_or_default();
        // The ACK of a refusal, or a retransmission.
        let Some(s) = self.server.take_if(|s| s.cseq == cseq) else { return };
        let mut faults = Vec::new();
        if let Some(d) = &mut self.dialog {
            if !d.is_named_by(m) {
                faults.push("ACK: Call-ID or tags are not the dialog's".to_owned());
            }
            if s.late_offer && m.body.is_empty() {
                faults.push("ACK: no SDP answer to the offer in the 200".to_owned());
            } else if s.late_offer {
                faults.extend(d.take_sdp(&m.body));
            }
        }
        // RFC 3261 sections 13.2.2.4 and 17.1.1.3: the ACK of a 2xx is a transaction of its own.
        if m.branch().as_deref() == Some(s.branch.as_str()) {
            faults.push("ACK: it has the Via branch of the INVITE, but acknowledges a 2xx".to_owned());
        }
        self.violations(faults);
        let now = unix_us();
        self.note(|st| {
            if s.initial {
                st.phase = Phase::Up;
            } else if let Some(r) = st.reinvites.last_mut() {
                r.acked_at = Some(now);
            }
        });
    }
}
