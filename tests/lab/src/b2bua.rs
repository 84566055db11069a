//! A B2BUA as unlike Asterisk as RFC 3261 allows: odd tags, Call-IDs and Contacts, several formats, `o=` lines of its
//! own, media through sockets on the VIP. The B2BUA does not retransmit its requests, because the lab loses no packets.

mod media;

use super::lan::{Host, Lan};
use super::phone::message::{Message, Start, Writer, param, target_of, uri_of};
use super::phone::sdp::Sdp;
use anyhow::Result;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

enum Order {
    /// Send every phone a re-INVITE with a new description, then an UPDATE.
    Stir,
}

/// A running B2BUA.
pub struct B2bua {
    orders: mpsc::UnboundedSender<Order>,
    calls: Known,
}

/// What somebody who stole the server's secrets would know of a call: the dialog with the caller, and both media ports.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// Call-ID of the dialog with the caller.
    pub call_id: String,
    /// The server's From or To value in that dialog, tag included.
    pub local: String,
    /// The caller's From or To value in that dialog.
    pub remote: String,
    /// The dialog with the called party. The tag is there once the called party has answered.
    pub called: [String; 3],
    /// CSeq of the server's INVITE to the called party.
    pub called_cseq: u32,
    /// Addresses where the server receives audio: from the caller, and from the called party.
    pub media: [SocketAddr; 2],
}

type Known = Arc<std::sync::Mutex<Vec<Secrets>>>;

struct Leg {
    call_id: String,
    local: String,
    remote: String,
    target: String,
    contact: String,
    cseq: u32,
    /// Media socket on the VIP.
    at: SocketAddr,
    origin: String,
    version: u64,
    /// The direction last told to the phone, and an attribute that changes with each [`Order::Stir`].
    direction: String,
    stirred: u32,
    formats: &'static str,
    /// The INVITE that waits for the other leg's answer.
    asked: Option<(Message, SocketAddr)>,
}

struct Call {
    legs: [Leg; 2],
    media: media::Relay,
}

/// Why the server sent a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    First,
    Relayed,
    Stirred,
    Rest,
}

struct Core {
    vip: IpAddr,
    phones: HashMap<char, IpAddr>,
    sip: UdpSocket,
    calls: Vec<Call>,
    /// Call, leg and reason of each request that waits for its answer, by branch.
    open: HashMap<String, (usize, usize, Why)>,
    /// Answers to retransmitted requests, by branch and method.
    answers: HashMap<(String, String), (Vec<u8>, SocketAddr)>,
    host: Host,
    next: u32,
    known: Known,
}

impl B2bua {
    /// Starts the server on a host, on an address that the host may not have yet. Returns a pid file too: the pid of
    /// this program, in which the server is a task.
    pub fn start(lan: &Lan, host: &Host, rt: &Runtime, vip: IpAddr) -> Result<(Self, PathBuf)> {
        host.sysctl("net/ipv4/ip_nonlocal_bind", "1")?;
        host.sysctl("net/ipv6/ip_nonlocal_bind", "1")?;
        let pidfile = host.dir.join("b2bua.pid");
        std::fs::write(&pidfile, std::process::id().to_string())?;
        let _in_runtime = rt.enter();
        let sip = media::bind(host, SocketAddr::new(vip, 5060))?;
        let checks = media::bind(host, SocketAddr::from(([127, 0, 0, 1], 5060)))?;
        let (p1, p2) = (lan.host("p1")?, lan.host("p2")?);
        let ip = |h: &Host| if vip.is_ipv4() { IpAddr::from(h.ip4) } else { h.ip6.into() };
        let phones = [('1', ip(p1)), ('2', ip(p2)), ('3', ip(p1))].into_iter().collect();
        let known = Known::default();
        let core = Core {
            known: Arc::clone(&known),
            vip,
            phones,
            sip,
            calls: Vec::new(),
            open: HashMap::new(),
            answers: HashMap::new(),
            host: host.clone(),
            next: 0,
        };
        let (orders, inbox) = mpsc::unbounded_channel();
        rt.spawn(core.run(checks, inbox));
        Ok((Self { orders, calls: known }, pidfile))
    }

    /// All calls since the start.
    pub fn secrets(&self) -> Vec<Secrets> {
        self.calls.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Sends every phone a re-INVITE with a new description, and then an UPDATE.
    pub fn stir(&self) {
        // If the server has ended, the test has failed already.
        let _ = self.orders.send(Order::Stir);
    }
}

/// The host part of a URI: an IPv6 address in brackets.
fn literal(ip: IpAddr) -> String {
    if ip.is_ipv4() { ip.to_string() } else { format!("[{ip}]") }
}

impl Leg {
    fn sdp(&self) -> String {
        let (ip, port) = (self.at.ip(), self.at.port());
        let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
        format!(
            "v=0\r\no={} {} IN {family} {ip}\r\ns=a lab's session\r\ni=two words\r\nc=IN {family} {ip}\r\nb=AS:80\r\nt=0 0\r\na=x-stirred:{}\r\n\
             m=audio {port} RTP/AVP {}\r\na=rtpmap:0 PCMU/8000/1\r\n{}a=ptime:20\r\na={}\r\n",
            self.origin,
            self.version,
            self.stirred,
            self.formats,
            if self.formats.contains("101") { "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n" } else { "" },
            self.direction
        )
    }

    fn turn(&mut self, direction: &str) {
        if self.direction != direction {
            direction.clone_into(&mut self.direction);
            self.version += 1;
        }
    }
}

impl Core {
    async fn run(mut self, checks: UdpSocket, mut inbox: mpsc::UnboundedReceiver<Order>) {
        let (mut buffer, mut check) = (vec![0; 65_536], vec![0; 4096]);
        loop {
            tokio::select! {
                order = inbox.recv() => match order {
                    Some(Order::Stir) => self.stir().await,
                    None => return,
                },
                r = self.sip.recv_from(&mut buffer) => if let Ok((n, from)) = r
                    && let Ok(m) = Message::parse(&buffer[..n])
                {
                    self.hear(m, from).await;
                },
                r = checks.recv_from(&mut check) => if let Ok((n, from)) = r
                    && let Ok(m) = Message::parse(&check[..n])
                {
                    let via = m.list("via").swap_remove(0);
                    let _ = checks.send_to(&Writer::response(&m, 200, "OK", &via, Some("check")).end(None), from).await;
                },
            }
        }
    }

    fn token(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    async fn send(&self, bytes: &[u8], to: SocketAddr) {
        // The send fails while the host is cut off, as on any server.
        let _ = self.sip.send_to(bytes, to).await;
    }

    async fn hear(&mut self, m: Message, from: SocketAddr) {
        match m.start {
            Start::Response(code, _) => self.hear_response(&m, code).await,
            Start::Request(..) => self.hear_request(m, from).await,
        }
    }

    fn find(&self, m: &Message) -> Option<(usize, usize)> {
        let (local, remote) = (param(m.get("to")?, "tag")?, param(m.get("from")?, "tag")?);
        let fits = |l: &Leg| {
            l.call_id == m.call_id()
                && param(&l.local, "tag").as_ref() == Some(&local)
                && param(&l.remote, "tag").as_ref() == Some(&remote)
        };
        self.calls.iter().enumerate().find_map(|(i, c)| Some((i, c.legs.iter().position(fits)?)))
    }

    async fn hear_request(&mut self, m: Message, from: SocketAddr) {
        let (method, branch) = (m.method(), m.branch().unwrap_or_default());
        if let Some((bytes, to)) = self.answers.get(&(branch, method.clone())) {
            return self.send(bytes, *to).await;
        }
        let has_tag = m.get("to").and_then(|t| param(t, "tag")).is_some();
        match (method.as_str(), self.find(&m)) {
            ("ACK", _) => {}
            ("INVITE", None) if !has_tag => self.new_call(m, from).await,
            (_, None) => self.answer(&m, from, 481, None).await,
            ("INVITE", Some((call, leg))) => {
                let Ok(sdp) = Sdp::parse(&m.body) else { return self.answer(&m, from, 488, None).await };
                let this = &mut self.calls[call].legs[leg];
                if let Some(contact) = m.list("contact").first() {
                    this.target = uri_of(contact);
                }
                this.asked = Some((m, from));
                self.calls[call].media.send_to(leg, sdp.audio);
                let other = &mut self.calls[call].legs[1 - leg];
                other.turn(&sdp.direction);
                let body = other.sdp();
                self.request(call, 1 - leg, "INVITE", Some(&body), Why::Relayed).await;
            }
            ("BYE", Some((call, leg))) => {
                self.answer(&m, from, 200, None).await;
                self.request(call, 1 - leg, "BYE", None, Why::Rest).await;
            }
            ("OPTIONS" | "INFO" | "UPDATE", Some((call, leg))) => {
                let contact = self.calls[call].legs[leg].contact.clone();
                self.respond(&m, from, 200, None, &contact).await;
            }
            _ => self.answer(&m, from, 501, None).await,
        }
    }

    async fn new_call(&mut self, m: Message, from: SocketAddr) {
        let uri = match &m.start {
            Start::Request(_, uri) => uri.clone(),
            Start::Response(..) => return,
        };
        let number = uri.trim_start_matches("sip:").split('@').next().unwrap_or_default().to_owned();
        let phone = number.chars().next().and_then(|c| self.phones.get(&c)).zip(number.parse::<u16>().ok());
        let (Some((ip, digits)), Ok(sdp)) = (phone, Sdp::parse(&m.body)) else {
            return self.answer(&m, from, 404, None).await;
        };
        let to = SocketAddr::new(*ip, digits + 10_000);
        let n = self.token();
        let host = literal(self.vip);
        let place = |leg: u32| SocketAddr::new(self.vip, u16::try_from(10_000 + 4 * n + 2 * leg).unwrap_or(10_000));
        let caller = m.get("from").map(uri_of).unwrap_or_default();
        let user = caller.trim_start_matches("sip:").split(['@', ';']).next().unwrap_or_default().to_owned();
        let name = if n.is_multiple_of(2) { r#""Anlage \"K\", <intern>;tag=no" "# } else { "Lab B2BUA " };
        let legs = [
            Leg {
                call_id: m.call_id().to_owned(),
                local: format!("{};tag=as%7e.~!*_+`'{n}", m.get("to").unwrap_or_default()),
                remote: m.get("from").unwrap_or_default().to_owned(),
                target: m.list("contact").first().map(|c| uri_of(c)).unwrap_or_default(),
                contact: format!(
                    r#""The, B2BUA" <sip:leg-{n};x=%40@{host}:5060;line={n}>;isfocus;methods="INVITE, BYE""#
                ),
                cseq: 7000,
                at: place(0),
                origin: format!("lab.b2bua 18446744073{n:09}"),
                version: 41,
                direction: "sendrecv".into(),
                stirred: 0,
                formats: "0",
                asked: None,
            },
            Leg {
                call_id: format!(r#"k(1)<{n}>:\"q"/[z]?{{}}~%@{host}"#),
                local: format!("{name}<sip:{user}@{host}>;tag=z-{n}"),
                remote: format!("<sip:{number}@{host};user=phone>"),
                target: format!("sip:{number}@{to}"),
                contact: format!("<sip:{host}:5060;n={n}>"),
                cseq: 2_000_000_000 + n,
                at: place(1),
                origin: format!("- {}", 1000 + n),
                version: 3_900_000_000,
                direction: "sendrecv".into(),
                stirred: 0,
                formats: "0 101",
                asked: None,
            },
        ];
        let Ok(media) = media::Relay::start(&self.host, [legs[0].at, legs[1].at]) else {
            return self.answer(&m, from, 500, None).await;
        };
        media.send_to(0, sdp.audio);
        let [caller, called] = &legs;
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(Secrets {
            call_id: caller.call_id.clone(),
            local: caller.local.clone(),
            remote: caller.remote.clone(),
            called: [called.call_id.clone(), called.local.clone(), called.remote.clone()],
            called_cseq: called.cseq + 1,
            media: [caller.at, called.at],
        });
        self.answer(&m, from, 100, None).await;
        let body = legs[1].sdp();
        self.calls.push(Call { legs, media });
        let call = self.calls.len() - 1;
        self.calls[call].legs[0].asked = Some((m, from));
        self.request(call, 1, "INVITE", Some(&body), Why::First).await;
    }

    async fn request(&mut self, call: usize, leg: usize, method: &str, sdp: Option<&str>, why: Why) {
        let branch = format!("z9hG4bK.{}~{leg}", self.token());
        let l = &mut self.calls[call].legs[leg];
        l.cseq += 1;
        let cseq = l.cseq;
        self.open.insert(branch.clone(), (call, leg, why));
        self.write(call, leg, method, cseq, &branch, sdp).await;
    }

    async fn write(&self, call: usize, leg: usize, method: &str, cseq: u32, branch: &str, sdp: Option<&str>) {
        let l = &self.calls[call].legs[leg];
        let Some(to) = target_of(&l.target) else { return };
        let mut w = Writer::request(method, &l.target);
        w.header("Via", &format!("SIP/2.0/UDP {};rport;branch={branch}", SocketAddr::new(self.vip, 5060)));
        w.header("Max-Forwards", "69");
        w.header("From", &l.local);
        w.header("To", &l.remote);
        w.header("Call-ID", &l.call_id);
        w.header("CSeq", &format!("{cseq} {method}"));
        if method == "INVITE" || method == "UPDATE" {
            w.header("Contact", &l.contact);
        }
        let bytes = w.end(sdp);
        self.send(&bytes, to).await;
    }

    async fn answer(&mut self, m: &Message, from: SocketAddr, code: u16, sdp: Option<&str>) {
        self.respond(m, from, code, sdp, "").await;
    }

    async fn respond(&mut self, m: &Message, from: SocketAddr, code: u16, sdp: Option<&str>, contact: &str) {
        let Some((via, to)) = super::phone::answer_route(m, from) else { return };
        let local = self.find(m).or_else(|| {
            let asked = |l: &Leg| l.asked.as_ref().is_some_and(|(a, _)| a.call_id() == m.call_id());
            self.calls.iter().enumerate().find_map(|(i, c)| Some((i, c.legs.iter().position(asked)?)))
        });
        let tag =
            local.and_then(|(c, l)| param(&self.calls[c].legs[l].local, "tag")).unwrap_or_else(|| "none".to_owned());
        let mut w = Writer::response(m, code, "As You Like", &via, (code > 100).then_some(&tag));
        if !contact.is_empty() {
            w.header("Contact", contact);
        }
        let bytes = w.end(sdp);
        self.send(&bytes, to).await;
        if code >= 200 {
            self.answers.insert((m.branch().unwrap_or_default(), m.method()), (bytes, to));
        }
    }

    async fn hear_response(&mut self, m: &Message, code: u16) {
        let branch = m.branch().unwrap_or_default();
        let Some(&(call, leg, why)) = self.open.get(&branch) else { return };
        let method = m.method();
        if code < 200 {
            if why == Why::First
                && let Some((invite, from)) = self.calls[call].legs[0].asked.clone()
            {
                self.answer(&invite, from, code.max(180), None).await;
            }
            return;
        }
        self.open.remove(&branch);
        if method != "INVITE" {
            return;
        }
        let (cseq, _) = m.cseq().unwrap_or_default();
        let l = &mut self.calls[call].legs[leg];
        m.get("to").unwrap_or_default().clone_into(&mut l.remote);
        if why == Why::First {
            let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            l.remote.clone_into(&mut known[call].called[2]);
        }
        if code >= 300 {
            return self.write(call, leg, "ACK", cseq, &branch, None).await;
        }
        if let Some(contact) = m.list("contact").first() {
            l.target = uri_of(contact);
        }
        let ack = format!("z9hG4bKack{}", self.token());
        self.write(call, leg, "ACK", cseq, &ack, None).await;
        let sdp = Sdp::parse(&m.body).ok();
        self.calls[call].media.send_to(leg, sdp.as_ref().and_then(|s| s.audio));
        let direction = sdp.map_or_else(|| "sendrecv".to_owned(), |s| s.direction);
        if why == Why::Stirred {
            self.request(call, leg, "UPDATE", None, Why::Rest).await;
        } else if let Some((invite, from)) = self.calls[call].legs[1 - leg].asked.take() {
            // The server relays what this phone does to the other phone.
            self.calls[call].legs[1 - leg].turn(&direction);
            let (body, contact) =
                (self.calls[call].legs[1 - leg].sdp(), self.calls[call].legs[1 - leg].contact.clone());
            self.calls[call].legs[1 - leg].asked = Some((invite.clone(), from));
            self.respond(&invite, from, 200, Some(&body), &contact).await;
            self.calls[call].legs[1 - leg].asked = None;
        }
    }

    async fn stir(&mut self) {
        for call in 0..self.calls.len() {
            for leg in 0..2 {
                let l = &mut self.calls[call].legs[leg];
                l.stirred += 1;
                l.version += 1;
                let body = l.sdp();
                self.request(call, leg, "INVITE", Some(&body), Why::Stirred).await;
            }
        }
    }
}

/// Both halves of a relay share the value.
type Targets = Arc<std::sync::Mutex<[Option<SocketAddr>; 2]>>;
