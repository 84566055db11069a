//! A phone's half of a dialog (RFC 3261 section 12), and checks of the other side's messages in the dialog.

use super::message::{Message, Start, Writer, param, target_of, uri_of};
use super::sdp::{Own, Sdp};
use std::net::SocketAddr;

/// The magic cookie of RFC 3261 section 8.1.1.7.
pub(crate) const COOKIE: &str = "z9hG4bK";

/// A dialog.
pub(crate) struct Dialog {
    pub(crate) call_id: String,
    /// The phone's own From (or To) value, tag included.
    pub(crate) local: String,
    /// The other side's value. The tag is missing until the other side sends one.
    pub(crate) remote: String,
    /// The other side's Contact.
    pub(crate) target: String,
    /// Route values in the order of sending.
    pub(crate) routes: Vec<String>,
    pub(crate) local_cseq: u32,
    /// Highest CSeq received.
    pub(crate) remote_cseq: Option<u32>,
    /// The other side's last SDP.
    pub(crate) sdp: Option<Sdp>,
    pub(crate) own: Own,
    /// Whether the other side's first message had a Record-Route.
    pub(crate) recorded: bool,
    /// Whether the phone's INVITEs ask for a session timer.
    pub(crate) timed: bool,
}

impl Dialog {
    /// Destination of the next request.
    pub(crate) fn next_hop(&self) -> Option<SocketAddr> {
        target_of(&self.routes.first().map_or_else(|| self.target.clone(), |r| uri_of(r)))
    }

    /// A request within the dialog.
    pub(crate) fn request(&self, method: &str, cseq: u32, via: &str, contact: &str, sdp: Option<&str>) -> Vec<u8> {
        let mut w = Writer::request(method, &self.target);
        w.header("Via", via);
        w.header("Max-Forwards", "70");
        for r in &self.routes {
            w.header("Route", r);
        }
        w.header("From", &self.local);
        w.header("To", &self.remote);
        w.header("Call-ID", &self.call_id);
        w.header("CSeq", &format!("{cseq} {method}"));
        if matches!(method, "INVITE" | "UPDATE" | "REFER" | "SUBSCRIBE" | "NOTIFY") {
            w.header("Contact", contact);
        }
        // What RFC 3515 and RFC 6665 demand.
        let more: &[(&str, &str)] = match method {
            "REFER" => &[("Refer-To", "<sip:nobody@example.org>")],
            "SUBSCRIBE" => &[("Event", "dialog"), ("Expires", "600")],
            "NOTIFY" => &[("Event", "dialog"), ("Subscription-State", "active;expires=600")],
            _ => &[],
        };
        more.iter().for_each(|(name, value)| w.header(name, value));
        if method == "INVITE" && self.timed {
            w.header("Supported", "timer");
            w.header("Session-Expires", "1800;refresher=uac");
        }
        w.end(sdp)
    }

    /// Whether a request names this dialog by Call-ID and both tags.
    pub(crate) fn is_named_by(&self, m: &Message) -> bool {
        let (from, to) = (m.get("from").unwrap_or_default(), m.get("to").unwrap_or_default());
        m.call_id() == self.call_id
            && param(to, "tag") == param(&self.local, "tag")
            && param(from, "tag") == param(&self.remote, "tag")
    }

    /// Breaches of RFC 3261 in a request (not ACK) within this dialog, from `source` to the phone's `contact` URI; and
    /// what is merely odd.
    pub(crate) fn check_request(&self, m: &Message, contact: &str) -> (Vec<String>, Vec<String>) {
        let (mut faults, mut notes) = (request_faults(m), Vec::new());
        let method = m.method();
        for (name, value, mine) in [("From", m.get("from"), &self.remote), ("To", m.get("to"), &self.local)] {
            let value = value.unwrap_or_default();
            if uri_of(value) != uri_of(mine) {
                faults.push(format!(
                    "{method}: {name} has the URI {:?}, the dialog has {:?}",
                    uri_of(value),
                    uri_of(mine)
                ));
            }
        }
        if let Start::Request(_, uri) = &m.start
            && uri != contact
        {
            faults.push(format!("{method}: the request URI is {uri}, the phone's Contact is {contact}"));
        }
        match (m.cseq(), self.remote_cseq) {
            (Ok((n, _)), Some(last)) if n <= last => {
                faults.push(format!("{method}: CSeq {n} does not rise above {last}"))
            }
            (Ok((n, _)), Some(last)) if n != last + 1 => notes.push(format!("{method}: CSeq went from {last} to {n}")),
            _ => {}
        }
        if !m.list("record-route").is_empty() && !self.recorded {
            faults.push(format!("{method}: a Record-Route where the dialog's first message had none"));
        }
        if !m.list("route").is_empty() {
            faults.push(format!("{method}: a Route that names the phone was not removed"));
        }
        (faults, notes)
    }

    /// Takes the other side's SDP. Returns breaches of RFC 3264.
    pub(crate) fn take_sdp(&mut self, text: &str) -> Vec<String> {
        match Sdp::parse(text) {
            Ok(new) => {
                let mut faults = self.sdp.as_ref().map(|old| new.faults_after(old)).unwrap_or_default();
                if !new.formats.iter().any(|f| f == "0") && new.audio.is_some() {
                    faults.push(format!("SDP offers formats {:?} without PCMU, which was agreed", new.formats));
                }
                self.sdp = Some(new);
                faults
            }
            Err(e) => vec![e],
        }
    }
}

/// Breaches of RFC 3261 in any request, taken by itself.
pub(crate) fn request_faults(m: &Message) -> Vec<String> {
    let mut faults = Vec::new();
    let method = m.method();
    if !m.branch().is_some_and(|b| b.starts_with(COOKIE) && b.len() > COOKIE.len()) {
        faults.push(format!("{method}: the Via branch {:?} does not begin with {COOKIE}", m.branch()));
    }
    match m.get("max-forwards").map(str::parse::<u8>) {
        Some(Ok(n)) if n > 0 => {}
        other => faults.push(format!("{method}: Max-Forwards is {other:?}")),
    }
    match m.cseq() {
        Ok((_, named)) if named == method => {}
        other => faults.push(format!("{method}: CSeq is {other:?}")),
    }
    if m.get("from").and_then(|f| param(f, "tag")).is_none() {
        faults.push(format!("{method}: From has no tag"));
    }
    if method == "INVITE" {
        let contacts = m.list("contact");
        if contacts.len() != 1 || target_of(&uri_of(&contacts[0])).is_none() {
            faults.push(format!("INVITE: Contact is {contacts:?}, not one SIP URI"));
        }
    }
    if !m.body.is_empty() && m.get("content-type") != Some("application/sdp") {
        faults.push(format!("{method}: a body of type {:?}", m.get("content-type")));
    }
    for once in ["from", "to", "call-id", "cseq", "max-forwards", "content-length", "content-type"] {
        if m.headers.iter().filter(|(n, _)| n == once).count() > 1 {
            faults.push(format!("{method}: more than one {once}"));
        }
    }
    faults
}

/// The top Via of a response, and the destination of the response (RFC 3261 sections 18.2.1 and 18.2.2, RFC 3581).
pub(crate) fn answer_route(m: &Message, source: SocketAddr) -> Option<(String, SocketAddr)> {
    let top = m.list("via").first()?.clone();
    let (protocol, rest) = top.split_once(char::is_whitespace)?;
    if protocol != "SIP/2.0/UDP" {
        return None;
    }
    let sent_by = rest.split(';').next()?.trim();
    let named: Option<SocketAddr> = sent_by
        .parse()
        .ok()
        .or_else(|| sent_by.trim_matches(['[', ']']).parse().ok().map(|ip| SocketAddr::new(ip, 5060)));
    let mut via = top.clone();
    if param(&top, "rport").is_some() {
        let with = format!(";rport={}", source.port());
        via = via.replacen(";rport=", ";x-rport=", 1).replacen(";rport", &with, 1);
        via.push_str(&format!(";received={}", source.ip()));
        return Some((via, source));
    }
    match named {
        Some(n) if n.ip() == source.ip() => Some((via, n)),
        other => {
            via.push_str(&format!(";received={}", source.ip()));
            Some((via, SocketAddr::new(source.ip(), other.map_or(5060, |n| n.port()))))
        }
    }
}
