//! A real Kamailio with siptrace, and real phones: over UDP with each version of HEP, and over TLS, where HEP is the
//! only source.

use super::phone::{Certificate, Phone};
use super::watch::Watch;
use keepcall::calls::model::{Call, Direction, LegState, Pairing};
use keepcall::sip::Transport;
use lab::kamailio::Kamailio;
use lab::netns::Lan;
use std::path::Path;

const KEY: &str = "a key of HEP";

/// One Kamailio: its address, and the target and version of its reports.
struct Server {
    vip: &'static str,
    version: u8,
    port: u16,
    transport: Transport,
}

const SERVERS: [Server; 4] = [
    Server { vip: "10.77.0.101", version: 1, port: 9061, transport: Transport::Udp },
    Server { vip: "10.77.0.102", version: 2, port: 9062, transport: Transport::Udp },
    Server { vip: "10.77.0.103", version: 3, port: 9063, transport: Transport::Udp },
    Server { vip: "10.77.0.104", version: 3, port: 9064, transport: Transport::Tls },
];

/// The lines of a Kamailio that reports everything to this port, as in the handbook of siptrace.
pub(super) fn siptrace(version: u8, port: u16) -> String {
    format!(
        r#"
loadmodule "siptrace.so"
modparam("siptrace", "trace_to_database", 0)
modparam("siptrace", "trace_on", 1)
modparam("siptrace", "trace_mode", 1)
modparam("siptrace", "hep_mode_on", 1)
modparam("siptrace", "hep_version", {version})
modparam("siptrace", "duplicate_uri", "sip:127.0.0.1:{port}")
"#
    )
}

impl Server {
    fn is_tls(&self) -> bool {
        self.transport == Transport::Tls
    }

    /// The address for the phones.
    fn target(&self) -> String {
        let vip = self.vip;
        if self.is_tls() { format!("{vip}:5061;transport=tls") } else { format!("{vip}:5060;transport=udp") }
    }

    /// Starts it: a proxy that stays in the path and reports everything.
    fn start(&self, lan: &Lan, dir: &Path, certificate: &Certificate) -> Kamailio {
        let (vip, port, version) = (self.vip, self.port, self.version);
        let callee = if self.is_tls() { "10.77.0.3:15063;transport=tls" } else { "10.77.0.3:15060" };
        let (cert, key) = (certificate.cert.display(), certificate.key.display());
        let (listen, tls) = match self.is_tls() {
            // Version 1.2: Kamailio 5.6 cannot do 1.3 with OpenSSL 3.0.
            true => (
                format!("enable_tls=yes\nlisten=tls:{vip}:5061\n"),
                format!(
                    "loadmodule \"tls.so\"\nmodparam(\"tls\", \"tls_method\", \"TLSv1.2\")\n\
                     modparam(\"tls\", \"certificate\", \"{cert}\")\n\
                     modparam(\"tls\", \"private_key\", \"{key}\")\nmodparam(\"tls\", \"verify_certificate\", 0)\n"
                ),
            ),
            false => Default::default(),
        };
        // The first two report from the server's own socket, as by default.
        let own = format!("127.0.0.1:{}1", port - 8000);
        let (second, from) = match version {
            3 => (
                format!("listen=udp:{own}\n"),
                format!(
                    "modparam(\"siptrace\", \"send_sock_addr\", \"sip:{own}\")\n\
                     modparam(\"siptrace\", \"auth_key\", \"{KEY}\")\n"
                ),
            ),
            _ => Default::default(),
        };
        let global = format!("listen=udp:{vip}:5060\n{second}{listen}");
        let rest = format!(
            r#"{tls}{}{from}
request_route {{
    route(DIALOG);
    record_route();
    if ($rU != "2000") {{ sl_send_reply("404", "Unknown number"); exit; }}
    $ru = "sip:2000@{callee}";
    t_relay();
}}
"#,
            siptrace(version, port)
        );
        Kamailio::start(&lan.host("a", &dir.join(port.to_string())), &global, &rest).unwrap().0
    }
}

/// An established proxied call: both dialogs, with everything that recovery and people need.
fn assert_whole(call: &Call, server: &Server, caller: &str) {
    assert_eq!((call.legs.len(), call.pairing), (2, Some(Pairing::SameDialog)), "{call:#?}");
    for leg in &call.legs {
        let (user, other) = if leg.direction == Direction::Inbound { ("1000", caller) } else { ("2000", "10.77.0.3") };
        assert_eq!((leg.state, leg.transport, leg.partial), (LegState::Confirmed, server.transport, false));
        assert_eq!(leg.local_addr.ip().to_string(), server.vip);
        assert_eq!(leg.remote_addr.ip().to_string(), other);
        let text = |v: &keepcall::calls::model::Verbatim| String::from_utf8(v.0.to_vec()).unwrap();
        assert!(text(&leg.remote).contains(user), "{leg:#?}");
        assert!(text(&leg.remote_target).contains(other), "{leg:#?}");
        assert!(!leg.local_tag.0.is_empty() && !leg.remote_tag.0.is_empty());
        // The proxy's own Record-Route entry is no hop on the way to the phone.
        assert!(leg.route_set.is_empty(), "{leg:#?}");
        let (sent, received) = (leg.sdp_sent.as_ref().unwrap(), leg.sdp_received.as_ref().unwrap());
        assert!(text(&received.body).contains(&format!("c=IN IP4 {other}\r\n")), "{leg:#?}");
        assert_ne!(sent, received);
    }
    assert_eq!(call.legs[0].sdp_received, call.legs[1].sdp_sent);
}

#[test]
fn calls_are_learnt_from_kamailio_in_each_version_and_over_tls() {
    let lan = Lan::new(&["a", "b", "c"]);
    let dir = tempfile::tempdir().unwrap();
    let certificate = Certificate::new(dir.path());
    let start = |server: &Server| {
        lan.ip("a", &format!("addr add {}/24 dev eth0", server.vip));
        server.start(&lan, dir.path(), &certificate)
    };
    let _servers = SERVERS.each_ref().map(start);
    let take = |port, server: &Server| {
        Phone::start(&lan.host("c", dir.path()), port, "2000", &server.target(), &certificate, None)
    };
    let _callees = [take(15060, &SERVERS[0]), take(15062, &SERVERS[3])];
    let ((tell, told), (stop, stopped)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let watching = std::thread::scope(|scope| {
        let lan = &lan;
        let watching = scope.spawn(move || {
            lan.block_on("a", move || async move {
                let mut watches: Vec<Watch> = SERVERS
                    .iter()
                    .map(|s| {
                        Watch::open(
                            s.vip,
                            &format!("udp:127.0.0.1:{}", s.port),
                            (s.version == 3).then_some(KEY),
                            s.port == 9063,
                        )
                    })
                    .collect();
                tell.send("listening").unwrap();
                for (watch, server) in watches.iter_mut().zip(&SERVERS) {
                    watch.until("a call of two whole legs", Watch::has_whole_call).await;
                    assert_whole(&watch.table.calls().next().unwrap(), server, "10.77.0.2");
                    tell.send("up").unwrap();
                }
                stopped.recv().unwrap();
                for watch in &mut watches {
                    watch.until("the end of the call", |w| w.table.calls().count() == 0 && w.deleted > 0).await;
                }
                watches.iter().map(|w| (w.counters(), w.puts.clone(), w.deleted, w.seen)).collect::<Vec<_>>()
            })
        });
        assert_eq!(told.recv().unwrap(), "listening");
        let host = lan.host("b", dir.path());
        let call =
            |(s, port): (&Server, u16)| Phone::start(&host, port, "1000", &s.target(), &certificate, Some("2000"));
        let callers: Vec<Phone> = SERVERS.iter().zip([14060, 14062, 14064, 14066]).map(call).collect();
        for _ in &SERVERS {
            if told.recv().is_err() {
                break;
            }
        }
        callers.iter().for_each(Phone::hang_up);
        let _ = stop.send(());
        watching.join()
    });
    let watching = watching.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    for ((hep, puts, deleted, seen), server) in watching.into_iter().zip(&SERVERS) {
        let name = format!("{} {}", server.vip, server.version);
        assert_eq!((hep.refused, hep.malformed, hep.dropped), (0, 0, 0), "{name}: {hep:?}");
        // INVITE, 100, 180, 200, ACK, BYE, 200 on both legs, at least.
        assert!(hep.received >= 12, "{name}: {hep:?}");
        // One call with one id, also if the wire shows it as well.
        assert_eq!(puts.iter().map(|c| &c.id).collect::<std::collections::BTreeSet<_>>().len(), 1, "{name}: {puts:#?}");
        assert_eq!(deleted, 1, "{name}");
        assert_eq!(seen > 0, server.port == 9063, "{name}");
    }
}
