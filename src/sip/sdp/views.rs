//! Views of a description beyond addresses and formats: keys, ICE, bundles, packet times, fax. Read from the lines on
//! demand.

use super::line::{fields, lines, trimmed};
use super::{Direction, Media, Sdp, number};
use std::net::IpAddr;

/// An `a=crypto` line (RFC 4568) with keys in the description itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Crypto<'a> {
    /// Its number in the offer, repeated in the answer.
    pub tag: u32,
    /// The suite, such as `AES_CM_128_HMAC_SHA1_80`.
    pub suite: &'a [u8],
    /// `inline:` with the key, and its lifetime and MKI.
    pub key: &'a [u8],
}

impl std::fmt::Debug for Crypto<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keep keys out of logs.
        let suite = String::from_utf8_lossy(self.suite);
        f.debug_struct("Crypto").field("tag", &self.tag).field("suite", &suite).finish_non_exhaustive()
    }
}

/// `a=setup` (RFC 4145 section 4): the role in opening the DTLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// The describer opens it.
    Active,
    /// The other side opens it.
    Passive,
    /// Either side. The answer decides.
    ActPass,
    /// Neither side for now.
    HoldConn,
}

/// An `a=candidate` line (RFC 8839 section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// 1 for RTP, 2 for RTCP.
    pub component: u16,
    /// `UDP` or `TCP`, as written.
    pub transport: &'a [u8],
    /// The address. `None` for a host name (mDNS).
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// `host`, `srflx`, `prflx` or `relay`.
    pub kind: &'a [u8],
}

/// An `a=group` line (RFC 5888).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    /// `BUNDLE`, `LS` and others.
    pub semantics: &'a [u8],
    /// The `a=mid` values of its m-lines. The first one in a bundle has the shared address.
    pub mids: Vec<&'a [u8]>,
}

fn attributes<'a>(block: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    lines(block).filter_map(move |l| l.attribute(name)).map(trimmed)
}

impl<'a> Media<'a> {
    /// The values of the m-line's own attributes `name`, in order. Empty for an attribute without a value.
    pub fn attributes(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        attributes(self.block, name.as_bytes())
    }

    /// The value of the m-line's first attribute `name`.
    #[must_use]
    pub fn attribute(&self, name: &'a str) -> Option<&'a [u8]> {
        self.attributes(name).next()
    }

    /// The value of the m-line's attribute, or else of the session's, for attributes that an m-line inherits.
    fn inherited(&self, name: &'a str) -> Option<&'a [u8]> {
        self.attribute(name).or_else(|| attributes(self.session, name.as_bytes()).next())
    }

    /// The m-line and all its lines, as written.
    #[must_use]
    pub const fn block(&self) -> &'a [u8] {
        self.block
    }

    /// `a=crypto` lines, in order, without malformed ones.
    pub fn cryptos(&self) -> impl Iterator<Item = Crypto<'a>> + use<'a> {
        self.attributes("crypto").filter_map(|v| {
            let mut parts = fields(v);
            Some(Crypto { tag: number(parts.next()?)?, suite: parts.next()?, key: parts.next()? })
        })
    }

    /// `a=fingerprint`: hash function and value, from the session if the m-line has none of its own.
    pub fn fingerprints(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let block = if self.attribute("fingerprint").is_some() { self.block } else { self.session };
        attributes(block, b"fingerprint").filter_map(|v| {
            let mut parts = fields(v);
            Some((parts.next()?, parts.next()?))
        })
    }

    /// `a=setup`.
    #[must_use]
    pub fn setup(&self) -> Option<Setup> {
        let known = [
            (&b"active"[..], Setup::Active),
            (b"passive", Setup::Passive),
            (b"actpass", Setup::ActPass),
            (b"holdconn", Setup::HoldConn),
        ];
        let value = self.inherited("setup")?;
        known.iter().find(|(word, _)| word.eq_ignore_ascii_case(value)).map(|(_, s)| *s)
    }

    /// `a=tls-id` (RFC 8842). A new value asks for a new DTLS association.
    #[must_use]
    pub fn tls_id(&self) -> Option<&'a [u8]> {
        self.inherited("tls-id")
    }

    /// `a=ice-ufrag` and `a=ice-pwd`. New values mean an ICE restart.
    #[must_use]
    pub fn ice(&self) -> Option<(&'a [u8], &'a [u8])> {
        Some((self.inherited("ice-ufrag")?, self.inherited("ice-pwd")?))
    }

    /// `a=candidate` lines, in order, without malformed ones.
    pub fn candidates(&self) -> impl Iterator<Item = Candidate<'a>> + use<'a> {
        self.attributes("candidate").filter_map(|v| {
            let mut parts = fields(v).skip(1);
            let (component, transport, _priority) = (number(parts.next()?)?, parts.next()?, parts.next()?);
            let address = std::str::from_utf8(parts.next()?).ok()?.parse().ok();
            let port = number(parts.next()?)?;
            (parts.next()? == b"typ").then_some(())?;
            Some(Candidate { component, transport, address, port, kind: parts.next()? })
        })
    }

    /// `a=mid` (RFC 5888).
    #[must_use]
    pub fn mid(&self) -> Option<&'a [u8]> {
        self.attribute("mid")
    }

    /// `a=ptime`, in milliseconds.
    #[must_use]
    pub fn ptime(&self) -> Option<u16> {
        // Some senders write a fraction (`32.5`), which no packet has.
        self.attribute("ptime").and_then(|v| number(v.split(|b| *b == b'.').next()?))
    }

    /// The parameters of `a=fmtp` for a payload type.
    #[must_use]
    pub fn fmtp(&self, format: &[u8]) -> Option<&'a [u8]> {
        self.attributes("fmtp").find_map(|v| {
            let (pt, rest) = v.split_at(memchr::memchr2(b' ', b'\t', v)?);
            (pt == format).then(|| trimmed(rest))
        })
    }

    /// The m-line's own `b=` lines: type and number (kbit/s for `AS`, bit/s for `TIAS`).
    pub fn bandwidths(&self) -> impl Iterator<Item = (&'a [u8], u64)> + use<'a> {
        lines(self.block).filter_map(|l| {
            let v = l.value(b'b')?;
            let colon = memchr::memchr(b':', v)?;
            Some((trimmed(&v[..colon]), number(trimmed(&v[colon + 1..]))?))
        })
    }

    /// The m-line is refused or switched off: its port is 0, and it does not get its port from a bundle
    /// (`a=bundle-only`, RFC 9143 section 6).
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.port == 0 && self.attribute("bundle-only").is_none()
    }

    /// The describer has put the other side on hold: `sendonly` or `inactive`, or `c=` of all zeros as in RFC 2543.
    #[must_use]
    pub fn is_hold(&self) -> bool {
        matches!(self.direction, Direction::SendOnly | Direction::Inactive)
            || self.connection.is_some_and(|ip| ip.is_unspecified())
    }

    /// The m-line is T.38 fax over UDPTL (ITU-T T.38 annex D).
    #[must_use]
    pub fn is_t38(&self) -> bool {
        self.kind.eq_ignore_ascii_case(b"image") && self.formats.iter().any(|f| f.eq_ignore_ascii_case(b"t38"))
    }

    /// The m-line carries RTP, plain or encrypted.
    #[must_use]
    pub fn is_rtp(&self) -> bool {
        self.proto.windows(4).any(|w| w.eq_ignore_ascii_case(b"RTP/")) || self.is_secure()
    }

    /// The m-line has a secure profile (`RTP/SAVP`, `UDP/TLS/RTP/SAVPF`).
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.proto.windows(4).any(|w| w.eq_ignore_ascii_case(b"SAVP"))
    }
}

impl<'a> Sdp<'a> {
    /// The values of the session's own attributes `name`, in order.
    pub fn attributes(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        attributes(self.session, name.as_bytes())
    }

    /// `a=group`, in order.
    pub fn groups(&self) -> impl Iterator<Item = Group<'a>> + use<'a> {
        self.attributes("group").filter_map(|v| {
            let mut parts = fields(v);
            Some(Group { semantics: parts.next()?, mids: parts.collect() })
        })
    }

    /// The m-line with the address that m-line `i` shares (RFC 9143): the first enabled one of its bundle, possibly `i`
    /// itself.
    #[must_use]
    pub fn bundled_with(&self, i: usize) -> Option<usize> {
        let mid = self.media().get(i)?.mid()?;
        let bundle = self.groups().find(|g| g.semantics.eq_ignore_ascii_case(b"BUNDLE") && g.mids.contains(&mid))?;
        bundle.mids.iter().find_map(|mid| self.media().iter().position(|m| m.mid() == Some(mid) && m.port != 0))
    }

    /// The describer is an ICE-lite agent (RFC 8839 section 5.3).
    #[must_use]
    pub fn is_ice_lite(&self) -> bool {
        self.attributes("ice-lite").next().is_some()
    }
}
