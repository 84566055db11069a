//! SIPp with scenarios that check the re-INVITE.

use anyhow::Result;
use lab::lan::{Host, VIP4};
use lab::proc::Proc;
use lab::sipp::{self, repeat, request, response, sdp, send};
use std::net::SocketAddr;

/// How a party ends the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// This party ends the call.
    HangsUp,
    /// The other party ends the call.
    IsHungUp,
}

/// The version in the `o=` line of SIPp's first description.
const VERSION: u64 = 2_353_687_637;

/// Remembers the version of the server's description.
const ORIGIN: &str = r#"<ereg regexp="o=[^ ]+ [0-9]+ ([0-9]+) IN" search_in="body" check_it="true" assign_to="2,12"/>"#;

/// Starts the called party with this number.
pub(crate) fn called(host: &Host, number: u16, end: End) -> Result<Proc> {
    let description = sdp(&format!("called 77 {VERSION}"), false);
    let steps = format!(
        r#"<recv request="INVITE" rrs="true"><action>
<ereg regexp=".*" search_in="hdr" header="From:" assign_to="1"/>
{ORIGIN}
</action></recv>
{}{}<recv request="ACK"/>
{}"#,
        send(&response("180 Ringing", true, "")),
        repeat(&response("200 OK", true, &description)),
        reinvited(end)
    );
    sipp::called(host, number, false, &steps)
}

/// Starts the caller with this number, which calls `to`. The process exits with 0 if all went as the scenario says.
pub(crate) fn caller(host: &Host, number: u16, to: u16, end: End) -> Result<Proc> {
    let description = sdp(&format!("caller 53655765 {VERSION}"), true);
    let steps = format!(
        r#"{}<recv response="100" optional="true"/>
<recv response="180" optional="true"/>
<recv response="200" rrs="true"><action>
<ereg regexp=".*" search_in="hdr" header="To:" assign_to="1"/>
{ORIGIN}
</action></recv>
{}{}"#,
        repeat(&request("INVITE sip:[service]@[remote_ip]", "", "77 INVITE", "", &description)),
        send(&request("ACK [next_url]", "[peer_tag_param]", "77 ACK", "[routes]\n", "")),
        reinvited(end)
    );
    sipp::caller(host, number, false, &steps, to, SocketAddr::from((VIP4, 5060)))
}

/// The agent's re-INVITE must name the dialog as before, continue the other side's `o=` line, and have the recovery
/// port in Contact. Then the call ends.
///
/// The variables: 1 is the other side's name in the dialog, 3 and 11 are From and To of the re-INVITE, 6 is its
/// Contact. 12 and 13 are the versions in the server's `o=` line, before and in the re-INVITE.
fn reinvited(end: End) -> String {
    let next = VERSION + 1;
    format!(
        r#"<recv request="INVITE" rrs="true"><action>
<ereg regexp=".*" search_in="hdr" header="From:" assign_to="3"/>
<ereg regexp=".*" search_in="hdr" header="To:" assign_to="11"/>
<strcmp assign_to="4" variable="3" variable2="1"/>
<test assign_to="5" variable="4" compare="equal" value="0"/>
<ereg regexp="sip:[^ ]*10.44.0.100:5070" search_in="hdr" header="Contact:" check_it="true" assign_to="6"/>
<ereg regexp="o=[a-z.0-9-]+ [0-9]+ ([0-9]+) IN IP4 [0-9.]+" search_in="body" check_it="true" assign_to="7,13"/>
<todouble assign_to="14" variable="12"/>
<todouble assign_to="15" variable="13"/>
<subtract assign_to="15" variable="14"/>
<test assign_to="8" variable="15" compare="equal" value="1"/>
<ereg regexp="m=audio [0-9]+ RTP/AVP 8" search_in="body" check_it="true" assign_to="9"/>
</action></recv>
<nop condexec="5" condexec_inverse="true"><action>
<error message="From of the re-INVITE is [$3], the dialog's is [$1]"/></action></nop>
<nop condexec="8" condexec_inverse="true"><action>
<error message="the version in o= is [$13], and was [$12]"/></action></nop>
{}<recv request="ACK"/>
<Reference variables="2,6,7,9,11"/>
{}"#,
        repeat(&response("200 OK", false, &sdp(&format!("- 77 {next}"), false))),
        ending(end)
    )
}

fn ending(end: End) -> String {
    match end {
        End::IsHungUp => format!("<recv request=\"BYE\"/>\n{}", send(&response("200 OK", false, ""))),
        // From and To of the re-INVITE change places, and its Contact is the new target (SIPp's own [next_url] and its
        // destination stay the first ones). The pause is that of a person, so that the other party has its ACK.
        End::HangsUp => r#"<pause milliseconds="500"/>
<nop><action><setdest host="10.44.0.100" port="5070" protocol="udp"/></action></nop>
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
