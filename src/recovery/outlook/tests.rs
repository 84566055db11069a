use super::Outlook;
use crate::calls::model::{Call, Pairing};
use crate::config::Mode;
use crate::recovery::permitted::Ground;
use crate::recovery::plan::tests::simple;
use crate::sip::Transport;

fn ground() -> Ground {
    Ground::of(&["10.9.0.100".parse().unwrap()])
}

fn call() -> Call {
    Call { pairing: Some(Pairing::Evidence), ..simple("RTP/AVP 0", "RTP/AVP 0") }
}

/// The call with the audio from phone to phone.
fn direct(mut call: Call) -> Call {
    let told = call.legs.iter().map(|l| l.sdp_received.clone()).collect::<Vec<_>>();
    for (leg, other) in [(0, 1), (1, 0)] {
        call.legs[leg].sdp_sent = told[other].clone();
    }
    call
}

#[test]
fn the_ears_decide() {
    let over_tls = |mut call: Call| {
        call.legs[0].transport = Transport::Tls;
        call
    };
    let partial = |mut call: Call| {
        call.legs[1].partial = true;
        call
    };
    let proxied = |call: Call| Call { pairing: Some(Pairing::SameDialog), ..call };
    let other_codecs = Call { pairing: Some(Pairing::Evidence), ..simple("RTP/AVP 0", "RTP/AVP 8") };
    let mut alone = call();
    alone.legs.pop();
    for (what, call, words) in [
        ("a B2BUA's", call(), ["lost", "audio", "kept"]),
        ("from phone to phone", direct(call()), ["audio", "audio", "kept"]),
        ("over TLS", over_tls(call()), ["lost", "audio", "audio"]),
        ("over TLS, from phone to phone", over_tls(direct(call())), ["audio", "audio", "audio"]),
        ("half known", partial(call()), ["lost", "audio", "audio"]),
        ("a proxy's", proxied(direct(call())), ["kept", "kept", "kept"]),
        ("a proxy's, through its media server", proxied(call()), ["lost", "kept", "kept"]),
        ("without a common codec", other_codecs.clone(), ["lost", "lost", "lost"]),
        ("a proxy's that transcodes", proxied(other_codecs), ["lost", "lost", "lost"]),
        ("one party", alone, ["lost", "lost", "lost"]),
    ] {
        for (mode, word) in Mode::ALL.into_iter().zip(words) {
            let outlook = Outlook::of(&call, &ground(), mode);
            assert_eq!(outlook.word(), word, "{what}, {mode}");
            assert_eq!(outlook.why().is_none(), word == "kept", "{what}, {mode}");
        }
    }
    let external = Ground { external: true, ..ground() };
    assert_eq!(
        Outlook::of(&proxied(call()), &external, Mode::Observe),
        Outlook::Kept(None),
        "its media server restores it"
    );
}

#[test]
fn what_does_not_work_is_said_beside_what_does() {
    let keys = |pt: u8| format!("RTP/AVP 0 {pt}\r\na=rtpmap:{pt} telephone-event/8000");
    let call = Call { pairing: Some(Pairing::Evidence), ..simple(&keys(101), &keys(96)) };
    let outlook = |call: &Call, mode| {
        let outlook = Outlook::of(call, &ground(), mode);
        (outlook.word(), outlook.why().unwrap_or_default())
    };
    let (word, why) = outlook(&call, Mode::Full);
    assert!(word == "kept" && why.starts_with("key presses (DTMF) will not pass"), "{word}: {why}");
    let (word, why) = outlook(&call, Mode::Audio);
    assert!(word == "audio" && why.contains("; key presses"), "{word}: {why}");
    let (word, why) = outlook(&call, Mode::Observe);
    assert!(word == "lost" && !why.contains("key presses"), "{word}: {why}");
    let (word, why) = outlook(&direct(call), Mode::Full);
    assert!(word == "kept" && why.is_empty(), "from phone to phone: {why}");
}

#[test]
fn a_doubtful_pair_has_a_word_of_its_own() {
    let doubtful = Call { confidence: Some(65), ..call() };
    let outlook = Outlook::of(&doubtful, &ground(), Mode::Full);
    assert_eq!(outlook.word(), "doubtful");
    assert_eq!(outlook.why().unwrap(), "the pairing is only 65 % sure, below min_confidence 80");
    assert_eq!(Outlook::of(&direct(doubtful), &ground(), Mode::Full).word(), "audio", "it needs nobody");
    let low = Ground { min_confidence: 65, ..ground() };
    assert_eq!(Outlook::of(&Call { confidence: Some(65), ..call() }, &low, Mode::Full), Outlook::Kept(None));
}

#[test]
fn an_address_that_nobody_is_known_to_have_is_no_promise() {
    let elsewhere = |sides: &[usize]| {
        let mut call = call();
        for side in sides {
            let sdp = &mut call.legs[*side].sdp_sent.as_mut().unwrap().body;
            *sdp = sdp.lossy().replace("10.9.0.100", "203.0.113.10").as_str().into();
        }
        call
    };
    for sides in [&[0][..], &[1], &[0, 1]] {
        let outlook = Outlook::of(&elsewhere(sides), &ground(), Mode::Full);
        assert_eq!(outlook.word(), "lost", "{sides:?}");
        let why = outlook.why().unwrap();
        assert!(why.contains("203.0.113.10") && why.contains("advertised"), "{sides:?}: {why}");
        let advertised = crate::sip::advertised::Advertised::new(["203.0.113.10"]);
        let known = Ground { advertised, ..ground() };
        assert_eq!(Outlook::of(&elsewhere(sides), &known, Mode::Full), Outlook::Kept(None));
    }
    let proxied = Call { pairing: Some(Pairing::SameDialog), ..elsewhere(&[0, 1]) };
    assert_eq!(Outlook::of(&proxied, &ground(), Mode::Full).word(), "kept", "a media server of its own");
}
