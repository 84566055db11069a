//! Builds captures: SIP text, packets around it, files around the packets.

use std::net::{IpAddr, SocketAddr};

/// Time of the first packet in a built capture, milliseconds since 1970.
pub(crate) const START: u64 = 1_700_000_000_000;

/// A datagram: milliseconds after [`START`], from, to, payload.
#[derive(Clone)]
pub(crate) struct Shot {
    pub(crate) at: u64,
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) payload: Vec<u8>,
}

/// One dialog on one hop, as a source of messages.
#[derive(Clone)]
pub(crate) struct Hop {
    pub(crate) id: String,
    /// Addresses of the calling and the called end.
    pub(crate) a: String,
    pub(crate) b: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) from_tag: String,
    pub(crate) to_tag: String,
    pub(crate) branch: String,
    pub(crate) cseq: u32,
    /// Further header lines of every message, and both Contacts.
    pub(crate) more: String,
    pub(crate) contacts: [String; 2],
}

impl Hop {
    pub(crate) fn new(id: &str, a: &str, b: &str, from: &str, to: &str) -> Self {
        Self {
            id: id.into(),
            a: a.into(),
            b: b.into(),
            from: from.into(),
            to: to.into(),
            from_tag: format!("f{id}"),
            to_tag: format!("t{id}"),
            branch: format!("z9hG4bK{id}{a}{b}").replace(['.', ':', '[', ']'], ""),
            cseq: 1,
            more: String::new(),
            contacts: [format!("sip:{from}@{a}"), format!("sip:{to}@{b}")],
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of a message, once")]
    fn text(&self, start: &str, method: &str, cseq: u32, by_a: bool, tagged: bool, more: &str, sdp: &str) -> Vec<u8> {
        let (f, t) = (
            format!("\"{0}\" <sip:{0}@example.org>;tag={1}", self.from, self.from_tag),
            format!(
                "<sip:{}@example.org>{}",
                self.to,
                if tagged { format!(";tag={}", self.to_tag) } else { String::new() }
            ),
        );
        let (f, t) = if by_a { (f, t) } else { (t, f) };
        let response = start.starts_with("SIP/2.0");
        // Contact is the sender's. The sender of a response is the other end.
        let contact = &self.contacts[usize::from(by_a == response)];
        let branch = if method == "INVITE" || method == "CANCEL" || (method == "ACK" && !tagged) {
            format!("{}{}", self.branch, if cseq == self.cseq { String::new() } else { cseq.to_string() })
        } else {
            format!("{}{method}{cseq}", self.branch)
        };
        let body = if sdp.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "{start}\r\nVia: SIP/2.0/UDP {};branch={branch}\r\nFrom: {f}\r\nTo: {t}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <{contact}>\r\n{}{more}{body}Content-Length: {}\r\n\r\n{sdp}",
            if by_a { &self.a } else { &self.b },
            self.id,
            self.more,
            sdp.len()
        )
        .into_bytes()
    }

    fn shot(&self, from_a: bool, payload: Vec<u8>) -> Shot {
        let (a, b) = (self.a.parse().unwrap(), self.b.parse().unwrap());
        let (src, dst) = if from_a { (a, b) } else { (b, a) };
        Shot { at: 0, src, dst, payload }
    }

    pub(crate) fn invite(&self, sdp: &str) -> Shot {
        self.invite_with("", sdp)
    }

    pub(crate) fn invite_with(&self, more: &str, sdp: &str) -> Shot {
        let start = format!("INVITE sip:{}@{} SIP/2.0", self.to, self.b);
        self.shot(true, self.text(&start, "INVITE", self.cseq, true, false, more, sdp))
    }

    /// The called end's answer to the first INVITE.
    pub(crate) fn answer(&self, code: u16, sdp: &str) -> Shot {
        self.shot(false, self.text(&format!("SIP/2.0 {code} Word"), "INVITE", self.cseq, true, code > 100, "", sdp))
    }

    pub(crate) fn ack(&self) -> Shot {
        self.request(true, "ACK", self.cseq, "", "")
    }

    pub(crate) fn cancel(&self, more: &str) -> Shot {
        let start = format!("CANCEL sip:{}@{} SIP/2.0", self.to, self.b);
        self.shot(true, self.text(&start, "CANCEL", self.cseq, true, false, more, ""))
    }

    /// A request within the dialog.
    pub(crate) fn request(&self, by_a: bool, method: &str, cseq: u32, more: &str, sdp: &str) -> Shot {
        let start = format!("{method} {} SIP/2.0", self.contacts[usize::from(by_a)]);
        self.shot(by_a, self.text(&start, method, cseq, by_a, true, more, sdp))
    }

    /// The answer to a request within the dialog; `by_a` names the answering end.
    pub(crate) fn response(&self, by_a: bool, code: u16, method: &str, cseq: u32, sdp: &str) -> Shot {
        self.shot(by_a, self.text(&format!("SIP/2.0 {code} Word"), method, cseq, !by_a, true, "", sdp))
    }

    /// INVITE, 100, 180, 200, ACK.
    pub(crate) fn up(&self, offer: &str, answer: &str) -> Vec<Shot> {
        vec![self.invite(offer), self.answer(100, ""), self.answer(180, ""), self.answer(200, answer), self.ack()]
    }

    /// BYE and its 200.
    pub(crate) fn over(&self, by_a: bool, cseq: u32) -> Vec<Shot> {
        vec![self.request(by_a, "BYE", cseq, "", ""), self.response(!by_a, 200, "BYE", cseq, "")]
    }
}

/// A description with one audio stream.
pub(crate) fn audio(at: &str, more: &str) -> String {
    let at: SocketAddr = at.parse().unwrap();
    let kind = if at.is_ipv4() { "IP4" } else { "IP6" };
    format!(
        "v=0\r\no=- 1 1 IN {kind} {ip}\r\ns=-\r\nc=IN {kind} {ip}\r\nt=0 0\r\nm=audio {} RTP/AVP 8 101\r\n\
         a=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n{more}",
        at.port(),
        ip = at.ip()
    )
}

/// `n` RTP packets of type 8, 20 ms apart.
pub(crate) fn rtp(src: &str, dst: &str, n: u16) -> Vec<Shot> {
    let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    let one = |i: u16| {
        let mut payload = vec![0x80, 8];
        payload.extend(i.to_be_bytes());
        payload.extend([0; 4]);
        payload.extend(u32::from(src.port()).to_be_bytes());
        payload.extend([0xd5; 160]);
        Shot { at: 0, src, dst, payload }
    };
    (0..n).map(one).collect()
}

/// The shots in order, spaced by this many milliseconds.
pub(crate) fn paced(shots: Vec<Shot>, step: u64) -> Vec<Shot> {
    shots.into_iter().zip(0u64..).map(|(s, n)| Shot { at: n * step, ..s }).collect()
}

/// A UDP datagram in an IP packet.
pub(crate) fn ip(s: &Shot) -> Vec<u8> {
    let mut udp = Vec::new();
    udp.extend(s.src.port().to_be_bytes());
    udp.extend(s.dst.port().to_be_bytes());
    udp.extend(u16::try_from(8 + s.payload.len()).unwrap().to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(&s.payload);
    around(s.src.ip(), s.dst.ip(), 17, &udp)
}

/// An IP packet.
pub(crate) fn around(src: IpAddr, dst: IpAddr, protocol: u8, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            out.extend([0x45, 0]);
            out.extend(u16::try_from(20 + data.len()).unwrap().to_be_bytes());
            out.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
            out.extend(s.octets());
            out.extend(d.octets());
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            out.extend([0x60, 0, 0, 0]);
            out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            out.extend([protocol, 64]);
            out.extend(s.octets());
            out.extend(d.octets());
        }
        _ => panic!("{src} and {dst}"),
    }
    out.extend(data);
    out
}

/// The IPv4 packet in fragments of at most `size` bytes of data.
pub(crate) fn fragments(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let data = &packet[20..];
    let n = data.len().div_ceil(size);
    data.chunks(size)
        .enumerate()
        .map(|(i, part)| {
            let mut out = packet[..20].to_vec();
            out[2..4].copy_from_slice(&u16::try_from(20 + part.len()).unwrap().to_be_bytes());
            let offset = u16::try_from(i * size / 8).unwrap() | if i + 1 < n { 0x2000 } else { 0 };
            out[6..8].copy_from_slice(&offset.to_be_bytes());
            out.extend(part);
            out
        })
        .collect()
}

/// An Ethernet frame; `tags` go before the ethertype of IP.
pub(crate) fn ethernet(tags: &[u8], packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&[2; 12][..], tags, &kind, packet].concat()
}

/// The kind of pcap file to write.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) magic: u32,
    pub(crate) big: bool,
    pub(crate) link: u32,
    pub(crate) snap: usize,
}

pub(crate) const RAW: Kind = Kind { magic: 0xa1b2_c3d4, big: false, link: 101, snap: 65535 };

/// A pcap file of frames with their times.
pub(crate) fn pcap(kind: Kind, frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let word = |n: u32| if kind.big { n.to_be_bytes() } else { n.to_le_bytes() };
    let versions: [u8; 4] = if kind.big { [0, 2, 0, 4] } else { [2, 0, 4, 0] };
    let mut out =
        [word(kind.magic), versions, word(0), word(0), word(u32::try_from(kind.snap).unwrap()), word(kind.link)]
            .concat();
    for (at, frame) in frames {
        let at = START + at;
        let fraction = u32::try_from(at % 1000).unwrap() * if kind.magic == 0xa1b2_3c4d { 1_000_000 } else { 1000 };
        let kept = &frame[..frame.len().min(kind.snap)];
        out.extend(word(u32::try_from(at / 1000).unwrap()));
        out.extend(word(fraction));
        out.extend(word(u32::try_from(kept.len()).unwrap()));
        out.extend(word(u32::try_from(frame.len()).unwrap()));
        if kind.magic == 0xa1b2_cd34 {
            out.extend([0; 8]);
        }
        out.extend(kept);
    }
    out
}

/// The shots as raw IP in a pcap file.
pub(crate) fn file(shots: &[Shot]) -> Vec<u8> {
    pcap(RAW, &shots.iter().map(|s| (s.at, ip(s))).collect::<Vec<_>>())
}

/// A pcapng block.
pub(crate) fn block(big: bool, kind: u32, body: &[u8]) -> Vec<u8> {
    let word = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
    let pad = vec![0; (4 - body.len() % 4) % 4];
    let length = word(u32::try_from(body.len() + pad.len() + 12).unwrap());
    [&word(kind)[..], &length, body, &pad, &length].concat()
}

pub(crate) fn section(big: bool) -> Vec<u8> {
    let magic: [u8; 4] = if big { [0x1a, 0x2b, 0x3c, 0x4d] } else { [0x4d, 0x3c, 0x2b, 0x1a] };
    let versions: [u8; 4] = if big { [0, 1, 0, 0] } else { [1, 0, 0, 0] };
    block(big, 0x0a0d_0d0a, &[&magic[..], &versions, &[0xff; 8]].concat())
}

/// An interface description with options.
pub(crate) fn interface(big: bool, link: u16, snap: u32, options: &[u8]) -> Vec<u8> {
    let link = if big { link.to_be_bytes() } else { link.to_le_bytes() };
    let snap = if big { snap.to_be_bytes() } else { snap.to_le_bytes() };
    block(big, 1, &[&link[..], &[0, 0], &snap, options].concat())
}

/// An enhanced packet block with a time in ticks.
pub(crate) fn enhanced(big: bool, interface: u32, ticks: u64, frame: &[u8]) -> Vec<u8> {
    let word = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
    let length = word(u32::try_from(frame.len()).unwrap());
    let (high, low) = (u32::try_from(ticks >> 32).unwrap(), u32::try_from(ticks & 0xffff_ffff).unwrap());
    block(big, 6, &[&word(interface)[..], &word(high), &word(low), &length, &length, frame].concat())
}
