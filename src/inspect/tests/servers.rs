//! Which address is the server.

use super::build::{Hop, Shot, audio, file, paced};
use super::*;
use crate::inspect::report::{Certainty, State};

const PHONES: [&str; 3] = ["10.0.0.1:5060", "10.0.0.2:5060", "10.0.0.3:5060"];
const S: &str = "10.0.0.100:5060";

fn sdp() -> String {
    audio("10.0.0.1:4000", "")
}

/// A call through a B2BUA at `server`.
fn through(server: &str, n: usize, a: &str, b: &str) -> Vec<Shot> {
    let (from, to) = (format!("10{n}"), format!("20{n}"));
    let i = Hop::new(&format!("i{n}{server}"), a, server, &from, &to);
    let o = Hop::new(&format!("o{n}{server}"), server, b, &from, &to);
    vec![i.invite(&sdp()), o.invite(&sdp()), o.answer(200, &sdp()), o.ack(), i.answer(200, &sdp()), i.ack()]
}

fn address(r: &Report) -> String {
    r.server.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn who_receives_and_sends_calls_is_the_server() {
    let mut shots = through(S, 1, PHONES[0], PHONES[1]);
    shots.extend(through(S, 2, PHONES[1], PHONES[2]));
    let r = told(shots);
    assert_eq!(
        (address(&r).as_str(), r.server.certainty, r.server.ports.as_slice()),
        ("10.0.0.100", Certainty::Likely, &[5060][..])
    );
    assert_eq!(r.calls.len(), 2);
    let s = &r.servers[0];
    assert_eq!((s.chosen, s.calls, s.received, s.sent, s.peers), (true, 4, 2, 2, 3));
    assert!(r.servers[1..].iter().all(|o| !o.chosen && o.score < s.score));
}

#[test]
fn a_registrar_or_a_name_tells_equals_apart() {
    // Without a registrar, one phone that makes all calls looks like the server.
    let h = Hop::new("c", S, PHONES[0], "1000", "2000");
    let call = h.up(&sdp(), &sdp());
    assert_eq!(
        (address(&told(call.clone())).as_str(), told(call.clone()).server.certainty),
        ("10.0.0.1", Certainty::Guess)
    );
    let text = String::from_utf8(Hop::new("r", PHONES[0], S, "1000", "1000").answer(200, "").payload).unwrap();
    let registered = Shot {
        at: 0,
        src: S.parse().unwrap(),
        dst: PHONES[0].parse().unwrap(),
        payload: text.replace("INVITE", "REGISTER").into_bytes(),
    };
    let r = told([vec![registered], call].concat());
    assert_eq!((address(&r).as_str(), r.servers[0].registrar), ("10.0.0.100", true));
    let named = Hop { more: "User-Agent: Asterisk PBX 18\r\n".into(), ..h }.up(&sdp(), &sdp());
    let r = told(named);
    assert_eq!((address(&r).as_str(), r.servers[0].user_agent.as_deref()), ("10.0.0.100", Some("Asterisk PBX 18")));
}

#[test]
fn calls_at_another_server_are_told_as_such() {
    let other = "10.0.0.200:5060";
    let mut shots = through(S, 1, PHONES[0], PHONES[1]);
    shots.extend(through(S, 2, PHONES[0], PHONES[1]));
    shots.extend(through(other, 3, PHONES[0], PHONES[2]));
    let r = told(shots.clone());
    assert_eq!(address(&r), "10.0.0.100");
    assert_eq!(r.servers.iter().map(|s| s.address.to_string()).collect::<Vec<_>>()[..2], ["10.0.0.100", "10.0.0.200"]);
    let elsewhere: Vec<_> = r.calls.iter().filter(|c| !c.through_server).collect();
    let [c] = elsewhere.as_slice() else { panic!("{:#?}", r.calls) };
    // The call is as well known as the others.
    assert_eq!((c.legs.len(), c.state, c.stored_id.as_deref()), (2, State::Up, None));
    assert!(c.recovery.why.contains("does not pass the server 10.0.0.100"), "{}", c.recovery.why);
    let r = with_vip(shots.clone(), "10.0.0.200");
    assert_eq!((r.server.certainty, r.calls.iter().filter(|c| c.through_server).count()), (Certainty::Given, 1));
    // An address that is not in the file.
    let r = with_vip(shots, "192.0.2.77");
    assert_eq!((r.calls.len(), r.calls.iter().filter(|c| c.through_server).count()), (3, 0));
    assert!(r.notes.iter().any(|n| n.contains("no call in the file passes")), "{:?}", r.notes);
}

#[test]
fn a_host_that_talks_to_itself_is_told_by_its_ports() {
    let (a, s, b) = ("127.0.0.1:5071", "127.0.0.1:5060", "127.0.0.1:5072");
    let mut shots = through(s, 1, a, b);
    shots.extend(through(s, 2, a, b));
    let r = told(shots.clone());
    assert_eq!((address(&r).as_str(), r.server.ports.as_slice()), ("127.0.0.1", &[5060][..]));
    assert_eq!(r.calls.iter().map(|c| c.legs.len()).collect::<Vec<_>>(), [2, 2]);
    let settings = InspectSettings {
        vips: vec!["127.0.0.1".parse().unwrap()],
        sip_ports: vec![5072],
        ..InspectSettings::default()
    };
    let r = run(&file(&paced(shots, 100)), &settings).unwrap();
    assert_eq!(r.calls.iter().flat_map(|c| &c.legs).filter(|l| l.through_server).count(), 2);
}

#[test]
fn a_server_with_two_addresses_can_be_named() {
    let i = Hop::new("i", PHONES[0], "10.0.0.100:5060", "1000", "2000");
    let o = Hop::new("o", "192.0.2.100:5080", PHONES[1], "1000", "2000");
    let shots = vec![i.invite(&sdp()), o.invite(&sdp()), o.answer(200, &sdp()), i.answer(200, &sdp())];
    let vips = vec!["10.0.0.100".parse().unwrap(), "192.0.2.100".parse().unwrap()];
    let r = run(&file(&paced(shots, 100)), &InspectSettings { vips, ..InspectSettings::default() }).unwrap();
    assert_eq!((only(&r).legs.len(), r.server.ports.as_slice()), (2, &[5060, 5080][..]));
}

#[test]
fn given_ports_leave_the_others_out() {
    let settings = |port| InspectSettings {
        vips: vec!["10.0.0.100".parse().unwrap()],
        sip_ports: vec![port],
        ..InspectSettings::default()
    };
    let bytes = file(&paced(through(S, 1, PHONES[0], PHONES[1]), 100));
    let r = run(&bytes, &settings(5060)).unwrap();
    assert_eq!((only(&r).through_server, only(&r).legs.len()), (true, 2));
    let r = run(&bytes, &settings(5090)).unwrap();
    assert!(r.calls.iter().all(|c| !c.through_server));
}

#[test]
fn a_host_that_names_an_advertised_address_is_the_server() {
    // One call each way: nothing else tells the two ends apart.
    let (a, b) = (PHONES[0], "10.0.0.100:5060");
    let public = sdp().replace("10.0.0.", "203.0.113.");
    let (i, o) = (Hop::new("i", a, b, "1000", "2000"), Hop::new("o", b, a, "2000", "1000"));
    let shots = vec![i.invite(&sdp()), i.answer(200, &sdp()), o.invite(&public), o.answer(200, &sdp())];
    let ip = crate::sip::sdp::places(public.as_bytes())[0].0.unwrap();
    for (advertised, server) in [(vec![ip.to_string()], "10.0.0.100"), (vec!["203.0.113.99".to_owned()], "")] {
        let r = run(&file(&paced(shots.clone(), 100)), &InspectSettings { advertised, ..InspectSettings::default() });
        let r = r.unwrap();
        assert!(server.is_empty() || address(&r) == server, "{}", address(&r));
    }
}
