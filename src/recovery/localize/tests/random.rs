//! Random legs: which streams may meet, and what a description may look like on the other leg. The expectations are
//! worked out from the lines that the test itself wrote.

use super::Between;
use crate::recovery::permitted::Ground;
use crate::recovery::plan::paths_of;
use crate::recovery::plan::tests::VIP;
use crate::sip::sdp::Sdp;
use proptest::prelude::*;

const KINDS: [&str; 3] = ["audio", "video", "text"];
const PROTOS: [&str; 2] = ["RTP/AVP", "RTP/AVPF"];

/// An m-line of a leg: kind, protocol, and whether the server and the phone have it on.
type Line = (usize, usize, bool, bool);

fn line() -> impl Strategy<Value = Line> {
    let on = || proptest::bool::weighted(0.75);
    (0..KINDS.len(), 0..PROTOS.len(), on(), on())
}

fn write(lines: &[Line], port: u16, on: impl Fn(&Line) -> bool) -> String {
    let text = |(n, l): (usize, &Line)| {
        let port = if on(l) { port + 2 * u16::try_from(n).unwrap() } else { 0 };
        format!("m={} {port} {} 0\r\n", KINDS[l.0], PROTOS[l.1])
    };
    lines.iter().enumerate().map(text).collect()
}

const SERVER: [u16; 2] = [10_000, 12_000];
const PHONE: [u16; 2] = [4000, 5000];

fn between(legs: [&[Line]; 2]) -> Between {
    let of = |side: usize| (write(legs[side], SERVER[side], |l| l.2), write(legs[side], PHONE[side], |l| l.3));
    let (a, b) = (of(0), of(1));
    Between::new((&a.0, &a.1), (&b.0, &b.1))
}

/// Lines of this kind in use on a leg.
fn used(leg: &[Line], kind: usize) -> usize {
    leg.iter().filter(|l| l.0 == kind && l.2 && l.3).count()
}

/// The index of the line with this port.
fn at(port: u16, base: u16) -> usize {
    usize::from(port - base) / 2
}

fn lines_of(text: &str) -> Vec<(String, u16)> {
    let sdp = Sdp::parse(text.as_bytes()).unwrap();
    assert!(sdp.media().iter().all(|m| m.connection == VIP.parse().ok()), "{text}");
    sdp.media().iter().map(|m| (String::from_utf8_lossy(m.kind).into_owned(), m.port)).collect()
}

proptest! {
    #[test]
    fn flows_connect_lines_of_one_kind_in_use_and_none_is_guessed(
        a in proptest::collection::vec(line(), 1..5),
        b in proptest::collection::vec(line(), 1..5),
    ) {
        let call = between([&a, &b]).call;
        let paths = paths_of(&call, &Ground::of(&[VIP.parse().unwrap()]));
        let unlike = |kind| used(&a, kind) != used(&b, kind);
        let Ok(paths) = paths else {
            prop_assert!(unlike(0) && used(&a, 0) > 0 && used(&b, 0) > 0);
            return Ok(());
        };
        let rtp: Vec<_> = paths.flows.iter().filter(|f| f.at.port() % 2 == 0 && f.at.port() < SERVER[1]).collect();
        for flow in &rtp {
            let (i, j) = (at(flow.from.port(), PHONE[0]), at(flow.to.port(), PHONE[1]));
            prop_assert_eq!((at(flow.at.port(), SERVER[0]), at(flow.source.port(), SERVER[1])), (i, j));
            prop_assert!(a[i].0 == b[j].0 && a[i].2 && a[i].3 && b[j].2 && b[j].3);
            prop_assert!(!unlike(a[i].0), "only the server knows which");
        }
        // Every pair that can be told has its path, and each line at most one.
        let expected: usize = (0..KINDS.len()).filter(|k| !unlike(*k)).map(|k| used(&a, k)).sum();
        prop_assert_eq!(rtp.len(), expected);
        let mut ends: Vec<_> = rtp.iter().map(|f| f.to.port()).collect();
        ends.sort_unstable();
        ends.dedup();
        prop_assert_eq!(ends.len(), expected);
    }

    #[test]
    fn a_description_fits_the_leg_that_it_goes_to(
        a in proptest::collection::vec(line(), 1..5),
        b in proptest::collection::vec(line(), 1..5),
        more in proptest::collection::vec(line(), 0..3),
        from in 0_usize..2,
        changes in proptest::collection::vec(any::<bool>(), 8),
        accepts in proptest::collection::vec(any::<bool>(), 8),
    ) {
        let legs = [&a, &b];
        let (own, other) = (legs[from], legs[1 - from]);
        let between = between([&a, &b]);
        // The phone switches lines on and off, and adds some.
        let switched = |(l, on): (&Line, &bool)| (l.0, l.1, l.2, *on);
        let mut offered: Vec<Line> = own.iter().zip(&changes).map(switched).collect();
        offered.extend(more.iter().map(|l| (l.0, l.1, false, true)));
        let offer = write(&offered, PHONE[from], |l| l.3);
        let Ok(asked) = between.offer(from, &offer) else { return Ok(()) };
        let asked_lines = lines_of(&asked);
        prop_assert_eq!(asked_lines.len(), other.len());
        for (j, (kind, port)) in asked_lines.iter().enumerate() {
            prop_assert!(*port == 0 || (*port == SERVER[1 - from] + 2 * u16::try_from(j).unwrap() && other[j].2));
            prop_assert_eq!(kind.as_str(), KINDS[other[j].0]);
        }
        let on = asked_lines.iter().filter(|(_, port)| *port != 0).count();
        prop_assert!(on <= offered.iter().take(own.len()).filter(|l| l.3 && l.2).count());
        // The other phone accepts some of it.
        let taken: Vec<Line> =
            other.iter().zip(&asked_lines).zip(&accepts).map(|((l, (_, port)), yes)| (l.0, l.1, l.2, *port != 0 && *yes)).collect();
        let answer = write(&taken, PHONE[1 - from], |l| l.3);
        let answer = between.answer(from, &offer, &asked, &answer).unwrap();
        let answered = lines_of(&answer);
        prop_assert_eq!(answered.len(), offered.len());
        for (i, (kind, port)) in answered.iter().enumerate() {
            prop_assert!(*port == 0 || (*port == SERVER[from] + 2 * u16::try_from(i).unwrap() && offered[i].3));
            prop_assert_eq!(kind.as_str(), KINDS[offered[i].0]);
        }
        // What one phone has on, the other has on too.
        let both = answered.iter().filter(|(_, port)| *port != 0).count();
        prop_assert_eq!(both, taken.iter().filter(|l| l.3).count());
    }
}
