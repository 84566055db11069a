//! A real Asterisk with res_hep between two real phones over TLS: two legs of a B2BUA that no capture can read.

use super::phone::{Certificate, Phone};
use super::watch::Watch;
use keepcall::calls::model::{Direction, LegState};
use keepcall::sip::Transport;
use lab::netns::{LONG, Lan, until};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

const KEY: &str = "what hep.conf calls a password";
const VIP: &str = "10.77.0.100";
/// The modules such a call needs, and nothing else: a short list starts in about a second.
const MODULES: &[&str] = &[
    "res_sorcery_config",
    "res_sorcery_memory",
    "res_sorcery_astdb",
    "res_timing_timerfd",
    "res_pjproject",
    "res_statsd",
    "res_pjsip",
    "res_pjsip_session",
    "res_pjsip_pubsub",
    "res_pjsip_sdp_rtp",
    "res_pjsip_caller_id",
    "res_pjsip_endpoint_identifier_ip",
    "res_pjsip_nat",
    "res_rtp_asterisk",
    "res_hep",
    "res_hep_pjsip",
    "chan_pjsip",
    "app_dial",
    "pbx_config",
    "bridge_simple",
    "codec_ulaw",
    "codec_alaw",
];

fn start(lan: &Lan, dir: &Path, certificate: &Certificate) -> std::process::Child {
    let dir = dir.join("asterisk");
    for sub in ["etc", "lib", "run", "spool", "log", "keys", "agi", "db"] {
        std::fs::create_dir_all(dir.join(sub)).unwrap();
    }
    let d = dir.display();
    let mut modules = String::from("[modules]\nautoload=no\n");
    for m in MODULES {
        let _ = writeln!(modules, "require={m}.so");
    }
    let mut pjsip = format!(
        "[global]\ntype=global\n[tls]\ntype=transport\nprotocol=tls\nbind={VIP}:5061\ncert_file={}\npriv_key_file={}\nmethod=tlsv1_2\n",
        certificate.cert.display(),
        certificate.key.display()
    );
    for (name, ip) in [("caller", "10.77.0.2"), ("callee", "10.77.0.3")] {
        let _ = write!(
            pjsip,
            "[{name}]\ntype=endpoint\ntransport=tls\ncontext=test\ndisallow=all\nallow=ulaw,alaw\ndirect_media=no\nmedia_address={VIP}\n\
             trust_id_inbound=yes\naors={name}\n[{name}]\ntype=aor\n[{name}]\ntype=identify\nendpoint={name}\nmatch={ip}\n"
        );
    }
    let files = [
        (
            "asterisk.conf",
            format!(
                "[directories]\nastetcdir={d}/etc\nastmoddir=/usr/lib/asterisk/modules\nastvarlibdir={d}/lib\nastdbdir={d}/db\n\
                 astkeydir={d}/keys\nastdatadir=/usr/share/asterisk\nastagidir={d}/agi\nastspooldir={d}/spool\nastrundir={d}/run\n\
                 astlogdir={d}/log\n"
            ),
        ),
        ("modules.conf", modules),
        ("logger.conf", "[general]\n[logfiles]\nmessages.log => notice,warning,error,verbose\n".to_owned()),
        ("rtp.conf", "[general]\nrtpstart=10000\nrtpend=20000\nstrictrtp=no\nicesupport=no\n".to_owned()),
        ("pjproject.conf", "[startup]\n".to_owned()),
        ("features.conf", "[general]\n".to_owned()),
        ("pjsip.conf", pjsip),
        (
            "hep.conf",
            format!(
                "[general]\nenabled=yes\nuuid_type=call-id\ncapture_address=127.0.0.1:9065\ncapture_password={KEY}\ncapture_id=1234\n"
            ),
        ),
        (
            "extensions.conf",
            "[test]\nexten => 2000,1,Dial(PJSIP/callee/sip:2000@10.77.0.3:15061\\;transport=tls,60)\n".to_owned(),
        ),
    ];
    for (name, text) in files {
        std::fs::write(dir.join("etc").join(name), text).unwrap();
    }
    let log = std::fs::File::create(dir.join("output")).unwrap();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lan.space("a"), "asterisk", "-f", "-n", "-C"]).arg(dir.join("etc/asterisk.conf"));
    let mut child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    until(&format!("Asterisk listens ({d})"), || {
        assert!(
            child.try_wait().unwrap().is_none(),
            "Asterisk ended: {}",
            std::fs::read_to_string(dir.join("output")).unwrap()
        );
        lab::netns::stdout(&lan.exec("a", "ss -Hlnt")).contains(&format!("{VIP}:5061 "))
    });
    // Extensions are loaded last.
    let conf = dir.join("etc/asterisk.conf");
    until("Asterisk is booted", || {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &lan.space("a"), "asterisk", "-C"])
            .arg(&conf)
            .args(["-rx", "core waitfullybooted"]);
        lab::netns::stdout(&command.output().unwrap()).contains("fully booted")
    });
    child
}

#[test]
fn both_legs_of_a_tls_call_through_asterisk_are_learnt() {
    let lan = Lan::new(&["a", "b", "c"]);
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::new(dir.path());
    lan.ip("a", &format!("addr add {VIP}/24 dev eth0"));
    let mut asterisk = start(&lan, dir.path(), &certificate);
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
                watch.until("a call of two legs", |w| w.table.calls().any(|c| c.legs.len() == 2)).await;
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
    // The namespace would end it too, but this way no child is left to init.
    asterisk.kill().unwrap();
    asterisk.wait().unwrap();
}
