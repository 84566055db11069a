//! The fence: keeps the server of a node that is not master off the wire.
//!
//! A server that lost the address still believes in its dialogs: its session timers and RTP time-outs send BYEs with the right
//! tags, and phones obey them, whatever the source address. So what it sends is dropped in the output hook of a table of our
//! own. Other tables are never touched, and loopback stays open so that health checks go on. The sender sees the drop as
//! `EPERM` from `sendto`.
//!
//! The table is made once, with rules that ask sets, and a new process goes on with the table that it finds. Every change is one of
//! elements over netlink, well under a millisecond: the address of a planned handover waits for it.

use super::nfnl::{Batch, Data, Family, Link};
use super::nft::signed::Signed;
use super::nft::{self, NftError};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::sync::Mutex;
use tracing::warn;

/// Entries of the set of phones: two addresses for each leg of the most calls that an instance tracks by default, doubled.
const MAX_PHONES: usize = 65_536;
/// How long a phone stays closed off after a clean stop: longer than a call that was up is likely to go on, so that the old
/// server's session timers and time-outs have all fired.
const PHONE_TIMEOUT: Duration = Duration::from_secs(3600);
/// The set of transport protocols in which the server may not speak at all.
const CLOSED: &str = "closed";
/// The sets of phones to which it may not speak, by address family.
const PHONES: [&str; 2] = ["phones4", "phones6"];

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
    link: Link,
    // Held across a change: two changes of one table never overtake each other.
    now: Mutex<Now>,
}

/// What is in force.
#[derive(Debug)]
struct Now {
    state: FenceState,
    // Whether the table is there as this version of the program makes it.
    installed: bool,
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
            link: Link::default(),
            now: Mutex::new(Now { state: FenceState::Unknown, installed: false }),
        }
    }

    /// For a backup: drops all SIP (UDP and TCP) and media that the server sends by anything but loopback.
    ///
    /// # Errors
    /// nftables refused; then the former state is still in force.
    pub async fn closed(&self) -> Result<(), NftError> {
        self.change(FenceState::Closed, &[]).await
    }

    /// For the master: drops nothing. (What collides with calls that the kernel relay carries, the relay's own table drops.)
    ///
    /// # Errors
    /// nftables refused; then the former state is still in force.
    pub async fn open(&self) -> Result<(), NftError> {
        self.change(FenceState::Open, &[]).await
    }

    /// For a clean stop after which calls moved: drops what the server sends to `phones`, each for an hour, so that the table
    /// expires in effect by itself. Of more than 65,536 phones the rest is left out.
    ///
    /// # Errors
    /// nftables refused; then the former state is still in force.
    pub async fn left(&self, phones: &[SocketAddr]) -> Result<(), NftError> {
        self.change(FenceState::Left, phones).await
    }

    /// Deletes the table.
    ///
    /// # Errors
    /// nftables refused; then the former state is still in force.
    pub async fn removed(&self) -> Result<(), NftError> {
        let mut now = self.now.lock().await;
        now.installed = false;
        nft::run(&self.what, &nft::without(&self.table)).await?;
        now.state = FenceState::Removed;
        Ok(())
    }

    /// Puts the table back if somebody deleted it; whether that was so.
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

    /// The name of its table.
    #[must_use]
    pub fn table_name(&self) -> &str {
        &self.table
    }

    /// What this process set last.
    pub async fn state(&self) -> FenceState {
        self.now.lock().await.state
    }

    async fn change(&self, to: FenceState, phones: &[SocketAddr]) -> Result<(), NftError> {
        let mut now = self.now.lock().await;
        let rules = self.rules();
        if now.installed || now.state == FenceState::Unknown && self.is_in_force(&rules).await {
            // Until the kernel has answered it is not known what is in force (this future may be dropped).
            now.installed = false;
            match self.link.commit(self.batch(to, phones)).await {
                Ok(()) => {
                    *now = Now { state: to, installed: true };
                    return Ok(());
                }
                // Somebody flushed the ruleset, most likely. The long way says what is wrong if it fails, too.
                Err(e) => warn!("{} is made anew, since it could not be changed: {e}", self.what),
            }
        }
        self.link.idle().await;
        nft::run(&self.what, &self.whole(&rules, to)).await?;
        if to == FenceState::Left {
            // The table came closed, so nothing gets out in between.
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

    /// Whether a predecessor left these rules; if that cannot be read, it did not.
    async fn is_in_force(&self, rules: &Signed) -> bool {
        self.link.rules(Family::Inet, &self.table).await.is_ok_and(|there| rules.is_in_force(&there))
    }

    /// What brings an existing table to state `to`, whatever it was in before.
    fn batch(&self, to: FenceState, phones: &[SocketAddr]) -> Batch {
        let mut batch = Batch::new(Family::Inet, &self.table);
        for set in [CLOSED, PHONES[0], PHONES[1]] {
            batch.flush(set);
        }
        if to == FenceState::Closed {
            for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
                batch.add(CLOSED, &Data::new().then(&[protocol as u8]), None, None);
            }
        }
        let phones: BTreeSet<SocketAddr> = phones.iter().take(MAX_PHONES).copied().collect();
        for phone in phones {
            let set = PHONES[usize::from(phone.is_ipv6())];
            batch.add(set, &Data::new().then_address(phone), None, Some(PHONE_TIMEOUT));
        }
        batch
    }

    /// First and last media port. The RTCP of an RTP stream on the last port is one above it (RFC 3550 section 11).
    fn media_range(&self) -> RangeInclusive<u16> {
        self.media.0..=self.media.1.saturating_add(1)
    }

    fn media_ports(&self) -> String {
        let range = self.media_range();
        format!("{}-{}", range.start(), range.end())
    }

    /// Replaces the whole table in one transaction: what a crashed predecessor left is replaced without a moment in which nothing
    /// is fenced. It comes open for [`FenceState::Open`] and closed for all others.
    fn whole(&self, rules: &Signed, to: FenceState) -> String {
        let mut text = nft::without(&self.table) + rules.text();
        if to != FenceState::Open {
            let _ = writeln!(text, "add element inet {} {CLOSED} {{ tcp, udp }}", self.table);
        }
        text
    }

    /// The table, its sets empty. Raw priority comes before connection tracking, so fenced packets leave no entries.
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
        // Ports of both kinds may overlap, which a set without a name does not take.
        let apart: BTreeSet<u16> =
            self.ports.iter().copied().filter(|port| !self.media_range().contains(port)).collect();
        let server: Vec<String> = apart.iter().map(u16::to_string).chain([self.media_ports()]).collect();
        let server = server.join(", ");
        // Media is UDP; a TCP connection from one of these ports may be anybody's.
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
