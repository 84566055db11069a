//! Probes the server with SIP OPTIONS over UDP: one non-INVITE client transaction (RFC 3261 section 17.1.2) per probe.

use super::ProbeResult;
use super::hysteresis::Sample;
use super::probe::{Observation, Probe, ticks};
use crate::config::{Check, SipOptions};
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, Interval, sleep_until, timeout_at};

/// T1 of RFC 3261 section 17.1.1.1: the wait before the first retransmission.
const T1: Duration = Duration::from_millis(500);
/// Answers are small. The kernel cuts longer ones, and the part that matters still parses.
const MAX_DATAGRAM: usize = 8192;

/// Counts of one check, besides its results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Requests, without retransmissions.
    pub(super) sent: u64,
    /// Retransmissions.
    pub(super) retransmitted: u64,
    /// Datagrams that did not answer the current request: late, garbled, or from another sender.
    pub(super) ignored: u64,
}

/// Probes one server.
#[derive(Debug)]
pub(super) struct Options {
    target: SocketAddr,
    uri: String,
    codes: Vec<String>,
    call_id: String,
    from_tag: String,
    cseq: u32,
    socket: Option<UdpSocket>,
    counters: Counters,
}

/// Probes one server at each interval.
#[derive(Debug)]
pub(super) struct OptionsCheck {
    options: Options,
    tick: Interval,
    timeout: Duration,
}

impl OptionsCheck {
    pub(super) fn new(config: &SipOptions, check: &Check) -> Self {
        Self { options: Options::new(config), tick: ticks(check.interval), timeout: check.timeout }
    }
}

impl Probe for OptionsCheck {
    async fn next(&mut self) -> Observation {
        self.tick.tick().await;
        let result = self.options.probe(self.timeout).await;
        let sample = if result.ok { Sample::Good } else { Sample::Bad };
        Observation { sample, detail: result.detail, took: Duration::from_millis(result.took_ms), process: None }
    }
}

impl Options {
    pub(super) fn new(config: &SipOptions) -> Self {
        Self {
            target: config.target,
            uri: config.uri.clone().unwrap_or_else(|| format!("sip:keepcall@{}", config.target)),
            codes: config.codes.iter().map(|c| c.to_ascii_lowercase()).collect(),
            call_id: token(),
            from_tag: token(),
            cseq: 0,
            socket: None,
            counters: Counters::default(),
        }
    }

    #[cfg(test)]
    pub(super) const fn counters(&self) -> Counters {
        self.counters
    }

    /// One probe; takes at most `timeout`.
    pub(super) async fn probe(&mut self, timeout: Duration) -> ProbeResult {
        let started = Instant::now();
        let result = self.transaction(timeout, started).await;
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if self.counters.ignored > 0 {
            tracing::debug!(target = %self.target, counters = ?self.counters, "OPTIONS probe");
        }
        match result {
            Ok((code, reason)) => {
                let ok = self.codes.iter().any(|c| accepts(c, code));
                let detail = format!("{code} {reason}");
                ProbeResult { ok, detail: if ok { detail } else { format!("answered {detail}") }, took_ms }
            }
            Err(e) => {
                // The next probe opens a new socket, so that a pending ICMP error of this one cannot fail it.
                self.socket = None;
                ProbeResult { ok: false, detail: e, took_ms }
            }
        }
    }

    async fn transaction(&mut self, timeout: Duration, started: Instant) -> Result<(u16, String), String> {
        let deadline = started + timeout;
        let target = self.target;
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open(target).await.map_err(|e| format!("cannot open a socket to {target}: {e}"))?,
        };
        let local = socket.local_addr().map_err(|e| format!("cannot open a socket to {target}: {e}"))?;
        // CSeq numbers stay below 2^31 (RFC 3261 section 8.1.1.5); after that many probes they start again at one.
        self.cseq = if self.cseq >= i32::MAX as u32 { 1 } else { self.cseq + 1 };
        let branch = format!("z9hG4bK{}", token());
        let request = self.request(local, &branch);
        self.counters.sent += 1;
        send(&socket, &request, target).await?;
        // Section 17.1.1.1 allows a smaller T1 in closed networks, and this is the same host. With T1, a probe that
        // gives up at 500 ms would never resend what a full socket buffer dropped.
        let mut wait = T1.min(timeout / 4).max(Duration::from_millis(5));
        let mut again = started + wait;
        let mut proceeding = false;
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            let received = tokio::select! {
                biased;
                r = timeout_at(deadline, socket.recv(&mut buffer)) => r,
                () = sleep_until(again), if !proceeding && again < deadline => {
                    self.counters.retransmitted += 1;
                    send(&socket, &request, target).await?;
                    wait *= 2;
                    again += wait;
                    continue;
                }
            };
            let length = match received {
                Err(_) if proceeding => return Err(format!("no final answer from {target} within {}", show(timeout))),
                Err(_) => return Err(format!("no answer from {target} within {}", show(timeout))),
                Ok(Err(e)) => return Err(refused(&e, target)),
                Ok(Ok(length)) => length,
            };
            match answer(&buffer[..length], &branch, self.cseq) {
                Some((100..=199, _)) => proceeding = true,
                Some(last) => {
                    self.socket = Some(socket);
                    return Ok(last);
                }
                None => self.counters.ignored += 1,
            }
        }
    }

    fn request(&self, local: SocketAddr, branch: &str) -> Vec<u8> {
        let Self { uri, call_id, from_tag, cseq, .. } = self;
        let mut text = String::with_capacity(512);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "OPTIONS {uri} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {local};branch={branch};rport\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:keepcall@{local}>;tag={from_tag}\r\n\
             To: <{uri}>\r\n\
             Call-ID: {call_id}\r\n\
             CSeq: {cseq} OPTIONS\r\n\
             Contact: <sip:keepcall@{local}>\r\n\
             Accept: application/sdp\r\n\
             User-Agent: keepcall\r\n\
             Content-Length: 0\r\n\r\n"
        );
        text.into_bytes()
    }
}

/// A connected UDP socket: receives only from the server, and gets its ICMP errors.
async fn open(target: SocketAddr) -> io::Result<UdpSocket> {
    let any = if target.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}

async fn send(socket: &UdpSocket, request: &[u8], target: SocketAddr) -> Result<(), String> {
    socket.send(request).await.map(|_| ()).map_err(|e| refused(&e, target))
}

fn refused(e: &io::Error, target: SocketAddr) -> String {
    match e.kind() {
        io::ErrorKind::ConnectionRefused => format!("nothing listens on {target} (ICMP port unreachable)"),
        _ => format!("cannot reach {target}: {e}"),
    }
}

/// Status of a response to the request with this branch and CSeq (section 17.1.3); `None` for anything else.
fn answer(datagram: &[u8], branch: &str, cseq: u32) -> Option<(u16, String)> {
    let text = String::from_utf8_lossy(datagram);
    let mut lines = text.split("\r\n").flat_map(|l| l.split('\n'));
    let mut status = lines.next()?.splitn(3, ' ');
    let (version, code, reason) = (status.next()?, status.next()?, status.next().unwrap_or(""));
    if !version.eq_ignore_ascii_case("SIP/2.0") || code.len() != 3 {
        return None;
    }
    let code: u16 = code.parse().ok().filter(|c| (100..700).contains(c))?;
    let (mut via, mut sequence) = (None, None);
    for line in lines.take_while(|l| !l.is_empty()) {
        let Some((name, value)) = line.split_once(':') else { continue };
        let name = name.trim();
        if via.is_none() && (name.eq_ignore_ascii_case("Via") || name.eq_ignore_ascii_case("v")) {
            via = Some(value.to_owned());
        } else if sequence.is_none() && name.eq_ignore_ascii_case("CSeq") {
            sequence = Some(value.to_owned());
        }
    }
    // The topmost Via is ours; its branch, like every token, compares without regard to case (section 7.3.1).
    let via = via?;
    let ours = via.split(',').next()?.split(';').skip(1).any(|p| {
        p.split_once('=')
            .is_some_and(|(n, v)| n.trim().eq_ignore_ascii_case("branch") && v.trim().eq_ignore_ascii_case(branch))
    });
    let sequence = sequence?;
    let mut words = sequence.split_ascii_whitespace();
    let matches = words.next()?.parse::<u32>().ok()? == cseq && words.next()? == "OPTIONS";
    // Terminals show the reason phrase: no control characters, and a limited length.
    let reason = reason.chars().filter(|c| !c.is_control()).take(60).collect();
    (ours && matches).then_some((code, reason))
}

/// Whether `pattern` (`"200"`, `"2xx"`, lower case) matches `code`.
fn accepts(pattern: &str, code: u16) -> bool {
    match pattern.strip_suffix("xx") {
        Some(class) => class.parse() == Ok(code / 100),
        None => pattern.parse() == Ok(code),
    }
}

fn show(d: Duration) -> String {
    humantime::format_duration(d).to_string()
}

/// Sixteen hexadecimal digits, unique to a transaction.
fn token() -> String {
    let mut bytes = [0; 8];
    if getrandom::fill(&mut bytes).is_err() {
        // This fails only in a kernel without its random device; the clock still makes the token unique on this host.
        bytes = crate::os::clock::now().as_nanos().to_be_bytes();
    }
    bytes.iter().fold(String::with_capacity(16), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

#[cfg(test)]
mod tests;
