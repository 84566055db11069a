//! The addresses and names by which the outside knows a virtual address behind a NAT.

use super::uri;
use std::net::IpAddr;

/// The server's other addresses and host names, as the configuration lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertised {
    addresses: Vec<IpAddr>,
    names: Vec<String>,
}

impl Advertised {
    /// The listed hosts: each an address, or else a name.
    pub fn new<T: AsRef<str>>(hosts: impl IntoIterator<Item = T>) -> Self {
        let mut all = Self::default();
        for host in hosts {
            match host.as_ref().parse() {
                Ok(ip) => all.addresses.push(ip),
                Err(_) => all.names.push(host.as_ref().to_ascii_lowercase()),
            }
        }
        all
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.names.is_empty()
    }

    /// Whether `ip` is one of the addresses.
    #[must_use]
    pub fn has(&self, ip: IpAddr) -> bool {
        self.addresses.contains(&ip)
    }

    /// Whether a host of a URI or a Via (without brackets) is one of the addresses or names.
    #[must_use]
    pub fn has_host(&self, host: &[u8]) -> bool {
        let ip = std::str::from_utf8(host).ok().and_then(|h| h.parse().ok());
        ip.is_some_and(|ip| self.has(ip)) || self.names.iter().any(|n| n.as_bytes().eq_ignore_ascii_case(host))
    }

    /// The one of the virtual addresses `vips` that a phone reaches if the server has `told` it this address. `server`
    /// is the virtual address of the leg's SIP. `None` for an address that is not the server's.
    ///
    /// Of several virtual addresses behind one advertised address, the address of the leg's SIP is meant: a server
    /// answers for SIP and audio at the same one. Another family never is.
    #[must_use]
    pub fn vip_behind(&self, vips: &[IpAddr], told: IpAddr, server: IpAddr) -> Option<IpAddr> {
        if vips.contains(&told) {
            return Some(told);
        }
        let mut behind = vips.iter().copied().filter(|vip| self.has(told) && vip.is_ipv4() == told.is_ipv4());
        let first = behind.next()?;
        if behind.next().is_none() {
            Some(first)
        } else {
            Some(server).filter(|ip| vips.contains(ip) && ip.is_ipv4() == told.is_ipv4())
        }
    }

    /// The host of this URI, if it is one of the addresses.
    #[must_use]
    pub fn ip_in(&self, u: &[u8]) -> Option<IpAddr> {
        let (host, _) = uri::host_port(u)?;
        std::str::from_utf8(host).ok()?.parse().ok().filter(|ip| self.has(*ip))
    }
}

#[cfg(test)]
mod tests {
    use super::Advertised;

    #[test]
    fn addresses_and_names_are_recognized_in_any_notation() {
        let a = Advertised::new(["203.0.113.10", "2001:DB8::10", "SIP.example.com"]);
        for host in ["203.0.113.10", "2001:db8:0::10", "sip.EXAMPLE.com"] {
            assert!(a.has_host(host.as_bytes()), "{host}");
        }
        for host in ["203.0.113.1", "example.com", ""] {
            assert!(!a.has_host(host.as_bytes()), "{host}");
        }
        assert_eq!(a.ip_in(b"sip:x@203.0.113.10:5060"), "203.0.113.10".parse().ok());
        assert_eq!(a.ip_in(b"sip:x@[2001:db8::10]:5060"), "2001:db8::10".parse().ok());
        assert_eq!((a.ip_in(b"sip:sip.example.com"), a.ip_in(b"")), (None, None));
    }
}
