//! Adds and removes the addresses over rtnetlink. One connection stays open, and the requests of one change go out
//! together.
//!
//! Every address from this module carries [`PROTOCOL`] as its `IFA_PROTO` (Linux 5.18). The tag separates the leftovers
//! of a crashed predecessor from addresses that others configured.

use super::removals::Removals;
use crate::os;
use crate::sync::Locked as _;
use futures::StreamExt as _;
use futures::TryStreamExt as _;
use futures::future::join_all;
use ipnet::IpNet;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, CacheInfo,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use nix::errno::Errno;
use rtnetlink::{Handle, MulticastGroup};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The `IFA_PROTO` of our addresses. The kernel uses 1 to 3 itself; `ip -d address` shows the number.
pub const PROTOCOL: u8 = 0x4b;
/// Lifetime of an address that no agent refreshes. The kernel lease silences a host without an agent. This time-out
/// also removes the address, so the host itself can talk to the new master. The lifetime is far longer than a restart
/// or an upgrade of the agent.
pub const LIFETIME: Duration = Duration::from_secs(60);
/// Events kept for a slow reader. Further events are dropped, and [`AddressEvent::Missed`] reports the gap.
const EVENTS: usize = 256;

/// Why adding, removing or listing an address failed.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// No such interface.
    #[error("there is no interface {name}; there are: {}", there.join(", "))]
    NoInterface {
        /// The requested name.
        name: String,
        /// The interfaces that exist.
        there: Vec<String>,
    },
    /// The kernel refused because a capability is missing.
    #[error("cannot {doing}: permission denied; give the agent CAP_NET_ADMIN")]
    Privilege {
        /// The attempted operation.
        doing: String,
    },
    /// The kernel refused.
    #[error("cannot {doing}: {source}")]
    Refused {
        /// The attempted operation.
        doing: String,
        /// The system's error.
        source: io::Error,
    },
    /// The netlink connection is lost.
    #[error("lost the netlink connection to the kernel; restart the agent")]
    Lost,
    /// Several addresses failed; the others are done.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Self>),
}

/// An open connection to the kernel's address table, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Addresses {
    handle: Handle,
    connection: JoinHandle<()>,
    removals: Arc<Mutex<Removals>>,
}

impl Drop for Addresses {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Addresses {
    /// Opens the connection. Needs a tokio runtime.
    ///
    /// # Errors
    /// The system cannot provide a netlink socket.
    pub fn open() -> Result<Self, AddressError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|source| AddressError::Refused { doing: "open a netlink socket".to_owned(), source })?;
        Ok(Self { handle, connection: tokio::spawn(connection), removals: Arc::default() })
    }

    /// Adds `prefixes` to `interface` for [`LIFETIME`]. An existing address counts as success and gets a fresh
    /// lifetime. IPv6 addresses skip duplicate address detection: they must answer at once, and a predecessor that
    /// lingers for a moment must not push them into the state `dadfailed`.
    ///
    /// # Errors
    /// As in [`AddressError`]. The call tries every address.
    pub async fn add(&self, interface: &str, prefixes: &[IpNet]) -> Result<(), AddressError> {
        let index = self.index(interface).await?;
        let requests = prefixes.iter().map(|prefix| {
            let mut request = self.handle.address().add(index, prefix.addr(), prefix.prefix_len()).replace();
            let message = request.message_mut();
            message.attributes.push(AddressAttribute::CacheInfo(lifetime()));
            message.attributes.push(AddressAttribute::Protocol(AddressProtocol::from(PROTOCOL)));
            if prefix.addr().is_ipv6() {
                message.header.flags |= AddressHeaderFlags::Nodad;
                message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
            async move {
                let result = request.execute().await;
                forgive(result, &[Errno::EEXIST], || format!("add {prefix} to {interface}"))
            }
        });
        collect(join_all(requests).await)
    }

    /// Removes `prefixes` from `interface`. A missing address counts as success. So does a missing interface, because
    /// its addresses went with it.
    ///
    /// # Errors
    /// As in [`AddressError`]. The call tries every address.
    pub async fn remove(&self, interface: &str, prefixes: &[IpNet]) -> Result<(), AddressError> {
        let index = match self.index(interface).await {
            Err(AddressError::NoInterface { .. }) => return Ok(()),
            index => index?,
        };
        let requests = prefixes.iter().map(|prefix| self.delete(index, *prefix, interface));
        collect(join_all(requests).await)
    }

    /// The subset of `addresses` that `interface` has now, in the order of `addresses`. Any prefix length matches,
    /// because a host answers for the address and not for the prefix.
    ///
    /// # Errors
    /// As in [`AddressError`].
    pub async fn present(&self, interface: &str, addresses: &[IpAddr]) -> Result<Vec<IpNet>, AddressError> {
        let index = self.index(interface).await?;
        let there = self.dump().await?;
        let here = there.iter().filter(|m| m.header.index == index).filter_map(prefix_of);
        let mut found: Vec<IpNet> = here.filter(|p| addresses.contains(&p.addr())).collect();
        found.sort_by_key(|p| addresses.iter().position(|a| *a == p.addr()));
        Ok(found)
    }

    /// Removes every tagged address, on any interface, that is not in `keep` (interface and prefix). Such addresses are
    /// leftovers of a crashed predecessor or of an older configuration. Foreign addresses stay. Returns the removed
    /// addresses.
    ///
    /// # Errors
    /// As in [`AddressError`]. The call tries every address.
    pub async fn remove_stale(&self, keep: &[(&str, IpNet)]) -> Result<Vec<(String, IpNet)>, AddressError> {
        let links = self.links().await?;
        let mut removed = Vec::new();
        let mut errors = Vec::new();
        for message in self.dump().await? {
            let ours = message
                .attributes
                .iter()
                .any(|a| matches!(a, AddressAttribute::Protocol(p) if u8::from(*p) == PROTOCOL));
            let name = links.iter().find(|(index, _)| *index == message.header.index).map(|(_, name)| name.clone());
            let (true, Some(name), Some(prefix)) = (ours, name, prefix_of(&message)) else { continue };
            if keep.iter().any(|(interface, kept)| *interface == name && *kept == prefix) {
                continue;
            }
            match self.delete(message.header.index, prefix, &name).await {
                Ok(()) => removed.push((name, prefix)),
                Err(e) => errors.push(e),
            }
        }
        collect(errors.into_iter().map(Err).collect()).map(|()| removed)
    }

    /// Watches `addresses` like [`AddressMonitor::open`], but does not report removals by this object.
    ///
    /// # Errors
    /// As [`AddressMonitor::open`].
    pub fn watch(&self, addresses: &[(String, IpNet)]) -> Result<AddressMonitor, AddressError> {
        AddressMonitor::with(addresses, Arc::clone(&self.removals))
    }

    async fn delete(&self, index: u32, prefix: IpNet, interface: &str) -> Result<(), AddressError> {
        // An addition's message names the address the way a removal needs it.
        let mut request = self.handle.address().add(index, prefix.addr(), prefix.prefix_len());
        let message = std::mem::take(request.message_mut());
        self.removals.locked().asked((index, prefix));
        let result = self.handle.address().del(message).execute().await;
        if matches!(result, Err(rtnetlink::Error::NetlinkError(_))) {
            self.removals.locked().refused((index, prefix));
        }
        // The interface may disappear at any moment, together with the address.
        forgive(result, &[Errno::EADDRNOTAVAIL, Errno::ENODEV], || format!("remove {prefix} from {interface}"))
    }

    async fn dump(&self) -> Result<Vec<AddressMessage>, AddressError> {
        let all = self.handle.address().get().execute().try_collect::<Vec<_>>().await;
        all.map_err(|e| explain(e, || "list the addresses".to_owned()))
    }

    async fn links(&self) -> Result<Vec<(u32, String)>, AddressError> {
        let all: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|e| explain(e, || "list the interfaces".to_owned()))?;
        Ok(all.iter().filter_map(|link| Some((link.header.index, link_name(link)?))).collect())
    }

    // Looked up each time: an interface that was removed and came back has a new index.
    async fn index(&self, interface: &str) -> Result<u32, AddressError> {
        if let Some(index) = os::interface::index(interface) {
            return Ok(index);
        }
        // The lookup may have failed for another reason (no free descriptor), and a missing interface counts as a
        // released address.
        let links = self.links().await?;
        if let Some((index, _)) = links.iter().find(|(_, name)| name == interface) {
            return Ok(*index);
        }
        let there = links.into_iter().map(|(_, name)| name).collect();
        Err(AddressError::NoInterface { name: interface.to_owned(), there })
    }
}

/// A change of one of our addresses or its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressEvent {
    /// An address vanished, and this process did not remove it.
    Vanished {
        /// The interface.
        interface: String,
        /// The address.
        prefix: IpNet,
    },
    /// The interface lost its carrier, was set down, or was removed.
    LinkDown {
        /// The interface.
        interface: String,
    },
    /// The interface works again: announce the addresses anew.
    LinkUp {
        /// The interface.
        interface: String,
    },
    /// Events were lost: check everything again.
    Missed,
}

/// Watches the kernel's address and link changes until dropped.
#[derive(Debug)]
pub struct AddressMonitor {
    events: mpsc::Receiver<AddressEvent>,
    tasks: [JoinHandle<()>; 2],
    watched: Vec<IpNet>,
    removals: Arc<Mutex<Removals>>,
}

impl Drop for AddressMonitor {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.removals.locked().unwatch(&self.watched);
    }
}

impl AddressMonitor {
    /// Watches `addresses`, each on its interface; the interface may appear later. The monitor reports only changes
    /// from now on. The first link event of an interface may repeat the present state.
    ///
    /// # Errors
    /// The system cannot provide a netlink socket.
    pub fn open(addresses: &[(String, IpNet)]) -> Result<Self, AddressError> {
        Self::with(addresses, Arc::default())
    }

    fn with(addresses: &[(String, IpNet)], removals: Arc<Mutex<Removals>>) -> Result<Self, AddressError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, _, mut messages) = rtnetlink::new_multicast_connection(&groups)
            .map_err(|source| AddressError::Refused { doing: "watch the addresses".to_owned(), source })?;
        let watched = addresses.to_vec();
        let prefixes: Vec<IpNet> = watched.iter().map(|(_, prefix)| *prefix).collect();
        // The socket already listens, so it sees every removal from now on.
        removals.locked().watch(prefixes.iter().copied());
        let own = Arc::clone(&removals);
        let (sender, events) = mpsc::channel(EVENTS);
        // The last reported state, up or down, filters out the kernel's many other link messages.
        let mut links: Vec<(String, Option<bool>)> = watched.iter().map(|(name, _)| (name.clone(), None)).collect();
        links.sort();
        links.dedup();
        let reader = tokio::spawn(async move {
            let mut missed = false;
            while let Some((message, _)) = messages.next().await {
                let event = match message.payload {
                    NetlinkPayload::InnerMessage(inner) => event_of(inner, &watched, &mut links, &own),
                    NetlinkPayload::Overrun(_) => {
                        own.locked().lost();
                        Some(AddressEvent::Missed)
                    }
                    _ => None,
                };
                if missed && sender.try_send(AddressEvent::Missed).is_ok() {
                    missed = false;
                }
                if let Some(event) = event {
                    match sender.try_send(event) {
                        Ok(()) => {}
                        Err(mpsc::error::TrySendError::Full(_)) => missed = true,
                        Err(mpsc::error::TrySendError::Closed(_)) => return,
                    }
                }
            }
        });
        Ok(Self { events, tasks: [tokio::spawn(connection), reader], watched: prefixes, removals })
    }

    /// The next event; `None` after the kernel closed the connection.
    pub async fn next(&mut self) -> Option<AddressEvent> {
        self.events.recv().await
    }
}

fn event_of(
    message: RouteNetlinkMessage,
    watched: &[(String, IpNet)],
    links: &mut [(String, Option<bool>)],
    removals: &Mutex<Removals>,
) -> Option<AddressEvent> {
    match message {
        RouteNetlinkMessage::DelAddress(m) => {
            let prefix = prefix_of(&m)?;
            // Without the interface the kernel cannot name the index, so the address alone decides.
            let name = os::interface::name(m.header.index);
            let ours = |(i, p): &&(String, IpNet)| *p == prefix && name.as_ref().is_none_or(|n| n == i);
            let (interface, _) = watched.iter().find(ours)?;
            if removals.locked().told((m.header.index, prefix)) {
                return None;
            }
            Some(AddressEvent::Vanished { interface: interface.clone(), prefix })
        }
        RouteNetlinkMessage::NewLink(link) => {
            let works = LinkFlags::Up | LinkFlags::LowerUp;
            link_event(&link, link.header.flags.contains(works), links)
        }
        RouteNetlinkMessage::DelLink(link) => link_event(&link, false, links),
        _ => None,
    }
}

fn link_event(link: &LinkMessage, up: bool, links: &mut [(String, Option<bool>)]) -> Option<AddressEvent> {
    let name = link_name(link)?;
    let (interface, told) = links.iter_mut().find(|(interface, _)| *interface == name)?;
    if told.replace(up) == Some(up) {
        return None;
    }
    let interface = interface.clone();
    Some(if up { AddressEvent::LinkUp { interface } } else { AddressEvent::LinkDown { interface } })
}

fn link_name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|a| if let LinkAttribute::IfName(name) = a { Some(name.clone()) } else { None })
}

fn prefix_of(message: &AddressMessage) -> Option<IpNet> {
    let local = |a: &AddressAttribute| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None };
    let address = |a: &AddressAttribute| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None };
    // IPv6 has IFA_LOCAL only with a peer. IPv4 has both attributes, and "local" is the address.
    let ip: IpAddr =
        message.attributes.iter().find_map(local).or_else(|| message.attributes.iter().find_map(address))?;
    IpNet::new(ip, message.header.prefix_len).ok()
}

fn lifetime() -> CacheInfo {
    let mut info = CacheInfo::default();
    // The address stays preferred until its end: the agent refreshes it or lets it expire.
    info.ifa_valid = u32::try_from(LIFETIME.as_secs()).unwrap_or(u32::MAX);
    info.ifa_preferred = info.ifa_valid;
    info
}

fn forgive(
    result: Result<(), rtnetlink::Error>,
    codes: &[Errno],
    doing: impl Fn() -> String,
) -> Result<(), AddressError> {
    match result {
        Err(rtnetlink::Error::NetlinkError(e)) if codes.contains(&Errno::from_raw(-e.raw_code())) => Ok(()),
        other => other.map_err(|e| explain(e, doing)),
    }
}

fn explain(error: rtnetlink::Error, doing: impl Fn() -> String) -> AddressError {
    match error {
        rtnetlink::Error::NetlinkError(e) if matches!(Errno::from_raw(-e.raw_code()), Errno::EPERM | Errno::EACCES) => {
            AddressError::Privilege { doing: doing() }
        }
        rtnetlink::Error::NetlinkError(e) => AddressError::Refused { doing: doing(), source: e.to_io() },
        rtnetlink::Error::RequestFailed => AddressError::Lost,
        other => AddressError::Refused { doing: doing(), source: io::Error::other(other) },
    }
}

fn collect(results: Vec<Result<(), AddressError>>) -> Result<(), AddressError> {
    let mut errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(AddressError::Several(errors)),
    }
}
