//! What a host does with virtual addresses, on real interfaces.

mod addresses;
mod announce;
mod fence;
mod forward;
mod host;
mod router;

use ipnet::IpNet;
use std::net::IpAddr;
use std::time::Duration;

/// Long enough for a packet on a virtual wire; used where none may come.
const QUIET: Duration = Duration::from_millis(300);

fn vips() -> Vec<IpNet> {
    vec!["10.77.0.9/24".parse().unwrap(), "10.77.0.10/32".parse().unwrap(), "fd77::9/64".parse().unwrap()]
}

fn ips() -> Vec<IpAddr> {
    vips().iter().map(IpNet::addr).collect()
}

fn bare(prefixes: &[IpNet]) -> Vec<IpAddr> {
    prefixes.iter().map(IpNet::addr).collect()
}
