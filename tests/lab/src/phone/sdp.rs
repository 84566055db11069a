//! SDP, with the rules to which the lab's phones hold the other side (RFC 3264, RFC 4566).

use std::net::{IpAddr, SocketAddr};

/// What a phone reads from a session description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sdp {
    /// The six parts of `o=`.
    pub(crate) origin: [String; 6],
    /// Kind and transport of each m-line, in order.
    pub media: Vec<(String, String)>,
    /// Destination of the audio; `None` if the port is 0.
    pub audio: Option<SocketAddr>,
    /// Payload types of the audio, in order.
    pub(crate) formats: Vec<String>,
    /// `sendrecv`, `sendonly`, `recvonly` or `inactive`.
    pub direction: String,
    /// The body as received.
    pub text: String,
}

impl Sdp {
    /// Parses a body.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut origin = None;
        let mut session_ip = None;
        let mut media: Vec<(String, String)> = Vec::new();
        let mut audio = None;
        let (mut media_ip, mut direction, mut formats) = (None, None, Vec::new());
        for (i, line) in text.lines().enumerate() {
            let (kind, value) = line.split_once('=').ok_or_else(|| format!("SDP line {line:?} has no ="))?;
            match (i, kind) {
                (0, "v") if value == "0" => {}
                (0, _) => return Err("SDP does not begin with v=0".into()),
                (1, "o") => {
                    let parts: Vec<String> = value.split(' ').map(str::to_owned).collect();
                    origin = Some(<[String; 6]>::try_from(parts).map_err(|_| format!("o={value} has not six parts"))?);
                }
                (1, _) => return Err("the second SDP line is not o=".into()),
                (_, "c") => {
                    let ip: IpAddr = value
                        .rsplit(' ')
                        .next()
                        .and_then(|v| v.parse().ok())
                        .ok_or_else(|| format!("c={value} has no address"))?;
                    if media.is_empty() {
                        session_ip = Some(ip)
                    } else if media.len() == 1 {
                        media_ip = Some(ip)
                    }
                }
                (_, "m") => {
                    let parts: Vec<&str> = value.split(' ').collect();
                    if parts.len() < 4 {
                        return Err(format!("m={value} has not four parts"));
                    }
                    if media.is_empty() {
                        if parts[0] != "audio" {
                            return Err(format!("the first m-line is {value}, not audio"));
                        }
                        audio = Some(parts[1].parse::<u16>().map_err(|_| format!("m={value} has no port"))?);
                        formats = parts[3..].iter().map(|f| (*f).to_owned()).collect();
                    }
                    media.push((parts[0].to_owned(), parts[2].to_owned()));
                }
                (_, "a") if ["sendrecv", "sendonly", "recvonly", "inactive"].contains(&value) && media.len() <= 1 => {
                    direction = Some(value.to_owned());
                }
                _ => {}
            }
        }
        let port = audio.ok_or("SDP without an m-line")?;
        let ip = media_ip.or(session_ip).ok_or("SDP without a c= line for the audio")?;
        Ok(Self {
            origin: origin.ok_or("SDP without o=")?,
            media,
            audio: (port != 0).then_some(SocketAddr::new(ip, port)),
            formats,
            direction: direction.unwrap_or_else(|| "sendrecv".to_owned()),
            text: text.to_owned(),
        })
    }

    /// Breaches of RFC 3264 section 8 in this description as the successor of `before`, from the same side of one
    /// dialog.
    pub(crate) fn faults_after(&self, before: &Self) -> Vec<String> {
        let mut faults = Vec::new();
        for (i, what) in
            ["user name", "session id", "version", "network type", "address type", "address"].iter().enumerate()
        {
            if i != 2 && self.origin[i] != before.origin[i] {
                faults.push(format!("o= {what} went from {:?} to {:?}", before.origin[i], self.origin[i]));
            }
        }
        match (before.origin[2].parse::<u64>(), self.origin[2].parse::<u64>()) {
            (Ok(a), Ok(b)) if b == a => {
                if self.text != before.text {
                    faults.push(format!("the SDP changed, but its o= version stayed {a}"));
                }
            }
            (Ok(a), Ok(b)) if b == a.wrapping_add(1) => {}
            (Ok(a), Ok(b)) => faults.push(format!("o= version went from {a} to {b}, not up by one")),
            _ => faults.push("o= version is not a number".into()),
        }
        if self.media.len() < before.media.len() {
            faults.push(format!("{} m-lines became {}", before.media.len(), self.media.len()));
        }
        for (i, (a, b)) in before.media.iter().zip(&self.media).enumerate() {
            if a != b {
                faults.push(format!("m-line {i} went from {a:?} to {b:?}"));
            }
        }
        faults
    }
}

/// The phone's own description.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    id: u64,
    version: u64,
    addr: SocketAddr,
    direction: &'static str,
}

impl Own {
    /// Audio both ways, received at `addr`.
    pub(crate) const fn new(id: u64, addr: SocketAddr) -> Self {
        Self { id, version: id, addr, direction: "sendrecv" }
    }

    /// The version rises only when the description changes.
    pub(crate) fn set_direction(&mut self, direction: &'static str) {
        if direction != self.direction {
            self.direction = direction;
            self.version += 1;
        }
    }

    /// Whether the phone sends audio.
    pub(crate) fn sends(&self) -> bool {
        self.direction.starts_with("send")
    }

    /// The description itself.
    pub(crate) fn text(&self) -> String {
        let family = if self.addr.is_ipv4() { "IP4" } else { "IP6" };
        let (ip, port) = (self.addr.ip(), self.addr.port());
        format!(
            "v=0\r\no=lab {} {} IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n\
             a=rtpmap:0 PCMU/8000\r\na=ptime:20\r\na={}\r\n",
            self.id, self.version, self.direction
        )
    }
}

/// The direction to answer with (RFC 3264 section 6.1).
pub(crate) fn answer_to(offered: &str) -> &'static str {
    match offered {
        "sendonly" => "recvonly",
        "recvonly" => "sendonly",
        "inactive" => "inactive",
        _ => "sendrecv",
    }
}
