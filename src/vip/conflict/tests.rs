use super::frame::{self, Claim};
use super::{Action, Conflicts};
use crate::time::Time;
use pnet_base::MacAddr;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100));
const OURS: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);
const OTHER: MacAddr = MacAddr(2, 0, 0, 0, 0, 2);
const THIRD: MacAddr = MacAddr(2, 0, 0, 0, 0, 3);
const START: u64 = 1_000_000;

fn ms(n: u64) -> Time {
    Time::from_millis(START + n)
}

fn claim(mac: MacAddr) -> Claim {
    Claim { address: VIP, mac }
}

/// A node that took the address at time 0.
fn held() -> Conflicts {
    let mut c = Conflicts::new(&[VIP]);
    c.set_own(vec![OURS]);
    c.taken(ms(0));
    c
}

fn actions(c: &mut Conflicts) -> Vec<Action> {
    std::iter::from_fn(|| c.poll_action()).collect()
}

/// Lets time pass in silence until `end`. Returns the actions with their times.
fn pass(c: &mut Conflicts, end: Time) -> Vec<(Time, Action)> {
    let mut all = Vec::new();
    while c.next_deadline() <= end {
        let at = c.next_deadline();
        c.handle_timeout(at);
        all.extend(actions(c).into_iter().map(|a| (at, a)));
        assert!(c.next_deadline() > at, "it spins");
    }
    all
}

#[test]
fn the_question_goes_out_with_the_takeover_again_soon_and_then_seldom() {
    let mut c = held();
    assert_eq!(actions(&mut c), [Action::Probe(VIP)]);
    let asked: Vec<Time> = pass(&mut c, ms(100_000)).into_iter().map(|(at, _)| at).collect();
    assert_eq!(asked, [ms(2_000), ms(32_000), ms(62_000), ms(92_000)]);
    // Restoring an address is not a takeover.
    c.taken(ms(100_000));
    assert!(actions(&mut c).is_empty());
    c.dropped();
    assert_eq!(c.next_deadline(), Time::FAR);
}

#[test]
fn a_host_that_answers_for_the_address_is_told_once_and_told_when_it_has_gone() {
    let mut c = held();
    actions(&mut c);
    for i in 0..20 {
        c.handle_claim(claim(OTHER), ms(5_000 + i));
    }
    assert_eq!(actions(&mut c), [Action::Defend(VIP), Action::Begun(claim(OTHER))]);
    assert_eq!(c.others().collect::<Vec<_>>(), [claim(OTHER)]);
    // The host gets three more probes and stays silent.
    let done = pass(&mut c, ms(41_000));
    let probes = done.iter().filter(|(_, a)| *a == Action::Probe(VIP)).count();
    assert!(probes >= 3, "{done:?}");
    assert_eq!(done.last(), Some(&(ms(5_019 + 35_000), Action::Over(claim(OTHER)))));
    assert_eq!(c.others().count(), 0);
}

#[test]
fn a_conflict_lasts_for_as_long_as_the_host_answers() {
    let mut c = held();
    let mut told = 0;
    for second in 3..300 {
        let now = ms(second * 1_000);
        c.handle_timeout(now);
        for action in actions(&mut c) {
            match action {
                // The host answers each probe.
                Action::Probe(_) => c.handle_claim(claim(OTHER), now),
                Action::Begun(_) => told += 1,
                Action::Over(_) => panic!("it is still there"),
                Action::Defend(_) => {}
            }
        }
    }
    assert_eq!((told, c.others().count()), (1, 1));
}

#[test]
fn frames_of_the_former_master_are_answered_and_are_no_conflict() {
    let mut c = held();
    actions(&mut c);
    for i in 0..10 {
        c.handle_claim(claim(OTHER), ms(i * 150));
    }
    // The node calls the neighbours back at once, and probes at the end of the grace time.
    assert_eq!(actions(&mut c), [Action::Defend(VIP)]);
    let done = pass(&mut c, ms(60_000));
    assert_eq!(done.first(), Some(&(ms(2_000), Action::Probe(VIP))));
    assert!(done.iter().all(|(_, a)| *a == Action::Probe(VIP)), "{done:?}");
    // A host that answers that probe is a conflict.
    c.handle_claim(claim(OTHER), ms(60_001));
    assert!(actions(&mut c).contains(&Action::Begun(claim(OTHER))));
}

#[test]
fn our_own_frames_and_those_of_other_addresses_and_of_a_standby_are_nothing() {
    let mut c = held();
    actions(&mut c);
    c.handle_claim(claim(OURS), ms(5_000));
    c.handle_claim(Claim { address: "10.0.0.101".parse().unwrap(), mac: OTHER }, ms(5_000));
    c.dropped();
    c.handle_claim(claim(OTHER), ms(5_000));
    assert!(actions(&mut c).is_empty());
    assert_eq!(c.others().count(), 0);
}

#[test]
fn the_next_takeover_begins_anew() {
    let mut c = held();
    c.handle_claim(claim(OTHER), ms(5_000));
    c.dropped();
    assert_eq!((c.others().count(), actions(&mut c).len()), (0, 0));
    c.taken(ms(6_000));
    c.handle_claim(claim(OTHER), ms(6_100));
    assert_eq!(actions(&mut c), [Action::Probe(VIP), Action::Defend(VIP)]);
    c.handle_claim(claim(OTHER), ms(8_000));
    assert_eq!(actions(&mut c), [Action::Begun(claim(OTHER))]);
}

proptest! {
    /// Two hosts that answer each other, or any number of hosts, cause at most one announcement in ten seconds and one
    /// log line in a minute.
    #[test]
    fn no_flood_makes_us_one(steps in prop::collection::vec((0_u64..3_000, any::<u8>()), 1..400)) {
        let mut c = held();
        let (mut now, mut defended, mut told) = (0, Vec::new(), Vec::new());
        for (pause, host) in steps {
            now += pause;
            c.handle_timeout(ms(now));
            c.handle_claim(claim(MacAddr(2, 0, 0, 0, 9, host)), ms(now));
            for action in actions(&mut c) {
                match action {
                    Action::Defend(_) => defended.push(now),
                    Action::Begun(_) => told.push(now),
                    _ => {}
                }
            }
        }
        prop_assert!(defended.windows(2).all(|w| w[1] - w[0] >= 10_000), "{defended:?}");
        prop_assert!(told.windows(2).all(|w| w[1] - w[0] >= 60_000), "{told:?}");
        prop_assert!(told.iter().all(|at| *at >= 2_000));
    }

    #[test]
    fn any_bytes_are_a_claim_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200), six in any::<bool>()) {
        let mut bytes = bytes;
        if six && bytes.len() > 45 {
            // Random packets seldom get this far: an advertisement with random options and lengths.
            (bytes[0], bytes[6], bytes[7], bytes[40], bytes[41]) = (0x60, 58, 255, 136, 0);
        }
        let _ = frame::arp(&bytes);
        let _ = frame::ipv6(&bytes, OTHER);
    }
}

/// A packet in the format of RFC 826, built independently of the parser.
fn arp_packet(operation: u8, sender: MacAddr, from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mut p = vec![0, 1, 8, 0, 6, 4, 0, operation];
    p.extend(sender.octets());
    p.extend(from);
    p.extend([0; 6]);
    p.extend(to);
    p
}

#[test]
fn requests_and_replies_claim_their_senders_address() {
    let vip = [10, 0, 0, 100];
    for operation in [1, 2] {
        assert_eq!(frame::arp(&arp_packet(operation, OTHER, vip, [10, 0, 0, 9])), Some(claim(OTHER)));
        // Padded to the minimum frame length.
        let mut padded = arp_packet(operation, OTHER, vip, vip);
        padded.resize(46, 0);
        assert_eq!(frame::arp(&padded), Some(claim(OTHER)));
    }
    assert_eq!(frame::arp(&arp_packet(1, THIRD, [0; 4], vip)), None, "a probe");
    let mut other = arp_packet(1, OTHER, vip, vip);
    other[4] = 8;
    assert_eq!(frame::arp(&other), None, "not of Ethernet");
    assert_eq!(frame::arp(&arp_packet(1, OTHER, vip, vip)[..27]), None, "cut");
}

/// An advertisement in the format of RFC 4861 section 4.4, with the checksum of RFC 4443 section 2.3.
fn advertisement(target: Ipv6Addr, from: Ipv6Addr) -> Vec<u8> {
    let to: Ipv6Addr = "ff02::1".parse().unwrap();
    let mut body = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    body.extend(target.octets());
    let mut pseudo: Vec<u8> = from.octets().into_iter().chain(to.octets()).collect();
    pseudo.extend([0, 0, 0, body.len() as u8, 0, 0, 0, 58]);
    pseudo.extend(&body);
    let mut sum: u32 = pseudo.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    body[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let mut p = vec![0x60, 0, 0, 0, 0, body.len() as u8, 58, 255];
    p.extend(from.octets());
    p.extend(to.octets());
    p.extend(body);
    p
}

#[test]
fn an_advertisement_claims_its_target_for_the_host_that_sent_it() {
    let vip: Ipv6Addr = "2001:db8::100".parse().unwrap();
    let good = advertisement(vip, "fe80::2".parse().unwrap());
    assert_eq!(frame::ipv6(&good, OTHER), Some(Claim { address: vip.into(), mac: OTHER }));
    for (at, what) in [(7, "from off the link"), (6, "not ICMPv6"), (40, "a solicitation"), (63, "damaged"), (5, "cut")]
    {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(frame::ipv6(&bad, OTHER), None, "{what}");
    }
}
