//! Phones that share one socket and one number: any number of calls, transfers, and answers held back on demand.

use anyhow::{Context, Result};
use keepcall::sip::build::Builder;
use keepcall::sip::message::{Message, Method, Start};
use lab::lan::{Host, VIP4};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One call of these phones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
    pub(crate) call_id: String,
    /// The header from the dial plan: Call-ID of the leg for which the server made this call.
    pub(crate) truth: String,
    pub(crate) up: bool,
    pub(crate) over: bool,
    /// The latest report on a transfer requested here: a status line.
    pub(crate) transferred: String,
    local: String,
    remote: String,
    target: String,
    cseq: u32,
    /// The INVITE still without an answer.
    open: Option<Vec<u8>>,
}

#[derive(Default)]
struct Inner {
    calls: Vec<Call>,
    /// Answer once this many ring.
    hold_for: usize,
    next: u32,
}

/// The phones.
pub(crate) struct Phones {
    socket: Arc<UdpSocket>,
    at: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn sdp(at: SocketAddr, n: u32) -> String {
    let ip = at.ip();
    format!("v=0\r\no=- {n} 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {} RTP/AVP 0\r\n", 20_000 + 2 * n)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Phones {
    pub(crate) fn start(host: &Host, port: u16) -> Result<Self> {
        let at = SocketAddr::from((host.ip4, port));
        let socket = Arc::new(host.enter(move || UdpSocket::bind(at).context("SIP port of the phones"))?);
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (inner, stop) = (Arc::new(Mutex::new(Inner::default())), Arc::new(AtomicBool::new(false)));
        let me = (socket.clone(), inner.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let (socket, inner, stop) = me;
            let mut buffer = vec![0; 65_536];
            while !stop.load(Ordering::Relaxed) {
                let Ok((n, _)) = socket.recv_from(&mut buffer) else { continue };
                let Ok(m) = Message::parse(&buffer[..n]) else { continue };
                let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
                for out in inner.hear(&m, at) {
                    let _ = socket.send_to(&out, (VIP4, 5060));
                }
            }
        });
        Ok(Self { socket, at, inner, stop, thread: Some(thread) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.inner().calls.clone()
    }

    /// The number of established calls.
    pub(crate) fn up(&self) -> usize {
        self.inner().calls.iter().filter(|c| c.up && !c.over).count()
    }

    /// From now on, answers all calls at once when this many ring.
    pub(crate) fn answer_in_bundles_of(&self, n: usize) {
        self.inner().hold_for = n;
    }

    fn send(&self, bytes: &[u8]) {
        let _ = self.socket.send_to(bytes, (VIP4, 5060));
    }

    /// Calls `to` as `from`; returns the Call-ID.
    pub(crate) fn call(&self, from: &str, to: &str) -> String {
        let mut inner = self.inner();
        inner.next += 1;
        let (n, at) = (inner.next, self.at);
        let uri = format!("sip:{to}@{VIP4}");
        let call = Call {
            call_id: format!("call{n}-{}", self.at.ip()),
            local: format!("<sip:{from}@{at}>;tag=c{n}"),
            remote: format!("<{uri}>"),
            target: uri,
            cseq: 1,
            ..Call::default()
        };
        let id = call.call_id.clone();
        let invite = call.request("INVITE", at).header("Contact", format!("<sip:{from}@{at}>"));
        let bytes = invite.body("application/sdp", sdp(at, n).as_bytes()).build();
        inner.calls.push(call);
        drop(inner);
        self.send(&bytes);
        id
    }

    fn in_dialog(&self, call_id: &str, method: &str, more: &[(&str, String)]) -> Result<()> {
        let mut inner = self.inner();
        let call = inner.calls.iter_mut().find(|c| c.call_id == call_id).context("no such call")?;
        call.cseq += 1;
        let mut request = call.request(method, self.at).header("Contact", format!("<sip:phone@{}>", self.at));
        for (name, value) in more {
            request = request.header(name, value);
        }
        let bytes = request.build();
        drop(inner);
        self.send(&bytes);
        Ok(())
    }

    pub(crate) fn hang_up(&self, call_id: &str) -> Result<()> {
        self.in_dialog(call_id, "BYE", &[])
    }

    /// Transfers the other party of a call to this number.
    pub(crate) fn transfer(&self, call_id: &str, to: &str) -> Result<()> {
        self.in_dialog(call_id, "REFER", &[("Refer-To", format!("<sip:{to}@{VIP4}>"))])
    }

    /// Joins the other parties of two calls (RFC 3891, RFC 5589 section 7).
    pub(crate) fn join(&self, call_id: &str, other: &str) -> Result<()> {
        let all = self.calls();
        let with = all.iter().find(|c| c.call_id == other).context("no such call")?;
        let tag = |v: &str| v.rsplit_once(";tag=").map(|(_, t)| t.to_owned()).unwrap_or_default();
        let escaped = |v: &str| v.replace('@', "%40").replace(':', "%3A");
        let replaces = format!(
            "{}%3Bto-tag%3D{}%3Bfrom-tag%3D{}",
            escaped(&with.call_id),
            escaped(&tag(&with.remote)),
            escaped(&tag(&with.local))
        );
        self.in_dialog(call_id, "REFER", &[("Refer-To", format!("<sip:x@{VIP4}?Replaces={replaces}>"))])
    }
}

impl Drop for Phones {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

impl Call {
    fn request(&self, method: &str, at: SocketAddr) -> Builder {
        Builder::request(method, self.target.as_bytes())
            .header(
                "Via",
                format!("SIP/2.0/UDP {at};branch=z9hG4bK-{method}{}-{}", self.cseq, self.call_id.replace('@', "-")),
            )
            .header("Max-Forwards", "70")
            .header("From", &self.local)
            .header("To", &self.remote)
            .header("Call-ID", &self.call_id)
            .header("CSeq", format!("{} {method}", self.cseq))
    }
}

impl Inner {
    fn hear(&mut self, m: &Message<'_>, at: SocketAddr) -> Vec<Vec<u8>> {
        let known = self.calls.iter().position(|c| c.call_id.as_bytes() == m.call_id());
        match (m.start(), m.method()) {
            (Start::Response { code, .. }, Method::Invite) => {
                let Some(call) = known.and_then(|n| self.calls.get_mut(n)).filter(|_| code >= 200) else {
                    return Vec::new();
                };
                call.remote = text(m.to());
                if code < 300 {
                    call.target = text(m.contact_uri().unwrap_or_default());
                    call.up = true;
                } else {
                    call.over = true;
                }
                // With the number of the INVITE. The ACK of a 2xx is its own transaction, but its Via need not show
                // that here.
                let ack = Call { cseq: m.cseq().0, ..call.clone() };
                vec![ack.request("ACK", at).build()]
            }
            (Start::Response { code, .. }, Method::Bye) => {
                if let Some(call) = known.and_then(|n| self.calls.get_mut(n)).filter(|_| code >= 200) {
                    call.over = true;
                }
                Vec::new()
            }
            (Start::Response { code, .. }, Method::Refer) => {
                if let Some(call) = known.and_then(|n| self.calls.get_mut(n)) {
                    call.transferred = format!("REFER {code}");
                }
                Vec::new()
            }
            (Start::Response { .. }, _) | (_, Method::Ack) => Vec::new(),
            (_, Method::Invite) => match known {
                None => {
                    self.next += 1;
                    let truth = text(m.named("X-Truth").unwrap_or_default());
                    let (call_id, remote) = (text(m.call_id()), text(m.from()));
                    let target = text(m.contact_uri().unwrap_or_default());
                    let local = format!("{};tag=d{}", text(m.to()), self.next);
                    let open = Some(m.bytes().to_vec());
                    let cseq = 0;
                    self.calls.push(Call { call_id, truth, local, remote, target, cseq, open, ..Call::default() });
                    let ringing =
                        Builder::response_to(m, 180, "Ringing", Some(format!("d{}", self.next).as_bytes()), None);
                    let mut out = vec![ringing.header("Contact", format!("<sip:phone@{at}>")).build()];
                    if self.calls.iter().filter(|c| c.open.is_some()).count() >= self.hold_for {
                        for (n, call) in self.calls.iter_mut().enumerate() {
                            let Some(open) = call.open.take() else { continue };
                            let Ok(invite) = Message::parse(&open) else { continue };
                            call.up = true;
                            let tag = call.local.rsplit_once(";tag=").map(|(_, t)| t.to_owned()).unwrap_or_default();
                            out.push(
                                Builder::response_to(&invite, 200, "OK", Some(tag.as_bytes()), None)
                                    .header("Contact", format!("<sip:phone@{at}>"))
                                    .body("application/sdp", sdp(at, u32::try_from(n).unwrap_or(0) + 500).as_bytes())
                                    .build(),
                            );
                        }
                    }
                    out
                }
                // A re-INVITE; a repeated first INVITE gets the first answer again.
                Some(n) if m.to_tag().is_some() => {
                    let ok =
                        Builder::response_to(m, 200, "OK", None, None).header("Contact", format!("<sip:phone@{at}>"));
                    vec![ok.body("application/sdp", sdp(at, u32::try_from(n).unwrap_or(0) + 500).as_bytes()).build()]
                }
                Some(_) => Vec::new(),
            },
            (_, method) => {
                if let Some(call) = known.and_then(|n| self.calls.get_mut(n)) {
                    match method {
                        Method::Bye => call.over = true,
                        Method::Notify => call.transferred = text(m.body()).trim().to_owned(),
                        _ => {}
                    }
                }
                vec![Builder::response_to(m, 200, "OK", None, None).build()]
            }
        }
    }
}
