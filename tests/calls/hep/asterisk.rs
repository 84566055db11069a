//! A real Asterisk with res_hep between two real phones over TLS: two legs of a B2BUA that no capture can read.

use super::phone::{Certificate, Phone};
use super::watch::Watch;
use keepcall::calls::model::{Direction, LegState};
use keepcall::sip::Transport;
use lab::asterisk::Asterisk;
use lab::lan::Host;
use lab::netns::{LONG, Lan};
use std::fmt::Write as _;

const KEY: &str = "what hep.conf calls a password";
const VIP: &str = "10.77.0.100";
fn start(host: &Host, certificate: &Certificate) -> Asterisk {
    let mut pjsip = format!(
        "[global]\ntype=global\n[tls]\ntype=transport\nprotocol=tls\nbind={VIP}:5061\n\
         cert_file={}\npriv_key_file={}\nmethod=tlsv1_2\n",
        certificate.cert.display(),
        certificate.key.display()
    );
    for (name, ip) in [("caller", "10.77.0.2"), ("callee", "10.77.0.3")] {
        let _ = write!(
            pjsip,
            "[{name}]\ntype=endpoint\ntransport=tls\ncontext=test\ndisallow=all\nallow=ulaw,alaw\ndirect_media=no\n\
             media_address={VIP}\ntrust_id_inbound=yes\naors={name}\n[{name}]\ntype=aor\n\
             [{name}]\ntype=identify\nendpoint={name}\nmatch={ip}\n"
        );
    }
    let extensions = "[test]\nexten => 2000,1,Dial(PJSIP/callee/sip:2000@10.77.0.3:15061\\;transport=tls,60)\n";
    let hep = format!(
        "[general]\nenabled=yes\nuuid_type=call-id\ncapture_address=127.0.0.1:9065\n\
         capture_password={KEY}\ncapture_id=1234\n"
    );
    let modules = ["res_hep", "res_hep_pjsip"];
    let mut asterisk = Asterisk::launch(host, &modules, &pjsip, extensions, vec![("hep.conf", hep)]).unwrap();
    asterisk.wait_ready().unwrap();
    asterisk
}

#[test]
fn both_legs_of_a_tls_call_through_asterisk_are_learnt() {
    let lan = Lan::new(&["a", "b", "c"]);
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::new(dir.path());
    lan.ip("a", &format!("addr add {VIP}/24 dev eth0"));
    let _server = start(&lan.host("a", dir.path()), &certificate);
    let server = format!("{VIP}:5061;transport=tls");
    let phone =
        |host, port, user, dial| Phone::start(&lan.host(host, dir.path()), port, user, &server, &certificate, dial);
    let _callee = phone("c", 15060, "2000", None);
    let ((tell, told), (stop, stopped)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let watched = std::thread::scope(|scope| {
        let lan = &lan;
        let watching = scope.spawn(move || {
            lan.block_on("a", move || async move {
                let mut watch = Watch::open(VIP, "udp:127.0.0.1:9065", Some(KEY), true);
                tell.send("listening").unwrap();
                watch.until("a call of two whole legs", Watch::has_whole_call).await;
                let call = watch.table.calls().next().unwrap();
                tell.send("up").unwrap();
                stopped.recv().unwrap();
                watch.until("the end of the call", |w| w.table.legs().count() == 0 && w.deleted > 0).await;
                (call, watch.counters(), watch.seen)
            })
        });
        assert_eq!(told.recv_timeout(LONG).unwrap(), "listening");
        let caller = phone("b", 14060, "1000", Some("2000"));
        if told.recv().is_ok() {
            caller.hang_up();
            let _ = stop.send(());
        }
        watching.join()
    });
    let (call, hep, seen) = watched.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!((hep.refused, hep.malformed, hep.not_sip, hep.dropped), (0, 0, 0, 0), "{hep:?}");
    assert_eq!(seen, 0, "nothing of it could be overheard");
    for (leg, direction, phone, user) in [
        (&call.legs[0], Direction::Inbound, "10.77.0.2", "1000"),
        (&call.legs[1], Direction::Outbound, "10.77.0.3", "2000"),
    ] {
        assert_eq!(
            (leg.direction, leg.state, leg.transport),
            (direction, LegState::Confirmed, Transport::Tls),
            "{leg:#?}"
        );
        assert_eq!(
            (leg.local_addr.ip().to_string().as_str(), leg.remote_addr.ip().to_string().as_str()),
            (VIP, phone),
            "{leg:#?}"
        );
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert!(text(&leg.remote.0).contains(user) && text(&leg.remote_target.0).contains(phone), "{leg:#?}");
        let (sent, received) = (leg.sdp_sent.as_ref().unwrap(), leg.sdp_received.as_ref().unwrap());
        assert!(text(&sent.body.0).contains(&format!("c=IN IP4 {VIP}\r\n")), "{leg:#?}");
        assert!(text(&received.body.0).contains(&format!("c=IN IP4 {phone}\r\n")), "{leg:#?}");
    }
}
