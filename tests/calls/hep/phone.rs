//! baresip as a phone: over UDP or TLS, with one account; it calls or takes calls.

use lab::lan::Host;
use lab::proc::Proc;
use std::path::{Path, PathBuf};

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
pub(crate) struct Phone(Proc);

impl Phone {
    /// A phone on `host` with SIP port `port` (TLS: one above), registered as `user` at `server`. It calls `dial`, or
    /// is ready to be called.
    pub(crate) fn start(
        host: &Host,
        port: u16,
        user: &str,
        server: &str,
        certificate: &Certificate,
        dial: Option<&str>,
    ) -> Self {
        let name = format!("{}-{port}", host.name);
        let home = host.dir.join(&name);
        std::fs::create_dir_all(&home).unwrap();
        silence(&home.join("silence.wav"));
        let h = home.to_string_lossy();
        let config = format!(
            "sip_listen {}:{port}\nsip_certificate {}\naudio_source aufile,{h}/silence.wav\n\
             audio_player aufile,{h}/heard.wav\naudio_alert aufile,{h}/none.wav\n\
             module_path /usr/lib/baresip/modules\nmodule g711.so\nmodule aufile.so\n\
             module_tmp account.so\nmodule_app menu.so\n",
            host.ip4,
            certificate.both.display()
        );
        std::fs::write(home.join("config"), config).unwrap();
        let account = format!("<sip:{user}@{server}>;regint=0;answermode=auto;outbound=\"sip:{server}\"\n");
        std::fs::write(home.join("accounts"), account).unwrap();
        std::fs::write(home.join("contacts"), "").unwrap();
        if let Some(number) = dial {
            let dial = format!("/dial sip:{number}@{server}");
            return Self(host.spawn(&name, &["baresip", "-f", &h, "-e", &dial]).unwrap());
        }
        let mut proc = host.spawn(&name, &["baresip", "-f", &h]).unwrap();
        let log = proc.log.clone();
        let is_ready = || std::fs::read_to_string(&log).is_ok_and(|said| said.contains("baresip is ready"));
        proc.wait_ready("baresip", || if is_ready() { Ok(()) } else { Err("not yet".to_owned()) }).unwrap();
        Self(proc)
    }

    /// Hangs up, and ends.
    pub(crate) fn hang_up(&self) {
        self.0.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
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
