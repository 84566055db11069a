//! A real Asterisk on a host of the lab: SIP and media on the VIP, and a dial plan between the two phone hosts.

use super::lan::{Host, Lan, VIP4};
use super::proc::Proc;
use super::wait;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A cold start reads some 60 modules from disk.
const READY: Duration = Duration::from_secs(60);
/// Only what a call between two phones needs: with a short list Asterisk starts in about a second.
const MODULES: &[&str] = &[
    "res_sorcery_config",
    "res_sorcery_memory",
    "res_sorcery_astdb",
    "res_timing_timerfd",
    "res_pjproject",
    "res_statsd",
    "res_pjsip",
    "res_pjsip_session",
    "res_pjsip_pubsub",
    "res_pjsip_sdp_rtp",
    "res_pjsip_caller_id",
    "res_pjsip_endpoint_identifier_ip",
    "res_pjsip_rfc3326",
    "res_pjsip_refer",
    "res_pjsip_nat",
    "res_pjsip_dlg_options",
    "res_rtp_asterisk",
    "chan_pjsip",
    "app_dial",
    "app_echo",
    "pbx_config",
    "bridge_simple",
    "bridge_native_rtp",
    "bridge_softmix",
    "bridge_holding",
    "codec_ulaw",
    "codec_alaw",
    "func_callerid",
];

/// A running Asterisk.
pub struct Asterisk {
    /// The process.
    pub proc: Proc,
    /// Asterisk writes its process id here.
    pub pidfile: PathBuf,
    conf: PathBuf,
    host: Host,
}

/// What a test adds to an Asterisk that only connects two phones.
#[derive(Default)]
pub struct Extra {
    /// More modules.
    pub modules: &'static [&'static str],
    /// More configuration files, by name.
    pub files: Vec<(&'static str, String)>,
    /// More of the dial plan.
    pub extensions: String,
}

impl Asterisk {
    /// Writes the configuration and starts Asterisk. Asterisk binds to the VIP, which the host may not have yet.
    pub fn start(lan: &Lan, host: &Host) -> Result<Self> {
        Self::start_with(lan, host, Extra::default())
    }

    /// As [`Self::start`], with more modules, files and extensions.
    pub fn start_with(lan: &Lan, host: &Host, extra: Extra) -> Result<Self> {
        host.sysctl("net/ipv4/ip_nonlocal_bind", "1")?;
        let dir = host.dir.join("asterisk");
        let conf = write_files(lan, &dir, extra)?;
        let proc = host.spawn("asterisk", &["asterisk", "-f", "-n", "-C", &conf.to_string_lossy()])?;
        Ok(Self { proc, pidfile: dir.join("run/asterisk.pid"), conf, host: host.clone() })
    }

    /// Waits until both SIP sockets are open.
    pub fn wait_ready(&mut self) -> Result<()> {
        let (conf, host) = (self.conf.clone(), self.host.clone());
        let proc = &mut self.proc;
        wait::until("Asterisk to listen", READY, || {
            if let Ok(Some(status)) = proc.ended() {
                return Err(format!("Asterisk ended with {status}: {}", proc.tail()));
            }
            let out = host.exec(&["asterisk", "-C", &conf.to_string_lossy(), "-rx", "pjsip show transports"]);
            let text = out.map_err(|e| format!("{e:#}"))?;
            if text.contains("Objects found: 2") { Ok(()) } else { Err(text) }
        })
    }

    /// Asterisk's host.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// Program and arguments that run a console command, for a process on the host itself.
    pub fn console_command(&self, command: &str) -> Vec<String> {
        ["/usr/sbin/asterisk", "-C", &self.conf.to_string_lossy(), "-rx", command].map(str::to_owned).to_vec()
    }

    /// Runs a command on Asterisk's console.
    pub fn console(&self, command: &str) -> Result<String> {
        self.host.exec(&["asterisk", "-C", &self.conf.to_string_lossy(), "-rx", command])
    }
}

fn write_files(lan: &Lan, dir: &Path, extra: Extra) -> Result<PathBuf> {
    for sub in ["etc", "lib", "run", "spool", "log", "keys", "agi", "db"] {
        std::fs::create_dir_all(dir.join(sub))?;
    }
    let d = dir.display();
    // With "require" Asterisk ends at once if a module is missing, instead of refusing calls later.
    let mut modules = String::from("[modules]\nautoload=no\n");
    for m in MODULES.iter().chain(extra.modules) {
        let _ = writeln!(modules, "require={m}.so");
    }
    let files = [
        (
            "asterisk.conf",
            format!(
                "[directories]\nastetcdir={d}/etc\nastmoddir=/usr/lib/asterisk/modules\nastvarlibdir={d}/lib\nastdbdir={d}/db\n\
                 astkeydir={d}/keys\nastdatadir=/usr/share/asterisk\nastagidir={d}/agi\nastspooldir={d}/spool\nastrundir={d}/run\n\
                 astlogdir={d}/log\n[options]\nverbose=3\n"
            ),
        ),
        ("modules.conf", modules),
        ("logger.conf", "[general]\n[logfiles]\nmessages.log => notice,warning,error,verbose\n".to_owned()),
        ("rtp.conf", "[general]\nrtpstart=10000\nrtpend=20000\nstrictrtp=no\nicesupport=no\n".to_owned()),
        ("pjproject.conf", "[startup]\n".to_owned()),
        ("features.conf", "[general]\n".to_owned()),
        ("pjsip.conf", pjsip(lan)?),
        ("extensions.conf", extensions(lan)? + &extra.extensions),
    ];
    for (name, text) in files.into_iter().chain(extra.files) {
        std::fs::write(dir.join("etc").join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(dir.join("etc/asterisk.conf"))
}

fn pjsip(lan: &Lan) -> Result<String> {
    let mut out = format!(
        "[global]\ntype=global\nuser_agent=lab\n\n[vip]\ntype=transport\nprotocol=udp\nbind={VIP4}:5060\n\n\
         [checks]\ntype=transport\nprotocol=udp\nbind=127.0.0.1:5060\n"
    );
    for phones in ["p1", "p2"] {
        let ip = lan.host(phones)?.ip4;
        let _ = write!(
            out,
            "\n[{phones}]\ntype=endpoint\ntransport=vip\ncontext=lab\ndisallow=all\nallow=ulaw,alaw\ndirect_media=no\n\
             rtp_symmetric=no\nforce_rport=no\nrewrite_contact=no\ntimers=no\nmedia_address={VIP4}\n\
             bind_rtp_to_media_address=yes\ntrust_id_inbound=yes\naors={phones}\n\n\
             [{phones}]\ntype=aor\ncontact=sip:{ip}:5060\n\n[{phones}]\ntype=identify\nendpoint={phones}\nmatch={ip}\n"
        );
    }
    // The agent's checks come over loopback. Any response would show a living server; 200 shows this one.
    out.push_str("\n[local]\ntype=endpoint\ntransport=checks\ncontext=checks\ndisallow=all\nallow=ulaw\n\n");
    out.push_str("[local]\ntype=identify\nendpoint=local\nmatch=127.0.0.1\n");
    Ok(out)
}

/// The SIP port of each phone is its number plus 10000.
fn extensions(lan: &Lan) -> Result<String> {
    let (p1, p2) = (lan.host("p1")?.ip4, lan.host("p2")?.ip4);
    Ok(format!(
        "[lab]\nexten => _1XXX,1,Dial(PJSIP/p1/sip:${{EXTEN}}@{p1}:$[${{EXTEN}} + 10000],60)\n\
         exten => _2XXX,1,Dial(PJSIP/p2/sip:${{EXTEN}}@{p2}:$[${{EXTEN}} + 10000],60)\n\
         \n[checks]\nexten => keepcall,1,Answer()\nexten => s,1,Answer()\n"
    ))
}
