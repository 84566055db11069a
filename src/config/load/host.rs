//! What the configuration expects of this host besides files: interfaces, addresses, a free path, and `nft`.
//!
//! The agent waits for all of it, and it may come later (a cable, a bond, a DHCP lease, a package): warnings.

use crate::config::check::Found;
use crate::config::model::{Config, Control, HepAddress};
use crate::config::source::Source;
use crate::os::interface;
use std::net::IpAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

/// Where Debian and its kin keep `nft`. A user's PATH often lacks these folders, which the agent's has.
const SYSTEM: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

pub(super) fn check(config: &Config, source: &Source<'_>, found: &mut Found) {
    let there = interface::names();
    for (i, instance) in config.instances.iter().enumerate() {
        // Without a list (no /proc, a sandbox) nothing is known.
        if !there.is_empty() && !there.contains(&instance.interface) {
            let message = format!("there is no interface {}; there are: {}", instance.interface, there.join(", "));
            let help = "write the name that `ip link` shows; the agent waits for the interface";
            found.warnings.push(source.problem(&format!("instance[{i}].interface"), message, help));
        } else if !there.is_empty() && interface::link(&instance.interface).is_none() {
            let message =
                format!("cannot announce addresses on {}: the interface has no Ethernet address", instance.interface);
            let help = "name an Ethernet interface, a bridge, a bond or a VLAN: a tunnel has no ARP to announce by";
            found.warnings.push(source.problem(&format!("instance[{i}].interface"), message, help));
        }
        for (j, listen) in instance.sip.iter().flat_map(|s| &s.hep).flat_map(|h| &h.listen).enumerate() {
            if absent(listen) {
                let message = format!("this host does not have {}", listen.address.ip());
                let help = "listen on 127.0.0.1 if the server is here; the agent waits for the address";
                found.warnings.push(source.problem(&format!("instance[{i}].sip.hep.listen[{j}]"), message, help));
            }
        }
    }
    if is_absent(config.node.address) {
        let message = format!("this host does not have {}", config.node.address);
        let help = "`address` in [node] must be an address of this host (see `ip address`), not a VIP; the agent waits \
             for the address";
        found.warnings.push(source.problem("node.address", message, help));
    }
    if let Some(why) = occupied(&config.control) {
        let help = "remove the file, or name another path ([control] socket)";
        found.errors.push(source.problem("control.socket", why, help));
    }
    if !has_nft() {
        let message = "cannot find the program `nft`, by which the agent makes its tables";
        found.warnings.push(source.problem("instance", message, "install the package `nftables`"));
    }
}

fn absent(listen: &HepAddress) -> bool {
    !listen.address.ip().is_unspecified() && is_absent(listen.address.ip())
}

/// Whether the kernel would refuse to bind `ip`. All of 127.0.0.0/8 is here, whatever the list says.
fn is_absent(ip: IpAddr) -> bool {
    !ip.is_loopback() && interface::addresses().is_ok_and(|all| !all.contains(&ip))
}

fn occupied(control: &Control) -> Option<String> {
    let kind = std::fs::metadata(&control.socket).ok()?.file_type();
    (!kind.is_socket()).then(|| format!("{} exists and is not a socket", control.socket.display()))
}

fn has_nft() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(SYSTEM.iter().map(|s| Path::new(s).to_owned())).any(|d| d.join("nft").is_file())
}
