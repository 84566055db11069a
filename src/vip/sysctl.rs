//! Kernel settings that the address and the relay need. Each is written only where it differs, and what was changed is told.

use std::fmt;
use std::path::PathBuf;

/// One setting that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The setting in sysctl's own spelling with slashes, such as `net/ipv4/ip_nonlocal_bind`.
    pub name: String,
    /// What it was.
    pub from: String,
    /// What it is now.
    pub to: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.name, self.from, self.to)
    }
}

/// Why a setting could not be brought about.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {name} to {to}: {source}; set it by sysctl.d, or give the agent the right to write /proc/sys/net")]
pub struct SysctlError {
    /// The setting.
    pub name: String,
    /// The wanted value.
    pub to: String,
    /// The system's error.
    pub source: std::io::Error,
}

/// What was done, and what could not be.
#[derive(Debug, Default)]
pub struct Prepared {
    /// Settings that were changed.
    pub changes: Vec<Change>,
    /// Settings that could not be changed; the others were done all the same.
    pub errors: Vec<SysctlError>,
    /// What an operator should know: side effects, and what of others stands in the way.
    pub warnings: Vec<String>,
}

/// Lets the server bind the address before it is here, for both families, and keeps the removal of one address from taking
/// others in its subnet with it.
#[must_use]
pub fn for_address(interface: &str) -> Prepared {
    let mut done = Prepared::default();
    done.set("net/ipv4/ip_nonlocal_bind", "1");
    done.set("net/ipv6/ip_nonlocal_bind", "1");
    // Without it the kernel removes all secondary addresses of a subnet with its primary one: dropping the address of one
    // instance would drop those of another.
    done.set(&format!("net/ipv4/conf/{interface}/promote_secondaries"), "1");
    done
}

/// Lets the kernel relay forward in and out by `interface`: forwarding on for packets that arrive there, redirects off (the
/// relay sends packets back out of the interface they came by, and a redirect would tell phones to talk past it).
#[must_use]
pub fn for_relay(interface: &str) -> Prepared {
    let mut done = Prepared::default();
    done.set(&format!("net/ipv4/conf/{interface}/forwarding"), "1");
    // The kernel sends redirects if either of the two is on.
    done.set("net/ipv4/conf/all/send_redirects", "0");
    done.set(&format!("net/ipv4/conf/{interface}/send_redirects"), "0");
    if path("net/ipv6").exists() {
        let forced = format!("net/ipv6/conf/{interface}/force_forwarding");
        if path(&forced).exists() {
            // Linux 6.17 and later: forwards what arrives here, and leaves conf/all and the acceptance of router
            // advertisements as they are.
            done.set(&forced, "1");
        } else {
            done.forward_all_v6();
        }
    }
    done
}

/// Whether IPv6 forwarding is on for `interface`: a neighbour advertisement then says that a router speaks.
#[must_use]
pub fn forwards_v6(interface: &str) -> bool {
    let on = |name: &str| read(name).is_some_and(|v| v == "1");
    on(&format!("net/ipv6/conf/{interface}/forwarding"))
}

impl Prepared {
    /// Before 6.17 only conf/all decides whether IPv6 is forwarded; that of an interface merely makes the interface
    /// behave as a router's (`ip6_forward` in the kernel). Turning it on stops interfaces from accepting router
    /// advertisements, unless `accept_ra` is 2, so that is set first wherever they are accepted now.
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
            "this kernel (before 6.17) forwards IPv6 for all interfaces or none: net.ipv6.conf.all.forwarding is on; add ip6 \
             filter rules if this host must not route between its networks"
                .to_owned(),
        );
    }

    /// Sets `name` to `to` unless it is that already.
    fn set(&mut self, name: &str, to: &str) {
        let from = match std::fs::read_to_string(path(name)) {
            Ok(text) => text.trim().to_owned(),
            // A kernel without IPv6 has no such setting and no need of it.
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

/// Tables of others whose forward chain drops by default: they stop the relay unless they let it pass. (Chains of
/// `iptables-legacy` are not seen by nftables.)
///
/// # Errors
/// nft could not be asked.
pub async fn forward_drops() -> Result<Vec<String>, super::nft::NftError> {
    let json = super::nft::ask("the list of chains", &["list", "chains"]).await?;
    let chains = json["nftables"].as_array().into_iter().flatten().map(|entry| &entry["chain"]);
    let drops = chains.filter(|c| c["hook"] == "forward" && c["policy"] == "drop");
    Ok(drops
        .map(|c| {
            let word = |key: &str| c[key].as_str().unwrap_or("?").to_owned();
            format!(
                "{} {} {} drops what it does not know: let untracked UDP pass there, or recovered calls have no audio",
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
