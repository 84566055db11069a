//! Damages files in every way: no panic, no endless loop, and every report converts to JSON.

use super::build::{Hop, audio, block, enhanced, ethernet, file, interface, ip, paced, pcap, rtp, section};
use super::*;
use std::time::Instant;

/// Damaged copies of each file.
const COPIES: u64 = 700;

/// Random numbers, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        // Vigna's xorshift64*.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % n
    }
}

fn damage(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(6) {
        let n = bytes.len();
        // A reader trusts the first bytes of a file, and of each record, the most.
        let at = if dice.below(4) == 0 { dice.below(n.min(200)) } else { dice.below(n) };
        match dice.below(6) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = [0, 0xff, 0x7f, 0x80][dice.below(4)],
            2 => bytes.truncate(at.max(1)),
            3 => {
                bytes.remove(at);
            }
            4 => bytes.insert(at, u8::try_from(dice.below(256)).unwrap()),
            _ => {
                let part = bytes[at..n.min(at + 300)].to_vec();
                let to = dice.below(n);
                bytes.splice(to..to, part);
            }
        }
        if bytes.is_empty() {
            return;
        }
    }
}

#[test]
fn damaged_files_are_read_as_far_as_they_go() {
    let (i, o) = (
        Hop::new("in", "10.0.0.1:5060", "10.0.0.9:5060", "1", "2"),
        Hop::new("out", "10.0.0.9:5060", "10.0.0.2:5060", "1", "2"),
    );
    let (a, b) = (
        audio("10.0.0.1:4000", "a=candidate:1 1 udp 1 10.0.0.1 4000 typ host\r\n"),
        audio("10.0.0.9:9000", "a=crypto:1 x inline:y\r\n"),
    );
    let mut shots =
        vec![i.invite(&a), o.invite(&b), o.answer(180, ""), o.answer(200, &a), o.ack(), i.answer(200, &b), i.ack()];
    shots.extend(rtp("10.0.0.1:4000", "10.0.0.9:9000", 5));
    shots.extend(i.over(true, 2));
    shots.extend(o.over(true, 2));
    let shots = paced(shots, 30);
    let mut ng =
        [section(true), interface(true, 1, 0, &[0, 9, 0, 1, 9, 0, 0, 0]), interface(true, 276, 96, &[])].concat();
    ng.extend(shots.iter().flat_map(|s| enhanced(true, 0, s.at * 1_000_000, &ethernet(&[0x81, 0, 0, 1], &ip(s)))));
    ng.extend(block(true, 3, &[0, 0, 0, 9, 1, 2, 3, 4]));
    let plain: Vec<_> = shots.iter().map(|s| (s.at, ethernet(&[], &ip(s)))).collect();
    let files = [
        file(&shots),
        ng,
        pcap(build::Kind { link: 1, ..build::RAW }, &plain),
        include_bytes!("cases/sip-inside-gtp-u-is-not-told.pcap").to_vec(),
        include_bytes!("cases/sip-over-sctp-is-not-told.pcap").to_vec(),
        include_bytes!("cases/cancel-of-a-second-copy-of-the-INVITE-ends-the-answered-call.pcap").to_vec(),
    ];
    let begin = Instant::now();
    let mut read = 0;
    for (n, whole) in (1u64..).zip(&files) {
        let mut dice = Dice(n);
        for _ in 0..COPIES {
            let mut bytes = whole.clone();
            damage(&mut bytes, &mut dice);
            if let Ok(r) = run(&bytes, &InspectSettings::default()) {
                read += 1;
                assert!(serde_json::to_string(&r).is_ok());
            }
        }
    }
    assert!(read > COPIES, "only {read} files could be read at all: the damage is too great to try anything");
    // Some 0.3 ms each; ten times that in a debug build on a slow machine.
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}
