//! Replays the fuzzer's saved inputs, and mutations of them, without the fuzzer. Checks the same invariants on messages
//! assembled from parts.

#[path = "../../fuzz/src/lib.rs"]
mod bodies;

use proptest::prelude::*;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

type Target = (&'static str, fn(&[u8]), u32);

/// Name, body, and number of mutations per saved input: together they take a few seconds without optimization.
const TARGETS: &[Target] = &[
    ("message", bodies::message, 40),
    ("uri", bodies::uri, 100),
    ("sdp", bodies::sdp, 40),
    ("framer", bodies::framer, 20),
    ("hep", bodies::hep, 25),
    ("packet", bodies::packet, 4),
    ("path", bodies::path, 6),
];

/// Words that the parsers look for: a mutation with one of these gets further than one with a random byte.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b",",
    b";",
    b"<",
    b">",
    b"\"",
    b"\\",
    b"=",
    b":",
    b"@",
    b"%00",
    b"/",
    b"?",
    b"0",
    b"-1",
    b"4294967296",
    b"99999999999999999999",
    b";tag=",
    b";lr",
    b"SIP/2.0",
    b"INVITE",
    b"ACK",
    b"m=audio 0 RTP/AVP 0\r\n",
    b"c=IN IP4 0.0.0.0\r\n",
    b"a=sendonly\r\n",
    b"a=rtcp:1\r\n",
    b"o=",
    b"[::1]",
    b"*",
    b"Content-Length: 0\r\n",
    b"\0",
    b"\xff",
];

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut all: Vec<_> =
        fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).map(|p| (p.clone(), fs::read(&p).unwrap())).collect();
    // The order of a folder varies between machines; the mutations must not.
    all.sort();
    all
}

/// SplitMix64: the same mutations in every run and on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n.max(1)).unwrap()).unwrap()
    }
}

fn mutate(data: &mut Vec<u8>, other: &[u8], r: &mut Random) {
    for _ in 0..=r.below(3) {
        let at = r.below(data.len() + 1);
        let len = r.below(40).min(data.len() - at);
        match r.below(7) {
            0 if at < data.len() => data[at] = u8::try_from(r.below(256)).unwrap(),
            1 => drop(data.drain(at..at + len)),
            2 => {
                let piece = data[at..at + len].to_vec();
                let to = r.below(data.len() + 1);
                data.splice(to..to, piece);
            }
            3 => {
                let from = r.below(other.len() + 1);
                let piece = &other[from..other.len().min(from + 60)];
                data.splice(at..at + len, piece.iter().copied());
            }
            4 => data.truncate(at),
            _ => {
                let word = WORDS[r.below(WORDS.len())];
                let replaced = r.below(word.len() + 1).min(data.len() - at);
                data.splice(at..at + replaced, word.iter().copied());
            }
        }
    }
}

fn check(name: &str, body: fn(&[u8]), data: &[u8], what: &str) {
    if let Err(e) = catch_unwind(AssertUnwindSafe(|| body(data))) {
        let why = e.downcast_ref::<String>().cloned().or_else(|| e.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        panic!("{name}: {what}: {}\ninput: {}", why.unwrap_or_default(), bodies::show(data));
    }
}

/// Factor for the number of mutations: for a longer search by hand, where there is no fuzzer.
fn times() -> u32 {
    std::env::var("KEEPCALL_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

#[test]
fn saved_inputs_and_their_mutations_break_nothing() {
    for (name, body, mutations) in TARGETS {
        let all = corpus(name);
        assert!(all.len() >= 8 && all.len() <= 60, "{name} has {} saved inputs", all.len());
        let mut r = Random(bodies::choices(name.as_bytes()));
        for (i, (path, data)) in all.iter().enumerate() {
            check(name, *body, data, &path.display().to_string());
            for n in 0..mutations.saturating_mul(times()) {
                let mut data = data.clone();
                mutate(&mut data, &all[(i + 1 + r.below(all.len())) % all.len()].1, &mut r);
                check(name, *body, &data, &format!("mutation {n} of {}", path.display()));
            }
        }
    }
}

/// A broken invariant must be noticed; otherwise the test above proves nothing.
#[test]
fn a_finding_is_told() {
    let told = catch_unwind(|| check("x", |d| assert!(d.len() > 3, "too short"), b"abc", "here"));
    let why = *told.unwrap_err().downcast::<String>().unwrap();
    assert!(why.contains("too short") && why.contains("input: abc"), "{why}");
}

/// Every saved input has its purpose: the readable ones really parse.
#[test]
fn the_saved_inputs_reach_what_they_are_for() {
    use keepcall::sip::message::Message;
    use keepcall::sip::sdp::Sdp;
    let read = |t: &str, f: fn(&[u8]) -> bool| corpus(t).iter().filter(|(_, d)| f(d)).count();
    assert!(read("message", |d| Message::parse(d).is_ok()) >= 8);
    assert!(read("framer", |d| !bodies::messages(d).is_empty()) >= 12);
    assert!(read("path", |d| !bodies::walked(d).is_empty()) >= 12);
    assert!(read("sdp", |d| Sdp::parse(d).is_ok_and(|s| !s.media().is_empty())) >= 8);
    assert!(
        read("packet", |d| d
            .split(|b| *b == bodies::SEPARATOR)
            .filter(|r| r.len() > 1 && Message::parse(&r[1..]).is_ok())
            .count()
            > 2)
            >= 8
    );
}

fn token() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9.!%*_+`'~-]{1,12}"
}

fn line_end() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just("\r\n"), 2 => Just("\n"), 1 => Just("\r\r\n")]
}

/// A value as phones write it, with folds and quotes.
fn value() -> impl Strategy<Value = String> {
    let quoted = "\"([^\"\\\\\r\n]|\\\\[ -~]){0,10}\"";
    let uri = "(sips?|tel|urn):[a-z0-9%;=:.+]{0,10}@?(\\[::1\\]|[a-z0-9.]{1,10})(:[0-9]{1,5})?(;[a-z]{1,4}(=[a-z0-9]{0,3})?){0,2}(\\?a=b)?";
    prop_oneof![
        uri.prop_map(|u| u),
        (quoted, uri, token()).prop_map(|(q, u, t)| format!("{q} <{u}>;tag={t}")),
        (token(), uri).prop_map(|(n, u)| format!("{n}\r\n <{u}> ; x")),
        "[ -~\u{80}-\u{7ff}]{0,30}",
    ]
}

fn header() -> impl Strategy<Value = String> {
    let known = proptest::sample::select(vec![
        "Via",
        "v",
        "Contact",
        "m",
        "Record-Route",
        "To",
        "f",
        "Session-Expires",
        "Reason",
        "RAck",
        "Event",
    ]);
    let name = prop_oneof![2 => known.prop_map(str::to_owned), 1 => token()];
    (name, prop_oneof![Just(":"), Just(": "), Just(" :\t"), Just(":\r\n ")], proptest::collection::vec(value(), 1..3))
        .prop_map(|(n, colon, v)| format!("{n}{colon}{}", v.join(" , ")))
}

fn sdp_line() -> impl Strategy<Value = String> {
    let ip = || {
        prop_oneof![
            Just("IN IP4 10.0.0.1"),
            Just("IN IP4 0.0.0.0"),
            Just("IN IP6 2001:db8::9"),
            Just("IN IP4 h.example"),
            Just("IN IP4 224.1.1.1/9")
        ]
    };
    prop_oneof![
        ip().prop_map(|ip| format!("c={ip}")),
        (proptest::sample::select(vec!["audio", "video", "image"]), 0..3_u16, "[ \t]{1,2}", "( [0-9]{1,3}){0,4}")
            .prop_map(|(k, p, gap, f)| format!("m={k}{gap}{}{gap}RTP/AVP{f}", p * 4000)),
        (0..10_u32, ip()).prop_map(|(v, ip)| format!("o=- 1 {v} {ip}")),
        ip().prop_map(|ip| format!("a=rtcp:5 {ip}")),
        proptest::sample::select(vec![
            "a=sendonly",
            "a=inactive",
            "a=rtcp:7",
            "a=rtcp-mux",
            "a=rtpmap:8 PCMA/8000",
            "a=fmtp:8 x",
            "a=rtcp-fb:* nack",
            "a=crypto:1 S inline:k",
            "a=fingerprint:sha-1 AA",
            "a=ice-ufrag:u",
            "a=ice-pwd:p",
            "a=ICE-options:t",
            "a=candidate:1 1 udp 1 10.0.0.1 9 typ host",
            "a=mid:0",
            "a=group:BUNDLE 0",
            "a=setup:active",
            "b=AS:64",
            "t=0 0",
            "s=-",
            "",
            "x",
            "i=note",
        ])
        .prop_map(str::to_owned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn made_up_messages_are_read_and_written_the_same(
        headers in proptest::collection::vec((header(), line_end()), 0..8),
        method in token(),
        code in proptest::option::of(100..700_u16),
        body in proptest::collection::vec(any::<u8>(), 0..30),
        edits in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..3),
    ) {
        let first = code.map_or_else(|| format!("{method} sip:a@h SIP/2.0\r\n"), |c| format!("SIP/2.0 {c} x y\r\n"));
        let mut text = format!("{first}From: <sip:a>;tag=1\r\nTo: <sip:b>\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n").into_bytes();
        let fixed = text.len();
        for (h, end) in &headers {
            text.extend_from_slice(h.as_bytes());
            text.extend_from_slice(end.as_bytes());
        }
        text.extend_from_slice(b"\r\n");
        text.extend_from_slice(&body);
        prop_assert!(keepcall::sip::message::Message::parse(&text).is_ok());
        bodies::message(&text);
        for (at, byte) in edits {
            let at = fixed + usize::from(at) % (text.len() - fixed).max(1);
            if let Some(b) = text.get_mut(at) { *b = byte; }
        }
        bodies::message(&text);
    }

    #[test]
    fn made_up_values_are_cut_without_loss(values in proptest::collection::vec(value(), 0..5), stray in "[<>\",;\\\\ ]{0,4}") {
        let text = values.join(",") + &stray + &values.concat();
        bodies::uri(text.as_bytes());
    }

    #[test]
    fn edits_of_made_up_descriptions_touch_nothing_else(
        lines in proptest::collection::vec(sdp_line(), 0..20),
        end in proptest::sample::select(vec!["\r\n", "\n", "\r"]),
        unfinished in any::<bool>(),
    ) {
        let mut text = format!("v=0{end}") + &lines.join(end);
        if !unfinished { text += end; }
        bodies::sdp(text.as_bytes());
    }
}
