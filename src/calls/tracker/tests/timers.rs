use super::scene::{Scene, inbound, outbound};

fn timer(s: &Scene) -> Option<(u32, bool)> {
    s.leg().session_timer.map(|t| (t.interval_s, t.local_refreshes))
}

#[test]
fn the_refresher_is_who_the_2xx_names_else_the_request_else_the_sender_if_it_can() {
    for (request, response, local) in [
        ("se=1800;refresher=uac h=Supported:timer", "se=1800;refresher=uac", true),
        ("se=1800 h=Supported:timer", "se=1800;refresher=uas", false),
        ("se=1800;refresher=uas h=Supported:timer", "se=900", false),
        ("se=1800;refresher=uac h=Supported:timer", "se=900", true),
        ("se=1800 h=k:timer,100rel", "se=900", true),
        // A proxy asked for it, and the caller does not support timers.
        ("", "se=900", false),
        ("", "se=900;refresher=UAS", false),
    ] {
        let mut s = outbound();
        s.play(&format!("S> INVITE 1 sdp=o {request}\nP> 200 INVITE 1 sdp=a {response}\nS> ACK 1"));
        let interval = if response.contains("1800") { 1800 } else { 900 };
        assert_eq!(timer(&s), Some((interval, local)), "{request} / {response}");
        // The other way round the phone is the sender.
        let mut s = inbound();
        s.play(&format!("P> INVITE 1 sdp=o {request}\nS> 200 INVITE 1 sdp=a {response}\nP> ACK 1"));
        assert_eq!(timer(&s), Some((interval, !local)), "{request} / {response}");
    }
}

#[test]
fn refreshes_change_interval_and_refresher_and_one_without_a_timer_ends_it() {
    let mut s = outbound();
    s.play("S> INVITE 1 sdp=o se=1800 h=Supported:timer\nP> 200 INVITE 1 sdp=a se=1800;refresher=uac\nS> ACK 1");
    s.play("S> UPDATE 2 se=600;refresher=uac h=Supported:timer\nP> 200 UPDATE 2 se=600;refresher=uac");
    assert_eq!(timer(&s), Some((600, true)));
    // The other side refreshes now.
    s.play("P> reINVITE 1 sdp=a se=300;refresher=uac h=Supported:timer\nS> 200 INVITE 1 sdp=o se=300;refresher=uac\nP> ACK 1");
    assert_eq!(timer(&s), Some((300, false)));
    // Too small and refused, then with the other side's minimum.
    s.play("S> UPDATE 3 se=90 h=Supported:timer\nP> 422 UPDATE 3 h=Min-SE:1000");
    assert_eq!(timer(&s), Some((300, false)));
    s.play("S> UPDATE 4 se=1000;refresher=uac h=Supported:timer\nP> 200 UPDATE 4 se=1000;refresher=uac");
    assert_eq!(timer(&s), Some((1000, true)));
    // Neither INFO nor its answer mentions timers.
    s.play("S> INFO 5\nP> 200 INFO 5");
    assert_eq!(timer(&s), Some((1000, true)));
    s.play("S> UPDATE 6\nP> 200 UPDATE 6");
    assert_eq!(timer(&s), None);
}

#[test]
fn a_call_whose_bye_was_lost_goes_when_its_timer_runs_out_or_after_a_day() {
    let mut s = inbound();
    s.play("P> INVITE 1 sdp=o\nS> 200 INVITE 1 sdp=a se=600;refresher=uac\nP> ACK 1\nwait 659000");
    assert!(s.is_up());
    s.play("P> UPDATE 2\nS> 200 UPDATE 2 se=600;refresher=uac\nwait 659000");
    assert!(s.is_up(), "it was refreshed");
    s.wait(2000);
    assert!(!s.is_up());
    assert_eq!(s.tracker.counters.swept, 1);
    let mut s = inbound();
    s.up().wait(24 * 3_600_000 - 1000);
    assert!(s.is_up());
    s.wait(2000);
    assert!(!s.is_up());
    s.wait(400_000);
    assert_eq!(s.tracker.next_deadline(), None, "nothing is kept");
}

#[test]
fn a_call_that_nobody_answers_goes_after_timer_c() {
    let mut s = outbound();
    s.play("S> INVITE 1 sdp=o\nP> 180 INVITE 1\nwait 299000\nP> 180 INVITE 1\nwait 299000");
    assert_eq!(s.tracker.legs().count(), 1);
    s.wait(2000);
    assert_eq!(s.tracker.legs().count(), 0);
    assert_eq!(s.told().last().map(String::as_str), Some("ended: never answered"));
}
