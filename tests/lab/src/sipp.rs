//! SIPp as a party of a call: user agents that nobody here wrote. A test writes the scenario out of these pieces.

use super::lan::Host;
use super::proc::Proc;
use anyhow::Result;
use std::net::SocketAddr;

/// Starts the called party with this number, whose port is [`port`], and waits until it listens.
pub fn called(host: &Host, number: u16, tcp: bool, steps: &str) -> Result<Proc> {
    // SIPp wants an address, and a called party sends only answers.
    let nobody = SocketAddr::from((host.ip4, 5060));
    let mut proc = start(host, number, tcp, steps, nobody, "")?;
    let socket = format!("{}:{}:{}", if tcp { "tcp" } else { "udp" }, host.ip4, port(number));
    proc.wait_ready("SIPp", || host.listens(&[&socket]))?;
    Ok(proc)
}

/// Starts the caller with this number, which calls `to` by way of `by`. The process exits with 0 if all went as the
/// scenario says.
pub fn caller(host: &Host, number: u16, tcp: bool, steps: &str, to: u16, by: SocketAddr) -> Result<Proc> {
    start(host, number, tcp, steps, by, &format!("-s {to}"))
}

/// The SIP port of the party with this number.
pub const fn port(number: u16) -> u16 {
    number + 10_000
}

fn start(host: &Host, number: u16, tcp: bool, steps: &str, peer: SocketAddr, more: &str) -> Result<Proc> {
    let name = format!("sipp-{number}");
    let files = host.dir.join(&name).display().to_string();
    std::fs::write(
        format!("{files}.xml"),
        format!("<?xml version=\"1.0\" encoding=\"ISO-8859-1\" ?>\n<scenario name=\"lab\">\n{steps}</scenario>\n"),
    )?;
    let (ip, port, transport) = (host.ip4, port(number), if tcp { "t1" } else { "u1" });
    // SIPp takes several consecutive ports for media.
    let media = 20_000 + number % 1000 * 10;
    let line = format!(
        "sipp {peer} -sf {files}.xml -i {ip} -p {port} -t {transport} -mp {media} -m 1 -nostdin -key number {number} \
         -cid_str %u-%p@%s -trace_msg -message_file {files}.messages.log -trace_err -error_file {files}.errors.log \
         -timeout 60s -timeout_error {more}"
    );
    host.spawn(&name, &line.split_whitespace().collect::<Vec<_>>())
}

/// The step that sends a message once.
pub fn send(message: &str) -> String {
    format!("<send><![CDATA[\n\n{message}\n]]></send>\n")
}

/// The step that sends a message until there is an answer.
pub fn repeat(message: &str) -> String {
    send(message).replacen("<send>", "<send retrans=\"500\">", 1)
}

/// A request of the caller: its method and target, the tag of To as a parameter, CSeq, more lines, and its body.
pub fn request(start: &str, tag: &str, cseq: &str, more: &str, body: &str) -> String {
    // CANCEL, and ACK of a refusal, carry the branch of their INVITE (RFC 3261 sections 9.1 and 17.1.1.3).
    let branch =
        if tag.is_empty() || start.contains("[remote_ip]") { "z9hG4bKfirst[pid]x[call_number]" } else { "[branch]" };
    format!(
        "{start} SIP/2.0\nVia: SIP/2.0/[transport] [local_ip]:[local_port];branch={branch}\n\
         From: \"sipp, \\\"the\\\" caller\" <sip:[number]@[local_ip]>;tag=[pid]c[call_number]\n\
         To: <sip:[service]@[remote_ip]>{tag}\nCall-ID: [call_id]\nCSeq: {cseq}\n\
         Contact: <sip:[number]@[local_ip]:[local_port]>\nMax-Forwards: 70\n{more}{}",
        content(body)
    )
}

/// The answer to the last request; `tag` adds a tag to To.
pub fn response(start: &str, tag: bool, body: &str) -> String {
    let tag = if tag { ";tag=[pid]d[call_number]" } else { "" };
    format!(
        "SIP/2.0 {start}\n[last_Via:]\n[last_Record-Route:]\n[last_From:]\n[last_To:]{tag}\n\
         [last_Call-ID:]\n[last_CSeq:]\nContact: <sip:[number]@[local_ip]:[local_port]>\n{}",
        content(body)
    )
}

fn content(body: &str) -> String {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
    format!("{kind}Content-Length: [len]\n\n{body}")
}

/// A description with PCMA, and with PCMU if wanted. `origin` is user, session and version of its `o=` line.
pub fn sdp(origin: &str, pcmu: bool) -> String {
    let (format, map) = if pcmu { (" 0", "a=rtpmap:0 PCMU/8000\n") } else { ("", "") };
    format!(
        "v=0\no={origin} IN IP4 [local_ip]\ns=-\nc=IN IP4 [media_ip]\nt=0 0\nm=audio [media_port] RTP/AVP 8{format}\n\
         a=rtpmap:8 PCMA/8000\n{map}"
    )
}
