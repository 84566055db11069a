use super::scene::{VIP, inbound, message, outbound};
use crate::sip::Transport;
use crate::wire::Packet;

#[test]
fn each_accepted_target_refresh_moves_the_target() {
    for (script, target) in [
        ("P> reINVITE 2 sdp=o contact=sip:new@h\nS> 200 INVITE 2 sdp=a\nP> ACK 2", "sip:new@h"),
        ("P> UPDATE 2 contact=sip:new@h\nS> 200 UPDATE 2", "sip:new@h"),
        ("P> REFER 2 contact=sip:new@h h=Refer-To:<sip:x@h>\nS> 202 REFER 2", "sip:new@h"),
        ("P> NOTIFY 2 contact=sip:new@h h=Event:refer\nS> 200 NOTIFY 2", "sip:new@h"),
        ("S> reINVITE 2 sdp=o\nP> 200 INVITE 2 sdp=a contact=sip:new@h\nS> ACK 2", "sip:new@h"),
        ("S> UPDATE 2\nP> 200 UPDATE 2 contact=sip:new@h", "sip:new@h"),
        // A reliable provisional response counts like the 2xx (RFC 6141), an unreliable one does not.
        ("S> reINVITE 2 sdp=o\nP> 183 INVITE 2 rseq=1 sdp=a contact=sip:new@h", "sip:new@h"),
        ("P> reINVITE 2 sdp=o contact=sip:new@h\nS> 183 INVITE 2 rseq=1 sdp=a", "sip:new@h"),
        ("S> reINVITE 2 sdp=o\nP> 183 INVITE 2 contact=sip:new@h", "sip:phone@10.0.0.1:5060"),
        // Refused, or no refresh at all.
        ("P> reINVITE 2 sdp=o contact=sip:new@h\nS> 488 INVITE 2\nP> nACK 2", "sip:phone@10.0.0.1:5060"),
        ("P> NOTIFY 2 contact=sip:new@h\nS> 489 NOTIFY 2", "sip:phone@10.0.0.1:5060"),
        ("P> INFO 2 contact=sip:new@h\nS> 200 INFO 2", "sip:phone@10.0.0.1:5060"),
        ("P> OPTIONS 2 contact=sip:new@h\nS> 200 OPTIONS 2", "sip:phone@10.0.0.1:5060"),
    ] {
        let mut s = inbound();
        s.up().play(script);
        assert_eq!(s.target(), target, "{script}");
    }
    let mut s = inbound();
    s.up().play("S> UPDATE 2 contact=sip:moved@h\nP> 200 UPDATE 2");
    assert_eq!(s.leg().local_target.lossy(), "sip:moved@h");
}

#[test]
fn the_route_set_is_that_of_the_2xx_and_then_fixed() {
    let mut s = outbound();
    s.play(
        "S> INVITE 1 sdp=o
         P> 180 INVITE 1 rr=sip:old;lr
         P> 200 INVITE 1 sdp=a rr=sip:p2;lr,sip:p1;lr
         S> ACK 1 route=sip:p1;lr,sip:p2;lr
         S> reINVITE 2 sdp=o2
         P> 200 INVITE 2 sdp=a2 rr=sip:other;lr
         S> ACK 2
         P> reINVITE 1 sdp=o3 rr=sip:third;lr
         S> 200 INVITE 1 sdp=a3 rr=sip:third;lr
         P> ACK 1
         P> 200 INVITE 1 sdp=a rr=sip:late;lr",
    );
    assert_eq!(s.routes(), ["<sip:p1;lr>", "<sip:p2;lr>"]);
}

#[test]
fn a_uas_takes_record_route_in_order_strict_routers_and_parameters_included() {
    let mut s = inbound();
    s.play(
        "P> INVITE 1 sdp=o rr=sip:p1;lr;ftag=c;did=4,sip:strict@p2,sips:[2001:db8::7]:5061;lr
         S> 200 INVITE 1 sdp=a rr=sip:p1;lr;ftag=c;did=4,sip:strict@p2,sips:[2001:db8::7]:5061;lr
         P> ACK 1",
    );
    assert_eq!(s.routes(), ["<sip:p1;lr;ftag=c;did=4>", "<sip:strict@p2>", "<sips:[2001:db8::7]:5061;lr>"]);
    assert!(s.gaps().is_empty());
}

#[test]
fn entries_of_the_server_itself_lead_nowhere_whatever_they_are_called() {
    // A proxy with two interfaces writes two entries, one of them with an unresolvable host name.
    let own = "sip:10.0.0.100;r2=on;lr,sip:proxy.example.org:5080;transport=tcp;r2=on;lr";
    let mut s = outbound();
    s.play(&format!(
        "S> INVITE 1 sdp=o rr={own},sip:edge-a;lr
         P> 200 INVITE 1 sdp=a rr=sip:edge-b2;lr,sip:edge-b1;lr,{own},sip:edge-a;lr
         S> ACK 1 route=sip:edge-b1;lr,sip:edge-b2;lr"
    ));
    assert_eq!(s.routes(), ["<sip:edge-b1;lr>", "<sip:edge-b2;lr>"]);
    // The other side of the same call.
    let mut s = inbound();
    s.play(&format!(
        "P> INVITE 1 sdp=o rr=sip:edge-a;lr
         S> 200 INVITE 1 sdp=a rr=sip:edge-b2;lr,sip:edge-b1;lr,{own},sip:edge-a;lr
         P> ACK 1"
    ));
    assert_eq!(s.routes(), ["<sip:edge-a;lr>"]);
    // A call that passes the server a second time finds the server's own address in front.
    let mut s = inbound();
    s.play(
        "P> INVITE 1 sdp=o rr=sip:edge;lr,sip:10.0.0.100;lr,sip:far;lr
         S> 200 INVITE 1 sdp=a
         P> ACK 1",
    );
    assert_eq!(s.routes(), ["<sip:far;lr>"]);
}

#[test]
fn a_phone_whose_nat_gives_it_another_port_is_followed() {
    let mut s = inbound();
    s.play(
        "P> INVITE 1 sdp=o at=198.51.100.1:40000 contact=sip:phone@192.168.1.5:5060
         S> 200 INVITE 1 sdp=a at=198.51.100.1:40000
         P> ACK 1 at=198.51.100.1:40000
         P> INFO 2 at=198.51.100.9:41000",
    );
    // Anybody may have sent that, so the server's answer decides.
    assert_eq!(s.leg().remote_addr.to_string(), "198.51.100.1:40000");
    s.play("P> INFO 3 at=192.0.2.66:5060\nS> 481 INFO 3 at=192.0.2.66:5060\nP> INFO 4 at=198.51.100.9:41000\nS> 200 INFO 4 at=198.51.100.9:41000");
    assert_eq!(s.leg().remote_addr.to_string(), "198.51.100.9:41000");
    // A copy of an old message with another address, as a late report may have it, is no move.
    s.play("P> INFO 4 at=192.0.2.66:5060").play("P> INVITE 1 sdp=o at=192.0.2.66:5060");
    assert_eq!(s.leg().remote_addr.to_string(), "198.51.100.9:41000");
    // The server's own destination is final.
    s.play("S> OPTIONS 1 at=198.51.100.9:42000");
    assert_eq!(s.leg().remote_addr.to_string(), "198.51.100.9:42000");
}

#[test]
fn a_trunk_that_sends_from_another_host_is_still_reached_where_it_said() {
    let mut s = outbound();
    s.up().play("P> INFO 1 at=10.0.0.77:5060\nS> 200 INFO 1 at=10.0.0.77:5060");
    assert_eq!(s.leg().remote_addr.to_string(), "10.0.0.1:5060", "the address of its Contact");
    // It moves for good with a new Contact.
    s.play("P> reINVITE 2 sdp=o2 at=10.0.0.77:5060");
    assert_eq!(s.leg().remote_addr.to_string(), "10.0.0.1:5060");
    s.play("S> 200 INVITE 2 sdp=a2 at=10.0.0.77:5060\nP> ACK 2 at=10.0.0.77:5060");
    assert_eq!(
        (s.leg().remote_addr.to_string(), s.target()),
        ("10.0.0.77:5060".into(), "sip:phone@10.0.0.77:5060".into())
    );
}

#[test]
fn each_transport_is_told_with_the_addresses_of_its_connection() {
    for (word, transport) in [("tcp", Transport::Tcp), ("tls", Transport::Tls), ("ws", Transport::Ws)] {
        let mut s = inbound();
        s.play(&format!(
            "P> INVITE 1 sdp=o at=10.0.0.1:39001 over={word} contact=sip:phone@10.0.0.1:5060;transport={word}
             S> 200 INVITE 1 sdp=a at=10.0.0.1:39001 over={word}
             P> ACK 1 at=10.0.0.1:39001 over={word}"
        ));
        let leg = s.leg();
        assert_eq!((leg.transport, leg.remote_addr.to_string()), (transport, "10.0.0.1:39001".into()));
        assert_eq!((leg.local_addr.to_string(), leg.partial), (VIP.to_owned(), false));
        assert!(leg.obstacle().is_some_and(|why| why.contains("connection")), "the reason is said");
        // A new connection becomes the leg's with the first request that the server accepts.
        s.play(&format!("P> INFO 2 at=10.0.0.1:39555 over={word}\nS> 200 INFO 2 at=10.0.0.1:39555 over={word}"));
        assert_eq!(s.leg().remote_addr.to_string(), "10.0.0.1:39555");
    }
    let mut s = inbound();
    s.up();
    assert_eq!(s.leg().obstacle(), None);
}

#[test]
fn ipv6_is_no_different() {
    let mut s = inbound();
    s.play(
        "P> INVITE 1 sdp=o at=[2001:db8::1]:5060
         S> 200 INVITE 1 sdp=a at=[2001:db8::1]:5060 rr=sip:[2001:db8::100];lr
         P> ACK 1 at=[2001:db8::1]:5060
         P> INFO 2 at=[2001:db8::2]:5060",
    );
    assert_eq!(s.leg().remote_addr.to_string(), "[2001:db8::1]:5060");
    assert_eq!((s.target(), s.routes()), ("sip:phone@[2001:db8::1]:5060".to_owned(), vec![]));
    assert!(s.gaps().is_empty());
}

#[test]
fn without_a_contact_there_is_no_way_to_the_phone_until_it_names_one() {
    use crate::calls::model::Gap;
    let mut s = outbound();
    s.play("S> INVITE 1 sdp=o\nP> 200 INVITE 1 sdp=a contact=none\nS> ACK 1 uri=sip:callee@h");
    assert_eq!(s.gaps(), [], "the server's ACK says where it sends to");
    assert_eq!(s.target(), "sip:callee@h");
    let mut s = inbound();
    s.play("P> INVITE 1 sdp=o contact=none\nS> 200 INVITE 1 sdp=a\nP> ACK 1");
    assert_eq!(s.gaps(), [Gap::RemoteTarget]);
    s.play("P> UPDATE 2\nS> 200 UPDATE 2");
    assert_eq!(s.gaps(), []);
}

#[test]
fn a_connection_that_the_server_opened_has_a_port_of_the_systems_choice() {
    for (phone, learnt) in [("10.0.0.1:5060", 1), ("10.0.0.100:5060", 0)] {
        let mut s = outbound();
        let own: std::net::SocketAddr = "10.0.0.100:43210".parse().unwrap();
        for line in ["S> INVITE 1 sdp=o over=tcp", "P> 200 INVITE 1 sdp=a over=tcp", "S> ACK 1 over=tcp"] {
            let sent = message(line, true, &s.call_id);
            let far = phone.parse().unwrap();
            let (src, dst) = if sent.by_server { (own, far) } else { (far, own) };
            let p = Packet { src, dst, transport: sent.transport, payload: sent.text.as_bytes() };
            s.tracker.handle_packet(&p, 0, s.now);
        }
        // On one address this is another server's connection to this one. The port shows which of them is meant.
        assert_eq!(s.tracker.legs().filter(|t| t.leg.local_addr == own).count(), learnt, "{phone}");
    }
}

#[test]
fn a_record_route_by_an_advertised_host_is_the_servers_own() {
    use super::scene::settings;
    use crate::calls::tracker::{Tracker, TrackerSettings};
    let advertised = crate::sip::advertised::Advertised::new(["203.0.113.10", "sip.example.com"]);
    let mut s = inbound();
    s.tracker = Tracker::new(TrackerSettings { advertised, ..settings() });
    s.play(
        "P> INVITE 1 sdp=o rr=sip:203.0.113.10;lr,sip:SIP.example.com:5060;lr,sip:203.0.113.10:5999;lr,sip:p;lr
         S> 200 INVITE 1 sdp=a rr=sip:203.0.113.10;lr,sip:SIP.example.com:5060;lr,sip:203.0.113.10:5999;lr,sip:p;lr
         P> ACK 1",
    );
    assert_eq!(s.routes(), ["<sip:203.0.113.10:5999;lr>", "<sip:p;lr>"]);
}
