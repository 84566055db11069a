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
    assert_eq!(Outlook::of(&proxied(call()), &external, Mode::Observe), Outlook::Kept, "its media server restores it");
}
