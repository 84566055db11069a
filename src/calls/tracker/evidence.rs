//! Pairing evidence in the first INVITE of a leg: who calls whom.

use crate::sip::message::{Message, Name};
use crate::sip::uri;

/// Longest identity or header value that is kept, in bytes. A longer one counts as absent.
const MAX_CLUE: usize = 256;

pub(super) type Clue = Option<Box<[u8]>>;

/// Evidence from a leg's first INVITE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Users of From and of P-Asserted-Identity or Remote-Party-ID: the caller.
    pub caller: [Clue; 2],
    /// Users of the request URI and of To: the callee.
    pub callee: [Clue; 2],
    /// The caller's UUID in Session-ID (RFC 7989).
    pub session_id: Clue,
    /// Value of the header that the operator named.
    pub header: Clue,
    /// The ICID of P-Charging-Vector (RFC 7315 section 4.6): one value per call, on every hop.
    pub charging: Clue,
    /// The dialog that this one replaces (RFC 3891): an attended transfer, or a call pickup.
    pub replaces: Option<Box<Replaced>>,
}

/// The dialog named in Replaces, as the server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// Its Call-ID.
    pub call_id: Box<[u8]>,
    /// The server's tag in it.
    pub local_tag: Box<[u8]>,
    /// The phone's tag in it.
    pub remote_tag: Box<[u8]>,
}

impl Replaced {
    fn of(m: &Message<'_>, out: bool) -> Option<Box<Self>> {
        let r = m.replaces().filter(|r| [r.call_id, r.to_tag, r.from_tag].iter().all(|v| v.len() <= MAX_CLUE))?;
        // RFC 3891 section 3: to-tag is the tag of the INVITE's receiver.
        let (local, remote) = if out { (r.from_tag, r.to_tag) } else { (r.to_tag, r.from_tag) };
        Some(Box::new(Self { call_id: r.call_id.into(), local_tag: local.into(), remote_tag: remote.into() }))
    }
}

impl Evidence {
    pub(super) fn of(m: &Message<'_>, out: bool, pair_header: Option<&str>) -> Self {
        let asserted = m
            .values(Name::PAssertedIdentity)
            .chain(m.values(Name::RemotePartyId))
            .find_map(|v| identity(uri::uri_of(v)));
        Self {
            caller: [identity(uri::uri_of(m.from())), asserted],
            callee: [m.request_uri().and_then(identity), identity(uri::uri_of(m.to()))],
            session_id: m.header(Name::SessionId).and_then(session_uuid),
            header: pair_header.and_then(|n| m.named(n)).and_then(keep),
            charging: m.named("P-Charging-Vector").and_then(icid),
            replaces: Replaced::of(m, out),
        }
    }
}

fn keep(value: &[u8]) -> Clue {
    (!value.is_empty() && value.len() <= MAX_CLUE).then(|| value.into())
}

/// The user of a URI, if it identifies a party.
fn identity(u: &[u8]) -> Clue {
    // Servers write these for a hidden or unknown caller (RFC 3323 section 4.1.1.3).
    const NOBODY: [&[u8]; 6] = [b"anonymous", b"unknown", b"restricted", b"unavailable", b"asterisk", b"s"];
    uri::user(u).filter(|user| !NOBODY.iter().any(|n| n.eq_ignore_ascii_case(user))).and_then(keep)
}

fn session_uuid(value: &[u8]) -> Clue {
    let uuid = value[..memchr::memchr(b';', value).unwrap_or(value.len())].trim_ascii();
    // The nil UUID means that a side has none yet (RFC 7989 section 5).
    (!uuid.iter().all(|b| *b == b'0')).then(|| keep(&uuid.to_ascii_lowercase())).flatten()
}

fn icid(value: &[u8]) -> Clue {
    const NAME: &[u8] = b"icid-value=";
    let param = value.split(|b| *b == b';').map(<[u8]>::trim_ascii);
    let value = param
        .filter_map(|p| p.get(..NAME.len()).filter(|n| n.eq_ignore_ascii_case(NAME)).map(|_| &p[NAME.len()..]))
        .next()?;
    keep(value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value))
}
