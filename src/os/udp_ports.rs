//! The UDP addresses that some process of this network namespace has bound, from `/proc/net` (proc(5)).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bound UDP addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct BoundUdp(Vec<SocketAddr>);

impl BoundUdp {
    /// The present ones.
    ///
    /// The kernel hands a long list out in pieces, and leaves a socket out when another one is closed between two pieces.
    /// So this reads the list twice, and what either copy has counts as bound.
    ///
    /// # Errors
    /// The kernel does not list them. Without a list nothing may count as free.
    pub(crate) fn now() -> io::Result<Self> {
        let mut all = Self::listed()?;
        all.extend(Self::listed()?);
        Ok(Self(all))
    }

    fn listed() -> io::Result<Vec<SocketAddr>> {
        let mut all = parse(&fs::read_to_string("/proc/net/udp")?);
        match fs::read_to_string("/proc/net/udp6") {
            Ok(text) => all.extend(parse(&text)),
            // A kernel without IPv6.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        Ok(all)
    }

    /// Whether a process receives what comes to this address. A socket that is bound to all addresses does; one of IPv6
    /// may receive IPv4 as well.
    pub(crate) fn has(&self, at: SocketAddr) -> bool {
        self.0.iter().any(|bound| bound.port() == at.port() && (bound.ip().is_unspecified() || bound.ip() == at.ip()))
    }
}

/// The second column of each line after the head: address and port in hexadecimal, the address in words of the host's
/// byte order.
fn parse(text: &str) -> Vec<SocketAddr> {
    let local = |line: &str| {
        let (ip, port) = line.split_ascii_whitespace().nth(1)?.split_once(':')?;
        let words: Vec<[u8; 4]> = (0..ip.len() / 8)
            .map(|i| Some(u32::from_str_radix(ip.get(i * 8..i * 8 + 8)?, 16).ok()?.to_ne_bytes()))
            .collect::<Option<_>>()?;
        let ip: IpAddr = match words.as_slice() {
            [word] => Ipv4Addr::from(*word).into(),
            [_, _, _, _] => Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?).to_canonical(),
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
    };
    text.lines().skip(1).filter_map(local).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn the_kernels_list_has_what_is_bound_and_nothing_else() {
        let of = |at: &str| UdpSocket::bind(at).unwrap();
        let (one, all, six) = (of("127.0.0.1:0"), of("0.0.0.0:0"), of("[::1]:0"));
        let now = BoundUdp::now().unwrap();
        let port = |s: &UdpSocket| s.local_addr().unwrap().port();
        assert!(now.has(one.local_addr().unwrap()) && now.has(six.local_addr().unwrap()));
        assert!(!now.has(SocketAddr::new([192, 0, 2, 1].into(), port(&one))), "bound to another address");
        assert!(now.has(SocketAddr::new([192, 0, 2, 1].into(), port(&all))), "bound to every address");
        let (at, free) = (one.local_addr().unwrap(), port(&one));
        drop(one);
        assert!(!BoundUdp::now().unwrap().has(at), "{free} is free again");
    }

    #[test]
    fn lines_that_nobody_expects_are_skipped() {
        let text = "head\n 1: 0100007F:13C4 00000000:0000 07\n\n2:\n3: XYZ:1\n4: 0100007F\n5: 0100:13C4 0\n";
        assert_eq!(parse(text).len(), 1);
    }
}
