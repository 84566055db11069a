//! Structured headers as typed values. `None` means that the header is absent or unreadable. Use [`Message::header`] to
//! tell the two apart.

use super::{Message, Method, Name, number};
use crate::sip::uri;

/// The party that refreshes a session (RFC 4028 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresher {
    /// The sender of the request.
    Uac,
    /// The sender of the response.
    Uas,
}

/// Session-Expires (RFC 4028 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionExpires {
    /// The interval, in seconds.
    pub interval_s: u32,
    /// The refresher, if named.
    pub refresher: Option<Refresher>,
}

/// RAck (RFC 3262 section 7.2): the provisional response that a PRACK acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RAck<'a> {
    /// RSeq of the provisional response.
    pub rseq: u32,
    /// CSeq number of the response.
    pub cseq: u32,
    /// CSeq method of the response.
    pub method: &'a [u8],
}

/// Replaces (RFC 3891 section 6.1), Join (RFC 3911) or Target-Dialog (RFC 4538): another dialog, named from the
/// receiver's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaces<'a> {
    /// Call-ID of the dialog.
    pub call_id: &'a [u8],
    /// The tag on the receiver's side (`local-tag` in Target-Dialog).
    pub to_tag: &'a [u8],
    /// The tag on the other side (`remote-tag` in Target-Dialog).
    pub from_tag: &'a [u8],
    /// Only an early dialog may be replaced.
    pub early_only: bool,
}

impl<'a> Replaces<'a> {
    /// Parses a header value, or the unescaped `Replaces` header of a Refer-To URI.
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (call_id, params) = value.split_at(memchr::memchr(b';', value)?);
        let call_id = call_id.trim_ascii();
        let param = |name: &str| uri::params(params).find(|p| p.name.eq_ignore_ascii_case(name.as_bytes()));
        let tag = |a: &str, b: &str| param(a).or_else(|| param(b))?.value.filter(|v| !v.is_empty());
        let (to_tag, from_tag) = (tag("to-tag", "local-tag")?, tag("from-tag", "remote-tag")?);
        let early_only = param("early-only").is_some();
        (!call_id.is_empty()).then_some(Self { call_id, to_tag, from_tag, early_only })
    }
}

/// A value of Reason (RFC 3326).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason<'a> {
    /// `SIP`, `Q.850` and others.
    pub protocol: &'a [u8],
    /// The cause number in that protocol.
    pub cause: Option<u16>,
    /// The text without its quotes, possibly empty.
    pub text: &'a [u8],
}

/// Event (RFC 6665 section 8.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The package, such as `refer` or `dialog`.
    pub package: &'a [u8],
    /// The `id` parameter, which distinguishes several subscriptions in one dialog.
    pub id: Option<&'a [u8]>,
}

/// Subscription-State (RFC 6665 section 8.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionState<'a> {
    /// `active`, `pending`, `terminated` or another state.
    pub state: &'a [u8],
    /// The reason for its end.
    pub reason: Option<&'a [u8]>,
    /// Remaining time, in seconds.
    pub expires_s: Option<u32>,
}

impl SubscriptionState<'_> {
    /// The subscription has ended.
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        self.state.eq_ignore_ascii_case(b"terminated")
    }
}

/// Session-ID (RFC 7989 section 5): the UUIDs of both ends of a session, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId<'a> {
    /// The sender's UUID. `None` for the nil UUID, which means "not known yet".
    pub local: Option<&'a [u8]>,
    /// The receiver's UUID. `None` if nil or absent (devices that only know RFC 7329 omit it).
    pub remote: Option<&'a [u8]>,
}

/// The trimmed text before the first `;`, and the parameters from the `;` on.
fn head(value: &[u8]) -> (&[u8], &[u8]) {
    let (head, params) = value.split_at(memchr::memchr(b';', value).unwrap_or(value.len()));
    (head.trim_ascii(), params)
}

fn param<'a>(params: &'a [u8], name: &str) -> Option<&'a [u8]> {
    uri::params(params).find(|p| p.name.eq_ignore_ascii_case(name.as_bytes()))?.value
}

impl<'a> Message<'a> {
    /// Session-Expires.
    #[must_use]
    pub fn session_expires(&self) -> Option<SessionExpires> {
        let (interval, params) = head(self.header(Name::SessionExpires)?);
        let refresher = param(params, "refresher").and_then(|r| match r {
            r if r.eq_ignore_ascii_case(b"uac") => Some(Refresher::Uac),
            r if r.eq_ignore_ascii_case(b"uas") => Some(Refresher::Uas),
            _ => None,
        });
        Some(SessionExpires { interval_s: number(interval)?, refresher })
    }

    /// Min-SE, in seconds.
    #[must_use]
    pub fn min_se(&self) -> Option<u32> {
        number(head(self.header(Name::MinSe)?).0)
    }

    /// RSeq: the number of a reliable provisional response.
    #[must_use]
    pub fn rseq(&self) -> Option<u32> {
        number(self.header(Name::RSeq)?)
    }

    /// RAck.
    #[must_use]
    pub fn rack(&self) -> Option<RAck<'a>> {
        let mut parts = self.header(Name::RAck)?.split(u8::is_ascii_whitespace).filter(|p| !p.is_empty());
        let (rseq, cseq, method) = (number(parts.next()?)?, number(parts.next()?)?, parts.next()?);
        Some(RAck { rseq, cseq, method })
    }

    /// Replaces.
    #[must_use]
    pub fn replaces(&self) -> Option<Replaces<'a>> {
        Replaces::parse(self.header(Name::Replaces)?)
    }

    /// The URI of Refer-To, without angle brackets.
    #[must_use]
    pub fn refer_to(&self) -> Option<&'a [u8]> {
        self.header(Name::ReferTo).map(uri::uri_of).filter(|u| !u.is_empty())
    }

    /// The URI of Referred-By, without angle brackets.
    #[must_use]
    pub fn referred_by(&self) -> Option<&'a [u8]> {
        self.header(Name::ReferredBy).map(uri::uri_of).filter(|u| !u.is_empty())
    }

    /// The values of Reason.
    pub fn reasons(&self) -> impl Iterator<Item = Reason<'a>> + '_ {
        self.values(Name::Reason).map(|value| {
            let (protocol, params) = head(value);
            let cause = param(params, "cause").and_then(number).and_then(|c| u16::try_from(c).ok());
            Reason { protocol, cause, text: param(params, "text").map(uri::unquoted).unwrap_or_default() }
        })
    }

    /// Event.
    #[must_use]
    pub fn event(&self) -> Option<Event<'a>> {
        let (package, params) = head(self.header(Name::Event)?);
        (!package.is_empty()).then(|| Event { package, id: param(params, "id") })
    }

    /// Subscription-State.
    #[must_use]
    pub fn subscription_state(&self) -> Option<SubscriptionState<'a>> {
        let (state, params) = head(self.header(Name::SubscriptionState)?);
        let expires_s = param(params, "expires").and_then(number);
        (!state.is_empty()).then(|| SubscriptionState { state, reason: param(params, "reason"), expires_s })
    }

    /// Session-ID.
    #[must_use]
    pub fn session_id(&self) -> Option<SessionId<'a>> {
        let given = |uuid: &&[u8]| !uuid.is_empty() && !uuid.iter().all(|b| matches!(b, b'0' | b'-'));
        let (local, params) = head(self.header(Name::SessionId)?);
        Some(SessionId { local: Some(local).filter(given), remote: param(params, "remote").filter(given) })
    }

    /// The caller's identity as asserted by the network: the URI of the first P-Asserted-Identity (RFC 3325), or else
    /// of the first Remote-Party-ID.
    #[must_use]
    pub fn asserted(&self) -> Option<&'a [u8]> {
        let vouched = self.values(Name::PAssertedIdentity).chain(self.values(Name::RemotePartyId));
        vouched.map(uri::uri_of).find(|u| !u.is_empty())
    }

    /// Whether a list header such as Require, Supported or Allow contains `word`, in any case.
    #[must_use]
    pub fn lists(&self, n: Name, word: &str) -> bool {
        self.values(n).any(|v| v.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Whether the CSeq method matches the request line. Always true for a response.
    #[must_use]
    pub fn cseq_agrees(&self) -> bool {
        match self.start {
            super::Start::Request { name, .. } => name == self.cseq.1,
            super::Start::Response { .. } => true,
        }
    }

    /// The method in CSeq.
    #[must_use]
    pub fn cseq_method(&self) -> Method {
        Method::of(self.cseq.1)
    }
}
