//! Configuration files: which are accepted, and the exact messages about the others.
//!
//! `tests/plain/config/invalid/NAME.toml` must give exactly `NAME.txt`. `KEEPCALL_BLESS=1` rewrites the texts; read the
//! difference before you keep it. Warnings of accepted files are compared the same way.

use keepcall::config::{Files, load, parse};
use std::fs;
use std::path::{Path, PathBuf};

fn files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut files: Vec<_> = fs::read_dir(&directory).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "toml"));
    files.sort();
    assert!(!files.is_empty(), "no files in {}", directory.display());
    files
}

fn compare(file: &Path, said: &str) {
    let expected = file.with_extension("txt");
    if std::env::var_os("KEEPCALL_BLESS").is_some() {
        fs::write(&expected, said).unwrap();
    }
    assert_eq!(
        said,
        fs::read_to_string(&expected).unwrap_or_default(),
        "what was said about {} (left) is new",
        file.display()
    );
}

#[test]
fn wrong_files_are_refused_with_every_mistake_and_its_place() {
    for file in files("tests/plain/config/invalid") {
        let name = file.file_name().unwrap().to_str().unwrap();
        let error = parse(&fs::read_to_string(&file).unwrap(), name, Files::Ignore).expect_err(name);
        compare(&file, &format!("{error}\n"));
    }
}

#[test]
fn odd_files_are_accepted_with_warnings() {
    for file in files("tests/plain/config/valid") {
        let name = file.file_name().unwrap().to_str().unwrap();
        let loaded = parse(&fs::read_to_string(&file).unwrap(), name, Files::Ignore).unwrap_or_else(|e| panic!("{e}"));
        let warnings: Vec<String> = loaded.warnings.iter().map(|w| w.as_warning(name)).collect();
        compare(&file, &format!("{}\n", warnings.join("\n\n")));
    }
}

#[test]
fn every_example_is_accepted_without_a_warning() {
    for file in files("config") {
        let loaded = parse(&fs::read_to_string(&file).unwrap(), "x", Files::Ignore)
            .unwrap_or_else(|e| panic!("{}\n{e}", file.display()));
        assert!(loaded.warnings.is_empty(), "{}: {:?}", file.display(), loaded.warnings);
    }
}

/// Commented-out settings below a commented-out header must be valid once the `#` are removed.
#[test]
fn every_example_of_hep_is_accepted() {
    let mut count = 0;
    for file in files("config") {
        let text = fs::read_to_string(&file).unwrap();
        let section = text.lines().skip_while(|l| *l != "# [instance.sip.hep]").take_while(|l| l.starts_with("# "));
        let section: String = section.map(|l| format!("{}\n", &l[2..])).collect();
        count += usize::from(!section.is_empty());
        let loaded = parse(&format!("{text}\n{section}"), "x", Files::Ignore)
            .unwrap_or_else(|e| panic!("{}\n{e}", file.display()));
        assert!(loaded.warnings.is_empty(), "{}: {:?}", file.display(), loaded.warnings);
        let sip = loaded.config.instances[0].sip.as_ref();
        assert_eq!(sip.is_some_and(|s| s.hep.is_some()), !section.is_empty());
    }
    assert_eq!(count, 5);
}

#[test]
fn the_annotated_example_shows_the_defaults() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/keepcall.toml")).unwrap();
    let whole = parse(&text, "whole", Files::Ignore).unwrap().config;
    let short = "[node]\nname = \"a\"\naddress = \"192.0.2.1\"\nkey_file = \"/etc/keepcall/cluster.key\"\n\
        [etcd]\nendpoints = [\"http://192.0.2.11:2379\", \"http://192.0.2.12:2379\", \"http://192.0.2.13:2379\"]\n\
        [[instance]]\nname = \"pbx\"\ninterface = \"eth0\"\naddresses = [\"192.0.2.10/24\", \"2001:db8::10/64\"]\n\
        [[instance.check]]\nname = \"options\"\n[instance.check.sip-options]\ntarget = \"127.0.0.1:5060\"\n\
        uri = \"sip:keepcall@127.0.0.1:5060\"\n[[instance.check]]\nname = \"process\"\nprocess.unit = \"asterisk.service\"\n\
        [instance.sip]\n";
    let short = parse(short, "short", Files::Ignore).unwrap_or_else(|e| panic!("{e}")).config;
    assert_eq!(format!("{whole:?}"), format!("{short:?}"));
}

#[test]
fn files_that_are_named_must_be_there_and_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    let file = directory.path().join("keepcall.toml");
    let hook = directory.path().join("hook");
    let text = format!(
        "[node]\nname = \"a\"\naddress = \"192.0.2.1\"\nkey_file = {key:?}\n[control]\ngroup = \"no-such-group\"\n\
         [etcd]\nendpoints = [\"http://h:1\"]\nuser = \"u\"\npassword_file = \"/nowhere/password\"\n\
         [[instance]]\nname = \"i\"\ninterface = \"eth0\"\naddresses = [\"192.0.2.9/24\"]\nhooks.on_master = [{hook:?}]\n"
    );
    fs::write(&file, &text).unwrap();
    fs::write(&hook, "").unwrap();
    let said = load(&file).unwrap_err().to_string();
    for part in
        ["/dev/urandom", "keepcall.toml:4:12", "groupadd --system no-such-group", "/nowhere/password", "not executable"]
    {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    assert!(parse(&text, "x", Files::Ignore).is_ok());
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&key, "short").unwrap();
    let text = text
        .replace("group = \"no-such-group\"", "")
        .replace("user = \"u\"\npassword_file = \"/nowhere/password\"\n", "");
    fs::write(&file, &text).unwrap();
    assert!(load(&file).unwrap_err().to_string().contains("has 5 bytes"));
    fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let loaded = load(&file).unwrap_or_else(|e| panic!("{e}"));
    assert!(loaded.warnings.iter().any(|w| w.message.contains("every user")), "{:?}", loaded.warnings);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(load(&file).unwrap().warnings.iter().all(|w| !w.message.contains("every user")));
    assert!(load(&directory.path().join("none")).unwrap_err().to_string().contains("--config"));
    assert!(load(directory.path()).is_err());
}

/// What the agent's start reads on this host, and what `check-config` says about it.
#[test]
fn what_this_host_lacks_is_told_by_the_check_that_the_start_uses() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, text: &[u8]| fs::write(at(name), text).unwrap();
    write("key", b"0123456789abcdef0123456789abcdef");
    write("zero", &[0; 64]);
    write("text", b"no PEM at all\n");
    write("cut", b"-----BEGIN CERTIFICATE-----\nMIIB\n");
    write("latin", b"p\xe4ss\n");
    for name in ["zero", "text", "cut", "latin", "key"] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let text = |node: &str, etcd: &str, more: &str| {
        format!(
            "[node]\nname = \"a\"\naddress = \"127.0.0.1\"\nkey_file = \"{}\"\n{node}\n[etcd]\nendpoints = \
             [\"https://h:1\"]\n{etcd}\n{more}\n[[instance]]\nname = \"i\"\ninterface = \"lo\"\n\
             addresses = [\"192.0.2.9/24\"]\n",
            at("key")
        )
    };
    let said = |text: &str| match parse(text, "x", Files::Check) {
        Ok(_) => String::new(),
        Err(e) => e.to_string(),
    };
    let ca = |name: &str| format!("ca_file = \"{}\"", at(name));
    let authority = lab::authority::Authority::new(directory.path(), "ca");
    fs::rename(&authority.file, at("ca")).unwrap();
    let (cert, key) = authority.issue(directory.path(), "client");
    let client = format!("{}\ncert_file = \"{cert}\"\nkey_file = \"{key}\"", ca("ca"));
    assert_eq!(said(&text("", &client, "")), "");
    let zero = text("", &ca("ca"), "").replace(&at("key"), &at("zero"));
    for (file, key, words) in [
        (text("", "", ""), "endpoints", "https endpoints need `ca_file`"),
        (text("", &ca("none"), ""), "ca_file", "cannot read"),
        (text("", &ca("text"), ""), "ca_file", "holds no certificate in PEM"),
        (text("", &ca("cut"), ""), "ca_file", "its PEM cannot be read"),
        (
            text("", &format!("{}\ncert_file = \"{1}\"\nkey_file = \"{1}\"", ca("ca"), at("ca")), ""),
            "key_file",
            "holds no private key in PEM",
        ),
        (
            text("", &format!("{}\nuser = \"u\"\npassword_file = \"{}\"", ca("ca"), at("latin")), ""),
            "password_file",
            "not UTF-8",
        ),
        (zero.clone(), "key_file", "repeats one byte (0x00)"),
        (
            text(&format!("accept_key_files = [\"{}\"]", at("zero")), &ca("ca"), ""),
            "accept_key_files",
            "repeats one byte",
        ),
        (text("", &ca("ca"), "[control]\nsocket = \"/dev/null\""), "socket", "exists and is not a socket"),
    ] {
        let told = said(&file);
        assert!(told.contains(words) && told.contains(key) && told.contains("\n  = "), "{words} in\n{told}");
    }
    // The words of the agent's own start are those of the check.
    let config = parse(&zero, "x", Files::Ignore).unwrap().config;
    let start = keepcall::cluster::ElectionResources::open(&config).err().unwrap().to_string();
    assert!(said(&zero).contains("repeats one byte (0x00), so everybody can guess the key"));
    assert!(start.contains("repeats one byte (0x00), so everybody can guess the key"), "{start}");
    fs::set_permissions(at("key"), fs::Permissions::from_mode(0o602)).unwrap();
    let told = said(&text("", &ca("ca"), ""));
    assert!(told.contains("can replace the secret") && told.contains("chmod 600"), "{told}");
    fs::set_permissions(at("key"), fs::Permissions::from_mode(0o600)).unwrap();
    // What may come later is a warning.
    let odd = text("", &ca("ca"), "").replace("\"lo\"", "\"eth99\"").replace("127.0.0.1", "198.51.100.77");
    let warnings = parse(&odd, "x", Files::Check).unwrap().warnings;
    for words in ["there is no interface eth99; there are: ", "this host does not have 198.51.100.77"] {
        assert!(warnings.iter().any(|w| w.message.contains(words)), "{words} in {warnings:?}");
    }
    assert!(parse(&odd, "x", Files::Ignore).unwrap().warnings.iter().all(|w| !w.message.contains("eth99")));
}

/// The check and the capture have the same limit of ports and of addresses.
#[tokio::test]
async fn the_capture_takes_every_port_that_the_check_accepts() {
    use keepcall::wire::capture::{Capture, CaptureError};
    let ports = |n: u16| (1..=n).map(|p| 5000 + p).collect::<Vec<u16>>();
    let text = |ports: &[u16]| {
        format!(
            "[node]\nname = \"a\"\naddress = \"192.0.2.1\"\nkey_file = \"/k\"\n[etcd]\nendpoints = [\"http://h:1\"]\n\
             [[instance]]\nname = \"i\"\ninterface = \"eth0\"\naddresses = [\"192.0.2.9/24\"]\n[instance.sip]\n\
             recovery_port = 9\nports = {ports:?}\n"
        )
    };
    for n in [1, 64, 65, 200] {
        let checked = parse(&text(&ports(n)), "x", Files::Ignore).is_ok();
        let captured = !matches!(Capture::open_for("none", &ports(n), &[]), Err(CaptureError::Ports { .. }));
        assert_eq!((checked, captured), (n <= 64, n <= 64), "{n} ports");
    }
}

#[test]
fn no_text_makes_the_reader_panic() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/keepcall.toml")).unwrap();
    // Every cut of a good file, and every good file with one character replaced by one with a meaning in TOML or in a
    // name.
    for (i, _) in text.char_indices().step_by(7) {
        let _ = parse(&text[..i], "x", Files::Ignore).map_err(|e| e.to_string());
        for other in ["\"", "[", "=", "\n", "é", "0"] {
            let mut changed = text[..i].to_owned();
            changed.push_str(other);
            changed.push_str(&text[i + 1..]);
            let _ = parse(&changed, "x", Files::Ignore).map_err(|e| e.to_string());
        }
    }
}
