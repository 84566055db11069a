//! Writes messages to nf_tables. Pure: elements in, bytes out.
//!
//! A message is a netlink header, a netfilter header and attributes (`linux/netlink.h`, `linux/netfilter/nfnetlink.h`,
//! `linux/netfilter/nf_tables.h`). Numbers in attributes are big endian. Numbers in headers use the host's byte order.

use crate::os::nf_tables::{
    self, BEGIN, DELETE_ELEMENT, END, GET_CHAIN, GET_ELEMENT, GET_RULE, GET_TABLE, NEW_ELEMENT, SUBSYSTEM, UNSPECIFIED,
    VERSION,
};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST};
use std::time::Duration;

/// Bytes of elements after which a new message begins. An attribute's length has 16 bits, and the headroom above this
/// limit far exceeds one element. One message also fits into a socket's default send buffer.
const MESSAGE: usize = 32 * 1024;
/// Longest key or value: the kernel's own limit (`NFT_DATA_VALUE_MAXLEN`).
pub const MAX_DATA: usize = 64;

pub(super) const HEADER: usize = 16;
/// Size of the netfilter header: family, version, resource.
pub(super) const GENERIC: usize = 4;

pub(super) const NESTED: u16 = 0x8000;
// enum nft_table_attributes
const TABLE_NAME: u16 = 1;
pub(super) const TABLE_HANDLE: u16 = 4;
// enum nft_chain_attributes
pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
// enum nft_hook_attributes
pub(super) const HOOK_NUMBER: u16 = 1;
// enum nft_rule_attributes
const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_USERDATA: u16 = 7;
// enum nft_set_elem_list_attributes
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
pub(super) const LIST_ELEMENTS: u16 = 3;
// enum nft_list_attributes
pub(super) const LIST_ELEM: u16 = 1;
// enum nft_set_elem_attributes
pub(super) const ELEM_KEY: u16 = 1;
pub(super) const ELEM_DATA: u16 = 2;
const ELEM_TIMEOUT: u16 = 4;
pub(super) const ELEM_EXPIRATION: u16 = 5;
pub(super) const ELEM_USERDATA: u16 = 6;
pub(super) const ELEM_EXPR: u16 = 7;
/// The kernel stores user data with an element or a rule, as a list of (type, length, value). nft shows this type as
/// the comment (`NFTNL_UDATA_SET_ELEM_COMMENT` and `NFTNL_UDATA_RULE_COMMENT` of libnftnl).
pub(super) const COMMENT: u8 = 0;
/// Longest comment. nft's own limit is 128, and a length has 8 bits.
const MAX_COMMENT: usize = 64;
// enum nft_data_attributes
pub(super) const DATA_VALUE: u16 = 1;
// enum nft_expr_attributes
pub(super) const EXPR_NAME: u16 = 1;
pub(super) const EXPR_DATA: u16 = 2;
// enum nft_counter_attributes
pub(super) const COUNTER_BYTES: u16 = 1;
pub(super) const COUNTER_PACKETS: u16 = 2;

/// The family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6 in the hooks of the IP layer.
    Inet,
    /// The ingress and egress of interfaces.
    Netdev,
    /// The address resolution of IPv4.
    Arp,
    /// IPv4 alone, as `iptables` uses it.
    Ip,
    /// IPv6 alone.
    Ip6,
}

impl Family {
    /// The family with this number in a netfilter header, if it is one whose hooks forward IP packets.
    pub(super) const fn that_forwards(number: u8) -> Option<Self> {
        match number {
            nf_tables::INET => Some(Self::Inet),
            nf_tables::IPV4 => Some(Self::Ip),
            nf_tables::IPV6 => Some(Self::Ip6),
            _ => None,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Inet => nf_tables::INET,
            Self::Netdev => nf_tables::NETDEV,
            Self::Arp => nf_tables::ARP,
            Self::Ip => nf_tables::IPV4,
            Self::Ip6 => nf_tables::IPV6,
        }
    }
}

/// A key or a value in the kernel's form. Each part of a concatenation begins at a multiple of four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    bytes: [u8; MAX_DATA],
    length: usize,
}

impl Default for Data {
    fn default() -> Self {
        Self::new()
    }
}

impl Data {
    /// Empty data.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; MAX_DATA], length: 0 }
    }

    /// Appends `part`: in network byte order for addresses and ports, in the host's order for marks. Parts beyond 64
    /// bytes in total are left out, and the kernel refuses such a key for its length.
    #[must_use]
    pub fn then(mut self, part: &[u8]) -> Self {
        let start = self.length.next_multiple_of(4);
        if let Some(room) = self.bytes.get_mut(start..start + part.len()) {
            room.copy_from_slice(part);
            self.length = start + part.len();
        }
        self
    }

    /// Appends an address and a port.
    #[must_use]
    pub fn then_address(self, address: std::net::SocketAddr) -> Self {
        let with_ip = self.then_ip(address.ip());
        let mut done = with_ip.then(&address.port().to_be_bytes());
        // Every part of a concatenation is padded, even the last one.
        done.length = done.length.next_multiple_of(4).min(MAX_DATA);
        done
    }

    /// Appends an address.
    #[must_use]
    pub fn then_ip(self, ip: std::net::IpAddr) -> Self {
        match ip {
            std::net::IpAddr::V4(ip) => self.then(&ip.octets()),
            std::net::IpAddr::V6(ip) => self.then(&ip.octets()),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Changes to set elements in one or more tables. All of them take effect at once, or none.
///
/// The changes run in order. Adjacent changes of one kind in one set share messages, so the cheapest order is set by
/// set.
#[derive(Debug)]
pub struct Batch {
    family: Family,
    table: String,
    messages: Vec<Vec<u8>>,
    // The kind and set of the last message, while it can take more elements.
    open: Option<Open>,
    bytes: usize,
}

#[derive(Debug)]
struct Open {
    kind: u16,
    set: String,
    // The start of the element list.
    list: usize,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new(family: Family, table: &str) -> Self {
        Self { family, table: table.to_owned(), messages: Vec::new(), open: None, bytes: 0 }
    }

    /// Further changes apply to this table.
    pub fn turn_to(&mut self, family: Family, table: &str) {
        self.end_list();
        self.family = family;
        table.clone_into(&mut self.table);
    }

    /// Adds an element. An existing element with the same value stays as it is, with its timeout. If the value differs,
    /// the kernel refuses the whole batch (`EBUSY`). `timeout` is in whole milliseconds and needs a set with the
    /// timeout flag.
    pub fn add(&mut self, set: &str, key: &Data, value: Option<&Data>, timeout: Option<Duration>) {
        self.add_noted(set, key, value, timeout, "");
    }

    /// Like [`Batch::add`], with a comment for `nft list`. The comment is cut at 64 bytes.
    pub fn add_noted(&mut self, set: &str, key: &Data, value: Option<&Data>, timeout: Option<Duration>, comment: &str) {
        let Some(message) = self.message(NEW_ELEMENT, set) else { return };
        let element = begin(message, LIST_ELEM);
        data(message, ELEM_KEY, key.as_bytes());
        if let Some(value) = value {
            data(message, ELEM_DATA, value.as_bytes());
        }
        if let Some(timeout) = timeout {
            // Zero would mean "for ever".
            let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
            attribute(message, ELEM_TIMEOUT, &ms.to_be_bytes());
        }
        if !comment.is_empty() {
            // The text ends with a zero byte, which counts in the length.
            let text: Vec<u8> = comment.bytes().take(MAX_COMMENT).chain([0]).collect();
            let noted: Vec<u8> = [COMMENT, text.len() as u8].into_iter().chain(text).collect();
            attribute(message, ELEM_USERDATA, &noted);
        }
        end(message, element);
    }

    /// Deletes an element. If the element is missing, the kernel refuses the whole batch (`ENOENT`).
    pub fn delete(&mut self, set: &str, key: &Data) {
        let Some(message) = self.message(DELETE_ELEMENT, set) else { return };
        let element = begin(message, LIST_ELEM);
        data(message, ELEM_KEY, key.as_bytes());
        end(message, element);
    }

    /// Deletes all elements of a set. An empty set is fine.
    pub fn flush(&mut self, set: &str) {
        self.close();
        let message = named(self.family, DELETE_ELEMENT, NLM_F_REQUEST, &self.table, set);
        self.messages.push(message);
    }

    /// Whether the batch is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The approximate size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes + self.messages.last().map_or(0, Vec::len)
    }

    /// The open message for elements of `set`.
    fn message(&mut self, kind: u16, set: &str) -> Option<&mut Vec<u8>> {
        let fits = self.open.as_ref().is_some_and(|o| o.kind == kind && o.set == set)
            && self.messages.last().is_some_and(|m| m.len() < MESSAGE);
        if !fits {
            self.close();
            let flags = if kind == NEW_ELEMENT { NLM_F_REQUEST | NLM_F_CREATE } else { NLM_F_REQUEST };
            let mut message = named(self.family, kind, flags, &self.table, set);
            let list = begin(&mut message, LIST_ELEMENTS);
            self.messages.push(message);
            self.open = Some(Open { kind, set: set.to_owned(), list });
        }
        self.messages.last_mut()
    }

    fn end_list(&mut self) {
        if let (Some(open), Some(message)) = (self.open.take(), self.messages.last_mut()) {
            end(message, open.list);
        }
    }

    fn close(&mut self) {
        self.end_list();
        self.bytes += self.messages.last().map_or(0, Vec::len);
    }

    /// Splits the batch into transactions of at most `limit` bytes, or of one message if that message is longer. There
    /// is a single transaction if `limit` allows. `sequence` is the number of the next message and counts up.
    pub(super) fn transactions(mut self, limit: usize, sequence: &mut u32) -> Vec<Transaction> {
        self.close();
        let frame = 2 * (HEADER + GENERIC);
        let mut done = Vec::new();
        let mut messages = self.messages.into_iter().peekable();
        while messages.peek().is_some() {
            let mut bytes = Vec::new();
            let first = *sequence;
            border(&mut bytes, BEGIN, sequence);
            let mut acknowledged = 0;
            while let Some(mut message) =
                messages.next_if(|m| bytes.len() <= HEADER + GENERIC || bytes.len() + m.len() + frame <= limit)
            {
                seal(&mut message, sequence);
                acknowledged = bytes.len();
                bytes.append(&mut message);
            }
            let last = sequence.wrapping_sub(1);
            // One acknowledgement covers the whole transaction. An error in any message arrives by itself.
            let flags = acknowledged + 6;
            if let Some(two) = bytes.get_mut(flags..flags + 2) {
                let with = two.first_chunk::<2>().map_or(NLM_F_REQUEST, |b| u16::from_ne_bytes(*b)) | NLM_F_ACK;
                two.copy_from_slice(&with.to_ne_bytes());
            }
            border(&mut bytes, END, sequence);
            done.push(Transaction { bytes, first, last });
        }
        done
    }
}

/// The bytes of one system call. They take effect at once.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) bytes: Vec<u8>,
    /// The number of the begin message. Errors about the whole transaction carry it.
    pub(super) first: u32,
    /// The number of the last message before the end message; the kernel acknowledges it.
    pub(super) last: u32,
}

/// Queries for single elements, each as its own message, so that a missing element does not block the other answers.
/// The kernel acknowledges or refuses the last one after all answers. Returns its number too.
pub(super) fn questions(family: Family, table: &str, set: &str, keys: &[Data], sequence: &mut u32) -> (Vec<u8>, u32) {
    let mut all = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        let flags = if n + 1 == keys.len() { NLM_F_REQUEST | NLM_F_ACK } else { NLM_F_REQUEST };
        let mut message = named(family, GET_ELEMENT, flags, table, set);
        let list = begin(&mut message, LIST_ELEMENTS);
        let element = begin(&mut message, LIST_ELEM);
        data(&mut message, ELEM_KEY, key.as_bytes());
        end(&mut message, element);
        end(&mut message, list);
        seal(&mut message, sequence);
        all.append(&mut message);
    }
    (all, sequence.wrapping_sub(1))
}

/// The query for all elements of a set.
pub(super) fn listing(family: Family, table: &str, set: &str, sequence: &mut u32) -> (Vec<u8>, u32) {
    let mut message = named(family, GET_ELEMENT, NLM_F_REQUEST | NLM_F_DUMP, table, set);
    seal(&mut message, sequence);
    (message, sequence.wrapping_sub(1))
}

/// The query for a table. The kernel acknowledges it after the answer, or refuses it.
pub(super) fn table_question(family: Family, table: &str, sequence: &mut u32) -> (Vec<u8>, u32) {
    let mut message = header(GET_TABLE, NLM_F_REQUEST | NLM_F_ACK, family.number(), 0);
    attribute(&mut message, TABLE_NAME, &zero_ended(table));
    seal(&mut message, sequence);
    (message, sequence.wrapping_sub(1))
}

/// The query for all chains of all tables.
pub(super) fn chain_listing(sequence: &mut u32) -> (Vec<u8>, u32) {
    let mut message = header(GET_CHAIN, NLM_F_REQUEST | NLM_F_DUMP, UNSPECIFIED, 0);
    seal(&mut message, sequence);
    (message, sequence.wrapping_sub(1))
}

/// The query for all rules of a table.
pub(super) fn rule_listing(family: Family, table: &str, sequence: &mut u32) -> (Vec<u8>, u32) {
    let mut message = header(GET_RULE, NLM_F_REQUEST | NLM_F_DUMP, family.number(), 0);
    attribute(&mut message, RULE_TABLE, &zero_ended(table));
    seal(&mut message, sequence);
    (message, sequence.wrapping_sub(1))
}

/// A message that names a set. Length and number are still open.
fn named(family: Family, kind: u16, flags: u16, table: &str, set: &str) -> Vec<u8> {
    let mut message = header(kind, flags, family.number(), 0);
    for (kind, name) in [(LIST_TABLE, table), (LIST_SET, set)] {
        attribute(&mut message, kind, &zero_ended(name));
    }
    message
}

/// A name with the kernel's zero terminator.
fn zero_ended(name: &str) -> Vec<u8> {
    name.bytes().chain([0]).collect()
}

fn header(kind: u16, flags: u16, family: u8, resource: u16) -> Vec<u8> {
    let mut message = Vec::with_capacity(256);
    message.extend([0; 4]);
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, VERSION]);
    message.extend(resource.to_be_bytes());
    message
}

/// Writes the begin or end message of a transaction.
fn border(bytes: &mut Vec<u8>, kind: u16, sequence: &mut u32) {
    let mut message = header(kind, NLM_F_REQUEST, UNSPECIFIED, SUBSYSTEM);
    seal(&mut message, sequence);
    bytes.append(&mut message);
}

/// Writes the length and number into a message's header.
fn seal(message: &mut [u8], sequence: &mut u32) {
    // A message is at most a little longer than MESSAGE.
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    if let Some(head) = message.first_chunk_mut::<HEADER>() {
        head[..4].copy_from_slice(&length.to_ne_bytes());
        head[8..12].copy_from_slice(&sequence.to_ne_bytes());
    }
    *sequence = sequence.wrapping_add(1);
}

fn data(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let outer = begin(message, kind);
    attribute(message, DATA_VALUE, value);
    end(message, outer);
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let start = message.len();
    message.extend([0; 2]);
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    end(message, start);
}

/// Opens a nested attribute and returns its start for [`end`].
fn begin(message: &mut Vec<u8>, kind: u16) -> usize {
    let start = message.len();
    message.extend([0; 2]);
    message.extend((kind | NESTED).to_ne_bytes());
    start
}

/// Writes the length of the attribute at `start`, and pads it.
fn end(message: &mut Vec<u8>, start: usize) {
    let length = u16::try_from(message.len() - start).unwrap_or(u16::MAX);
    if let Some(place) = message.get_mut(start..start + 2) {
        place.copy_from_slice(&length.to_ne_bytes());
    }
    message.resize(message.len().next_multiple_of(4), 0);
}
