//! SIP messages as the lab's phones read and write them. Written apart from keepcall's own parser, so that one does not
//! repeat a mistake of the other; and stricter: what RFC 3261 does not allow is an error.

use std::fmt::Write as _;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Method and request URI.
    Request(String, String),
    /// Status code and reason.
    Response(u16, String),
}

/// A parsed message.
#[derive(Clone, Debug)]
pub struct Message {
    /// The first line.
    pub start: Start,
    /// Headers in order, with long names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Message {
    /// Reads one datagram.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8: {e}"))?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or("no empty line ends the headers")?;
        if head.replace("\r\n", "").contains(['\r', '\n']) {
            return Err("a line ends with something other than CR LF".into());
        }
        let mut lines = head.split("\r\n");
        let start = parse_start(lines.next().unwrap_or_default())?;
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in lines {
            if line.starts_with([' ', '\t']) {
                let last = headers.last_mut().ok_or("a folded line without a header")?;
                last.1.push(' ');
                last.1.push_str(line.trim());
                continue;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| format!("no colon in header line {line:?}"))?;
            headers.push((long_name(name.trim()), value.trim().to_owned()));
        }
        let message = Self { start, headers, body: body.to_owned() };
        match message.get("content-length").map(str::parse::<usize>) {
            Some(Ok(n)) if n == body.len() => {}
            Some(Ok(n)) => return Err(format!("Content-Length {n}, but the body has {} bytes", body.len())),
            Some(Err(_)) => return Err("Content-Length is not a number".into()),
            // RFC 3261 section 20.14: over UDP the header may be absent.
            None => {}
        }
        for name in ["call-id", "from", "to", "cseq", "via"] {
            if message.get(name).is_none() {
                return Err(format!("no {name} header"));
            }
        }
        message.cseq()?;
        Ok(message)
    }

    /// The first value of a header.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All values of a header that may be a list, split at the commas between them.
    pub fn list(&self, name: &str) -> Vec<String> {
        self.headers.iter().filter(|(n, _)| n == name).flat_map(|(_, v)| split_list(v)).collect()
    }

    /// The method of the request, or of the CSeq of a response.
    pub fn method(&self) -> String {
        match &self.start {
            Start::Request(m, _) => m.clone(),
            Start::Response(..) => self.cseq().map(|c| c.1).unwrap_or_default(),
        }
    }

    /// The number and method of CSeq.
    pub fn cseq(&self) -> Result<(u32, String), String> {
        let v = self.get("cseq").unwrap_or_default();
        let (n, m) = v.split_once(char::is_whitespace).ok_or_else(|| format!("CSeq {v:?} has no method"))?;
        let n: u32 = n.parse().map_err(|_| format!("CSeq {v:?} has no number"))?;
        if n >= 1 << 31 { Err(format!("CSeq {n} is not below 2^31")) } else { Ok((n, m.trim().to_owned())) }
    }

    /// The Call-ID; empty without the header.
    pub fn call_id(&self) -> &str {
        self.get("call-id").unwrap_or_default()
    }

    /// The top Via's branch.
    pub fn branch(&self) -> Option<String> {
        self.list("via").first().and_then(|v| param(v, "branch"))
    }
}

fn parse_start(line: &str) -> Result<Start, String> {
    if let Some(rest) = line.strip_prefix("SIP/2.0 ") {
        let (code, reason) = rest.split_once(' ').ok_or("a status line without a reason phrase")?;
        let code: u16 = code.parse().map_err(|_| format!("status code {code:?}"))?;
        return Ok(Start::Response(code, reason.to_owned()));
    }
    let parts: Vec<&str> = line.split(' ').collect();
    match parts[..] {
        [method, uri, "SIP/2.0"] => Ok(Start::Request(method.to_owned(), uri.to_owned())),
        _ => Err(format!("bad start line {line:?}")),
    }
}

fn long_name(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "v" => "via",
        "f" => "from",
        "t" => "to",
        "i" => "call-id",
        "m" => "contact",
        "l" => "content-length",
        "c" => "content-type",
        "k" => "supported",
        "x" => "session-expires",
        other => other,
    }
    .to_owned()
}

/// Splits at commas that are neither quoted nor within angle brackets.
fn split_list(value: &str) -> Vec<String> {
    split_at(value, ',').into_iter().map(|v| v.trim().to_owned()).collect()
}

fn split_at(value: &str, mark: char) -> Vec<String> {
    let (mut out, mut item, mut quoted, mut angle, mut escaped) = (Vec::new(), String::new(), false, false, false);
    for c in value.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => angle = true,
            '>' if !quoted => angle = false,
            c if c == mark && !quoted && !angle => {
                out.push(std::mem::take(&mut item));
                continue;
            }
            _ => {}
        }
        item.push(c);
    }
    out.push(item);
    out
}

/// A parameter that follows the URI (or, for Via, the sent-by). The value has no quotes, and is empty for a flag.
pub fn param(value: &str, name: &str) -> Option<String> {
    let rest = after_name(value);
    let after = if rest.starts_with('<') { rest.find('>').map_or("", |i| &rest[i + 1..]) } else { rest };
    split_at(after, ';').into_iter().skip(1).find_map(|p| {
        let (n, v) = p.split_once('=').unwrap_or((&p, ""));
        n.trim().eq_ignore_ascii_case(name).then(|| v.trim().trim_matches('"').to_owned())
    })
}

/// The value without its display name.
fn after_name(value: &str) -> &str {
    let value = value.trim();
    if value.starts_with('"') {
        let mut escaped = false;
        for (i, c) in value.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return value[i + 1..].trim_start(),
                _ => {}
            }
        }
        return "";
    }
    // A name without quotes consists of tokens; an addr-spec has no `<`.
    let end = value.find(['"', '<']).filter(|&i| value[i..].starts_with('<'));
    end.map_or(value, |i| &value[i..])
}

/// The URI of a name-addr or addr-spec.
pub(crate) fn uri_of(value: &str) -> String {
    let rest = after_name(value);
    match (rest.strip_prefix('<'), rest.find('>')) {
        (Some(_), Some(end)) => rest[1..end].to_owned(),
        _ => rest.split(';').next().unwrap_or_default().trim().to_owned(),
    }
}

/// The host and port of a SIP URI.
pub(crate) fn target_of(uri: &str) -> Option<std::net::SocketAddr> {
    let rest = uri.strip_prefix("sip:")?;
    let host = rest.rsplit('@').next()?.split([';', '?']).next()?;
    host.parse()
        .ok()
        .or_else(|| host.trim_matches(['[', ']']).parse().ok().map(|ip| std::net::SocketAddr::new(ip, 5060)))
}

/// Writes a message.
pub struct Writer {
    text: String,
}

impl Writer {
    /// Starts a request.
    pub fn request(method: &str, uri: &str) -> Self {
        Self { text: format!("{method} {uri} SIP/2.0\r\n") }
    }

    /// A response with everything that RFC 3261 section 8.2.6.2 copies from the request; `via` replaces the top Via.
    pub fn response(request: &Message, code: u16, reason: &str, via: &str, to_tag: Option<&str>) -> Self {
        let mut w = Self { text: format!("SIP/2.0 {code} {reason}\r\n") };
        w.header("Via", via);
        for v in request.list("via").iter().skip(1) {
            w.header("Via", v);
        }
        for rr in request.headers.iter().filter(|(n, _)| n == "record-route") {
            w.header("Record-Route", &rr.1);
        }
        w.header("From", request.get("from").unwrap_or_default());
        let to = request.get("to").unwrap_or_default();
        match to_tag {
            Some(tag) if param(to, "tag").is_none() => w.header("To", &format!("{to};tag={tag}")),
            _ => w.header("To", to),
        }
        w.header("Call-ID", request.call_id());
        w.header("CSeq", request.get("cseq").unwrap_or_default());
        w
    }

    /// Adds a header.
    pub fn header(&mut self, name: &str, value: &str) {
        let _ = write!(self.text, "{name}: {value}\r\n");
    }

    /// Adds the body with its Content headers.
    pub fn end(mut self, sdp: Option<&str>) -> Vec<u8> {
        if sdp.is_some() {
            self.header("Content-Type", "application/sdp");
        }
        let body = sdp.unwrap_or_default();
        self.header("Content-Length", &body.len().to_string());
        self.text.push_str("\r\n");
        self.text.push_str(body);
        self.text.into_bytes()
    }
}
