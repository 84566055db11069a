//! A real Kamailio on a host of the lab: a proxy on the VIP that stays in the path by Record-Route and does not touch
//! media.

use super::lan::{Host, Lan, VIP4};
use super::proc::Proc;
use super::wait;
use anyhow::Result;
use std::path::PathBuf;
use std::time::Duration;

const READY: Duration = Duration::from_secs(60);

/// A running Kamailio.
pub struct Kamailio {
    /// Process of Kamailio.
    pub proc: Proc,
}

impl Kamailio {
    /// Starts Kamailio and waits until its sockets are open. Returns the pid file too. `more` goes into the global part
    /// of the configuration.
    pub fn start(lan: &Lan, host: &Host, more: &str) -> Result<(Self, PathBuf)> {
        host.sysctl("net/ipv4/ip_nonlocal_bind", "1")?;
        let dir = host.dir.join("kamailio");
        std::fs::create_dir_all(&dir)?;
        let (conf, pidfile) = (dir.join("kamailio.conf"), dir.join("kamailio.pid"));
        std::fs::write(&conf, text(lan, more)?)?;
        let argv = [
            "kamailio",
            "-DD",
            "-E",
            "-m",
            "32",
            "-M",
            "4",
            "-f",
            &conf.to_string_lossy(),
            "-P",
            &pidfile.to_string_lossy(),
            "-Y",
            &dir.to_string_lossy(),
        ];
        let mut proc = host.spawn("kamailio", &argv)?;
        wait::until("Kamailio to listen", READY, || {
            if let Ok(Some(status)) = proc.ended() {
                return Err(format!("Kamailio ended with {status}: {}", proc.tail()));
            }
            let open = host.exec(&["ss", "-Hlun", "sport", "=", ":5060"]).map_err(|e| format!("{e:#}"))?;
            if open.lines().count() >= 2 && pidfile.exists() { Ok(()) } else { Err(format!("{open}\n{}", proc.tail())) }
        })?;
        Ok((Self { proc }, pidfile))
    }
}

/// As in the handbooks of Kamailio: `loose_route` for requests within a dialog, Record-Route for the first INVITE.
fn text(lan: &Lan, more: &str) -> Result<String> {
    let (p1, p2) = (lan.host("p1")?.ip4, lan.host("p2")?.ip4);
    Ok(format!(
        r#"#!KAMAILIO
debug=2
log_stderror=yes
children=2
auto_aliases=no
disable_tcp=yes
listen=udp:{VIP4}:5060
listen=udp:127.0.0.1:5060
{more}
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "siputils.so"
loadmodule "textops.so"
modparam("rr", "append_fromtag", 1)

request_route {{
    if (is_method("OPTIONS") && src_ip == 127.0.0.1) {{
        sl_send_reply("200", "OK");
        exit;
    }}
    if (!mf_process_maxfwd_header("10")) {{
        sl_send_reply("483", "Too Many Hops");
        exit;
    }}
    if (is_method("CANCEL")) {{
        if (t_check_trans()) t_relay();
        exit;
    }}
    if (has_totag()) {{
        if (loose_route()) {{
            if (is_method("INVITE")) record_route();
            t_relay();
            exit;
        }}
        if (is_method("ACK")) {{
            if (t_check_trans()) t_relay();
            exit;
        }}
        sl_send_reply("404", "Not here");
        exit;
    }}
    t_check_trans();
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
    t_relay();
}}
"#
    ))
}
