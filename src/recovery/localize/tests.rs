mod random;

use super::*;
use crate::recovery::permitted::Ground;
use crate::recovery::plan::tests::{VIP, call_of};
use crate::recovery::streams::Pairs;

/// A call of which one leg has been told and has said these m-lines, and the other these.
struct Between {
    call: crate::calls::model::Call,
    pairs: Pairs,
    anchors: [Option<Vec<Option<Place>>>; 2],
}

impl Between {
    fn new(a: (&str, &str), b: (&str, &str)) -> Self {
        let call = call_of(a, b);
        let ground = Ground::of(&[VIP.parse().unwrap()]);
        let anchors = [0, 1].map(|side: usize| plan::anchors(&call.legs[side], &ground));
        Self { pairs: plan::pairs_of(&call), anchors, call }
    }

    fn towards<T>(&self, side: usize, work: impl FnOnce(Towards<'_>) -> T) -> T {
        let partner = |line| self.pairs.partner(side, line);
        work(Towards { leg: &self.call.legs[side], anchors: self.anchors[side].as_deref(), partner: &partner })
    }

    fn offer(&self, from: usize, body: &str) -> Result<String, SdpError> {
        let other = (&*self.call.legs[from], self.anchors[from].as_deref());
        let offer = self.towards(1 - from, |to| to.offer(other, &described(from, body)))?;
        Ok(String::from_utf8(offer).unwrap())
    }

    fn answer(&self, to: usize, offer: &str, asked: &str, body: &str) -> Result<String, SdpError> {
        let (offer, body) = (described(to, offer), described(1 - to, body));
        let answer = self.towards(to, |to| to.answer(&offer, Some(asked.as_bytes()), &body))?;
        Ok(String::from_utf8(answer).unwrap())
    }
}

fn described(side: usize, lines: &str) -> Vec<u8> {
    let ip = format!("10.1.0.{}", side + 1);
    format!("v=0\r\no=ph 7 7 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n{lines}")
        .into_bytes()
}

fn lines(sdp: &str) -> Vec<&str> {
    sdp.lines().filter(|l| l.starts_with("m=") || l.starts_with("a=send")).collect()
}

const HELD: &str = "m=audio 4000 RTP/AVP 0\r\na=sendonly\r\n";

#[test]
fn a_hold_crosses_to_a_leg_with_fewer_lines_and_back() {
    let video = "m=video 4002 RTP/AVP 96\r\n";
    let off = "m=video 0 RTP/AVP 96\r\n";
    let between = Between::new(
        (&format!("m=audio 10000 RTP/AVP 0\r\n{off}"), &format!("m=audio 4000 RTP/AVP 0\r\n{video}")),
        ("m=audio 10002 RTP/AVP 0\r\n", "m=audio 5000 RTP/AVP 0\r\n"),
    );
    for second in [off, video] {
        let hold = format!("{HELD}{second}");
        let offer = between.offer(0, &hold).unwrap();
        assert_eq!(lines(&offer), ["m=audio 10002 RTP/AVP 0", "a=sendonly"], "{offer}");
        assert!(!offer.contains("a=group") && offer.contains(&format!("c=IN IP4 {VIP}")), "{offer}");
        let answer = between.answer(0, &hold, &offer, "m=audio 5000 RTP/AVP 0\r\na=recvonly\r\n").unwrap();
        assert_eq!(lines(&answer), ["m=audio 10000 RTP/AVP 0", "m=video 0 RTP/AVP 96"], "{answer}");
        assert!(answer.contains("a=recvonly"), "{answer}");
    }
    // The other way round.
    let offer = between.offer(1, HELD).unwrap();
    assert_eq!(lines(&offer), ["m=audio 10000 RTP/AVP 0", "a=sendonly", "m=video 0 RTP/AVP 96"], "{offer}");
    let answer = between.answer(1, HELD, &offer, "m=audio 4000 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\n").unwrap();
    assert_eq!(lines(&answer), ["m=audio 10002 RTP/AVP 0"], "{answer}");
}

#[test]
fn lines_cross_in_the_order_of_each_leg() {
    let between = Between::new(
        (
            "m=audio 0 RTP/SAVP 0\r\nm=audio 10000 RTP/AVP 0\r\n",
            "m=audio 4002 RTP/SAVP 0\r\nm=audio 4000 RTP/AVP 0\r\n",
        ),
        ("m=audio 10002 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\n", "m=audio 5000 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\n"),
    );
    let hold = format!("m=audio 0 RTP/SAVP 0\r\n{HELD}");
    let offer = between.offer(0, &hold).unwrap();
    assert_eq!(lines(&offer), ["m=audio 10002 RTP/AVP 0", "a=sendonly", "m=video 0 RTP/AVP 96"], "{offer}");
    let offer = between.offer(1, &format!("{HELD}m=video 0 RTP/AVP 96\r\n")).unwrap();
    assert_eq!(lines(&offer), ["m=audio 0 RTP/SAVP 0", "m=audio 10000 RTP/AVP 0", "a=sendonly"], "{offer}");
    // The refused line, offered again, has no port of ours.
    let both = "m=audio 4002 RTP/SAVP 0\r\nm=audio 4000 RTP/AVP 0\r\n";
    let asked = between.offer(0, both).unwrap();
    assert_eq!(lines(&asked), ["m=audio 10002 RTP/AVP 0", "m=video 0 RTP/AVP 96"], "{asked}");
    let answer = between.answer(0, both, &asked, "m=audio 5000 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\n").unwrap();
    assert_eq!(lines(&answer), ["m=audio 0 RTP/SAVP 0", "m=audio 10000 RTP/AVP 0"], "{answer}");
}

#[test]
fn what_cannot_be_carried_is_refused() {
    let one = ("m=audio 10000 RTP/AVP 0\r\n", "m=audio 4000 RTP/AVP 0\r\n");
    let between = Between::new(one, ("m=audio 10002 RTP/AVP 0\r\n", "m=audio 5000 RTP/AVP 0\r\n"));
    // A new line has no port of ours. The rest goes on without it.
    let more = "m=audio 4000 RTP/AVP 0\r\nm=video 4002 RTP/AVP 96\r\n";
    let asked = between.offer(0, more).unwrap();
    assert_eq!(lines(&asked), ["m=audio 10002 RTP/AVP 0"]);
    let answer = between.answer(0, more, &asked, "m=audio 5000 RTP/AVP 0\r\n").unwrap();
    assert_eq!(lines(&answer), ["m=audio 10000 RTP/AVP 0", "m=video 0 RTP/AVP 96"]);
    // Nothing is left.
    assert_eq!(between.offer(0, "m=audio 0 RTP/AVP 0\r\nm=image 4002 udptl t38\r\n"), Err(SdpError::MediaCount));
    assert!(between.offer(0, "m=audio 0 RTP/AVP 0\r\n").is_ok(), "the phone itself switches everything off");
    // The kind of a line may change in its place (RFC 3264 section 8.3.3).
    assert_eq!(lines(&between.offer(0, "m=image 4000 udptl t38\r\n").unwrap()), ["m=image 10002 udptl t38"]);
    // An offer must not lose lines, and an answer has as many as its offer.
    let two = Between::new(
        ("m=audio 10000 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\n", "m=audio 4000 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\n"),
        ("m=audio 10002 RTP/AVP 0\r\n", "m=audio 5000 RTP/AVP 0\r\n"),
    );
    assert_eq!(two.offer(0, HELD), Err(SdpError::MediaCount));
    let asked = between.offer(0, HELD).unwrap();
    assert_eq!(between.answer(0, HELD, &asked, more), Err(SdpError::MediaCount));
    // An answer of another kind is no answer.
    let answer = between.answer(0, HELD, &asked, "m=video 5000 RTP/AVP 96\r\n").unwrap();
    assert_eq!(lines(&answer), ["m=audio 0 RTP/AVP 0"]);
}

#[test]
fn every_address_is_ours_and_an_unchanged_description_keeps_its_version() {
    let between = Between::new(
        ("m=audio 10000 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\n", "m=audio 4000 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\n"),
        ("m=audio 10002 RTP/AVP 0\r\n", "m=audio 5000 RTP/AVP 0\r\n"),
    );
    // The other phone names its address at the m-line only.
    let body = "v=0\r\no=ph 7 7 IN IP4 10.1.0.2\r\ns=-\r\nt=0 0\r\nm=audio 5000 RTP/AVP 0\r\nc=IN IP4 10.1.0.2\r\n";
    let from = (&*between.call.legs[1], between.anchors[1].as_deref());
    let offer = between.towards(0, |to| to.offer(from, body.as_bytes())).unwrap();
    let offer = String::from_utf8(offer).unwrap();
    let sdp = Sdp::parse(offer.as_bytes()).unwrap();
    assert_eq!(sdp.media().len(), 2);
    assert!(sdp.media().iter().all(|m| m.connection == VIP.parse().ok()), "{offer}");
    assert!(!offer.contains("10.1.0.2"), "{offer}");
    let version = |text: &str| Sdp::parse(text.as_bytes()).unwrap().origin().unwrap().version;
    let same = "v=0\r\no=x 1 1 IN IP4 10.1.0.2\r\ns=-\r\nc=IN IP4 10.1.0.2\r\nt=0 0\r\nm=audio 5000 RTP/AVP 0\r\n";
    let from = (&*between.call.legs[1], between.anchors[1].as_deref());
    let offer = between.towards(0, |to| to.offer(from, same.as_bytes())).unwrap();
    assert_eq!(version(&String::from_utf8(offer).unwrap()), 1);
    assert_eq!(version(&between.offer(1, HELD).unwrap()), 2);
}
