use super::*;

#[test]
fn only_what_leaves_this_host_is_the_servers_word() {
    use Passage::{In, Out, Past, Unknown, Within};
    use Verdict::{Astray, Forged, Heard};
    let table = [
        // Passage, then verdicts: by the server, to the server, from server to server, neither.
        (Unknown, [Heard, Heard, Heard, Heard]),
        (Within, [Heard, Heard, Heard, Heard]),
        (Out, [Heard, Astray, Heard, Astray]),
        (In, [Forged, Heard, Forged, Astray]),
        (Past, [Forged, Astray, Forged, Astray]),
    ];
    for (passage, expected) in table {
        let ends = [(true, false), (false, true), (true, true), (false, false)];
        assert_eq!(ends.map(|(by, to)| judge(passage, by, to)), expected, "{passage:?}");
    }
}

#[test]
fn packet_types_are_those_of_the_kernel() {
    // linux/if_packet.h. A new or odd type never counts as the server's word.
    let all: Vec<_> = (0..9).map(Passage::of_packet_type).collect();
    use Passage::{In, Out, Past};
    assert_eq!(all, [In, In, In, Past, Out, Past, Past, Past, Past]);
}

#[test]
fn a_flood_of_forgeries_is_told_at_once_and_then_each_minute() {
    let who =
        |n: u8| Impostor { link: Some([2, 0, 0, 0, 0, n]), claims: [10, 0, 0, 100].into(), to: [10, 0, 0, n].into() };
    let mut all = Impostors::default();
    let mut told = Vec::new();
    // One frame each 10 ms for 150 s.
    for n in 0..15_000_u64 {
        all.handle(who(n as u8));
        told.extend(all.poll(Time::from_millis(n * 10)).map(|(count, _)| count));
    }
    assert_eq!(told, [1, 6000, 6000]);
    assert_eq!(who(9).to_string(), "from 10.0.0.100 to 10.0.0.9, sent by link address 02:00:00:00:00:09");
    all.forget();
    assert_eq!(all.poll(Time::from_millis(1_000_000)), None);
}
