//! A small language for one dialog between the server and a phone.
//!
//! One message a line: `S> INVITE 1 sdp=offer` is a request of the server, `P> 200 INVITE 1 sdp=answer` a response of
//! the phone. `INVITE` is the first one, `reINVITE` one inside the dialog, `ACK` that of a 2xx, `nACK` that of a
//! refusal. `wait 500` lets milliseconds pass. Options: `sdp=name`, `tag=` (of the answering side), `ftag=` (of the
//! calling side), `contact=uri`, `rr=a,b` (Record-Route), `route=a,b`, `uri=`, `vias=n`, `branch=`, `se=`
//! (Session-Expires), `rseq=`, `rack=`, `at=ip:port` (the phone's address), `over=tcp`, `h=Name:value`.

use crate::calls::model::{Gap, Leg, LegState};
use crate::calls::tracker::{LegEvent, Tracked, Tracker, TrackerSettings};
use crate::sip::Transport;
use crate::time::Time;
use crate::wire::Packet;
use std::fmt::Write as _;
use std::time::Duration;

pub(super) const VIP: &str = "10.0.0.100:5060";
pub(super) const PHONE: &str = "10.0.0.1:5060";

/// A message in transit.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) by_server: bool,
    pub(super) phone: String,
    pub(super) transport: Transport,
    pub(super) text: String,
}

pub(super) struct Scene {
    pub(super) tracker: Tracker,
    pub(super) now: Time,
    /// Whether the server sends the first INVITE.
    pub(super) calls_out: bool,
    pub(super) call_id: String,
}

pub(super) fn settings() -> TrackerSettings {
    TrackerSettings {
        vips: vec!["10.0.0.100".parse().unwrap(), "2001:db8::100".parse().unwrap()],
        sip_ports: vec![5060],
        advertised: crate::sip::advertised::Advertised::default(),
        pair_header: None,
        emergency: Vec::new(),
        max_legs: 1000,
        one_sided: false,
    }
}

/// The server calls the phone.
pub(super) fn outbound() -> Scene {
    Scene { tracker: Tracker::new(settings()), now: Time::from_millis(1000), calls_out: true, call_id: "call".into() }
}

/// The phone calls the server.
pub(super) fn inbound() -> Scene {
    Scene { calls_out: false, ..outbound() }
}

/// The body that a script calls `name`. Options, each after a `~`: `v3` (version), `p4002` (port), a direction, `zero`
/// (the old hold), `g722`, `video`, `t38`.
pub(super) fn sdp(name: &str) -> String {
    let (mut version, mut port, mut direction, mut host, mut codec, mut more) = ("1", "4000", "", "10.0.0.1", "0", "");
    for word in name.split('~').skip(1) {
        match word {
            "sendonly" | "recvonly" | "inactive" | "sendrecv" => direction = word,
            "zero" => host = "0.0.0.0",
            "g722" => codec = "9",
            "video" => more = "m=video 4010 RTP/AVP 34\r\n",
            "t38" => (port, more) = ("0", "m=image 4020 udptl t38\r\n"),
            _ if word.starts_with('v') => version = &word[1..],
            _ => port = &word[1..],
        }
    }
    let direction = if direction.is_empty() { String::new() } else { format!("a={direction}\r\n") };
    format!(
        "v=0\r\no=- 7 {version} IN IP4 10.0.0.1\r\ns={name}\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio {port} RTP/AVP {codec}\r\n{direction}{more}"
    )
}

/// One line of a script as a message.
pub(super) fn message(line: &str, calls_out: bool, call_id: &str) -> Sent {
    let (who, rest) = line.split_once("> ").unwrap_or_else(|| panic!("no sender in {line:?}"));
    let by_server = who == "S";
    let mut words = rest.split_whitespace();
    let first = words.next().unwrap();
    let code: Option<u16> = first.parse().ok();
    let written = if code.is_some() { words.next().unwrap() } else { first };
    let cseq = words.next().unwrap();
    let method = written.trim_start_matches("re").trim_start_matches('n');
    let options: Vec<(&str, &str)> =
        words.map(|w| w.split_once('=').unwrap_or_else(|| panic!("{w:?} in {line:?}"))).collect();
    let option = |name: &str| options.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);

    let asker_is_server = by_server == code.is_none();
    let asker_calls = asker_is_server == calls_out;
    let bare = code.is_none() && matches!(written, "INVITE" | "CANCEL") || code == Some(100) && written == "INVITE";
    let far = option("tag").unwrap_or("e");
    let near = format!("<sip:caller@example.org>;tag={}", option("ftag").unwrap_or("c"));
    let far = if bare { "<sip:callee@example.org>".to_owned() } else { format!("<sip:callee@example.org>;tag={far}") };
    let (from, to) = if asker_calls { (near, far) } else { (far, near) };
    let side = if asker_is_server { "s" } else { "p" };
    let own = match written {
        "ACK" => format!("z9hG4bK-{side}-{cseq}-ack"),
        "INVITE" | "reINVITE" | "CANCEL" | "nACK" => format!("z9hG4bK-{side}-{cseq}"),
        _ => format!("z9hG4bK-{side}-{cseq}-{method}"),
    };
    let branch = option("branch").map_or(own, |b| format!("z9hG4bK-{b}"));
    let phone = option("at").unwrap_or(PHONE).to_owned();
    let vip = if phone.starts_with('[') { "[2001:db8::100]:5060" } else { VIP };
    let default_uri = if by_server { format!("sip:phone@{phone}") } else { format!("sip:server@{vip}") };
    let uri = option("uri").map_or(default_uri, str::to_owned);

    let mut text = match code {
        Some(code) => format!("SIP/2.0 {code} X\r\n"),
        None => format!("{method} {uri} SIP/2.0\r\n"),
    };
    write!(text, "Via: SIP/2.0/UDP x;branch={branch}\r\n").unwrap();
    for n in 1..option("vias").map_or(1, |v| v.parse().unwrap()) {
        write!(text, "Via: SIP/2.0/UDP y{n};branch=z9hG4bK-far\r\n").unwrap();
    }
    write!(text, "From: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n").unwrap();
    let mut list = |header: &str, name: &str| {
        for value in option(name).into_iter().flat_map(|v| v.split(',')) {
            write!(text, "{header}: <{value}>\r\n").unwrap();
        }
    };
    list("Record-Route", "rr");
    list("Route", "route");
    let names_itself = matches!(method, "INVITE" | "UPDATE") && code.is_none_or(|c| (101..300).contains(&c));
    match option("contact") {
        Some("none") => {}
        Some(uri) => write!(text, "Contact: <{uri}>\r\n").unwrap(),
        None if names_itself && by_server => write!(text, "Contact: <sip:server@{vip}>\r\n").unwrap(),
        None if names_itself => write!(text, "Contact: <sip:phone@{phone}>\r\n").unwrap(),
        None => {}
    }
    for (name, header) in [("se", "Session-Expires"), ("rseq", "RSeq"), ("rack", "RAck")] {
        if let Some(value) = option(name) {
            let value = if name == "rack" { format!("1 {value} INVITE") } else { value.to_owned() };
            write!(text, "{header}: {value}\r\n").unwrap();
        }
    }
    for (_, header) in options.iter().filter(|(n, _)| *n == "h") {
        let (name, value) = header.split_once(':').unwrap();
        write!(text, "{name}: {value}\r\n").unwrap();
    }
    match option("sdp") {
        Some(name) => {
            let body = sdp(name);
            write!(text, "Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
        None => text.push_str("Content-Length: 0\r\n\r\n"),
    }
    let transport = match option("over") {
        Some("tcp") => Transport::Tcp,
        Some("tls") => Transport::Tls,
        Some("ws") => Transport::Ws,
        _ => Transport::Udp,
    };
    Sent { by_server, phone, transport, text }
}

impl Scene {
    pub(super) fn hear(&mut self, sent: &Sent) {
        let phone = sent.phone.parse().unwrap();
        let vip = if sent.phone.starts_with('[') { "[2001:db8::100]:5060" } else { VIP }.parse().unwrap();
        let (src, dst) = if sent.by_server { (vip, phone) } else { (phone, vip) };
        let p = Packet { src, dst, transport: sent.transport, payload: sent.text.as_bytes() };
        self.tracker.handle_packet(&p, 1_700_000_000_000, self.now);
    }

    /// Plays a script.
    pub(super) fn play(&mut self, lines: &str) -> &mut Self {
        for line in lines.lines().map(str::trim).filter(|l| !l.is_empty()) {
            match line.strip_prefix("wait ") {
                Some(ms) => self.wait(ms.parse().unwrap()),
                None => {
                    let sent = message(line, self.calls_out, &self.call_id);
                    self.hear(&sent);
                }
            }
        }
        self
    }

    pub(super) fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.tracker.handle_timeout(self.now);
    }

    /// INVITE with an offer, ringing, answer, ACK.
    pub(super) fn up(&mut self) -> &mut Self {
        self.play(if self.calls_out {
            "S> INVITE 1 sdp=offer
             P> 180 INVITE 1
             P> 200 INVITE 1 sdp=answer
             S> ACK 1"
        } else {
            "P> INVITE 1 sdp=offer
             S> 180 INVITE 1
             S> 200 INVITE 1 sdp=answer
             P> ACK 1"
        })
    }

    /// The confirmed legs.
    pub(super) fn all_up(&self) -> Vec<&Tracked> {
        let mut up: Vec<_> = self.tracker.legs().filter(|t| t.leg.state == LegState::Confirmed).collect();
        up.sort_by(|a, b| {
            (&a.leg.call_id.0[..], &a.leg.remote_tag.0[..]).cmp(&(&b.leg.call_id.0[..], &b.leg.remote_tag.0[..]))
        });
        up
    }

    /// The only leg, which is confirmed.
    pub(super) fn leg(&self) -> &Leg {
        match self.all_up()[..] {
            [one] => &one.leg,
            ref all => panic!("{} legs are up", all.len()),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        !self.all_up().is_empty()
    }

    /// Names of the descriptions in force: sent to the phone, and received from it.
    pub(super) fn session(&self) -> (String, String) {
        let leg = self.leg();
        (name(leg.sdp_sent.as_ref()), name(leg.sdp_received.as_ref()))
    }

    pub(super) fn gaps(&self) -> Vec<Gap> {
        let leg = self.leg();
        assert_eq!(leg.partial, !leg.gaps.is_empty());
        leg.gaps.iter().collect()
    }

    pub(super) fn cseqs(&self) -> (Option<u32>, Option<u32>) {
        (self.leg().local_cseq, self.leg().remote_cseq)
    }

    pub(super) fn target(&self) -> String {
        self.leg().remote_target.lossy()
    }

    pub(super) fn routes(&self) -> Vec<String> {
        self.leg().route_set.iter().map(crate::calls::model::Verbatim::lossy).collect()
    }

    /// The events since the last call, in words.
    pub(super) fn told(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.tracker.poll_event())
            .map(|e| match e {
                LegEvent::Started(_) => "started".to_owned(),
                LegEvent::Confirmed(_) => "confirmed".to_owned(),
                LegEvent::Changed(_) => "changed".to_owned(),
                LegEvent::Ended(_, why) => format!("ended: {why}"),
            })
            .collect()
    }
}

fn name(sdp: Option<&crate::calls::model::Sdp>) -> String {
    let body = sdp.map(|s| s.body.lossy()).unwrap_or_default();
    body.lines().find_map(|l| l.strip_prefix("s=")).unwrap_or("-").to_owned()
}
