//! Finds each address's role in the calls of a capture, and picks the server. Pure.

use crate::sip::Transport;
use crate::sip::advertised::Advertised;
use crate::sip::message::{Message, Method, Name, Start};
use crate::sip::{sdp, uri};
use crate::wire::Packet;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};

/// Most parties kept apart; calls between further ones are only counted.
const MAX_PARTIES: usize = 10_000;
/// Most pairs of party and call kept for comparing parties, 17 bytes each. Once full, the first pairs decide.
const MAX_PAIRS: usize = 4_000_000;
/// Most ports of one party, and most of its peers.
const MAX_PORTS: usize = 1024;
const MAX_PEERS: usize = 1024;
/// Other methods counted by name; about ten exist.
const MAX_METHODS: usize = 32;
/// Most candidates named in a report.
const MAX_TOLD: usize = 10;
/// Words in User-Agent that mark a server, and words that mark a phone.
const SERVERS: [&str; 28] = [
    "asterisk",
    "freeswitch",
    "kamailio",
    "opensips",
    "openser",
    "fpbx",
    "freepbx",
    "sip-gw",
    "sipgateway",
    "cucm",
    "cube",
    "sbc",
    "3cx",
    "avaya",
    "aura",
    "mitel",
    "broadworks",
    "sonus",
    "ribbon",
    "audiocodes",
    "mediant",
    "pstnhub",
    "drachtio",
    "yeti",
    "session manager",
    "oracle",
    "acme packet",
    "pbx",
];
const PHONES: [&str; 24] = [
    "yealink",
    "snom",
    "polycom",
    "polyedge",
    "grandstream",
    "linphone",
    "zoiper",
    "baresip",
    "x-lite",
    "microsip",
    "bria",
    "eyebeam",
    "pjsua",
    "cisco-cp",
    "cisco/spa",
    "linksys",
    "fanvil",
    "gigaset",
    "fritz!",
    "jitsi",
    "jssip",
    "sip.js",
    "groundwire",
    "phonerlite",
];

/// The party behind an address: a host, or one port of a host that talks to itself (as on loopback).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Party {
    pub(super) ip: IpAddr,
    pub(super) port: Option<u16>,
}

/// Bits for what a party did in a call.
const RECEIVED: u8 = 1;
const SENT: u8 = 2;

#[derive(Default)]
struct Deeds {
    calls: HashMap<u64, u8>,
    received: u64,
    /// Ports on which the party received requests, and ports from which it sent requests over UDP.
    listens: BTreeSet<u16>,
    /// Every port of the party with SIP traffic.
    ports: BTreeSet<u16>,
    peers: HashSet<IpAddr>,
    registers: bool,
    routes: bool,
    /// Names an advertised host as its own in a message that passed nobody before.
    advertises: bool,
    looks: i8,
    agent: Option<String>,
}

/// One candidate for the server, likeliest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server {
    /// The address.
    pub address: IpAddr,
    /// Its SIP ports.
    pub ports: Vec<u16>,
    /// Likelihood: see `docs/inspect.md`.
    pub score: u64,
    /// Call-IDs in which this address took part.
    pub calls: usize,
    /// Call-IDs whose INVITE this address received and sent on.
    pub relayed: usize,
    /// Call-IDs whose INVITE this address only received.
    pub received: usize,
    /// Call-IDs whose INVITE this address only sent.
    pub sent: usize,
    /// Addresses that exchanged SIP with this one.
    pub peers: usize,
    /// Whether this address accepted a registration.
    pub registrar: bool,
    /// Whether a Record-Route names this address.
    pub record_routes: bool,
    /// Its User-Agent, where the header is certainly its own.
    pub user_agent: Option<String>,
    /// Whether the report takes this address for the server.
    pub chosen: bool,
}

/// How certain the choice of the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// The command line named the server.
    Given,
    /// The address receives and sends calls, and no other does so as often.
    Likely,
    /// Several addresses fit, or none fits well.
    Guess,
    /// The file has no SIP call.
    None,
}

/// What each address did.
#[derive(Default)]
pub(super) struct Survey {
    ips: HashMap<SocketAddr, Deeds>,
    /// Hosts that talk SIP to themselves.
    split: HashSet<IpAddr>,
    pairs: usize,
    hasher: RandomState,
    /// Hosts by which the outside knows the server.
    pub(super) advertised: Advertised,
    /// Addresses in Record-Route.
    routes: HashSet<(IpAddr, Option<u16>)>,
    /// Requests outside calls, by method.
    pub(super) others: BTreeMap<String, u64>,
    /// SIP messages that do not parse.
    pub(super) malformed: u64,
}

/// The roles found by the survey.
pub(super) struct Roles {
    pub(super) servers: Vec<Server>,
    pub(super) certainty: Certainty,
    pub(super) vips: Vec<IpAddr>,
    pub(super) ports: Vec<u16>,
    ranks: HashMap<Party, (usize, Vec<u16>)>,
    split: HashSet<IpAddr>,
    given_ports: bool,
}

impl Survey {
    pub(super) fn see(&mut self, p: &Packet<'_>) {
        let Ok(m) = Message::parse(p.payload) else {
            self.malformed += 1;
            return;
        };
        let method = m.method();
        if let Start::Request { name, .. } = m.start()
            && !of_calls(method)
        {
            let name = String::from_utf8_lossy(&name[..name.len().min(32)]).into_owned();
            if self.others.len() < MAX_METHODS || self.others.contains_key(&name) {
                *self.others.entry(name).or_default() += 1;
            }
        }
        if p.src.ip() == p.dst.ip() && p.src.port() != p.dst.port() && self.split.len() < MAX_PARTIES {
            self.split.insert(p.src.ip());
        }
        let registered = method == Method::Register && m.code() == Some(200);
        if !of_calls(method) && !registered {
            return;
        }
        let call = self.hasher.hash_one(m.call_id());
        let first = method == Method::Invite && m.is_request() && m.to_tag().is_none();
        let request = m.is_request();
        let alone = m.values(Name::Via).nth(1).is_none();
        let agent = (request && alone).then(|| m.header(Name::UserAgent)).flatten();
        if first {
            for route in m.values(Name::RecordRoute) {
                let at = uri::host_port(uri::uri_of(route));
                if let Some((ip, port)) =
                    at.and_then(|(h, port)| Some((std::str::from_utf8(h).ok()?.parse().ok()?, port)))
                    && self.routes.len() < MAX_PARTIES
                {
                    self.routes.insert((ip, port));
                }
            }
        }
        let names = |u: &[u8]| uri::host_port(u).is_some_and(|(host, _)| self.advertised.has_host(host));
        // What other hosts pass on names the server too. A request that passed nobody has one Via.
        let own = request && alone;
        let advertises = own && (m.contact_uri().is_some_and(names) || has_advertised(&m, &self.advertised));
        for (end, other, sends) in [(p.src, p.dst, true), (p.dst, p.src, false)] {
            let Some(deeds) = deeds(&mut self.ips, end) else { continue };
            // The source port of a TCP connection is arbitrary.
            if request && (!sends || p.transport == Transport::Udp) && deeds.listens.len() < MAX_PORTS {
                deeds.listens.insert(end.port());
            }
            if deeds.ports.len() < MAX_PORTS {
                deeds.ports.insert(end.port());
            }
            if deeds.peers.len() < MAX_PEERS {
                deeds.peers.insert(other.ip());
            }
            deeds.registers |= registered && sends;
            deeds.advertises |= advertises && sends;
            if registered {
                continue;
            }
            if sends && let Some(agent) = agent {
                let text = String::from_utf8_lossy(&agent[..agent.len().min(128)]).to_lowercase();
                deeds.looks = i8::from(SERVERS.iter().any(|w| text.contains(w)))
                    - i8::from(PHONES.iter().any(|w| text.contains(w)));
                deeds.agent.get_or_insert_with(|| String::from_utf8_lossy(&agent[..agent.len().min(128)]).into_owned());
            }
            deeds.received += u64::from(first && !sends);
            let flag = if !first {
                0
            } else if sends {
                SENT
            } else {
                RECEIVED
            };
            match deeds.calls.get_mut(&call) {
                Some(flags) => *flags |= flag,
                None if self.pairs < MAX_PAIRS => {
                    deeds.calls.insert(call, flag);
                    self.pairs += 1;
                }
                None => {}
            }
        }
    }

    /// Ranks the parties. The operator named `vips` and `ports`.
    pub(super) fn roles(mut self, vips: &[IpAddr], ports: &[u16]) -> Roles {
        let mut parties: HashMap<Party, Deeds> = HashMap::new();
        for (at, deeds) in self.ips.drain() {
            let party = Party { ip: at.ip(), port: self.split.contains(&at.ip()).then_some(at.port()) };
            let all = parties.entry(party).or_default();
            for (call, flags) in deeds.calls {
                *all.calls.entry(call).or_default() |= flags;
            }
            all.received += deeds.received;
            all.listens.extend(deeds.listens);
            all.ports.extend(deeds.ports.into_iter().take(MAX_PORTS));
            all.peers.extend(deeds.peers);
            all.registers |= deeds.registers;
            all.advertises |= deeds.advertises;
            all.looks = if all.looks == 0 { deeds.looks } else { all.looks };
            all.agent = all.agent.take().or(deeds.agent);
        }
        for (party, deeds) in &mut parties {
            deeds.routes =
                self.routes.iter().any(|(ip, port)| *ip == party.ip && (party.port.is_none() || *port == party.port));
        }
        let told: HashMap<Party, Server> = parties.iter().map(|(p, d)| (*p, d.told(*p))).collect();
        let mut order: Vec<Party> = parties.iter().filter(|(_, d)| !d.calls.is_empty()).map(|(p, _)| *p).collect();
        let named =
            |p: &Party| vips.contains(&p.ip) && (ports.is_empty() || p.port.is_none_or(|port| ports.contains(&port)));
        order.sort_by_cached_key(|p| {
            let (s, d) = (&told[p], &parties[p]);
            let standard = d.listens.contains(&5060) || d.listens.contains(&5061);
            (
                Reverse(named(p)),
                Reverse(d.advertises),
                Reverse((s.score, s.registrar, d.looks, s.peers, d.received, standard)),
                *p,
            )
        });
        let best = order.first().copied();
        let certainty = match (best, order.get(1)) {
            _ if !vips.is_empty() => Certainty::Given,
            (None, _) => Certainty::None,
            (Some(a), second) => {
                let a = &told[&a];
                let relays = a.relayed > 0 || a.received.min(a.sent) > 0 || a.registrar;
                if relays && second.is_none_or(|b| told[b].score < a.score) {
                    Certainty::Likely
                } else {
                    Certainty::Guess
                }
            }
        };
        let chosen = |p: &Party| if vips.is_empty() { Some(*p) == best } else { named(p) };
        // A host that talks to itself: an address given without a port means its likeliest port.
        let main: Vec<Party> = if vips.is_empty() {
            best.into_iter().collect()
        } else {
            let mut seen = HashSet::new();
            let mut main = order.clone();
            main.retain(|p| named(p) && (p.port.is_none() || !ports.is_empty() || seen.insert(p.ip)));
            main
        };
        let servers = order
            .iter()
            .take(MAX_TOLD)
            .map(|p| Server { chosen: chosen(p) && main.contains(p), ..told[p].clone() })
            .collect();
        let listening = || {
            let mut all: Vec<u16> = main.iter().flat_map(|p| told[p].ports.clone()).collect();
            all.sort_unstable();
            all.dedup();
            if all.is_empty() { vec![5060] } else { all }
        };
        let ranks = order
            .iter()
            .enumerate()
            .map(|(rank, p)| {
                // All parties of the main server rank as one.
                let rank = if main.contains(p) { 0 } else { rank + 1 };
                (*p, (rank, parties[p].ports.iter().copied().collect()))
            })
            .collect();
        Roles {
            servers,
            certainty,
            vips: if vips.is_empty() { best.map(|p| p.ip).into_iter().collect() } else { vips.to_vec() },
            ports: if ports.is_empty() { listening() } else { ports.to_vec() },
            ranks,
            split: self.split,
            given_ports: !ports.is_empty(),
        }
    }
}

/// Whether the description in a message names an advertised address.
fn has_advertised(m: &Message<'_>, advertised: &Advertised) -> bool {
    !advertised.is_empty() && sdp::places(m.body()).iter().any(|(ip, _)| ip.is_some_and(|ip| advertised.has(ip)))
}

/// Keeps ports apart until it is clear whether the host talks to itself; `roles` joins the ports of one host. Once the
/// table is full, all further ports of a host count as one.
fn deeds(all: &mut HashMap<SocketAddr, Deeds>, end: SocketAddr) -> Option<&mut Deeds> {
    let key = if all.len() < MAX_PARTIES || all.contains_key(&end) { end } else { SocketAddr::new(end.ip(), 0) };
    if all.len() >= MAX_PARTIES * 2 && !all.contains_key(&key) {
        return None;
    }
    Some(all.entry(key).or_default())
}

fn of_calls(method: Method) -> bool {
    use Method::{Ack, Bye, Cancel, Info, Invite, Prack, Update};
    matches!(method, Invite | Ack | Bye | Cancel | Prack | Update | Info)
}

impl Deeds {
    fn told(&self, party: Party) -> Server {
        let count = |flags: u8| self.calls.values().filter(|f| **f == flags).count();
        let (relayed, received, sent) = (count(RECEIVED | SENT), count(RECEIVED), count(SENT));
        // A proxy forwards what it receives under the same Call-ID, a B2BUA under another; a phone does neither. The
        // called side is likelier to be a server than the calling side, and a registrar always is one. The rest only
        // breaks ties.
        let registered = if self.registers { self.calls.len() } else { 0 };
        let named = if self.looks > 0 { self.calls.len() } else { 0 };
        let score = 4 * relayed + 2 * received.min(sent) + received + self.calls.len() + registered + named;
        let few = |b: bool| u64::from(b);
        let score = 4 * score as u64 + 2 * few(self.registers) + few(self.routes) + few(self.peers.len() > 1);
        Server {
            address: party.ip,
            ports: party.port.map_or_else(|| self.listens.iter().copied().collect(), |p| vec![p]),
            score,
            calls: self.calls.len(),
            relayed,
            received,
            sent,
            peers: self.peers.len(),
            registrar: self.registers,
            record_routes: self.routes,
            user_agent: self.agent.clone(),
            chosen: false,
        }
    }
}

impl Roles {
    /// The party behind this address.
    pub(super) fn party(&self, at: SocketAddr) -> Party {
        let by_port = self.split.contains(&at.ip()) || (self.given_ports && self.vips.contains(&at.ip()));
        Party { ip: at.ip(), port: by_port.then_some(at.port()) }
    }

    fn rank(&self, at: SocketAddr) -> Option<(usize, Party)> {
        let party = self.party(at);
        if self.is_main(at) {
            return Some((0, party));
        }
        let host = Party { ip: at.ip(), port: None };
        let (rank, _) = self.ranks.get(&party).or_else(|| self.ranks.get(&host))?;
        Some(((*rank).max(1), party))
    }

    /// Whether this address belongs to the server of the report.
    pub(super) fn is_main(&self, at: SocketAddr) -> bool {
        let by_port = self.given_ports || self.split.contains(&at.ip());
        self.vips.contains(&at.ip()) && (!by_port || self.ports.contains(&at.port()))
    }

    /// The end from which a packet is viewed: the party likelier to be a server, and whether it is the sender. `None`
    /// if neither party is known, or both are the same.
    pub(super) fn viewpoint(&self, src: SocketAddr, dst: SocketAddr) -> Option<(usize, Party, bool)> {
        let (s, d) = (self.rank(src), self.rank(dst));
        match (s, d) {
            (Some((a, _)), Some((b, _))) if a == b => None,
            (Some((a, party)), Some((b, _))) if a < b => Some((a, party, true)),
            (_, Some((b, party))) => Some((b, party, false)),
            (Some((a, party)), None) => Some((a, party, true)),
            (None, None) => None,
        }
    }

    /// The ports of a party with SIP traffic.
    pub(super) fn ports_of(&self, rank: usize, party: Party) -> Vec<u16> {
        if rank == 0 && (self.given_ports || party.port.is_some()) {
            return self.ports.clone();
        }
        match party.port {
            Some(port) => vec![port],
            // The server of the report may have several addresses.
            None if rank == 0 => {
                let mut all: Vec<u16> =
                    self.ranks.values().filter(|(r, _)| *r == 0).flat_map(|(_, ports)| ports.iter().copied()).collect();
                all.sort_unstable();
                all.dedup();
                all
            }
            None => self.ranks.get(&party).map(|(_, ports)| ports.clone()).unwrap_or_default(),
        }
    }
}
