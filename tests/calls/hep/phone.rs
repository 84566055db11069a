//! baresip as a phone: over UDP or TLS, with one account; it calls or takes calls.

use lab::netns::Lan;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A certificate with its key, in one file each and in one together. Every party in a test trusts any certificate.
pub(crate) struct Certificate {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) both: PathBuf,
}

impl Certificate {
    pub(crate) fn new(dir: &Path) -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["sip.test".to_owned()]).unwrap();
        let this = Self { cert: dir.join("cert.pem"), key: dir.join("key.pem"), both: dir.join("both.pem") };
        std::fs::write(&this.cert, cert.pem()).unwrap();
        std::fs::write(&this.key, signing_key.serialize_pem()).unwrap();
        std::fs::write(&this.both, signing_key.serialize_pem() + &cert.pem()).unwrap();
        this
    }
}

/// A running phone.
pub(crate) struct Phone {
    child: Child,
    log: PathBuf,
}

impl Phone {
    /// A phone in `host` with the address `ip` and SIP port `port` (TLS: one above), registered as `user` at `server`.
    #[allow(clippy::too_many_arguments, reason = "a test says all of it at one place")]
    pub(crate) fn start(
        lan: &Lan,
        host: &str,
        dir: &Path,
        ip: &str,
        port: u16,
        user: &str,
        server: &str,
        tls: &Path,
        dial: Option<&str>,
    ) -> Self {
        let name = format!("{host}-{port}");
        let home = dir.join(&name);
        std::fs::create_dir_all(&home).unwrap();
        silence(&home.join("silence.wav"));
        let h = home.display();
        let config = format!(
            "sip_listen {ip}:{port}\nsip_certificate {}\naudio_source aufile,{h}/silence.wav\naudio_player aufile,{h}/heard.wav\n\
             audio_alert aufile,{h}/none.wav\nmodule_path /usr/lib/baresip/modules\nmodule g711.so\nmodule aufile.so\n\
             module_tmp account.so\nmodule_app menu.so\n",
            tls.display()
        );
        std::fs::write(home.join("config"), config).unwrap();
        let account = format!("<sip:{user}@{server}>;regint=0;answermode=auto;outbound=\"sip:{server}\"\n");
        std::fs::write(home.join("accounts"), account).unwrap();
        std::fs::write(home.join("contacts"), "").unwrap();
        let log = dir.join(format!("{name}.log"));
        let out = std::fs::File::create(&log).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &lan.space(host), "baresip", "-f"]).arg(&home);
        if let Some(number) = dial {
            command.args(["-e", &format!("/dial sip:{number}@{server}")]);
        }
        let child = command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        Self { child, log }
    }

    /// Hangs up, and ends.
    pub(crate) fn hang_up(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    /// Its output so far.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        // It may already have ended, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Half a minute of silence: 8 kHz, 16 bits, one channel.
fn silence(path: &Path) {
    let length = 30 * 16_000_u32;
    let mut wav = b"RIFF".to_vec();
    wav.extend((36 + length).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    for n in [16_u32, 1 | 1 << 16, 8000, 16_000, 2 | 16 << 16] {
        wav.extend(n.to_le_bytes());
    }
    wav.extend(b"data");
    wav.extend(length.to_le_bytes());
    wav.resize(44 + length as usize, 0);
    std::fs::write(path, wav).unwrap();
}
