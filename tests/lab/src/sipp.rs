//! SIPp as a party of a call: user agents that nobody here wrote, with scenarios that check the re-INVITE.

use super::lan::{Host, VIP4};
use super::proc::Proc;
use anyhow::Result;

/// How a party ends the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// This party ends the call.
    HangsUp,
    /// The other party ends the call.
    IsHungUp,
}

/// The version in the `o=` line of SIPp's first description.
const VERSION: u64 = 2_353_687_637;

/// Starts the called party with this number, on the port of the number.
pub fn called(host: &Host, number: u16, end: End) -> Result<Proc> {
    start(host, number, &scenario(&format!("{CALLED}{REINVITED}{}", ending(end))), &[])
}

/// Starts the caller with this number, which calls `to`. The process exits with 0 if all went as the scenario says.
pub fn caller(host: &Host, number: u16, to: u16, end: End) -> Result<Proc> {
    start(host, number, &scenario(&format!("{CALLER}{REINVITED}{}", ending(end))), &["-s", &to.to_string()])
}

fn start(host: &Host, number: u16, text: &str, more: &[&str]) -> Result<Proc> {
    let name = format!("sipp-{number}");
    let path = host.dir.join(format!("{name}.xml"));
    std::fs::write(&path, text)?;
    let (port, ip, server) = ((number + 10_000).to_string(), host.ip4.to_string(), format!("{VIP4}:5060"));
    let media = (number + 30_000).to_string();
    let (messages, errors) =
        (host.dir.join(format!("{name}.messages.log")), host.dir.join(format!("{name}.errors.log")));
    let number = number.to_string();
    let (path, messages, errors) = (path.to_string_lossy(), messages.to_string_lossy(), errors.to_string_lossy());
    let argv = [
        "sipp",
        &server,
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
        "-trace_msg",
        "-message_file",
        &messages,
        "-trace_err",
        "-error_file",
        &errors,
        "-timeout",
        "60s",
        "-timeout_error",
        "-cid_str",
        "%u-%p@%s",
        "-key",
        "number",
        &number,
    ];
    host.spawn(&name, &[&argv[..], more].concat())
}

fn scenario(steps: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"ISO-8859-1\" ?>\n<scenario name=\"lab\">\n{steps}</scenario>\n")
        .replace("@VERSION@", &VERSION.to_string())
        .replace("@NEXT@", &(VERSION + 1).to_string())
}

/// The variables: 1 is the other side's name in the dialog, 3 and 11 are From and To of the re-INVITE, 6 is its
/// Contact.
const CALLER: &str = r#"<send retrans="500"><![CDATA[

INVITE sip:[service]@[remote_ip] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
From: "sipp, \"the\" caller" <sip:[number]@[local_ip]>;tag=[pid]c[call_number]
To: <sip:[service]@[remote_ip]>
Call-ID: [call_id]
CSeq: 77 INVITE
Contact: <sip:[number]@[local_ip]:[local_port]>
Max-Forwards: 70
Content-Type: application/sdp
Content-Length: [len]

v=0
o=caller 53655765 @VERSION@ IN IP4 [local_ip]
s=-
c=IN IP4 [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 8 0
a=rtpmap:8 PCMA/8000
a=rtpmap:0 PCMU/8000

]]></send>
<recv response="100" optional="true"/>
<recv response="180" optional="true"/>
<recv response="200" rrs="true"><action>
<ereg regexp=".*" search_in="hdr" header="To:" assign_to="1"/>
</action></recv>
<send><![CDATA[

ACK [next_url] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
[routes]
[last_From:]
[last_To:]
Call-ID: [call_id]
CSeq: 77 ACK
Max-Forwards: 70
Content-Length: 0

]]></send>
"#;

const CALLED: &str = r#"<recv request="INVITE" rrs="true"><action>
<ereg regexp=".*" search_in="hdr" header="From:" assign_to="1"/>
</action></recv>
<send><![CDATA[

SIP/2.0 180 Ringing
[last_Via:]
[last_Record-Route:]
[last_From:]
[last_To:];tag=[pid]d[call_number]
[last_Call-ID:]
[last_CSeq:]
Contact: <sip:[number]@[local_ip]:[local_port]>
Content-Length: 0

]]></send>
<send retrans="500"><![CDATA[

SIP/2.0 200 OK
[last_Via:]
[last_Record-Route:]
[last_From:]
[last_To:];tag=[pid]d[call_number]
[last_Call-ID:]
[last_CSeq:]
Contact: <sip:[number]@[local_ip]:[local_port]>
Content-Type: application/sdp
Content-Length: [len]

v=0
o=called 77 @VERSION@ IN IP4 [local_ip]
s=-
c=IN IP4 [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 8
a=rtpmap:8 PCMA/8000

]]></send>
<recv request="ACK"/>
"#;

/// The agent's re-INVITE must name the dialog as before, continue the other side's `o=` line, and have the recovery
/// port in Contact.
const REINVITED: &str = r#"<recv request="INVITE" rrs="true"><action>
<ereg regexp=".*" search_in="hdr" header="From:" assign_to="3"/>
<ereg regexp=".*" search_in="hdr" header="To:" assign_to="11"/>
<strcmp assign_to="4" variable="3" variable2="1"/>
<test assign_to="5" variable="4" compare="equal" value="0"/>
<ereg regexp="sip:[^ ]*10.44.0.100:5070" search_in="hdr" header="Contact:" check_it="true" assign_to="6"/>
<ereg regexp="o=[a-z.0-9-]+ [0-9]+ [0-9]+ IN IP4 [0-9.]+" search_in="body" check_it="true" assign_to="7"/>
<ereg regexp=" @NEXT@ IN IP4 " search_in="body" check_it="true" assign_to="8"/>
<ereg regexp="m=audio [0-9]+ RTP/AVP 8" search_in="body" check_it="true" assign_to="9"/>
</action></recv>
<nop condexec="5" condexec_inverse="true"><action><error message="From of the re-INVITE is [$3], the dialog's is [$1]"/></action></nop>
<send retrans="500"><![CDATA[

SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]
Contact: <sip:[number]@[local_ip]:[local_port]>
Content-Type: application/sdp
Content-Length: [len]

v=0
o=- 77 @NEXT@ IN IP4 [local_ip]
s=-
c=IN IP4 [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 8
a=rtpmap:8 PCMA/8000

]]></send>
<recv request="ACK"/>
<Reference variables="6,7,8,9,11"/>
"#;

fn ending(end: End) -> String {
    match end {
        End::IsHungUp => r#"<recv request="BYE"/>
<send><![CDATA[

SIP/2.0 200 OK
[last_Via:]
[last_From:]
[last_To:]
[last_Call-ID:]
[last_CSeq:]
Content-Length: 0

]]></send>
"#
        .to_owned(),
        // From and To of the re-INVITE change places, and its Contact is the new target (SIPp's own [next_url] stays
        // the first one). The pause is that of a person, so that the other party has its ACK.
        End::HangsUp => r#"<pause milliseconds="500"/>
<send retrans="500"><![CDATA[

BYE [$6] SIP/2.0
Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]
[routes]
From:[$11]
To:[$3]
Call-ID: [call_id]
CSeq: 900 BYE
Max-Forwards: 70
Content-Length: 0

]]></send>
<recv response="200"/>
"#
        .to_owned(),
    }
}
