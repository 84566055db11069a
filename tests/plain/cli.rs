//! The command as a user runs it: exit codes, JSON, broken pipes, and a test that answers on the agent's socket.

use keepcall::config::Control;
use keepcall::control::api::{ApiError, Candidate, Candidates, ErrorKind, Reply, Request, Status, Switchover};
use keepcall::control::server::{Serving, Socket, open};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn keepcall(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keepcall"))
        .args(arguments)
        .env_remove("KEEPCALL_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// An agent's socket; `answer` gives the answers.
fn agent(
    socket: &Path,
    mut answer: impl FnMut(Request) -> Reply + Send + 'static,
) -> (tokio::runtime::Runtime, (Socket, Serving)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let control = Control { socket: socket.to_owned(), group: None };
    let (server, mut requests) = runtime.block_on(async {
        let socket = open(&control).await.unwrap();
        let (serving, requests) = socket.serve().unwrap();
        ((socket, serving), requests)
    });
    runtime.spawn(async move {
        while let Some((request, reply)) = requests.recv().await {
            let _ = reply.send(answer(request));
        }
    });
    (runtime, server)
}

#[test]
fn usage_and_help() {
    let (code, out, _) = said(&keepcall(&["--help"]));
    assert_eq!(code, Some(0));
    assert!(out.contains("4 agent not reachable") && out.contains("switchover"), "{out}");
    assert_eq!(said(&keepcall(&["frobnicate"])).0, Some(2));
    assert_eq!(said(&keepcall(&[])).0, Some(2));
    let (code, _, err) = said(&keepcall(&["--log", "keepcall=loud", "status"]));
    assert!(code == Some(2) && err.contains("not a log level"), "{err}");
}

#[test]
fn a_missing_agent_is_told_with_advice() {
    for socket in ["/nowhere/agent.sock", "/dev/null"] {
        let (code, out, err) = said(&keepcall(&["--socket", socket, "status"]));
        assert!(code == Some(4) && out.is_empty() && err.contains(socket), "{err}");
    }
}

#[test]
fn check_config_tells_good_from_bad() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let good = root.join("config/asterisk.toml");
    let (code, out, err) = said(&keepcall(&["check-config", "--no-files", good.to_str().unwrap()]));
    assert!(code == Some(0) && out.contains("good (1 instance, 0 warnings)"), "{out}{err}");
    let bad = root.join("tests/plain/config/invalid/form.toml");
    let (code, _, err) = said(&keepcall(&["check-config", "--config", bad.to_str().unwrap()]));
    assert!(code == Some(3) && err.contains("did you mean `address`?"), "{err}");
    let (code, out, _) = said(&keepcall(&["check-config", "--json", bad.to_str().unwrap()]));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["ok"]), (Some(3), &serde_json::json!(false)));
    assert_eq!(report["errors"][0]["line"], 1);
    assert_eq!(said(&keepcall(&["check-config", "/nowhere.toml"])).0, Some(3));
    // The annotated example is valid. Here its key file is missing, and the agent would not start to work.
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config/keepcall.toml");
    assert_eq!(said(&keepcall(&["check-config", "--no-files", example])).0, Some(0));
    let (code, _, err) = said(&keepcall(&["check-config", example]));
    assert!(code == Some(3) && err.contains("cannot read /etc/keepcall/cluster.key"), "{err}");
    assert_eq!(said(&keepcall(&["--config", "/nowhere.toml", "status"])).0, Some(3));
}

#[test]
fn inspect_tells_what_is_no_capture() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let here = directory.path().to_str().unwrap().to_owned();
    for (path, word) in [
        (file("empty", b""), "not a pcap or pcapng file"),
        (file("text", b"This is no capture, but a text of some length.\n"), "not a pcap or pcapng file"),
        (file("cut", b"\xd4\xc3\xb2\xa1\x02\x00"), "cut"),
        (here, "directory"),
        ("/nowhere.pcap".to_owned(), "No such file"),
    ] {
        let (code, out, err) = said(&keepcall(&["inspect", &path]));
        assert!(code == Some(1) && out.is_empty() && err.contains(word) && err.contains(&path), "{path}: {out}{err}");
        let (code, out, _) = said(&keepcall(&["inspect", "--json", &path]));
        let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert!(code == Some(1) && answer["error"]["message"].as_str().is_some_and(|m| m.contains(word)), "{out}");
    }
    // A capture without a packet is valid.
    let header = [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0];
    let (code, out, err) = said(&keepcall(&["inspect", &file("none.pcap", &header)]));
    assert!(code == Some(0) && out.contains("calls: 0"), "{out}{err}");
}

#[test]
fn inspect_reads_a_pipe() {
    let capture = include_bytes!("../../src/inspect/tests/cases/only-the-200-of-a-BYE-says-up.pcap");
    let inspect = |path: &str, bytes: &[u8]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_keepcall"))
            .args(["inspect", path])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that is no capture is not read to its end.
        let _ = child.stdin.take().unwrap().write_all(bytes);
        said(&child.wait_with_output().unwrap())
    };
    for path in ["-", "/dev/stdin"] {
        let (code, out, err) = inspect(path, capture);
        assert!(code == Some(0) && out.contains("calls: 1 (1 ended)"), "{path}: {out}{err}");
    }
    let (code, _, err) = inspect("-", &[0x55; 1 << 20]);
    assert!(code == Some(1) && err.contains("standard input is not a pcap or pcapng file"), "{err}");
    let (code, _, err) = inspect("-", b"");
    assert!(code == Some(1) && err.contains("standard input is empty"), "{err}");
}

#[test]
fn a_switchover_shows_candidates_and_asks_or_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let path = socket.to_str().unwrap();
    let (_runtime, _server) = agent(&socket, |request| match request {
        Request::Candidates { .. } => Reply::Candidates(Candidates {
            instance: "pbx".to_owned(),
            master: Some("a".to_owned()),
            epoch: 3,
            candidates: vec![
                Candidate { node: "b".to_owned(), priority: 100, against: Vec::new() },
                Candidate { node: "c".to_owned(), priority: 90, against: vec!["its server is down".to_owned()] },
            ],
            calls: None,
        }),
        Request::Switchover { instance, to } => {
            assert_eq!(instance.as_deref(), Some("pbx"));
            let to = to.unwrap_or_else(|| "b".to_owned());
            Reply::Switchover(Switchover {
                instance: "pbx".to_owned(),
                from: Some("a".to_owned()),
                to,
                epoch: 4,
                took_ms: 12,
            })
        }
        Request::Calls { .. } => {
            let kind = ErrorKind::Invalid;
            Reply::Error(ApiError { message: "no instance".to_owned(), advice: "one of: pbx".to_owned(), kind })
        }
        _ => Reply::Status(Status { node: "a".to_owned(), ..Status::default() }),
    });
    let (code, out, err) = said(&keepcall(&["--socket", path, "switchover"]));
    assert!(code == Some(5) && err.contains("--yes") && out.contains("its server is down"), "{out}{err}");
    let (code, out, _) = said(&keepcall(&["--socket", path, "switchover", "pbx", "--yes"]));
    assert!(code == Some(0) && out.contains("pbx: b is master (was a), epoch 4"), "{out}");
    let (code, _, err) = said(&keepcall(&["--socket", path, "switchover", "--yes", "--to", "c"]));
    assert!(code == Some(5) && err.contains("its server is down"), "{err}");
    assert_eq!(said(&keepcall(&["--socket", path, "switchover", "--yes", "--to", "zz"])).0, Some(2));
    let (code, out, _) = said(&keepcall(&["--socket", path, "switchover", "--yes", "--json", "--to", "b"]));
    assert_eq!((code, serde_json::from_str::<Switchover>(&out).unwrap().epoch), (Some(0), 4));
    let (code, out, err) = said(&keepcall(&["--socket", path, "calls", "--json"]));
    assert!(
        code == Some(2) && err.contains("one of: pbx") && out.contains("\"message\":\"no instance\""),
        "{out}{err}"
    );
    let (code, out, _) = said(&keepcall(&["--socket", path, "status", "--json"]));
    assert_eq!((code, serde_json::from_str::<Status>(&out).unwrap().node), (Some(0), "a".to_owned()));
    // An answer of the wrong kind.
    assert_eq!(said(&keepcall(&["--socket", path, "history"])).0, Some(1));
}

#[test]
fn a_closed_pipe_ends_the_output_quietly() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("agent.sock");
    let (_runtime, _server) = agent(&socket, |_| Reply::Status(Status::default()));
    let mut child = Command::new(env!("CARGO_BIN_EXE_keepcall"))
        .args(["--socket", socket.to_str().unwrap(), "status", "--watch", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The reader is gone: the next line written ends even a watch.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
}
