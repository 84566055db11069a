//! The words of phones, trunks, Asterisk and FreeSWITCH: header sets and lengths as these send them.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// The sender of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Phone,
    Server,
}

/// The other end of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Phone,
    /// Proxies of a carrier, which record-route.
    Trunk,
}

const REALM: &str = "pbx.example.net";

/// One dialog between the server and a party.
pub(crate) struct Dialog {
    n: usize,
    /// Whether the server is the caller.
    out: bool,
    kind: Kind,
    pub(crate) phone: SocketAddr,
    server: SocketAddr,
    call_id: String,
    from: String,
    to: String,
    to_tag: String,
    /// Request URI of the first INVITE.
    uri: String,
    /// Contacts, as URIs.
    phone_uri: String,
    server_uri: String,
}

/// A number that looks random, and is the same in each run.
fn scrambled(n: usize, salt: u64) -> u64 {
    let mut z = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(salt.wrapping_mul(0xbf58_476d_1ce4_e5b9));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn uuid(n: usize, salt: u64) -> String {
    let (a, b) = (scrambled(n, salt), scrambled(n, salt + 1));
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xffff,
        b >> 48,
        b & 0xffff_ffff_ffff
    )
}

/// Numbers of caller and called party: no two calls of a run share one.
fn numbers(n: usize) -> (String, String) {
    (format!("4930{:07}", 1_000_000 + n), format!("4989{:07}", 2_000_000 + n))
}

impl Dialog {
    pub(crate) fn new(n: usize, out: bool, kind: Kind, phone: SocketAddr, server: SocketAddr) -> Self {
        let (caller, called) = numbers(n);
        let salt = if out { 20 } else { 10 };
        let (ip, port) = (server.ip(), server.port());
        let asterisk = n.is_multiple_of(2);
        let server_uri = match (asterisk, out) {
            (true, _) => format!("sip:asterisk@{ip}:{port}"),
            (false, true) => format!("sip:mod_sofia@{ip}:{port}"),
            (false, false) => format!("sip:{called}@{ip}:{port};transport=udp"),
        };
        let tag = |salt: u64| format!("{:016x}", scrambled(n, salt));
        let (from, to, uri, phone_uri) = if out {
            (
                format!(
                    "\"Extension {caller}\" <sip:{caller}@{ip}>;tag={}",
                    if asterisk { uuid(n, 31) } else { tag(31) }
                ),
                format!("<sip:{called}@{phone}>"),
                format!("sip:{called}@{phone};line={:x}", scrambled(n, 32) & 0xffff_ffff),
                format!("sip:{called}@{phone};line={:x}", scrambled(n, 32) & 0xffff_ffff),
            )
        } else {
            (
                format!("\"Extension {caller}\" <sip:{caller}@{REALM}>;tag={}", tag(33)),
                format!("<sip:{called}@{REALM};user=phone>"),
                format!("sip:{called}@{REALM};user=phone"),
                format!("sip:{caller}@{phone}"),
            )
        };
        Self {
            n,
            out,
            kind,
            phone,
            server,
            call_id: if out { uuid(n, salt) } else { format!("{:x}@{}", scrambled(n, salt), phone.ip()) },
            from,
            to,
            to_tag: if out { tag(34) } else { uuid(n, 35) },
            uri,
            phone_uri,
            server_uri,
        }
    }

    /// The audio address in the description of either side: even ports of the media range.
    pub(crate) fn media(n: usize, out: bool, by: By, ip: std::net::IpAddr) -> SocketAddr {
        // The server has four ports for a call. The phones have other addresses, and may use the same ports.
        let slot = u16::try_from(n % 2400).unwrap_or(0);
        let leg = if out { 2 } else { 0 };
        let base = if by == By::Server { 10_000 } else { 20_000 };
        SocketAddr::new(ip, base + slot * 4 + leg)
    }

    fn caller_is(&self, by: By) -> bool {
        (by == By::Server) == self.out
    }

    fn contact(&self, by: By) -> String {
        match by {
            By::Phone => format!("<{}>", self.phone_uri),
            By::Server => format!("<{}>", self.server_uri),
        }
    }

    fn branch(&self, method: &str, cseq: u32) -> String {
        let method = method.bytes().fold(7, |h: u64, b| h * 31 + u64::from(b));
        format!("z9hG4bKPj{}", uuid(self.n, 100 + u64::from(cseq) * 7 + method + u64::from(self.out)))
    }

    /// The Via lines of a request.
    fn via(&self, by: By, method: &str, cseq: u32) -> String {
        let branch = self.branch(method, cseq);
        match (by, self.kind) {
            (By::Server, _) => format!("Via: SIP/2.0/UDP {};rport;branch={branch}\r\n", self.server),
            (By::Phone, Kind::Phone) => {
                format!("Via: SIP/2.0/UDP {0};branch={branch};rport={1}\r\n", self.phone, self.phone.port())
            }
            (By::Phone, Kind::Trunk) => format!(
                "Via: SIP/2.0/UDP {0};branch={branch}.1\r\nVia: SIP/2.0/UDP 198.51.100.7:5060;received=198.51.100.7;branch={branch}.0;i=81a3\r\n",
                self.phone
            ),
        }
    }

    /// The Record-Route lines of the first INVITE and its answers.
    fn record_route(&self) -> String {
        if self.kind == Kind::Phone {
            return String::new();
        }
        format!(
            "Record-Route: <sip:{};lr;ftag={:x};did=4c1.7a2>\r\nRecord-Route: <sip:198.51.100.7;lr;ftag={:x}>\r\n",
            self.phone,
            scrambled(self.n, 33),
            scrambled(self.n, 33)
        )
    }

    /// From and To of a request by `by`.
    fn sides(&self, by: By, to_tag: bool) -> (String, String) {
        let far = if to_tag { format!("{};tag={}", self.to, self.to_tag) } else { self.to.clone() };
        if self.caller_is(by) { (self.from.clone(), far) } else { (far, self.from.clone()) }
    }

    /// Digest credentials of the phone.
    pub(crate) fn credentials(&self, method: &str) -> String {
        let (caller, _) = numbers(self.n);
        credentials("Authorization", &caller, &self.uri, method, self.n)
    }

    /// A request outside of a dialog, such as the first INVITE.
    pub(crate) fn request(&self, by: By, method: &str, cseq: u32, more: &str, sdp: bool) -> (By, String) {
        let (from, to) = self.sides(by, false);
        let mut t = format!("{method} {} SIP/2.0\r\n{}", self.uri, self.via(by, method, cseq));
        if by == By::Phone {
            t += &self.record_route();
        }
        let _ = write!(
            t,
            "From: {from}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n",
            self.call_id
        );
        t += more;
        self.offer_headers(&mut t, by);
        self.body(&mut t, by, sdp, 0);
        (by, t)
    }

    /// A request within the dialog.
    pub(crate) fn within(&self, by: By, method: &str, cseq: u32, more: &str, sdp: bool) -> (By, String) {
        let (from, to) = self.sides(by, true);
        let uri = if by == By::Phone { &self.server_uri } else { &self.phone_uri };
        let mut t = format!("{method} {uri} SIP/2.0\r\n{}", self.via(by, method, cseq));
        if by == By::Server && self.kind == Kind::Trunk {
            let _ = write!(
                t,
                "Route: <sip:{};lr;ftag={:x};did=4c1.7a2>\r\nRoute: <sip:198.51.100.7;lr;ftag={:x}>\r\n",
                self.phone,
                scrambled(self.n, 33),
                scrambled(self.n, 33)
            );
        }
        let _ = write!(
            t,
            "From: {from}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n",
            self.call_id
        );
        t += more;
        if method == "INVITE" {
            self.offer_headers(&mut t, by);
        } else {
            let _ = write!(t, "User-Agent: {}\r\n", self.product(by));
        }
        self.body(&mut t, by, sdp, cseq);
        (by, t)
    }

    /// A response by `by` to request `cseq method` of the other side.
    pub(crate) fn response(&self, by: By, code: u16, method: &str, cseq: u32, sdp: bool) -> (By, String) {
        let asker = if by == By::Phone { By::Server } else { By::Phone };
        let (from, to) = self.sides(asker, code > 100);
        let first = method == "INVITE" && self.caller_is(asker) && !(self.out && cseq > 1);
        let reason = match code {
            100 => "Trying",
            180 => "Ringing",
            200 => "OK",
            _ => "Unauthorized",
        };
        let mut t = format!("SIP/2.0 {code} {reason}\r\n{}", self.via(asker, method, cseq));
        if first && code > 100 {
            t += &self.record_route();
        }
        let _ = write!(t, "From: {from}\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n", self.call_id);
        if code == 100 || method == "BYE" {
            let _ = write!(t, "User-Agent: {}\r\n", self.product(by));
        } else {
            self.offer_headers(&mut t, by);
        }
        self.body(&mut t, by, sdp, cseq);
        (by, t)
    }

    /// The server's challenge.
    pub(crate) fn refused(&self, code: u16, cseq: u32) -> (By, String) {
        let (from, to) = self.sides(By::Phone, false);
        let mut t = format!(
            "SIP/2.0 {code} Unauthorized\r\n{}From: {from}\r\nTo: {to};tag={:x}\r\nCall-ID: {}\r\nCSeq: {cseq} INVITE\r\n",
            self.via(By::Phone, "INVITE", cseq),
            scrambled(self.n, 40),
            self.call_id
        );
        challenge(&mut t, self.n);
        let _ = write!(t, "Server: {}\r\nContent-Length: 0\r\n\r\n", self.product(By::Server));
        (By::Server, t)
    }

    pub(crate) fn ack_of_refusal(&self, cseq: u32) -> (By, String) {
        let (from, to) = self.sides(By::Phone, false);
        let t = format!(
            "ACK {} SIP/2.0\r\n{}From: {from}\r\nTo: {to};tag={:x}\r\nCall-ID: {}\r\nCSeq: {cseq} ACK\r\nMax-Forwards: 70\r\n\
             User-Agent: {}\r\nContent-Length: 0\r\n\r\n",
            self.uri,
            self.via(By::Phone, "INVITE", cseq),
            scrambled(self.n, 40),
            self.call_id,
            self.product(By::Phone)
        );
        (By::Phone, t)
    }

    fn product(&self, by: By) -> &'static str {
        match (by, self.kind) {
            (By::Server, _) if self.n.is_multiple_of(2) => "Asterisk PBX 18.19.0",
            (By::Server, _) => "FreeSWITCH-mod_sofia/1.10.9-release+git~20230607T173314Z~13b2d81c1a~64bit",
            (By::Phone, Kind::Phone) => "Yealink SIP-T46S 66.86.0.15",
            (By::Phone, Kind::Trunk) => "Carrier SBC 7.2",
        }
    }

    fn offer_headers(&self, t: &mut String, by: By) {
        let (caller, _) = numbers(self.n);
        let _ = write!(t, "Contact: {}\r\n", self.contact(by));
        match by {
            By::Server if self.n.is_multiple_of(2) => {
                *t += "Allow: OPTIONS, REGISTER, SUBSCRIBE, NOTIFY, PUBLISH, INVITE, ACK, BYE, CANCEL, UPDATE, PRACK, INFO, MESSAGE, REFER\r\n\
                       Supported: 100rel, timer, replaces, norefersub, histinfo\r\nSession-Expires: 1800;refresher=uac\r\nMin-SE: 90\r\n";
                let _ = write!(t, "P-Asserted-Identity: \"Extension {caller}\" <sip:{caller}@{REALM}>\r\n");
            }
            By::Server => {
                *t += "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, MESSAGE, INFO, UPDATE, REGISTER, REFER, NOTIFY\r\n\
                       Supported: timer, path, replaces\r\nAllow-Events: talk, hold, conference, refer\r\n\
                       X-FS-Support: update_display,send_info\r\n";
                let _ = write!(
                    t,
                    "Remote-Party-ID: \"Extension {caller}\" <sip:{caller}@{REALM}>;party=calling;screen=yes;privacy=off\r\n"
                );
            }
            By::Phone => {
                *t += "Allow: INVITE, INFO, PRACK, ACK, BYE, CANCEL, OPTIONS, NOTIFY, REGISTER, SUBSCRIBE, REFER, PUBLISH, UPDATE, MESSAGE\r\n\
                       Supported: replaces, timer\r\nAllow-Events: talk,hold,conference,refer,check-sync\r\nSession-Expires: 1800;refresher=uac\r\n";
            }
        }
        let _ = write!(t, "User-Agent: {}\r\n", self.product(by));
    }

    fn body(&self, t: &mut String, by: By, sdp: bool, version: u32) {
        if !sdp {
            *t += "Content-Length: 0\r\n\r\n";
            return;
        }
        let ip = if by == By::Server { self.server.ip() } else { self.phone.ip() };
        let port = Self::media(self.n, self.out, by, ip).port();
        let id = scrambled(self.n, 50) & 0x3fff_ffff;
        let body = match by {
            By::Server => format!(
                "v=0\r\no=- {id} {} IN IP4 {ip}\r\ns=Asterisk\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\n\
                 a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=maxptime:150\r\na=sendrecv\r\n",
                id + u64::from(version)
            ),
            By::Phone => format!(
                "v=0\r\no=- {id} {} IN IP4 {ip}\r\ns=SDP data\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 9 0 8 18 101\r\n\
                 a=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:18 G729/8000\r\na=fmtp:18 annexb=no\r\n\
                 a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n",
                id + u64::from(version)
            ),
        };
        let _ = write!(t, "Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    }
}

fn challenge(t: &mut String, n: usize) {
    let _ = write!(
        t,
        "WWW-Authenticate: Digest realm=\"{REALM}\",nonce=\"{:x}/{}\",opaque=\"{:016x}\",algorithm=md5,qop=\"auth\"\r\n",
        scrambled(n, 60) & 0xffff_ffff,
        uuid(n, 61),
        scrambled(n, 62)
    );
}

fn credentials(header: &str, user: &str, uri: &str, method: &str, n: usize) -> String {
    format!(
        "{header}: Digest username=\"{user}\", realm=\"{REALM}\", nonce=\"{:x}/{}\", uri=\"{uri}\", response=\"{:016x}{:016x}\", algorithm=MD5, \
         cnonce=\"{:x}\", opaque=\"{:016x}\", qop=auth, nc=0000000{}\r\n",
        scrambled(n, 60) & 0xffff_ffff,
        uuid(n, 61),
        scrambled(n, 63),
        scrambled(n, method.len() as u64),
        scrambled(n, 64),
        scrambled(n, 62),
        1 + n % 8
    )
}

/// A registration: REGISTER, 401, REGISTER with credentials, 200.
pub(crate) fn register(n: usize, phone: SocketAddr, server: SocketAddr) -> Vec<(By, String)> {
    let (_, user) = numbers(n);
    let ask = |cseq: u32, more: &str| {
        format!(
            "REGISTER sip:{REALM}:{} SIP/2.0\r\nVia: SIP/2.0/UDP {phone};branch=z9hG4bK{:x}{cseq}\r\nFrom: \"{user}\" <sip:{user}@{REALM}>;tag={:x}\r\n\
             To: \"{user}\" <sip:{user}@{REALM}>\r\nCall-ID: 0_{:x}@{}\r\nCSeq: {cseq} REGISTER\r\nContact: <sip:{user}@{phone};line={:x}>\r\n{more}\
             Allow: INVITE, INFO, PRACK, ACK, BYE, CANCEL, OPTIONS, NOTIFY, REGISTER, SUBSCRIBE, REFER, PUBLISH, UPDATE, MESSAGE\r\n\
             Max-Forwards: 70\r\nUser-Agent: Yealink SIP-T46S 66.86.0.15\r\nExpires: 3600\r\nAllow-Events: talk,hold,conference,refer,check-sync\r\n\
             Content-Length: 0\r\n\r\n",
            server.port(),
            scrambled(n, 70),
            scrambled(n, 71),
            scrambled(n, 72),
            phone.ip(),
            scrambled(n, 73) & 0xffff_ffff
        )
    };
    let answer = |cseq: u32, line: &str, more: &str| {
        format!(
            "SIP/2.0 {line}\r\nVia: SIP/2.0/UDP {phone};rport={};received={};branch=z9hG4bK{:x}{cseq}\r\nCall-ID: 0_{:x}@{}\r\n\
             From: \"{user}\" <sip:{user}@{REALM}>;tag={:x}\r\nTo: \"{user}\" <sip:{user}@{REALM}>;tag=z9hG4bK{:x}\r\nCSeq: {cseq} REGISTER\r\n{more}\
             Server: Asterisk PBX 18.19.0\r\nContent-Length: 0\r\n\r\n",
            phone.port(),
            phone.ip(),
            scrambled(n, 70),
            scrambled(n, 72),
            phone.ip(),
            scrambled(n, 71),
            scrambled(n, 74)
        )
    };
    let mut wants = String::new();
    challenge(&mut wants, n);
    let uri = format!("sip:{REALM}");
    vec![
        (By::Phone, ask(1, "")),
        (By::Server, answer(1, "401 Unauthorized", &wants)),
        (By::Phone, ask(2, &credentials("Authorization", &user, &uri, "REGISTER", n))),
        (By::Server, answer(2, "200 OK", &format!("Contact: <sip:{user}@{phone}>;expires=3599\r\nExpires: 3600\r\n"))),
    ]
}

/// The server qualifies a phone.
pub(crate) fn options(n: usize, phone: SocketAddr, server: SocketAddr) -> Vec<(By, String)> {
    let (_, user) = numbers(n);
    let id = uuid(n, 80);
    let common = format!(
        "Via: SIP/2.0/UDP {server};rport;branch=z9hG4bKPj{}\r\nFrom: <sip:asterisk@{}>;tag={}\r\nTo: <sip:{user}@{phone}>",
        uuid(n, 81),
        server.ip(),
        uuid(n, 82)
    );
    vec![
        (
            By::Server,
            format!(
                "OPTIONS sip:{user}@{phone} SIP/2.0\r\n{common}\r\nContact: <sip:asterisk@{server}>\r\nCall-ID: {id}\r\nCSeq: 4711 OPTIONS\r\n\
                 Max-Forwards: 70\r\nUser-Agent: Asterisk PBX 18.19.0\r\nContent-Length: 0\r\n\r\n"
            ),
        ),
        (
            By::Phone,
            format!(
                "SIP/2.0 200 OK\r\n{common};tag={:x}\r\nCall-ID: {id}\r\nCSeq: 4711 OPTIONS\r\nSupported: replaces, timer\r\n\
                 Allow: INVITE, INFO, PRACK, ACK, BYE, CANCEL, OPTIONS, NOTIFY, REGISTER, SUBSCRIBE, REFER, PUBLISH, UPDATE, MESSAGE\r\n\
                 User-Agent: Yealink SIP-T46S 66.86.0.15\r\nAccept: application/sdp\r\nContent-Length: 0\r\n\r\n",
                scrambled(n, 83)
            ),
        ),
    ]
}
