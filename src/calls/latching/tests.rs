use super::*;
use crate::calls::model::CallEvent;
use crate::calls::table::script::{Dialog, Lab, Phone, Server};

#[test]
fn few_packets_are_sampled_and_never_more_than_one_core_feels() {
    for legs in [0, 1, 20, 100, 2000, 20_000] {
        let all = u32::try_from(legs.max(1)).unwrap() * PACKETS;
        assert!(all / one_in(legs, true) <= MOST + 1, "{legs} legs: one in {}", one_in(legs, true));
        assert!(all / one_in(legs, false) <= SETTLED.max(PACKETS) + 1);
        assert!(one_in(legs, false) >= one_in(legs, true));
    }
}

/// RTP address of the server in the scripts, and of the phone: one description serves both.
const HERE: &str = "10.0.0.1:4000";
const NAT: &str = "198.51.100.7:61000";
/// Source of the SIP of a phone behind that NAT.
const NAT_SIP: &str = "198.51.100.7:30000";
const STRANGER: &str = "192.0.2.66:9";

fn sources_told(lab: &mut Lab) -> Vec<Vec<Option<SocketAddr>>> {
    let told = lab.events().into_iter().filter_map(|e| match e {
        CallEvent::Put(call) => Some(call.legs[0].rtp_sources.clone()),
        CallEvent::Delete { .. } => None,
    });
    told.collect()
}

/// RTP packets of one stream.
struct Stream {
    ssrc: u32,
    seq: u16,
}

impl Stream {
    fn packet(&mut self) -> Vec<u8> {
        self.seq += 1;
        [&[0x80, 0][..], &self.seq.to_be_bytes(), &[0; 4], &self.ssrc.to_be_bytes(), &[0xff; 160]].concat()
    }

    fn send(&mut self, lab: &mut Lab, src: &str, times: usize) {
        for _ in 0..times {
            lab.now += Duration::from_millis(20);
            let packet = self.packet();
            lab.table.handle_rtp(src.parse().unwrap(), HERE.parse().unwrap(), &packet, lab.now);
        }
    }
}

/// A call of a phone behind the NAT.
fn call() -> (Lab, Dialog, Stream) {
    let mut lab = Lab::new();
    let d = Dialog::new("in", NAT_SIP, false, "1000", "2000");
    lab.answered(&d).wait_ms(1100);
    assert_eq!(sources_told(&mut lab), [vec![]]);
    assert!(lab.table.wants_one_in().is_some());
    (lab, d, Stream { ssrc: 5, seq: 100 })
}

#[test]
fn a_source_counts_when_three_samples_agree_whatever_a_stranger_sends_between() {
    let (mut lab, _, mut phone) = call();
    let mut stranger = Stream { ssrc: 6, seq: 1 };
    phone.send(&mut lab, NAT, 2);
    stranger.send(&mut lab, STRANGER, 1000);
    assert_eq!(sources_told(&mut lab), [] as [Vec<_>; 0]);
    phone.send(&mut lab, NAT, 10);
    assert_eq!(sources_told(&mut lab), [vec![Some(NAT.parse().unwrap())]], "once");
    assert_eq!(lab.table.media_counters(), MediaCounters { samples: 1012, foreign: 1000, doubtful: 0, believed: 1 });
    let news = lab.table.poll_unbelieved(lab.now).unwrap();
    assert_eq!((news.count, news.from.to_string(), news.kept.to_string()), (998, STRANGER.into(), HERE.into()));
    stranger.send(&mut lab, STRANGER, 1000);
    assert_eq!(lab.table.poll_unbelieved(lab.now), None, "told once a minute");

    // The phone's NAT assigns another port. Later the phone appears at its described address.
    lab.wait_ms(5000);
    phone.send(&mut lab, "198.51.100.7:61002", 3);
    assert_eq!(sources_told(&mut lab), [vec![Some("198.51.100.7:61002".parse().unwrap())]]);
    phone.send(&mut lab, HERE, 3);
    assert_eq!(sources_told(&mut lab), [vec![None]]);
}

#[test]
fn what_is_no_rtp_says_nothing() {
    let (mut lab, ..) = call();
    let mut rtcp = Stream { ssrc: 5, seq: 1 }.packet();
    rtcp[1] = 200;
    let stun = [&[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42][..], &[7; 20]].concat();
    let dtls = [&[22, 254, 253][..], &[0; 40]].concat();
    for datagram in [&rtcp[..], &stun, &dtls, &[0x80; 11], b""] {
        for _ in 0..10 {
            lab.table.handle_rtp(NAT.parse().unwrap(), HERE.parse().unwrap(), datagram, lab.now);
        }
    }
    assert_eq!(sources_told(&mut lab), [] as [Vec<_>; 0]);
    assert_eq!(lab.table.media_counters(), MediaCounters::default());
}

#[test]
fn a_flood_of_samples_costs_the_phone_none_of_its_own() {
    // 600 packets a second against the phone's 50, sampled at random by the kernel.
    let (mut lab, _, mut phone) = call();
    let mut stranger = Stream { ssrc: 6, seq: 1 };
    let one_in = lab.table.wants_one_in().unwrap();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut drawn = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.is_multiple_of(u64::from(one_in))
    };
    let begun = lab.now;
    let mut told = Vec::new();
    while told.is_empty() {
        assert!(lab.now.since(begun) < Duration::from_secs(20), "not believed after 20 s");
        for _ in 0..12 {
            stranger.packet();
            if drawn() {
                lab.table.handle_rtp(STRANGER.parse().unwrap(), HERE.parse().unwrap(), &stranger.packet(), lab.now);
            }
            stranger.seq %= 60_000;
        }
        let packet = phone.packet();
        if drawn() {
            lab.table.handle_rtp(NAT.parse().unwrap(), HERE.parse().unwrap(), &packet, lab.now);
        }
        lab.now += Duration::from_millis(20);
        told.extend(sources_told(&mut lab));
    }
    assert_eq!(told, [vec![Some(NAT.parse().unwrap())]]);
}

#[test]
fn what_was_seen_is_forgotten_with_the_call_and_with_a_new_description() {
    let (mut lab, d, mut phone) = call();
    phone.send(&mut lab, NAT, 3);
    lab.events();
    // The phone renegotiates at the same address (to hold the call, say). The observed source stays valid.
    lab.see(d.request(Phone, "INVITE", 2, "X-In-Dialog: 1\r\n", "held"))
        .see(d.response(Server, 200, "INVITE", 2, "", "answer"))
        .see(d.request(Phone, "ACK", 2, "", ""));
    assert_eq!(sources_told(&mut lab), [vec![Some(NAT.parse().unwrap())]]);
    // At a new address the old observation says nothing.
    lab.see(d.request(Phone, "INVITE", 3, "X-In-Dialog: 1\r\n", "moved:4002"))
        .see(d.response(Server, 200, "INVITE", 3, "", "answer"))
        .see(d.request(Phone, "ACK", 3, "", ""));
    assert_eq!(sources_told(&mut lab), [vec![]]);
    lab.hung_up(&d, Phone, 4).wait_ms(40_000);
    lab.events();
    phone.send(&mut lab, NAT, 3);
    assert_eq!(sources_told(&mut lab), [] as [Vec<_>; 0]);
    assert_eq!(lab.table.wants_one_in(), None, "without calls nothing is sampled");
}

#[test]
fn a_stored_source_is_kept_only_if_signalling_names_its_host() {
    for (stored, kept) in [(NAT, true), (STRANGER, false)] {
        let (lab, ..) = call();
        let mut call = lab.table.calls().next().unwrap();
        call.legs[0].rtp_sources = vec![Some(stored.parse().unwrap())];
        let mut lab = Lab::new();
        lab.table.adopt(&call, lab.now);
        lab.wait_ms(100);
        let mut phone = Stream { ssrc: 5, seq: 100 };
        phone.send(&mut lab, HERE, 3);
        // The stored source is not known to be silent.
        let expected: &[Vec<_>] = if kept { &[] } else { &[vec![None]] };
        assert_eq!(sources_told(&mut lab), expected, "{stored}");
    }
}

#[test]
fn behind_a_nat_packets_arrive_at_the_virtual_address() {
    use crate::calls::table::script::settings;
    use crate::calls::table::{Table, TableSettings};
    // The server tells the address in HERE.
    let advertised = crate::sip::advertised::Advertised::new(["10.0.0.1"]);
    let mut lab = Lab::new();
    lab.table = Table::new(TableSettings { advertised, ..settings() });
    lab.answered(&Dialog::new("in", NAT_SIP, false, "1000", "2000")).wait_ms(1100);
    lab.events();
    let mut phone = Stream { ssrc: 5, seq: 100 };
    for at in [HERE, "10.0.0.100:4000"] {
        for _ in 0..4 {
            lab.now += Duration::from_millis(20);
            let packet = phone.packet();
            lab.table.handle_rtp(NAT.parse().unwrap(), at.parse().unwrap(), &packet, lab.now);
        }
        let told = sources_told(&mut lab);
        assert_eq!(told.len(), usize::from(at != HERE), "{at}: {told:?}");
    }
}
