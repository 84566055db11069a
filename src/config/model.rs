//! The configuration as typed values. `config::load` has checked every rule that spans fields, so the rest of the
//! program uses these values as they are.

use super::mode::Mode;
use serde::Deserialize;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This node.
    pub node: Node,
    /// How to reach etcd.
    pub etcd: Etcd,
    /// Heartbeats and holds.
    #[serde(default)]
    pub timing: Timing,
    /// The control socket.
    #[serde(default)]
    pub control: Control,
    /// The groups of addresses on this node.
    #[serde(rename = "instance")]
    pub instances: Vec<Instance>,
}

/// `[node]`: this agent's identity.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Unique in the cluster; letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// This node's cluster; part of every key in etcd.
    #[serde(default = "default_cluster")]
    pub cluster: String,
    /// Peers send heartbeats to this address: the node's own, never a VIP.
    pub address: IpAddr,
    /// UDP port of the heartbeats.
    #[serde(default = "default_heartbeat_port")]
    pub port: u16,
    /// File with the cluster's shared key (32 bytes or more, any content); the same on every node, mode 0600.
    pub key_file: PathBuf,
    /// Files with further keys accepted beside `key_file`: the next or the former key while the cluster changes its
    /// key.
    #[serde(default)]
    pub accept_key_files: Vec<PathBuf>,
    /// Higher is preferred among equally healthy nodes.
    #[serde(default = "default_priority")]
    pub priority: u16,
}

/// `[etcd]`: the arbiter and the store of calls.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Etcd {
    /// `http://host:port` or `https://host:port`, one for each member.
    pub endpoints: Vec<String>,
    /// User name, if etcd has authentication on.
    #[serde(default)]
    pub user: Option<String>,
    /// File whose first line is the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// PEM file of the authority that signed etcd's certificates.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// PEM file of this client's certificate.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// PEM file of this client's key.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// Deadline of one call to one member.
    #[serde(default = "default_etcd_timeout", with = "super::duration")]
    pub timeout: Duration,
    /// Requested lease time, in whole seconds; etcd may grant more.
    #[serde(default = "default_lease_ttl", with = "super::duration")]
    pub lease_ttl: Duration,
}

/// `[timing]`: the promises between the nodes. Identical on every node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// Time between two heartbeats.
    #[serde(with = "super::duration")]
    pub heartbeat: Duration,
    /// How long one acknowledged heartbeat lets the master hold; after this time a silent master is replaced.
    #[serde(with = "super::duration")]
    pub hold: Duration,
    /// How far the clocks of two nodes may differ in rate, as a fraction (0.01 is 1 %).
    pub drift: f64,
    /// Number of automatic changes of master allowed in quick succession. Further changes that can wait do wait, twice
    /// as long each time.
    pub flap_budget: u32,
    /// Longest gap between changes that count as quick. Also the longest wait.
    #[serde(with = "super::duration")]
    pub flap_window: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            hold: Duration::from_millis(400),
            drift: 0.01,
            flap_budget: 4,
            flap_window: Duration::from_secs(300),
        }
    }
}

/// `[control]`: the socket for the command line.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// Path of the unix socket.
    pub socket: PathBuf,
    /// Group that may use the socket, besides root.
    pub group: Option<String>,
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: PathBuf::from("/run/keepcall/keepcall.sock"), group: None }
    }
}

/// `[[instance]]`: addresses that move together.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Unique in the cluster; letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The interface that carries the addresses.
    pub interface: String,
    /// The virtual addresses with their prefix length, IPv4 and IPv6.
    pub addresses: Vec<ipnet::IpNet>,
    /// Whether a healthier or higher-priority node takes over from a working master.
    #[serde(default)]
    pub preempt: bool,
    /// How long a node must be better without a break before it preempts.
    #[serde(default = "default_preempt_delay", with = "super::duration")]
    pub preempt_delay: Duration,
    /// What the agent may do with calls, unless `keepcall mode` has set another mode for the whole cluster.
    #[serde(default)]
    pub mode: Mode,
    /// Gratuitous ARP and unsolicited NA.
    #[serde(default)]
    pub announce: Announce,
    /// Probes of the local server.
    #[serde(default, rename = "check")]
    pub checks: Vec<Check>,
    /// Learning and recovering calls. Without this section only the addresses move.
    #[serde(default)]
    pub sip: Option<Sip>,
    /// Commands that run at changes of role.
    #[serde(default)]
    pub hooks: Hooks,
}

/// `[instance.announce]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Announce {
    /// Announcements sent back to back (10 ms apart) at a takeover, for each address.
    pub burst: u32,
    /// Time between the later refreshes.
    #[serde(with = "super::duration")]
    pub interval: Duration,
    /// Number of later refreshes.
    pub refreshes: u32,
}

impl Default for Announce {
    fn default() -> Self {
        Self { burst: 5, interval: Duration::from_secs(1), refreshes: 30 }
    }
}

/// `[[instance.check]]`: one health probe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Name in status and history; unique within the instance.
    pub name: String,
    /// Time between two probes.
    #[serde(default = "default_interval", with = "super::duration")]
    pub interval: Duration,
    /// Time limit of one probe; below `interval`.
    #[serde(default = "default_timeout", with = "super::duration")]
    pub timeout: Duration,
    /// Good results in a row that recover a failed check.
    #[serde(default = "default_rise")]
    pub rise: u32,
    /// Bad results in a row that fail a good check.
    #[serde(default = "default_fall")]
    pub fall: u32,
    /// Whether a failure makes the node unfit for master.
    #[serde(default = "default_true")]
    pub fatal: bool,
    /// `[instance.check.sip-options]`: probe with SIP OPTIONS over UDP.
    #[serde(default, rename = "sip-options")]
    pub sip_options: Option<SipOptions>,
    /// `[instance.check.process]`: watch a process.
    #[serde(default)]
    pub process: Option<Process>,
}

/// A SIP OPTIONS probe over UDP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SipOptions {
    /// The server's listening address as this host reaches it (loopback, for a server bound to the VIP).
    pub target: SocketAddr,
    /// Request URI; `sip:keepcall@target` by default.
    #[serde(default)]
    pub uri: Option<String>,
    /// Answers that count as good: codes (`"200"`) or classes (`"2xx"`).
    #[serde(default = "default_codes")]
    pub codes: Vec<String>,
}

/// A process to watch; set exactly one of the three.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// File with the process id.
    #[serde(default)]
    pub pidfile: Option<PathBuf>,
    /// Name in `/proc/PID/comm`.
    #[serde(default)]
    pub name: Option<String>,
    /// systemd unit, found by its control group.
    #[serde(default)]
    pub unit: Option<String>,
}

/// `[instance.sip]`: the server's traffic, and the recovery of calls.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sip {
    /// UDP and TCP ports of the server's SIP on the VIP.
    #[serde(default = "default_sip_ports")]
    pub ports: Vec<u16>,
    /// First and last UDP port of the server's RTP on the VIP, `"10000-20000"`.
    #[serde(default = "default_media_ports", with = "super::port_range")]
    pub media_ports: (u16, u16),
    /// Who keeps the audio of proxied calls after a takeover.
    #[serde(default)]
    pub media: Media,
    /// UDP port on the VIP for the signalling of recovered calls; nothing else may listen on it.
    #[serde(default = "default_recovery_port")]
    pub recovery_port: u16,
    /// Header with the same value on both legs of a B2BUA call, for exact pairing.
    #[serde(default)]
    pub pair_header: Option<String>,
    /// Least confidence of a pair, in percent. Legs of a more doubtful pair are never connected.
    #[serde(default = "super::confidence::default")]
    pub min_confidence: u8,
    /// Addresses and host names by which the outside knows the VIP, behind a 1:1 NAT.
    #[serde(default)]
    pub advertised: Vec<String>,
    /// Called numbers whose calls recover first.
    #[serde(default = "default_emergency")]
    pub emergency: Vec<String>,
    /// Whether calls are encrypted in etcd, with a key derived from the cluster key.
    #[serde(default = "default_true")]
    pub encrypt: bool,
    /// Use of unencrypted calls in etcd. By default refused, unless `encrypt` is off.
    #[serde(default)]
    pub plain_records: Option<PlainRecords>,
    /// Most recoveries under way at once.
    #[serde(default = "default_window")]
    pub window: usize,
    /// Most calls tracked at once; further calls are counted and not learnt.
    #[serde(default = "default_max_calls")]
    pub max_calls: usize,
    /// Silence of a party that counts as the end of its audio.
    #[serde(default = "super::ends::default_rtp_timeout", with = "super::duration")]
    pub rtp_timeout: Duration,
    /// Longest time that the agent carries a call after a takeover. Zero: as long as its parties talk.
    #[serde(default, with = "super::duration")]
    pub max_carried: Duration,
    /// Messages reported by the server itself; without them calls over TLS and WebSocket are not learnt.
    #[serde(default)]
    pub hep: Option<Hep>,
    /// `[instance.sip.ami]`: Asterisk itself says which legs form one call.
    #[serde(default)]
    pub ami: Option<Ami>,
    /// `[instance.sip.esl]`: FreeSWITCH itself says which legs form one call.
    #[serde(default)]
    pub esl: Option<Esl>,
}

/// Who keeps the audio of proxied calls after a takeover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Media {
    /// The relay, until a new description names a port of the new media server.
    #[default]
    Relay,
    /// The media server itself, which shares its calls with the one on the other node (rtpengine with Redis).
    External,
}

/// Use of unencrypted calls in etcd: anybody who can write etcd may have made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlainRecords {
    /// Counted, and not used.
    Refuse,
    /// Used. Whoever can write etcd can then steer audio.
    Accept,
}

impl Sip {
    /// Whether unencrypted calls in etcd are used.
    #[must_use]
    pub fn accepts_plain(&self) -> bool {
        self.plain_records.map_or(!self.encrypt, |p| p == PlainRecords::Accept)
    }
}

/// `[instance.sip.hep]`: where the server reports its traffic, and which senders are trusted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hep {
    /// Listening addresses, `"udp:127.0.0.1:9060"` or `"tcp:127.0.0.1:9060"`; no other instance listens there.
    pub listen: Vec<HepAddress>,
    /// File whose first line is the key required in every packet. Only version 3 carries a key.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// Allowed source addresses. By default: without a key only this host, with a key any address.
    #[serde(default)]
    pub from: Option<Vec<IpAddr>>,
    /// Addresses of the server besides the virtual ones; each stands for the first virtual address of its family.
    #[serde(default)]
    pub server: Vec<IpAddr>,
}

/// A listening address for HEP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct HepAddress {
    /// Datagrams or a stream.
    pub carrier: Carrier,
    /// Address and port.
    pub address: SocketAddr,
}

/// Transport of HEP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Carrier {
    /// One packet per datagram.
    Udp,
    /// Packets of version 3, back to back.
    Tcp,
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        })
    }
}

impl fmt::Display for HepAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.carrier, self.address)
    }
}

impl FromStr for HepAddress {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (carrier, address) = text.split_once(':').unwrap_or_default();
        let carrier = match carrier {
            "udp" => Carrier::Udp,
            "tcp" => Carrier::Tcp,
            _ => return Err("the address must begin with \"udp:\" or \"tcp:\""),
        };
        let address =
            address.parse().map_err(|_| "the text after \"udp:\" or \"tcp:\" is not an address with a port")?;
        Ok(Self { carrier, address })
    }
}

impl TryFrom<String> for HepAddress {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// The manager interface of this node's Asterisk.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ami {
    /// Its listening address.
    #[serde(default = "default_ami_address")]
    pub address: SocketAddr,
    /// User name in manager.conf.
    pub user: String,
    /// File whose first line is the user's secret.
    pub secret_file: PathBuf,
}

/// The event socket of this node's FreeSWITCH.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Esl {
    /// Its listening address.
    #[serde(default = "default_esl_address")]
    pub address: SocketAddr,
    /// File whose first line is the password.
    pub password_file: PathBuf,
}

/// `[instance.hooks]`: commands, each a program and its arguments; no shell.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    /// Runs once this node is master and holds the addresses.
    pub on_master: Option<Vec<String>>,
    /// Runs once this node is no longer master: the place to restart a server that still believes in its old calls.
    pub on_backup: Option<Vec<String>>,
}

fn default_cluster() -> String {
    "default".to_owned()
}
const fn default_heartbeat_port() -> u16 {
    7490
}
const fn default_priority() -> u16 {
    100
}
const fn default_etcd_timeout() -> Duration {
    Duration::from_millis(1000)
}
// etcd raises any lease below 1.5 election timeouts; with etcd's defaults 3 s is above that.
const fn default_lease_ttl() -> Duration {
    Duration::from_secs(3)
}
const fn default_preempt_delay() -> Duration {
    Duration::from_secs(60)
}
const fn default_interval() -> Duration {
    Duration::from_secs(1)
}
const fn default_timeout() -> Duration {
    Duration::from_millis(500)
}
const fn default_rise() -> u32 {
    2
}
const fn default_fall() -> u32 {
    3
}
const fn default_true() -> bool {
    true
}
fn default_codes() -> Vec<String> {
    vec!["2xx".to_owned()]
}
fn default_sip_ports() -> Vec<u16> {
    vec![5060]
}
const fn default_media_ports() -> (u16, u16) {
    (10_000, 20_000)
}
const fn default_recovery_port() -> u16 {
    5070
}
fn default_emergency() -> Vec<String> {
    ["911", "112", "933"].map(str::to_owned).to_vec()
}
const fn default_ami_address() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5038)
}
const fn default_esl_address() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8021)
}
const fn default_window() -> usize {
    50
}
const fn default_max_calls() -> usize {
    10_000
}
