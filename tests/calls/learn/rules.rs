//! A dialog on one hop by RFC 3261, derived only from tshark's list of messages: a second opinion.

use super::tshark::Message;
use std::net::{IpAddr, SocketAddr};

/// One dialog on one hop, seen from its local end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Dialog {
    /// Highest CSeq of the requests of each end (section 12.2.1.1; ACK and CANCEL repeat another's).
    pub(crate) local_cseq: Option<u32>,
    pub(crate) remote_cseq: Option<u32>,
    /// The final answer to the last INVITE without a To tag.
    pub(crate) code: Option<u16>,
    /// Section 12.1, and target refreshes of section 12.2; only for an answered dialog.
    pub(crate) remote_target: Option<String>,
    pub(crate) route_set: Vec<String>,
    /// The last description from each end that was part of a successful exchange: `o=`, addresses and ports.
    pub(crate) local_sdp: Option<Vec<(String, u16)>>,
    pub(crate) remote_sdp: Option<Vec<(String, u16)>>,
    /// Whether a BYE was seen.
    pub(crate) bye: bool,
}

/// The identity of a dialog: Call-ID, local and remote address, local and remote tag (empty if missing).
#[derive(Clone, Debug)]
pub(crate) struct Name<'a> {
    pub(crate) call_id: &'a str,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) tags: [&'a str; 2],
}

pub(crate) fn dialog(all: &[Message], name: &Name<'_>) -> Dialog {
    let mut d = Dialog::default();
    let pairs = [(Some(name.local), Some(name.remote)), (Some(name.remote), Some(name.local))];
    let here = |m: &&Message| m.call_id == name.call_id && pairs.contains(&(m.src, m.dst));
    let hop: Vec<&Message> = all.iter().filter(here).collect();
    let out = |m: &Message| m.src == Some(name.local);
    // The local end's tag is From's in its requests and in the answers to them.
    let local_tag = |m: &Message| if out(m) == m.method.is_some() { m.from_tag.clone() } else { m.to_tag.clone() };
    let remote_tag = |m: &Message| if out(m) == m.method.is_some() { m.to_tag.clone() } else { m.from_tag.clone() };
    let mine = |m: &Message| local_tag(m) == name.tags[0] && remote_tag(m) == name.tags[1];
    let Some(first) =
        hop.iter().filter(|m| m.method.as_deref() == Some("INVITE") && m.to_tag.is_empty()).max_by_key(|m| m.cseq)
    else {
        return d;
    };
    let own_ip = name.local.ip();
    let answered = hop.iter().position(|m| {
        m.cseq_method == "INVITE" && m.cseq == first.cseq && m.code.is_some_and(|c| (200..300).contains(&c)) && mine(m)
    });
    d.code = hop
        .iter()
        .find(|m| m.cseq_method == "INVITE" && m.cseq == first.cseq && m.code.is_some_and(|c| c >= 200))
        .and_then(|m| m.code);
    // After the answer to BYE only other usages of the dialog continue (RFC 5057): NOTIFY of a transfer.
    let over = hop
        .iter()
        .position(|m| m.cseq_method == "BYE" && m.code.is_some_and(|c| c >= 200) && mine(m))
        .unwrap_or(hop.len());
    for m in &hop[..over] {
        let begins = m.to_tag.is_empty() && m.method.as_deref() == Some("INVITE");
        let counts = !matches!(m.method.as_deref(), None | Some("ACK" | "CANCEL"));
        if counts && (mine(m) || begins && m.from_tag == name.tags[usize::from(!out(m))]) {
            let place = if out(m) { &mut d.local_cseq } else { &mut d.remote_cseq };
            *place = (*place).max(Some(m.cseq));
            d.bye |= m.method.as_deref() == Some("BYE");
        }
    }
    let Some(answered) = answered else { return d };
    let ok = hop[answered];
    if out(first) {
        // Section 12.1.2: reversed. A proxy only counts the entries ahead of its own, which were put on top of it.
        let own = ok.record_route.iter().position(|r| host(r) == Some(own_ip)).unwrap_or(ok.record_route.len());
        d.route_set = ok.record_route[..own].iter().rev().cloned().collect();
        d.remote_target.clone_from(&ok.contact);
    } else {
        // Section 12.1.1: in order.
        d.route_set.clone_from(&first.record_route);
        d.remote_target.clone_from(&first.contact);
    }
    // Offers and answers, and target refreshes, transaction by transaction.
    for (n, m) in hop.iter().enumerate() {
        let Some(code) = m.code.filter(|c| (200..300).contains(c)) else { continue };
        if !matches!(m.cseq_method.as_str(), "INVITE" | "UPDATE") || !(mine(m) || n == answered) {
            continue;
        }
        let _ = code;
        let asked = hop
            .iter()
            .rev()
            .find(|r| r.method.as_deref() == Some(m.cseq_method.as_str()) && r.cseq == m.cseq && out(r) != out(m));
        let Some(asked) = asked else { continue };
        for side in [asked, m] {
            if !out(side)
                && let Some(contact) = &side.contact
            {
                d.remote_target = Some(contact.clone());
            }
        }
        let ack = hop.iter().find(|r| r.method.as_deref() == Some("ACK") && r.cseq == m.cseq && out(r) == out(asked));
        let exchange = match (&asked.sdp, &m.sdp, ack.and_then(|a| a.sdp.as_ref())) {
            (Some(offer), Some(answer), _) => Some((offer, answer)),
            // A late offer: the 2xx carries it, and ACK the answer.
            (None, Some(offer), Some(answer)) => Some((answer, offer)),
            _ => None,
        };
        if let Some((askers, answerers)) = exchange {
            let (local, remote) = if out(asked) { (askers, answerers) } else { (answerers, askers) };
            (d.local_sdp, d.remote_sdp) = (Some(local.1.clone()), Some(remote.1.clone()));
        }
    }
    d
}

/// The host of a Record-Route value.
fn host(value: &str) -> Option<IpAddr> {
    let rest = value.split_once("sip:")?.1;
    let rest = rest.rsplit_once('@').map_or(rest, |(_, r)| r);
    rest.split([';', '>', ':']).next()?.parse().ok()
}
