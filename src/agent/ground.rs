//! The facts about this host for an instance's relay.

use crate::config;
use crate::os::interface;
use crate::recovery::permitted::Ground;
use crate::sip::advertised::Advertised;
use std::net::IpAddr;
use tracing::warn;

/// The ground of an instance. Another instance's virtual address does not count as this host's own, wherever it is now.
/// While that address is here, the relay's rules drop packets to it.
pub(super) fn of(config: &config::Config, sip: &config::Sip, vips: &[IpAddr]) -> Ground {
    let virtual_ones: Vec<IpAddr> =
        config.instances.iter().flat_map(|i| i.addresses.iter().map(ipnet::IpNet::addr)).collect();
    let own = match interface::addresses() {
        Ok(all) => all.into_iter().filter(|ip| !virtual_ones.contains(ip)).collect(),
        Err(e) => {
            warn!("cannot list the addresses of this host, so calls whose audio goes to one are shown as relayed: {e}");
            Vec::new()
        }
    };
    let all = config.instances.iter().filter_map(|i| i.sip.as_ref());
    let sip_ports = all.flat_map(|sip| sip.ports.iter().copied().chain([sip.recovery_port])).collect();
    let external = sip.media == config::Media::External;
    Ground {
        vips: vips.to_vec(),
        media_ports: sip.media_ports,
        sip_ports,
        own,
        external,
        advertised: Advertised::new(&sip.advertised),
        min_confidence: sip.min_confidence,
    }
}
