use super::*;
use proptest::prelude::*;

const TOLD: &str = "192.168.1.5:4000";
/// The NAT's address: the host of the signalling.
const NAT: &str = "203.0.113.7:61000";
const OTHER_PORT: &str = "203.0.113.7:61002";
const PATIENCE: Duration = Duration::from_secs(10);
const MINE: u32 = 0x1234_5678;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A latch with a clock that advances by 500 ms with each sample.
struct Bench {
    latch: Latch,
    now: Time,
}

impl Bench {
    fn new(told: &str) -> Self {
        let now = Time::from_millis(1000);
        Self { latch: Latch::new(at(told), None, now), now }
    }

    fn feed(&mut self, from: &str, ssrc: u32, seqs: impl IntoIterator<Item = u16>) -> Vec<Outcome> {
        let feed = |seq| {
            self.now += Duration::from_millis(500);
            self.latch.handle(&Sample { from: at(from), ssrc, seq }, at(NAT).ip(), PATIENCE, self.now)
        };
        seqs.into_iter().map(feed).collect()
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn source(&self) -> String {
        self.latch.source().to_string()
    }
}

#[test]
fn a_phone_behind_a_nat_is_believed_from_the_host_of_its_signalling_only() {
    let mut b = Bench::new(TOLD);
    assert!(b.feed("198.51.100.66:9", MINE, 0..100).iter().all(|o| *o == Outcome::Foreign));
    assert_eq!(b.feed(NAT, MINE, [1, 26, 51, 76]).last(), Some(&Outcome::Nothing));
    assert_eq!(b.source(), NAT);
    // The phone may send from another port than it describes.
    let mut b = Bench::new("198.51.100.20:4000");
    assert_eq!(b.feed("198.51.100.20:5000", MINE, [1, 26, 51])[2], Outcome::Believed(at("198.51.100.20:5000")));
}

#[test]
fn the_described_address_is_not_beaten_while_it_sends_nor_while_it_is_silent() {
    for told in [TOLD, "203.0.113.7:4000", "198.51.100.20:4000"] {
        let mut b = Bench::new(told);
        assert_eq!(b.feed(told, MINE, [1, 26, 51])[2], Outcome::Believed(at(told)));
        for other in [NAT, OTHER_PORT] {
            assert!(b.feed(other, 7, 0..50).iter().all(|o| *o == Outcome::Doubtful));
            b.feed(told, MINE, [100]);
            assert!(b.feed(other, 7, 50..100).iter().all(|o| *o == Outcome::Doubtful));
        }
        // On hold, longer than any patience.
        b.wait(3600);
        assert!(b.feed(NAT, 7, 0..200).iter().all(|o| *o == Outcome::Doubtful));
        assert_eq!(b.source(), told);
    }
    // One sample is enough to keep others out for a while.
    let mut b = Bench::new(TOLD);
    b.feed(TOLD, MINE, [1]);
    assert_eq!(b.feed(NAT, 7, 0..5)[4], Outcome::Doubtful);
    assert_eq!(b.source(), TOLD);
}

#[test]
fn of_two_that_send_at_once_neither_is_taken() {
    let mut b = Bench::new(TOLD);
    for seq in 0..50 {
        b.feed(NAT, MINE, [seq]);
        b.feed(OTHER_PORT, 7, [seq]);
    }
    assert_eq!(b.source(), TOLD);
    // One of them falls silent.
    b.wait(5);
    assert!(b.feed(NAT, MINE, 50..70).contains(&Outcome::Believed(at(NAT))));
}

#[test]
fn a_stream_is_followed_to_another_port_by_its_ssrc_and_numbers() {
    let latched = || {
        let mut b = Bench::new(TOLD);
        b.feed(NAT, MINE, [65_000, 65_025, 65_050]);
        assert_eq!(b.source(), NAT);
        b
    };
    // Across the wrap of the sequence numbers.
    let mut b = latched();
    assert_eq!(b.feed(OTHER_PORT, MINE, [65_500, 10, 35])[2], Outcome::Believed(at(OTHER_PORT)));
    // Rejected: another SSRC, distant numbers, an old port that still sends, and an unnamed host.
    let mut b = latched();
    assert!(b.feed(OTHER_PORT, 7, [65_075, 65_100, 65_125, 65_150]).iter().all(|o| *o == Outcome::Doubtful));
    assert!(b.feed(OTHER_PORT, MINE, [30_000, 30_025, 30_050, 30_075]).iter().all(|o| *o == Outcome::Doubtful));
    assert!(b.feed("198.51.100.66:9", MINE, [65_075, 65_100, 65_125]).iter().all(|o| *o == Outcome::Foreign));
    let mut b = latched();
    for seq in 0..20 {
        b.feed(OTHER_PORT, MINE, [seq]);
        b.feed(NAT, MINE, [seq]);
    }
    assert_eq!(b.source(), NAT);
    // The same stream from the described address: the phone came home.
    let mut b = latched();
    assert_eq!(b.feed(TOLD, MINE, [65_100, 65_125, 65_150])[2], Outcome::Believed(at(TOLD)));
}

#[test]
fn who_has_a_described_inside_address_elsewhere_does_not_draw_a_stream_that_is_there() {
    let mut b = Bench::new(TOLD);
    b.feed(NAT, MINE, [1, 26, 51]);
    for seq in 0..40 {
        b.feed(TOLD, 7, [seq, seq + 1, seq + 2, seq + 3]);
        b.feed(NAT, MINE, [76 + seq * 25]);
    }
    assert_eq!(b.source(), NAT);
    // A public address is the phone's own.
    let mut b = Bench::new("198.51.100.20:4000");
    b.feed(NAT, 7, [1, 26, 51]);
    assert_eq!(b.source(), NAT);
    b.feed("198.51.100.20:4000", MINE, [1, 26, 51]);
    assert_eq!(b.source(), "198.51.100.20:4000");
}

#[test]
fn after_a_new_exchange_a_stream_may_go_on_with_another_ssrc_when_the_old_one_is_gone() {
    let mut b = Bench::new(TOLD);
    b.feed(NAT, MINE, [1, 26, 51]);
    b.wait(300);
    b.latch.renegotiated(b.now);
    assert_eq!(b.feed(OTHER_PORT, 7, [1, 26, 51])[2], Outcome::Doubtful, "not yet");
    b.wait(8);
    assert!(b.feed(OTHER_PORT, 7, [400, 425, 450]).contains(&Outcome::Believed(at(OTHER_PORT))));
    // Only until the old stream continues.
    b.latch.renegotiated(b.now);
    b.feed(OTHER_PORT, 7, [475, 500, 525]);
    b.wait(300);
    assert!(b.feed(NAT, 8, 0..50).iter().all(|o| *o == Outcome::Doubtful));
    // At the same address only the SSRC changes; then that stream is the one to follow.
    b.latch.renegotiated(b.now);
    assert!(b.feed(OTHER_PORT, 9, [1, 26, 51, 76]).iter().all(|o| *o == Outcome::Nothing));
    assert_eq!(b.feed(NAT, 9, [101, 126, 151])[2], Outcome::Believed(at(NAT)));
}

#[test]
fn what_was_stored_is_kept_until_it_is_silent() {
    let stored = |now| Latch::new(at(TOLD), Some(at(NAT)), now);
    let mut b = Bench::new(TOLD);
    b.latch = stored(b.now);
    assert!(b.latch.is_open());
    b.feed(NAT, MINE, [1, 26, 51]);
    assert!(!b.latch.is_open());
    b.wait(60);
    assert!(b.feed(OTHER_PORT, 7, 0..50).iter().all(|o| *o == Outcome::Doubtful));
    let mut b = Bench::new(TOLD);
    b.latch = stored(b.now);
    assert_eq!(b.feed(OTHER_PORT, MINE, [1, 26, 51])[2], Outcome::Doubtful);
    b.wait(10);
    assert!(b.feed(OTHER_PORT, MINE, [500, 525, 550, 575]).contains(&Outcome::Believed(at(OTHER_PORT))));
}

/// A phone's source for a while: index of its address, number of samples, and the pause before in seconds.
type Phase = (usize, u16, u64);
/// An attacker's sample after each of the phone's: index of its address, SSRC (`None`: the phone's own), sequence
/// number (`None`: the phone's next).
type Blow = (usize, Option<u32>, Option<u16>);

/// Plays a phone and an attacker. Calls `check` with the phone's sources so far, its current source, the number of its
/// samples from there, and the latch.
fn play(
    phases: &[Phase],
    blows: &[Vec<Blow>],
    spared: usize,
    attackers: &[SocketAddr],
    mut check: impl FnMut(&[SocketAddr], SocketAddr, u16, &Latch),
) {
    let mine = [at(TOLD), at(NAT), at(OTHER_PORT)];
    let mut latch = Latch::new(at(TOLD), None, Time::ZERO);
    let (mut now, mut seq, mut sent, mut n) = (Time::from_millis(1), 40_000_u16, vec![at(TOLD)], 0);
    for (place, samples, pause) in phases {
        now += Duration::from_secs(*pause);
        sent.push(mine[*place]);
        for count in 1..=*samples {
            now += Duration::from_millis(500);
            seq = seq.wrapping_add(25);
            let _ = latch.handle(&Sample { from: mine[*place], ssrc: MINE, seq }, at(NAT).ip(), PATIENCE, now);
            check(&sent, mine[*place], count, &latch);
            n += 1;
            for (whose, ssrc, number) in blows.get(n % blows.len().max(1)).filter(|_| n > spared).into_iter().flatten()
            {
                now += Duration::from_millis(1);
                let from = attackers[whose % attackers.len()];
                let s = Sample { from, ssrc: ssrc.unwrap_or(MINE), seq: number.unwrap_or(seq.wrapping_add(1)) };
                let _ = latch.handle(&s, at(NAT).ip(), PATIENCE, now);
                check(&sent, mine[*place], count, &latch);
            }
        }
    }
}

fn phases() -> impl Strategy<Value = Vec<Phase>> {
    proptest::collection::vec((0_usize..3, 3_u16..20, prop_oneof![Just(0_u64), 0_u64..600]), 1..8)
}

fn blows() -> impl Strategy<Value = Vec<Vec<Blow>>> {
    let ssrc = prop_oneof![Just(None), any::<u32>().prop_map(Some), Just(Some(7))];
    let blow = (0_usize..4, ssrc, proptest::option::of(any::<u16>()));
    proptest::collection::vec(proptest::collection::vec(blow, 0..15), 1..20)
}

proptest! {
    /// An attacker on an unnamed host changes nothing, even with the right SSRC and sequence numbers.
    #[test]
    fn a_strangers_host_neither_draws_audio_nor_keeps_the_phone_from_being_followed(phases in phases(), blows in blows()) {
        let strangers = ["198.51.100.66:9", "192.168.1.6:4000", "203.0.113.8:61000", "[2001:db8::7]:4000"].map(at);
        play(&phases, &blows, 0, &strangers, |sent, real, count, latch| {
            assert!(sent.contains(&latch.source()), "{} is none of the phone's", latch.source());
            assert!(count < 3 || latch.source() == real, "{} after {count} samples from {real}", latch.source());
            assert!(latch.rivals.len() <= RIVALS);
        });
    }

    /// A later sender behind the phone's NAT does not take its stream without its SSRC.
    #[test]
    fn a_neighbour_behind_the_same_nat_does_not_take_the_stream(phases in phases(), blows in blows()) {
        let neighbours = ["203.0.113.7:5", "203.0.113.7:6", "192.168.1.5:8", "203.0.113.7:61001"].map(at);
        let unknowing = |(place, ssrc, seq): &Blow| (*place, Some(ssrc.filter(|s| *s != MINE).unwrap_or(1)), *seq);
        let blows: Vec<Vec<Blow>> = blows.iter().map(|all| all.iter().map(unknowing).collect()).collect();
        play(&phases, &blows, 3, &neighbours, |sent, real, count, latch| {
            assert!(sent.contains(&latch.source()), "{} is none of the phone's", latch.source());
            assert!(count < 3 || latch.source() == real, "{} after {count} samples from {real}", latch.source());
            assert!(latch.rivals.len() <= RIVALS);
        });
    }
}
