//! SIPp as the parties of calls, and a Kamailio between them.

use anyhow::Result;
use lab::kamailio::Kamailio;
use lab::lan::{Host, Lan};
use lab::proc::Proc;
use lab::sipp::{self, repeat, request, response, sdp, send};
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

/// The first version of a description.
const VERSION: u64 = 2_353_687_637;
/// Target of requests outside of the dialog.
const FIRST: &str = "sip:[service]@[remote_ip]:[remote_port]";
const TAG: &str = "[peer_tag_param]";

fn description(user: &str, version: u64) -> String {
    sdp(&format!("{user} 53655765 {version}"), true)
}

fn caller(fate: Fate) -> String {
    let invite = request(&format!("INVITE {FIRST}"), "", "77 INVITE", "", &description("party", VERSION));
    let mut out = repeat(&invite) + "<recv response=\"100\" optional=\"true\"/>\n";
    let ack = |n: u32| send(&request("ACK [next_url]", TAG, &format!("{n} ACK"), "[routes]\n", ""));
    let ask = |method: &str, n: u32, more: &str, body: &str| {
        let start = format!("{method} [next_url]");
        repeat(&request(&start, TAG, &format!("{n} {method}"), &format!("[routes]\n{more}"), body))
    };
    let refused = || send(&request(&format!("ACK {FIRST}"), TAG, "77 ACK", "", ""));
    let pause = "<pause milliseconds=\"300\"/>\n";
    match fate {
        Fate::Refused(code) => {
            out += &format!("<recv response=\"180\" optional=\"true\"/>\n<recv response=\"{code}\"/>\n{}", refused());
        }
        Fate::Cancelled => {
            let cancel = request(&format!("CANCEL {FIRST}"), "", "77 CANCEL", "Reason: SIP;cause=200\n", "");
            out += &format!("<recv response=\"180\"/>\n{pause}{}", repeat(&cancel));
            out += &format!("<recv response=\"200\"/>\n<recv response=\"487\"/>\n{}", refused());
        }
        Fate::Rings => out += "<recv response=\"180\"/>\n<pause milliseconds=\"60000\"/>\n",
        Fate::Ends | Fate::Stays | Fate::Moved => {
            out += "<recv response=\"180\" optional=\"true\"/>\n<recv response=\"183\" optional=\"true\"/>\n";
            out += "<recv response=\"200\" rrs=\"true\"/>\n";
            out += &ack(77);
            out += pause;
            let mut bye = 78;
            if fate == Fate::Moved {
                for (n, version, direction) in [(78, VERSION + 1, "sendonly"), (79, VERSION + 2, "sendrecv")] {
                    out += &ask("INVITE", n, "", &format!("{}a={direction}\n", description("party", version)));
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
        out = "<recv request=\"INVITE\"><action>\n\
               <ereg regexp=\"[0-9]+\" search_in=\"hdr\" header=\"CSeq:\" assign_to=\"1\"/></action></recv>\n"
            .to_owned();
    }
    let answer = |start: &str, tag: bool, body: &str| send(&response(start, tag, body));
    out += &answer("180 Ringing", true, "");
    let ok =
        |tag: bool, version: u64| answer("200 OK", tag, &description("called", version)) + "<recv request=\"ACK\"/>\n";
    match fate {
        Fate::Refused(code) => out += &(answer(&format!("{code} No"), true, "") + "<recv request=\"ACK\"/>\n"),
        Fate::Cancelled => {
            out += "<recv request=\"CANCEL\"/>\n";
            out += &answer("200 OK", true, "");
            out += &answer("487 Request Terminated", true, "").replace("[last_CSeq:]", "CSeq: [$1] INVITE");
            out += "<recv request=\"ACK\"/>\n";
        }
        Fate::Rings => out += "<pause milliseconds=\"60000\"/>\n",
        Fate::Stays => out += &(ok(true, VERSION) + "<pause milliseconds=\"60000\"/>\n"),
        Fate::Ends | Fate::Moved => {
            out += &ok(true, VERSION);
            if fate == Fate::Moved {
                for version in [VERSION + 1, VERSION + 2] {
                    out += "<recv request=\"INVITE\"/>\n";
                    out += &ok(false, version);
                }
                out += "<recv request=\"REFER\"/>\n";
                out += &answer("202 Accepted", false, "");
            }
            out += &format!("<recv request=\"BYE\"/>\n{}", answer("200 OK", false, ""));
        }
    }
    out
}

/// A party, over TCP or UDP.
pub(crate) struct Party<'a> {
    pub(crate) host: &'a Host,
    pub(crate) number: u16,
    pub(crate) tcp: bool,
    pub(crate) fate: Fate,
}

impl Party<'_> {
    /// Starts the called party, which listens when this returns.
    pub(crate) fn called(&self) -> Result<Proc> {
        sipp::called(self.host, self.number, self.tcp, &with_transport(&called(self.fate)))
    }

    /// Starts the caller.
    pub(crate) fn calls(&self, to: u16, by: SocketAddr) -> Result<Proc> {
        sipp::caller(self.host, self.number, self.tcp, &with_transport(&caller(self.fate)), to, by)
    }
}

/// The scenario with the transport in each Contact.
fn with_transport(steps: &str) -> String {
    steps.replace(":[local_port]>", ":[local_port];transport=[transport]>")
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
