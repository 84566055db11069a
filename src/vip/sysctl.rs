//! Kernel settings for the address and the relay. The agent writes only settings that differ, and reports each change.

use std::fmt;
use std::path::PathBuf;

/// One changed setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The setting in sysctl's own spelling with slashes, such as `net/ipv4/ip_nonlocal_bind`.
    pub name: String,
    /// The old value.
    pub from: String,
    /// The new value.
    pub to: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.name, self.from, self.to)
    }
}

/// Why a setting could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {name} to {to}: {source}; set the value in sysctl.d, or let the agent write to /proc/sys/net")]
pub struct SysctlError {
    /// The setting.
    pub name: String,
    /// The wanted value.
    pub to: String,
    /// The system's error.
    pub source: std::io::Error,
}

/// The result of the preparation.
#[derive(Debug, Default)]
pub struct Prepared {
    /// The changed settings.
    pub changes: Vec<Change>,
    /// The failures. The other settings are still changed.
    pub errors: Vec<SysctlError>,
    /// Warnings for the operator: side effects, and foreign rules that are in the way.
    pub warnings: Vec<String>,
}

/// Lets the server bind the address before it arrives, for both families. Keeps the removal of one address from
/// removing other addresses of its subnet.
#[must_use]
pub fn for_address(interface: &str) -> Prepared {
    let mut done = Prepared::default();
    done.set("net/ipv4/ip_nonlocal_bind", "1");
    done.set("net/ipv6/ip_nonlocal_bind", "1");
    // Without this setting the kernel removes all secondary addresses of a subnet with the primary one: dropping the
    // address of one instance would drop the addresses of another.
    done.set(&format!("net/ipv4/conf/{interface}/promote_secondaries"), "1");
    done
}

/// Lets the kernel relay forward in and out of `interface`: turns forwarding on for packets that arrive there, and
/// redirects off. The relay sends packets back out of their ingress interface, and a redirect would tell phones to
/// bypass it.
#[must_use]
pub fn for_relay(interface: &str) -> Prepared {
    let mut done = Prepared::default();
    done.set(&format!("net/ipv4/conf/{interface}/forwarding"), "1");
    // The kernel sends redirects if either setting is on.
    done.set("net/ipv4/conf/all/send_redirects", "0");
    done.set(&format!("net/ipv4/conf/{interface}/send_redirects"), "0");
    if path("net/ipv6").exists() {
        let forced = format!("net/ipv6/conf/{interface}/force_forwarding");
        if path(&forced).exists() {
            // Linux 6.17 and later: forwards packets that arrive here, and leaves conf/all and router advertisements as
            // they are.
            done.set(&forced, "1");
        } else {
            done.forward_all_v6();
        }
    }
    done
}

/// Whether IPv6 forwarding is on for `interface`. A neighbour advertisement then sets the router flag.
#[must_use]
pub fn forwards_v6(interface: &str) -> bool {
    let on = |name: &str| read(name).is_some_and(|v| v == "1");
    on(&format!("net/ipv6/conf/{interface}/forwarding"))
}

impl Prepared {
    /// Before 6.17 only conf/all decides whether IPv6 is forwarded. An interface's own setting only makes the interface
    /// behave as a router's (`ip6_forward` in the kernel). Turning conf/all on stops interfaces from accepting router
    /// advertisements unless `accept_ra` is 2. So `accept_ra` becomes 2 first, wherever it is 1 now.
    fn forward_all_v6(&mut self) {
        if read("net/ipv6/conf/all/forwarding").is_some_and(|v| v == "1") {
            return;
        }
        let names = std::fs::read_dir(path("net/ipv6/conf")).into_iter().flatten().flatten();
        for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
            let accept = format!("net/ipv6/conf/{name}/accept_ra");
            if name != "all" && read(&accept).is_some_and(|v| v == "1") {
                self.set(&accept, "2");
            }
        }
        self.set("net/ipv6/conf/all/forwarding", "1");
        self.warnings.push(
            "net.ipv6.conf.all.forwarding is on, because this kernel (before 6.17) forwards IPv6 on all interfaces or on \
             none; add ip6 filter rules if this host must not route between its networks"
                .to_owned(),
        );
    }

    /// Sets `name` to `to` unless it already has that value.
    fn set(&mut self, name: &str, to: &str) {
        let from = match std::fs::read_to_string(path(name)) {
            Ok(text) => text.trim().to_owned(),
            // A kernel without IPv6 lacks this setting and does not need it.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && name.starts_with("net/ipv6/") => return,
            Err(source) => return self.errors.push(SysctlError { name: name.to_owned(), to: to.to_owned(), source }),
        };
        if from == to {
            return;
        }
        match std::fs::write(path(name), to) {
            Ok(()) => self.changes.push(Change { name: name.to_owned(), from, to: to.to_owned() }),
            Err(source) => self.errors.push(SysctlError { name: name.to_owned(), to: to.to_owned(), source }),
        }
    }
}

/// Foreign tables whose forward chain drops by default. Such a chain stops the relay unless a rule lets relayed packets
/// pass. (nftables does not list chains of `iptables-legacy`.)
///
/// # Errors
/// The query to nft failed.
pub async fn forward_drops() -> Result<Vec<String>, super::nft::NftError> {
    let json = super::nft::ask("the list of chains", &["list", "chains"]).await?;
    let chains = json["nftables"].as_array().into_iter().flatten().map(|entry| &entry["chain"]);
    let drops = chains.filter(|c| c["hook"] == "forward" && c["policy"] == "drop");
    Ok(drops
        .map(|c| {
            let word = |key: &str| c[key].as_str().unwrap_or("?").to_owned();
            format!(
                "the chain {} {} {} drops packets by default, so recovered calls have no audio: let untracked UDP \
                 pass in this chain",
                word("family"),
                word("table"),
                word("name")
            )
        })
        .collect())
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}

fn read(name: &str) -> Option<String> {
    std::fs::read_to_string(path(name)).ok().map(|text| text.trim().to_owned())
}
