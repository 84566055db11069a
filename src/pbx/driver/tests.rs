use super::*;
use crate::pbx::bridges::ServerReports;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream as Socket};
use std::time::Instant;

/// Longer than any step takes on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// Serves one connection as an Asterisk without calls. Returns it logged in, with all lists sent.
fn serve(listener: &TcpListener, login: &str) -> Socket {
    let (mut socket, _) = listener.accept().unwrap();
    socket.write_all(b"Asterisk Call Manager/5.0.4\r\n").unwrap();
    let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
    let (mut action, mut id) = (String::new(), String::new());
    let mut served = 0;
    while served < 4 {
        let Some(Ok(line)) = lines.next() else { break };
        if let Some(a) = line.strip_prefix("Action: ") {
            action = a.to_owned();
        } else if let Some(i) = line.strip_prefix("ActionID: ") {
            id = i.to_owned();
        } else if line.is_empty() {
            let more = match action.as_str() {
                "Challenge" => "Challenge: 1\r\n\r\n".to_owned(),
                "Login" => "\r\n".to_owned(),
                "Status" => "EventList: start\r\n\r\nEvent: StatusComplete\r\n\r\n".to_owned(),
                _ => "EventList: start\r\n\r\nEvent: BridgeListComplete\r\n\r\n".to_owned(),
            };
            let response = if action == "Login" { login } else { "Success" };
            socket.write_all(format!("Response: {response}\r\nActionID: {id}\r\n{more}").as_bytes()).unwrap();
            served += 1;
            if action == "Login" && login != "Success" {
                break;
            }
        }
    }
    socket
}

async fn until(
    server: &mut Server,
    told: &mut ServerReports,
    what: impl Fn(&ServerStatus, &ServerReports) -> bool,
) -> Vec<Fact> {
    let end = Instant::now() + LONG;
    let mut facts = Vec::new();
    while !what(&server.status(), told) {
        assert!(Instant::now() < end, "{:?} {facts:?}", server.status());
        if let Ok(fact) = timeout(Duration::from_millis(10), server.next()).await {
            told.handle(&fact);
            facts.push(fact);
        }
    }
    facts
}

#[tokio::test]
async fn a_connection_is_made_again_and_its_end_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let secret_file = dir.path().join("secret");
    let mut server = Server::start(Login::Ami { address, user: "u".into(), secret_file: secret_file.clone() });
    let mut told = ServerReports::default();
    // No file, then a wrong secret, then the right one. Each attempt reads the file again.
    until(&mut server, &mut told, |s, _| s.error.as_deref().is_some_and(|e| e.contains("cannot read"))).await;
    std::fs::write(&secret_file, "s\n").unwrap();
    let refusing = std::thread::spawn(move || {
        drop(serve(&listener, "Error"));
        listener
    });
    until(&mut server, &mut told, |s, _| s.error.as_deref().is_some_and(|e| e.contains("refused the login"))).await;
    let listener = refusing.join().unwrap();
    let serving = std::thread::spawn(move || (serve(&listener, "Success"), listener));
    until(&mut server, &mut told, |s, t| s.connected && s.error.is_none() && t.is_live()).await;
    let (socket, listener) = serving.join().unwrap();
    drop(socket);
    let facts = until(&mut server, &mut told, |s, t| !s.connected && !t.is_live()).await;
    assert_eq!(facts, [Fact::Lost]);
    let serving = std::thread::spawn(move || (serve(&listener, "Success"), listener));
    let facts = until(&mut server, &mut told, |s, t| s.connected && t.is_live()).await;
    assert_eq!(facts, [Fact::Begin, Fact::Complete]);
    // A drop closes the connection.
    let (mut socket, _listener) = serving.join().unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    drop(server);
    let read =
        tokio::task::spawn_blocking(move || std::io::Read::read(&mut socket, &mut [0; 16]).map_err(|e| e.kind()));
    assert_eq!(read.await.unwrap(), Ok(0));
}
