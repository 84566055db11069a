//! One value of Via (RFC 3261 section 20.42).

use super::parts::find_param;
use super::sent_by;

/// The parts of a Via value such as `SIP/2.0/UDP 192.0.2.1:5062;branch=z9hG4bK1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// `UDP` and others, as written.
    pub transport: &'a [u8],
    /// The host in sent-by. An IPv6 address has no brackets.
    pub host: &'a [u8],
    /// The port in sent-by, if present.
    pub port: Option<u16>,
    /// Parameters from the first `;` on, or empty.
    pub params: &'a [u8],
}

impl<'a> Via<'a> {
    /// The parameter `name`. Empty if it has no value.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&'a [u8]> {
        find_param(self.params, name)
    }
}

/// Splits a Via value. `None` without a protocol of three parts or without a host. White space around the slashes and
/// the colon is allowed.
#[must_use]
pub fn via(value: &[u8]) -> Option<Via<'_>> {
    let second = memchr::memchr_iter(b'/', value).nth(1)?;
    let rest = value[second + 1..].trim_ascii_start();
    let (transport, rest) = rest.split_at(rest.iter().position(u8::is_ascii_whitespace)?);
    let (host, port) = sent_by(rest)?;
    let params = memchr::memchr(b';', rest).map_or(&rest[..0], |n| &rest[n..]);
    Some(Via { transport, host, port, params })
}
