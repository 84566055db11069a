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
}

/// A setting and its wanted value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The setting, as in [`Change::name`].
    pub name: String,
    /// The value that the agent needs.
    pub to: &'static str,
}

impl Wanted {
    fn new(name: impl Into<String>, to: &'static str) -> Self {
        Self { name: name.into(), to }
    }
}

/// The settings for an address: they let the server bind the address before it arrives, for both families, and keep the
/// removal of one address from removing other addresses of its subnet.
#[must_use]
pub fn address_settings(interface: &str) -> Vec<Wanted> {
    vec![
        Wanted::new("net/ipv4/ip_nonlocal_bind", "1"),
        Wanted::new("net/ipv6/ip_nonlocal_bind", "1"),
        // Without this setting the kernel removes all secondary addresses of a subnet with the primary one: dropping the
        // address of one instance would drop the addresses of another.
        Wanted::new(format!("net/ipv4/conf/{interface}/promote_secondaries"), "1"),
    ]
}

/// The settings for the kernel relay on `interface`: they turn forwarding on for packets that arrive there, and
/// redirects off. The relay sends packets back out of their ingress interface, and a redirect would tell phones to
/// bypass it.
#[must_use]
pub fn relay_settings(interface: &str) -> Vec<Wanted> {
    let mut all = vec![
        Wanted::new(forwarding_v4(interface), "1"),
        // The kernel sends redirects if either setting is on.
        Wanted::new("net/ipv4/conf/all/send_redirects", "0"),
        Wanted::new(format!("net/ipv4/conf/{interface}/send_redirects"), "0"),
    ];
    if !path("net/ipv6").exists() {
        return all;
    }
    let forced = forwarding_v6(interface);
    if path(&forced).exists() && read(ALL_V6).is_some_and(|v| v == "1") {
        // The host is a router already.
        return all;
    }
    if path(&forced).exists() {
        // Linux 6.17 and later: forwards packets that arrive here, and leaves conf/all and router advertisements as
        // they are.
        all.push(Wanted::new(forced, "1"));
        return all;
    }
    // Before 6.17 only conf/all decides whether IPv6 is forwarded. An interface's own setting only makes the interface
    // behave as a router's (`ip6_forward` in the kernel). Turning conf/all on stops interfaces from accepting router
    // advertisements unless `accept_ra` is 2. So `accept_ra` becomes 2 first, wherever it is 1 now.
    if read(ALL_V6).is_some_and(|v| v == "0") {
        let names = std::fs::read_dir(path("net/ipv6/conf")).into_iter().flatten().flatten();
        for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
            let accept = format!("net/ipv6/conf/{name}/accept_ra");
            if name != "all" && read(&accept).is_some_and(|v| v == "1") {
                all.push(Wanted::new(accept, "2"));
            }
        }
    }
    all.push(Wanted::new(ALL_V6, "1"));
    all
}

/// Whether this host forwards IPv4 on all interfaces.
pub(super) const ALL_V4: &str = "net/ipv4/conf/all/forwarding";
/// Whether this host forwards IPv6 on all interfaces.
pub(super) const ALL_V6: &str = "net/ipv6/conf/all/forwarding";

/// The setting that forwards IPv4 packets from `interface`.
pub(super) fn forwarding_v4(interface: &str) -> String {
    format!("net/ipv4/conf/{interface}/forwarding")
}

/// The setting that forwards IPv6 packets from `interface`, since Linux 6.17.
pub(super) fn forwarding_v6(interface: &str) -> String {
    format!("net/ipv6/conf/{interface}/force_forwarding")
}

/// Applies [`address_settings`].
#[must_use]
pub fn for_address(interface: &str) -> Prepared {
    Prepared::of(&address_settings(interface))
}

/// Applies [`relay_settings`].
#[must_use]
pub fn for_relay(interface: &str) -> Prepared {
    Prepared::of(&relay_settings(interface))
}

/// Whether IPv6 forwarding is on for `interface`. A neighbour advertisement then sets the router flag.
#[must_use]
pub fn forwards_v6(interface: &str) -> bool {
    let on = |name: &str| read(name).is_some_and(|v| v == "1");
    on(&format!("net/ipv6/conf/{interface}/forwarding"))
}

impl Prepared {
    /// Brings every setting to its wanted value.
    pub(super) fn of(all: &[Wanted]) -> Self {
        let mut done = Self::default();
        for Wanted { name, to } in all {
            done.set(name, to);
        }
        done
    }

    /// Sets `name` to `to` unless it already has that value.
    pub(super) fn set(&mut self, name: &str, to: &str) {
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

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}

/// The value of a setting; `None` if this kernel does not have the setting.
pub(super) fn read(name: &str) -> Option<String> {
    std::fs::read_to_string(path(name)).ok().map(|text| text.trim().to_owned())
}
