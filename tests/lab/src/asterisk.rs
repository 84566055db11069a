//! A real Asterisk on a host of the lab: SIP and media on the VIP, and a dial plan between the two phone hosts.

use super::lan::{Host, Lan, VIP4};
use super::proc::Proc;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

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

fn spawn(host: &Host, conf: &Path) -> Result<Proc> {
    host.spawn("asterisk", &["asterisk", "-f", "-n", "-C", &conf.to_string_lossy()])
}

/// A running Asterisk.
pub struct Asterisk {
    /// The process.
    pub proc: Proc,
    /// Asterisk writes its process id here.
    pub pidfile: PathBuf,
    conf: PathBuf,
    host: Host,
    /// Sockets of SIP.
    transports: usize,
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
        Self::launch(host, extra.modules, &pjsip(lan)?, &(extensions(lan)? + &extra.extensions), extra.files)
    }

    /// Starts Asterisk with these two files, with more modules than a plain call needs, and with more files.
    pub fn launch(
        host: &Host,
        modules: &[&str],
        pjsip: &str,
        extensions: &str,
        more: Vec<(&str, String)>,
    ) -> Result<Self> {
        host.sysctl("net/ipv4/ip_nonlocal_bind", "1")?;
        let dir = host.dir.join("asterisk");
        let conf = dir.join("etc/asterisk.conf");
        let files = [("pjsip.conf", pjsip.to_owned()), ("extensions.conf", extensions.to_owned())];
        write_files(&dir, modules, files.into_iter().chain(more))?;
        let proc = spawn(host, &conf)?;
        let transports = pjsip.matches("type=transport").count();
        Ok(Self { proc, pidfile: dir.join("run/asterisk.pid"), conf, host: host.clone(), transports })
    }

    /// Waits until all sockets of SIP are open, and Asterisk is fully booted: before that it ignores all traffic.
    pub fn wait_ready(&mut self) -> Result<()> {
        let (conf, host) = (self.conf.to_string_lossy(), &self.host);
        let found = format!("Objects found: {}", self.transports);
        self.proc.wait_ready("Asterisk", || {
            for (command, answer) in [("pjsip show transports", &*found), ("core waitfullybooted", "fully booted")] {
                let out = host.exec(&["asterisk", "-C", &conf, "-rx", command]).map_err(|e| format!("{e:#}"))?;
                if !out.contains(answer) {
                    return Err(out);
                }
            }
            Ok(())
        })
    }

    /// Kills Asterisk as abruptly as a crash, and returns when it has ended.
    pub fn crash(&mut self) {
        self.proc.kill();
    }

    /// Starts Asterisk again with the same configuration after [`Self::crash`].
    pub fn start_again(&mut self) -> Result<()> {
        self.proc = spawn(&self.host, &self.conf)?;
        Ok(())
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

fn write_files<'f>(dir: &Path, modules: &[&str], more: impl Iterator<Item = (&'f str, String)>) -> Result<()> {
    for sub in ["etc", "lib", "run", "spool", "log", "keys", "agi", "db"] {
        std::fs::create_dir_all(dir.join(sub))?;
    }
    let d = dir.display();
    // With "require" Asterisk ends at once if a module is missing, instead of refusing calls later.
    let mut list = String::from("[modules]\nautoload=no\n");
    for m in MODULES.iter().chain(modules) {
        let _ = writeln!(list, "require={m}.so");
    }
    let files = [
        (
            "asterisk.conf",
            format!(
                "[directories]\nastetcdir={d}/etc\nastmoddir=/usr/lib/asterisk/modules\n\
                 astvarlibdir={d}/lib\nastdbdir={d}/db\nastkeydir={d}/keys\nastdatadir=/usr/share/asterisk\n\
                 astagidir={d}/agi\nastspooldir={d}/spool\nastrundir={d}/run\nastlogdir={d}/log\n[options]\nverbose=3\n"
            ),
        ),
        ("modules.conf", list),
        ("logger.conf", "[general]\n[logfiles]\nmessages.log => notice,warning,error,verbose\n".to_owned()),
        ("rtp.conf", "[general]\nrtpstart=10000\nrtpend=20000\nstrictrtp=no\nicesupport=no\n".to_owned()),
        ("pjproject.conf", "[startup]\n".to_owned()),
        ("features.conf", "[general]\n".to_owned()),
    ];
    for (name, text) in files.into_iter().chain(more) {
        std::fs::write(dir.join("etc").join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
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
