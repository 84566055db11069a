//! Memory cost of a stored call, counted by the allocator: on a backup, which follows the store, and on the master,
//! which also tracks the call. Also the cost of floods. `cargo test --test memory -- --nocapture` prints the numbers as
//! one line of JSON. A program of its own, since the allocator counts what the whole process uses.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
// Only the allocator sees all memory.
#![allow(unsafe_code)]

use keepcall::calls::model::{Call, CallEvent};
use keepcall::calls::table::{Table, TableSettings};
use keepcall::sip::Transport;
use keepcall::time::Time;
use keepcall::wire::Packet;
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Most bytes that one stored call may cost.
const LIMIT: usize = 6 * 1024;
const CALLS: usize = 5000;
/// All memory counts, so only one test at a time may allocate.
static ALONE: Mutex<()> = Mutex::new(());

struct Counting;
static USED: AtomicUsize = AtomicUsize::new(0);

/// The C library's real allocation: a word in front, sizes in steps of 16, at least 32.
fn taken(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call goes to the system's allocator unchanged; the counter has no influence on it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        USED.fetch_add(taken(layout), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        USED.fetch_sub(taken(layout), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn used() -> usize {
    USED.load(Ordering::Relaxed)
}

const VIP: &str = "192.0.2.10:5060";

struct Side {
    phone: SocketAddr,
    call_id: String,
    from: String,
    to: String,
    to_tag: String,
    uri: String,
    contacts: [String; 2],
    out: bool,
}

fn sdp(user: &str, ip: &str, port: usize, n: usize, long: bool) -> String {
    let more = "a=rtpmap:9 G722/8000\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 useinbandfec=1;maxaveragebitrate=64000\r\n\
                a=rtpmap:3 GSM/8000\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n\
                a=rtcp:4001 IN IP4 198.51.100.7\r\na=ssrc:1847311245 cname:user@host.example.org\r\n";
    format!(
        "v=0\r\no={user} {n} {n} IN IP4 {ip}\r\ns={user}\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 8 0 101\r\n\
         a=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\n\
         a=maxptime:150\r\n{}a=sendrecv\r\n",
        if long { more } else { "" }
    )
}

impl Side {
    fn new(n: usize, out: bool) -> Self {
        let phone = SocketAddr::from(([198, 51, (n / 250) as u8, (n % 250) as u8 + 1], if out { 5062 } else { 5060 }));
        let user = 200_000 + n;
        Self {
            phone,
            call_id: if out {
                format!("7f2c{n:08}-53aa-4c21-9df1-0c1e64b31b{n:04}")
            } else {
                format!("{n:012}-k2Hxw8qLd0YvB@{}", phone.ip())
            },
            from: format!("\"Extension {user}\" <sip:{user}@pbx.example.org>;tag=a{n:08}b1c2d3{}", u8::from(out)),
            to: format!("<sip:{}@pbx.example.org>", 300_000 + n),
            to_tag: format!("z{n:08}-5d1c-4af6{}", u8::from(out)),
            uri: format!("sip:{}@{phone}", 300_000 + n),
            contacts: if out {
                ["<sip:asterisk@192.0.2.10:5060>".into(), format!("<sip:{}@{phone};ob>", 300_000 + n)]
            } else {
                [format!("<sip:{user}@{phone};ob>"), "<sip:192.0.2.10:5060>".into()]
            },
            out,
        }
    }

    /// One message; `by_caller` gives the sender.
    fn message(&self, start: &str, by_caller: bool, cseq: &str, tag: bool, body: &str) -> (bool, String) {
        let to = if tag { format!("{};tag={}", self.to, self.to_tag) } else { self.to.clone() };
        let lists = if by_caller == self.out {
            // The server's own.
            "Allow: OPTIONS, REGISTER, SUBSCRIBE, NOTIFY, PUBLISH, INVITE, ACK, BYE, CANCEL, UPDATE, PRACK, MESSAGE, REFER\r\nSupported: 100rel, timer, replaces, norefersub\r\n"
        } else {
            "Allow: PRACK, INVITE, ACK, BYE, CANCEL, UPDATE, INFO, SUBSCRIBE, NOTIFY, REFER, MESSAGE, OPTIONS\r\nSupported: replaces, 100rel, timer, norefersub\r\n"
        };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let text = format!(
            "{start}\r\nVia: SIP/2.0/UDP {};rport;branch=z9hG4bK{}{cseq}\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {cseq}\r\nContact: {}\r\n\
             {lists}Session-Expires: 1800;refresher=uac\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            if self.out { VIP.to_owned() } else { self.phone.to_string() },
            self.call_id,
            self.from,
            self.call_id,
            self.contacts[usize::from(!by_caller)],
            body.len()
        );
        (by_caller == self.out, text)
    }

    fn see(&self, table: &mut Table, (by_server, text): (bool, String), now: Time) {
        let vip: SocketAddr = VIP.parse().unwrap();
        let (src, dst) = if by_server { (vip, self.phone) } else { (self.phone, vip) };
        let p = Packet { src, dst, transport: Transport::Udp, payload: text.as_bytes() };
        table.handle_packet(&p, 1_700_000_000_000, now);
    }
}

/// One call through a B2BUA: the caller offers much, the server offers what it allows.
fn call(table: &mut Table, n: usize, now: Time) {
    let (a, b) = (Side::new(n, false), Side::new(n, true));
    let port = 10_000 + 4 * n % 50_000;
    let phone = |s: &Side, long| sdp("-", &s.phone.ip().to_string(), 4000 + n % 999, n + 3_900_000_000, long);
    let own = |add, long| sdp("Asterisk", "192.0.2.10", port + add, n + 1_234_567_890, long);
    a.see(
        table,
        a.message(
            &format!("INVITE sip:{}@pbx.example.org SIP/2.0", 300_000 + n),
            true,
            "4711 INVITE",
            false,
            &phone(&a, true),
        ),
        now,
    );
    a.see(table, a.message("SIP/2.0 100 Trying", false, "4711 INVITE", false, ""), now);
    b.see(table, b.message(&format!("INVITE {} SIP/2.0", b.uri), true, "20114 INVITE", false, &own(2, true)), now);
    b.see(table, b.message("SIP/2.0 180 Ringing", false, "20114 INVITE", true, ""), now);
    a.see(table, a.message("SIP/2.0 180 Ringing", false, "4711 INVITE", true, ""), now);
    b.see(table, b.message("SIP/2.0 200 OK", false, "20114 INVITE", true, &phone(&b, true)), now);
    b.see(table, b.message(&format!("ACK {} SIP/2.0", b.uri), true, "20114 ACK", true, ""), now);
    a.see(table, a.message("SIP/2.0 200 OK", false, "4711 INVITE", true, &own(0, true)), now);
    a.see(table, a.message("ACK sip:192.0.2.10:5060 SIP/2.0", true, "4711 ACK", true, ""), now);
}

fn table() -> Table {
    Table::new(settings())
}

fn settings() -> TableSettings {
    TableSettings {
        instance: "main".into(),
        node: "node-1".into(),
        vips: vec!["192.0.2.10".parse().unwrap()],
        sip_ports: vec![5060],
        advertised: keepcall::sip::advertised::Advertised::default(),
        pair_header: None,
        emergency: Vec::new(),
        max_calls: 20_000,
    }
}

/// The calls that the table puts for storage.
fn told(table: &mut Table) -> impl Iterator<Item = Box<Call>> {
    std::iter::from_fn(|| table.poll_event()).filter_map(|e| match e {
        CallEvent::Put(call) => Some(call),
        CallEvent::Delete { .. } => None,
    })
}

#[test]
fn a_stored_call_is_small_in_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let start = used();
    let mut table = table();
    let mut now = Time::from_millis(1000);
    // As in the agent: the calls that the table puts are kept as stored.
    let mut stored: BTreeMap<String, Box<Call>> = BTreeMap::new();
    for n in 0..CALLS {
        call(&mut table, n, now);
        now += Duration::from_millis(10);
        table.handle_timeout(now);
        stored.extend(told(&mut table).map(|call| (call.id.clone(), call)));
    }
    let master = (used() - start) / CALLS;
    assert!(stored.len() == CALLS && stored.values().all(|c| c.legs.len() == 2), "each call has two legs");
    let values: Vec<Vec<u8>> = stored.values().map(|call| serde_json::to_vec(call).unwrap()).collect();
    let bodies = stored.values().flat_map(|c| &c.legs).flat_map(|l| [&l.sdp_sent, &l.sdp_received]);
    let sdp = bodies.map(|s| s.as_ref().unwrap().body.len()).sum::<usize>() / CALLS;
    drop((table, stored));

    let start = used();
    let read = |v: &Vec<u8>| {
        let mut call: Box<Call> = Box::new(serde_json::from_slice(v).unwrap());
        call.shrink();
        (call.id.clone(), call)
    };
    let stored: BTreeMap<String, Box<Call>> = values.iter().map(read).collect();
    let backup = (used() - start) / CALLS;
    let json = values.iter().map(Vec::len).sum::<usize>() / CALLS;
    println!(
        "{{\"calls\":{},\"backup_bytes\":{backup},\"master_bytes\":{master},\"limit_bytes\":{LIMIT},\"sdp_bytes\":{sdp},\"json_bytes\":{json}}}",
        stored.len()
    );
    assert!(backup <= LIMIT && master <= LIMIT, "a call costs {backup} bytes on a backup and {master} on the master");
}

/// Resident memory of the process in bytes, as the system counts it.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Dialog `n` of a flood: a stranger's INVITE with a description of more than 15,000 bytes, then one of seven kinds of
/// message. Each dialog comes from another address.
fn flood(table: &mut Table, n: usize, now: Time) {
    let side = Side::new(n, false);
    let long = format!("{}a=x:{}\r\n", sdp("-", "198.51.100.1", 4000, n, true), "x".repeat(15_000));
    let invite = side.message(&format!("INVITE sip:{n}@pbx.example.org SIP/2.0"), true, "1 INVITE", false, &long);
    side.see(table, invite, now);
    match n % 7 {
        0 => side.see(table, side.message("SIP/2.0 401 Unauthorized", false, "1 INVITE", true, ""), now),
        1 => side.see(table, side.message("BYE sip:192.0.2.10 SIP/2.0", true, "2 BYE", true, ""), now),
        2 => side.see(table, side.message("SIP/2.0 200 OK", true, "9 INVITE", true, &long), now),
        3 => side.see(table, side.message("REGISTER sip:192.0.2.10 SIP/2.0", true, "3 REGISTER", false, ""), now),
        4 => side.see(table, side.message("SUBSCRIBE sip:192.0.2.10 SIP/2.0", true, "4 SUBSCRIBE", true, ""), now),
        5 => side.see(table, side.message("INVITE sip:192.0.2.10 SIP/2.0", true, "5 INVITE", true, &long), now),
        _ => side.see(table, side.message("ACK sip:192.0.2.10 SIP/2.0", true, "1 ACK", true, &long), now),
    }
}

#[test]
fn floods_take_no_more_than_their_room() {
    const MIB: usize = 1 << 20;
    /// At `max_calls` = 10,000, from docs/learning.md: 25 MiB of waiting legs, 10 of claims, 40 of ended calls; plus
    /// freed memory that the allocator keeps.
    const MOST: usize = 96 * MIB;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (start, before) = (used(), resident());
    let mut table = Table::new(TableSettings { max_calls: 10_000, ..settings() });
    let mut now = Time::from_millis(1000);
    for n in 0..10 {
        call(&mut table, n, now);
    }
    for n in 0..21_000 {
        flood(&mut table, 1000 + n, now);
        now += Duration::from_millis(1);
        table.handle_timeout(now);
    }
    let (bytes, kept, grown) = (table.learning().load.bytes, used() - start, resident().saturating_sub(before));
    println!(
        "{{\"counted_bytes\":{bytes},\"allocated_bytes\":{kept},\"resident_bytes\":{grown},\"limit_bytes\":{MOST}}}"
    );
    assert!(kept <= MOST && grown <= MOST, "{kept} bytes are kept, {grown} are resident");
    assert!(kept <= bytes + bytes / 4 + MIB, "{bytes} bytes are counted, {kept} are kept");
    now += Duration::from_secs(2);
    table.handle_timeout(now);
    let up = told(&mut table).filter(|c| c.legs.len() == 2 && c.legs.iter().all(|l| !l.partial)).count();
    assert_eq!(up, 10, "the calls that were up");
}
