//! The fence keeps the server of a standby off the wire.
//!
//! A server that lost the address still believes in its dialogs. Its session timers and RTP time-outs send BYEs with
//! the right tags, and phones obey them, whatever the source address. So the fence drops the server's packets in the
//! output hook of its own table. It leaves other tables alone, and loopback stays open for health checks. The sender
//! sees the drop as `EPERM` from `sendto`.
//!
//! The table is built once, with rules that look up sets, and a new process reuses the table it finds. Every change
//! replaces elements over netlink and takes well under a millisecond, because the address of a planned handover waits
//! for it.

use super::nfnl::{Batch, Data, Family, Link};
use super::nft::signed::Signed;
use super::nft::{self, NftError};
use pnet_packet::ip::IpNextHeaderProtocols;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::sync::Mutex;
use tracing::warn;

/// Size limit of the phone sets: two addresses per leg at the default limit of tracked calls, doubled.
const MAX_PHONES: usize = 65_536;
/// How long the fence blocks a phone after a clean stop: longer than an active call is likely to last, so that all
/// session timers and time-outs of the old server have fired.
const PHONE_TIMEOUT: Duration = Duration::from_secs(3600);
/// The set of transport protocols that are fully blocked for the server.
const CLOSED: &str = "closed";
/// The sets of blocked phones, one per address family.
const PHONES: [&str; 2] = ["phones4", "phones6"];

/// The traffic that the fence drops now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceState {
    /// This process has not set the fence yet. A predecessor's table may be in force.
    Unknown,
    /// All SIP and media from the server.
    Closed,
    /// No traffic.
    Open,
    /// The server's traffic to the phones of calls that moved.
    Left,
    /// The table is deleted.
    Removed,
}

/// The fence of one instance.
#[derive(Debug)]
pub struct Fence {
    table: String,
    what: String,
    ports: Vec<u16>,
    media: (u16, u16),
    link: Link,
    // Held during a change, so that two changes of one table never overtake each other.
    now: Mutex<Now>,
}

/// The state in force.
#[derive(Debug)]
struct Now {
    state: FenceState,
    // Whether the table is installed as this program version builds it.
    installed: bool,
}

impl Fence {
    /// The fence of `instance`, whose server sends SIP from `ports` and RTP from `media` (first and last port). Changes
    /// nothing yet.
    #[must_use]
    pub fn new(instance: &str, ports: &[u16], media: (u16, u16)) -> Self {
        Self {
            table: nft::table_name("fence", instance),
            what: format!("the fence of instance {instance}"),
            ports: ports.to_vec(),
            media,
            link: Link::default(),
            now: Mutex::new(Now { state: FenceState::Unknown, installed: false }),
        }
    }

    /// For a standby: drops all SIP (UDP and TCP) and media from the server, except on loopback.
    ///
    /// # Errors
    /// nftables refused. The former state stays in force.
    pub async fn closed(&self) -> Result<(), NftError> {
        self.change(FenceState::Closed, &[]).await
    }

    /// For the master: drops nothing. (The relay's own table drops packets that collide with relayed calls.)
    ///
    /// # Errors
    /// nftables refused. The former state stays in force.
    pub async fn open(&self) -> Result<(), NftError> {
        self.change(FenceState::Open, &[]).await
    }

    /// For a clean stop after calls moved: drops the server's packets to `phones`, each for an hour, so that the table
    /// in effect expires by itself. The fence ignores phones beyond 65,536.
    ///
    /// # Errors
    /// nftables refused. The former state stays in force.
    pub async fn left(&self, phones: &[SocketAddr]) -> Result<(), NftError> {
        self.change(FenceState::Left, phones).await
    }

    /// Deletes the table.
    ///
    /// # Errors
    /// nftables refused. The former state stays in force.
    pub async fn removed(&self) -> Result<(), NftError> {
        let mut now = self.now.lock().await;
        now.installed = false;
        nft::run(&self.what, &nft::without(&self.table)).await?;
        now.state = FenceState::Removed;
        Ok(())
    }

    /// Restores the table if somebody deleted it. Returns whether the table was restored.
    ///
    /// # Errors
    /// nftables refused.
    pub async fn renew(&self) -> Result<bool, NftError> {
        let mut now = self.now.lock().await;
        if !matches!(now.state, FenceState::Closed | FenceState::Open) || self.is_there().await? {
            return Ok(false);
        }
        now.installed = false;
        self.link.idle().await;
        nft::run(&self.what, &self.whole(&self.rules(), now.state)).await?;
        now.installed = true;
        Ok(true)
    }

    /// The name of the fence's table.
    #[must_use]
    pub fn table_name(&self) -> &str {
        &self.table
    }

    /// The state that this process set last.
    pub async fn state(&self) -> FenceState {
        self.now.lock().await.state
    }

    async fn change(&self, to: FenceState, phones: &[SocketAddr]) -> Result<(), NftError> {
        let mut now = self.now.lock().await;
        let rules = self.rules();
        if now.installed || now.state == FenceState::Unknown && self.is_in_force(&rules).await {
            // The state in force is unknown until the kernel has answered (a drop of this future may come first).
            now.installed = false;
            match self.link.commit(self.batch(to, phones)).await {
                Ok(()) => {
                    *now = Now { state: to, installed: true };
                    return Ok(());
                }
                // Most likely somebody flushed the ruleset. If the full rebuild fails too, its error names the cause.
                Err(e) => warn!("cannot change {}, rebuilding it: {e}", self.what),
            }
        }
        self.link.idle().await;
        nft::run(&self.what, &self.whole(&rules, to)).await?;
        if to == FenceState::Left {
            // The new table starts closed, so no packet escapes in between.
            self.link
                .commit(self.batch(to, phones))
                .await
                .map_err(|source| NftError::Netlink { what: self.what.clone(), source })?;
        }
        *now = Now { state: to, installed: true };
        Ok(())
    }

    async fn is_there(&self) -> Result<bool, NftError> {
        let handle = self.link.table(Family::Inet, &self.table).await;
        Ok(handle.map_err(|source| NftError::Unseen { what: self.what.clone(), source })?.is_some())
    }

    /// Whether a predecessor left exactly these rules. A read error counts as no.
    async fn is_in_force(&self, rules: &Signed) -> bool {
        self.link.rules(Family::Inet, &self.table).await.is_ok_and(|there| rules.is_in_force(&there))
    }

    /// The changes that bring an existing table to state `to` from any state.
    fn batch(&self, to: FenceState, phones: &[SocketAddr]) -> Batch {
        let mut batch = Batch::new(Family::Inet, &self.table);
        for set in [CLOSED, PHONES[0], PHONES[1]] {
            batch.flush(set);
        }
        if to == FenceState::Closed {
            for protocol in [IpNextHeaderProtocols::Tcp, IpNextHeaderProtocols::Udp] {
                batch.add(CLOSED, &Data::new().then(&[protocol.0]), None, None);
            }
        }
        let phones: BTreeSet<SocketAddr> = phones.iter().take(MAX_PHONES).copied().collect();
        for phone in phones {
            let set = PHONES[usize::from(phone.is_ipv6())];
            batch.add(set, &Data::new().then_address(phone), None, Some(PHONE_TIMEOUT));
        }
        batch
    }

    /// First and last media port. The RTCP port of the last RTP port is one higher (RFC 3550 section 11).
    fn media_range(&self) -> RangeInclusive<u16> {
        self.media.0..=self.media.1.saturating_add(1)
    }

    fn media_ports(&self) -> String {
        let range = self.media_range();
        format!("{}-{}", range.start(), range.end())
    }

    /// Replaces the whole table in one transaction, so that the replacement of a crashed predecessor's table leaves no
    /// gap. The new table starts open for [`FenceState::Open`] and closed for all other states.
    fn whole(&self, rules: &Signed, to: FenceState) -> String {
        let mut text = nft::without(&self.table) + rules.text();
        if to != FenceState::Open {
            let _ = writeln!(text, "add element inet {} {CLOSED} {{ tcp, udp }}", self.table);
        }
        text
    }

    /// The table with empty sets. Raw priority runs before connection tracking, so fenced packets leave no entries.
    fn rules(&self) -> Signed {
        let mut text = format!("table inet {} {{\nset {CLOSED} {{ type inet_proto; }}\n", self.table);
        for (name, kind) in PHONES.iter().zip(["ipv4_addr", "ipv6_addr"]) {
            let _ = writeln!(text, "set {name} {{ type {kind} . inet_service; size {MAX_PHONES}; flags timeout; }}");
        }
        text.push_str("chain output { type filter hook output priority raw; policy accept;\noifname \"lo\" accept\n");
        if !self.ports.is_empty() {
            let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
            let _ = writeln!(text, "meta l4proto @{CLOSED} th sport {{ {} }} counter drop", ports.join(", "));
        }
        // SIP ports may lie in the media range, and an anonymous set refuses overlaps.
        let apart: BTreeSet<u16> =
            self.ports.iter().copied().filter(|port| !self.media_range().contains(port)).collect();
        let server: Vec<String> = apart.iter().map(u16::to_string).chain([self.media_ports()]).collect();
        let server = server.join(", ");
        // Media is UDP only. Any program may use one of these ports for a TCP connection.
        let _ = writeln!(text, "meta l4proto @{CLOSED} udp sport {} counter drop", self.media_ports());
        for (name, family) in PHONES.iter().zip(["ip", "ip6"]) {
            let _ = writeln!(
                text,
                "meta l4proto {{ tcp, udp }} th sport {{ {server} }} {family} daddr . th dport @{name} counter drop"
            );
        }
        text.push_str("}\n}\n");
        Signed::new(&text)
    }
}
