//! SIPp as the parties of calls, and a Kamailio between them.

use anyhow::Result;
use lab::kamailio::Kamailio;
use lab::lan::{Host, Lan};
use lab::proc::Proc;
use std::net::SocketAddr;

/// The course of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The caller hangs up after a moment.
    Ends,
    /// The called party answers, and neither hangs up.
    Stays,
    /// The called party refuses with this code.
    Refused(u16),
    /// The caller gives up while it rings.
    Cancelled,
    /// It keeps ringing.
    Rings,
    /// The caller holds the call, resumes it, transfers the other party (REFER), and hangs up.
    Moved,
}

const SDP: &str = "v=0\no=party 53655765 2353687637 IN IP4 [local_ip]\ns=-\nc=IN IP4 [media_ip]\nt=0 0\nm=audio [media_port] RTP/AVP 8 0\n\
                   a=rtpmap:8 PCMA/8000\na=rtpmap:0 PCMU/8000\n";

fn request(start: &str, to: &str, cseq: &str, more: &str, body: &str) -> String {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
    // CANCEL, and ACK of a refusal, carry the branch of their INVITE (RFC 3261 sections 9.1 and 17.1.1.3).
    let branch =
        if to.is_empty() || start.contains("[remote_ip]") { "z9hG4bKfirst[pid]x[call_number]" } else { "[branch]" };
    format!(
        "<![CDATA[\n\n{start} SIP/2.0\nVia: SIP/2.0/[transport] [local_ip]:[local_port];branch={branch}\n\
         From: \"caller\" <sip:[number]@[local_ip]>;tag=[pid]c[call_number]\nTo: <sip:[service]@[remote_ip]>{to}\nCall-ID: [call_id]\n\
         CSeq: {cseq}\nContact: <sip:[number]@[local_ip]:[local_port];transport=[transport]>\nMax-Forwards: 70\n{more}{kind}\
         Content-Length: [len]\n\n{body}\n]]>"
    )
}

fn response(start: &str, tag: bool, more: &str, body: &str) -> String {
    let to = if tag { "[last_To:];tag=[pid]d[call_number]" } else { "[last_To:]" };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\n" };
    format!(
        "<send><![CDATA[\n\nSIP/2.0 {start}\n[last_Via:]\n[last_Record-Route:]\n[last_From:]\n{to}\n[last_Call-ID:]\n[last_CSeq:]\n\
         Contact: <sip:[number]@[local_ip]:[local_port];transport=[transport]>\n{more}{kind}Content-Length: [len]\n\n{body}\n]]></send>\n"
    )
}

fn caller(fate: Fate) -> String {
    let invite = request("INVITE sip:[service]@[remote_ip]:[remote_port]", "", "77 INVITE", "", SDP);
    let mut out = format!("<send retrans=\"500\">{invite}</send>\n<recv response=\"100\" optional=\"true\"/>\n");
    let ack = |n: u32| {
        format!(
            "<send>{}</send>\n",
            request("ACK [next_url]", "[peer_tag_param]", &format!("{n} ACK"), "[routes]\n", "")
        )
    };
    let ask = |method: &str, n: u32, more: &str, body: &str| {
        let start = format!("{method} [next_url]");
        format!(
            "<send retrans=\"500\">{}</send>\n",
            request(&start, "[peer_tag_param]", &format!("{n} {method}"), &format!("[routes]\n{more}"), body)
        )
    };
    let pause = "<pause milliseconds=\"300\"/>\n";
    match fate {
        Fate::Refused(code) => {
            out += "<recv response=\"180\" optional=\"true\"/>\n";
            out += &format!("<recv response=\"{code}\"/>\n");
            let line = request("ACK sip:[service]@[remote_ip]:[remote_port]", "[peer_tag_param]", "77 ACK", "", "");
            out += &format!("<send>{}</send>\n", line);
        }
        Fate::Cancelled | Fate::Rings => {
            out += "<recv response=\"180\"/>\n";
            if fate == Fate::Rings {
                return out + "<pause milliseconds=\"60000\"/>\n";
            }
            let cancel = request(
                "CANCEL sip:[service]@[remote_ip]:[remote_port]",
                "",
                "77 CANCEL",
                "Reason: SIP;cause=200\n",
                "",
            );
            out += &format!("{pause}<send retrans=\"500\">{}</send>\n", cancel);
            out += "<recv response=\"200\"/>\n<recv response=\"487\"/>\n";
            let line = request("ACK sip:[service]@[remote_ip]:[remote_port]", "[peer_tag_param]", "77 ACK", "", "");
            out += &format!("<send>{}</send>\n", line);
        }
        Fate::Ends | Fate::Stays | Fate::Moved => {
            out += "<recv response=\"180\" optional=\"true\"/>\n<recv response=\"183\" optional=\"true\"/>\n<recv response=\"200\" rrs=\"true\"/>\n";
            out += &ack(77);
            out += pause;
            let mut bye = 78;
            if fate == Fate::Moved {
                let said =
                    |version: &str, direction: &str| format!("{}a={direction}\n", SDP.replace("2353687637", version));
                for (n, body) in [(78, said("2353687638", "sendonly")), (79, said("2353687639", "sendrecv"))] {
                    out += &ask("INVITE", n, "", &body);
                    out += "<recv response=\"100\" optional=\"true\"/>\n<recv response=\"200\"/>\n";
                    out += &ack(n);
                    out += pause;
                }
                out += &ask("REFER", 80, "Refer-To: <sip:2777@[remote_ip]>\n", "");
                out += "<recv response=\"202\"/>\n";
                bye = 81;
            }
            if fate == Fate::Stays {
                return out + "<pause milliseconds=\"60000\"/>\n";
            }
            out += &ask("BYE", bye, "", "");
            // A server that handles a transfer reports its progress in the meantime.
            for method in ["NOTIFY", "NOTIFY", "NOTIFY", "BYE"].iter().filter(|_| fate == Fate::Moved) {
                out += &format!("<recv request=\"{method}\" optional=\"true\"/>\n");
            }
            out += "<recv response=\"200\"/>\n";
        }
    }
    out
}

fn called(fate: Fate) -> String {
    let mut out = "<recv request=\"INVITE\" rrs=\"true\"/>\n".to_owned();
    if fate == Fate::Cancelled {
        // The answer to CANCEL, then the answer to the INVITE. SIPp no longer has the INVITE's header lines, but only
        // its CSeq differs.
        out = "<recv request=\"INVITE\"><action><ereg regexp=\"[0-9]+\" search_in=\"hdr\" header=\"CSeq:\" assign_to=\"1\"/></action></recv>\n"
            .to_owned();
    }
    out += &response("180 Ringing", true, "", "");
    let ok = |tag: bool| response("200 OK", tag, "", &SDP.replace("party", "called"));
    match fate {
        Fate::Refused(code) => out += &(response(&format!("{code} No"), true, "", "") + "<recv request=\"ACK\"/>\n"),
        Fate::Cancelled => {
            out += "<recv request=\"CANCEL\"/>\n";
            out += &response("200 OK", true, "", "");
            out += &response("487 Request Terminated", true, "", "").replace("[last_CSeq:]", "CSeq: [$1] INVITE");
            out += "<recv request=\"ACK\"/>\n";
        }
        Fate::Rings => out += "<pause milliseconds=\"60000\"/>\n",
        Fate::Stays => out += &(ok(true) + "<recv request=\"ACK\"/>\n<pause milliseconds=\"60000\"/>\n"),
        Fate::Ends | Fate::Moved => {
            out += &(ok(true) + "<recv request=\"ACK\"/>\n");
            if fate == Fate::Moved {
                for n in ["2353687638", "2353687639"] {
                    out += "<recv request=\"INVITE\"/>\n";
                    out += &response("200 OK", false, "", &SDP.replace("party", "called").replace("2353687637", n));
                    out += "<recv request=\"ACK\"/>\n";
                }
                out += "<recv request=\"REFER\"/>\n";
                out += &response("202 Accepted", false, "", "");
            }
            out += &format!("<recv request=\"BYE\"/>\n{}", response("200 OK", false, "", ""));
        }
    }
    out
}

/// A party; `peer` is the next hop of a caller, and `tcp` the transport.
pub(crate) struct Party<'a> {
    pub(crate) host: &'a Host,
    pub(crate) number: u16,
    pub(crate) tcp: bool,
    pub(crate) fate: Fate,
}

impl Party<'_> {
    /// Starts the called party, on the port for its number.
    pub(crate) fn called(&self) -> Result<Proc> {
        let peer = SocketAddr::from((self.host.ip4, 5060));
        self.start(&called(self.fate), peer, &[])
    }

    /// Starts the caller.
    pub(crate) fn calls(&self, to: u16, by: SocketAddr) -> Result<Proc> {
        self.start(&caller(self.fate), by, &["-s", &to.to_string()])
    }

    fn start(&self, steps: &str, peer: SocketAddr, more: &[&str]) -> Result<Proc> {
        let name = format!("party-{}", self.number);
        let text = format!(
            "<?xml version=\"1.0\" encoding=\"ISO-8859-1\" ?>\n<scenario name=\"party\">\n{steps}</scenario>\n"
        );
        let path = self.host.dir.join(format!("{name}.xml"));
        std::fs::write(&path, text)?;
        let (path, peer) = (path.to_string_lossy().into_owned(), peer.to_string());
        // SIPp takes several consecutive ports for media.
        let (ip, port, media) = (
            self.host.ip4.to_string(),
            (self.number + 10_000).to_string(),
            (20_000 + self.number % 1000 * 10).to_string(),
        );
        let (number, errors) = (self.number.to_string(), self.host.dir.join(format!("{name}.errors.log")));
        let errors = errors.to_string_lossy();
        let argv = [
            "sipp",
            &peer,
            "-sf",
            &path,
            "-i",
            &ip,
            "-p",
            &port,
            "-mp",
            &media,
            "-m",
            "1",
            "-nostdin",
            "-trace_err",
            "-error_file",
            &errors,
            "-timeout",
            "60s",
            "-cid_str",
            "%u-%p@%s",
            "-key",
            "number",
            &number,
            "-t",
            if self.tcp { "t1" } else { "u1" },
        ];
        self.host.spawn(&name, &[&argv[..], more].concat())
    }
}

/// A Kamailio on the host's own address, over UDP and TCP: a proxy that stays in the path.
pub(crate) fn kamailio(lan: &Lan, host: &Host) -> Result<Kamailio> {
    let (ip, p1, p2) = (host.ip4, lan.host("p1")?.ip4, lan.host("p2")?.ip4);
    let global = format!("tcp_connection_lifetime=600\nlisten=udp:{ip}:5060\nlisten=tcp:{ip}:5060\n");
    let rest = format!(
        r#"
modparam("rr", "append_fromtag", 1)
request_route {{
    route(DIALOG);
    if (is_method("INVITE")) record_route();
    $var(port) = $(rU{{s.int}}) + 10000;
    $var(transport) = $pr;
    if ($rU =~ "^1[0-9]{{3}}$") {{ $ru = "sip:" + $rU + "@{p1}:" + $var(port) + ";transport=" + $var(transport); }}
    else if ($rU =~ "^2[0-9]{{3}}$") {{ $ru = "sip:" + $rU + "@{p2}:" + $var(port) + ";transport=" + $var(transport); }}
    else {{ sl_send_reply("404", "Unknown number"); exit; }}
    t_relay();
}}
"#
    );
    Ok(Kamailio::start(host, &global, &rest)?.0)
}
