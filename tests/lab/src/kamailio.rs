//! A real Kamailio on a host of the lab: a proxy that stays in the path by Record-Route.

use super::lan::{Host, Lan, VIP4};
use super::proc::Proc;
use super::rtpengine::CONTROL;
use anyhow::Result;
use std::path::PathBuf;

/// What every Kamailio has, after the lines of its global part.
const COMMON: &str = r#"
debug=2
log_stderror=yes
children=2
auto_aliases=no
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "siputils.so"
loadmodule "textops.so"

# As in the handbooks: loose_route for requests within a dialog.
route[DIALOG] {
    if (is_method("CANCEL")) {
        if (t_check_trans()) t_relay();
        exit;
    }
    if (has_totag()) {
        if (loose_route()) {
#!ifdef RECORD_AGAIN
            if (is_method("INVITE")) record_route();
#!endif
#!ifdef WITH_MEDIA
            route(MEDIA);
#!endif
            t_relay();
            exit;
        }
        if (is_method("ACK")) {
            if (t_check_trans()) t_relay();
            exit;
        }
        sl_send_reply("404", "Not here");
        exit;
    }
    t_check_trans();
}
"#;

/// A running Kamailio.
pub struct Kamailio {
    /// Process of Kamailio.
    pub proc: Proc,
}

impl Kamailio {
    /// Starts Kamailio and waits until all its sockets are open. Returns the pid file too.
    ///
    /// `global` is its global part: a line `listen=PROTOCOL:ADDRESS:PORT` for each socket, and whatever else differs;
    /// with `#!define RECORD_AGAIN` it is in the Record-Route of re-INVITEs too. `rest` is more modules and the routes;
    /// `route(DIALOG)` forwards requests within a dialog, and goes on with all others.
    pub fn start(host: &Host, global: &str, rest: &str) -> Result<(Self, PathBuf)> {
        host.sysctl("net/ipv4/ip_nonlocal_bind", "1")?;
        let dir = host.dir.join("kamailio");
        std::fs::create_dir_all(&dir)?;
        let (conf, pidfile) = (dir.join("kamailio.conf"), dir.join("kamailio.pid"));
        let sockets: Vec<&str> = global.lines().filter_map(|line| line.strip_prefix("listen=")).collect();
        let tcp = if sockets.iter().all(|s| s.starts_with("udp:")) { "disable_tcp=yes\n" } else { "" };
        std::fs::write(&conf, format!("#!KAMAILIO\n{tcp}{global}{COMMON}{rest}"))?;
        let argv = ["kamailio", "-DD", "-E", "-m", "32", "-M", "4", "-f", &conf.to_string_lossy()];
        let files = ["-P", &pidfile.to_string_lossy(), "-Y", &dir.to_string_lossy()];
        let mut proc = host.spawn("kamailio", &[&argv[..], &files].concat())?;
        proc.wait_ready("Kamailio", || {
            host.listens(&sockets)?;
            if pidfile.exists() { Ok(()) } else { Err("no pid file".into()) }
        })?;
        Ok((Self { proc }, pidfile))
    }

    /// Starts the proxy on the VIP between the two phone hosts. Media go from phone to phone.
    pub fn proxy(lan: &Lan, host: &Host) -> Result<(Self, PathBuf)> {
        Self::between_phones(lan, host, "", "")
    }

    /// As [`Self::proxy`], with the media through the rtpengine of this host.
    pub fn media_proxy(lan: &Lan, host: &Host) -> Result<(Self, PathBuf)> {
        let rest = format!(
            r#"
loadmodule "rtpengine.so"
modparam("rtpengine", "rtpengine_sock", "udp:{CONTROL}")

route[MEDIA] {{
    if (is_method("INVITE|UPDATE")) {{
        if (has_body("application/sdp")) rtpengine_manage("replace-origin replace-session-connection ICE=remove");
        t_on_reply("MEDIA");
    }} else if (is_method("BYE")) {{
        rtpengine_delete();
    }}
}}

onreply_route[MEDIA] {{
    if (has_body("application/sdp")) rtpengine_manage("replace-origin replace-session-connection ICE=remove");
}}
"#
        );
        Self::between_phones(lan, host, "#!define WITH_MEDIA\n", &rest)
    }

    fn between_phones(lan: &Lan, host: &Host, define: &str, more: &str) -> Result<(Self, PathBuf)> {
        let (p1, p2) = (lan.host("p1")?.ip4, lan.host("p2")?.ip4);
        let global = format!("{define}#!define RECORD_AGAIN\nlisten=udp:{VIP4}:5060\nlisten=udp:127.0.0.1:5060\n");
        let rest = format!(
            r#"
loadmodule "maxfwd.so"
modparam("rr", "append_fromtag", 1)
{more}
request_route {{
    if (is_method("OPTIONS") && src_ip == 127.0.0.1) {{
        sl_send_reply("200", "OK");
        exit;
    }}
    if (!mf_process_maxfwd_header("10")) {{
        sl_send_reply("483", "Too Many Hops");
        exit;
    }}
    route(DIALOG);
    if (is_method("INVITE|SUBSCRIBE")) record_route();
    $var(port) = $(rU{{s.int}}) + 10000;
    if ($rU =~ "^[13][0-9]{{3}}$") {{
        $ru = "sip:" + $rU + "@{p1}:" + $var(port);
    }} else if ($rU =~ "^2[0-9]{{3}}$") {{
        $ru = "sip:" + $rU + "@{p2}:" + $var(port);
    }} else {{
        sl_send_reply("404", "Unknown number");
        exit;
    }}
#!ifdef WITH_MEDIA
    route(MEDIA);
#!endif
    t_relay();
}}
"#
        );
        Self::start(host, &global, &rest)
    }
}
