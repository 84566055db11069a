//! The fence: keeps the server of a node that is not master off the wire.
//!
//! A server that lost the address still believes in its dialogs: its session timers and RTP time-outs send BYEs with the right
//! tags, and phones obey them, whatever the source address. So what it sends is dropped in the output hook of a table of our
//! own. Other tables are never touched, and loopback stays open so that health checks go on. The sender sees the drop as
//! `EPERM` from `sendto`.

use super::nft::{self, NftError};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use tokio::sync::Mutex;

/// Entries of the set of phones: two addresses for each leg of the most calls that an instance tracks by default, doubled.
const MAX_PHONES: usize = 65_536;
/// How long a phone stays closed off after a clean stop: longer than a call that was up is likely to go on, so that the old
/// server's session timers and time-outs have all fired.
const PHONE_TIMEOUT: &str = "1h";

/// An element of a set that only the whole table has: adding it to a table that is not whole fails.
const MARKER: &str = "whole { 1 }";

/// What the fence holds back at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceState {
    /// Nothing was set by this process yet; a table of a predecessor may be in force.
    Unknown,
    /// All SIP and media that the server sends.
    Closed,
    /// Nothing.
    Open,
    /// What the server sends to the phones of calls that moved.
    Left,
    /// The table is gone.
    Removed,
}

/// The fence of one instance.
#[derive(Debug)]
pub struct Fence {
    table: String,
    what: String,
    ports: Vec<u16>,
    media: (u16, u16),
    // Held across a run of nft: two changes of one table never overtake each other.
    state: Mutex<FenceState>,
}

impl Fence {
    /// The fence of `instance`, whose server sends SIP from `ports` and RTP from `media` (first and last port). Touches nothing.
    #[must_use]
    pub fn new(instance: &str, ports: &[u16], media: (u16, u16)) -> Self {
        Self {
            table: nft::table_name("fence", instance),
            what: format!("the fence of instance {instance}"),
            ports: ports.to_vec(),
            media,
            state: Mutex::new(FenceState::Unknown),
        }
    }

    /// For a backup: drops all SIP (UDP and TCP) and media that the server sends by anything but loopback.
    ///
    /// # Errors
    /// nftables refused; then the former state is still in force.
    pub async fn closed(&self) -> Result<(), NftError> {
        let quick = format!("add table inet {0}\nadd element inet {0} {MARKER}\n", self.table);
        self.turn(FenceState::Closed, &quick, &self.closed_script("")).await
    }

    /// For the master: drops nothing. (What collides with calls that the kernel relay carries, the relay's own table drops.)
    ///
    /// # Errors
    /// nftables refused; then the former state is still in force.
    pub async fn open(&self) -> Result<(), NftError> {
        let quick = format!("add table inet {0} {{ flags dormant; }}\nadd element inet {0} {MARKER}\n", self.table);
        self.turn(FenceState::Open, &quick, &self.closed_script("flags dormant\n")).await
    }

    /// For a clean stop after which calls moved: drops what the server sends to `phones`, each for an hour, so that the table
    /// expires in effect by itself. Of more than 65,536 phones the rest is left out.
    ///
    /// # Errors
    /// nftables refused; then the former state is still in force.
    pub async fn left(&self, phones: &[SocketAddr]) -> Result<(), NftError> {
        self.change(FenceState::Left, &self.left_script(phones)).await
    }

    /// Deletes the table.
    ///
    /// # Errors
    /// nftables refused; then the former state is still in force.
    pub async fn removed(&self) -> Result<(), NftError> {
        self.change(FenceState::Removed, &nft::without(&self.table)).await
    }

    /// Puts the table back if somebody deleted it; whether that was so.
    ///
    /// # Errors
    /// nftables refused.
    pub async fn renew(&self) -> Result<bool, NftError> {
        let state = self.state.lock().await;
        let script = match *state {
            FenceState::Closed => self.closed_script(""),
            FenceState::Open => self.closed_script("flags dormant\n"),
            FenceState::Unknown | FenceState::Left | FenceState::Removed => return Ok(false),
        };
        if nft::exists(&self.what, &self.table).await? {
            return Ok(false);
        }
        nft::run(&self.what, &script).await.map(|()| true)
    }

    /// The name of its table.
    #[must_use]
    pub fn table_name(&self) -> &str {
        &self.table
    }

    /// What this process set last.
    pub async fn state(&self) -> FenceState {
        *self.state.lock().await
    }

    /// Between closed and open the table stays and only falls dormant or wakes: that is done in a few milliseconds, where
    /// nft waits some twenty for the kernel to be rid of a table that it replaced, and a handover waits for the fence.
    async fn turn(&self, to: FenceState, quick: &str, whole: &str) -> Result<(), NftError> {
        let mut state = self.state.lock().await;
        if matches!(*state, FenceState::Closed | FenceState::Open) {
            match nft::run(&self.what, quick).await {
                Ok(()) => {
                    *state = to;
                    return Ok(());
                }
                // The marker is missing: somebody flushed the ruleset, and the table that woke would be an empty one.
                Err(NftError::Refused { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        nft::run(&self.what, whole).await?;
        *state = to;
        Ok(())
    }

    async fn change(&self, to: FenceState, script: &str) -> Result<(), NftError> {
        let mut state = self.state.lock().await;
        nft::run(&self.what, script).await?;
        *state = to;
        Ok(())
    }

    fn sip_ports(&self) -> String {
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        format!("{{ {} }}", ports.join(", "))
    }

    /// First and last media port. The RTCP of an RTP stream on the last port is one above it (RFC 3550 section 11).
    fn media_ports(&self) -> String {
        format!("{}-{}", self.media.0, self.media.1.saturating_add(1))
    }

    // Each of these scripts replaces the whole table in one transaction: what a crashed predecessor left is taken over without a moment
    // in which nothing is fenced. Raw priority comes before connection tracking, so fenced packets leave no entries.
    fn closed_script(&self, flags: &str) -> String {
        let mut rules = String::new();
        if !self.ports.is_empty() {
            let _ = writeln!(rules, "meta l4proto {{ tcp, udp }} th sport {} counter drop", self.sip_ports());
        }
        let _ = writeln!(rules, "udp sport {} counter drop", self.media_ports());
        self.table(&format!(
            "{flags}set whole {{ type inet_service; }}\n\
             chain output {{ type filter hook output priority raw; policy accept;\noifname \"lo\" accept\n{rules}}}"
        ))
    }

    fn left_script(&self, phones: &[SocketAddr]) -> String {
        let mut body = String::new();
        let mut rules = String::new();
        let guarded = if self.ports.is_empty() {
            format!("{{ {} }}", self.media_ports())
        } else {
            // Ports of both kinds may overlap; auto-merged sets take that, plain ones do not.
            let _ = write!(body, "set server {{ type inet_service; flags interval; auto-merge; elements = {{ ");
            for port in &self.ports {
                let _ = write!(body, "{port}, ");
            }
            let _ = writeln!(body, "{} }} }}", self.media_ports());
            "@server".to_owned()
        };
        for (family, kind, name) in [("ip", "ipv4_addr", "phones4"), ("ip6", "ipv6_addr", "phones6")] {
            let mut list: Vec<String> = phones
                .iter()
                .take(MAX_PHONES)
                .filter(|p| (family == "ip") == matches!(p.ip(), IpAddr::V4(_)))
                .map(|p| format!("{} . {}", p.ip(), p.port()))
                .collect();
            list.sort_unstable();
            list.dedup();
            let elements = if list.is_empty() { String::new() } else { format!("elements = {{ {} }}; ", list.join(", ")) };
            let _ = writeln!(
                body,
                "set {name} {{ type {kind} . inet_service; size {MAX_PHONES}; flags timeout; timeout {PHONE_TIMEOUT}; {elements}}}"
            );
            let _ =
                writeln!(rules, "meta l4proto {{ tcp, udp }} th sport {guarded} {family} daddr . th dport @{name} counter drop");
        }
        let chain =
            format!("chain output {{ type filter hook output priority raw; policy accept;\noifname \"lo\" accept\n{rules}}}");
        self.table(&format!("{body}{chain}"))
    }

    fn table(&self, body: &str) -> String {
        format!("{}table inet {} {{\n{body}\n}}\n", nft::without(&self.table), self.table)
    }
}
