use super::{Asked, MAX_CLIENTS, ServeError, Serving, Socket};
use crate::config::Control;
use crate::control::api::{Reply, Request, Status};
use crate::control::client::{ClientError, ask};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const WAIT: Duration = Duration::from_secs(60);

fn at(path: &Path) -> Control {
    Control { socket: path.to_owned(), group: None }
}

/// Opens the socket and serves it.
async fn serve(config: &Control) -> Result<((Socket, Serving), mpsc::Receiver<Asked>), ServeError> {
    let socket = super::open(config).await?;
    let (serving, requests) = socket.serve().unwrap();
    Ok(((socket, serving), requests))
}

async fn ask_at(path: &Path, request: Request) -> Result<Reply, ClientError> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || ask(&path, &request, WAIT)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_reaches_the_agent_and_its_answer_the_client() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/deep/agent.sock");
    let (server, mut requests) = serve(&at(&path)).await.unwrap();
    let agent = tokio::spawn(async move {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (request, reply) = requests.recv().await.unwrap();
            reply.send(Reply::Status(Status { node: "a".to_owned(), ..Status::default() })).unwrap();
            seen.push(request);
        }
        // The third request finds no agent.
        drop(requests);
        seen
    });
    let order = Request::Switchover { instance: Some("pbx".to_owned()), to: None };
    for request in [Request::Status, order.clone()] {
        assert!(matches!(ask_at(&path, request).await.unwrap(), Reply::Status(s) if s.node == "a"));
    }
    assert_eq!(agent.await.unwrap(), [Request::Status, order]);
    assert!(matches!(ask_at(&path, Request::Status).await.unwrap(), Reply::Error(e) if e.message.contains("stopping")));
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o660, 0o750));
    drop(server);
    assert!(!path.exists());
    assert!(matches!(ask_at(&path, Request::Status).await, Err(ClientError::Missing(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_socket_is_respected_a_dead_one_replaced_and_a_file_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    let (first, _requests) = serve(&at(&path)).await.unwrap();
    assert!(matches!(serve(&at(&path)).await, Err(ServeError::InUse(_))));
    drop(first);
    drop(UnixListener::bind(&path).unwrap());
    assert!(matches!(ask_at(&path, Request::Status).await, Err(ClientError::Dead(_))));
    let (second, _requests) = serve(&at(&path)).await.unwrap();
    drop(second);
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(serve(&at(&path)).await, Err(ServeError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_too_long_lines_and_too_many_clients_are_answered_and_closed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    let (_server, mut requests) = serve(&at(&path)).await.unwrap();
    let talk = |bytes: Vec<u8>| {
        let path = path.clone();
        tokio::task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.set_read_timeout(Some(WAIT)).unwrap();
            // A client that writes more than the server reads gets a reset, which is as good as an answer.
            let _ = stream.write_all(&bytes);
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text);
            text
        })
    };
    assert!(talk(b"{\"nonsense\":1}\n".to_vec()).await.unwrap().contains("not a valid request"));
    let long = talk(vec![b'x'; 1 << 20]).await.unwrap();
    assert!(long.is_empty() || long.contains("not a valid request"), "{long}");
    assert!(requests.try_recv().is_err());
    // Silent clients take all the places. The next client is refused at once, without waiting for their time-out.
    let idle: Vec<_> = (0..MAX_CLIENTS).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        let path = path.clone();
        let reply = tokio::task::spawn_blocking(move || ask(&path, &Request::Status, Duration::from_millis(200)))
            .await
            .unwrap();
        if matches!(reply, Ok(Reply::Error(e)) if e.message.contains("too many")) {
            break;
        }
        assert!(Instant::now() < deadline, "never refused");
    }
    drop(idle);
}
