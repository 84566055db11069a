//! Reads a capture with tshark, as a list of SIP messages.

use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// A SIP message as dissected by tshark.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) src: Option<SocketAddr>,
    pub(crate) dst: Option<SocketAddr>,
    /// The method, for a request.
    pub(crate) method: Option<String>,
    /// The status code, for a response.
    pub(crate) code: Option<u16>,
    pub(crate) call_id: String,
    pub(crate) from_tag: String,
    pub(crate) to_tag: String,
    pub(crate) from_user: String,
    pub(crate) to_user: String,
    pub(crate) cseq: u32,
    pub(crate) cseq_method: String,
    /// The URI of Contact.
    pub(crate) contact: Option<String>,
    /// The values of Record-Route, in order.
    pub(crate) record_route: Vec<String>,
    /// `o=`, and address and port of each m-line, if there is a description.
    pub(crate) sdp: Option<(String, Vec<(String, u16)>)>,
}

/// Runs tshark on a capture.
pub(crate) fn messages(pcap: &Path) -> Result<Vec<Message>> {
    let out = Command::new("tshark")
        .args(["-n", "-r"])
        .arg(pcap)
        .args(["-Y", "sip", "-T", "pdml"])
        .output()
        .context("tshark")?;
    ensure!(out.status.success(), "tshark: {}", String::from_utf8_lossy(&out.stderr));
    Ok(parse(&String::from_utf8_lossy(&out.stdout)))
}

/// PDML is flat enough for reading line by line: each field is on its own line, with its value in `show`.
fn parse(pdml: &str) -> Vec<Message> {
    let mut all: Vec<Message> = Vec::new();
    let (mut ips, mut ports) = ([String::new(), String::new()], [0u16; 2]);
    let (mut in_sip, mut address, mut session) = (false, String::new(), String::new());
    for line in pdml.lines().map(str::trim_start) {
        let name = attribute(line, "name").unwrap_or_default();
        if line.starts_with("<packet>") {
            in_sip = false;
        } else if line.starts_with("<proto ") && name == "sip" {
            in_sip = true;
            let at = |n: usize| Some(SocketAddr::new(ips[n].parse().ok()?, ports[n]));
            all.push(Message { src: at(0), dst: at(1), ..Message::default() });
        }
        let Some(show) = attribute(line, "show").filter(|_| line.starts_with("<field ")) else { continue };
        match name.as_str() {
            "ip.src" | "ipv6.src" => ips[0] = show,
            "ip.dst" | "ipv6.dst" => ips[1] = show,
            "udp.srcport" | "tcp.srcport" => ports[0] = show.parse().unwrap_or(0),
            "udp.dstport" | "tcp.dstport" => ports[1] = show.parse().unwrap_or(0),
            _ if in_sip => {
                if let Some(m) = all.last_mut() {
                    field(m, &name, show, &mut address, &mut session);
                }
            }
            _ => {}
        }
    }
    all.retain(|m| !m.call_id.is_empty());
    all
}

fn field(m: &mut Message, name: &str, show: String, address: &mut String, session: &mut String) {
    match name {
        "sip.Method" => m.method = Some(show),
        "sip.Status-Code" => m.code = show.parse().ok(),
        "sip.Call-ID" => m.call_id = show,
        "sip.from.tag" => m.from_tag = show,
        "sip.to.tag" => m.to_tag = show,
        "sip.from.user" => m.from_user = show,
        "sip.to.user" => m.to_user = show,
        "sip.CSeq.seq" => m.cseq = show.parse().unwrap_or(0),
        "sip.CSeq.method" => m.cseq_method = show,
        "sip.contact.uri" => {
            m.contact.get_or_insert(show);
        }
        "sip.Record-Route" => m.record_route.extend(show.split(',').map(|v| v.trim().to_owned())),
        "sdp.owner" => m.sdp = Some((show, Vec::new())),
        "sdp.connection_info.address" => match &mut m.sdp {
            // The `c=` of a stream comes after its m-line.
            Some((_, media)) if !media.is_empty() => {
                if let Some(last) = media.last_mut() {
                    last.0 = show;
                }
            }
            _ => {
                session.clone_from(&show);
                *address = show;
            }
        },
        "sdp.media.port" => {
            if let (Some((_, media)), Ok(port)) = (&mut m.sdp, show.parse()) {
                media.push((session.clone(), port));
            }
        }
        _ => {}
    }
}

/// The value of an XML attribute.
fn attribute(line: &str, name: &str) -> Option<String> {
    let start = line.find(&format!(" {name}=\""))? + name.len() + 3;
    let value = &line[start..start + line[start..].find('"')?];
    let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#x27;", "'"), ("&amp;", "&")];
    Some(plain.iter().fold(value.to_owned(), |v, (a, b)| v.replace(a, b)))
}
