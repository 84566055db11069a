//! Meaning of a HEP packet's protocol number. IP has no number for TLS or WebSocket, and each server writes its own.
//!
//! | server | udp | tcp | tls | ws | wss |
//! |---|---|---|---|---|---|
//! | Kamailio (siptrace_hep.c, `pipport2su`) | 17 | 6 | 22 | 22, sent: 6 | 22, sent: 6 |
//! | OpenSIPS (tracer) | 17 | 6 | 22 | 50 | 50 |
//! | FreeSWITCH (sofia-sip tport_logging.c) | 17 | 6 | 22 | 6 | 6 |
//! | Asterisk (res_hep_pjsip.c) | 17 | 6 | 6 | 6 | 6 |
//! | Asterisk before it filled the field in | 17 | 17 | 17 | 17 | 17 |
//!
//! The message is more reliable: the topmost Via names the transport of the current hop, in both directions (RFC 3261
//! sections 18.1.1 and 18.2.2). Via decides. The number decides only if Via names plain TCP or UDP and the number says
//! more.

use crate::sip::Transport;
use crate::sip::message::{Message, Name};
use crate::sip::uri;

/// IPPROTO_TCP.
const TCP: u8 = 6;
/// IPPROTO_UDP.
pub(super) const UDP: u8 = 17;
/// IPPROTO_IDP, which is obsolete. It means TLS, and for Kamailio also WebSocket.
const IDP: u8 = 22;
/// IPPROTO_ESP, which means WebSocket.
const ESP: u8 = 50;
/// IPPROTO_SCTP.
const SCTP: u8 = 132;

/// Transport of a message from HEP with this protocol number. `None` for a transport that is not learnt (SCTP).
///
/// An error towards "not UDP" costs a call its re-INVITE. An error towards UDP sends one to a port where nobody
/// listens. UDP is therefore assumed only if neither the number nor Via contradicts.
#[must_use]
pub fn transport_of(message: &Message<'_>, protocol: u8) -> Option<Transport> {
    let via = message.values(Name::Via).next().and_then(uri::via);
    let named = via.map_or(&b""[..], |v| v.transport);
    let is = |name: &str| named.eq_ignore_ascii_case(name.as_bytes());
    if is("SCTP") || is("TLS-SCTP") || protocol == SCTP {
        return None;
    }
    Some(match protocol {
        _ if is("TLS") => Transport::Tls,
        _ if is("WS") || is("WSS") => Transport::Ws,
        ESP => Transport::Ws,
        IDP => Transport::Tls,
        TCP => Transport::Tcp,
        _ if is("TCP") => Transport::Tcp,
        _ => Transport::Udp,
    })
}
